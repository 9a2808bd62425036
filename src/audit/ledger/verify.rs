//! Is this log what was signed? Offline: a folder, a public key, and the checkpoints that anchors have kept.
//!
//! What an anchor's checkpoint covers is proved. What only the folder's own checkpoints cover is signed, and no more:
//! who owns the host and the key can make both again. What none covers is only there.

use super::checkpoint::{self, PublicKey};
use super::hashes::{self, Stored};
pub use super::problem::Problem;
use super::read::{self, Segment, Tail};
use super::retention;
use super::tree::Tree;
use super::witness::WitnessKey;
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use tlog_tiles::{Hash, HashReader, record_hash, stored_hash_index};

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// There is no segment at all and no checkpoint.
    #[error("{0} holds no log")]
    Nothing(PathBuf),
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that are there; the log's last index is one less.
    pub records: u64,
    /// The first record that is still there: older segments may have been deleted.
    pub first: u64,
    /// Segments.
    pub segments: u64,
    /// Records before this index are covered by a checkpoint that fits.
    pub signed: u64,
    /// Records before this index are covered by an anchor's checkpoint that fits.
    pub anchored: u64,
    /// What the log says of the records before `first`.
    pub deleted: Option<Deleted>,
    /// Bytes behind the last record that are none: a write that was not finished.
    pub torn: u64,
    /// What is wrong; the first is the cause of others more often than not.
    pub problems: Vec<Problem>,
}

/// Records that were deleted on purpose: retention, which records what it deletes and waits until that is anchored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// The record that says so.
    pub record: u64,
    /// All records with a smaller index.
    pub before: u64,
    /// When it was recorded.
    pub time: Option<Timestamp>,
}

/// One line.
impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, before, time } = self;
        write!(f, "records 0 to {} were deleted by retention: record {record}", before.saturating_sub(1))?;
        time.map_or(Ok(()), |time| write!(f, " of {time}"))
    }
}

impl Report {
    /// Nothing is wrong, and anchors cover records that are there.
    pub fn is_proved(&self) -> bool {
        self.problems.is_empty() && self.anchored > self.first
    }
}

/// One line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, first, anchored, signed, .. } = self;
        if let Some(problem) = self.problems.first() {
            let more = self.problems.len().saturating_sub(1);
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            return write!(f, "NOT SOUND: {problem}{more}");
        }
        let covered = |until: u64| format!("records {first} to {}", until.saturating_sub(1));
        let open = records.saturating_sub(*anchored);
        match (*anchored > *first, open) {
            _ if records == first => write!(f, "sound: no records"),
            (true, 0) => write!(f, "proved: {}", covered(*anchored)),
            (true, _) => write!(
                f,
                "proved: {}; NOT anchored yet: {open} from record {anchored} on ({} of them signed)",
                covered(*anchored),
                signed.saturating_sub(*anchored)
            ),
            (false, _) => write!(
                f,
                "sound, and NOT proved: no anchor covers any of {} ({} of them signed); the first is record {first}",
                covered(*records),
                signed.saturating_sub(*first)
            ),
        }
    }
}

/// A signed head, and where it was found.
#[derive(Debug, Clone)]
struct Head {
    root: Hash,
    path: PathBuf,
    anchor: bool,
}

type Heads = BTreeMap<u64, Vec<Head>>;

/// Checks a log's folder against its key and the checkpoints in `anchors` (files of notes).
pub fn verify(folder: &Path, key: &PublicKey, anchors: &[PathBuf]) -> Result<Report, Error> {
    verify_with(folder, key, anchors, &[])
}

/// The same, and against what these witnesses have cosigned, as the folder has it.
pub fn verify_with(
    folder: &Path,
    key: &PublicKey,
    anchors: &[PathBuf],
    witnesses: &[WitnessKey],
) -> Result<Report, Error> {
    let mut report = Report::default();
    let mut heads = Heads::new();
    let own = folder.join(checkpoint::FILE);
    if_there(collect(&own, &Kept::Own, key, &mut heads, &mut report))?;
    for path in anchors {
        collect(path, &Kept::Outside, key, &mut heads, &mut report)?;
    }
    for witness in witnesses {
        let path = folder.join(witness.file());
        if_there(collect(&path, &Kept::Cosigned(witness), key, &mut heads, &mut report))?;
    }
    let segments = read::segments(folder).map_err(|_| Error::Nothing(folder.to_owned()))?;
    if segments.is_empty() && heads.is_empty() {
        return Err(Error::Nothing(folder.to_owned()));
    }
    let mut walk =
        Walk { folder, heads: &heads, tree: Tree::default(), fits: 0, said: Vec::new(), report: &mut report };
    walk.segments(&segments);
    walk.finish();
    Ok(report)
}

/// Who keeps a file of checkpoints.
enum Kept<'a> {
    /// The log.
    Own,
    /// Somebody else, elsewhere.
    Outside,
    /// The log; nobody but the witness can make it.
    Cosigned(&'a WitnessKey),
}

/// A file that is not there has no checkpoints.
fn if_there(collected: Result<(), Error>) -> Result<(), Error> {
    match collected {
        Err(Error::Read(read::Error::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        collected => collected,
    }
}

/// Reads a file of checkpoints. Sizes must not fall, and one size has one root.
fn collect(path: &Path, kept: &Kept<'_>, key: &PublicKey, heads: &mut Heads, report: &mut Report) -> Result<(), Error> {
    let anchor = !matches!(kept, Kept::Own);
    let text = std::fs::read(path).map_err(|source| read::Error::Io { path: path.to_owned(), source })?;
    // The end of an anchor's file can be a write that is not finished, or was not.
    let whole = if anchor { checkpoint::whole_bytes(&text) } else { text.len() };
    let text = String::from_utf8_lossy(text.get(..whole).unwrap_or_default());
    let mut last = 0;
    for (number, note) in (1..).zip(checkpoint::notes(&text)) {
        let path = path.to_owned();
        let cosigned = if let Kept::Cosigned(witness) = kept { witness.has_cosigned(&note) } else { true };
        let Some(head) = key.open(note.as_bytes()).filter(|_| cosigned) else {
            // One anchor may keep several logs' checkpoints.
            let others = matches!(kept, Kept::Outside) && note.lines().next() != Some(key.name());
            if !others {
                report.problems.push(Problem::Checkpoint { number, path });
            }
            continue;
        };
        let known = heads.entry(head.size()).or_default();
        let forked = known.iter().any(|other| other.root != *head.hash());
        if head.size() < last || forked {
            report.problems.push(Problem::Order { number, path: path.clone() });
        }
        last = head.size();
        known.push(Head { root: *head.hash(), path, anchor });
    }
    Ok(())
}

/// Through the records, once.
struct Walk<'a> {
    folder: &'a Path,
    heads: &'a Heads,
    tree: Tree,
    /// The last checkpoint that fits.
    fits: u64,
    /// Records that tell of deletion, with their index.
    said: Vec<(u64, retention::Told)>,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn segments(&mut self, paths: &[PathBuf]) {
        let stored = Stored::open(self.folder).ok();
        let mut log = None;
        let mut number = None;
        for (place, path) in paths.iter().enumerate() {
            let last = place.saturating_add(1) == paths.len();
            let mut segment = match Segment::open(path) {
                Ok(segment) => segment,
                Err(error) => {
                    self.problem(Problem::Segment { path: path.clone(), reason: error.to_string() });
                    return;
                }
            };
            let header = segment.header().clone();
            if place == 0 && !self.start(&header, stored.as_ref(), path) {
                return;
            }
            let follows = log.is_none_or(|log| log == header.log)
                && number.is_none_or(|number: u64| number.saturating_add(1) == header.number)
                && super::segment::path(self.folder, header.number) == *path;
            if !follows {
                let reason = "belongs elsewhere: its header has another log's id or another place".to_owned();
                self.problem(Problem::Segment { path: path.clone(), reason });
            }
            if header.first != self.tree.size() {
                let found = self.tree.size();
                self.problem(Problem::Count { path: path.clone(), first: header.first, found });
                return;
            }
            (log, number) = (Some(header.log), Some(header.number));
            self.report.segments = self.report.segments.saturating_add(1);
            self.records(&mut segment, stored.as_ref(), path, last);
        }
    }

    /// Where the first segments were deleted, the tree starts from the hashes that were kept.
    fn start(&mut self, header: &super::segment::Header, stored: Option<&Stored>, path: &Path) -> bool {
        self.report.first = header.first;
        if header.first == 0 {
            self.heads_at(0);
            return true;
        }
        let kept = stored.and_then(|stored| stored.tree(header.first));
        let found = kept.is_some();
        if let Some(tree) = kept {
            let before: Vec<u64> = self.heads.range(..header.first).map(|(size, _)| *size).collect();
            for size in before {
                self.head_of_deleted(size, stored);
            }
            self.tree = tree;
            self.fits = header.first;
            self.heads_at(header.first);
        } else {
            let reason = format!("records before {} are gone, and {} has not their hashes", header.first, hashes::FILE);
            self.problem(Problem::Segment { path: path.to_owned(), reason });
        }
        found
    }

    fn records(&mut self, segment: &mut Segment, stored: Option<&Stored>, path: &Path, last: bool) {
        let mut scratch = Vec::new();
        loop {
            match segment.next_record() {
                Ok(Some(record)) => {
                    let index = self.tree.size();
                    let leaf = record_hash(record);
                    self.said.extend(retention::told(record).map(|told| (index, told)));
                    self.tree.push(record, &mut scratch);
                    scratch.clear();
                    self.compare(index, leaf, stored);
                    self.heads_at(self.tree.size());
                }
                Ok(None) => break,
                Err(error) => {
                    self.problem(Problem::Segment { path: path.to_owned(), reason: error.to_string() });
                    return;
                }
            }
        }
        match segment.tail() {
            Ok(Tail::Clean) => {}
            // An unfinished write leaves a frame that ends early, or one that does not fit, where zeros were set aside
            // behind it; but nothing of that was signed.
            Ok(Tail::Torn { bytes, bad }) if last && !(bad && self.is_signed(self.tree.size())) => {
                self.report.torn = bytes;
            }
            Ok(Tail::Torn { .. }) => {
                self.problem(Problem::Damaged { record: self.tree.size(), path: path.to_owned() });
            }
            Err(error) => self.problem(Problem::Segment { path: path.to_owned(), reason: error.to_string() }),
        }
    }

    /// The hashes that were stored when the record was written tell which one was changed. They are no proof: whoever
    /// changes a record may change them too, and then the root tells.
    fn compare(&mut self, index: u64, leaf: Hash, stored: Option<&Stored>) {
        let told = self.report.problems.iter().any(|problem| matches!(problem, Problem::Changed { .. }));
        let Some(stored) = stored.filter(|_| !told && self.is_signed(index)) else { return };
        let hashed = stored.read_hashes(&[stored_hash_index(0, index)]).ok();
        if hashed.as_deref().and_then(<[Hash]>::first).is_some_and(|hashed| *hashed != leaf) {
            self.problem(Problem::Changed { record: index });
        }
    }

    /// Compares what is left of deleted records, their hashes, with the checkpoints of this size.
    fn head_of_deleted(&mut self, size: u64, stored: Option<&Stored>) {
        let root = stored.and_then(|stored| stored.root(size));
        let other = self.heads.get(&size).and_then(|heads| heads.iter().find(|head| Some(head.root) != root));
        if let Some(head) = other {
            self.problem(Problem::Root { size, fits: 0, signed_in: head.path.clone() });
        }
    }

    /// Compares the root with the checkpoints of this size.
    fn heads_at(&mut self, size: u64) {
        let Some(heads) = self.heads.get(&size) else { return };
        let root = self.tree.root();
        for head in heads {
            if head.root != root {
                let problem = Problem::Root { size, fits: self.fits.min(size), signed_in: head.path.clone() };
                self.problem(problem);
                continue;
            }
            self.report.signed = self.report.signed.max(size);
            if head.anchor {
                self.report.anchored = self.report.anchored.max(size);
            }
        }
        if heads.iter().all(|head| head.root == root) {
            self.fits = size;
        }
    }

    /// What was signed and is not there.
    fn finish(&mut self) {
        let found = self.tree.size();
        self.report.records = found;
        if self.report.segments > 0 && self.report.first > 0 {
            self.deleted();
        }
        let missing = self.heads.range(found.saturating_add(1)..).next_back();
        if let Some((&size, heads)) = missing
            && let Some(head) = heads.first()
        {
            self.problem(Problem::Missing { size, found, signed_in: head.path.clone() });
        }
    }

    /// Records are deleted once every anchor covers the record that says so.
    fn deleted(&mut self) {
        let first = self.report.first;
        let has_anchors = self.heads.values().flatten().any(|head| head.anchor);
        let covered = if has_anchors { self.report.anchored } else { self.report.signed };
        let latest = |before: u64| {
            let said = self.said.iter().filter(|(index, _)| *index < before);
            said.max_by_key(|(_, told)| told.before).map(|(record, told)| (*record, told.clone()))
        };
        match latest(covered) {
            Some((record, told)) if told.before >= first => {
                self.report.deleted = Some(Deleted { record, before: first, time: told.time });
            }
            told => {
                let said = told.map_or(0, |(_, told)| told.before);
                let unanchored = latest(self.report.signed).filter(|(_, told)| told.before >= first);
                let unanchored = unanchored.map(|(record, _)| record);
                self.problem(Problem::Deleted { first, said, unanchored });
            }
        }
    }

    fn is_signed(&self, index: u64) -> bool {
        self.heads.range(index.saturating_add(1)..).next().is_some()
    }

    fn problem(&mut self, problem: Problem) {
        self.report.problems.push(problem);
    }
}

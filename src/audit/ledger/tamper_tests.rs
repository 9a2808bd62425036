//! Whatever is done to a log up to its last anchored checkpoint, `verify` names it; beyond, it never says "proved".

use super::anchor::{Anchor, FileAnchor};
use super::checkpoint::{self, Signer};
use super::medium::Disk;
use super::verify::{self, Report};
use super::writer::{Settings, Urgency};
use super::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Records before the anchored checkpoint, then as many again behind it.
const ANCHORED: u64 = 24;

struct Log {
    folder: tempfile::TempDir,
    outside: tempfile::TempDir,
}

impl Log {
    /// A copy of one log that was written once.
    fn written() -> Self {
        static ONCE: OnceLock<Log> = OnceLock::new();
        let once = ONCE.get_or_init(Self::write);
        let log = Self { folder: tempfile::tempdir().unwrap(), outside: tempfile::tempdir().unwrap() };
        for (from, to) in [(once.path(), log.path()), (once.outside.path(), log.outside.path())] {
            for entry in std::fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        log
    }

    /// A segment and a checkpoint for each run of the process; the last run without its anchor.
    fn write() -> Self {
        let log = Self { folder: tempfile::tempdir().unwrap(), outside: tempfile::tempdir().unwrap() };
        for run in 0..4_u64 {
            let anchors: Vec<Box<dyn Anchor>> = match run {
                0..=2 => vec![Box::new(FileAnchor::open(&log.anchor()).unwrap())],
                _ => Vec::new(),
            };
            let settings = Settings { folder: log.path().to_owned(), segment_bytes: 700, reserve_bytes: 100 };
            let signer = Signer::parse(tests::PRIVATE).unwrap();
            let (ledger, _) = Ledger::open(
                settings,
                Arc::new(Disk),
                Clock::system(),
                signer,
                Behind { anchors, ..Behind::default() },
            )
            .unwrap();
            for n in 0..ANCHORED / 3 {
                let mut frames = Vec::new();
                assert!(frame::push(&mut frames, format!("run {run}, record {n:0>40}").as_bytes()));
                ledger.append(&frames, Urgency::Normal).unwrap();
            }
            drop(ledger);
        }
        log
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn anchor(&self) -> PathBuf {
        self.outside.path().join("anchored")
    }

    fn verify(&self) -> Report {
        let key = Signer::parse(tests::PRIVATE).unwrap();
        verify::verify(self.path(), key.public(), &[self.anchor()]).unwrap()
    }

    /// Every record with its segment's number.
    fn records(&self) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        for path in read::segments(self.path()).unwrap() {
            let mut segment = read::Segment::open(&path).unwrap();
            while let Some(record) = segment.next_record().unwrap() {
                let record = record.to_vec();
                all.push((segment.header().number, record));
            }
        }
        all
    }

    /// Writes the segments anew with well-formed frames, each record in the segment that is said.
    fn rewrite(&self, records: &[(u64, Vec<u8>)], renumber: bool) {
        let mut first = 0;
        for path in read::segments(self.path()).unwrap() {
            let mut header = read::Segment::open(&path).unwrap().header().clone();
            if renumber {
                header.first = first;
            }
            let mut bytes = header.encode().to_vec();
            for (_, record) in records.iter().filter(|(number, _)| *number == header.number) {
                assert!(frame::push(&mut bytes, record));
                first += 1;
            }
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Change(usize, usize),
    Drop(usize),
    Swap(usize, usize),
    Duplicate(usize),
    Replay(usize, usize),
    Truncate(usize),
    FlipBit(usize, usize),
    DropSegment(usize),
    SwapSegments(usize, usize),
    DropHashes,
}

fn deeds() -> impl Strategy<Value = (Deed, bool, bool)> {
    let n = usize::try_from(ANCHORED).unwrap();
    let deed = prop_oneof![
        (0..n, 0..20_usize).prop_map(|(at, byte)| Deed::Change(at, byte)),
        (0..n).prop_map(Deed::Drop),
        (0..n, 0..n).prop_map(|(a, b)| Deed::Swap(a, b)),
        // The last one's copy stands behind it, where no anchor covers it.
        (0..n - 1).prop_map(Deed::Duplicate),
        (0..n, 0..n).prop_map(|(a, b)| Deed::Replay(a, b)),
        (0..n).prop_map(Deed::Truncate),
        (0..n, 0..40_usize).prop_map(|(at, byte)| Deed::FlipBit(at, byte)),
        (0..3_usize).prop_map(Deed::DropSegment),
        (0..3_usize, 0..4_usize).prop_map(|(a, b)| Deed::SwapSegments(a, b)),
        Just(Deed::DropHashes),
    ];
    (deed, any::<bool>(), any::<bool>())
}

/// Does it; `false` where it changes nothing.
fn commit(log: &Log, deed: &Deed, renumber: bool) -> bool {
    let mut records = log.records();
    let segments = read::segments(log.path()).unwrap();
    match *deed {
        Deed::Change(at, byte) => records[at].1[byte] ^= 0x20,
        Deed::Drop(at) => drop(records.remove(at)),
        Deed::Swap(a, b) if records[a].1 == records[b].1 => return false,
        Deed::Swap(a, b) => {
            let kept = records[a].1.clone();
            records[a].1 = std::mem::replace(&mut records[b].1, kept);
        }
        Deed::Duplicate(at) => records.insert(at, records[at].clone()),
        Deed::Replay(a, b) if records[a].1 == records[b].1 => return false,
        Deed::Replay(a, b) => records[a].1 = records[b].1.clone(),
        Deed::Truncate(at) => records.truncate(at),
        Deed::FlipBit(at, byte) => {
            let number = records[at].0;
            let before = records[..at].iter().filter(|(other, _)| *other == number);
            let start: usize = before.map(|(_, record)| record.len() + frame::HEAD_BYTES).sum();
            let path = segment::path(log.path(), number);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[segment::HEADER_BYTES + start + byte] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return true;
        }
        Deed::DropSegment(at) => {
            std::fs::remove_file(&segments[at]).unwrap();
            return true;
        }
        Deed::SwapSegments(a, b) if a == b => return false,
        Deed::SwapSegments(a, b) => {
            let kept = std::fs::read(&segments[a]).unwrap();
            std::fs::copy(&segments[b], &segments[a]).unwrap();
            std::fs::write(&segments[b], kept).unwrap();
            return true;
        }
        Deed::DropHashes => {
            std::fs::remove_file(log.path().join(hashes::FILE)).unwrap();
            return false;
        }
    }
    log.rewrite(&records, renumber);
    true
}

#[test]
fn an_untouched_log_is_proved_up_to_its_last_anchor_and_no_further() {
    let log = Log::written();
    let report = log.verify();
    let expected = (ANCHORED * 4 / 3, ANCHORED * 4 / 3, ANCHORED, 0);
    assert_eq!((report.records, report.signed, report.anchored, report.problems.len()), expected, "{report}");
    assert_eq!(report.to_string(), "proved: records 0 to 23; NOT anchored yet: 8 from record 24 on (8 of them signed)");
    let key = Signer::parse(tests::PRIVATE).unwrap();
    let unanchored = verify::verify(log.path(), key.public(), &[]).unwrap();
    assert!(unanchored.to_string().starts_with("sound, and NOT proved: no anchor covers any of records 0 to 31"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    /// Whoever does it may also take the folder's own checkpoints and stored hashes away.
    #[test]
    fn whatever_is_done_before_the_last_anchor_is_named((deed, renumber, forget) in deeds()) {
        let log = Log::written();
        let done = commit(&log, &deed, renumber);
        if forget {
            std::fs::write(log.path().join(checkpoint::FILE), b"").unwrap();
            let _ = std::fs::remove_file(log.path().join(hashes::FILE));
        }
        let report = log.verify();
        prop_assert_eq!(!report.problems.is_empty(), done, "{:?}: {}", deed, report);
        prop_assert_eq!(report.to_string().starts_with("NOT SOUND: "), done);
    }

    /// What no anchor covers may be made again by whoever has host and key; it is never called proved.
    #[test]
    fn behind_the_last_anchor_nothing_is_called_proved(keep in ANCHORED..=ANCHORED * 4 / 3, forget: bool) {
        let log = Log::written();
        let mut records = log.records();
        records.truncate(usize::try_from(keep).unwrap());
        log.rewrite(&records, true);
        if forget {
            let text = std::fs::read_to_string(log.path().join(checkpoint::FILE)).unwrap();
            let all: Vec<_> = checkpoint::notes(&text).collect();
            let kept: String = all.iter().take(3).flat_map(|note| [note.as_str(), "\n"]).collect();
            std::fs::write(log.path().join(checkpoint::FILE), kept).unwrap();
        }
        let report = log.verify();
        prop_assert_eq!(report.anchored, ANCHORED);
        let whole = keep == ANCHORED * 4 / 3;
        prop_assert_eq!(report.problems.is_empty(), whole || forget, "{}", report);
        if keep > ANCHORED && report.problems.is_empty() {
            prop_assert!(report.to_string().contains("NOT anchored yet"), "{}", report);
        }
    }
}

#[test]
fn a_checkpoint_that_is_changed_moved_or_repeated_is_named() {
    let log = Log::written();
    let path = log.path().join(checkpoint::FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    let notes: Vec<_> = checkpoint::notes(&text).collect();
    let write = |notes: &[&String]| {
        std::fs::write(&path, notes.iter().flat_map(|note| [note.as_str(), "\n"]).collect::<String>()).unwrap();
        log.verify()
    };
    assert!(write(&[&notes[0], &notes[1], &notes[2], &notes[3]]).problems.is_empty());
    assert!(write(&[&notes[1], &notes[0]]).to_string().contains("checkpoint 2 in"));
    let forged = notes[1].replace("\n16\n", "\n17\n");
    assert!(write(&[&notes[0], &forged]).to_string().contains("checkpoint 2 in"));
    let torn = notes[1][..notes[1].len() - 9].to_owned();
    assert!(write(&[&notes[0], &torn]).to_string().contains("not signed with this key, or damaged"));
    let own = Signer::parse(tests::PRIVATE).unwrap();
    let root = *own.public().open(notes[0].as_bytes()).unwrap().hash();
    for name in ["EnochRoot", own.name()] {
        let other = Signer::parse(&checkpoint::private_key(name, &[7; 32])).unwrap();
        let foreign = String::from_utf8(other.sign(8, root).unwrap()).unwrap();
        assert!(write(&[&foreign]).to_string().contains("not signed with this key"));
        std::fs::write(&path, &text).unwrap();
        let report = verify::verify(log.path(), other.public(), &[]).unwrap();
        assert!(report.to_string().starts_with("NOT SOUND: checkpoint 1 in"), "{report}");
    }
}

#[test]
fn segments_that_were_deleted_by_record_are_no_loss() {
    let log = Log::written();
    let settings = Settings { folder: log.path().to_owned(), segment_bytes: 700, reserve_bytes: 100 };
    let signer = Signer::parse(tests::PRIVATE).unwrap();
    let anchors: Vec<Box<dyn Anchor>> = vec![Box::new(FileAnchor::open(&log.anchor()).unwrap())];
    let behind = Behind { anchors, ..Behind::default() };
    let (ledger, _) = Ledger::open(settings, Arc::new(Disk), Clock::system(), signer, behind).unwrap();
    let mut frames = Vec::new();
    assert!(frame::push(&mut frames, br#"{"event":"segments_deleted","before":16}"#));
    ledger.append(&frames, Urgency::Reserve).unwrap();
    drop(ledger);
    for number in [1, 2] {
        std::fs::remove_file(segment::path(log.path(), number)).unwrap();
    }
    let report = log.verify();
    assert_eq!(report.to_string(), "proved: records 16 to 32");
    assert_eq!(report.deleted.unwrap().to_string(), "records 0 to 15 were deleted by retention: record 32");
    // What says so must be anchored: whoever owns host and key could write it later.
    let anchor = std::fs::read_to_string(log.anchor()).unwrap();
    let before: Vec<_> = checkpoint::notes(&anchor).filter(|note| !note.contains("\n33\n")).collect();
    std::fs::write(log.anchor(), before.iter().flat_map(|note| [note.as_str(), "\n"]).collect::<String>()).unwrap();
    let report = log.verify().to_string();
    assert!(report.starts_with("NOT SOUND: records 0 to 15 are missing, and record 32, which says"), "{report}");
    // Checkpoints of what was deleted must fit the hashes that were kept.
    let other = Signer::parse(tests::PRIVATE).unwrap().sign(7, tlog_tiles::Hash([7; 32])).unwrap();
    std::fs::write(log.anchor(), [&other[..], b"\n", anchor.as_bytes()].concat()).unwrap();
    let report = log.verify().to_string();
    assert!(report.starts_with("NOT SOUND: records 0 to 6 are not those of the checkpoint of 7"), "{report}");
    std::fs::write(log.anchor(), anchor).unwrap();
    std::fs::remove_file(segment::path(log.path(), 3)).unwrap();
    let report = log.verify().to_string();
    assert_eq!(report, "NOT SOUND: records 16 to 23 are missing, and no record says that they were deleted");
}

#[test]
fn a_proof_holds_for_its_record_alone() {
    let log = Log::written();
    let key = Signer::parse(tests::PRIVATE).unwrap();
    let text = std::fs::read_to_string(log.anchor()).unwrap();
    let note = checkpoint::notes(&text).last().unwrap();
    let head = key.public().open(note.as_bytes()).unwrap();
    for (index, (_, record)) in (0..).zip(log.records()) {
        let found = prove::find(log.path(), |other| other == record).unwrap();
        assert_eq!(found, Some((index, record.clone())));
        let proof = prove::prove(log.path(), index, &note, &head);
        assert_eq!(proof.is_some(), index < ANCHORED);
        let Some(proof) = proof else { continue };
        assert_eq!(prove::check(&proof, &record, key.public()), Some(index));
        assert_eq!(prove::check(&proof, b"another", key.public()), None);
        assert_eq!(prove::check(&proof.replace("index ", "index 1"), &record, key.public()), None);
    }
    assert_eq!(prove::find(log.path(), |record| record == b"nobody").unwrap(), None);
}

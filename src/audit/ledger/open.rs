//! The folder as the last process left it: what is whole goes on, what is torn is cut off and told, and what was
//! signed and is not there any more stops the start.

use super::checkpoint::{self, PublicKey};
use super::hashes::{Hashes, Stored};
use super::medium::Medium;
use super::read::{self, Segment, Tail};
use super::segment;
use super::tree::Tree;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tlog_tiles::{Checkpoint, Hash};
use uuid::Uuid;

/// Held while a process writes the log.
const LOCK: &str = "lock";
/// How much of the checkpoints' end is read for the last one, in bytes.
const LAST_NOTES_BYTES: u64 = 64 * 1024;

/// Why a log cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file in it.
    #[error("cannot use the log's folder")]
    Io(#[from] io::Error),
    /// Another process has it.
    #[error("another process writes to this log")]
    Locked,
    /// A segment.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// Records were signed and are gone.
    #[error(
        "{signed} records were signed and {found} are there: keep the folder as it is and look into it with `audit verify`"
    )]
    Lost {
        /// The last checkpoint's size.
        signed: u64,
        /// Records in the segments.
        found: u64,
    },
    /// The records are not the ones that were signed.
    #[error(
        "the first {0} records are not the ones that were signed: keep the folder as it is and look into it with `audit verify`"
    )]
    Changed(u64),
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// Held by whoever writes.
    pub lock: File,
    /// The log's id.
    pub log: Uuid,
    /// The next segment's number.
    pub number: u64,
    /// The next record's index.
    pub next: u64,
    /// Bytes that were cut off behind the last record, and the segment they were in.
    pub cut: Option<(u64, u64)>,
    /// The tree up to the last checkpoint.
    pub tree: Tree,
}

/// Looks at the folder, cuts off what is torn, and syncs what the last process may not have.
pub fn open(folder: &Path, medium: &dyn Medium, key: &PublicKey) -> Result<Found, Error> {
    let lock = lock(folder)?;
    let last = last_checkpoint(folder, key)?;
    let signed = last.as_ref().map_or(0, Checkpoint::size);
    let Some((path, mut segment)) = last_segment(folder)? else {
        if signed > 0 {
            return Err(Error::Lost { signed, found: 0 });
        }
        return Ok(Found { lock, log: Uuid::new_v4(), number: 1, next: 0, cut: None, tree: Tree::default() });
    };
    let (next, number) = (segment.next_index(), segment.header().number);
    if next < signed {
        return Err(Error::Lost { signed, found: next });
    }
    let file = medium.open(&path)?;
    let cut = match segment.tail()? {
        Tail::Clean => None,
        Tail::Torn { bytes, .. } => {
            file.truncate(segment.whole_bytes())?;
            Some((number, bytes))
        }
    };
    file.sync()?;
    let tree = tree(folder, medium, last.as_ref())?;
    Ok(Found { lock, log: segment.header().log, number: number.saturating_add(1), next, cut, tree })
}

/// The last segment, read to its end. One that was made and never begun, because the disk failed in between, says of
/// its own where it would have begun, and goes: its predecessor went on there, if only with a write that failed (one that
/// was begun follows none that is not clean).
fn last_segment(folder: &Path) -> Result<Option<(PathBuf, Segment)>, Error> {
    let mut paths = read::segments(folder)?;
    let Some(path) = paths.pop() else { return Ok(None) };
    let mut segment = read_through(&path)?;
    let first = segment.header().first;
    let has_none = segment.next_index() == first && segment.tail()? == Tail::Clean;
    let Some(before) = paths.pop().filter(|_| has_none) else {
        return Ok(Some((path, segment)));
    };
    let mut predecessor = read_through(&before)?;
    let next = predecessor.next_index();
    let went_on = next > first || next == first && predecessor.tail()? != Tail::Clean;
    if !went_on {
        return Ok(Some((path, segment)));
    }
    tracing::warn!(segment = segment.header().number, "removing a segment that was made and never begun");
    std::fs::remove_file(path)?;
    Ok(Some((before, predecessor)))
}

fn read_through(path: &Path) -> Result<Segment, Error> {
    let mut segment = Segment::open(path)?;
    while segment.next_record()?.is_some() {}
    Ok(segment)
}

fn lock(folder: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// The last checkpoint that the log's own key has signed.
fn last_checkpoint(folder: &Path, key: &PublicKey) -> io::Result<Option<Checkpoint>> {
    let file = match File::open(folder.join(checkpoint::FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LAST_NOTES_BYTES);
    let mut bytes = vec![0; usize::try_from(length - start).unwrap_or_default()];
    file.read_exact_at(&mut bytes, start)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first one may be cut, and does not open then.
    let opened = checkpoint::notes(&text).filter_map(|note| key.open(note.as_bytes()));
    Ok(opened.max_by_key(Checkpoint::size))
}

/// The tree up to the last checkpoint: from the stored hashes where they fit it, else from the records.
fn tree(folder: &Path, medium: &dyn Medium, last: Option<&Checkpoint>) -> Result<Tree, Error> {
    let Some(last) = last else { return Ok(Tree::default()) };
    let stored = Stored::open(folder).ok().and_then(|stored| stored.tree(last.size()));
    if let Some(tree) = stored.filter(|tree| tree.root() == *last.hash()) {
        return Ok(tree);
    }
    tracing::warn!(records = last.size(), "the log's hashes do not fit its last checkpoint; hashing the records again");
    rebuild(folder, medium, last.size(), *last.hash())
}

/// The tree of the records that were deleted, of which only hashes are left.
fn deleted(folder: &Path) -> Result<Tree, Error> {
    let first = read::first(folder)?;
    Ok(Stored::open(folder).ok().and_then(|stored| stored.tree(first)).unwrap_or_default())
}

fn rebuild(folder: &Path, medium: &dyn Medium, size: u64, root: Hash) -> Result<Tree, Error> {
    let mut hashes = Hashes::resume(folder, medium, deleted(folder)?)?;
    for number in segment::numbers(folder)? {
        let mut segment = Segment::open(&segment::path(folder, number))?;
        if segment.next_index() != hashes.tree().size() {
            break;
        }
        while hashes.tree().size() < size
            && let Some(record) = segment.next_record()?
        {
            hashes.push(record);
        }
        hashes.write()?;
    }
    // Whoever goes on from there takes them for what the disk has.
    hashes.sync()?;
    let tree = hashes.tree().clone();
    if tree.size() == size && tree.root() == root { Ok(tree) } else { Err(Error::Changed(size)) }
}

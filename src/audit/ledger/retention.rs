//! Old segments go, once a record in the log itself says so and every anchor has a checkpoint that covers that record.
//!
//! First the record, then its anchors, then the files, oldest first: so a log whose first records are missing is sound
//! only where it says why, and a crash in between leaves a log that is sound. The tree's hashes stay, and proofs of later
//! records with them.

use super::hashes::Stored;
use super::medium::Medium;
use super::read::{self, Segment, Tail};
use super::writer::{Urgency, Writer};
use crate::time::{Clock, Timestamp, day, later};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tlog_tiles::Hash;

/// `event` of the record.
pub const EVENT: &str = "segments_deleted";
/// How often it is looked whether a segment is old enough.
const EVERY: Duration = Duration::from_secs(3600);
/// When it is tried again after an error.
const AGAIN: Duration = Duration::from_secs(60);

/// What a record of a deletion says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Told {
    event: String,
    /// All records with a smaller index.
    pub before: u64,
    /// When it was recorded.
    #[serde(default)]
    pub time: Option<Timestamp>,
}

/// What this record says was deleted, if it is about that.
pub fn told(record: &[u8]) -> Option<Told> {
    // Most records are no candidates, and are not parsed.
    memchr::memmem::find(record, EVENT.as_bytes())?;
    let told: Told = serde_json::from_slice(record).ok()?;
    (told.event == EVENT).then_some(told)
}

/// Why nothing is deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The segments.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// The record, or the files.
    #[error("cannot record or delete old segments")]
    Io(#[from] io::Error),
    /// Later records could not be proved any more.
    #[error("the log's hashes are not there; nothing is deleted")]
    Hashes,
}

/// Whole segments that go: the last record of each was written before a time, and every anchor covers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Deletion {
    /// Their files, oldest first.
    pub segments: Vec<PathBuf>,
    /// The number of the first of them …
    pub first_segment: u64,
    /// … and of the last.
    pub last_segment: u64,
    /// The index of the first record in them.
    pub first: u64,
    /// All records with a smaller index are in them, or were deleted before.
    pub before: u64,
    /// The size of a tree that every anchor has a checkpoint of, or of a larger one.
    pub tree_size: u64,
    /// Its root.
    pub tree_root: Hash,
    /// Keys that go with them, where there are any.
    pub keys: Option<OldKeys>,
}

/// Keys that nothing needs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldKeys {
    /// Those of all days before this one.
    pub before: String,
    /// How many that are.
    pub count: u64,
}

/// The search for what keys nothing needs.
enum Search {
    /// Those, if there are any.
    Done(Option<OldKeys>),
    /// One more segment has been read, and not all are.
    GoesOn,
}

/// Keys that open what records have sealed, each of one day. Days are as [`day`] has them.
pub trait DayKeys: Send + Sync + fmt::Debug {
    /// The earliest day of a key that this record names.
    fn named(&self, record: &[u8]) -> Option<String>;
    /// How many there are of days before this one.
    fn count(&self, before: &str) -> io::Result<u64>;
    /// Deletes those; the disk has it when this returns. There may be none.
    fn delete(&self, before: &str) -> io::Result<()>;
}

/// What could go; `None` where nothing could. The segment that is written never goes.
pub fn deletable(folder: &Path, until: Timestamp, covered: u64) -> Result<Option<Deletion>, Error> {
    let mut segments = Vec::new();
    let mut behind = None;
    let paths = read::segments(folder)?;
    for (path, next) in paths.iter().zip(paths.iter().skip(1)) {
        // A segment's last record is older than its successor's beginning.
        let next = Segment::open(next)?.header().clone();
        if next.created > until || next.first > covered {
            break;
        }
        segments.push(path.clone());
        behind = Some(next);
    }
    let (Some(first), Some(behind)) = (segments.first(), behind) else { return Ok(None) };
    let first = Segment::open(first)?.header().clone();
    let root = Stored::open(folder).ok().and_then(|stored| stored.root(covered));
    Ok(Some(Deletion {
        segments,
        first_segment: first.number,
        last_segment: behind.number.saturating_sub(1),
        first: first.first,
        before: behind.first,
        tree_size: covered,
        tree_root: root.ok_or(Error::Hashes)?,
        keys: None,
    }))
}

/// The earliest day of a key that any record here names.
fn earliest_named(segment: &mut Segment, keys: &dyn DayKeys) -> Result<Option<String>, Error> {
    let mut earliest = None;
    while let Some(record) = segment.next_record()? {
        earliest = [earliest, keys.named(record)].into_iter().flatten().min();
    }
    Ok(earliest)
}

/// The same of a segment that is written no more. What of it cannot be read may name any day.
fn earliest_of_whole(path: &Path, keys: &dyn DayKeys) -> Result<Option<String>, Error> {
    let mut segment = Segment::open(path)?;
    let earliest = earliest_named(&mut segment, keys)?;
    Ok(if segment.tail()? == Tail::Clean { earliest } else { Some(String::new()) })
}

/// Writes the record: its bytes, as a whole frame.
pub type Tell = Arc<dyn Fn(&Deletion) -> io::Result<Vec<u8>> + Send + Sync>;

/// How long records are kept.
#[derive(Clone)]
pub struct Retention {
    /// At least so long.
    pub keep: Duration,
    /// Says what is deleted.
    pub tell: Tell,
    /// The keys of what is sealed in records.
    pub keys: Option<Arc<dyn DayKeys>>,
}

impl fmt::Debug for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retention").field("keep", &self.keep).finish_non_exhaustive()
    }
}

/// How far others are with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Every anchor has a checkpoint that covers the records before this index.
    pub anchored: u64,
    /// Every sink has delivered the records before this index.
    pub delivered: u64,
}

/// Deletes what is old, a step at a time.
#[derive(Debug)]
pub struct Retainer {
    retention: Retention,
    folder: PathBuf,
    medium: Arc<dyn Medium>,
    clock: Clock,
    /// When it is looked next.
    due: Timestamp,
    /// Nothing had come far enough then: it is looked again as soon as something has moved.
    held_up: Option<Progress>,
    /// What goes as soon as the record of it, whose index this is, is anchored.
    recorded: Option<(Deletion, u64)>,
    /// What the records of segments that are written no more name ([`earliest_of_whole`]), by path.
    named: BTreeMap<PathBuf, Option<String>>,
}

impl Retainer {
    /// Looks at once, then every hour.
    pub fn new(retention: Retention, folder: &Path, medium: Arc<dyn Medium>, clock: Clock) -> Self {
        let (folder, due) = (folder.to_owned(), clock.now());
        Self { retention, folder, medium, clock, due, held_up: None, recorded: None, named: BTreeMap::new() }
    }

    /// Does what can be done now: records what is to go, or deletes what was recorded. `append` gives the index of a
    /// record's frame. Called again and again; after an error too.
    pub fn step(&mut self, progress: Progress, append: impl FnOnce(&[u8]) -> io::Result<u64>) -> Result<(), Error> {
        if let Some((deletion, record)) = &self.recorded {
            if progress.anchored <= *record {
                return Ok(());
            }
            for path in &deletion.segments {
                self.medium.remove(path)?;
            }
            if let (Some(keys), Some(old)) = (&self.retention.keys, &deletion.keys) {
                keys.delete(&old.before)?;
            }
            let (before, segments) = (deletion.before, deletion.segments.len());
            let keys = deletion.keys.as_ref().map(|old| old.count);
            tracing::info!(before, segments, keys, record, "old segments of the audit log are deleted");
            self.recorded = None;
            return Ok(());
        }
        let now = self.clock.now();
        if self.due > now && self.held_up.is_none_or(|then| then == progress) {
            return Ok(());
        }
        let until = now.checked_sub(self.retention.keep).unwrap_or(Timestamp::MIN);
        self.due = later(now, AGAIN);
        let covered = progress.anchored.min(progress.delivered);
        let found = if covered == 0 { None } else { deletable(&self.folder, until, covered)? };
        self.held_up = found.is_none().then_some(progress);
        if let Some(mut deletion) = found {
            deletion.keys = match self.old_keys(&deletion)? {
                Search::Done(keys) => keys,
                Search::GoesOn => {
                    self.due = now;
                    return Ok(());
                }
            };
            let index = append(&(self.retention.tell)(&deletion)?)?;
            self.recorded = Some((deletion, index));
        }
        self.due = later(now, EVERY);
        Ok(())
    }

    /// The keys that go with these segments.
    ///
    /// A record may be written days after it was sealed (it has waited for room), and a clock may be put back: what stays
    /// is asked, and not the calendar alone.
    fn old_keys(&mut self, deletion: &Deletion) -> Result<Search, Error> {
        let Some(keys) = self.retention.keys.clone() else { return Ok(Search::Done(None)) };
        let mut stay = read::segments(&self.folder)?;
        stay.retain(|path| !deletion.segments.contains(path));
        let (Some(first), Some(written)) = (stay.first(), stay.last()) else { return Ok(Search::Done(None)) };
        let begun = day(Segment::open(first)?.header().created);
        if self.named.is_empty() && keys.count(&begun)? == 0 {
            return Ok(Search::Done(None));
        }
        self.named.retain(|path, _| stay.contains(path));
        if let Some(unread) = stay.iter().find(|path| *path != written && !self.named.contains_key(*path)) {
            self.named.insert(unread.clone(), earliest_of_whole(unread, &*keys)?);
            return Ok(Search::GoesOn);
        }
        let named = self.named.values().flatten().min().cloned();
        let before =
            [Some(begun), named, earliest_named(&mut Segment::open(written)?, &*keys)?].into_iter().flatten().min();
        let before = before.unwrap_or_default();
        let count = keys.count(&before)?;
        Ok(Search::Done((count > 0).then_some(OldKeys { before, count })))
    }
}

/// Appends one record, by the reserve if need be (what it announces makes room), and gives its index.
pub fn append(writer: &mut Writer, frame: &[u8]) -> io::Result<u64> {
    Ok(writer.append(frame, 1, Urgency::Reserve)?.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::super::hashes::Hashes;
    use super::super::medium::Disk;
    use super::super::segment::{self, Header};
    use super::super::tree::Tree;
    use super::*;
    use uuid::Uuid;

    #[test]
    fn only_a_record_of_its_own_speaks_of_deletion() {
        let before = |record: &[u8]| told(record).map(|told| told.before);
        assert_eq!(before(br#"{"version":1,"event":"segments_deleted","before":7}"#), Some(7));
        assert_eq!(before(br#"{"event":"begin","text":"\"event\":\"segments_deleted\",\"before\":7"}"#), None);
        assert_eq!(before(br#"{"event":"begin","before":7,"text":"segments_deleted"}"#), None);
        assert_eq!(before(b"segments_deleted"), None);
    }

    #[test]
    fn old_and_anchored_segments_go_and_never_the_last() {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=4_u64 {
            let created = Timestamp::from_second(100 * i64::try_from(number).unwrap()).unwrap();
            let header = Header { log: Uuid::nil(), number, first: 10 * (number - 1), created };
            std::fs::write(segment::path(folder.path(), number), header.encode()).unwrap();
        }
        let at = |second| Timestamp::from_second(second).unwrap();
        let found = |second, covered| deletable(folder.path(), at(second), covered);
        assert!(matches!(found(9999, 100), Err(Error::Hashes)), "what would prove the rest is not there");
        let mut hashes = Hashes::resume(folder.path(), &Disk, Tree::default()).unwrap();
        (0..100_u8).for_each(|n| hashes.push(&[n]));
        hashes.write().unwrap();
        let files = |numbers: &[u64]| numbers.iter().map(|&n| segment::path(folder.path(), n)).collect::<Vec<_>>();
        let expect = |second, covered, numbers: &[u64], before| {
            let deletion = found(second, covered).unwrap().unwrap();
            assert_eq!((deletion.segments, deletion.before), (files(numbers), before));
            assert_eq!((deletion.first_segment, deletion.last_segment), (1, numbers.len() as u64));
            assert_eq!((deletion.first, deletion.tree_size), (0, covered));
        };
        expect(9999, 100, &[1, 2, 3], 30);
        expect(300, 100, &[1, 2], 20);
        expect(9999, 19, &[1], 10);
        assert_eq!((found(199, 100).unwrap(), found(9999, 9).unwrap()), (None, None));
    }
}

//! Old segments may go, once a record in the log itself says so and an anchor covers that record.
//!
//! First the record, then its anchor, then the files: so a log whose first records are missing is sound only where it
//! says why. The tree's hashes stay, and proofs of later records with them.

use super::read::{self, Segment};
use crate::time::Timestamp;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `event` of the record.
pub const EVENT: &str = "segments_deleted";

/// The member of the record that says which: all records with a smaller index.
#[derive(Debug, Deserialize)]
struct Deleted<'a> {
    event: &'a str,
    before: u64,
}

/// The index before which records were deleted, if this record says so.
pub fn deleted_before(record: &[u8]) -> Option<u64> {
    // Most records are no candidates, and are not parsed.
    memchr::memmem::find(record, EVENT.as_bytes())?;
    let deleted: Deleted<'_> = serde_json::from_slice(record).ok()?;
    (deleted.event == EVENT).then_some(deleted.before)
}

/// Whole segments that could go: the last record of each was written before `until`, and an anchor covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletable {
    /// Their files.
    pub segments: Vec<PathBuf>,
    /// All records with a smaller index are in them.
    pub before: u64,
}

/// What could go; `None` where nothing could. The segment that is written never goes.
pub fn deletable(folder: &Path, until: Timestamp, anchored: u64) -> Result<Option<Deletable>, read::Error> {
    let mut segments = Vec::new();
    let mut before = 0;
    let paths = read::segments(folder)?;
    for (path, next) in paths.iter().zip(paths.iter().skip(1)) {
        // A segment's last record is older than its successor's beginning.
        let next = Segment::open(next)?;
        let header = next.header();
        if header.created > until || header.first > anchored {
            break;
        }
        segments.push(path.clone());
        before = header.first;
    }
    Ok((!segments.is_empty()).then_some(Deletable { segments, before }))
}

#[cfg(test)]
mod tests {
    use super::super::segment::{self, Header};
    use super::*;
    use uuid::Uuid;

    #[test]
    fn only_a_record_of_its_own_speaks_of_deletion() {
        assert_eq!(deleted_before(br#"{"version":1,"event":"segments_deleted","before":7}"#), Some(7));
        assert_eq!(deleted_before(br#"{"event":"begin","text":"\"event\":\"segments_deleted\",\"before\":7"}"#), None);
        assert_eq!(deleted_before(br#"{"event":"begin","before":7,"text":"segments_deleted"}"#), None);
        assert_eq!(deleted_before(b"segments_deleted"), None);
    }

    #[test]
    fn old_and_anchored_segments_go_and_never_the_last() {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=4_u64 {
            let created = Timestamp::from_second(100 * i64::try_from(number).unwrap()).unwrap();
            let header = Header { log: Uuid::nil(), number, first: 10 * (number - 1), created };
            std::fs::write(segment::path(folder.path(), number), header.encode()).unwrap();
        }
        let files = |numbers: &[u64]| numbers.iter().map(|&n| segment::path(folder.path(), n)).collect::<Vec<_>>();
        let at = |second| Timestamp::from_second(second).unwrap();
        let deletable = |second, anchored| deletable(folder.path(), at(second), anchored).unwrap();
        assert_eq!(deletable(9999, 100), Some(Deletable { segments: files(&[1, 2, 3]), before: 30 }));
        assert_eq!(deletable(300, 100), Some(Deletable { segments: files(&[1, 2]), before: 20 }));
        assert_eq!(deletable(9999, 19), Some(Deletable { segments: files(&[1]), before: 10 }));
        assert_eq!((deletable(199, 100), deletable(9999, 9)), (None, None));
    }
}

//! What can be wrong with a log, and how it is told.

use std::fmt;
use std::path::PathBuf;

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A segment cannot be read.
    Segment {
        /// Its file.
        path: PathBuf,
        /// In words.
        reason: String,
    },
    /// Records are missing, or too many, before a segment.
    Count {
        /// The segment's file.
        path: PathBuf,
        /// The index of its first record, as its header says.
        first: u64,
        /// The index behind the last record that was found before it.
        found: u64,
    },
    /// A record's bytes are not those of its checksum, and it is not the torn end of the log.
    Damaged {
        /// The record.
        record: u64,
        /// Its segment.
        path: PathBuf,
    },
    /// A record is not the one that was hashed when it was written.
    Changed {
        /// The record.
        record: u64,
    },
    /// The records are not those that were signed.
    Root {
        /// The first records, this many, are not.
        size: u64,
        /// So many of them are: the last checkpoint that fits.
        fits: u64,
        /// Where the checkpoint is.
        signed_in: PathBuf,
    },
    /// Fewer records than were signed.
    Missing {
        /// Signed.
        size: u64,
        /// There.
        found: u64,
        /// Where the checkpoint is.
        signed_in: PathBuf,
    },
    /// A checkpoint that this key has not signed, or that is damaged.
    Checkpoint {
        /// Its place in the file, from 1.
        number: usize,
        /// The file.
        path: PathBuf,
    },
    /// The first records are gone, and no record that is anchored (where there are anchors; else signed) says that they
    /// were deleted.
    Deleted {
        /// The first record that is there.
        first: u64,
        /// Deletion was recorded up to here.
        said: u64,
        /// The record that says it, and that no anchor covers.
        unanchored: Option<u64>,
    },
    /// Checkpoints that do not follow one another.
    Order {
        /// The later one's place in the file, from 1.
        number: usize,
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment { path, reason } => write!(f, "segment {}: {reason}", path.display()),
            Self::Count { path, first, found } if first > found => {
                write!(f, "records {found} to {} are missing before segment {}", first - 1, path.display())
            }
            Self::Count { path, first, found } => {
                write!(f, "{} records too many before segment {}", found - first, path.display())
            }
            Self::Damaged { record, path } => write!(f, "record {record} in {} is damaged", path.display()),
            Self::Changed { record } => write!(f, "record {record} is not the one that was written"),
            Self::Root { size, fits, signed_in } => write!(
                f,
                "records {fits} to {} are not those of the checkpoint of {size} records in {}",
                size.saturating_sub(1),
                signed_in.display()
            ),
            Self::Missing { size, found, signed_in } => write!(
                f,
                "records {found} to {} are missing: {} has a checkpoint of {size} records",
                size.saturating_sub(1),
                signed_in.display()
            ),
            Self::Checkpoint { number, path } => {
                write!(f, "checkpoint {number} in {} is not signed with this key, or damaged", path.display())
            }
            Self::Deleted { first, unanchored: Some(record), .. } => write!(
                f,
                "records 0 to {} are missing, and record {record}, which says that they were deleted, is not anchored: \
                 before they were deleted it was, so the anchor's checkpoints are older or the record is not the proxy's",
                first - 1
            ),
            Self::Deleted { first, said, unanchored: None } => {
                write!(f, "records {said} to {} are missing, and no record says that they were deleted", first - 1)
            }
            Self::Order { number, path } => {
                write!(f, "checkpoint {number} in {} does not follow the ones before it", path.display())
            }
        }
    }
}

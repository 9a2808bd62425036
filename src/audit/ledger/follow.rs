//! Reads a log in order, over segments, and goes on as it grows.

use super::read::{self, Segment};
use super::segment;
use std::path::{Path, PathBuf};

/// Why a record that should be there cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a segment.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// It was deleted, or somebody has taken it.
    #[error("record {0} is not there any more")]
    Gone(u64),
}

/// A place in a log.
#[derive(Debug)]
pub struct Follower {
    folder: PathBuf,
    next: u64,
    segment: Option<Segment>,
}

impl Follower {
    /// Starts before record `next`.
    pub fn new(folder: &Path, next: u64) -> Self {
        Self { folder: folder.to_owned(), next, segment: None }
    }

    /// The index of the record that comes next.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// The next record, which was written: it is an error where it is not there.
    pub fn next_record(&mut self) -> Result<&[u8], Error> {
        let gone = Error::Gone(self.next);
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => self.find()?,
        };
        // A process that has recorded nothing leaves a segment without records.
        while segment.peek()?.is_none() {
            let next = segment::path(&self.folder, segment.header().number.saturating_add(1));
            if !next.exists() {
                return Err(gone);
            }
            segment = Segment::open(&next)?;
            if segment.next_index() != self.next {
                return Err(gone);
            }
        }
        self.next = self.next.saturating_add(1);
        self.segment.insert(segment).next_record()?.ok_or(gone)
    }

    /// Reads again what was read ahead of the next record: it can have been written over since, where it was not
    /// durable.
    pub fn forget_ahead(&mut self) {
        if let Some(segment) = &mut self.segment {
            segment.forget_ahead();
        }
    }

    /// The segment that has the next record, read up to there.
    fn find(&self) -> Result<Segment, Error> {
        let gone = || Error::Gone(self.next);
        let mut found = None;
        for path in read::segments(&self.folder)?.into_iter().rev() {
            let segment = Segment::open(&path)?;
            if segment.next_index() <= self.next {
                found = Some(segment);
                break;
            }
        }
        let mut segment = found.ok_or_else(gone)?;
        while segment.next_index() < self.next {
            segment.next_record()?.ok_or_else(gone)?;
        }
        Ok(segment)
    }
}

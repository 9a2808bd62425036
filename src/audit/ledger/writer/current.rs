//! The segment that is written: where its next record goes, and what stands behind that.

use super::super::frame::HEAD_BYTES;
use super::super::medium::{LogFile, Medium};
use super::super::segment::{self, HEADER_BYTES, Header};
use super::Settings;
use std::io;
use std::sync::Arc;

/// The first write in a block of so many bytes takes all of it, zeros behind its records. Room that was set aside reads as
/// zeros anyway; what the kernel does for each page that is new to it, it does once for eight.
const BLOCK_BYTES: u64 = 32 * 1024;

#[derive(Debug)]
pub(super) struct Current {
    pub(super) number: u64,
    pub(super) file: Arc<dyn LogFile>,
    pub(super) position: u64,
    /// What is on the disk is not known any more: nothing may follow in this segment.
    pub(super) broken: bool,
    /// There are bytes that nobody has begun to sync.
    pub(super) dirty: bool,
    /// The file's length as it was set aside.
    room: u64,
    /// Up to there was written: zeros, behind the records.
    filled: u64,
    /// Up to there what is behind the last record may look like records.
    soiled: u64,
    /// Bytes that were synced, or should have been, when the next segment was to be begun.
    synced: u64,
}

impl Current {
    pub(super) fn begin(settings: &Settings, medium: &dyn Medium, header: &Header) -> io::Result<Self> {
        let path = segment::path(&settings.folder, header.number);
        let room = settings.segment_bytes;
        let file = Arc::from(medium.create(&path, &header.encode(), room)?);
        let position = HEADER_BYTES as u64;
        let (filled, soiled, synced) = (position, position, position);
        Ok(Self { number: header.number, file, position, broken: false, dirty: false, room, filled, soiled, synced })
    }

    /// Whether it has no record.
    pub(super) fn is_empty(&self) -> bool {
        self.position == HEADER_BYTES as u64
    }

    pub(super) fn has_room(&self, length: u64, limit: u64) -> bool {
        self.position.saturating_add(length) <= limit
    }

    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        let end = self.position.saturating_add(frames.len() as u64);
        let until = self.until(end);
        let written = if until == end {
            self.file.write_at(frames, self.position)
        } else {
            self.file.write_at(&with_zeros(frames, until.saturating_sub(self.position)), self.position)
        };
        let written = written.map(|written| self.position.saturating_add(written as u64));
        match written {
            Ok(reached) if reached >= end => {
                (self.position, self.dirty) = (end, true);
                self.filled = self.filled.max(reached);
                if reached < self.soiled {
                    self.blank();
                } else {
                    self.soiled = end;
                }
                Ok(())
            }
            Ok(_) => {
                self.soiled = self.soiled.max(until);
                self.blank();
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            Err(error) => {
                self.soiled = self.soiled.max(until);
                self.broken = !is_full(&error);
                Err(error)
            }
        }
    }

    /// So that no whole frame of what failed is read as a record, should nothing follow.
    fn blank(&mut self) {
        let blank = [0; HEAD_BYTES];
        let blanked = self.file.write_at(&blank, self.position);
        self.broken |= !blanked.is_ok_and(|written| written == blank.len());
    }

    /// How far a write goes whose records end at `end`: over all that one which failed has left, and to the end of a block
    /// that nobody has written in.
    fn until(&self, end: u64) -> u64 {
        let new = if end > self.filled { end.next_multiple_of(BLOCK_BYTES).min(self.room) } else { end };
        new.max(end).max(if self.is_soiled() { self.soiled } else { end })
    }

    fn is_soiled(&self) -> bool {
        self.soiled > self.position
    }

    /// Cuts off what a failed write has left. No segment follows one that is not clean: readers would find there what
    /// is no record of the log's.
    pub(super) fn clean(&mut self) -> io::Result<()> {
        if self.is_soiled() {
            self.file.truncate(self.position)?;
            (self.filled, self.soiled) = (self.position, self.position);
            // The new end, too, has to reach the disk.
            self.synced = 0;
        }
        Ok(())
    }

    /// Syncs, unless that was tried. What somebody else syncs at this moment is synced here, too: he may not be done.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.synced == self.position {
            return Ok(());
        }
        self.synced = self.position;
        let synced = self.file.sync();
        self.broken |= synced.is_err();
        synced
    }

    /// Gives back the room that was set aside and has no record.
    pub(super) fn give_back(&self) {
        if let Err(error) = self.file.truncate(self.position) {
            tracing::warn!(segment = self.number, %error, "the segment keeps room that it does not need");
        }
    }
}

fn with_zeros(frames: &[u8], length: u64) -> Vec<u8> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut padded = Vec::with_capacity(length);
    padded.extend_from_slice(frames);
    padded.resize(length, 0);
    padded
}

/// No room: what was there stays as it was.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

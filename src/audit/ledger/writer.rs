//! The end of the log: records are appended here, one `pwrite(2)` a batch, and segments begin and end.
//!
//! A process writes only segments that it has begun. A batch is in the log as a whole or not at all: what a write has
//! left of one that failed is overwritten by the next, and cut off before the segment ends. A segment is synced before
//! the next is begun, so that a power loss takes from the end of the last one alone. The last
//! [`Settings::reserve_bytes`] of a segment, set aside with the rest, are kept for what must be recorded while no new
//! segment can be begun: the ballast of a full disk.
//!
//! What need not be there at once waits for the next write, and goes first with it ([`Writer::append_later`]).

mod current;

use super::group::{Company, Joined};
use super::leaves::Leaves;
use super::medium::{LogFile, Medium};
use super::segment::Header;
use crate::time::Clock;
use current::Current;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

/// A segment, unless the config says another size, in bytes.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 << 20;

/// What waits for the next write, in bytes at most.
pub const MAX_WAITING_BYTES: usize = 256 * 1024;

/// Where segments are and how large.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The log's folder.
    pub folder: PathBuf,
    /// A segment's file, in bytes.
    pub segment_bytes: u64,
    /// What of it is kept for [`Urgency::Reserve`].
    pub reserve_bytes: u64,
}

impl Settings {
    /// Segments of [`DEFAULT_SEGMENT_BYTES`].
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, segment_bytes: 0, reserve_bytes: 0 }.with_segments_of(DEFAULT_SEGMENT_BYTES)
    }

    /// Segments of this size, a sixteenth of each in reserve.
    #[must_use]
    pub fn with_segments_of(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, reserve_bytes: segment_bytes / 16, ..self }
    }
}

/// Whether a batch may use the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// What can be refused.
    Normal,
    /// What has happened already, or must not be held up: ends, ROLLBACK.
    Reserve,
}

/// The log's end.
#[derive(Debug)]
pub struct Writer {
    settings: Settings,
    medium: Arc<dyn Medium>,
    clock: Clock,
    log: Uuid,
    current: Current,
    /// The index that the next record gets.
    next: u64,
    /// Bytes of what was appended.
    written: u64,
    /// A segment has ended whose sync failed, and nobody was told yet.
    ended_in_doubt: bool,
    /// Of what was appended, until the tree takes them.
    leaves: Leaves,
    waiting: Waiting,
    /// What sessions have handed in together.
    pub(super) joined: Joined,
    pub(super) company: Company,
    full: Arc<AtomicBool>,
}

/// Whole frames that the next write takes with it.
#[derive(Debug, Default)]
struct Waiting {
    frames: Vec<u8>,
    records: u64,
    /// They could not be written the last time.
    stuck: bool,
}

/// What a sync is about.
#[derive(Debug)]
pub struct Unsynced {
    /// The file that is written, where it has to be.
    pub file: Option<Arc<dyn LogFile>>,
    /// Records with a smaller index are in it, or in segments before it.
    pub next: u64,
    /// Its segment.
    pub segment: u64,
    /// The sync of a segment before it has failed: of no record so far it is known that the disk has it.
    pub doubtful: bool,
}

impl Writer {
    /// Begins segment `number`, whose first record gets the index `first`.
    pub fn begin(
        settings: Settings,
        medium: Arc<dyn Medium>,
        clock: Clock,
        log: Uuid,
        (number, first): (u64, u64),
    ) -> io::Result<Self> {
        let current = Current::begin(&settings, &*medium, &Header { log, number, first, created: clock.now() })?;
        Ok(Self {
            settings,
            medium,
            clock,
            log,
            current,
            next: first,
            written: 0,
            ended_in_doubt: false,
            leaves: Leaves::from(first),
            waiting: Waiting::default(),
            joined: Joined::default(),
            company: Company::default(),
            full: Arc::default(),
        })
    }

    /// Appends a batch of `records` whole frames behind those that wait, and gives the index behind its last record. After
    /// an error nothing of it is in the log.
    pub fn append(&mut self, frames: &[u8], records: u64, urgency: Urgency) -> io::Result<u64> {
        if self.waiting.frames.is_empty() {
            return self.write(frames, records, urgency);
        }
        let mut batch = std::mem::take(&mut self.waiting.frames);
        let waiting = batch.len();
        batch.extend_from_slice(frames);
        let written = self.write(&batch, self.waiting.records.saturating_add(records), urgency);
        batch.truncate(if written.is_ok() { 0 } else { waiting });
        batch.shrink_to(MAX_WAITING_BYTES);
        self.waiting.frames = batch;
        if written.is_ok() {
            self.none_waits();
            return written;
        }
        // What waits has happened: it may use the reserve, whatever becomes of the rest.
        self.flush()?;
        self.write(frames, records, urgency)
    }

    /// Has `records` whole frames written with the next batch, or the next [`Writer::flush`]. After an error they do not
    /// wait: too many do already, and cannot be written.
    pub fn append_later(&mut self, frames: &[u8], records: u64) -> io::Result<()> {
        if self.waiting.frames.len().saturating_add(frames.len()) > MAX_WAITING_BYTES {
            return self.append(frames, records, Urgency::Normal).map(drop);
        }
        self.waiting.frames.extend_from_slice(frames);
        self.waiting.records = self.waiting.records.saturating_add(records);
        Ok(())
    }

    /// Writes what waits, to the reserve if need be. After an error it still waits.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.waiting.frames.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.waiting.frames);
        let records = self.waiting.records;
        let written = self.write(&batch, records, Urgency::Normal);
        let written = written.or_else(|_| self.write(&batch, records, Urgency::Reserve));
        if written.is_ok() {
            batch.clear();
        }
        self.waiting.frames = batch;
        match &written {
            Ok(_) => self.none_waits(),
            Err(error) if !self.waiting.stuck => {
                tracing::error!(%error, records = self.waiting.records, "the audit log does not take records that wait for it");
                self.waiting.stuck = true;
            }
            Err(_) => {}
        }
        written.map(drop)
    }

    fn none_waits(&mut self) {
        self.waiting.records = 0;
        if std::mem::take(&mut self.waiting.stuck) {
            tracing::info!("the audit log has taken the records that waited for it");
        }
    }

    fn write(&mut self, frames: &[u8], records: u64, urgency: Urgency) -> io::Result<u64> {
        let written = self.write_as(frames, records, urgency);
        if urgency == Urgency::Normal {
            self.full.store(written.is_err(), Ordering::Relaxed);
        }
        written
    }

    fn write_as(&mut self, frames: &[u8], records: u64, urgency: Urgency) -> io::Result<u64> {
        let length = frames.len() as u64;
        let normal = self.settings.segment_bytes.saturating_sub(self.settings.reserve_bytes);
        if self.current.broken || !self.current.has_room(length, normal) {
            let rotated = self.rotate();
            let reserve = urgency == Urgency::Reserve && !self.current.broken;
            if !(reserve && self.current.has_room(length, self.settings.segment_bytes)) {
                rotated?;
            }
        }
        self.current.append(frames)?;
        self.next = self.next.saturating_add(records);
        self.leaves.push_all(frames);
        if self.leaves.end() != self.next {
            tracing::error!(
                records,
                "a batch of the audit log was miscounted; its records are read again to be hashed"
            );
            self.leaves = Leaves::from(self.next);
        }
        self.written = self.written.saturating_add(length);
        Ok(self.next)
    }

    /// Bytes that this process has appended.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What of this segment's reserve is left, in bytes.
    pub fn reserve(&self) -> u64 {
        let Settings { segment_bytes, reserve_bytes, .. } = self.settings;
        segment_bytes.saturating_sub(self.current.position).min(reserve_bytes)
    }

    /// The index that the next record gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The same, once what waits is written.
    pub fn next_behind_waiting(&self) -> u64 {
        self.next.saturating_add(self.waiting.records)
    }

    /// Whether the last write failed that had no right to the reserve. To be read without the writer's lock.
    pub fn full(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.full)
    }

    /// Records that wait for the next write.
    pub fn waiting(&self) -> u64 {
        self.waiting.records
    }

    /// The hashes of the records that were appended since this was asked.
    pub fn take_leaves(&mut self) -> Leaves {
        self.leaves.take()
    }

    /// The segment that is written.
    pub fn segment(&self) -> u64 {
        self.current.number
    }

    /// What has to be synced for all records so far to be durable: what waits is written first, if it can be.
    pub fn take_unsynced(&mut self) -> Unsynced {
        // It has said so itself.
        let _ = self.flush();
        let file = std::mem::take(&mut self.current.dirty).then(|| Arc::clone(&self.current.file));
        let doubtful = std::mem::take(&mut self.ended_in_doubt);
        Unsynced { file, next: self.next, segment: self.current.number, doubtful }
    }

    /// A sync has failed for this segment and those before it: nothing may follow in it.
    pub fn sync_failed(&mut self, segment: u64) {
        self.current.broken |= self.current.number <= segment;
    }

    /// Ends the segment and begins the next. An empty one goes on, unless it is broken.
    fn rotate(&mut self) -> io::Result<()> {
        if self.current.is_empty() && !self.current.broken {
            return Ok(());
        }
        self.current.clean()?;
        if let Err(error) = self.current.sync() {
            tracing::error!(%error, segment = self.current.number, "the audit log's disk failed; the segment is ended");
            self.ended_in_doubt = true;
        }
        let number = self.current.number.saturating_add(1);
        let header = Header { log: self.log, number, first: self.next, created: self.clock.now() };
        let next = Current::begin(&self.settings, &*self.medium, &header)?;
        let ended = std::mem::replace(&mut self.current, next);
        ended.give_back();
        Ok(())
    }

    /// Nothing is expected any more: gives back what was set aside and not used.
    pub fn end(&self) {
        self.current.give_back();
    }
}

#[cfg(test)]
mod tests;

//! A log file in memory that can be told to fail.

#![allow(clippy::unwrap_used, reason = "for tests and fuzz targets only")]

use super::ledger::{Group, MAX_WAITING_BYTES, NotDurable, Urgency, frame};
use super::{Auditor, RecordLog};
use crate::time::Clock;
use async_trait::async_trait;
use std::io;
use std::sync::{Arc, Mutex};

/// What was written, and which writes fail.
#[derive(Debug, Default, Clone)]
pub struct MemoryLog(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    frames: Vec<u8>,
    /// How many records that is.
    records: u64,
    /// What the next write takes with it.
    waiting: Vec<u8>,
    /// What was handed in together.
    joined: Vec<u8>,
    group: Group,
    /// No write succeeds, not even from the reserve.
    failing: bool,
    /// Only what may use the reserve does.
    full: bool,
    /// So many more writes are taken, and then none.
    #[cfg(test)]
    left: Option<usize>,
    /// Sizes of the writes that were taken, in bytes.
    #[cfg(test)]
    writes: Vec<usize>,
    /// What the disk says of syncs: nothing yet, or that they failed.
    #[cfg(test)]
    unconfirmed: Option<bool>,
}

impl Inner {
    fn append(&mut self, frames: &[u8], urgency: Urgency) -> io::Result<u64> {
        if self.failing || (self.full && urgency == Urgency::Normal) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        #[cfg(test)]
        match &mut self.left {
            Some(0) => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(left) => *left -= 1,
            None => {}
        }
        #[cfg(test)]
        self.writes.push(frames.len());
        let waiting = std::mem::take(&mut self.waiting);
        self.frames.extend_from_slice(&waiting);
        self.frames.extend_from_slice(frames);
        self.records += frame::count(&waiting) + frame::count(frames);
        Ok(self.records)
    }
}

impl MemoryLog {
    /// An auditor over this log.
    pub fn auditor(&self, refusals_per_minute: u32) -> Auditor {
        Auditor::new(Arc::new(self.clone()), refusals_per_minute, Clock::system())
    }

    /// From now on every write fails, or succeeds again.
    #[cfg(test)]
    pub fn fail(&self, failing: bool) {
        self.0.lock().unwrap().failing = failing;
    }

    /// After so many more writes every write fails.
    #[cfg(test)]
    pub fn fail_after(&self, writes: usize) {
        self.0.lock().unwrap().left = Some(writes);
    }

    /// Sizes of the writes so far, in bytes.
    #[cfg(test)]
    pub fn writes(&self) -> Vec<usize> {
        self.0.lock().unwrap().writes.clone()
    }

    /// From now on only what may use the reserve is taken, or everything again.
    #[cfg(test)]
    pub fn fill(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    /// From now on nobody hears that a record is on the disk (`Some(false)`), all hear that it may not be
    /// (`Some(true)`), or that it is.
    #[cfg(test)]
    pub fn confirm(&self, unconfirmed: Option<bool>) {
        self.0.lock().unwrap().unconfirmed = unconfirmed;
    }

    /// How many records are written.
    #[cfg(test)]
    pub fn written(&self) -> u64 {
        frame::count(&self.0.lock().unwrap().frames)
    }

    /// How many records are handed in, and not written.
    #[cfg(test)]
    pub fn joined(&self) -> u64 {
        frame::count(&self.0.lock().unwrap().joined)
    }

    /// The records so far, parsed: those that are written, then those that wait.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let inner = self.0.lock().unwrap();
        let frames = [&inner.frames[..], &inner.waiting].concat();
        frame::records(&frames).map(|record| serde_json::from_slice(record).unwrap()).collect()
    }
}

#[async_trait]
impl RecordLog for MemoryLog {
    fn append(&self, frames: &[u8], urgency: Urgency) -> io::Result<u64> {
        self.0.lock().unwrap().append(frames, urgency)
    }

    fn append_later(&self, frames: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if inner.waiting.len() + frames.len() > MAX_WAITING_BYTES {
            drop(inner);
            return self.append(frames, Urgency::Normal).map(drop);
        }
        inner.waiting.extend_from_slice(frames);
        Ok(())
    }

    fn join(&self, frames: &[u8]) -> Option<Group> {
        let mut inner = self.0.lock().unwrap();
        inner.joined.extend_from_slice(frames);
        Some(inner.group.clone())
    }

    fn commit(&self, group: &Group) -> bool {
        let mut inner = self.0.lock().unwrap();
        group.is_written().unwrap_or_else(|| {
            let (frames, group) = (std::mem::take(&mut inner.joined), std::mem::take(&mut inner.group));
            let is_written = inner.append(&frames, Urgency::Normal).is_ok();
            group.close(is_written);
            is_written
        })
    }

    fn flush(&self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.0.lock().unwrap().waiting);
        self.append(&waiting, Urgency::Reserve).map(drop).inspect_err(|_| self.0.lock().unwrap().waiting = waiting)
    }

    async fn durable(&self, _index: u64) -> Result<(), NotDurable> {
        #[cfg(test)]
        loop {
            let unconfirmed = self.0.lock().unwrap().unconfirmed;
            match unconfirmed {
                None => return Ok(()),
                Some(true) => return Err(NotDurable),
                Some(false) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            }
        }
        #[cfg(not(test))]
        Ok(())
    }

    fn close(&self) {}
}

//! The log that can be proved: records in segments, their Merkle tree, its signed heads.
//!
//! [`Ledger::append`] is the data path: one write, no sync; what may be there later waits for the next
//! ([`Ledger::append_later`]). What was written is hashed at once. Behind it two threads work: one syncs, every second or
//! when somebody waits for it ([`Ledger::durable`]); one makes the tree of what is synced, signs checkpoints and wakes the
//! anchors.

pub mod anchor;
pub mod checkpoint;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod faulty;
pub mod follow;
pub mod frame;
pub mod group;
pub mod hashes;
mod leaves;
pub mod medium;
pub mod open;
mod problem;
pub mod prove;
pub mod read;
pub mod retention;
#[cfg(test)]
mod retention_tests;
pub mod sealer;
pub mod segment;
pub mod sink;
#[cfg(test)]
mod tamper_tests;
#[cfg(test)]
pub(crate) mod testing;
pub mod tree;
pub mod verify;
pub mod witness;
mod worker;
pub mod writer;

use crate::time::Clock;
use checkpoint::Signer;
pub use group::Group;
use hashes::Hashes;
use medium::Medium;
use retention::Retainer;
use sealer::Sealer;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::watch;
pub use worker::{Anchored, Behind};
use worker::{Bell, Running, Slot};
use writer::Writer;
pub use writer::{DEFAULT_SEGMENT_BYTES, MAX_WAITING_BYTES, Settings, Urgency};

/// Under traffic a checkpoint is asked for each time that so many records have come.
pub const SEAL_RECORDS: u64 = 10_000;

/// The record may not be on the disk: a sync has failed.
#[derive(Debug, thiserror::Error)]
#[error("the log's disk did not confirm the record")]
pub struct NotDurable;

/// What opening a log has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Records of processes before this one.
    pub records: u64,
    /// Of those, how many no checkpoint covers yet.
    pub unsealed: u64,
    /// Bytes cut off behind the last record, and the segment they were in.
    pub cut: Option<(u64, u64)>,
}

/// How a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Records, of all processes, those that were deleted too.
    pub records: u64,
    /// Bytes that this process has appended.
    pub bytes: u64,
    /// What of the reserve is left, in bytes.
    pub reserve_bytes: u64,
    /// Records that the last checkpoint covers.
    pub sealed: u64,
    /// How far each anchor is.
    pub anchors: Vec<Anchored>,
}

/// One log, being written. Closed by [`Ledger::close`].
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    slots: Vec<Arc<Slot>>,
    _lock: File,
}

#[derive(Debug)]
struct Shared {
    writer: Mutex<Writer>,
    /// The writer's.
    full: Arc<AtomicBool>,
    durable: watch::Sender<Durable>,
    /// Rung by whoever waits for a sync.
    sync_bell: Bell,
    /// Rung when there is more to sign.
    seal_bell: Bell,
    /// At this index the next [`SEAL_RECORDS`] are there.
    due: AtomicU64,
    /// Records that the last checkpoint covers.
    sealed: watch::Sender<u64>,
    clock: Clock,
}

/// What the disk has confirmed.
#[derive(Debug, Clone, Copy, Default)]
struct Durable {
    /// Records before this index were synced …
    next: u64,
    /// … but for those before this one that were not before a sync failed.
    doubtful: u64,
}

impl Ledger {
    /// Opens the log in a folder, or begins one there.
    pub fn open(
        settings: Settings,
        medium: Arc<dyn Medium>,
        clock: Clock,
        signer: Signer,
        behind: Behind,
    ) -> Result<(Self, Opening), open::Error> {
        let folder = settings.folder.clone();
        let retainer = behind
            .retention
            .clone()
            .map(|retention| Retainer::new(retention, &folder, Arc::clone(&medium), clock.clone()));
        let Prepared { shared, sealer, opening, lock } = Prepared::new(settings, medium, clock, signer)?;
        let Running { threads, slots } = worker::start(&shared, sealer, retainer, behind)?;
        Ok((Self { shared, threads: Mutex::new(threads), slots, _lock: lock }, opening))
    }

    /// Appends whole frames as one write, and gives the index behind the last. After an error nothing of them is in the
    /// log.
    pub fn append(&self, frames: &[u8], urgency: Urgency) -> io::Result<u64> {
        let next = self.shared.writer().append(frames, frame::count(frames), urgency)?;
        self.shared.ring_at_due(next);
        Ok(next)
    }

    /// Has whole frames written before whatever is appended next, or is synced, or [`Ledger::flush`] does. After an error
    /// nothing of them is in the log, nor waits.
    pub fn append_later(&self, frames: &[u8]) -> io::Result<()> {
        let mut writer = self.shared.writer();
        writer.append_later(frames, frame::count(frames))?;
        let next = writer.next_behind_waiting();
        drop(writer);
        self.shared.ring_at_due(next);
        Ok(())
    }

    /// Hands in whole frames, to be written with those of other sessions by whoever is first to ask ([`Ledger::commit`]).
    /// `None` where there is no room for them.
    pub fn join(&self, frames: &[u8]) -> Option<Group> {
        self.shared.writer().join(frames, frame::count(frames))
    }

    /// Whether all that was handed in with this group is in the log: if nobody has asked before, it is written now, as one
    /// write. Where it is not, nothing of it is.
    pub fn commit(&self, group: &Group) -> bool {
        if let Some(is_written) = group.is_written() {
            return is_written;
        }
        let mut writer = self.shared.writer();
        let written = writer.commit(group);
        let next = writer.next();
        drop(writer);
        self.shared.ring_at_due(next);
        written
    }

    /// Writes what waits for the next append. After an error it still waits.
    pub fn flush(&self) -> io::Result<()> {
        self.shared.writer().flush()
    }

    /// Whether the last write failed that had no right to the reserve.
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// Waits until the records before `index` are on the disk. Many wait for one sync. May be dropped at any time.
    pub async fn durable(&self, index: u64) -> Result<(), NotDurable> {
        let mut durable = self.shared.durable.subscribe();
        if durable.borrow().next < index {
            self.shared.sync_bell.ring();
        }
        let reached = durable.wait_for(|durable| durable.next >= index || durable.doubtful >= index).await;
        match reached.map(|durable| *durable) {
            Ok(durable) if durable.doubtful < index => Ok(()),
            _ => Err(NotDurable),
        }
    }

    /// How the log is, for metrics.
    pub fn status(&self) -> Status {
        let writer = self.shared.writer();
        let (records, bytes, reserve_bytes) = (writer.next(), writer.written(), writer.reserve());
        drop(writer);
        Status { records, bytes, reserve_bytes, sealed: self.sealed(), anchors: self.anchored() }
    }

    /// Records that the last checkpoint covers.
    pub fn sealed(&self) -> u64 {
        *self.shared.sealed.borrow()
    }

    /// How far each anchor is.
    pub fn anchored(&self) -> Vec<Anchored> {
        self.slots.iter().map(|slot| slot.anchored()).collect()
    }

    /// Syncs, signs and anchors what is there, and ends. Blocks. What is appended after it is not signed any more.
    pub fn close(&self) {
        self.shared.sync_bell.end();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the audit log panicked");
            }
        }
        let writer = self.shared.writer();
        writer.end();
        let lost = writer.waiting();
        drop(writer);
        if lost > 0 {
            tracing::error!(records = lost, "lost: records that the audit log has not taken to the end");
        }
    }
}

/// A log whose threads do not run yet.
struct Prepared {
    shared: Arc<Shared>,
    sealer: Sealer,
    opening: Opening,
    lock: File,
}

impl Prepared {
    fn new(settings: Settings, medium: Arc<dyn Medium>, clock: Clock, signer: Signer) -> Result<Self, open::Error> {
        let folder = settings.folder.clone();
        let found = open::open(&folder, &*medium, signer.public())?;
        let opening =
            Opening { records: found.next, unsealed: found.next.saturating_sub(found.tree.size()), cut: found.cut };
        let hashes = Hashes::resume(&folder, &*medium, found.tree)?;
        let sealer = Sealer::new(&folder, &*medium, signer, hashes)?;
        let writer = Writer::begin(settings, medium, clock.clone(), found.log, (found.number, found.next))?;
        let shared = Arc::new(Shared {
            full: writer.full(),
            writer: Mutex::new(writer),
            durable: watch::Sender::new(Durable { next: found.next, doubtful: 0 }),
            sync_bell: Bell::default(),
            seal_bell: Bell::default(),
            due: AtomicU64::new(found.next.saturating_add(SEAL_RECORDS)),
            sealed: watch::Sender::new(sealer.sealed()),
            clock,
        });
        Ok(Self { shared, sealer, opening, lock: found.lock })
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Rings once for so many records. To ring for each that comes while they are synced and sealed would be for nothing, and
    /// not for free: a sync writes to the disk, and wakes all who read the log behind it.
    fn ring_at_due(&self, next: u64) {
        let due = self.due.load(Ordering::Relaxed);
        let after = next.saturating_add(SEAL_RECORDS);
        if next >= due && self.due.compare_exchange(due, after, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.sync_bell.ring();
        }
    }

    /// A panic while the lock was held leaves no half-made state: positions change after the write.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

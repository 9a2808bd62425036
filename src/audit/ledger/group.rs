//! Group commit: records of several sessions in one write.
//!
//! Each session hands in its records ([`Writer::join`]), lets the others that are ready do so too, and asks for the write
//! ([`Writer::commit`]): who asks first writes for all of the group. Of a group that cannot be written as a whole nothing is
//! in the log, and each session then tries for itself.

use super::writer::{MAX_WAITING_BYTES, Urgency, Writer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// So many groups of one session's records in a row, and for a while there is none: who is alone does not wait for others.
const TRIES: u32 = 4;
/// How often nobody is let wait before it is tried again.
const LEFT_OUT: u32 = 64;

const OPEN: u8 = 0;
const WRITTEN: u8 = 1;
const FAILED: u8 = 2;

/// The group that some records are in. Who has handed them in asks for the write, or has no more to do with the log.
#[derive(Debug, Default, Clone)]
pub struct Group(Arc<AtomicU8>);

/// The same one, whatever became of it.
impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Group {
    /// Whether it was written; `None` as long as it is open.
    pub fn is_written(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            OPEN => None,
            fate => Some(fate == WRITTEN),
        }
    }

    /// It is closed: nothing more goes into it.
    pub fn close(&self, is_written: bool) {
        self.0.store(if is_written { WRITTEN } else { FAILED }, Ordering::Release);
    }
}

/// The group that is open.
#[derive(Debug, Default)]
pub struct Joined {
    group: Group,
    frames: Vec<u8>,
    records: u64,
    /// How often records were handed in.
    members: u32,
}

/// Whether sessions have company, lately.
#[derive(Debug, Default)]
pub struct Company {
    /// Groups in a row that had one member.
    alone: u32,
    /// How often nobody was let wait since then.
    left_out: u32,
}

impl Company {
    /// Whether it is worth while to wait for others.
    fn is_expected(&mut self) -> bool {
        if self.alone >= TRIES {
            self.left_out = self.left_out.saturating_add(1);
            if self.left_out <= LEFT_OUT {
                return false;
            }
            *self = Self::default();
        }
        true
    }

    fn count(&mut self, members: u32) {
        self.alone = if members > 1 { 0 } else { self.alone.saturating_add(1) };
    }
}

impl Writer {
    /// Has `records` whole frames written by the first [`Writer::commit`] of the group that is given. `None` where it has no
    /// room for them, or nobody else has come for a while: then they are in no group.
    pub fn join(&mut self, frames: &[u8], records: u64) -> Option<Group> {
        let joined = &mut self.joined;
        if joined.members == 0 && !self.company.is_expected() {
            return None;
        }
        if joined.frames.len().saturating_add(frames.len()) > MAX_WAITING_BYTES {
            return None;
        }
        joined.frames.extend_from_slice(frames);
        joined.records = joined.records.saturating_add(records);
        joined.members = joined.members.saturating_add(1);
        Some(joined.group.clone())
    }

    /// Writes the group, unless that was done or tried: whether its records are in the log.
    pub fn commit(&mut self, group: &Group) -> bool {
        if let Some(is_written) = group.is_written() {
            return is_written;
        }
        // Nobody writes another group in its place.
        if *group != self.joined.group {
            return false;
        }
        let Joined { group, mut frames, records, members } = std::mem::take(&mut self.joined);
        self.company.count(members);
        let written = self.append(&frames, records, Urgency::Normal);
        group.close(written.is_ok());
        if let Err(error) = &written {
            tracing::warn!(%error, records, sessions = members, "the audit log did not take what sessions wrote together; each tries alone");
        }
        frames.clear();
        self.joined.frames = frames;
        written.is_ok()
    }
}

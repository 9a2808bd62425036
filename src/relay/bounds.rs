//! A session's bounds while it lives, as its rule had them at the login: what they cost is counted on its caller's
//! [`Meter`].

use super::meter::{Meter, Pace, Room};
use crate::policy::Limits;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Statements, bytes and idle transactions of one session. A session without any has none of this.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub(super) meter: Arc<Meter>,
    pub(super) statements: Option<Pace>,
    pub(super) bytes: Option<Pace>,
    pub(super) records: Option<Pace>,
    pub(super) idle_in_transaction: Option<Duration>,
}

impl Bounds {
    /// What the rule says of sessions; `None`, and a session costs nothing more, where it says nothing.
    pub fn of(limits: &Limits, meter: &Arc<Meter>) -> Option<Self> {
        let (statements, bytes) = (limits.statements.as_ref().map(Pace::of), limits.bytes.as_ref().map(Pace::of));
        let (records, idle_in_transaction) =
            (limits.audit_mib_per_day.map(Pace::of_records), limits.idle_in_transaction);
        if statements.is_none() && bytes.is_none() && records.is_none() && idle_in_transaction.is_none() {
            return None;
        }
        Some(Self { meter: Arc::clone(meter), statements, bytes, records, idle_in_transaction })
    }

    /// Bytes that went through, in either direction.
    pub(super) fn count(&self, bytes: usize) {
        if let Some(pace) = self.bytes.as_ref().filter(|_| bytes > 0) {
            self.meter.bytes(pace, bytes, Instant::now());
        }
    }

    /// Statements that one Query had beside its first: what they cost is owed by what comes after them.
    pub(super) fn count_further(&self, statements: u64) {
        if let Some(pace) = self.statements.as_ref().filter(|_| statements > 0) {
            self.meter.further_statements(pace, statements, Instant::now());
        }
    }

    /// Bytes that the log has taken of the session's records.
    pub(super) fn count_records(&self, bytes: u64) {
        if let Some(pace) = self.records.as_ref().filter(|_| bytes > 0) {
            self.meter.records(pace, bytes, Instant::now());
        }
    }

    /// What is left of what its caller's records may take.
    pub(super) fn room(&self) -> Room {
        self.records.as_ref().map_or(Room::Ample, |pace| self.meter.room(pace, Instant::now()))
    }

    /// Until when nothing more is to go through, if too much has.
    pub(super) fn held(&self) -> Option<Instant> {
        self.meter.over_bytes(self.bytes.as_ref()?, Instant::now())
    }
}

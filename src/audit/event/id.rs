//! An event's name.

use crate::names::SessionId;
use serde::Serialize;
use std::fmt;

/// What joins an event's records: the session's id and the event's number in it, `SESSION.NUMBER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// The session.
    pub session: SessionId,
    /// The event in it.
    pub number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, number } = self;
        write!(f, "{session}.{number}")
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

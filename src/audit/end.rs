//! What a session tells its recorder of an end.

use super::{TextDigest, event};
use std::borrow::Cow;
use std::sync::Arc;

/// What an end record says, before it has an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Number of the event in its session.
    pub event: u64,
    /// Which of a Query's statements.
    pub part: u32,
    /// No further end follows for this event.
    pub last: bool,
    /// How.
    pub outcome: event::Outcome,
    /// With an error.
    pub sqlstate: Option<String>,
    /// The event whose text ran, where the begin record could not say.
    pub text_of: Option<u64>,
    /// The text that ran, where the record does not hold it whole.
    pub text: Option<Arc<TextDigest>>,
    /// What ran cannot be the text that the begin record told.
    pub text_doubtful: bool,
    /// SQL-level EXECUTE: the event whose text gave the name.
    pub executes: Option<u64>,
    /// Command tag without numbers.
    pub command: Option<Cow<'static, str>>,
    /// Rows returned or changed.
    pub rows: u64,
    /// From the client, in bytes.
    pub bytes_in: u64,
    /// To the client, in bytes.
    pub bytes_out: u64,
    /// From the first begin to the answer's first row, in microseconds.
    pub first_row_us: Option<u64>,
    /// Since the first begin, in microseconds.
    pub duration_us: u64,
}

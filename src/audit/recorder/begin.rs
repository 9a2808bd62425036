//! What a session says of a message that is about to leave.

use crate::audit::Values;
use crate::audit::event::{RoleChange, Stage};
use std::ops::Range;

/// What a begin record says, before it has an id.
#[derive(Debug, Clone, Copy)]
pub struct Begin<'a> {
    /// Number of the event in its session.
    pub event: u64,
    /// Which message.
    pub stage: Stage,
    /// The text's known start, and its whole length in bytes.
    pub text: Option<(&'a [u8], u64)>,
    /// The event whose begin record has more of a remembered text.
    pub text_of: Option<u64>,
    /// The name may mean another text by now.
    pub text_doubtful: bool,
    /// What the text says of who the session acts as.
    pub role_changes: &'a [RoleChange],
    /// Prepared statement's name; empty is the unnamed one.
    pub statement: &'a [u8],
    /// Portal's name; empty is the unnamed one.
    pub portal: &'a [u8],
    /// `FunctionCall`: the function's OID.
    pub function_oid: Option<u32>,
    /// A Bind's parameters or a `FunctionCall`'s arguments, where [`parameters`](super::Recorder::parameters) of the recorder
    /// asks for them.
    pub parameters: Option<&'a Values<'a>>,
    /// Whether the statement leaves with the tag.
    pub tagged: bool,
    /// The message before it came in the same read, and whatever becomes of that one's record may become of this one's:
    /// one record may stand for both, if they are of one event, and so of one statement.
    pub goes_on: bool,
}

impl Begin<'_> {
    /// A message of an event, of which nothing is said yet.
    pub fn of(event: u64, stage: Stage) -> Self {
        Self {
            event,
            stage,
            text: None,
            text_of: None,
            text_doubtful: false,
            role_changes: &[],
            statement: b"",
            portal: b"",
            function_oid: None,
            parameters: None,
            tagged: false,
            goes_on: false,
        }
    }
}

/// A begin record that is prepared.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// Where it is among the prepared ones.
    pub record: Range<usize>,
    /// How many bytes of the text it has.
    pub text_bytes: usize,
    /// It is the record of the message before, which stands for this one too.
    pub joined: bool,
}

//! From the server: settle what its answers end, move error positions back. No I/O of its own.
//!
//! Only headers are looked at, but for the few small messages that say something about an execution.

use super::output::Output;
use super::tag::Tag;
use super::tracker::{Desync, Tracker};
use crate::wire::{ErrorFields, HEADER_BYTES, Header};
use std::time::Instant;

/// The most of an error or notice that is held to move its position back, in bytes. PostgreSQL quotes the client's
/// own values in messages, so they can be long.
pub const MAX_ERROR_BYTES: usize = 16 * 1024 * 1024;
/// The most of a `CommandComplete`, in bytes; PostgreSQL's own are below 64 (`COMPLETION_TAG_BUFSIZE`).
const MAX_COMMAND_BYTES: usize = 1024;

/// Why the server's bytes go no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaved {
    /// A length that no message has.
    #[error("the server sent a message with an invalid length")]
    Length,
    /// An error or notice that is none inside.
    #[error("the server sent a malformed error or notice")]
    Malformed,
    /// An answer to nothing.
    #[error(transparent)]
    Desync(#[from] Desync),
}

/// One direction's state.
#[derive(Debug)]
pub struct ServerSide {
    tag: Tag,
    passing: usize,
    fatal: Option<String>,
}

impl ServerSide {
    /// A session's server, whose errors speak of tagged text.
    pub fn new(tag: Tag) -> Self {
        Self { tag, passing: 0, fatal: None }
    }

    /// Whether a message's start has left and its rest has not.
    pub fn is_mid_frame(&self) -> bool {
        self.passing > 0
    }

    /// SQLSTATE of the server's own last word, if it had one.
    pub fn fatal(&self) -> Option<&str> {
        self.fatal.as_deref()
    }

    /// Works through `input`: how many bytes of it are dealt with. What is to be forwarded is in `output`.
    pub fn process(&mut self, input: &[u8], tracker: &mut Tracker, output: &mut Output) -> Result<usize, Misbehaved> {
        let now = Instant::now();
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if self.passing > 0 {
                let passed = self.passing.min(rest.len());
                output.pass(at..at.saturating_add(passed));
                self.passing = self.passing.saturating_sub(passed);
                at = at.saturating_add(passed);
                continue;
            }
            let Some(header) = Header::decode(rest).map_err(|_| Misbehaved::Length)? else { break };
            let Some(body) = rest.get(HEADER_BYTES..HEADER_BYTES.saturating_add(looked_at(header)?)) else { break };
            let seen = HEADER_BYTES.saturating_add(body.len());
            let unchanged = at..at.saturating_add(seen);
            match header.kind {
                b'E' => self.error(body, unchanged, tracker, output, now)?,
                b'N' => self.positioned(b'N', body, unchanged, output).map(drop)?,
                kind => {
                    tracker.server(kind, body, header.frame() as u64, now)?;
                    output.pass(unchanged);
                }
            }
            self.passing = header.frame().saturating_sub(seen);
            at = at.saturating_add(seen);
        }
        Ok(at)
    }

    fn error(
        &mut self,
        body: &[u8],
        unchanged: std::ops::Range<usize>,
        tracker: &mut Tracker,
        output: &mut Output,
        now: Instant,
    ) -> Result<(), Misbehaved> {
        let fields = self.positioned(b'E', body, unchanged, output)?;
        let sqlstate = fields.sqlstate();
        let severity = fields.get(b'V').or(fields.get(b'S')).unwrap_or_default();
        tracker.server_error(&sqlstate, now);
        if matches!(severity, b"FATAL" | b"PANIC") {
            self.fatal = Some(sqlstate);
        }
        Ok(())
    }

    /// Passes an error or notice on, its position moved back to the client's own text.
    fn positioned(
        &self,
        kind: u8,
        body: &[u8],
        unchanged: std::ops::Range<usize>,
        output: &mut Output,
    ) -> Result<ErrorFields, Misbehaved> {
        let mut fields = ErrorFields::decode(body).map_err(|_| Misbehaved::Malformed)?;
        let moved = fields.get(b'P').and_then(|position| self.tag.untag_position(position));
        match moved {
            Some(position) if self.tag.is_set() => {
                fields.set(b'P', &position);
                output.insert(&fields.frame(kind));
            }
            _ => output.pass(unchanged),
        }
        Ok(fields)
    }
}

/// How much of the body must be there.
fn looked_at(header: Header) -> Result<usize, Misbehaved> {
    let limit = match header.kind {
        b'E' | b'N' => MAX_ERROR_BYTES,
        b'C' => MAX_COMMAND_BYTES,
        b'Z' if header.body == 1 => 1,
        b'Z' => return Err(Misbehaved::Length),
        _ => return Ok(0),
    };
    if header.body > limit { Err(Misbehaved::Length) } else { Ok(header.body) }
}

#[cfg(test)]
mod tests {
    use super::super::tag::testing::analyst;
    use super::*;
    use crate::wire::append;

    fn setup() -> (ServerSide, Tracker, Output) {
        let mut tracker = Tracker::new();
        tracker.query(b"select 1", 8, 10, Instant::now());
        (ServerSide::new(Tag::of(&analyst())), tracker, Output::default())
    }

    fn run(side: &mut ServerSide, tracker: &mut Tracker, input: &[u8]) -> Result<Vec<u8>, Misbehaved> {
        let mut output = Output::default();
        let taken = side.process(input, tracker, &mut output)?;
        assert_eq!(taken, input.len());
        Ok(output.to_vec(input))
    }

    #[test]
    fn positions_move_back_and_everything_else_passes_byte_for_byte() {
        let (mut side, mut tracker, _) = setup();
        let at = Tag::of(&analyst()).bytes().len() + 8;
        let mut input = Vec::new();
        append(&mut input, b'N', format!("SNOTICE\0C00000\0Mm\0P{at}\0\0").as_bytes());
        append(&mut input, b'E', format!("SERROR\0VERROR\0C42601\0Mm\0P{at}\0\0").as_bytes());
        append(&mut input, b'Z', b"I");
        let mut expected = Vec::new();
        append(&mut expected, b'N', b"SNOTICE\0C00000\0Mm\0P8\0\0");
        append(&mut expected, b'E', b"SERROR\0VERROR\0C42601\0Mm\0P8\0\0");
        append(&mut expected, b'Z', b"I");
        assert_eq!(run(&mut side, &mut tracker, &input), Ok(expected));
        assert!(tracker.is_idle() && side.fatal().is_none());
    }

    #[test]
    fn a_long_row_streams_through_and_a_fatal_error_is_remembered() {
        let (mut side, mut tracker, mut output) = setup();
        let header = Header { kind: b'D', body: 1_000_000 }.encode();
        let input = [header.as_slice(), &[7; 100]].concat();
        assert_eq!(side.process(&input, &mut tracker, &mut output), Ok(105));
        assert!(side.is_mid_frame());
        assert_eq!(run(&mut side, &mut tracker, &vec![7; 999_900]).map(|out| out.len()), Ok(999_900));
        assert!(!side.is_mid_frame());
        let mut fatal = Vec::new();
        append(&mut fatal, b'E', b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0");
        assert_eq!(run(&mut side, &mut tracker, &fatal), Ok(fatal.clone()));
        assert_eq!(side.fatal(), Some("57P01"));
    }

    #[test]
    fn a_server_that_misbehaves_ends_the_session_cleanly() {
        for (input, expected) in [
            (b"E\0\0\0\x05x".as_slice(), Misbehaved::Malformed),
            (b"D\0\0\0\x03", Misbehaved::Length),
            (b"C\x7f\0\0\0", Misbehaved::Length),
            (b"Z\0\0\0\x06II", Misbehaved::Length),
            (b"Z\0\0\0\x04", Misbehaved::Length),
            (b"1\0\0\0\x04", Misbehaved::Desync(Desync(b'1'))),
            (b"?\0\0\0\x04", Misbehaved::Desync(Desync(b'?'))),
        ] {
            let (mut side, mut tracker, mut output) = setup();
            assert_eq!(side.process(input, &mut tracker, &mut output), Err(expected), "{input:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(input in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let (mut side, mut tracker, mut output) = setup();
            let _ = side.process(&input, &mut tracker, &mut output);
        }
    }
}

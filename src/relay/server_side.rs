//! From the server: settle what its answers end, move error positions back. No I/O of its own.
//!
//! Only headers are looked at, but for the few small messages that say something about an execution, and of a long
//! error or notice its start and its position.

mod long;

use super::output::Output;
use super::substitute::Refusal;
use super::tag::Tag;
use super::tracker::{Desync, Tracker};
use crate::wire::{ErrorFields, HEADER_BYTES, Header};
use long::{Fields, Next};
use std::ops::Range;
use std::time::Instant;

/// The most of an error or notice that is held, in bytes; a longer one streams ([`long`]).
pub const MAX_ERROR_BYTES: usize = 64 * 1024;
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
    /// Bytes of a message whose start has been looked at that still come.
    passing: usize,
    /// Where in them, of a long error or notice.
    fields: Fields,
    /// They do not pass: the client is told something else, or nothing.
    discard: bool,
    fatal: Option<String>,
    mute: Mute,
}

/// Whether the client still hears the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mute {
    /// It does.
    No,
    /// Up to the error of a cancel of ours.
    FromCancel,
    /// It does not.
    Yes,
}

/// An error or notice, as far as it is looked at, where it starts in the read buffer, and when that was read.
struct Report<'a> {
    header: Header,
    body: &'a [u8],
    at: usize,
    now: Instant,
}

/// SQLSTATE of a cancelled statement (`query_canceled`, `errcodes.txt`).
const QUERY_CANCELED: &str = "57014";

impl ServerSide {
    /// A session's server, whose errors speak of tagged text.
    pub fn new(tag: Tag) -> Self {
        Self { tag, passing: 0, fields: Fields::Over, discard: false, fatal: None, mute: Mute::No }
    }

    /// Whether a message's start has come and its rest has not.
    pub fn is_mid_frame(&self) -> bool {
        self.passing > 0
    }

    /// Whether a message's start has left for the client and its rest has not.
    pub fn has_left_in_part(&self) -> bool {
        self.passing > 0 && self.mute != Mute::Yes && !self.discard
    }

    /// What is outstanding is being cancelled for a reason of ours, which the client is told: it does not hear the
    /// cancel's own error, and nothing after it.
    pub fn mute_cancel(&mut self) {
        if self.mute == Mute::No {
            self.mute = Mute::FromCancel;
        }
    }

    /// Whether what is outstanding is being cancelled for a reason of ours.
    pub fn is_muted(&self) -> bool {
        self.mute != Mute::No
    }

    /// SQLSTATE of the server's own last word, if it had one.
    pub fn fatal(&self) -> Option<&str> {
        self.fatal.as_deref()
    }

    /// Works through `input`: how many bytes of it are dealt with. What is to be forwarded is in `output`, after an
    /// error too. `words` makes the error that the client is told in place of the server's, when it was refused.
    pub fn process(
        &mut self,
        input: &[u8],
        tracker: &mut Tracker,
        words: &dyn Fn(Refusal) -> ErrorFields,
        output: &mut Output,
    ) -> Result<usize, Misbehaved> {
        self.process_at(Instant::now(), input, tracker, words, output)
    }

    /// The same, of bytes that came at this time.
    pub fn process_at(
        &mut self,
        now: Instant,
        input: &[u8],
        tracker: &mut Tracker,
        words: &dyn Fn(Refusal) -> ErrorFields,
        output: &mut Output,
    ) -> Result<usize, Misbehaved> {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if self.passing > 0 {
                let Some(passed) = self.stream(rest, at, output) else { break };
                at = at.saturating_add(passed);
                continue;
            }
            let Some(header) = Header::decode(rest).map_err(|_| Misbehaved::Length)? else { break };
            let Some(body) = rest.get(HEADER_BYTES..HEADER_BYTES.saturating_add(looked_at(header)?)) else { break };
            (self.fields, self.discard) = (Fields::Over, false);
            let rows = Rows::at_start_of(rest);
            if rows.count > 0 {
                tracker.server_rows(header.kind, rows.count, rows.bytes as u64, now)?;
                self.pass(at..at.saturating_add(rows.bytes), output);
                at = at.saturating_add(rows.bytes);
                continue;
            }
            let seen = if matches!(header.kind, b'E' | b'N') {
                self.report(&Report { header, body, at, now }, tracker, words, output)?
            } else {
                let seen = HEADER_BYTES.saturating_add(body.len());
                tracker.server(header.kind, body, header.frame() as u64, now)?;
                self.pass(at..at.saturating_add(seen), output);
                seen
            };
            self.passing = header.frame().saturating_sub(seen);
            at = at.saturating_add(seen);
        }
        Ok(at)
    }

    /// Deals with the next bytes of a message whose start has been looked at: how many; `None` when more must be there.
    fn stream(&mut self, rest: &[u8], at: usize, output: &mut Output) -> Option<usize> {
        let here = rest.get(..self.passing).unwrap_or(rest);
        let dealt = match self.fields.next(here, here.len() == self.passing, &self.tag) {
            Next::Pass(count) => {
                self.pass(at..at.saturating_add(count), output);
                count
            }
            Next::Instead(bytes) => {
                self.insert(&bytes, output);
                bytes.len()
            }
            Next::Wait => return None,
        };
        self.passing = self.passing.saturating_sub(dealt);
        Some(dealt)
    }

    /// An error or notice: how much of it has been dealt with.
    fn report(
        &mut self,
        report: &Report<'_>,
        tracker: &mut Tracker,
        words: &dyn Fn(Refusal) -> ErrorFields,
        output: &mut Output,
    ) -> Result<usize, Misbehaved> {
        let Report { header, body, at, now } = *report;
        let is_whole = body.len() == header.body;
        // What cannot be looked through whole could quote it anywhere.
        let shows = || tracker.shows_substitute(body) || (!is_whole && tracker.works_on_substitute());
        self.discard = header.kind == b'N' && shows();
        let fields = match is_whole {
            _ if self.discard => ErrorFields::default(),
            true => ErrorFields::decode(body).map_err(|_| Misbehaved::Malformed)?,
            false => ErrorFields::decode_start(body),
        };
        if header.kind == b'E'
            && let Some(instead) = self.error(&fields, tracker, words, now)
        {
            self.insert(&instead.frame(b'E'), output);
            self.discard = true;
        }
        if is_whole {
            if !self.discard {
                self.positioned(header.kind, fields, at..at.saturating_add(header.frame()), output);
            }
            return Ok(header.frame());
        }
        if self.tag.is_set() && !self.discard {
            self.fields = Fields::Type;
        }
        self.pass(at..at.saturating_add(HEADER_BYTES), output);
        Ok(HEADER_BYTES)
    }

    /// Settles an error; returns what the client is told instead, if it answers a refused message.
    fn error(
        &mut self,
        fields: &ErrorFields,
        tracker: &mut Tracker,
        words: &dyn Fn(Refusal) -> ErrorFields,
        now: Instant,
    ) -> Option<ErrorFields> {
        let sqlstate = fields.sqlstate();
        let severity = fields.get(b'V').or(fields.get(b'S')).unwrap_or_default();
        if matches!(severity, b"FATAL" | b"PANIC") {
            tracker.server_fatal(&sqlstate, now);
            self.fatal = Some(sqlstate);
            return None;
        }
        if self.mute == Mute::FromCancel && sqlstate == QUERY_CANCELED {
            self.mute = Mute::Yes;
        }
        let refusal = tracker.refusal(fields.get(b'M').unwrap_or_default());
        let Some(refusal) = refusal else {
            tracker.server_error(&sqlstate, now);
            return None;
        };
        let instead = words(refusal);
        tracker.server_refused(&instead.sqlstate(), now);
        Some(instead)
    }

    /// Passes an error or notice on, its position moved back to the client's own text.
    fn positioned(&self, kind: u8, mut fields: ErrorFields, unchanged: Range<usize>, output: &mut Output) {
        let moved = fields.get(b'P').and_then(|position| self.tag.untag_position(position));
        match moved {
            Some(position) if self.tag.is_set() => {
                fields.set(b'P', &position);
                self.insert(&fields.frame(kind), output);
            }
            _ => self.pass(unchanged, output),
        }
    }

    fn pass(&self, range: Range<usize>, output: &mut Output) {
        if self.mute != Mute::Yes && !self.discard {
            output.pass(range);
        }
    }

    fn insert(&self, bytes: &[u8], output: &mut Output) {
        if self.mute != Mute::Yes {
            output.insert(bytes);
        }
    }
}

/// Messages of one type that carry rows, one behind the other: what is to be known of them is how many they are.
struct Rows {
    count: u64,
    /// On the wire.
    bytes: usize,
}

impl Rows {
    /// As many as are there whole.
    fn at_start_of(input: &[u8]) -> Self {
        let (mut count, mut bytes) = (0_u64, 0_usize);
        if let Some(kind @ (b'D' | b'd')) = input.first() {
            while let Some(Ok(Some(header))) = input.get(bytes..).map(Header::decode)
                && header.kind == *kind
                && bytes.saturating_add(header.frame()) <= input.len()
            {
                (count, bytes) = (count.saturating_add(1), bytes.saturating_add(header.frame()));
            }
        }
        Self { count, bytes }
    }
}

/// How much of the body must be there.
fn looked_at(header: Header) -> Result<usize, Misbehaved> {
    let limit = match header.kind {
        b'E' | b'N' => return Ok(header.body.min(MAX_ERROR_BYTES)),
        b'C' => MAX_COMMAND_BYTES,
        b'Z' if header.body == 1 => 1,
        b'Z' => return Err(Misbehaved::Length),
        _ => return Ok(0),
    };
    if header.body > limit { Err(Misbehaved::Length) } else { Ok(header.body) }
}

#[cfg(test)]
mod tests {
    use super::super::substitute::{self, Name, Refused};
    use super::super::tag::testing::{analyst, tag};
    use super::*;
    use crate::wire::append;

    fn setup() -> (ServerSide, Tracker, Output) {
        let mut tracker = Tracker::new();
        tracker.query(b"select 1", 8, 10, Instant::now());
        (ServerSide::new(tag(&analyst())), tracker, Output::default())
    }

    fn words(refusal: Refusal) -> ErrorFields {
        ErrorFields::new("ERROR", "53100", &refusal.to_string())
    }

    fn run(side: &mut ServerSide, tracker: &mut Tracker, input: &[u8]) -> Result<Vec<u8>, Misbehaved> {
        let mut output = Output::default();
        let taken = side.process(input, tracker, &words, &mut output)?;
        assert_eq!(taken, input.len());
        Ok(output.to_vec(input))
    }

    #[test]
    fn positions_move_back_and_everything_else_passes_byte_for_byte() {
        let (mut side, mut tracker, _) = setup();
        let at = tag(&analyst()).bytes().len() + 8;
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
        assert_eq!(side.process(&input, &mut tracker, &words, &mut output), Ok(105));
        assert!(side.is_mid_frame());
        assert_eq!(run(&mut side, &mut tracker, &vec![7; 999_900]).map(|out| out.len()), Ok(999_900));
        assert!(!side.is_mid_frame());
        let mut fatal = Vec::new();
        append(&mut fatal, b'E', b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0");
        assert_eq!(run(&mut side, &mut tracker, &fatal), Ok(fatal.clone()));
        assert_eq!(side.fatal(), Some("57P01"));
    }

    /// A text as long as the client likes comes back in its error.
    #[test]
    fn a_long_error_or_notice_streams_with_its_position_moved_and_is_never_held() {
        let at = tag(&analyst()).bytes().len() + 8;
        let moved = format!("{:0width$}", 8, width = at.to_string().len());
        let long = "x".repeat(17 * 1024 * 1024);
        let body = |position: &str| format!("SERROR\0VERROR\0C22P02\0M{long}\0P{position}\0Fint.c\0\0");
        for kind in [b'N', b'E'] {
            let (mut side, mut tracker, _) = setup();
            let (mut input, mut expected) = (Vec::new(), Vec::new());
            append(&mut input, kind, body(&at.to_string()).as_bytes());
            append(&mut expected, kind, body(&moved).as_bytes());
            append(&mut input, b'Z', b"I");
            append(&mut expected, b'Z', b"I");
            let (mut told, mut held) = (Vec::new(), Vec::new());
            for read in input.chunks(60_001) {
                held.extend_from_slice(read);
                let mut output = Output::default();
                let taken = side.process(&held, &mut tracker, &words, &mut output).unwrap();
                told.extend(output.to_vec(&held));
                held.drain(..taken);
                assert!(held.len() < HEADER_BYTES + MAX_ERROR_BYTES, "{} bytes are held", held.len());
            }
            assert!(told == expected && held.is_empty(), "{}", char::from(kind));
            let ends = tracker.take_ends();
            let state = ends.first().and_then(|end| end.sqlstate.clone());
            assert_eq!(state.as_deref(), (kind == b'E').then_some("22P02"));
        }
    }

    #[test]
    fn a_long_answer_to_a_refused_message_is_told_as_ours_alone() {
        let (mut side, mut tracker, _) = setup();
        let name = Name::draw();
        tracker.refuse(0, Refused { refusal: Refusal::Unrecorded, name });
        let quoted = String::from_utf8(substitute::frame(b'd', false, &name, &Tag::none())[5..].to_vec()).unwrap();
        let long = format!("{}{quoted}", "x".repeat(100_000));
        let (mut input, mut expected) = (Vec::new(), Vec::new());
        append(&mut input, b'N', format!("SNOTICE\0M{long}\0\0").as_bytes());
        append(&mut input, b'E', format!("SERROR\0VERROR\0C42601\0M{long}\0\0").as_bytes());
        append(&mut input, b'Z', b"I");
        expected.extend(words(Refusal::Unrecorded).frame(b'E'));
        append(&mut expected, b'Z', b"I");
        let mut output = Output::default();
        let half = input.len() - 10_000;
        let taken = side.process(&input[..half], &mut tracker, &words, &mut output).unwrap();
        assert!(side.is_mid_frame() && !side.has_left_in_part(), "nothing of it has left");
        let start = output.to_vec(&input);
        assert_eq!([start, run(&mut side, &mut tracker, &input[taken..]).unwrap()].concat(), expected);
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
            (b"C\0\0\0\x0dSELECT 0\0Z\0\0\0\x05ID\0\0\0\x04D\0\0\0\x04", Misbehaved::Desync(Desync(b'D'))),
            (b"D\0\0\0\x04D\0\0\0\x03", Misbehaved::Length),
            (b"?\0\0\0\x04", Misbehaved::Desync(Desync(b'?'))),
        ] {
            let (mut side, mut tracker, mut output) = setup();
            assert_eq!(side.process(input, &mut tracker, &words, &mut output), Err(expected), "{input:?}");
        }
    }

    #[test]
    fn rows_do_not_answer_a_refused_message() {
        for kind in [b'D', b'd'] {
            let (mut side, mut tracker, _) = setup();
            tracker.refuse(0, Refused { refusal: Refusal::Unrecorded, name: Name::draw() });
            let mut input = Vec::new();
            append(&mut input, kind, b"");
            append(&mut input, kind, b"");
            assert_eq!(run(&mut side, &mut tracker, &input), Err(Misbehaved::Desync(Desync(kind))));
        }
    }

    proptest::proptest! {
        #[test]
        fn rows_are_counted_alike_however_they_come(
            rows in proptest::collection::vec((proptest::sample::select(vec![b'D', b'D', b'd']), 0..300_usize), 0..20),
            cuts in proptest::collection::vec(1..400_usize, 1..20),
        ) {
            let mut input = Vec::new();
            append(&mut input, b'T', &[0, 0]);
            for (kind, size) in &rows {
                append(&mut input, *kind, &vec![7; *size]);
            }
            let count = rows.iter().filter(|row| row.0 == b'D').count();
            let bytes_of_rows = input.len() as u64;
            append(&mut input, b'C', b"SELECT\0");
            let bytes = input.len() as u64;
            append(&mut input, b'Z', b"I");
            let (mut side, mut tracker, _) = setup();
            let (mut held, mut told, mut rest) = (Vec::new(), Vec::new(), input.as_slice());
            for cut in cuts.into_iter().cycle() {
                let (read, behind) = rest.split_at(cut.min(rest.len()));
                rest = behind;
                held.extend_from_slice(read);
                let mut output = Output::default();
                let taken = side.process(&held, &mut tracker, &words, &mut output).unwrap();
                told.extend(output.to_vec(&held));
                held.drain(..taken);
                if rest.is_empty() {
                    break;
                }
            }
            proptest::prop_assert_eq!(&told, &input);
            let [end] = tracker.take_ends().try_into().unwrap();
            proptest::prop_assert_eq!((end.rows, end.bytes_out), (count as u64, bytes));
            proptest::prop_assert_eq!(end.first_row_us.is_some(), bytes_of_rows > 7);
        }

        #[test]
        fn arbitrary_bytes_never_panic(input in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let (mut side, mut tracker, mut output) = setup();
            let _ = side.process(&input, &mut tracker, &words, &mut output);
        }
    }
}

//! From the client: find frames, take each statement's place in the log, put the tag in. No I/O of its own.
//!
//! Sizes and types are PostgreSQL's (`SocketBackend`, `src/backend/tcop/postgres.c`). A message whose inside is
//! malformed is recorded and passed on: the server refuses it with 08P01 and the session lives, as without us.

use super::output::Output;
use super::tag::Tag;
use super::tracker::{Place, StatementText, Target, Tracker, effective_name};
use crate::audit::event::{MAX_TEXT_BYTES, Stage};
use crate::audit::{Begin, Recorder, Unrecorded};
use crate::wire::{HEADER_BYTES, Header, Reader};
use std::time::Instant;

/// The most of a message that is looked at, in bytes: names and the start of a text. Longer messages stream.
pub const INSPECTED_BYTES: usize = MAX_TEXT_BYTES + 1024;
/// How much of a remembered text each further execution's begin line repeats, in bytes.
pub const REPEATED_TEXT_BYTES: usize = 4 * 1024;
/// `PQ_SMALL_MESSAGE_LIMIT` (`libpq.h`), in bytes with the length word.
const SMALL_MESSAGE: usize = 10_000;
/// `PQ_LARGE_MESSAGE_LIMIT` (`libpq.h`), in bytes with the length word.
const LARGE_MESSAGE: usize = 0x3fff_ffff - 1;

/// Why the client's bytes go no further.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such message type.
    #[error("invalid frontend message type {0}")]
    Type(u8),
    /// A length that this type cannot have.
    #[error("invalid message length")]
    Length,
    /// A statement's or portal's name that does not end.
    #[error("a statement or portal name does not end within {INSPECTED_BYTES} bytes")]
    EndlessName,
    /// With its tag the statement would pass PostgreSQL's limit.
    #[error("the statement is too long to carry its tag")]
    TooLong,
    /// Too many prepared statements and portals.
    #[error("too many prepared statements and portals")]
    Overfull,
    /// The log cannot take the begin lines. Nothing of this read was forwarded.
    #[error(transparent)]
    Unrecorded(#[from] Unrecorded),
}

/// Why [`ClientSide::process`] stopped.
#[derive(Debug)]
pub enum Stop {
    /// More of the client's bytes are needed, or it has said goodbye.
    Input,
    /// The server owes too many answers: go on when it has given some.
    Answers,
    /// A cancel is on its way: go on when the gate opens.
    Held,
    /// Enough begin lines are prepared: commit, forward, and go on.
    Commit,
    /// The client's bytes go no further.
    Refused(Refusal),
}

/// One direction's state.
#[derive(Debug)]
pub struct ClientSide {
    tag: Tag,
    /// Bytes of a message whose start has been looked at that still pass through.
    passing: usize,
    terminated: bool,
}

/// What one message needs.
struct Frame<'a> {
    header: Header,
    /// Where it starts in the read buffer.
    at: usize,
    /// Its body as far as it is looked at.
    known: &'a [u8],
    bytes: u64,
    now: Instant,
}

impl ClientSide {
    /// A session's client, with its tag.
    pub fn new(tag: Tag) -> Self {
        Self { tag, passing: 0, terminated: false }
    }

    /// Whether a message's start has left and its rest has not.
    pub fn is_mid_frame(&self) -> bool {
        self.passing > 0
    }

    /// Whether the client has said goodbye.
    pub fn is_terminated(&self) -> bool {
        self.terminated
    }

    /// Works through `input`: how many bytes of it are dealt with, and why it stopped. What is to be
    /// forwarded is in `output`; the begin lines are prepared in `recorder`, and must be committed first.
    pub fn process(
        &mut self,
        input: &[u8],
        tracker: &mut Tracker,
        recorder: &mut Recorder,
        output: &mut Output,
    ) -> (usize, Stop) {
        let now = Instant::now();
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty() && !self.terminated) {
            if self.passing > 0 {
                let passed = self.passing.min(rest.len());
                output.pass(at..at.saturating_add(passed));
                self.passing = self.passing.saturating_sub(passed);
                at = at.saturating_add(passed);
                continue;
            }
            let frame = match next_frame(rest, at, now) {
                Ok(Some(_)) if tracker.is_full() => return (at, Stop::Answers),
                Ok(Some(_)) if recorder.is_full() => return (at, Stop::Commit),
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(refusal) => return (at, Stop::Refused(refusal)),
            };
            if let Err(refusal) = self.message(&frame, tracker, recorder, output) {
                return (at, Stop::Refused(refusal));
            }
            let seen = HEADER_BYTES.saturating_add(frame.known.len());
            self.passing = frame.header.frame().saturating_sub(seen);
            at = at.saturating_add(seen);
        }
        (at, Stop::Input)
    }

    fn message(
        &mut self,
        frame: &Frame<'_>,
        tracker: &mut Tracker,
        recorder: &mut Recorder,
        output: &mut Output,
    ) -> Result<(), Refusal> {
        if matches!(frame.header.kind, b'P' | b'B') && tracker.is_overfull() {
            return Err(Refusal::Overfull);
        }
        match frame.header.kind {
            b'Q' => return self.query(frame, tracker, recorder, output),
            b'P' => return self.parse(frame, tracker, recorder, output),
            b'B' => bind(frame, tracker, recorder)?,
            b'E' => execute(frame, tracker, recorder)?,
            b'F' => function_call(frame, tracker, recorder)?,
            b'D' => tracker.describe(),
            b'C' => close(frame, tracker),
            b'S' => tracker.sync(),
            b'H' if frame.header.body > 0 => tracker.malformed_flush(),
            b'c' | b'f' => tracker.copy_end(),
            b'd' => tracker.copy_data(frame.bytes),
            b'X' => self.terminated = true,
            _ => {}
        }
        output.pass(frame.at..frame.seen());
        Ok(())
    }

    fn query(
        &self,
        frame: &Frame<'_>,
        tracker: &mut Tracker,
        recorder: &mut Recorder,
        output: &mut Output,
    ) -> Result<(), Refusal> {
        let header = self.tagged(frame.header)?;
        let text = frame.text(0);
        let event = tracker.query(text.0, text.1, frame.bytes, frame.now);
        recorder.begin(&Begin { text: Some(text), tagged: self.tag.is_set(), ..begin(event, Stage::Query) })?;
        output.insert(&header.encode());
        output.insert(self.tag.bytes());
        output.pass(frame.body_start()..frame.seen());
        Ok(())
    }

    fn parse(
        &self,
        frame: &Frame<'_>,
        tracker: &mut Tracker,
        recorder: &mut Recorder,
        output: &mut Output,
    ) -> Result<(), Refusal> {
        // A name that is the whole message has no text to tag; the server refuses the message.
        let Some(name) = frame.name()? else {
            let event = tracker.parse(b"", b"", 0, frame.bytes, frame.now);
            recorder.begin(&begin(event, Stage::Parse))?;
            output.pass(frame.at..frame.seen());
            return Ok(());
        };
        let header = self.tagged(frame.header)?;
        let text_start = name.len().saturating_add(1);
        let text = frame.text(text_start);
        let event = tracker.parse(name, text.0, text.1, frame.bytes, frame.now);
        let (tagged, statement) = (self.tag.is_set(), effective_name(name));
        recorder.begin(&Begin { text: Some(text), statement, tagged, ..begin(event, Stage::Parse) })?;
        let text_at = frame.body_start().saturating_add(text_start);
        output.insert(&header.encode());
        output.pass(frame.body_start()..text_at);
        output.insert(self.tag.bytes());
        output.pass(text_at..frame.seen());
        Ok(())
    }

    /// The header of the same message with the tag in it.
    fn tagged(&self, header: Header) -> Result<Header, Refusal> {
        let body = header.body.saturating_add(self.tag.bytes().len());
        if body.saturating_add(4) > LARGE_MESSAGE {
            return Err(Refusal::TooLong);
        }
        Ok(Header { body, ..header })
    }
}

/// The frame at the start of `rest`, once as much of it is there as must be looked at.
fn next_frame(rest: &[u8], at: usize, now: Instant) -> Result<Option<Frame<'_>>, Refusal> {
    let Some(header) = Header::decode(rest).map_err(|_| Refusal::Length)? else { return Ok(None) };
    let (limit, looked_at) = match header.kind {
        b'Q' | b'P' | b'B' => (LARGE_MESSAGE, header.body.min(INSPECTED_BYTES)),
        b'F' => (LARGE_MESSAGE, header.body.min(4)),
        b'd' => (LARGE_MESSAGE, 0),
        b'E' | b'C' | b'D' => (SMALL_MESSAGE, header.body),
        b'S' | b'H' | b'X' | b'c' | b'f' => (SMALL_MESSAGE, 0),
        other => return Err(Refusal::Type(other)),
    };
    if header.body.saturating_add(4) > limit {
        return Err(Refusal::Length);
    }
    let known = rest.get(HEADER_BYTES..HEADER_BYTES.saturating_add(looked_at));
    let bytes = header.frame() as u64;
    Ok(known.map(|known| Frame { header, at, known, bytes, now }))
}

impl<'a> Frame<'a> {
    fn body_start(&self) -> usize {
        self.at.saturating_add(HEADER_BYTES)
    }

    fn seen(&self) -> usize {
        self.body_start().saturating_add(self.known.len())
    }

    /// The first string, or `None` if the whole message has no NUL.
    fn name(&self) -> Result<Option<&'a [u8]>, Refusal> {
        match Reader::new(self.known).cstr() {
            Ok(name) => Ok(Some(name)),
            Err(_) if self.known.len() == self.header.body => Ok(None),
            Err(_) => Err(Refusal::EndlessName),
        }
    }

    /// The text that starts at `start` of the body: its known start, and its length in bytes. A Parse that streams
    /// declares text and parameter types together; that sum is told then.
    fn text(&self, start: usize) -> (&'a [u8], u64) {
        let known = self.known.get(start..).unwrap_or_default();
        if let Some(end) = memchr::memchr(0, known) {
            return (known.get(..end).unwrap_or_default(), end as u64);
        }
        let declared = self.header.body.saturating_sub(start).saturating_sub(1);
        (known, declared.max(known.len()) as u64)
    }
}

fn begin<'a>(event: u64, stage: Stage) -> Begin<'a> {
    let (text, text_of, text_doubtful) = (None, None, false);
    Begin { event, stage, text, text_of, text_doubtful, statement: b"", portal: b"", function_oid: None, tagged: false }
}

/// A begin line on a remembered text: the Parse's line has all of it, this one repeats its start.
fn begin_again<'a>(place: &'a Place, stage: Stage, portal: &'a [u8]) -> Begin<'a> {
    let text = place.text.as_deref();
    let start = |text: &'a StatementText| text.head.get(..REPEATED_TEXT_BYTES).unwrap_or(&text.head);
    Begin {
        text: text.map(|text| (start(text), text.bytes)),
        text_of: text.map(|text| text.event),
        text_doubtful: text.is_some() && place.doubtful,
        statement: &place.statement,
        portal: effective_name(portal),
        ..begin(place.event, stage)
    }
}

fn bind(frame: &Frame<'_>, tracker: &mut Tracker, recorder: &mut Recorder) -> Result<(), Refusal> {
    let mut reader = Reader::new(frame.known);
    let (portal, statement) = match (reader.cstr(), reader.cstr()) {
        (Ok(portal), Ok(statement)) => (portal, statement),
        _ if frame.known.len() == frame.header.body => (b"".as_slice(), b"".as_slice()),
        _ => return Err(Refusal::EndlessName),
    };
    let place = tracker.bind(portal, statement, frame.bytes, frame.now);
    Ok(recorder.begin(&begin_again(&place, Stage::Bind, portal))?)
}

fn execute(frame: &Frame<'_>, tracker: &mut Tracker, recorder: &mut Recorder) -> Result<(), Refusal> {
    let portal = Reader::new(frame.known).cstr().unwrap_or_default();
    let place = tracker.execute(portal, frame.bytes, frame.now);
    Ok(recorder.begin(&begin_again(&place, Stage::Execute, portal))?)
}

fn function_call(frame: &Frame<'_>, tracker: &mut Tracker, recorder: &mut Recorder) -> Result<(), Refusal> {
    let event = tracker.function_call(frame.bytes, frame.now);
    let function_oid = Reader::new(frame.known).u32().ok();
    recorder.begin(&Begin { function_oid, ..begin(event, Stage::FunctionCall) })?;
    Ok(())
}

fn close(frame: &Frame<'_>, tracker: &mut Tracker) {
    let mut reader = Reader::new(frame.known);
    let target = match reader.u8() {
        Ok(b'S') => Target::Statement,
        _ => Target::Portal,
    };
    tracker.close(target, reader.cstr().unwrap_or_default());
}

#[cfg(test)]
mod tests;

//! From the client: find frames, take each statement's place in the log, put the tag in. No I/O of its own.
//!
//! Sizes and types are PostgreSQL's (`SocketBackend`, `src/backend/tcop/postgres.c`). A message whose inside is
//! malformed is recorded and passed on: the server refuses it with 08P01 and the session lives, as without us. A
//! message that is refused leaves as its [`substitute`](super::substitute).

mod admission;
mod frame;
mod line;
mod measure;
mod parameters;
mod refusing;

use super::output::Output;
use super::substitute::{Ends, Refusal};
use super::tag::Tag;
use super::tracker::{Mark, Tracker, effective_name, role_changes};
use super::walsender;
use crate::audit::event::{MAX_TEXT_BYTES, Stage};
use crate::audit::{Begin, Begun, Parameters, Recorder, UnrecordedCommit, Urgency};
use crate::wire::{Header, Purpose, Reader};
use admission::Admission;
pub use admission::Turn;
use frame::{Frame, OID_BYTES, tagged};
use line::begin_again;
use measure::Following;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

/// The most of a message that is looked at, in bytes: names and the start of a text. Longer messages stream.
pub const INSPECTED_BYTES: usize = MAX_TEXT_BYTES + 1024;
/// Why the client's bytes go no further: PostgreSQL ends the session for it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No such message type.
    #[error("invalid frontend message type {0}")]
    Type(u8),
    /// A length that this type cannot have.
    #[error("invalid message length")]
    Length,
}

/// Why [`ClientSide::process`] stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// More of the client's bytes are needed, or it has said goodbye.
    Input,
    /// The server owes too many answers: go on when it has given some.
    Answers,
    /// A cancel is on its way: go on when the gate opens.
    Held,
    /// A limit of the session's rule is reached: go on at its turn.
    Wait(Turn),
    /// Enough begin lines are prepared: commit, forward, and go on.
    Commit,
    /// The client's bytes go no further.
    Violated(Violation),
}

/// What did not go its ordinary way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missed {
    /// Messages that were refused.
    pub refused: BTreeMap<Refusal, u64>,
    /// Messages that passed though the log could not take their record, or the disk not confirm it.
    pub passed: u64,
    /// Of those, COMMITs.
    pub commits: u64,
    /// Beside those, messages that passed without a record because their caller's have taken what they may.
    pub over: u64,
    /// Of those, COMMITs.
    pub over_commits: u64,
}

/// One direction's state.
#[derive(Debug)]
pub struct ClientSide {
    tag: Tag,
    flow: Flow,
    /// The text that is streaming, where more than its begin line is to be known of it.
    following: Option<Following>,
    /// As it was before the last [`ClientSide::process`].
    before: (Flow, Mark),
    /// Number of the last [`ClientSide::process`]: what its begin lines have repeated, they need not again.
    batch: u64,
    /// The messages that took their place in the log in it.
    recorded: Vec<Recorded>,
    /// How many bytes of it are recorded and of a message whose start had left before.
    continued: usize,
    /// The log has taken nothing of it but ends of transactions.
    untaken: bool,
    missed: Missed,
    /// Something was refused in whose place nothing can stand: the session must end.
    must_end: bool,
    terminated: bool,
    purpose: Purpose,
    /// How much of a `FunctionCall` is looked at.
    call_bytes: usize,
    /// None where the session's rule has no limits.
    admission: Option<Box<Admission>>,
    /// What becomes of a COMMIT that cannot be recorded.
    unrecorded_commit: UnrecordedCommit,
}

/// Where in the stream of bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    /// Bytes of a message whose start has been looked at that still come.
    passing: usize,
    /// They do not pass: the message was refused.
    discard: bool,
    /// A CopyFail left for the client's COPY data; what is left of the data is dropped up to its end.
    copy_refused: bool,
}

/// A message that took its place in the log.
#[derive(Debug, Clone)]
struct Recorded {
    event: u64,
    /// Where its begin record is among the prepared ones.
    begin: Range<usize>,
    /// That is the record of the message before it.
    joined: bool,
    /// The log has that.
    taken: bool,
    /// Its place among the answers; none where the server skips it.
    place: Option<u64>,
    /// It is a Parse of the unnamed statement.
    unnamed: bool,
    /// It ends a transaction and does nothing else: the log's reserve may take it.
    ends: Option<Ends>,
}

impl Recorded {
    fn of(event: u64, begun: Begun, frame: &Frame<'_>, place: Option<u64>) -> Self {
        let Begun { record, joined, .. } = begun;
        Self { event, begin: record, joined, taken: !frame.unrecorded, place, unnamed: false, ends: None }
    }
}

impl ClientSide {
    /// A session's client, with its tag.
    pub fn new(tag: Tag) -> Self {
        let (before, recorded) = ((Flow::default(), Mark { order: 0, event: 0 }), Vec::new());
        let (flow, missed, purpose) = (Flow::default(), Missed::default(), Purpose::Statements);
        Self {
            tag,
            flow,
            following: None,
            before,
            batch: 0,
            recorded,
            continued: 0,
            untaken: false,
            missed,
            must_end: false,
            terminated: false,
            purpose,
            call_bytes: OID_BYTES,
            admission: None,
            unrecorded_commit: UnrecordedCommit::default(),
        }
    }

    /// The same in a session of this purpose.
    #[must_use]
    pub fn serving(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// Whether a message's start has been taken and its rest has not.
    pub fn is_mid_frame(&self) -> bool {
        self.flow.passing > 0
    }

    /// Whether a message's start has left, so that the server waits for its rest.
    pub fn has_left_in_part(&self) -> bool {
        self.flow.passing > 0 && !self.flow.discard
    }

    /// Whether the client has said goodbye.
    pub fn is_terminated(&self) -> bool {
        self.terminated
    }

    /// Whether something was refused in whose place nothing can stand.
    pub fn must_end(&self) -> bool {
        self.must_end
    }

    /// What of the last [`ClientSide::process`] did not go its ordinary way.
    pub fn take_missed(&mut self) -> Missed {
        std::mem::take(&mut self.missed)
    }

    /// Works through `input`: how many bytes of it are dealt with, and why it stopped. What is to be forwarded is in
    /// `output`; the begin lines are prepared in `recorder`, and must be committed first. Where they cannot be,
    /// [`ClientSide::refuse`] must follow.
    pub fn process(
        &mut self,
        input: &[u8],
        tracker: &mut Tracker,
        recorder: &mut Recorder,
        output: &mut Output,
    ) -> (usize, Stop) {
        self.process_at(Instant::now(), input, tracker, recorder, output)
    }

    /// The same, of bytes that came at this time.
    pub fn process_at(
        &mut self,
        now: Instant,
        input: &[u8],
        tracker: &mut Tracker,
        recorder: &mut Recorder,
        output: &mut Output,
    ) -> (usize, Stop) {
        let arguments_are_read = recorder.parameters() != Parameters::Off;
        self.call_bytes = if arguments_are_read { INSPECTED_BYTES } else { OID_BYTES };
        self.before = (self.flow, tracker.mark());
        self.batch = self.batch.wrapping_add(1);
        self.recorded.clear();
        self.continued = 0;
        self.untaken = false;
        self.missed = Missed::default();
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty() && !self.terminated) {
            if self.flow.passing > 0 {
                if let Some(turn) = self.admission.as_ref().and_then(|admission| admission.rest()) {
                    return (at, Stop::Wait(turn));
                }
                let is_recorded = self.following.as_ref().is_some_and(Following::is_recorded);
                if is_recorded && recorder.is_full() {
                    return (at, Stop::Commit);
                }
                let most = if is_recorded { MAX_TEXT_BYTES } else { rest.len() };
                let end = self.flow.stream(at, rest.len().min(most), output);
                self.follow_on(input.get(at..end).unwrap_or_default(), tracker, recorder);
                if is_recorded && at < self.before.0.passing {
                    self.continued = end;
                }
                at = end;
                continue;
            }
            let mut frame = match Frame::next(rest, at, self.call_bytes, now) {
                Ok(Some(_)) if tracker.is_full() => return (at, Stop::Answers),
                Ok(Some(_)) if recorder.is_full() || self.goes_alone(recorder) => return (at, Stop::Commit),
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(violation) => return (at, Stop::Violated(violation)),
            };
            if let Some(turn) = self.admit(&mut frame, tracker) {
                return (at, Stop::Wait(turn));
            }
            self.flow.discard = false;
            let since = tracker.mark();
            self.message(&frame, tracker, recorder, output);
            if frame.unrecorded {
                self.without_record(&frame, since, tracker);
            }
            at = frame.seen();
            self.flow.passing = frame.header.frame().saturating_sub(at.saturating_sub(frame.at));
        }
        (at, Stop::Input)
    }

    /// While the log takes nothing, each message is offered to it alone, so that one which the reserve may take is not
    /// refused with one that it may not.
    fn goes_alone(&self, recorder: &Recorder) -> bool {
        recorder.is_owing() && (self.continued > 0 || !self.recorded.is_empty())
    }

    /// Whether a message of the last [`ClientSide::process`], or more of one, is in the log.
    pub fn has_recorded(&self) -> bool {
        self.continued > 0 || self.recorded.iter().any(|recorded| recorded.taken)
    }

    /// What of the log the last [`ClientSide::process`] may use: where all of its messages do nothing but end
    /// transactions, the reserve too.
    pub fn urgency(&self) -> Urgency {
        let only_begun = self.continued == 0 && self.has_recorded();
        let ends = only_begun && self.recorded.iter().all(|own| own.ends.is_some() || !own.taken);
        if ends { Urgency::Reserve } else { Urgency::Normal }
    }

    fn message(&mut self, frame: &Frame<'_>, tracker: &mut Tracker, recorder: &mut Recorder, output: &mut Output) {
        if self.flow.drops(frame.header.kind) {
            return;
        }
        match frame.header.kind {
            b'Q' => return self.query(frame, tracker, recorder, output),
            b'P' => return self.parse(frame, tracker, recorder, output),
            b'B' => return self.bind(frame, tracker, recorder, output),
            b'E' => return self.execute(frame, tracker, recorder, output),
            b'F' => return self.function_call(frame, tracker, recorder, output),
            b'D' => tracker.describe(),
            b'C' => frame.close(tracker),
            b'S' => tracker.sync(),
            b'H' if frame.header.body > 0 => tracker.malformed_flush(),
            b'c' | b'f' => tracker.copy_end(),
            b'd' => {
                tracker.copy_data(frame.bytes);
                recorder.data();
            }
            b'X' => self.terminated = true,
            _ => {}
        }
        output.pass(frame.at..frame.seen());
    }

    fn query(&mut self, frame: &Frame<'_>, tracker: &mut Tracker, recorder: &mut Recorder, output: &mut Output) {
        let text = frame.text(0);
        let command = self.purpose == Purpose::Replication && walsender::is_command(text.head, text.bytes);
        let header = if command { Ok(frame.header) } else { tagged(frame.header, &self.tag) };
        let header = frame.refusal.map_or(header, Err);
        let (ends, place) = (frame.only_text(0).filter(|_| frame.refusal.is_none()), tracker.place());
        let event = tracker.query(text.head, text.bytes, frame.bytes, frame.now);
        let tagged = self.tag.is_set() && header.is_ok() && !command;
        let role_changes = if command { Vec::new() } else { role_changes(text.head) };
        let known = Some((text.head, text.bytes));
        let line = Begin { text: known, role_changes: &role_changes, tagged, ..Begin::of(event, Stage::Query) };
        let begun = Self::begin(frame, recorder, &line);
        let followed = (header.is_ok() && !frame.unrecorded).then_some(begun.text_bytes);
        self.follow(event, &text, followed, tracker, recorder);
        let own = Recorded { ends, ..Recorded::of(event, begun, frame, place) };
        match header {
            Ok(_) if command => output.pass(frame.at..frame.seen()),
            Ok(header) => self.insert_tag(header, frame, 0, output),
            Err(refusal) => self.substitute(frame.header.kind, &own, refusal, tracker, output),
        }
        self.note(own);
    }

    fn parse(&mut self, frame: &Frame<'_>, tracker: &mut Tracker, recorder: &mut Recorder, output: &mut Output) {
        let (name, text) = match frame.name() {
            Ok(Some(name)) => (name, Some(frame.text(name.len().saturating_add(1)))),
            // A name that is the whole message has no text to tag; the server refuses the message.
            Ok(None) => (b"".as_slice(), None),
            Err(_) => (frame.known, None),
        };
        let overfull = frame.or_overfull(name, tracker);
        let known = text.unwrap_or_default();
        let head = known.head;
        let place = tracker.place();
        let event = tracker.parse(name, head, known.bytes, frame.bytes, frame.now);
        let header = overfull.and(frame.name()).and_then(|_| tagged(frame.header, &self.tag));
        let tagged = self.tag.is_set() && header.is_ok() && text.is_some();
        let statement = effective_name(name);
        let text = text.map(|text| (text.head, text.bytes));
        let role_changes = role_changes(head);
        let line = Begin { text, role_changes: &role_changes, statement, tagged, ..Begin::of(event, Stage::Parse) };
        let begun = Self::begin(frame, recorder, &line);
        let followed = (header.is_ok() && !frame.unrecorded).then_some(begun.text_bytes);
        self.follow(event, &known, followed, tracker, recorder);
        let ends = if name.is_empty() && header.is_ok() { frame.only_text(1) } else { None };
        let own = Recorded { unnamed: name.is_empty(), ends, ..Recorded::of(event, begun, frame, place) };
        match header {
            Ok(header) if text.is_some() => self.insert_tag(header, frame, name.len().saturating_add(1), output),
            Ok(_) => output.pass(frame.at..frame.seen()),
            Err(refusal) => self.substitute(frame.header.kind, &own, refusal, tracker, output),
        }
        self.note(own);
    }

    fn bind(&mut self, frame: &Frame<'_>, tracker: &mut Tracker, recorder: &mut Recorder, output: &mut Output) {
        let mut reader = Reader::new(frame.known);
        let names = (reader.cstr(), reader.cstr());
        let (portal, statement, whole) = match names {
            (Ok(portal), Ok(statement)) => (portal, statement, Ok(())),
            _ if frame.is_whole() => (b"".as_slice(), b"".as_slice(), Ok(())),
            (Ok(portal), Err(_)) => (portal, reader.rest(), Err(Refusal::EndlessName)),
            (Err(_), _) => (frame.known, b"".as_slice(), Err(Refusal::EndlessName)),
        };
        let (overfull, place) = (frame.or_overfull(portal, tracker), tracker.place());
        let bound = tracker.bind(portal, statement, frame.bytes, frame.now);
        let tagged = self.tag.is_set() && !bound.is_unknown();
        let values = (recorder.parameters() != Parameters::Off && overfull.and(whole).is_ok())
            .then(|| parameters::of_bind(frame, names.0.and(names.1).map(|_| reader.rest())));
        let parameters = values.as_ref();
        let ends = bound.ends.filter(|_| frame.is_whole() && overfull.is_ok());
        let goes_on = self.goes_on(bound.event, ends);
        let line = Begin { parameters, tagged, goes_on, ..begin_again(&bound, Stage::Bind, portal, self.batch) };
        let begun = Self::begin(frame, recorder, &line);
        let own = Recorded { ends, ..Recorded::of(bound.event, begun, frame, place) };
        self.pass_or_refuse(overfull.and(whole), frame, own, tracker, output);
    }

    fn execute(&mut self, frame: &Frame<'_>, tracker: &mut Tracker, recorder: &mut Recorder, output: &mut Output) {
        let portal = Reader::new(frame.known).cstr().unwrap_or_default();
        let place = tracker.place();
        let executed = tracker.execute(portal, frame.bytes, frame.now);
        let tagged = self.tag.is_set() && !executed.is_unknown();
        let ends = executed.ends.filter(|_| frame.refusal.is_none());
        let goes_on = self.goes_on(executed.event, ends);
        let line = Begin { tagged, goes_on, ..begin_again(&executed, Stage::Execute, portal, self.batch) };
        let begun = Self::begin(frame, recorder, &line);
        let own = Recorded { ends, ..Recorded::of(executed.event, begun, frame, place) };
        self.pass_or_refuse(frame.admitted(), frame, own, tracker, output);
    }

    fn function_call(
        &mut self,
        frame: &Frame<'_>,
        tracker: &mut Tracker,
        recorder: &mut Recorder,
        output: &mut Output,
    ) {
        let place = tracker.place();
        let event = tracker.function_call(frame.bytes, frame.now);
        let function_oid = Reader::new(frame.known).u32().ok();
        let values =
            (recorder.parameters() != Parameters::Off && frame.admitted().is_ok()).then(|| parameters::of_call(frame));
        let parameters = values.as_ref();
        let line = Begin { function_oid, parameters, ..Begin::of(event, Stage::FunctionCall) };
        let own = Recorded::of(event, Self::begin(frame, recorder, &line), frame, place);
        self.pass_or_refuse(frame.admitted(), frame, own, tracker, output);
    }

    /// Prepares a message's begin record, if it gets one.
    fn begin(frame: &Frame<'_>, recorder: &mut Recorder, line: &Begin<'_>) -> Begun {
        if frame.unrecorded { Begun::default() } else { recorder.begin(line) }
    }

    /// Whether a message that ends a transaction so, or not, may be in one record with the one before it: the log's
    /// reserve takes both or neither.
    fn goes_on(&self, event: u64, ends: Option<Ends>) -> bool {
        let before = self.recorded.last();
        before.is_some_and(|before| before.event == event && before.taken && before.ends == ends)
    }

    fn note(&mut self, own: Recorded) {
        if own.joined {
            // The record has grown, for all that it stands for: back to the message that it was made for.
            for before in self.recorded.iter_mut().rev() {
                before.begin.clone_from(&own.begin);
                if !before.joined {
                    break;
                }
            }
        }
        self.recorded.push(own);
    }

    fn pass_or_refuse(
        &mut self,
        admitted: Result<(), Refusal>,
        frame: &Frame<'_>,
        own: Recorded,
        tracker: &mut Tracker,
        output: &mut Output,
    ) {
        match admitted {
            Err(refusal) => self.substitute(frame.header.kind, &own, refusal, tracker, output),
            Ok(()) => output.pass(frame.at..frame.seen()),
        }
        self.note(own);
    }

    /// The tag's way into the Query at the start of `query`, and nothing else: to be measured alone.
    #[doc(hidden)]
    pub fn splice(&self, query: &[u8], now: Instant, output: &mut Output) {
        if let Ok(Some(frame)) = Frame::next(query, 0, self.call_bytes, now)
            && let Ok(header) = tagged(frame.header, &self.tag)
        {
            self.insert_tag(header, &frame, 0, output);
        }
    }

    /// The message leaves with the tag at `at` of its body.
    fn insert_tag(&self, header: Header, frame: &Frame<'_>, at: usize, output: &mut Output) {
        let at = frame.body_start().saturating_add(at);
        output.insert(&header.encode());
        output.pass(frame.body_start()..at);
        output.insert(self.tag.bytes());
        output.pass(at..frame.seen());
    }
}

#[cfg(test)]
mod parameter_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod text_tests;

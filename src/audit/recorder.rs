//! One session's place in the log.

mod begin;
mod group;
mod joined;
mod spare;
mod told;

use super::end::End;
use super::event::{self, Caller, Event, EventId, MAX_TEXT_BYTES};
use super::ledger::{Group, NotDurable, frame};
use super::line::Heads;
use super::missed::{Gap, Missed};
use super::sealing::{Sealer, Texts};
use super::text::start;
use super::trace::traceparent;
use super::{Auditor, Durability, Parameters, Recording, Unrecorded, Urgency};
use crate::names::SessionId;
pub use begin::{Begin, Begun};
use joined::Newest;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;
use told::Told;

/// Prepared records are committed when they pass this size, in bytes: what goes out in one `write(2)` is no longer than
/// that and one record.
pub const COMMIT_AT: usize = 1024 * 1024;
/// Of what the log does not take, so much is owed at a time, in bytes.
const OWE_AT: usize = 64 * 1024;
/// Records of one session that wait for the log to take them, in bytes at most.
pub const MAX_OWED: usize = 1024 * 1024;
/// How long a session may owe records to the log.
pub const OWED_LIMIT: Duration = Duration::from_secs(600);

/// The session owes the log more than can wait, or for too long: it must end.
#[derive(Debug, thiserror::Error)]
#[error("the audit log does not take what the session owes it")]
pub struct Overdue;

/// What became of a session's last records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// They are in the log.
    Written,
    /// They wait in memory until the log takes them.
    Waiting,
    /// There is no room for them.
    Lost,
}

/// Writes one session's records. Nothing may be forwarded that neither [`Recorder::commit`] nor [`Recorder::commit_group`] has taken.
///
/// When the log takes none, begin records are dropped and what they stand for is refused; end records are owed
/// ([`Recorder::owe`]): they wait, in order, and go first with the next commit.
#[derive(Debug)]
pub struct Recorder {
    auditor: Auditor,
    heads: Heads,
    caller: Box<RawValue>,
    durability: Durability,
    /// None where texts stand in the clear.
    sealer: Option<Sealer>,
    parameters: Parameters,
    recording: Recording,
    /// What is owed, then what is prepared.
    frames: Vec<u8>,
    owed: usize,
    /// What was prepared for the last commit, which the log did not take.
    dropped: Vec<u8>,
    /// Begin records among the prepared ones.
    prepared: u64,
    /// Among the prepared ones is one that cannot wait for the log's next write: any but an end.
    pressing: bool,
    /// The log's group that what is prepared was handed in for.
    group: Option<Group>,
    /// The one that was prepared last.
    newest: Option<Newest>,
    statements: u64,
    /// The index behind the last record that the log took.
    last: u64,
    gap: Option<Gap>,
    /// What was done without records, because the caller's have taken what they may.
    limited: Option<Missed>,
    /// Bytes that the log has taken since it was asked.
    written: u64,
    /// A record could not be made: as good as one that cannot be written.
    unwritable: Option<Unrecorded>,
}

impl Recorder {
    /// Opens the session's record with its start; an error means the session must not go on.
    pub fn open(auditor: Auditor, session: SessionId, start: event::SessionStart<'_>) -> Result<Self, Unrecorded> {
        let (durability, parameters) = (start.durability, start.parameters.unwrap_or_default());
        let caller: &Caller = start.caller;
        let sealer = match start.texts {
            Texts::Clear => None,
            Texts::Sealed => Some(auditor.sealer(caller)?),
        };
        let caller = serde_json::value::to_raw_value(caller).map_err(std::io::Error::from)?;
        auditor.record(session, &Event::SessionStart(Box::new(start)))?;
        let (frames, dropped, owed, prepared, pressing, statements) = (Vec::new(), Vec::new(), 0, 0, false, 0);
        let (last, group, newest, gap, limited, written, unwritable) = (0, None, None, None, None, 0, None);
        Ok(Self {
            auditor,
            heads: Heads::of(session),
            caller,
            durability,
            sealer,
            parameters,
            recording: Recording::default(),
            frames,
            owed,
            dropped,
            prepared,
            pressing,
            group,
            newest,
            statements,
            last,
            gap,
            limited,
            written,
            unwritable,
        })
    }

    /// The same, with so much of what the client sends.
    #[must_use]
    pub fn recording(self, recording: Recording) -> Self {
        Self { recording, ..self }
    }

    /// The session that is recorded.
    pub fn session(&self) -> SessionId {
        self.heads.session()
    }

    /// What is recorded of parameters.
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// Begin records written so far.
    pub fn statements(&self) -> u64 {
        self.statements
    }

    /// Whether the prepared records should be committed before more are prepared.
    pub fn is_full(&self) -> bool {
        self.prepared_bytes() >= COMMIT_AT
    }

    fn prepared_bytes(&self) -> usize {
        self.frames.len().saturating_sub(self.owed)
    }

    /// Whether what is prepared should be owed before more is.
    pub fn is_much_to_owe(&self) -> bool {
        self.prepared_bytes() >= OWE_AT
    }

    /// Whether records could not wait any longer since the log takes none.
    pub fn has_lost(&self) -> bool {
        self.gap.as_ref().is_some_and(|gap| gap.lost > 0)
    }

    /// Counts records that can be neither written nor owed.
    pub fn lose(&mut self, records: u64) {
        if let Some(gap) = &mut self.gap {
            gap.lost = gap.lost.saturating_add(records);
        }
    }

    /// Whether the log did not take this session's last records.
    pub fn is_owing(&self) -> bool {
        self.gap.is_some()
    }

    /// Prepares a begin record; [`Recorder::commit`] writes it, and fails where it could not be made.
    pub fn begin(&mut self, begin: &Begin<'_>) -> Begun {
        debug_assert!(self.group.is_none(), "what is handed in is what is prepared");
        self.pressing = true;
        let end = self.prepared_bytes();
        let text = begin.text.map(|(text, whole)| start(text, whole, MAX_TEXT_BYTES));
        let text_bytes = text.map_or(0, <[u8]>::len);
        let (joined, first) = match self.join(begin) {
            Some(joined) => (true, joined),
            None => (false, self.begin_anew(begin, text).map(|()| end)),
        };
        match first {
            Ok(first) => Begun { record: first..self.prepared_bytes(), text_bytes, joined },
            Err(error) => {
                self.unwritable = Some(error);
                Begun { record: end..end, text_bytes, joined: false }
            }
        }
    }

    /// Prepares a record for this message alone, with this start of the text.
    fn begin_anew(&mut self, begin: &Begin<'_>, text: Option<&[u8]>) -> Result<(), Unrecorded> {
        self.take_room();
        let before = self.frames.len();
        self.prepared = self.prepared.saturating_add(1);
        let id = self.id(begin.event);
        let told = text.map(|text| self.tell_text(id, 0, text)).transpose()?;
        let Told { text, text_base64, text_sealed } = told.unwrap_or_default();
        let values = begin.parameters.map(|values| self.list(id, values)).transpose()?.unwrap_or_default();
        let event = event::Begin {
            id,
            stage: begin.stage,
            since: None,
            caller: &self.caller,
            text,
            text_base64,
            text_sealed,
            text_bytes: begin.text.map(|(_, whole)| whole),
            text_of: begin.text_of.map(|event| self.id(event)),
            text_doubtful: begin.text_doubtful,
            role_changes: begin.role_changes,
            statement: name(begin.statement),
            portal: name(begin.portal),
            function_oid: begin.function_oid,
            values,
            tagged: begin.tagged,
            traceparent: begin.text.and_then(|(text, _)| traceparent(text)),
            durability: self.durability.told(),
        };
        let places = self.auditor.encode_begin(&mut self.frames, &mut self.heads, &event)?;
        self.newest = Some(Newest::of(begin, before..self.frames.len(), places));
        Ok(())
    }

    /// Writes a begin record of those that the last commit has dropped, alone, from the log's reserve: whether that took
    /// it. What is owed goes first; the gap goes on.
    pub fn begin_from_reserve(&mut self, place: Range<usize>) -> bool {
        let Some(record) = self.dropped.get(place).filter(|record| !record.is_empty()) else { return false };
        self.frames.extend_from_slice(record);
        let written = self.write_to_reserve();
        if written {
            self.statements = self.statements.saturating_add(1);
            self.owed = 0;
        }
        self.forget_prepared();
        written
    }

    /// Prepares an end record; [`Recorder::commit`] writes it.
    pub fn end(&mut self, end: &End) {
        debug_assert!(self.group.is_none(), "what is handed in is what is prepared");
        let text = end.text.as_ref();
        let text_mac = match (&mut self.sealer, text) {
            (Some(sealer), Some(text)) => sealer.mac(text).map(Some),
            _ => Ok(None),
        };
        // What has happened is told all the same.
        let text_mac = text_mac.unwrap_or_default();
        let event = Event::End(event::End {
            id: self.id(end.event),
            part: end.part,
            last: end.last,
            outcome: end.outcome,
            sqlstate: end.sqlstate.as_deref(),
            text_of: end.text_of.map(|event| self.id(event)),
            text_sha256: text.filter(|_| self.sealer.is_none()).map(|text| text.sha256()),
            text_mac,
            text_bytes: text.map(|text| text.bytes()),
            text_doubtful: end.text_doubtful,
            executes: end.executes.map(|event| self.id(event)),
            command: end.command.as_deref(),
            rows: end.rows,
            bytes_in: end.bytes_in,
            bytes_out: end.bytes_out,
            first_row_us: end.first_row_us,
            duration_us: end.duration_us,
            durability: self.durability.told(),
        });
        self.encode(&event);
    }

    /// There is data of a COPY, which has no record of its own: where the log has taken nothing the last time, it is asked
    /// by the next commit.
    pub fn data(&mut self) {
        if self.gap.is_none() && self.auditor.is_full() {
            self.gap = Some(Gap::begin(self.auditor.clock.now()));
        }
    }

    /// Prepares an event of the session itself; [`Recorder::commit`] writes it.
    pub fn prepare(&mut self, event: &Event<'_>) {
        debug_assert!(self.group.is_none(), "what is handed in is what is prepared");
        self.pressing = true;
        self.encode(event);
    }

    fn encode(&mut self, event: &Event<'_>) {
        self.take_room();
        let encoded = self.auditor.encode(&mut self.frames, &mut self.heads, event);
        self.unwritable = encoded.err().or(self.unwritable.take());
    }

    /// Writes what is owed and every prepared record in one `write(2)`; ends alone wait for the log's next one, unless the
    /// rule is strict. Where the log takes no more, and they are urgent, its reserve takes them; the gap goes on. On an
    /// error nothing was written, and what was prepared is dropped: so too where a record is missing among them because it
    /// could not be made, even if there is no other.
    pub fn commit(&mut self, urgency: Urgency) -> Result<(), Unrecorded> {
        let unwritable = self.unwritable.take();
        if self.frames.is_empty() && self.gap.is_none() && unwritable.is_none() {
            return Ok(());
        }
        let complete = unwritable.is_none();
        let later = self.can_wait();
        let mut result = match unwritable {
            Some(unwritable) => Err(unwritable),
            None if later => self.write_later(),
            None => self.write(),
        };
        if result.is_ok() {
            self.gap = None;
            self.limited = self.limited.filter(|_| self.prepared == 0);
        } else {
            self.gap.get_or_insert_with(|| Gap::begin(self.auditor.clock.now()));
            if complete && urgency == Urgency::Reserve && self.write_to_reserve() {
                result = Ok(());
            }
        }
        self.done(result.is_ok());
        result
    }

    /// What was prepared is in the log, or is dropped.
    fn done(&mut self, written: bool) {
        let prepared = std::mem::take(&mut self.prepared);
        self.pressing = false;
        self.newest = None;
        self.dropped.clear();
        self.dropped.shrink_to(0);
        if written {
            self.statements = self.statements.saturating_add(prepared);
            self.owed = 0;
        } else {
            self.dropped.extend_from_slice(self.frames.get(self.owed..).unwrap_or_default());
        }
        self.forget_prepared();
    }

    fn take_room(&mut self) {
        if self.frames.capacity() == 0 {
            self.frames = spare::take();
        }
    }

    fn forget_prepared(&mut self) {
        self.frames.truncate(self.owed);
        if self.frames.is_empty() {
            spare::give(std::mem::take(&mut self.frames));
        } else {
            self.frames.shrink_to(0);
        }
    }

    /// Whether what is prepared may be written with the log's next records, whoever's they are.
    fn can_wait(&self) -> bool {
        let may = match self.durability {
            Durability::Strict => false,
            Durability::Batch => !self.pressing,
            Durability::None => self.limited.is_none(),
        };
        may && self.gap.is_none()
    }

    /// What is prepared has happened: it goes to the log's reserve, or waits until the log takes it. An error says that
    /// it cannot wait any longer: it is lost.
    pub fn owe(&mut self) -> Result<(), Overdue> {
        if self.frames.is_empty() || self.write_to_reserve() {
            self.owed = 0;
            self.forget_prepared();
            return Ok(());
        }
        let late = self.gap.as_ref().is_some_and(|gap| gap.began.elapsed() > OWED_LIMIT);
        if self.frames.len() <= MAX_OWED {
            self.owed = self.frames.len();
            return if late { Err(Overdue) } else { Ok(()) };
        }
        let lost = frame::count(self.frames.get(self.owed..).unwrap_or_default());
        self.forget_prepared();
        self.lose(lost);
        Err(Overdue)
    }

    /// Where the rule says so: waits until everything that was committed outlives a loss of power.
    pub fn durable(&self) -> Option<impl Future<Output = Result<(), NotDurable>> + use<>> {
        let (auditor, last) = (self.auditor.clone(), self.last);
        (self.durability == Durability::Strict).then_some(async move { auditor.durable(last).await })
    }

    /// Counts what was done without the log: messages refused, messages that passed all the same, and how many of those
    /// were COMMITs.
    pub fn missed(&mut self, refused: u64, passed: u64, commits: u64) {
        if let Some(gap) = &mut self.gap {
            gap.missed.count(refused, passed, commits);
        }
    }

    /// Counts what was done without records, because the caller's have taken what they may: it is told with the next begin
    /// record, or at the end.
    pub fn limited(&mut self, refused: u64, passed: u64, commits: u64) {
        if refused == 0 && passed == 0 {
            return;
        }
        let limited = self.limited.get_or_insert_with(|| Missed::since(self.auditor.clock.now()));
        limited.count(refused, passed, commits);
    }

    /// Bytes of records that the log has taken since this was last asked.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// Writes an event of the session itself, at once.
    pub fn record(&self, event: &Event<'_>) -> Result<(), Unrecorded> {
        self.auditor.record(self.session(), event)
    }

    /// Writes what is owed and the session's last event. What the log does not take now is left to it for later.
    pub fn close(&mut self, last: &Event<'_>) -> Closed {
        if let Some(limited) = self.limited.take() {
            self.prepare(&limited.over_limit());
        }
        self.prepare(last);
        if self.write().is_ok() {
            return Closed::Written;
        }
        let Ok(frames) = self.with_gap().map(Cow::into_owned) else { return Closed::Lost };
        if self.auditor.append(&frames, Urgency::Reserve).is_ok() {
            Closed::Written
        } else if self.auditor.leave(frames) {
            Closed::Waiting
        } else {
            Closed::Lost
        }
    }

    fn write(&mut self) -> Result<(), Unrecorded> {
        let frames = self.with_gap()?;
        let (last, bytes) = (self.auditor.append(&frames, Urgency::Normal)?, frames.len());
        self.wrote(bytes);
        self.last = last;
        Ok(())
    }

    fn write_later(&mut self) -> Result<(), Unrecorded> {
        self.auditor.append_later(&self.frames)?;
        self.wrote(self.frames.len());
        Ok(())
    }

    fn wrote(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes as u64);
    }

    /// In order: what is owed, how long the log took nothing, what had no record because of a limit, what is prepared.
    fn with_gap(&self) -> Result<Cow<'_, [u8]>, Unrecorded> {
        let limited = self.limited.filter(|_| self.prepared > 0);
        if self.gap.is_none() && limited.is_none() {
            return Ok(Cow::Borrowed(&self.frames));
        }
        let (owed, prepared) = self.frames.split_at_checked(self.owed).unwrap_or((&self.frames, &[]));
        let (mut frames, mut heads) = (owed.to_vec(), Heads::of(self.session()));
        if let Some(gap) = self.gap {
            self.auditor.encode(&mut frames, &mut heads, &gap.event())?;
        }
        if let Some(limited) = limited {
            self.auditor.encode(&mut frames, &mut heads, &limited.over_limit())?;
        }
        frames.extend_from_slice(prepared);
        Ok(Cow::Owned(frames))
    }

    fn write_to_reserve(&mut self) -> bool {
        let Ok(last) = self.auditor.append(&self.frames, Urgency::Reserve) else { return false };
        self.wrote(self.frames.len());
        self.last = last;
        true
    }

    fn id(&self, number: u64) -> EventId {
        EventId { session: self.session(), number }
    }
}

fn name(bytes: &[u8]) -> Option<Cow<'_, str>> {
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes))
}

//! The record: every statement's begin record before its bytes leave, its end record when it is known.
//!
//! Promises: all begin records of one read go out together, in one `write(2)`; when they cannot be written the caller
//! gets an error and must not forward. Ends go with the log's next write ([`Durability`]); where it takes none, they wait
//! in memory, within limits and in their order, and no begin record passes them. A record is a JSON object; [`event`] has
//! their shapes, [`ledger`] has how they are kept and proved. Refusals before a token verifies are recorded within a
//! budget, then counted.
//!
//! Not for: diagnostics (`telemetry`), deciding anything.

mod apart;
mod budget;
mod digest;
mod durability;
mod end;
pub mod event;
pub mod key_file;
pub mod ledger;
mod line;
mod log;
mod missed;
pub mod parameters;
mod recorder;
pub mod schema;
pub mod sealing;
#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
mod text;
mod trace;

pub use apart::{apart, messages};
pub use digest::{Digesting, TextDigest};
pub use durability::{Durability, UnrecordedCommit};
pub use end::End;
pub use ledger::Urgency;
pub use line::{MAX_ESCAPED_BYTES, escaped_bytes};
pub use log::{Anchoring, LogConfig, OpenError, Output, open};
pub use parameters::{Parameters, Value, Values};
pub use recorder::{Begin, Begun, COMMIT_AT, Closed, Overdue, Recorder};
pub use text::{DEFAULT_MAX_TEXT_BYTES, MAX_TEXT_BYTES_RANGE};

use async_trait::async_trait;
use budget::{Budget, Verdict};
use event::Event;
use ledger::{Group, Ledger, NotDurable, Status, frame};
use line::{Heads, Places};
use sealing::{Person, Sealer, Vault, VaultError};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::names::SessionId;
use crate::time::Clock;

/// What sessions that are over have left for the log to take, in bytes at most; past it records are lost, and counted.
pub const MAX_LEFT_BYTES: usize = 16 * 1024 * 1024;

/// How much of what clients send is recorded.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Of a statement's text, in bytes; of what is longer, length and SHA-256 tell the rest.
    pub max_text_bytes: u32,
    /// The key of parameters' HMACs; there where a rule asks for them.
    pub parameters_key: Option<Arc<parameters::Key>>,
}

impl Default for Recording {
    fn default() -> Self {
        Self { max_text_bytes: DEFAULT_MAX_TEXT_BYTES, parameters_key: None }
    }
}

/// The log cannot take a record; what it would have recorded must not happen.
#[derive(Debug, thiserror::Error)]
#[error("the audit log cannot take the record")]
pub struct Unrecorded(#[from] io::Error);

impl From<VaultError> for Unrecorded {
    fn from(error: VaultError) -> Self {
        Self(io::Error::other(error))
    }
}

/// Where records go.
#[async_trait]
pub trait RecordLog: Send + Sync + std::fmt::Debug {
    /// Appends whole frames in one write, or reports that none of them is there; the index behind the last.
    fn append(&self, frames: &[u8], urgency: Urgency) -> io::Result<u64>;
    /// Has whole frames written before what is appended next; or reports that nothing of them will be.
    fn append_later(&self, frames: &[u8]) -> io::Result<()>;
    /// Hands in whole frames for a group that is written as one; `None` where that cannot be.
    fn join(&self, _frames: &[u8]) -> Option<Group> {
        None
    }
    /// Writes the group, unless that was done or tried: whether all of it is there. Otherwise nothing of it is.
    fn commit(&self, group: &Group) -> bool {
        group.is_written() == Some(true)
    }
    /// Writes what waits for the next append. After an error it still waits.
    fn flush(&self) -> io::Result<()>;
    /// Whether the last write failed that had no right to the reserve.
    fn is_full(&self) -> bool {
        false
    }
    /// Waits until the records before this index outlive a loss of power.
    async fn durable(&self, index: u64) -> Result<(), NotDurable>;
    /// The last call: what was appended is made durable and is signed. Blocks.
    fn close(&self);
    /// How it is, where it can say.
    fn status(&self) -> Option<Status> {
        None
    }
}

#[async_trait]
impl RecordLog for Ledger {
    fn append(&self, frames: &[u8], urgency: Urgency) -> io::Result<u64> {
        Self::append(self, frames, urgency)
    }

    fn append_later(&self, frames: &[u8]) -> io::Result<()> {
        Self::append_later(self, frames)
    }

    fn join(&self, frames: &[u8]) -> Option<Group> {
        Self::join(self, frames)
    }

    fn commit(&self, group: &Group) -> bool {
        Self::commit(self, group)
    }

    fn flush(&self) -> io::Result<()> {
        Self::flush(self)
    }

    fn is_full(&self) -> bool {
        Self::is_full(self)
    }

    async fn durable(&self, index: u64) -> Result<(), NotDurable> {
        Self::durable(self, index).await
    }

    fn close(&self) {
        Self::close(self);
    }

    fn status(&self) -> Option<Status> {
        Some(Self::status(self))
    }
}

/// The process's log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auditor {
    log: Arc<dyn RecordLog>,
    waiting: Arc<Mutex<Waiting>>,
    clock: Clock,
    vault: Option<Arc<Vault>>,
}

/// What is not in the log yet.
#[derive(Debug)]
struct Waiting {
    budget: Budget,
    /// Each session's records of those that are over, which the log did not take then.
    left: VecDeque<Vec<u8>>,
}

impl Auditor {
    /// Writes to any log: the seam for tests and fault injection.
    pub fn new(log: Arc<dyn RecordLog>, refusals_per_minute: u32, clock: Clock) -> Self {
        let waiting = Waiting { budget: Budget::new(refusals_per_minute), left: VecDeque::new() };
        Self { log, waiting: Arc::new(Mutex::new(waiting)), clock, vault: None }
    }

    /// The same, with the keys of texts that are sealed.
    #[must_use]
    pub fn with_vault(self, vault: Option<Arc<Vault>>) -> Self {
        Self { vault, ..self }
    }

    /// The keys of texts that are sealed.
    pub fn vault(&self) -> Option<&Vault> {
        self.vault.as_deref()
    }

    /// What seals the texts of a caller's session.
    fn sealer(&self, caller: &event::Caller) -> Result<Sealer, Unrecorded> {
        let vault = self.vault.clone().ok_or_else(|| io::Error::other("nothing can seal the texts"))?;
        let person = Person {
            issuer: caller.issuer.to_string(),
            tenant: caller.tenant.to_string(),
            object_id: caller.object_id.clone(),
        };
        Ok(Sealer::new(vault, person, self.clock.clone())?)
    }

    /// Writes one event of a session, at once.
    pub fn record(&self, session: SessionId, event: &Event<'_>) -> Result<(), Unrecorded> {
        let mut frames = Vec::with_capacity(512);
        self.encode(&mut frames, &mut Heads::of(session), event)?;
        self.append(&frames, Urgency::Normal).map(drop)
    }

    /// Writes a refusal of somebody whose token has not verified, as long as the minute's budget lasts;
    /// what passes it is counted and told when the next minute begins.
    pub fn record_stranger(&self, session: SessionId, event: &Event<'_>) -> Result<(), Unrecorded> {
        let verdict = self.lock().budget.spend(self.clock.now());
        match verdict {
            Verdict::Record => self.record(session, event),
            Verdict::Count => Ok(()),
            Verdict::RecordAfter { suppressed } => {
                self.tell_suppressed(session, suppressed)?;
                self.record(session, event)
            }
        }
    }

    /// From the next minute on so many refusals before a token verifies are written each minute.
    pub fn change_budget(&self, refusals_per_minute: u32) {
        self.lock().budget.change(refusals_per_minute);
    }

    /// Writes what is left over: lines of sessions that are over, and how many refusals were only counted. At shutdown
    /// and once a minute.
    pub fn record_suppressed(&self, session: SessionId) -> Result<(), Unrecorded> {
        self.take_left(&mut self.lock())?;
        let suppressed = self.lock().budget.take_suppressed();
        match suppressed {
            0 => Ok(()),
            count => self.tell_suppressed(session, count),
        }
    }

    /// Sessions that are over and whose last lines the log has not taken.
    pub fn owed(&self) -> usize {
        self.lock().left.len()
    }

    /// A count that cannot be written now is told later.
    fn tell_suppressed(&self, session: SessionId, count: u64) -> Result<(), Unrecorded> {
        let told = self.record(session, &Event::RefusalsSuppressed { count });
        told.inspect_err(|_| self.lock().budget.put_back(count))
    }

    /// Appends an event, or leaves `out` as it was.
    fn encode(&self, out: &mut Vec<u8>, heads: &mut Heads, event: &Event<'_>) -> Result<(), Unrecorded> {
        Ok(frame::append(out, |out| line::write(out, self.clock.now(), heads, event))?)
    }

    /// Appends a statement's begin, or leaves `out` as it was; says where in the record its next message's word goes.
    fn encode_begin(
        &self,
        out: &mut Vec<u8>,
        heads: &mut Heads,
        begin: &event::Begin<'_>,
    ) -> Result<Places, Unrecorded> {
        Ok(frame::append(out, |out| line::write_begin(out, self.clock.now(), heads, begin))?)
    }

    /// The index behind the last of these records.
    fn append(&self, frames: &[u8], urgency: Urgency) -> Result<u64, Unrecorded> {
        let mut waiting = self.lock();
        self.take_left(&mut waiting)?;
        Ok(self.log.append(frames, urgency)?)
    }

    /// What sessions have left goes first, by the log's reserve if need be: it has happened.
    fn take_left(&self, waiting: &mut Waiting) -> Result<(), Unrecorded> {
        while let Some(frames) = waiting.left.front() {
            self.log.append(frames, Urgency::Reserve)?;
            waiting.left.pop_front();
        }
        Ok(())
    }

    /// Has these records written with the next ones, or by [`Auditor::flush`].
    fn append_later(&self, frames: &[u8]) -> Result<(), Unrecorded> {
        self.take_left(&mut self.lock())?;
        Ok(self.log.append_later(frames)?)
    }

    /// Hands in these records for a group that is written as one, behind what sessions have left.
    fn join(&self, frames: &[u8]) -> Option<Group> {
        self.take_left(&mut self.lock()).ok()?;
        self.log.join(frames)
    }

    /// Writes what sessions have left, and what waits for the next record. Once a second.
    pub fn flush(&self) -> Result<(), Unrecorded> {
        self.take_left(&mut self.lock())?;
        Ok(self.log.flush()?)
    }

    /// Whether the log took nothing the last time, unless from its reserve.
    fn is_full(&self) -> bool {
        self.log.is_full()
    }

    /// Keeps the last records of a session until the log takes them; `false` where there is no room for them.
    fn leave(&self, frames: Vec<u8>) -> bool {
        let mut waiting = self.lock();
        let left: usize = waiting.left.iter().map(Vec::len).sum();
        let room = left.saturating_add(frames.len()) <= MAX_LEFT_BYTES;
        if room {
            waiting.left.push_back(frames);
        }
        room
    }

    /// Waits until the records before this index outlive a loss of power.
    pub async fn durable(&self, index: u64) -> Result<(), NotDurable> {
        self.log.durable(index).await
    }

    /// How the log is.
    pub fn status(&self) -> Option<Status> {
        self.log.status()
    }

    /// Nothing is recorded any more: what was is made durable and is signed. Blocks.
    pub fn close(&self) {
        self.log.close();
    }

    /// A panic while the lock was held can leave no half-made state behind: each append is one call.
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::event::{Event, Refused};
    use super::testing::MemoryLog;
    use crate::names::SessionId;

    fn refused() -> Event<'static> {
        Event::Refused(Box::new(Refused { sqlstate: "28P01", message: "not a token", ..Refused::default() }))
    }

    #[test]
    fn strangers_cannot_fill_the_disk_and_are_counted() {
        let log = MemoryLog::default();
        let auditor = log.auditor(2);
        for _ in 0..50 {
            auditor.record_stranger(SessionId::generate(), &refused()).unwrap();
        }
        assert_eq!(log.lines().len(), 2);
        auditor.record_suppressed(SessionId::generate()).unwrap();
        let last = log.lines().pop().unwrap();
        assert_eq!((last["event"].as_str(), last["count"].as_u64()), (Some("refusals_suppressed"), Some(48)));
        auditor.record_suppressed(SessionId::generate()).unwrap();
        assert_eq!(log.lines().len(), 3, "nothing is told twice");
    }

    #[test]
    fn what_sessions_leave_goes_first_and_is_bounded() {
        let log = MemoryLog::default();
        let auditor = log.auditor(1);
        log.fail(true);
        let frame = |record: &[u8]| {
            let mut frame = Vec::new();
            assert!(super::frame::push(&mut frame, record));
            frame
        };
        assert!(auditor.leave(frame(b"{\"left\":1}")) && auditor.leave(frame(b"{\"left\":2}")));
        assert!(!auditor.leave(vec![b' '; super::MAX_LEFT_BYTES]));
        let session = SessionId::generate();
        assert!(auditor.record(session, &refused()).is_err());
        log.fail(false);
        auditor.record(session, &refused()).unwrap();
        auditor.record_suppressed(session).unwrap();
        let lines = log.lines();
        assert_eq!((lines.len(), &lines[0]["left"], &lines[1]["left"]), (3, &1.into(), &2.into()));
        assert_eq!(lines[2]["event"], "refused");
    }

    #[test]
    fn a_log_that_fails_says_so() {
        let log = MemoryLog::default();
        log.fail(true);
        let session = SessionId::generate();
        assert!(log.auditor(1).record(session, &refused()).is_err());
        assert!(log.auditor(1).record_stranger(session, &refused()).is_err());
    }
}

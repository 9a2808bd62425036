//! The record: every statement's begin line before its bytes leave, its end line when it is known.
//!
//! Promises: a line is one `write(2)`; all begin lines of one read go out together; when a begin line cannot be
//! written the caller gets an error and must not forward. Lines on what has happened already wait in memory, within
//! limits and in their order, until the log takes them; no begin line passes them. Lines are JSON objects, one each; [`event`] has
//! their shapes. Refusals before a token verifies are recorded within a budget, then counted.
//!
//! Not for: diagnostics (`telemetry`), deciding anything.

mod budget;
mod digest;
pub mod event;
mod log_file;
mod recorder;

pub use digest::{Digesting, TextDigest};
pub use log_file::{AppendFile, LogFile};
pub use recorder::{Begin, Closed, End, Overdue, Recorder};

use budget::{Budget, Verdict};
use event::{Event, Line};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::names::SessionId;
use crate::time::Clock;

/// What sessions that are over have left for the log to take, in bytes at most; past it lines are lost, and counted.
pub const MAX_LEFT_BYTES: usize = 16 * 1024 * 1024;

/// The log cannot take a record; what it would have recorded must not happen.
#[derive(Debug, thiserror::Error)]
#[error("the audit log cannot take the record")]
pub struct Unrecorded(#[from] io::Error);

/// The process's log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auditor {
    shared: Arc<Mutex<Shared>>,
    clock: Clock,
}

#[derive(Debug)]
struct Shared {
    file: Box<dyn LogFile>,
    budget: Budget,
    /// Each session's lines of those that are over, which the log did not take then.
    left: VecDeque<Vec<u8>>,
}

impl Auditor {
    /// Appends to the file at `path`, which is created (mode 0600) if it is missing.
    pub fn open(path: &Path, refusals_per_minute: u32, clock: Clock) -> io::Result<Self> {
        Ok(Self::new(Box::new(AppendFile::open(path)?), refusals_per_minute, clock))
    }

    /// Writes to any log file: the seam for tests and fault injection.
    pub fn new(file: Box<dyn LogFile>, refusals_per_minute: u32, clock: Clock) -> Self {
        let budget = Budget::new(refusals_per_minute);
        Self { shared: Arc::new(Mutex::new(Shared { file, budget, left: VecDeque::new() })), clock }
    }

    /// Writes one event of a session, at once.
    pub fn record(&self, session: SessionId, event: &Event<'_>) -> Result<(), Unrecorded> {
        let mut lines = Vec::with_capacity(512);
        self.encode(&mut lines, session, event)?;
        self.append(&lines)
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
        self.lock().take_left()?;
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

    fn encode(&self, out: &mut Vec<u8>, session: SessionId, event: &Event<'_>) -> Result<(), Unrecorded> {
        let line = Line { version: event::VERSION, time: self.clock.now(), session, event };
        let start = out.len();
        let written = serde_json::to_writer(&mut *out, &line).map_err(io::Error::from);
        if written.is_err() {
            out.truncate(start);
            return Ok(written?);
        }
        out.push(b'\n');
        Ok(())
    }

    fn append(&self, lines: &[u8]) -> Result<(), Unrecorded> {
        let mut shared = self.lock();
        shared.take_left()?;
        shared.file.append(lines).map_err(Unrecorded)
    }

    /// Keeps the last lines of a session until the log takes them; `false` where there is no room for them.
    fn leave(&self, lines: Vec<u8>) -> bool {
        let mut shared = self.lock();
        let left: usize = shared.left.iter().map(Vec::len).sum();
        let room = left.saturating_add(lines.len()) <= MAX_LEFT_BYTES;
        if room {
            shared.left.push_back(lines);
        }
        room
    }

    /// A panic while the lock was held can leave no half-made state behind: each append is one call.
    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn take_left(&mut self) -> Result<(), Unrecorded> {
        while let Some(lines) = self.left.front() {
            self.file.append(lines)?;
            self.left.pop_front();
        }
        Ok(())
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod testing {
    //! A log file in memory that can be told to fail.

    #![allow(clippy::unwrap_used, reason = "for tests and fuzz targets only")]

    use super::{Auditor, LogFile};
    use crate::time::Clock;
    use std::io;
    use std::sync::{Arc, Mutex};

    /// What was written, and whether the next write fails.
    #[derive(Debug, Default, Clone)]
    pub struct MemoryLog(Arc<Mutex<(Vec<u8>, bool)>>);

    impl MemoryLog {
        /// An auditor over this log.
        pub fn auditor(&self, refusals_per_minute: u32) -> Auditor {
            Auditor::new(Box::new(self.clone()), refusals_per_minute, Clock::system())
        }

        /// From now on every write fails, or succeeds again.
        #[cfg(test)]
        pub fn fail(&self, failing: bool) {
            self.0.lock().unwrap().1 = failing;
        }

        /// The lines so far, parsed.
        pub fn lines(&self) -> Vec<serde_json::Value> {
            let bytes = self.0.lock().unwrap().0.clone();
            String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl LogFile for MemoryLog {
        fn append(&mut self, lines: &[u8]) -> io::Result<()> {
            let mut inner = self.0.lock().unwrap();
            if inner.1 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            inner.0.extend_from_slice(lines);
            Ok(())
        }
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
        assert!(auditor.leave(b"{\"left\":1}\n".to_vec()) && auditor.leave(b"{\"left\":2}\n".to_vec()));
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

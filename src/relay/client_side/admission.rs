//! Whether a message may leave now, by what the session's rule says of statements and bytes.
//!
//! What is over a limit waits for its turn, or is refused, as the rule says. A whole `ROLLBACK` is never refused, it
//! waits: it gives locks back. Refusals have a rate of their own, past which the client waits: each costs the instance an
//! error, so that without it a refused caller would cost more than one who is served.

use super::{ClientSide, Frame};
use crate::audit::UnrecordedCommit;
use crate::policy::Over;
use crate::relay::bounds::Bounds;
use crate::relay::meter::{Pace, Room};
use crate::relay::substitute::{Ends, Refusal};
use crate::relay::tracker::Tracker;
use crate::telemetry::Limit;
use crate::wire::Reader;
use std::sync::Arc;
use tokio::time::Instant;

/// When the client's next message may be looked at again, and why not before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// When.
    pub at: Instant,
    /// Which limit.
    pub limit: Limit,
}

/// What may be done with a message.
enum Verdict {
    Pass,
    /// It may leave, and gets no record.
    PassUnrecorded,
    Refuse(Refusal),
    Wait(Turn),
}

/// One session's admission.
#[derive(Debug)]
pub(super) struct Admission {
    bounds: Arc<Bounds>,
    /// The turn that the next execution has been given.
    due: Option<Instant>,
    /// The client has cancelled what waits.
    withdrawn: bool,
    /// What becomes of a COMMIT that gets no record.
    unrecorded_commit: UnrecordedCommit,
}

impl Admission {
    fn new(bounds: Arc<Bounds>) -> Self {
        Self { bounds, due: None, withdrawn: false, unrecorded_commit: UnrecordedCommit::default() }
    }

    fn withdraw(&mut self) {
        self.withdrawn = true;
    }

    /// Whether the rest of a message must wait.
    pub fn rest(&self) -> Option<Turn> {
        self.bounds.held().map(|at| Turn { at, limit: Limit::Bytes })
    }

    /// Whether this message may leave. Asked once for each message that does.
    fn ask(&mut self, frame: &Frame<'_>, tracker: &mut Tracker) -> Verdict {
        let kind = frame.header.kind;
        if std::mem::take(&mut self.withdrawn) && matches!(kind, b'Q' | b'P' | b'B' | b'E' | b'F') {
            self.due = None;
            return Verdict::Refuse(Refusal::Withdrawn);
        }
        match self.records(frame, tracker) {
            Verdict::Pass => {}
            verdict => return verdict,
        }
        let executes = matches!(kind, b'Q' | b'E' | b'F');
        if let Some(pace) = &self.bounds.bytes
            && let Some(at) = self.bounds.held()
        {
            match pace.over {
                Over::Refuse if executes && !takes_back(frame, tracker) => return self.refuse(Refusal::Bytes),
                // They are short, run nothing by themselves, and end what would otherwise stay open.
                Over::Refuse if matches!(kind, b'S' | b'H' | b'C' | b'c' | b'f' | b'X') => {}
                _ => return Verdict::Wait(Turn { at, limit: Limit::Bytes }),
            }
        }
        match &self.bounds.statements {
            Some(pace) if executes => self.execution(*pace, frame, tracker),
            _ => Verdict::Pass,
        }
    }

    /// Whether the caller's records may take one more. What only ends a transaction may use what is kept for that; past it,
    /// it is as where the log's own reserve is full.
    fn records(&self, frame: &Frame<'_>, tracker: &mut Tracker) -> Verdict {
        if !matches!(frame.header.kind, b'Q' | b'P' | b'B' | b'E' | b'F') {
            return Verdict::Pass;
        }
        let room = self.bounds.room();
        if room == Room::Ample {
            return Verdict::Pass;
        }
        match (ends_transaction(frame, tracker), room) {
            (Some(_), Room::Reserve) => Verdict::Pass,
            (Some(Ends::Rollback), _) => Verdict::PassUnrecorded,
            (Some(Ends::Commit), _) if self.unrecorded_commit == UnrecordedCommit::Passes => Verdict::PassUnrecorded,
            _ => self.refuse(Refusal::Records),
        }
    }

    fn execution(&mut self, pace: Pace, frame: &Frame<'_>, tracker: &mut Tracker) -> Verdict {
        let now = Instant::now();
        let limit = Limit::Statements;
        let meter = &self.bounds.meter;
        if pace.over == Over::Wait {
            let due = self.due.take().unwrap_or_else(|| meter.reserve_statement(&pace, now));
            if due <= now {
                return Verdict::Pass;
            }
            self.due = Some(due);
            return Verdict::Wait(Turn { at: due, limit });
        }
        match meter.statement(&pace, now) {
            Ok(()) => Verdict::Pass,
            Err(at) if takes_back(frame, tracker) => Verdict::Wait(Turn { at, limit }),
            Err(_) => self.refuse(Refusal::Statements),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Verdict {
        let pace = Pace::of_refusals(self.bounds.statements);
        let limit = match refusal {
            Refusal::Bytes => Limit::Bytes,
            Refusal::Records => Limit::AuditRecords,
            _ => Limit::Statements,
        };
        match self.bounds.meter.refusal(&pace, Instant::now()) {
            Ok(()) => Verdict::Refuse(refusal),
            Err(at) => Verdict::Wait(Turn { at, limit }),
        }
    }
}

impl ClientSide {
    /// The same within these bounds.
    #[must_use]
    pub fn within(self, bounds: Option<Arc<Bounds>>) -> Self {
        Self { admission: bounds.map(|bounds| Box::new(Admission::new(bounds))), ..self }
    }

    /// The same under a rule that says this of a COMMIT that cannot be recorded.
    #[must_use]
    pub fn committing(self, unrecorded_commit: UnrecordedCommit) -> Self {
        let admission = self.admission.map(|admission| Box::new(Admission { unrecorded_commit, ..*admission }));
        Self { admission, unrecorded_commit, ..self }
    }

    /// The message that waits for its turn is not to run: it is refused.
    pub fn withdraw(&mut self) {
        self.admission.iter_mut().for_each(|admission| admission.withdraw());
    }

    /// Marks a message that is not to leave; when its turn is, if it must wait.
    pub(super) fn admit(&mut self, frame: &mut Frame<'_>, tracker: &mut Tracker) -> Option<Turn> {
        match self.admission.as_mut()?.ask(frame, tracker) {
            Verdict::Pass => {}
            Verdict::PassUnrecorded => frame.unrecorded = true,
            Verdict::Refuse(refusal) => {
                frame.refusal = Some(refusal);
                frame.unrecorded = refusal == Refusal::Records;
            }
            Verdict::Wait(turn) => return Some(turn),
        }
        None
    }
}

/// Whether an execution can do nothing but take back.
fn takes_back(frame: &Frame<'_>, tracker: &mut Tracker) -> bool {
    matches!(frame.header.kind, b'Q' | b'E') && ends_transaction(frame, tracker) == Some(Ends::Rollback)
}

/// How a message ends a transaction, if it can do nothing else.
fn ends_transaction(frame: &Frame<'_>, tracker: &mut Tracker) -> Option<Ends> {
    let mut reader = Reader::new(frame.known);
    match frame.header.kind {
        b'Q' => frame.only_text(0),
        // The unnamed statement's.
        b'P' if frame.known.first() == Some(&0) => frame.only_text(1),
        b'B' => {
            let unnamed = reader.cstr() == Ok(b"") && reader.cstr() == Ok(b"") && frame.is_whole();
            if unnamed { tracker.statement_ends() } else { None }
        }
        b'E' => tracker.portal_ends(reader.cstr().unwrap_or_default()),
        _ => None,
    }
}

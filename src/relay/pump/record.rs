//! What is ready goes to the log, in parts: one session's lines may be many (a `DEALLOCATE ALL` ends every statement that
//! was only parsed, a quarter of a million perhaps).

use super::Shared;
use crate::audit::Urgency;
use crate::relay::ending::Host;
use crate::relay::tracker::Settled;

/// What the log did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    /// It has every begin line; end lines too, or they are owed.
    Took,
    /// It took nothing: begin lines are dropped, end lines are owed.
    Owed,
    /// It is owed too much or for too long.
    Overdue {
        /// It has every begin line.
        begins: bool,
    },
}

impl Log {
    /// Whether it has every begin line.
    pub fn has_begins(self) -> bool {
        matches!(self, Self::Took | Self::Overdue { begins: true })
    }

    /// Whether the session must end.
    pub fn is_overdue(self) -> bool {
        matches!(self, Self::Overdue { .. })
    }
}

impl Shared {
    /// Writes what is ready: begin lines, unless a group has them, and as many end lines as fit in one `write(2)`, the rest
    /// in one each ([`COMMIT_AT`]). `begun` is the first event whose begin record is among it, `urgency` what that may use of
    /// the log.
    ///
    /// [`COMMIT_AT`]: crate::audit::COMMIT_AT
    pub(super) fn record(&mut self, begun: u64, urgency: Urgency, host: &impl Host) -> Log {
        let owing = self.recorder.is_owing();
        let settled = self.tracker.take_settled();
        let mut rest = settled.as_slice();
        let (behind, mut begun, mut urgency, mut begins) =
            ((u64::MAX, Urgency::Normal, Log::Took), begun, urgency, Log::Owed);
        if self.recorder.commit_group() {
            (begun, urgency, begins) = behind;
        }
        loop {
            let part = rest;
            while let Some((line, others)) = rest.split_first().filter(|_| !self.recorder.is_full()) {
                line.tell(&mut self.recorder);
                rest = others;
            }
            if self.recorder.commit(urgency).is_err() {
                host.unrecorded();
                return if self.owe(part, begun) { begins } else { Log::Overdue { begins: begins.has_begins() } };
            }
            (begun, urgency, begins) = behind;
            if rest.is_empty() {
                break;
            }
        }
        if owing && !self.recorder.is_owing() {
            host.recorded_again();
        }
        self.tracker.give_back(settled);
        Log::Took
    }

    /// The log has not taken these lines. Ends of events whose begin it has not taken are none; the others have happened:
    /// whether they can wait for it.
    fn owe(&mut self, lines: &[Settled], begun: u64) -> bool {
        let mut owed = true;
        let mut lines = lines.iter().filter(|line| !matches!(line, Settled::End(end) if end.event >= begun));
        while !self.recorder.has_lost() {
            let Some(line) = lines.next() else { return self.recorder.owe().is_ok() && owed };
            line.tell(&mut self.recorder);
            if self.recorder.is_much_to_owe() {
                owed &= self.recorder.owe().is_ok();
            }
        }
        self.recorder.lose(lines.count() as u64);
        false
    }
}

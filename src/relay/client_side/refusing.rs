//! A read whose records the log does not take, or whose disk does not confirm them: its messages are gone through again,
//! and leave as substitutes. Nothing of the read has left by then.
//!
//! A message that is nothing but COMMIT, END, ROLLBACK or ABORT is offered to the log's reserve alone, so that it is not
//! refused with what came in the same read. Where even that fails, or the disk confirms nothing, ROLLBACK and ABORT pass,
//! as they take back; COMMIT and END where the rule says so. Both are counted.

use super::frame::tagged;
use super::{ClientSide, Flow, Frame, Missed, Recorded};
use crate::audit::{Recorder, UnrecordedCommit, Urgency};
use crate::relay::output::Output;
use crate::relay::substitute::{self, Ends, Name, Refusal, Refused};
use crate::relay::tracker::{Mark, Tracker};
use std::time::Instant;

/// What a read's messages are without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// Their records.
    Record,
    /// The disk's word that it has the records.
    Confirmation,
}

impl ClientSide {
    /// The log took nothing of what the last [`ClientSide::process`] prepared. The same bytes again, as far as they
    /// were dealt with: what needs a record leaves as a substitute, unless the reserve takes it now. Where they are more of
    /// a text whose start has left, nothing can stand in their place: none of them leaves, and the session must end.
    pub fn refuse(&mut self, input: &[u8], tracker: &mut Tracker, recorder: &mut Recorder, output: &mut Output) {
        self.untaken = true;
        if self.continued > 0 {
            tracker.forget_events(self.before.1, &[]);
            return self.break_off(output);
        }
        self.offer_ends(recorder);
        let kept: Vec<u64> = self.recorded.iter().filter(|own| own.taken).map(|own| own.event).collect();
        tracker.forget_events(self.before.1, &kept);
        self.missed = Missed::default();
        self.go_through(Without::Record, input, tracker, output);
    }

    /// The log took what the last [`ClientSide::process`] prepared, or ends of transactions of it, and the disk does not
    /// confirm that. The records stay: what they began ends as refused. Data of a COPY that began in an earlier read goes
    /// on: its own record was confirmed.
    pub fn refuse_unconfirmed(&mut self, input: &[u8], tracker: &mut Tracker, output: &mut Output) {
        if self.continued > 0 {
            return self.break_off(output);
        }
        self.missed = Missed::default();
        self.go_through(Without::Confirmation, input, tracker, output);
    }

    /// A message that gets no record has been dealt with: what it began had no begin, and has no end.
    pub(super) fn without_record(&mut self, frame: &Frame<'_>, since: Mark, tracker: &mut Tracker) {
        tracker.forget_events(since, &[]);
        if frame.refusal.is_none() {
            let commits = self.recorded.last().is_some_and(|own| own.ends == Some(Ends::Commit));
            self.missed.over = self.missed.over.saturating_add(1);
            self.missed.over_commits = self.missed.over_commits.saturating_add(u64::from(commits));
        }
    }

    /// Nothing of the read leaves, and the server is left with half a message.
    fn break_off(&mut self, output: &mut Output) {
        output.clear();
        self.flow = self.before.0;
        (self.missed, self.must_end, self.following) = (Missed::default(), true, None);
        self.count(Refusal::Unrecorded);
    }

    /// Of a read that was offered as a whole, each message that ends a transaction alone. (What the server skips needs no
    /// record to pass.)
    fn offer_ends(&mut self, recorder: &mut Recorder) {
        let was_offered_to_the_reserve = self.urgency() == Urgency::Reserve;
        let mut before = false;
        for own in &mut self.recorded {
            let alone = own.ends.is_some() && own.place.is_some() && !was_offered_to_the_reserve;
            own.taken = if own.joined { before } else { alone && recorder.begin_from_reserve(own.begin.clone()) };
            before = own.taken;
        }
    }

    fn go_through(&mut self, without: Without, input: &[u8], tracker: &mut Tracker, output: &mut Output) {
        output.clear();
        self.flow = self.before.0;
        let recorded = std::mem::take(&mut self.recorded);
        let mut next = recorded.iter();
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if self.flow.passing > 0 {
                at = self.flow.stream(at, rest.len(), output);
                continue;
            }
            let Ok(Some(frame)) = Frame::next(rest, at, self.call_bytes, Instant::now()) else { break };
            self.flow.discard = false;
            // What was measured before this message is told; what began with it or behind it is forgotten.
            self.following = None;
            let dropped = self.flow.drops(frame.header.kind);
            match frame.header.kind {
                b'Q' | b'P' | b'B' | b'E' | b'F' => {
                    if let Some(own) = next.next() {
                        self.lacking(without, &frame, own, tracker, output);
                    }
                }
                _ if dropped => {}
                b'd' if self.untaken => self.refuse_copy(without, tracker, output),
                _ => output.pass(frame.at..frame.seen()),
            }
            at = frame.seen();
            self.flow.passing = frame.header.frame().saturating_sub(at.saturating_sub(frame.at));
        }
        self.recorded = recorded;
    }

    /// A message whose begin record is not there, or perhaps not on the disk.
    fn lacking(
        &mut self,
        without: Without,
        frame: &Frame<'_>,
        own: &Recorded,
        tracker: &mut Tracker,
        output: &mut Output,
    ) {
        let recorded = own.taken && without == Without::Record;
        let passes = match own.ends {
            Some(Ends::Rollback) => true,
            Some(Ends::Commit) => recorded || self.unrecorded_commit == UnrecordedCommit::Passes,
            None => false,
        };
        let before = self.missed.clone();
        if passes {
            let commits = u64::from(!recorded && own.ends == Some(Ends::Commit));
            self.missed.passed = self.missed.passed.saturating_add(u64::from(!recorded));
            self.missed.commits = self.missed.commits.saturating_add(commits);
            self.pass(frame, output);
        } else {
            self.substitute(frame.header.kind, own, Refusal::Unrecorded, tracker, output);
        }
        if without == Without::Confirmation && !own.taken {
            // It was counted when the log did not take its record.
            self.missed = before;
        }
    }

    /// A message that ends a transaction leaves as it would.
    fn pass(&self, frame: &Frame<'_>, output: &mut Output) {
        match (frame.header.kind, tagged(frame.header, &self.tag)) {
            (b'Q', Ok(header)) => self.insert_tag(header, frame, 0, output),
            // Behind the empty name.
            (b'P', Ok(header)) => self.insert_tag(header, frame, 1, output),
            _ => output.pass(frame.at..frame.seen()),
        }
    }

    /// The message does not leave, what fails in its place does.
    pub(super) fn substitute(
        &mut self,
        kind: u8,
        own: &Recorded,
        refusal: Refusal,
        tracker: &mut Tracker,
        output: &mut Output,
    ) {
        let name = Name::draw();
        if let Some(place) = own.place {
            tracker.refuse(place, Refused { refusal, name });
        }
        output.insert(&substitute::frame(kind, own.unnamed, &name, &self.tag));
        self.flow.discard = true;
        self.following = None;
        self.count(refusal);
    }

    /// COPY data does not leave, a CopyFail does.
    fn refuse_copy(&mut self, without: Without, tracker: &mut Tracker, output: &mut Output) {
        self.flow.discard = true;
        self.must_end |= tracker.copies_both_ways();
        let Some(name) = tracker.refuse_copy(Refusal::Unrecorded, self.before.1) else { return };
        output.insert(&substitute::frame(b'd', false, &name, &self.tag));
        self.flow.copy_refused = true;
        if without == Without::Record {
            self.count(Refusal::Unrecorded);
        }
    }

    fn count(&mut self, refusal: Refusal) {
        let count = self.missed.refused.entry(refusal).or_default();
        *count = count.saturating_add(1);
    }
}

impl Flow {
    /// Deals with the next bytes of a message whose start has been looked at; returns where they end.
    pub(super) fn stream(&mut self, at: usize, available: usize, output: &mut Output) -> usize {
        let passed = self.passing.min(available);
        let end = at.saturating_add(passed);
        if !self.discard {
            output.pass(at..end);
        }
        self.passing = self.passing.saturating_sub(passed);
        end
    }

    /// Whether a message is the rest of COPY data that was refused. Anything but data ends that.
    pub(super) fn drops(&mut self, kind: u8) -> bool {
        if !self.copy_refused {
            return false;
        }
        self.copy_refused = matches!(kind, b'd' | b'H');
        self.discard = matches!(kind, b'd' | b'c' | b'f');
        self.discard
    }
}

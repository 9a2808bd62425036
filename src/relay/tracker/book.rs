//! The open events and the lines that have become ready.

use super::{Progress, Settled, unexecuted};
use crate::audit::event::{Outcome, Stage};
use crate::audit::{End, TextDigest};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// How many lines' room is kept when they are told.
const KEPT_SETTLED: usize = 64;

/// Every event that has begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Book {
    open: Opened,
    next: u64,
    settled: Vec<Settled>,
}

/// By number. The newest stands apart: where each event ends before the next opens, nothing is allocated.
#[derive(Debug, Default)]
struct Opened {
    newest: Option<(u64, Open)>,
    older: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    started: Instant,
    stage: Stage,
    bytes_in: u64,
    /// The event whose text ran, where the begin line was not sure.
    text_of: Option<u64>,
    /// The text, where the record does not hold it whole.
    text: Option<Arc<TextDigest>>,
}

/// What the server says of a statement that completed, and what follows from it.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Its command tag without numbers; `None` where it ran nothing.
    pub command: Option<Cow<'static, str>>,
    /// SQL-level EXECUTE: the event whose text gave the name.
    pub executes: Option<u64>,
    /// The answer cannot be its text's: something else ran, or nothing.
    pub contradicted: bool,
}

impl Book {
    /// Number of the event that opens next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether the event has begun and not ended.
    pub fn is_open(&self, event: u64) -> bool {
        self.open.get(event).is_some()
    }

    /// Events from this number on were never begun, but for these: they have no end.
    pub fn forget(&mut self, since: u64, but: &[u64]) {
        self.open.retain(since, |event| but.contains(&event));
        let forgotten = |end: &End| end.event >= since && !but.contains(&end.event);
        self.settled.retain(|line| !matches!(line, Settled::End(end) if forgotten(end)));
    }

    /// Opens an event with its first message.
    pub fn open(&mut self, stage: Stage, bytes: u64, now: Instant) -> u64 {
        let event = self.next;
        self.next = event.saturating_add(1);
        self.open.insert(event, Open { started: now, stage, bytes_in: bytes, text_of: None, text: None });
        event
    }

    /// Continues an event with its next message; nothing happens if it has ended already, by an error.
    pub fn join(&mut self, event: u64, stage: Stage, bytes: u64) {
        if let Some(open) = self.open.get_mut(event) {
            open.stage = stage;
            open.bytes_in = open.bytes_in.saturating_add(bytes);
        }
    }

    /// The event's text turned out to be this one's.
    pub fn ran(&mut self, event: u64, text_of: u64) {
        if let Some(open) = self.open.get_mut(event) {
            open.text_of = Some(text_of);
        }
    }

    /// What the event's text is known by, as the record does not hold it whole.
    pub fn text_is(&mut self, event: u64, text: &Arc<TextDigest>) {
        if let Some(open) = self.open.get_mut(event) {
            open.text = Some(Arc::clone(text));
        }
    }

    /// COPY data counts as the event's input.
    pub fn add_input(&mut self, event: u64, bytes: u64) {
        if let Some(open) = self.open.get_mut(event) {
            open.bytes_in = open.bytes_in.saturating_add(bytes);
        }
    }

    /// No later message can continue the event, and the server has answered all of it.
    pub fn abandon(&mut self, event: u64, now: Instant) {
        self.close_unexecuted(event, now);
    }

    /// Ends an event; nothing happens if it has ended already.
    pub fn close(&mut self, event: u64, outcome: Outcome, progress: &Progress, now: Instant) {
        let Some(open) = self.open.remove(event) else { return };
        let end =
            End { outcome, sqlstate: progress.failed.clone(), part: progress.part, ..open.end(event, progress, now) };
        self.settle(Settled::End(end));
    }

    /// Ends an event with the server's command tag.
    pub fn complete(&mut self, event: u64, progress: &Progress, done: Done, now: Instant) {
        let Some(mut open) = self.open.remove(event) else { return };
        if done.contradicted {
            (open.text_of, open.text) = (None, None);
        }
        let Done { command, executes, contradicted: text_doubtful } = done;
        let end = End { text_doubtful, executes, command, ..open.end(event, progress, now) };
        self.settle(Settled::End(end));
    }

    /// An end line of a Query that stays open: another statement of it may follow.
    pub fn part(&self, event: u64, progress: &Progress, now: Instant) -> Option<End> {
        self.open.get(event).map(|open| open.end(event, progress, now))
    }

    /// Gives out a Query's end line that turned out not to be its last.
    pub fn release(&mut self, held: End) {
        self.settle(Settled::End(End { last: false, ..held }));
    }

    /// Ends a Query with its last end line.
    pub fn finish_query(&mut self, event: u64, held: End) {
        if self.open.remove(event).is_some() {
            self.settle(Settled::End(End { last: true, ..held }));
        }
    }

    /// Ends everything that is open, as far as it got.
    pub fn close_all(&mut self, now: Instant) {
        for event in self.open.numbers() {
            self.close_unexecuted(event, now);
        }
    }

    /// An error at what is no event.
    pub fn sync_error(&mut self, sqlstate: &str) {
        self.settle(Settled::SyncError(sqlstate.to_owned()));
    }

    /// The lines that are ready.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// Their room, for the next ones.
    pub fn give_back(&mut self, mut settled: Vec<Settled>) {
        if self.settled.is_empty() && settled.capacity() <= KEPT_SETTLED {
            settled.clear();
            self.settled = settled;
        }
    }

    #[cfg(test)]
    pub fn put_back(&mut self, settled: Vec<Settled>) {
        self.settled = settled;
    }

    fn settle(&mut self, line: Settled) {
        // One line at a time is what most sessions have, and its room stays with them.
        if self.settled.capacity() == 0 {
            self.settled.reserve_exact(1);
        }
        self.settled.push(line);
    }

    fn close_unexecuted(&mut self, event: u64, now: Instant) {
        if let Some(outcome) = self.open.get(event).map(|open| unexecuted(open.stage)) {
            self.close(event, outcome, &Progress::default(), now);
        }
    }
}

impl Opened {
    fn get(&self, event: u64) -> Option<&Open> {
        match &self.newest {
            Some((newest, open)) if *newest == event => Some(open),
            _ => self.older.get(&event),
        }
    }

    fn get_mut(&mut self, event: u64) -> Option<&mut Open> {
        match &mut self.newest {
            Some((newest, open)) if *newest == event => Some(open),
            _ => self.older.get_mut(&event),
        }
    }

    /// One whose number is above all others'.
    fn insert(&mut self, event: u64, open: Open) {
        self.older.extend(self.newest.replace((event, open)));
    }

    fn remove(&mut self, event: u64) -> Option<Open> {
        match self.newest.take_if(|(newest, _)| *newest == event) {
            Some((_, open)) => Some(open),
            None => self.older.remove(&event),
        }
    }

    /// Those from `since` on go, but for what stays.
    fn retain(&mut self, since: u64, stays: impl Fn(u64) -> bool) {
        let mut begun = self.older.split_off(&since);
        begun.retain(|event, _| stays(*event));
        self.older.append(&mut begun);
        self.newest.take_if(|(event, _)| *event >= since && !stays(*event));
    }

    /// In order.
    fn numbers(&self) -> Vec<u64> {
        self.older.keys().copied().chain(self.newest.as_ref().map(|(event, _)| *event)).collect()
    }
}

impl Open {
    fn end(&self, event: u64, progress: &Progress, now: Instant) -> End {
        let since =
            |now: Instant| u64::try_from(now.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX);
        End {
            event,
            part: progress.part,
            last: true,
            outcome: Outcome::Ok,
            sqlstate: None,
            text_of: self.text_of,
            text: self.text.clone(),
            text_doubtful: false,
            executes: None,
            command: None,
            rows: progress.rows,
            bytes_in: self.bytes_in,
            bytes_out: progress.bytes_out,
            first_row_us: progress.first_row.map(since),
            duration_us: since(now),
        }
    }
}

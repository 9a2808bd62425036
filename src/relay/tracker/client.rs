//! What the client sends, in the order it is forwarded.

use super::{
    Entry, Kind, MAX_COPY_ENDS, MAX_COPY_SYNCS, MAX_REMEMBERED_TEXT, Place, Portal, Progress, Statement, StatementText,
    Target, Tracker, Unnamed, effective_name,
};
use crate::audit::event::{Outcome, Stage};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Tracker {
    /// `Query` of `bytes` on the wire. It also ends the unnamed statement and portal (`exec_simple_query`).
    pub fn query(&mut self, bytes: u64, now: Instant) -> u64 {
        let event = self.book.open(Stage::Query, bytes, now);
        if self.skip(event, now) {
            return event;
        }
        let unnamed: &[u8] = &[];
        let mut previous =
            Box::new(Unnamed { statement: self.statements.remove(unnamed), portal: self.portals.remove(unnamed) });
        let statement = previous.statement.as_mut().and_then(|old| old.event.take());
        let portal = previous.portal.as_mut().and_then(|old| old.event.take());
        self.abandon(statement, now);
        self.abandon(portal, now);
        self.push(Kind::Query { event, progress: Progress::default(), previous });
        event
    }

    /// `Parse` of a statement whose text starts with `head` and has `text_bytes` in all.
    pub fn parse(&mut self, name: &[u8], head: &[u8], text_bytes: u64, bytes: u64, now: Instant) -> u64 {
        let event = self.book.open(Stage::Parse, bytes, now);
        if self.skip(event, now) {
            return event;
        }
        let name: Arc<[u8]> = effective_name(name).into();
        let mut previous = self.statements.remove(&name);
        let old_event = previous.as_mut().and_then(|old| old.event.take());
        self.abandon(old_event, now);
        let text = self.remember_text(head, text_bytes, event);
        let order = self.push(Kind::Parse { event, name: Arc::clone(&name), previous });
        self.statements.insert(name, Statement { order, event: Some(event), text, doubtful: false });
        event
    }

    /// `Bind` of a portal to a statement: continues the Parse's event the first time, opens a new one after.
    pub fn bind(&mut self, portal: &[u8], statement: &[u8], bytes: u64, now: Instant) -> Place {
        let statement: Arc<[u8]> = effective_name(statement).into();
        let known = self.statements.get_mut(&statement);
        let parsed = known.as_ref().map(|known| Arc::clone(&known.text));
        let doubtful = known.as_ref().is_some_and(|known| known.doubtful);
        if self.skipping {
            let event = self.skipped(Stage::Bind, bytes, now);
            return Place { event, text: parsed, statement, doubtful };
        }
        let claimed = known.and_then(|known| known.event.take());
        let (event, text) = self.continue_or_open(claimed, Stage::Bind, bytes, parsed.clone(), now);
        let portal: Arc<[u8]> = effective_name(portal).into();
        let mut previous = self.portals.remove(&portal);
        let old_event = previous.as_mut().and_then(|old| old.event.take());
        self.abandon(old_event, now);
        let order = self.push(Kind::Bind { event, portal: Arc::clone(&portal), previous });
        let place = Place { event, text, statement: Arc::clone(&statement), doubtful };
        self.portals.insert(portal, Portal { order, event: Some(event), statement, text: parsed, doubtful });
        place
    }

    /// `Execute` of a portal: continues the Bind's event the first time, opens a new one after.
    pub fn execute(&mut self, portal: &[u8], bytes: u64, now: Instant) -> Place {
        let skipping = self.skipping;
        let known = self.portals.get_mut(effective_name(portal));
        let statement = known.as_ref().map_or_else(|| Arc::from([]), |known| Arc::clone(&known.statement));
        let bound = known.as_ref().and_then(|known| known.text.clone());
        let doubtful = known.as_ref().is_some_and(|known| known.doubtful);
        let claimed = known.filter(|_| !skipping).and_then(|known| known.event.take());
        if skipping {
            let event = self.skipped(Stage::Execute, bytes, now);
            return Place { event, text: bound, statement, doubtful };
        }
        let (event, text) = self.continue_or_open(claimed, Stage::Execute, bytes, bound, now);
        self.push(Kind::Execute { event, progress: Progress::default() });
        Place { event, text, statement, doubtful }
    }

    /// `FunctionCall`.
    pub fn function_call(&mut self, bytes: u64, now: Instant) -> u64 {
        let event = self.book.open(Stage::FunctionCall, bytes, now);
        if !self.skip(event, now) {
            self.push(Kind::FunctionCall { event, progress: Progress::default() });
        }
        event
    }

    /// `Describe`.
    pub fn describe(&mut self) {
        if !self.skipping {
            self.push(Kind::Describe);
        }
    }

    /// `Close`.
    pub fn close(&mut self, target: Target, name: &[u8], now: Instant) {
        if self.skipping {
            return;
        }
        let name: Arc<[u8]> = effective_name(name).into();
        match target {
            Target::Statement => {
                let mut previous = self.statements.remove(&name);
                let event = previous.as_mut().and_then(|old| old.event.take());
                self.abandon(event, now);
                self.push(Kind::CloseStatement { name, previous });
            }
            Target::Portal => {
                let mut previous = self.portals.remove(&name);
                let event = previous.as_mut().and_then(|old| old.event.take());
                self.abandon(event, now);
                self.push(Kind::ClosePortal { name, previous });
            }
        }
    }

    /// `Sync`: ends skipping.
    pub fn sync(&mut self) {
        self.skipping = false;
        let in_copy = self.queue.iter().rev().take_while(|entry| entry.in_copy).count();
        if !self.copy_in || in_copy < MAX_COPY_SYNCS {
            self.push(Kind::Sync);
        }
    }

    /// `CopyDone` or `CopyFail`; outside COPY the server ignores them.
    pub fn copy_end(&mut self) {
        self.copy_in = false;
        let is_end = |entry: &&Entry| matches!(entry.kind, Kind::CopyEnd);
        let ends = self.queue.iter().rev().take_while(is_end).count();
        if !self.skipping && !self.queue.is_empty() && ends < MAX_COPY_ENDS {
            self.push(Kind::CopyEnd);
        }
    }

    /// `CopyData` of `bytes` on the wire.
    pub fn copy_data(&mut self, bytes: u64) {
        self.copy_bytes = self.copy_bytes.saturating_add(bytes);
    }

    fn continue_or_open(
        &mut self,
        claimed: Option<u64>,
        stage: Stage,
        bytes: u64,
        text: Option<Arc<StatementText>>,
        now: Instant,
    ) -> (u64, Option<Arc<StatementText>>) {
        match claimed {
            Some(event) if self.book.join(event, stage, bytes) => (event, None),
            _ => (self.book.open(stage, bytes, now), text),
        }
    }

    /// While skipping: the event ends as soon as it began.
    fn skip(&mut self, event: u64, now: Instant) -> bool {
        if self.skipping {
            self.book.close(event, Outcome::Skipped, &Progress::default(), now);
        }
        self.skipping
    }

    fn skipped(&mut self, stage: Stage, bytes: u64, now: Instant) -> u64 {
        let event = self.book.open(stage, bytes, now);
        self.book.close(event, Outcome::Skipped, &Progress::default(), now);
        event
    }

    fn abandon(&mut self, event: Option<u64>, now: Instant) {
        if let Some(event) = event {
            self.book.abandon(event, now);
        }
    }

    fn remember_text(&mut self, head: &[u8], bytes: u64, event: u64) -> Arc<StatementText> {
        let total = self.remembered_text.load(Ordering::Relaxed).saturating_add(head.len());
        let head = if total > MAX_REMEMBERED_TEXT { [].as_slice() } else { head };
        self.remembered_text.fetch_add(head.len(), Ordering::Relaxed);
        Arc::new(StatementText { head: head.into(), bytes, event, budget: Arc::clone(&self.remembered_text) })
    }
}

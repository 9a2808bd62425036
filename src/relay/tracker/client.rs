//! What the client sends, in the order it is forwarded.

use super::{Kind, MAX_REMEMBERED_TEXT, Place, Portal, Progress, Statement, StatementText, Target, Tracker};
use crate::audit::event::{Outcome, Stage};
use std::sync::Arc;
use std::time::Instant;

impl Tracker {
    /// `Query` of `bytes` on the wire. It also ends the unnamed statement and portal (`exec_simple_query`).
    pub fn query(&mut self, bytes: u64, now: Instant) -> u64 {
        let event = self.book.open(Stage::Query, bytes, now);
        if self.skip(event, now) {
            return event;
        }
        self.push(Kind::Query { event, progress: Progress::default() });
        let unnamed: Arc<[u8]> = Arc::from([]);
        if let Some(statement) = self.statements.remove(&unnamed) {
            self.forget_text(&statement);
            self.abandon(statement.event, now);
        }
        if let Some(portal) = self.portals.remove(&unnamed) {
            self.abandon(portal.event, now);
        }
        event
    }

    /// `Parse` of a statement whose text starts with `head` and has `text_bytes` in all.
    pub fn parse(&mut self, name: &[u8], head: &[u8], text_bytes: u64, bytes: u64, now: Instant) -> u64 {
        let event = self.book.open(Stage::Parse, bytes, now);
        if self.skip(event, now) {
            return event;
        }
        let name: Arc<[u8]> = name.into();
        let mut previous = self.statements.remove(&name);
        if let Some(old) = &mut previous {
            let old_event = old.event.take();
            self.abandon(old_event, now);
        }
        if let Some(old) = &previous {
            self.forget_text(old);
        }
        let text = self.remember_text(head, text_bytes);
        let order = self.push(Kind::Parse { event, name: Arc::clone(&name), previous });
        self.statements.insert(name, Statement { order, event: Some(event), text });
        event
    }

    /// `Bind` of a portal to a statement: continues the Parse's event the first time, opens a new one after.
    pub fn bind(&mut self, portal: &[u8], statement: &[u8], bytes: u64, now: Instant) -> Place {
        let statement: Arc<[u8]> = statement.into();
        if self.skipping {
            let text = self.statements.get(&statement).map(|known| Arc::clone(&known.text));
            return self.skipped(Stage::Bind, text, statement, bytes, now);
        }
        let known = self.statements.get_mut(&statement);
        let parsed = known.as_ref().map(|known| Arc::clone(&known.text));
        let claimed = known.and_then(|known| known.event.take());
        let (event, text) = self.continue_or_open(claimed, Stage::Bind, bytes, parsed.clone(), now);
        let portal: Arc<[u8]> = portal.into();
        let mut previous = self.portals.remove(&portal);
        if let Some(old) = &mut previous {
            let old_event = old.event.take();
            self.abandon(old_event, now);
        }
        let order = self.push(Kind::Bind { event, portal: Arc::clone(&portal), previous });
        let place = Place { event, text, statement: Arc::clone(&statement) };
        self.portals.insert(portal, Portal { order, event: Some(event), statement, text: parsed });
        place
    }

    /// `Execute` of a portal: continues the Bind's event the first time, opens a new one after.
    pub fn execute(&mut self, portal: &[u8], bytes: u64, now: Instant) -> Place {
        let (claimed, statement, bound) = match self.portals.get_mut(portal) {
            Some(known) => {
                let claimed = if self.skipping { None } else { known.event.take() };
                (claimed, Arc::clone(&known.statement), known.text.clone())
            }
            None => (None, Arc::from([]), None),
        };
        if self.skipping {
            return self.skipped(Stage::Execute, bound, statement, bytes, now);
        }
        let (event, text) = self.continue_or_open(claimed, Stage::Execute, bytes, bound, now);
        self.push(Kind::Execute { event, progress: Progress::default() });
        Place { event, text, statement }
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
        let name: Arc<[u8]> = name.into();
        match target {
            Target::Statement => {
                let mut previous = self.statements.remove(&name);
                let event = previous.as_mut().and_then(|old| old.event.take());
                if let Some(old) = &previous {
                    self.forget_text(old);
                }
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
        self.push(Kind::Sync);
    }

    /// `CopyDone` or `CopyFail`; outside COPY the server ignores them.
    pub fn copy_end(&mut self) {
        self.copy_in = false;
        if !self.skipping {
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

    fn skipped(
        &mut self,
        stage: Stage,
        text: Option<Arc<StatementText>>,
        statement: Arc<[u8]>,
        bytes: u64,
        now: Instant,
    ) -> Place {
        let event = self.book.open(stage, bytes, now);
        self.book.close(event, Outcome::Skipped, &Progress::default(), now);
        Place { event, text, statement }
    }

    fn abandon(&mut self, event: Option<u64>, now: Instant) {
        if let Some(event) = event {
            self.book.abandon(event, now);
        }
    }

    fn remember_text(&mut self, head: &[u8], bytes: u64) -> Arc<StatementText> {
        let total = self.remembered_text.saturating_add(head.len());
        let head = if total > MAX_REMEMBERED_TEXT { [].as_slice() } else { head };
        self.remembered_text = self.remembered_text.saturating_add(head.len());
        Arc::new(StatementText { head: head.into(), bytes })
    }

    pub(super) fn forget_text(&mut self, statement: &Statement) {
        self.remembered_text = self.remembered_text.saturating_sub(statement.text.head.len());
    }
}

//! What the client sends, in the order it is forwarded.

use super::names::Place as At;
use super::sql::{self, Effect};
use super::{
    Kind, MAX_REMEMBERED_TEXT, Meaning, Place, Portal, Progress, Said, Statement, StatementText, Target, Tracker,
    effective_name, role_changes, weight,
};
use crate::audit::TextDigest;
use crate::audit::event::{MAX_TEXT_BYTES, Outcome, RoleChange, Stage};
use crate::relay::substitute::{MAX_ROLLBACK, ends};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

impl Tracker {
    /// `Query` of `bytes` on the wire, whose text starts with `head` and has `text_bytes` in all.
    pub fn query(&mut self, head: &[u8], text_bytes: u64, bytes: u64, now: Instant) -> u64 {
        let event = self.book.open(Stage::Query, bytes, now);
        if self.skip(event, now) {
            return event;
        }
        let effect = Effect::of(head);
        let text = (effect != Effect::None).then(|| self.remember_text(head, text_bytes, event, effect));
        let order = self.push(Kind::Query { event, progress: Progress::default(), text });
        self.last_sql = Some(order);
        event
    }

    /// `Parse` of a statement whose text starts with `head` and has `text_bytes` in all.
    pub fn parse(&mut self, name: &[u8], head: &[u8], text_bytes: u64, bytes: u64, now: Instant) -> u64 {
        let event = self.book.open(Stage::Parse, bytes, now);
        if self.skip(event, now) {
            return event;
        }
        let name = self.statements.intern(effective_name(name));
        let text = self.remember_text(head, text_bytes, event, Effect::of(head));
        let statement = Statement { event: Some(event), text, doubtful: !name.is_ascii() };
        let order = self.push(Kind::Parse { event, name: Arc::clone(&name) });
        self.statements.expect(name, self.at(order), Some(statement));
        event
    }

    /// Whether [`Tracker::text_is`] is to follow for this Query's or Parse's text: no begin line has all of it, or those
    /// of its later executions can have nothing of it.
    pub fn wants_digest(&self, event: u64, text_bytes: u64) -> bool {
        let own = self.newest_text.upgrade().filter(|text| text.event == event);
        let forgotten = own.is_some_and(|text| text.is_forgotten());
        self.book.is_open(event) && (forgotten || text_bytes > MAX_TEXT_BYTES as u64)
    }

    /// What a text is known by, for its event's end and for those of all that run it later.
    pub fn text_is(&mut self, event: u64, digest: TextDigest) {
        let digest = Arc::new(digest);
        self.book.text_is(event, &digest);
        if let Some(text) = self.newest_text.upgrade().filter(|text| text.event == event) {
            // It is worked out once.
            let _ = text.digest.set(digest);
        }
    }

    /// `Bind` of a portal to a statement: continues the Parse's event the first time, opens a new one after.
    pub fn bind(&mut self, portal: &[u8], statement: &[u8], bytes: u64, now: Instant) -> Place {
        let statement = self.statements.intern(effective_name(statement));
        let sql_outstanding = self.sql_is_outstanding() && !statement.is_empty();
        let guess = self.statements.guess(&statement, self.segment);
        let certain = guess.certain && !sql_outstanding && !guess.meaning.as_ref().is_some_and(|known| known.doubtful);
        let text = guess.meaning.as_ref().map(|known| Arc::clone(&known.text));
        let meaning = Meaning::of(text.as_ref());
        let doubtful = !certain || meaning == Meaning::Unknown;
        let unnamed = portal.is_empty() && statement.is_empty();
        let ends = text.as_ref().filter(|_| unnamed && certain).and_then(|text| text.ends);
        let claimed =
            guess.meaning.filter(|_| certain && guess.together && !self.skipping).and_then(|known| known.event.take());
        let claimed = claimed.filter(|event| self.book.is_open(*event));
        if self.skipping {
            let event = self.skipped(Stage::Bind, bytes, now);
            return Place { event, text, statement, doubtful, meaning, skipped: true, ends };
        }
        let event = self.continue_or_open(claimed, Stage::Bind, bytes, now);
        let said = said(text.as_ref(), certain);
        let portal = self.portals.intern(effective_name(portal));
        let (bound, of) = (Arc::clone(&portal), Arc::clone(&statement));
        let order = self.push(Kind::Bind { event, portal: bound, statement: of, said });
        let to = Portal {
            event: Some(event),
            statement: Arc::clone(&statement),
            text: text.clone(),
            doubtful: doubtful || !portal.is_ascii(),
        };
        self.portals.expect(portal, self.at(order), Some(to));
        let text = text.filter(|_| claimed.is_none());
        Place { event, text, statement, doubtful, meaning, skipped: false, ends }
    }

    /// `Execute` of a portal: continues the Bind's event the first time, opens a new one after.
    pub fn execute(&mut self, portal: &[u8], bytes: u64, now: Instant) -> Place {
        let portal = self.portals.intern(effective_name(portal));
        let sql_outstanding = self.sql_is_outstanding() && !portal.is_empty();
        let guess = self.portals.guess(&portal, self.segment);
        let known = guess.meaning.as_deref();
        let same_portal = guess.certain && !sql_outstanding && portal.is_ascii();
        let certain = same_portal && !known.is_some_and(|known| known.doubtful);
        let text = known.and_then(|known| known.text.clone());
        let statement = known.map_or_else(|| Arc::from([]), |known| Arc::clone(&known.statement));
        let unnamed = portal.is_empty() && statement.is_empty();
        let ends = text.as_ref().filter(|_| unnamed && certain).and_then(|text| text.ends);
        let (meaning, skipped) = (Meaning::of(text.as_ref()), self.skipping);
        let doubtful = !certain || meaning == Meaning::Unknown;
        let place = |event, text| Place { event, text, statement, doubtful, meaning, skipped, ends };
        // A portal that is certain goes on with its Bind's event, whatever text that turns out to run.
        let claimed = guess
            .meaning
            .filter(|_| same_portal && guess.together && !self.skipping)
            .and_then(|known| known.event.take());
        let claimed = claimed.filter(|event| self.book.is_open(*event));
        if self.skipping {
            return place(self.skipped(Stage::Execute, bytes, now), text);
        }
        let event = self.continue_or_open(claimed, Stage::Execute, bytes, now);
        let said = said(text.as_ref(), certain);
        let names = text.as_ref().is_none_or(|text| !certain || text.changes_names());
        let order = self.push(Kind::Execute { event, portal, progress: Progress::default(), said });
        if names {
            self.last_sql = Some(order);
        }
        place(event, text.filter(|_| claimed.is_none()))
    }

    /// `FunctionCall`.
    pub fn function_call(&mut self, bytes: u64, now: Instant) -> u64 {
        let event = self.book.open(Stage::FunctionCall, bytes, now);
        if !self.skip(event, now) {
            self.push(Kind::FunctionCall { event, progress: Progress::default() });
        }
        event
    }

    /// `Flush` with a body. During COPY FROM STDIN the server ignores what is in it.
    pub fn malformed_flush(&mut self) {
        if !self.skipping && !self.copy_in {
            self.push(Kind::MalformedFlush);
        }
    }

    /// `Describe`.
    pub fn describe(&mut self) {
        if !self.skipping {
            self.push(Kind::Describe);
        }
    }

    /// `Close`.
    pub fn close(&mut self, target: Target, name: &[u8]) {
        if self.skipping {
            return;
        }
        let name = effective_name(name);
        match target {
            Target::Statement => {
                let name = self.statements.intern(name);
                let order = self.push(Kind::CloseStatement { name: Arc::clone(&name) });
                self.statements.expect(name, self.at(order), None);
            }
            Target::Portal => {
                let name = self.portals.intern(name);
                let order = self.push(Kind::ClosePortal { name: Arc::clone(&name) });
                self.portals.expect(name, self.at(order), None);
            }
        }
    }

    /// `Sync`: ends skipping.
    pub fn sync(&mut self) {
        self.skipping = false;
        self.segment = self.segment.saturating_add(1);
        if !self.copy_has_syncs_enough() {
            self.push(Kind::Sync);
        }
    }

    fn at(&self, order: u64) -> At {
        At { order, segment: self.segment }
    }

    fn continue_or_open(&mut self, claimed: Option<u64>, stage: Stage, bytes: u64, now: Instant) -> u64 {
        match claimed {
            Some(event) => {
                self.book.join(event, stage, bytes);
                event
            }
            None => self.book.open(stage, bytes, now),
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
        self.skip(event, now);
        event
    }

    fn remember_text(&mut self, head: &[u8], bytes: u64, event: u64, effect: Effect) -> Arc<StatementText> {
        let role_changes: Box<[RoleChange]> = role_changes(head).into();
        let weight = weight(head, &role_changes);
        let spent = self.remembered_text.load(Ordering::Relaxed).saturating_add(weight) > MAX_REMEMBERED_TEXT;
        let (head, role_changes) = if spent { ([].as_slice(), Box::default()) } else { (head, role_changes) };
        self.remembered_text.fetch_add(if spent { 0 } else { weight }, Ordering::Relaxed);
        let is_whole = bytes == head.len() as u64 && bytes <= MAX_ROLLBACK;
        let ends = if is_whole { ends(head) } else { None };
        let budget = Arc::clone(&self.remembered_text);
        let digest = OnceLock::new();
        let text = Arc::new(StatementText {
            head: head.into(),
            bytes,
            event,
            effect,
            role_changes,
            ends,
            verb: sql::first_word(head),
            repeated_in: AtomicU64::new(0),
            digest,
            budget,
        });
        self.newest_text = Arc::downgrade(&text);
        text
    }
}

/// What a begin line is sure of.
fn said(text: Option<&Arc<StatementText>>, certain: bool) -> Said {
    text.filter(|_| certain).map(|text| text.event)
}

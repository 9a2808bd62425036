//! What names mean as messages succeed or fail, as SQL runs, and as transactions end.

use super::sql::Effect;
use super::{Entry, Kind, Portal, Statement, StatementText, Tracker};
use std::sync::Arc;
use std::time::Instant;

/// With these a Query or Bind fails before it touches a portal (`in_failed_sql_transaction`, and a Bind's
/// `undefined_pstatement`; `exec_simple_query`, `exec_bind_message` in `postgres.c`). Where user's code runs it could
/// raise them at any time.
const UNTOUCHED: [&str; 2] = ["25P02", "26000"];

impl Tracker {
    /// A message succeeded: its name means what it was expected to mean.
    pub(super) fn confirm(&mut self, entry: &Entry, now: Instant) {
        match &entry.kind {
            Kind::Parse { name, .. } | Kind::CloseStatement { name } => {
                let before = self.statements.confirm(name, entry.order);
                self.retire(before.and_then(|known| known.event), now);
            }
            Kind::Bind { portal, statement, .. } => {
                let before = self.portals.confirm(portal, entry.order);
                self.retire(before.and_then(|known| known.event), now);
                self.settle_portal(portal, statement);
            }
            Kind::ClosePortal { name } => {
                let before = self.portals.confirm(name, entry.order);
                self.retire(before.and_then(|known| known.event), now);
            }
            _ => {}
        }
    }

    /// What a message that did not succeed was expected to change stays as it is. (A Parse or Query that fails may or
    /// may not have dropped the unnamed statement by then; if it has, nothing can run by that name.)
    pub(super) fn cancel(&mut self, entry: &Entry) {
        match &entry.kind {
            Kind::Parse { name, .. } | Kind::CloseStatement { name } => self.statements.cancel(name, entry.order),
            Kind::Bind { portal: name, .. } | Kind::ClosePortal { name } => self.portals.cancel(name, entry.order),
            _ => {}
        }
    }

    /// A portal that is there by now has the text that its statement has by now.
    fn settle_portal(&mut self, portal: &Arc<[u8]>, statement: &Arc<[u8]>) {
        let known = self.statements.confirmed(statement);
        let (text, doubtful) =
            known.map_or((None, true), |known| (Some(Arc::clone(&known.text)), known.doubtful || !portal.is_ascii()));
        let doubtful = doubtful || self.statements.is_doubted(statement);
        if let Some(bound) = self.portals.confirmed_mut(portal) {
            bound.text = text.or(bound.text.take());
            bound.doubtful = doubtful;
        }
    }

    /// Everything before this entry has been answered: which text is it, if its begin line did not say so?
    pub(super) fn settle_text(&mut self, entry: &Entry) {
        let (event, said, known) = match &entry.kind {
            Kind::Bind { event, statement, said, .. } => (
                *event,
                *said,
                self.statements
                    .confirmed(statement)
                    .map(|known| (Some(&known.text), known.doubtful || self.statements.is_doubted(statement))),
            ),
            Kind::Execute { event, portal, said, .. } => (
                *event,
                *said,
                self.portals
                    .confirmed(portal)
                    .map(|known| (known.text.as_ref(), known.doubtful || self.portals.is_doubted(portal))),
            ),
            _ => return,
        };
        let Some((Some(text), false)) = known else { return };
        if let Some(digest) = text.digest.get() {
            self.book.text_is(event, digest);
        }
        if said != Some(text.event) {
            self.book.ran(event, text.event);
        }
    }

    /// The text that a portal runs, if that is certain.
    pub(super) fn text_of_portal(&self, portal: &[u8]) -> Option<Arc<StatementText>> {
        let known = self.portals.confirmed(portal).filter(|known| !known.doubtful && !self.portals.is_doubted(portal));
        known.and_then(|known| known.text.clone())
    }

    /// A statement of SQL is done: names that it gave or took. Its first statement alone can be told from its text;
    /// another one leaves every name in doubt. For EXECUTE: the event whose text ran.
    pub(super) fn names_changed(
        &mut self,
        command: Option<&str>,
        text: Option<Arc<StatementText>>,
        now: Instant,
    ) -> Option<u64> {
        let effect = text.as_ref().map_or(&Effect::None, |text| &text.effect);
        match (command?, effect) {
            ("PREPARE", Effect::Prepare(name)) => {
                let to = text.as_ref().map(|text| Statement { event: None, text: Arc::clone(text), doubtful: false });
                self.set_statement(name, to, now);
            }
            ("DEALLOCATE", Effect::Deallocate(name)) => self.set_statement(name, None, now),
            ("DECLARE CURSOR", Effect::Declare(name)) => {
                let to = Portal { event: None, statement: Arc::from([]), text: text.clone(), doubtful: false };
                self.set_portal(name, Some(to), now);
            }
            ("CLOSE CURSOR", Effect::Close(name)) => self.set_portal(name, None, now),
            ("DEALLOCATE ALL", _) => self.drop_statements(now),
            ("CLOSE CURSOR ALL", _) => self.drop_portals(now),
            ("DISCARD ALL", _) => {
                self.drop_statements(now);
                self.drop_portals(now);
            }
            ("PREPARE" | "DEALLOCATE", _) => self.statements.doubt(),
            ("DECLARE CURSOR" | "CLOSE CURSOR", _) => self.portals.doubt(),
            (_, Effect::Execute(name)) => {
                let known = self.statements.confirmed(name);
                let known = known.filter(|known| !known.doubtful && !self.statements.is_doubted(name));
                return known.map(|known| known.text.event);
            }
            _ => {}
        }
        None
    }

    /// A Query that succeeded has ended the unnamed statement, and the unnamed portal if anything ran
    /// (`exec_simple_query`). After one that failed the statement may be there or not: if it is gone, nothing can run by
    /// that name.
    pub(super) fn unnamed_ended(&mut self, ran: bool, now: Instant) {
        let statement = self.statements.forget(b"").and_then(|known| known.event);
        self.retire(statement, now);
        if ran {
            let portal = self.portals.forget(b"").and_then(|known| known.event);
            self.retire(portal, now);
        }
    }

    /// A Query failed with this SQLSTATE, or a Bind of the unnamed portal: that may be as it was, or another one, of which
    /// nothing can run.
    pub(super) fn unnamed_portal_in_doubt(&mut self, sqlstate: &str, now: Instant) {
        if self.is_aborted() && UNTOUCHED.contains(&sqlstate) {
            return;
        }
        let bound = self.portals.confirmed_mut(b"");
        let event = bound.and_then(|bound| {
            bound.doubtful = true;
            bound.event.take()
        });
        self.retire(event, now);
    }

    /// A transaction's end closes its portals; of those that SQL declared it may leave some (`WITH HOLD`).
    pub(super) fn transaction_ended(&mut self, now: Instant) {
        let mut declared = false;
        for portal in self.portals.take_all() {
            declared |= portal.text.is_some_and(|text| matches!(text.effect, Effect::Declare(_)));
            if let Some(event) = portal.event {
                self.book.abandon(event, now);
            }
        }
        if declared {
            self.portals.leave_out();
        }
    }

    fn set_statement(&mut self, name: &[u8], to: Option<Statement>, now: Instant) {
        if to.is_some() && self.is_overfull() && self.statements.confirmed(name).is_none() {
            return self.statements.leave_out();
        }
        let name = self.statements.intern(name);
        let before = self.statements.set(&name, to).and_then(|known| known.event);
        self.retire(before, now);
    }

    fn set_portal(&mut self, name: &[u8], to: Option<Portal>, now: Instant) {
        if to.is_some() && self.is_overfull() && self.portals.confirmed(name).is_none() {
            return self.portals.leave_out();
        }
        let name = self.portals.intern(name);
        let before = self.portals.set(&name, to).and_then(|known| known.event);
        self.retire(before, now);
    }

    fn drop_statements(&mut self, now: Instant) {
        let dropped = self.statements.take_named().into_iter().filter_map(|known| known.event).collect();
        self.abandon_all(dropped, now);
    }

    fn drop_portals(&mut self, now: Instant) {
        let dropped = self.portals.take_named().into_iter().filter_map(|known| known.event).collect();
        self.abandon_all(dropped, now);
    }

    /// In the order in which they began.
    fn abandon_all(&mut self, mut events: Vec<u64>, now: Instant) {
        events.sort_unstable();
        for event in events {
            self.book.abandon(event, now);
        }
    }

    /// Nothing can continue this event any more, and the server has answered all of it.
    fn retire(&mut self, event: Option<u64>, now: Instant) {
        if let Some(event) = event {
            self.book.abandon(event, now);
        }
    }
}

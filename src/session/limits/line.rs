//! Logins that wait for a session: first come, first served, each for so long, and so many of one caller.
//!
//! Invariant: whoever waits could not be let in when the last session ended; so a login that can be let in at once goes
//! before nobody who could be, too.

use super::{Key, Over, Rule, Seat, State, Visit, lock};
use crate::policy::{self, Limits};
use crate::telemetry::Limit;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Who waits, and what for.
#[derive(Debug)]
pub(super) struct Waiter {
    key: Key,
    sessions: Option<usize>,
    per_caller: Option<usize>,
    turn: oneshot::Sender<Seat>,
}

/// One of a caller's places in line; given back on drop.
#[derive(Debug)]
pub(super) struct Place(Visit);

/// Seats for those who waited, to be sent without the lock.
pub(super) type Given = Vec<(oneshot::Sender<Seat>, Seat)>;

impl Place {
    /// One more login of this caller in line, if it has a place left.
    pub fn take(visit: &Visit, places: usize) -> Option<Self> {
        let mut state = lock(&visit.state);
        let caller = state.rules.get_mut(&visit.rule)?.callers.get_mut(&visit.key)?;
        if caller.waiting >= places {
            return None;
        }
        caller.waiting = caller.waiting.saturating_add(1);
        caller.visits = caller.visits.saturating_add(1);
        Some(Self(visit.twin()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        let Some(rule) = state.rules.get_mut(&self.0.rule) else { return };
        if let Some(caller) = rule.callers.get_mut(&self.0.key) {
            caller.waiting = caller.waiting.saturating_sub(1);
        }
        rule.line.retain(|waiter| !waiter.turn.is_closed());
    }
}

impl Visit {
    /// Another hold on the same entry; it must have been counted.
    fn twin(&self) -> Self {
        let (state, meter) = (Arc::clone(&self.state), Arc::clone(&self.meter));
        Self { state, rule: self.rule.clone(), key: self.key.clone(), meter }
    }

    /// Takes a session, at once or when one comes free.
    pub(super) async fn sit(
        self,
        limits: &Limits,
        place: Option<Place>,
        deadline: Instant,
        mut wait: impl FnMut(Limit) -> bool,
    ) -> Result<Seat, Over> {
        let Err(over) = self.try_sit(limits) else { return Ok(Seat(self)) };
        let Some(policy::Line { places, .. }) = limits.line else { return Err(over) };
        // Declared before the receiver, so that it looks through the line when that is closed.
        let place = place.or_else(|| Place::take(&self, places)).ok_or_else(|| over.clone())?;
        if !wait(over.limit()) {
            return Err(over);
        }
        let (turn, mine) = oneshot::channel();
        let waiter =
            Waiter { key: self.key.clone(), sessions: limits.sessions, per_caller: limits.sessions_per_caller, turn };
        let given = {
            let mut state = lock(&self.state);
            let Some(rule) = state.rules.get_mut(&self.rule) else { return Err(over) };
            rule.line.push_back(waiter);
            // One may have come free since.
            state.admit(&self)
        };
        for (turn, seat) in given {
            let _ = turn.send(seat);
        }
        let seat = timeout_at(deadline, mine).await;
        drop(place);
        match seat {
            Ok(Ok(seat)) => Ok(seat),
            _ => Err(over),
        }
    }

    fn try_sit(&self, limits: &Limits) -> Result<(), Over> {
        let mut state = lock(&self.state);
        let Some(rule) = state.rules.get_mut(&self.rule) else { return Ok(()) };
        let sessions = rule.sessions;
        let Some(caller) = rule.callers.get_mut(&self.key) else { return Ok(()) };
        if let Some(over) = self.over(limits, sessions, caller.sessions) {
            return Err(over);
        }
        caller.sessions = caller.sessions.saturating_add(1);
        rule.sessions = rule.sessions.saturating_add(1);
        Ok(())
    }
}

impl State {
    /// A session has ended: who may have it now.
    pub(super) fn leave(&mut self, visit: &Visit) -> Given {
        let Some(rule) = self.rules.get_mut(&visit.rule) else { return Given::new() };
        rule.sessions = rule.sessions.saturating_sub(1);
        if let Some(caller) = rule.callers.get_mut(&visit.key) {
            caller.sessions = caller.sessions.saturating_sub(1);
        }
        self.admit(visit)
    }

    /// Lets in, in order, who can be.
    fn admit(&mut self, visit: &Visit) -> Given {
        let Some(rule) = self.rules.get_mut(&visit.rule) else { return Given::new() };
        let mut given = Given::new();
        let mut at = 0;
        while let Some(waiter) = rule.line.get(at) {
            if !rule.has_room_for(waiter) {
                at = at.saturating_add(1);
                continue;
            }
            let Some(waiter) = rule.line.remove(at) else { break };
            let Some(caller) = rule.callers.get_mut(&waiter.key) else { continue };
            caller.sessions = caller.sessions.saturating_add(1);
            caller.visits = caller.visits.saturating_add(1);
            rule.sessions = rule.sessions.saturating_add(1);
            let seat = Seat(Visit {
                state: Arc::clone(&visit.state),
                rule: visit.rule.clone(),
                key: waiter.key,
                meter: Arc::clone(&caller.meter),
            });
            given.push((waiter.turn, seat));
        }
        given
    }
}

impl Rule {
    fn has_room_for(&self, waiter: &Waiter) -> bool {
        let own = self.callers.get(&waiter.key).map_or(0, |caller| caller.sessions);
        !waiter.turn.is_closed()
            && waiter.sessions.is_none_or(|most| self.sessions < most)
            && waiter.per_caller.is_none_or(|most| own < most)
    }
}

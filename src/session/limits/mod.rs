//! Whether a caller may have one more session: what `[rule.limits]` says of logins, before anything is bought or dialled.
//!
//! A caller is one identity under one rule. An entry lives as long as the caller has a session or a login under way, and
//! then until its [`Meter`] is whole again: forgetting it gives nothing back that was used up. Where too many callers
//! with something used up are remembered, new ones are refused until time has made up for some; nobody is forgotten for
//! somebody else's sake.
//!
//! Sessions under rules without limits are counted too, so that limits which a reload brings find them counted.

mod admit;
mod line;
mod tokens;

pub use admit::Seats;
#[cfg(test)]
pub use tokens::MAX_TOKENS;
pub use tokens::TokenAddresses;

use crate::identity::IdentityFacts;
use crate::names::{IssuerName, RuleName, Tenant};
use crate::policy::{self, Grant};
use crate::relay::{Meter, Pace};
use crate::telemetry::Limit;
use line::{Place, Waiter};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Callers without a session whose meter is not whole, at most.
pub const MAX_RECENT: usize = 16_384;
/// How often they are looked through for those that are whole, once there are that many.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Issuer, tenant and object id.
type Key = (IssuerName, Tenant, String);

/// Every rule's callers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Limits {
    state: Arc<Mutex<State>>,
    /// No time that is asked about is earlier.
    epoch: Instant,
}

/// Which limit is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// `sessions`.
    #[error("the callers of rule {0} have {1} sessions")]
    Sessions(RuleName, usize),
    /// `sessions_per_caller`.
    #[error("this caller has {1} sessions under rule {0}")]
    SessionsPerCaller(RuleName, usize),
    /// `connects_per_minute`.
    #[error("this caller connects more often than {1} times a minute under rule {0}")]
    Connects(RuleName, u32),
    /// [`MAX_RECENT`].
    #[error("more callers came in the last minute than can be told apart")]
    Callers(RuleName),
    /// `one_address_per_token`.
    #[error("this token was used from another address")]
    Address(RuleName),
    /// The client's address is not known, so that nobody can say whether it is the same.
    #[error("the balancer does not say where the client is")]
    NoAddress(RuleName),
    /// More tokens than can be remembered.
    #[error("more tokens are in use than can be told apart")]
    Tokens(RuleName),
}

#[derive(Debug, Default)]
struct State {
    rules: HashMap<RuleName, Rule>,
    /// Callers that nobody visits: only what they used up keeps them.
    recent: usize,
    sweep_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Rule {
    sessions: usize,
    callers: HashMap<Key, Caller>,
    line: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Caller {
    /// Logins under way and sessions.
    visits: usize,
    sessions: usize,
    waiting: usize,
    meter: Arc<Meter>,
}

/// A caller's entry, which stays as long as this.
#[derive(Debug)]
struct Visit {
    state: Arc<Mutex<State>>,
    rule: RuleName,
    key: Key,
    meter: Arc<Meter>,
}

/// One session of a caller under a rule; given back on drop.
#[derive(Debug)]
pub struct Seat(Visit);

impl Default for Limits {
    fn default() -> Self {
        Self { state: Arc::default(), epoch: Instant::now() }
    }
}

impl Limits {
    /// One more session of this caller under this grant. May wait, as the rule says; `wait` hears of each wait before it
    /// begins, and says whether there is room for one more who waits. Dropped meanwhile, it leaves nothing behind but a
    /// connect that was counted.
    pub async fn enter(
        &self,
        caller: &IdentityFacts,
        grant: &Grant,
        mut wait: impl FnMut(Limit) -> bool,
    ) -> Result<Seat, Over> {
        let limits = grant.limits();
        let visit = self.visit(caller, grant.rule(), limits)?;
        let deadline = Instant::now() + limits.line.map_or(Duration::ZERO, |line| line.patience);
        let mut place = None;
        if let Some(most) = limits.connects_per_minute {
            place = visit.connect(most, limits, &mut wait).await?;
        }
        visit.sit(limits, place, deadline, wait).await
    }

    /// Callers that are remembered, and those among them without a session.
    pub fn remembered(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.rules.values().map(|rule| rule.callers.len()).sum(), state.recent)
    }

    /// Forgets callers that have no session and have used up nothing; to be called every minute or so, so that nobody is
    /// remembered because no one else came.
    pub fn sweep(&self) {
        lock(&self.state).sweep(Instant::now());
    }

    fn visit(&self, caller: &IdentityFacts, rule: &RuleName, limits: &policy::Limits) -> Result<Visit, Over> {
        let key = (caller.issuer.clone(), caller.tenant.clone(), caller.object_id.clone());
        let mut state = lock(&self.state);
        let known = state.rules.get(rule).is_some_and(|known| known.callers.contains_key(&key));
        if !known && limits.are_metered() && state.recent >= MAX_RECENT {
            state.sweep(Instant::now());
            if state.recent >= MAX_RECENT {
                return Err(Over::Callers(rule.clone()));
            }
        }
        let fresh = || Caller { visits: 0, sessions: 0, waiting: 0, meter: Arc::new(Meter::new(self.epoch)) };
        let entry = state.rules.entry(rule.clone()).or_default().callers.entry(key.clone()).or_insert_with(fresh);
        let was_recent = known && entry.visits == 0;
        entry.visits = entry.visits.saturating_add(1);
        let meter = Arc::clone(&entry.meter);
        state.recent = state.recent.saturating_sub(usize::from(was_recent));
        Ok(Visit { state: Arc::clone(&self.state), rule: rule.clone(), key, meter })
    }
}

impl Visit {
    /// Takes one of the connects; the place in line, if that took waiting.
    async fn connect(
        &self,
        most: u32,
        limits: &policy::Limits,
        wait: &mut impl FnMut(Limit) -> bool,
    ) -> Result<Option<Place>, Over> {
        let rate = Pace::new(most, MINUTE, most, policy::Over::Wait);
        let now = Instant::now();
        if self.meter.connect(&rate, Duration::ZERO, now).is_some() {
            return Ok(None);
        }
        let over = || Over::Connects(self.rule.clone(), most);
        let line = limits.line.ok_or_else(over)?;
        let place = Place::take(self, line.places).ok_or_else(over)?;
        let turn = self.meter.connect(&rate, line.patience, now).ok_or_else(over)?;
        if !wait(Limit::Connects) {
            return Err(over());
        }
        sleep_until(turn).await;
        Ok(Some(place))
    }

    fn over(&self, limits: &policy::Limits, sessions: usize, own: usize) -> Option<Over> {
        if limits.sessions_per_caller.is_some_and(|most| own >= most) {
            return Some(Over::SessionsPerCaller(self.rule.clone(), own));
        }
        limits.sessions.is_some_and(|most| sessions >= most).then(|| Over::Sessions(self.rule.clone(), sessions))
    }
}

impl Seat {
    /// What its caller has used up, in all of its sessions under the rule.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.0.meter
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let given = lock(&self.0.state).leave(&self.0);
        // Who has given up meanwhile drops the seat, which is given on; not under the lock.
        for (turn, seat) in given {
            let _ = turn.send(seat);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let Some(rule) = state.rules.get_mut(&self.rule) else { return };
        let Some(caller) = rule.callers.get_mut(&self.key) else { return };
        caller.visits = caller.visits.saturating_sub(1);
        if caller.visits > 0 {
            return;
        }
        if !caller.meter.is_whole(Instant::now()) {
            state.recent = state.recent.saturating_add(1);
            return;
        }
        rule.callers.remove(&self.key);
        if rule.callers.is_empty() {
            state.rules.remove(&self.rule);
        }
    }
}

impl State {
    /// Forgets callers that have nothing and have used up nothing; not at every login of a storm.
    fn sweep(&mut self, now: Instant) {
        if self.sweep_at.is_some_and(|at| at > now) {
            return;
        }
        self.sweep_at = Some(now + SWEEP_EVERY);
        let mut recent = 0_usize;
        self.rules.retain(|_, rule| {
            rule.callers.retain(|_, caller| caller.visits > 0 || !caller.meter.is_whole(now));
            let left = rule.callers.values().filter(|caller| caller.visits == 0).count();
            recent = recent.saturating_add(left);
            !rule.callers.is_empty()
        });
        self.recent = recent;
    }
}

impl Over {
    /// As metrics name it.
    pub fn limit(&self) -> Limit {
        match self {
            Self::Sessions(..) => Limit::Sessions,
            Self::SessionsPerCaller(..) => Limit::SessionsPerCaller,
            Self::Connects(..) => Limit::Connects,
            Self::Callers(_) => Limit::Callers,
            Self::Address(_) | Self::NoAddress(_) => Limit::TokenAddress,
            Self::Tokens(_) => Limit::Tokens,
        }
    }

    /// The rule whose limit it is.
    pub fn rule(&self) -> &RuleName {
        match self {
            Self::Sessions(rule, _)
            | Self::SessionsPerCaller(rule, _)
            | Self::Connects(rule, _)
            | Self::Callers(rule)
            | Self::Address(rule)
            | Self::NoAddress(rule)
            | Self::Tokens(rule) => rule,
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

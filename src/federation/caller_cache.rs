//! Google tokens that callers' tokens have bought, so that a storm of reconnects costs Google nothing.
//!
//! A token is found again only by who brings the same token of the issuer and wants the same of it: the key is the
//! SHA-256 of all of that, and says nothing. It is never renewed: a caller's own token decides when it ends. It lives
//! in memory alone, is overwritten when it goes, and goes when it ends, when somebody else needs the place, when the
//! instance does not take it, and with its cache on a reload, after which the cache takes nothing any more. Of one caller
//! no more than [`crate::identity::MAX_PER_CALLER`] are kept.
//!
//! Single flight: of callers with one key one asks, the others wait. Who asked and left (a client that hung up) has
//! decided nothing: the next one asks.
//!
//! A refusal is remembered too, and answers the same token in the service's place: one that only a new token helps
//! against for as long as the token lives, any other for [`REFUSAL_HOLD`], within which an administrator's mend does not
//! show to those who have been refused. What passes by itself stands for a moment.

use super::{AccessToken, Error, Remedy};
use crate::identity::{CallerId, Shares};
use crate::time::{Clock, Timestamp, later, until};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Tokens that are kept at most.
pub const MAX_CALLER_TOKENS: usize = 10_000;
/// A token with less life than this is not handed out again: a login takes time, and clocks differ.
pub const MARGIN: Duration = Duration::from_secs(60);
/// A failure that may pass by itself stands for this long: those who waited for it share it, the next one asks again.
pub const CALLER_FAILURE_HOLD: Duration = Duration::from_secs(1);
/// A refusal stands for this long.
pub const REFUSAL_HOLD: Duration = Duration::from_secs(60);
/// Of a full cache, or a full share, this part makes room at once, those first that end first: one look at all of it for
/// many logins.
const MADE_ROOM: usize = 16;

/// What is found under it, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// Whose token.
    pub(super) caller: CallerId,
    /// SHA-256 of the token and of what it is to buy.
    pub(super) digest: [u8; 32],
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct CallerCache {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    all: HashMap<Key, Arc<Slot>>,
    shares: Shares<Key>,
    retired: bool,
}

/// What one key has brought, and who is asking for it.
#[derive(Debug, Default)]
struct Slot {
    kept: Mutex<Option<Kept>>,
    /// Held while asking.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Kept {
    outcome: Result<Arc<AccessToken>, Failure>,
    /// From then on it is nobody's answer.
    until: Timestamp,
}

#[derive(Debug)]
struct Failure {
    error: Error,
    /// The same as `until`, by a clock that nobody sets back.
    ends: Instant,
}

/// What is kept: a token, or why there is none.
type Answer = Result<Arc<AccessToken>, Error>;

impl CallerCache {
    /// The token, or the refusal, that is kept under `key`, or what `exchange` brings. A token is kept while both it and
    /// the caller's, which ends at `caller_ends`, have [`MARGIN`] left. May be dropped at any time.
    pub(super) async fn get<Exchange>(
        &self,
        key: Key,
        caller_ends: Timestamp,
        clock: &Clock,
        exchange: impl FnOnce() -> Exchange,
    ) -> Answer
    where
        Exchange: Future<Output = Result<AccessToken, Error>>,
    {
        let Some(slot) = self.slot(key, clock.now()) else {
            // Every place is taken by somebody who is logging in, or nobody comes here any more: nothing is kept.
            return exchange().await.map(Arc::new);
        };
        if let Some(answer) = slot.answer(clock.now()) {
            return answer;
        }
        let _asking = slot.flight.lock().await;
        if let Some(answer) = slot.answer(clock.now()) {
            return answer;
        }
        match exchange().await {
            Ok(token) => Ok(slot.keep(token, caller_ends)),
            Err(error) => {
                slot.remember(error.clone(), caller_ends, clock.now());
                Err(error)
            }
        }
    }

    /// Forgets a token that did not do, unless another one has come in its place.
    pub(super) fn forget(&self, key: &Key, token: &Arc<AccessToken>) {
        let slot = self.slots().all.get(key).cloned();
        if let Some(slot) = slot {
            let mut kept = slot.kept();
            let bought = kept.as_ref().and_then(|kept| kept.outcome.as_ref().ok());
            if bought.is_some_and(|bought| Arc::ptr_eq(bought, token)) {
                *kept = None;
            }
        }
    }

    /// Lets go what has ended. Called now and then, so that no token stays in memory because nobody came.
    pub(super) fn sweep(&self, now: Timestamp) {
        let mut slots = self.slots();
        let over = |slot: &Arc<Slot>| Arc::strong_count(slot) == 1 && slot.answer(now).is_none();
        let ended: Vec<Key> = slots.all.iter().filter(|(_, slot)| over(slot)).map(|(key, _)| *key).collect();
        for key in &ended {
            slots.remove(key);
        }
    }

    /// Lets go everything and takes nothing any more: who is just buying uses what was bought once, and it is gone.
    pub(super) fn retire(&self) {
        *self.slots() = Slots { retired: true, ..Slots::default() };
    }

    /// The key's own place; `None` when all of them, or of its caller's, are taken by callers who are at it right now.
    fn slot(&self, key: Key, now: Timestamp) -> Option<Arc<Slot>> {
        let mut slots = self.slots();
        if let Some(slot) = slots.all.get(&key) {
            return Some(Arc::clone(slot));
        }
        slots.has_room(key.caller, now).then(|| slots.add(key))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots().all.len()
    }
}

impl Slots {
    /// Whether there is a place for one more of this caller's; makes one if need be, a caller's first of their own.
    fn has_room(&mut self, caller: CallerId, now: Timestamp) -> bool {
        if self.shares.is_full(caller) {
            self.make_room(self.shares.of(caller).collect(), now);
        }
        if self.all.len() >= MAX_CALLER_TOKENS {
            self.make_room(self.all.keys().copied().collect(), now);
        }
        !self.retired && !self.shares.is_full(caller) && self.all.len() < MAX_CALLER_TOKENS
    }

    /// Takes out of `keys` what has ended, and if that is too little, refusals before tokens, and of each what ends
    /// first. Nobody's flight is touched.
    fn make_room(&mut self, keys: Vec<Key>, now: Timestamp) {
        let worth = |slot: &Slot| {
            let kept = slot.kept();
            let living = kept.as_ref().filter(|kept| kept.until > now);
            living.map(|kept| (kept.outcome.is_ok(), kept.until))
        };
        let least = keys.len() / MADE_ROOM;
        let slots = keys.into_iter().filter_map(|key| Some((key, self.all.get(&key)?)));
        let idle = slots.filter(|(_, slot)| Arc::strong_count(slot) == 1);
        let mut idle: Vec<_> = idle.map(|(key, slot)| (worth(slot), key)).collect();
        idle.sort_unstable();
        let ended = idle.iter().take_while(|(worth, _)| worth.is_none()).count();
        for (_, key) in idle.iter().take(ended.max(least)) {
            self.remove(key);
        }
    }

    fn add(&mut self, key: Key) -> Arc<Slot> {
        self.shares.add(key.caller, key);
        Arc::clone(self.all.entry(key).or_default())
    }

    fn remove(&mut self, key: &Key) {
        self.shares.remove(key.caller, key);
        self.all.remove(key);
    }
}

/// How long a failure answers for whoever brings the same token for the same; `None`: as long as the token lives.
fn hold(failure: &Error) -> Option<Duration> {
    match failure.remedy() {
        Some(Remedy::NewToken) => None,
        // No word about the token.
        None | Some(Remedy::Later | Remedy::ProviderReach | Remedy::OwnCredential) => Some(CALLER_FAILURE_HOLD),
        Some(
            Remedy::ProviderIssuer
            | Remedy::ProviderAudience
            | Remedy::ProviderCondition
            | Remedy::ProviderMapping
            | Remedy::Pool
            | Remedy::QuotaProject
            | Remedy::Impersonation
            | Remedy::Api
            | Remedy::Account
            | Remedy::Request
            | Remedy::Provider
            | Remedy::SignIn
            | Remedy::Consent
            | Remedy::Assignment
            | Remedy::Blocked
            | Remedy::CallerAccount
            | Remedy::OwnApp
            | Remedy::SecondApi,
        ) => Some(REFUSAL_HOLD),
    }
}

impl Slot {
    fn answer(&self, now: Timestamp) -> Option<Answer> {
        let kept = self.kept();
        let Kept { outcome, .. } = kept.as_ref().filter(|kept| kept.until > now)?;
        match outcome {
            Ok(token) => Some(Ok(Arc::clone(token))),
            Err(failure) => (failure.ends > Instant::now()).then(|| Err(failure.error.clone())),
        }
    }

    fn keep(&self, token: AccessToken, caller_ends: Timestamp) -> Arc<AccessToken> {
        let margin = jiff::SignedDuration::try_from(MARGIN).unwrap_or(jiff::SignedDuration::MAX);
        let ends = token.expires_at.min(caller_ends);
        let until = ends.checked_sub(margin).unwrap_or(Timestamp::MIN);
        let token = Arc::new(token);
        *self.kept() = Some(Kept { outcome: Ok(Arc::clone(&token)), until });
        token
    }

    fn remember(&self, error: Error, caller_ends: Timestamp, now: Timestamp) {
        // A token is taken a little past its end, while its issuer's leeway lasts.
        let hold = hold(&error).unwrap_or_else(|| until(caller_ends, now).max(REFUSAL_HOLD));
        let failure = Failure { error, ends: Instant::now() + hold };
        *self.kept() = Some(Kept { outcome: Err(failure), until: later(now, hold) });
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "caller_cache_tests.rs"]
mod tests;

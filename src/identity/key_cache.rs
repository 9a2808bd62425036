//! One issuer's keys over time: fetched once for everybody, kept while Entra is away, refreshed before they age.
//!
//! Microsoft identity platform, "Signing key rollover": keep keys by id, refresh about hourly in the background,
//! on an unknown id at most every five minutes, keep the last known good set for at most a day.

use super::jwks::{self, KeySet, Lookup};
use super::jws::{Algorithm, PublicKey};
use super::{IssuerConfig, KeyFetchError};
use crate::http::{self, Client};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Keys older than this are refreshed in the background, without making a caller wait.
pub const REFRESH_AFTER: Duration = Duration::from_secs(3600);
/// Keys older than this are not used: Entra must be asked first.
pub const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);
/// Between two refreshes of keys that are there: unknown ids must not make us a hammer. The first fetch does not count,
/// so that a roll right after the start is followed at once.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// While there are no keys at all, a failure stands for this long.
pub const FAILURE_HOLD: Duration = Duration::from_secs(2);

/// What became of a key id.
pub(super) enum Found {
    /// The key.
    Key(Arc<PublicKey>),
    /// The key signs for other issuers only, or with another algorithm.
    Foreign,
    /// The issuer does not publish such a key.
    Unknown,
}

/// The cache. Shared, so that a fetch outlives the caller that caused it.
pub(super) struct KeyCache {
    issuer: Arc<IssuerConfig>,
    http: Client,
    deadline: Duration,
    state: Mutex<State>,
    /// Held while fetching: one fetch at a time.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    failure: Option<(KeyFetchError, Instant)>,
    /// When the last refresh of keys that were there began.
    asked: Option<Instant>,
    /// Fetches that ended.
    fetches: u64,
}

impl State {
    /// Keys that may still be used, and their age.
    fn usable(&self) -> Option<(&Arc<KeySet>, Duration)> {
        let (keys, fetched) = self.keys.as_ref()?;
        let age = fetched.elapsed();
        (age < KEEP_FOR).then_some((keys, age))
    }

    fn held_failure(&self) -> Option<KeyFetchError> {
        let (failure, at) = self.failure.as_ref()?;
        (at.elapsed() < FAILURE_HOLD).then(|| repeated(failure))
    }

    fn may_ask(&self) -> bool {
        self.asked.is_none_or(|asked| asked.elapsed() >= REFRESH_INTERVAL)
    }
}

impl KeyCache {
    pub(super) fn new(issuer: Arc<IssuerConfig>, http: Client, deadline: Duration) -> Arc<Self> {
        Arc::new(Self { issuer, http, deadline, state: Mutex::default(), flight: tokio::sync::Mutex::default() })
    }

    /// A cache that starts with what an earlier one has, where the keys are the same issuer's: a reload while Entra is
    /// away locks nobody out.
    pub(super) fn after(earlier: &Self, issuer: Arc<IssuerConfig>, http: Client, deadline: Duration) -> Arc<Self> {
        let cache = Self::new(issuer, http, deadline);
        if cache.issuer.shares_keys_with(&earlier.issuer) {
            let (mut state, earlier) = (cache.lock(), earlier.lock());
            state.keys.clone_from(&earlier.keys);
            state.asked = earlier.asked;
        }
        cache
    }

    pub(super) fn issuer(&self) -> &Arc<IssuerConfig> {
        &self.issuer
    }

    /// The key of that id; fetches where the rules above say so. May be dropped: a fetch under way goes on.
    pub(super) async fn find(self: &Arc<Self>, kid: &str, algorithm: Algorithm) -> Result<Found, KeyFetchError> {
        let seen = self.lock().fetches;
        let Some((keys, age, may_ask)) = self.current() else {
            self.first_keys(seen).await?;
            return Ok(self.look(kid, algorithm));
        };
        match keys.find(kid, algorithm) {
            Lookup::Unknown if may_ask => {
                self.refresh(seen).await?;
                Ok(self.look(kid, algorithm))
            }
            Lookup::Unknown => {
                // A refresh that is under way may bring it: in a roll many callers come with the new key at once.
                drop(self.flight.lock().await);
                match self.look(kid, algorithm) {
                    Found::Unknown => self.unknown(),
                    found => Ok(found),
                }
            }
            known => {
                if age >= REFRESH_AFTER && may_ask {
                    drop(self.start_refresh(seen));
                }
                Ok(found(known))
            }
        }
    }

    /// Fetches the keys now, unless somebody just did.
    pub(super) async fn warm_up(self: &Arc<Self>) -> Result<(), KeyFetchError> {
        let seen = self.lock().fetches;
        if self.current().is_some() { Ok(()) } else { self.first_keys(seen).await }
    }

    /// Fetches in the background, where the keys are old or there are none and the issuer may be asked.
    pub(super) fn refresh_ahead(self: &Arc<Self>) {
        let seen = self.lock().fetches;
        let due = match self.current() {
            Some((_, age, may_ask)) => age >= REFRESH_AFTER && may_ask,
            None => self.lock().held_failure().is_none(),
        };
        if due {
            drop(self.start_refresh(seen));
        }
    }

    async fn first_keys(self: &Arc<Self>, seen: u64) -> Result<(), KeyFetchError> {
        if let Some(failure) = self.lock().held_failure() {
            return Err(failure);
        }
        self.refresh(seen).await
    }

    /// Usable keys, their age, and whether Entra may be asked for newer ones.
    fn current(&self) -> Option<(Arc<KeySet>, Duration, bool)> {
        let state = self.lock();
        let (keys, age) = state.usable()?;
        Some((Arc::clone(keys), age, state.may_ask()))
    }

    fn look(&self, kid: &str, algorithm: Algorithm) -> Found {
        self.current().map_or(Found::Unknown, |(keys, ..)| found(keys.find(kid, algorithm)))
    }

    /// An id that is not in the keys we have, and Entra cannot be asked again yet: if it could not answer
    /// when it was last asked, nobody knows what it publishes now.
    fn unknown(&self) -> Result<Found, KeyFetchError> {
        self.lock().failure.as_ref().map_or(Ok(Found::Unknown), |(failure, _)| Err(repeated(failure)))
    }

    async fn refresh(self: &Arc<Self>, seen: u64) -> Result<(), KeyFetchError> {
        match self.start_refresh(seen).await {
            Ok(outcome) => outcome,
            Err(stopped) => Err(http::Error::Broken { host: self.issuer.url(), source: stopped.into() }.into()),
        }
    }

    /// Fetches in a task of its own, so that a client who hangs up cannot keep the keys from arriving.
    /// `seen` is the number of fetches the caller knew of; whoever waited for a newer one shares its outcome.
    fn start_refresh(self: &Arc<Self>, seen: u64) -> tokio::task::JoinHandle<Result<(), KeyFetchError>> {
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            let _flight = cache.flight.lock().await;
            {
                let mut state = cache.lock();
                if state.fetches != seen {
                    return state.failure.as_ref().map_or(Ok(()), |(failure, _)| Err(repeated(failure)));
                }
                if state.usable().is_some() {
                    state.asked = Some(Instant::now());
                }
            }
            let outcome = jwks::fetch(&cache.issuer, &cache.http, cache.deadline).await;
            cache.settle(outcome)
        })
    }

    fn settle(&self, outcome: Result<KeySet, KeyFetchError>) -> Result<(), KeyFetchError> {
        let mut state = self.lock();
        state.fetches += 1;
        match outcome {
            Ok(keys) => {
                state.keys = Some((Arc::new(keys), Instant::now()));
                state.failure = None;
                Ok(())
            }
            Err(failure) => {
                tracing::warn!(issuer = %self.issuer.name, reason = http::chain(&failure), "signing keys not refreshed");
                state.failure = Some((repeated(&failure), Instant::now()));
                Err(failure)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole, never left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn found(lookup: Lookup) -> Found {
    match lookup {
        Lookup::Found(key) => Found::Key(key),
        Lookup::Foreign => Found::Foreign,
        Lookup::Unknown => Found::Unknown,
    }
}

/// The same failure for another caller; the innermost cause becomes text.
fn repeated(failure: &KeyFetchError) -> KeyFetchError {
    use http::Error::{Broken, Deadline, SetUp, TooLarge, Unreachable};
    KeyFetchError::Http(match failure {
        KeyFetchError::Malformed { url, status, expected } => {
            return KeyFetchError::Malformed { url: url.clone(), status: *status, expected };
        }
        KeyFetchError::Http(Unreachable { host, source }) => {
            Unreachable { host: host.clone(), source: http::chain(source.as_ref()).into() }
        }
        KeyFetchError::Http(Broken { host, source }) => {
            Broken { host: host.clone(), source: http::chain(source.as_ref()).into() }
        }
        KeyFetchError::Http(Deadline { host, deadline }) => Deadline { host: host.clone(), deadline: *deadline },
        KeyFetchError::Http(TooLarge { host }) => TooLarge { host: host.clone() },
        KeyFetchError::Http(SetUp(reason)) => SetUp(reason.clone()),
    })
}

#[cfg(test)]
#[path = "key_cache_tests.rs"]
mod tests;

//! Google tokens that callers' tokens have bought, so that a storm of reconnects costs Google nothing.
//!
//! A token is found again only by who brings the same token of the issuer and wants the same of it: the key is the
//! SHA-256 of all of that, and says nothing. It is never renewed: a caller's own token decides when it ends. It lives
//! in memory alone, is overwritten when it goes, and goes when it ends, when somebody else needs the place, when the
//! instance does not take it, and with its cache on a reload.
//!
//! Single flight: of callers with one key one asks, the others wait. Who asked and left (a client that hung up) has
//! decided nothing: the next one asks.

use super::{AccessToken, Error};
use crate::time::{Clock, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Tokens that are kept at most.
pub const MAX_CALLER_TOKENS: usize = 10_000;
/// A token with less life than this is not handed out again: a login takes time, and clocks differ.
pub const MARGIN: Duration = Duration::from_secs(60);
/// A failure stands for this long: those who waited for it share it, the next one asks again.
pub const CALLER_FAILURE_HOLD: Duration = Duration::from_secs(1);
/// Of a full cache this share makes room at once, those first that end first: one look at all of it for many logins.
const MADE_ROOM: usize = MAX_CALLER_TOKENS / 16;

/// SHA-256 of a caller's token and of what it is to buy.
pub(super) type Key = [u8; 32];

/// The cache.
#[derive(Debug, Default)]
pub(super) struct CallerCache {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

/// One key's token, and who is getting it.
#[derive(Debug, Default)]
struct Slot {
    kept: Mutex<Option<Kept>>,
    /// Held while asking; the last failure and when it was.
    flight: tokio::sync::Mutex<Option<(Error, Instant)>>,
}

#[derive(Debug)]
struct Kept {
    token: Arc<AccessToken>,
    /// From then on it is not handed out.
    until: Timestamp,
}

impl CallerCache {
    /// The token that is kept under `key`, or what `exchange` brings. What it brings is kept while both it and the
    /// caller's token, which ends at `caller_ends`, have [`MARGIN`] left. May be dropped at any time.
    pub(super) async fn get<Exchange>(
        &self,
        key: Key,
        caller_ends: Timestamp,
        clock: &Clock,
        exchange: impl FnOnce() -> Exchange,
    ) -> Result<Arc<AccessToken>, Error>
    where
        Exchange: Future<Output = Result<AccessToken, Error>>,
    {
        let Some(slot) = self.slot(key, clock.now()) else {
            // Every place is taken by somebody who is logging in: nothing is kept of this one.
            return exchange().await.map(Arc::new);
        };
        if let Some(token) = slot.living(clock.now()) {
            return Ok(token);
        }
        let mut failed = slot.flight.lock().await;
        if let Some(token) = slot.living(clock.now()) {
            return Ok(token);
        }
        let held = failed.as_ref().filter(|(_, at)| at.elapsed() < CALLER_FAILURE_HOLD);
        if let Some((failure, _)) = held {
            return Err(failure.clone());
        }
        *failed = None;
        match exchange().await {
            Ok(token) => Ok(slot.keep(token, caller_ends)),
            Err(failure) => {
                *failed = Some((failure.clone(), Instant::now()));
                Err(failure)
            }
        }
    }

    /// Forgets a token that did not do, unless another one has come in its place.
    pub(super) fn forget(&self, key: &Key, token: &Arc<AccessToken>) {
        let slot = self.slots().get(key).cloned();
        if let Some(slot) = slot {
            let mut kept = slot.kept();
            if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(&kept.token, token)) {
                *kept = None;
            }
        }
    }

    /// Lets go what has ended. Called now and then, so that no token stays in memory because nobody came.
    pub(super) fn sweep(&self, now: Timestamp) {
        self.slots().retain(|_, slot| Arc::strong_count(slot) > 1 || slot.living(now).is_some());
    }

    /// The key's own place; `None` when all are taken by callers who are at it right now.
    fn slot(&self, key: Key, now: Timestamp) -> Option<Arc<Slot>> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(&key) {
            return Some(Arc::clone(slot));
        }
        if slots.len() >= MAX_CALLER_TOKENS {
            make_room(&mut slots, now);
        }
        if slots.len() >= MAX_CALLER_TOKENS {
            return None;
        }
        Some(Arc::clone(slots.entry(key).or_default()))
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots().len()
    }
}

/// Takes out what has ended, and if that is too little, what ends first. Nobody's flight is touched.
fn make_room(slots: &mut HashMap<Key, Arc<Slot>>, now: Timestamp) {
    let mut idle: Vec<(Option<Timestamp>, Key)> = slots
        .iter()
        .filter(|(_, slot)| Arc::strong_count(slot) == 1)
        .map(|(key, slot)| (slot.kept().as_ref().map(|kept| kept.until), *key))
        .collect();
    // Without a token first, then by their end.
    idle.sort_unstable();
    let ended = idle.iter().take_while(|(until, _)| until.is_none_or(|until| until <= now)).count();
    for (_, key) in idle.iter().take(ended.max(MADE_ROOM)) {
        slots.remove(key);
    }
}

impl Slot {
    fn living(&self, now: Timestamp) -> Option<Arc<AccessToken>> {
        self.kept().as_ref().filter(|kept| kept.until > now).map(|kept| Arc::clone(&kept.token))
    }

    fn keep(&self, token: AccessToken, caller_ends: Timestamp) -> Arc<AccessToken> {
        let margin = jiff::SignedDuration::try_from(MARGIN).unwrap_or(jiff::SignedDuration::MAX);
        let ends = token.expires_at.min(caller_ends);
        let until = ends.checked_sub(margin).unwrap_or(Timestamp::MIN);
        let token = Arc::new(token);
        *self.kept() = Some(Kept { token: Arc::clone(&token), until });
        token
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Hop;
    use super::*;
    use crate::secret::Secret;
    use crate::time::later;
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

    const HOUR: Duration = Duration::from_secs(3600);

    struct Bench {
        cache: CallerCache,
        clock: Clock,
        offset: Arc<AtomicI64>,
        exchanges: AtomicU32,
    }

    fn key(number: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    impl Bench {
        fn new() -> Self {
            let offset = Arc::new(AtomicI64::new(0));
            let clock = Clock::shifted(Arc::clone(&offset));
            Self { cache: CallerCache::default(), clock, offset, exchanges: AtomicU32::new(0) }
        }

        /// The number of the exchange whose token we got; both tokens live as long as said.
        async fn get(&self, number: usize, caller: Duration, google: Duration) -> Result<String, Error> {
            let exchange = || async {
                let number = self.exchanges.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::time::sleep(Duration::from_secs(2)).await;
                let expires_at = later(self.clock.now(), google);
                Ok(AccessToken { token: Secret::new(number.to_string()), expires_at })
            };
            let ends = later(self.clock.now(), caller);
            let token = self.cache.get(key(number), ends, &self.clock, exchange).await?;
            Ok(token.token.expose().clone())
        }

        async fn fail(&self, number: usize) -> Error {
            let exchange = || async {
                self.exchanges.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(2)).await;
                Err(Error::Unavailable { hop: Hop::Sts, reason: "status 503".into() })
            };
            self.cache.get(key(number), later(self.clock.now(), HOUR), &self.clock, exchange).await.unwrap_err()
        }

        fn passes(&self, seconds: i64) {
            self.offset.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_serves_until_the_first_of_both_ends_less_the_margin() {
        for (caller, google) in [(HOUR, HOUR * 2), (HOUR * 2, HOUR)] {
            let bench = Bench::new();
            assert_eq!(bench.get(1, caller, google).await.unwrap(), "1");
            bench.passes(3600 - 60 - 5);
            assert_eq!(bench.get(1, caller, google).await.unwrap(), "1", "the same, and not a renewed one");
            bench.passes(6);
            assert_eq!(bench.get(1, caller, google).await.unwrap(), "2");
        }
        let bench = Bench::new();
        let short = MARGIN;
        assert_eq!(bench.get(1, short, HOUR).await.unwrap(), "1");
        assert_eq!(bench.get(1, short, HOUR).await.unwrap(), "2", "nothing with less than the margin is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn one_asks_and_the_others_wait_each_key_for_itself() {
        let bench = Bench::new();
        let get = |number| bench.get(number, HOUR, HOUR);
        let (a, b, c, other) = tokio::join!(get(1), get(1), get(1), get(2));
        let (a, b, c, other) = (a.unwrap(), b.unwrap(), c.unwrap(), other.unwrap());
        assert!(a == b && b == c && c != other, "{a} {b} {c} {other}");
        assert_eq!(bench.exchanges.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asked_and_left_has_decided_nothing() {
        let bench = Bench::new();
        let leaves = tokio::time::timeout(Duration::from_secs(1), bench.get(1, HOUR, HOUR));
        let (left, next) = tokio::join!(leaves, async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            bench.get(1, HOUR, HOUR).await
        });
        assert!(left.is_err());
        assert_eq!(next.unwrap(), "2");
        assert_eq!(bench.get(1, HOUR, HOUR).await.unwrap(), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_for_a_moment_and_then_asked_again() {
        let bench = Bench::new();
        tokio::join!(bench.fail(1), bench.fail(1), bench.fail(1));
        assert_eq!(bench.exchanges.load(Ordering::Relaxed), 1);
        assert!(bench.get(1, HOUR, HOUR).await.is_err());
        assert_eq!(bench.get(2, HOUR, HOUR).await.unwrap(), "2", "nobody else's");
        tokio::time::advance(CALLER_FAILURE_HOLD).await;
        assert_eq!(bench.get(1, HOUR, HOUR).await.unwrap(), "3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_did_not_do_is_forgotten_and_its_successor_is_not() {
        let bench = Bench::new();
        bench.get(1, HOUR, HOUR).await.unwrap();
        let now = bench.clock.now();
        let first = bench.cache.slot(key(1), now).unwrap().living(now).unwrap();
        bench.cache.forget(&key(1), &first);
        assert_eq!(bench.get(1, HOUR, HOUR).await.unwrap(), "2");
        bench.cache.forget(&key(1), &first);
        bench.cache.forget(&key(7), &first);
        assert_eq!(bench.get(1, HOUR, HOUR).await.unwrap(), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn the_cache_stays_within_its_bound_and_lets_go_what_has_ended() {
        let bench = Bench::new();
        // The last ones end last: they are the ones that stay.
        for number in 0..MAX_CALLER_TOKENS * 2 {
            let life = HOUR + Duration::from_secs(number as u64);
            bench.get(number, life, HOUR * 24).await.unwrap();
            assert!(bench.cache.len() <= MAX_CALLER_TOKENS, "{number}");
        }
        let asked = bench.exchanges.load(Ordering::Relaxed);
        bench.get(MAX_CALLER_TOKENS * 2 - 1, HOUR, HOUR).await.unwrap();
        assert_eq!(bench.exchanges.load(Ordering::Relaxed), asked, "the latest is still there");
        bench.get(0, HOUR, HOUR).await.unwrap();
        assert_eq!(bench.exchanges.load(Ordering::Relaxed), asked + 1, "the earliest is not");
        bench.passes(24 * 3600);
        bench.cache.sweep(bench.clock.now());
        assert_eq!(bench.cache.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn where_everybody_is_logging_in_nothing_more_is_kept() {
        let bench = Bench::new();
        let now = bench.clock.now();
        let held: Vec<_> = (0..MAX_CALLER_TOKENS).map(|number| bench.cache.slot(key(number), now).unwrap()).collect();
        assert_eq!(bench.get(MAX_CALLER_TOKENS, HOUR, HOUR).await.unwrap(), "1");
        assert_eq!(bench.get(MAX_CALLER_TOKENS, HOUR, HOUR).await.unwrap(), "2");
        assert_eq!(bench.cache.len(), MAX_CALLER_TOKENS);
        bench.cache.sweep(now);
        assert_eq!(bench.cache.len(), MAX_CALLER_TOKENS, "a flight is not swept");
        drop(held);
        bench.cache.sweep(now);
        assert_eq!(bench.cache.len(), 0);
    }
}

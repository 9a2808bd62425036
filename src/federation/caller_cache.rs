//! Google tokens that callers' tokens have bought, so that a storm of reconnects costs Google nothing.
//!
//! A token is found again only by who brings the same token of the issuer and wants the same of it: the key is the
//! SHA-256 of all of that, and says nothing. It is never renewed: a caller's own token decides when it ends. It lives
//! in memory alone, is overwritten when it goes, and goes when it ends, when somebody else needs the place, when the
//! instance does not take it, and with its cache on a reload.
//!
//! Single flight: of callers with one key one asks, the others wait. Who asked and left (a client that hung up) has
//! decided nothing: the next one asks.
//!
//! A refusal is remembered too, and answers the same token in the service's place: one that only a new token helps
//! against for as long as the token lives, any other for [`REFUSAL_HOLD`], within which an administrator's mend does not
//! show to those who have been refused. What passes by itself stands for a moment.

use super::{AccessToken, Error, Remedy};
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
/// Of a full cache this share makes room at once, those first that end first: one look at all of it for many logins.
const MADE_ROOM: usize = MAX_CALLER_TOKENS / 16;

/// SHA-256 of a caller's token and of what it is to buy.
pub(super) type Key = [u8; 32];

/// The cache.
#[derive(Debug, Default)]
pub(super) struct CallerCache {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
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
            // Every place is taken by somebody who is logging in: nothing is kept of this one.
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
        let slot = self.slots().get(key).cloned();
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
        self.slots().retain(|_, slot| Arc::strong_count(slot) > 1 || slot.answer(now).is_some());
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

/// Takes out what has ended, and if that is too little, refusals before tokens, and of each what ends first. Nobody's
/// flight is touched.
fn make_room(slots: &mut HashMap<Key, Arc<Slot>>, now: Timestamp) {
    let worth = |slot: &Slot| {
        let kept = slot.kept();
        let living = kept.as_ref().filter(|kept| kept.until > now);
        living.map(|kept| (kept.outcome.is_ok(), kept.until))
    };
    let idle = slots.iter().filter(|(_, slot)| Arc::strong_count(slot) == 1);
    let mut idle: Vec<_> = idle.map(|(key, slot)| (worth(slot), *key)).collect();
    idle.sort_unstable();
    let ended = idle.iter().take_while(|(worth, _)| worth.is_none()).count();
    for (_, key) in idle.iter().take(ended.max(MADE_ROOM)) {
        slots.remove(key);
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
            self.fail_with(number, Error::Unavailable { hop: Hop::Sts, reason: "status 503".into() }, HOUR).await
        }

        async fn fail_with(&self, number: usize, error: Error, caller: Duration) -> Error {
            let exchange = || async {
                self.exchanges.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(2)).await;
                Err(error)
            };
            self.cache.get(key(number), later(self.clock.now(), caller), &self.clock, exchange).await.unwrap_err()
        }

        fn passes(&self, seconds: i64) {
            self.offset.fetch_add(seconds, Ordering::Relaxed);
        }

        /// By both clocks.
        async fn lasts(&self, seconds: u32) {
            self.passes(seconds.into());
            tokio::time::advance(Duration::from_secs(seconds.into())).await;
        }

        /// Whether the same token is answered from memory.
        async fn is_remembered(&self, number: usize) -> bool {
            let asked = self.exchanges.load(Ordering::Relaxed);
            let _ = self.fail_with(number, Error::Stale, Duration::ZERO).await;
            self.exchanges.load(Ordering::Relaxed) == asked
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

    fn refused(hop: Hop, code: &str, description: &str) -> Error {
        Error::Refused { hop, code: code.to_owned(), description: description.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stale_token_is_never_sent_again() {
        let expired_assertion = refused(Hop::OnBehalfOf, "invalid_grant AADSTS500133", "");
        for error in [Error::Stale, expired_assertion] {
            let bench = Bench::new();
            bench.fail_with(1, error.clone(), HOUR).await;
            for _ in 0..59 {
                bench.lasts(60).await;
                bench.cache.sweep(bench.clock.now());
                let again = bench.get(1, HOUR, HOUR).await.unwrap_err();
                assert_eq!(again.to_string(), error.to_string());
            }
            assert_eq!(bench.get(2, HOUR, HOUR).await.unwrap(), "2", "a new token is asked for");
            bench.lasts(60).await;
            assert_eq!(bench.get(1, HOUR, HOUR).await.unwrap(), "3", "it has ended, and no verifier lets it come here");
        }
        // Within its issuer's leeway a token comes though it has ended.
        let bench = Bench::new();
        bench.fail_with(1, Error::Stale, Duration::ZERO).await;
        bench.lasts(59).await;
        assert!(bench.get(1, Duration::ZERO, HOUR).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_stands_for_a_minute_and_what_passes_by_itself_for_a_moment() {
        for (error, minute) in [
            (refused(Hop::Sts, "unauthorized_client", "rejected by the attribute condition"), true),
            (refused(Hop::Sts, "invalid_grant", "The audience in ID Token [x] does not match"), true),
            (refused(Hop::Sts, "something_new", ""), true),
            (refused(Hop::IamCredentials, "PERMISSION_DENIED", ""), true),
            (refused(Hop::OnBehalfOf, "interaction_required AADSTS50076", ""), true),
            (refused(Hop::OnBehalfOf, "invalid_grant AADSTS65001", ""), true),
            (refused(Hop::Sts, "invalid_grant", "Error connecting to the given credential's issuer."), false),
            (refused(Hop::OnBehalfOf, "temporarily_unavailable AADSTS90033", ""), false),
            (refused(Hop::OnBehalfOf, "invalid_client AADSTS7000222", ""), false),
            (refused(Hop::OwnIdentity, "invalid_request", ""), false),
            (Error::Unavailable { hop: Hop::Sts, reason: String::new() }, false),
            (Error::Broken { hop: Hop::IamCredentials, reason: String::new() }, false),
            (Error::Throttled { hop: Hop::Sts, left: None }, false),
            (Error::Busy { hop: Hop::Sts }, false),
        ] {
            let bench = Bench::new();
            let shown = error.to_string();
            bench.fail_with(1, error, HOUR).await;
            assert!(bench.is_remembered(1).await, "{shown}");
            bench.lasts(1).await;
            assert_eq!(bench.is_remembered(1).await, minute, "{shown}");
            if minute {
                bench.lasts(58).await;
                assert!(bench.is_remembered(1).await, "{shown}");
                bench.lasts(1).await;
                assert!(!bench.is_remembered(1).await, "{shown}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_make_room_before_tokens_do() {
        let bench = Bench::new();
        for number in 0..MAX_CALLER_TOKENS / 2 {
            bench.get(number, HOUR, HOUR).await.unwrap();
        }
        for number in MAX_CALLER_TOKENS / 2..MAX_CALLER_TOKENS * 3 / 2 {
            bench.fail_with(number, Error::Stale, HOUR * 24).await;
            assert!(bench.cache.len() <= MAX_CALLER_TOKENS, "{number}");
        }
        let asked = bench.exchanges.load(Ordering::Relaxed);
        for number in 0..MAX_CALLER_TOKENS / 2 {
            bench.get(number, HOUR, HOUR).await.unwrap();
        }
        assert_eq!(bench.exchanges.load(Ordering::Relaxed), asked, "no token had to go for a refusal");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_did_not_do_is_forgotten_and_its_successor_is_not() {
        let bench = Bench::new();
        bench.get(1, HOUR, HOUR).await.unwrap();
        let now = bench.clock.now();
        let first = bench.cache.slot(key(1), now).unwrap().answer(now).unwrap().unwrap();
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

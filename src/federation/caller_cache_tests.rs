//! What is kept, for how long, of whom, and what is asked again.

use super::super::Hop;
use super::*;
use crate::identity::MAX_PER_CALLER;
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

/// Each another caller's.
fn key(number: usize) -> Key {
    one_of(number, number)
}

fn one_of(caller: usize, number: usize) -> Key {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    Key { caller: CallerId::number(caller), digest }
}

impl Bench {
    fn new() -> Self {
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Clock::shifted(Arc::clone(&offset));
        Self { cache: CallerCache::default(), clock, offset, exchanges: AtomicU32::new(0) }
    }

    /// The number of the exchange whose token we got; both tokens live as long as said.
    async fn get(&self, number: usize, caller: Duration, google: Duration) -> Result<String, Error> {
        self.buy(key(number), caller, google).await
    }

    async fn buy(&self, key: Key, caller: Duration, google: Duration) -> Result<String, Error> {
        let exchange = || async {
            let number = self.exchanges.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let expires_at = later(self.clock.now(), google);
            Ok(AccessToken { token: Secret::new(number.to_string()), expires_at })
        };
        let ends = later(self.clock.now(), caller);
        let token = self.cache.get(key, ends, &self.clock, exchange).await?;
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

#[tokio::test(start_paused = true)]
async fn one_callers_many_tokens_push_out_no_others() {
    let bench = Bench::new();
    // The others' end first: they would be the first to go.
    for number in 0..100 {
        bench.get(number, HOUR, HOUR).await.unwrap();
    }
    for number in 100..100 + MAX_CALLER_TOKENS {
        bench.buy(one_of(7, number), HOUR * 2, HOUR * 2).await.unwrap();
        assert!(bench.cache.len() <= 100 + MAX_PER_CALLER, "{number}");
    }
    let asked = bench.exchanges.load(Ordering::Relaxed);
    for number in (0..100).filter(|number| *number != 7) {
        bench.get(number, HOUR, HOUR).await.unwrap();
    }
    bench.buy(one_of(7, 99 + MAX_CALLER_TOKENS), HOUR, HOUR).await.unwrap();
    assert_eq!(bench.exchanges.load(Ordering::Relaxed), asked, "the others' are there, and the caller's own latest");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_has_served_takes_nothing_back() {
    let bench = Bench::new();
    bench.get(1, HOUR, HOUR).await.unwrap();
    // Two are just buying the second, and a third comes late.
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.cache.retire();
        assert_eq!(bench.cache.len(), 0);
        (bench.get(3, HOUR, HOUR).await, bench.get(3, HOUR, HOUR).await, bench.get(1, HOUR, HOUR).await)
    };
    let (one, two, late) = tokio::join!(bench.get(2, HOUR, HOUR), bench.get(2, HOUR, HOUR), late);
    assert_eq!(one.unwrap(), two.unwrap(), "who waited for one answer has it");
    let (first, again, known) = late;
    assert!(first.unwrap() != again.unwrap() && known.unwrap() != "1", "each is bought anew");
    assert_eq!(bench.cache.len(), 0);
}

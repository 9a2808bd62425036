//! One token for everybody: renewed before its end, by one caller at a time.

use super::{AccessToken, Error};
use crate::time::{Clock, until};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A token with less life than this is renewed.
pub const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// While it cannot be renewed, a token with at least this much life still serves.
pub const LEAST_LIFE: Duration = Duration::from_secs(30);
/// A failure stands for this long: those who waited for it share it, the next one asks again.
pub const FAILURE_HOLD: Duration = Duration::from_secs(1);

/// The cache.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    current: Mutex<Option<Arc<AccessToken>>>,
    /// Held while renewing; the last failure and when it was.
    flight: tokio::sync::Mutex<Option<(Error, Instant)>>,
}

impl TokenCache {
    /// The current token, or what `renew` brings. May be dropped: then the next caller renews.
    pub(super) async fn get<Renewal>(
        &self,
        clock: &Clock,
        renew: impl FnOnce() -> Renewal,
    ) -> Result<Arc<AccessToken>, Error>
    where
        Renewal: Future<Output = Result<AccessToken, Error>>,
    {
        if let Some(token) = self.with_life(clock, RENEW_BEFORE) {
            return Ok(token);
        }
        let mut failed = match self.flight.try_lock() {
            Ok(flight) => flight,
            // Somebody is at it already; nobody waits for that while the old token serves.
            Err(_) => match self.with_life(clock, LEAST_LIFE) {
                Some(token) => return Ok(token),
                None => self.flight.lock().await,
            },
        };
        if let Some(token) = self.with_life(clock, RENEW_BEFORE) {
            return Ok(token);
        }
        let held = failed.as_ref().filter(|(_, at)| at.elapsed() < FAILURE_HOLD).map(|(failure, _)| failure.clone());
        if let Some(failure) = held {
            return self.with_life(clock, LEAST_LIFE).ok_or(failure);
        }
        match renew().await {
            Ok(token) => {
                *failed = None;
                Ok(self.keep(token))
            }
            Err(failure) => {
                tracing::warn!(%failure, "the proxy's own token was not renewed");
                *failed = Some((failure.clone(), Instant::now()));
                self.with_life(clock, LEAST_LIFE).ok_or(failure)
            }
        }
    }

    fn with_life(&self, clock: &Clock, life: Duration) -> Option<Arc<AccessToken>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let token = current.as_ref()?;
        (until(token.expires_at, clock.now()) > life).then(|| Arc::clone(token))
    }

    fn keep(&self, token: AccessToken) -> Arc<AccessToken> {
        let token = Arc::new(token);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&token));
        token
    }
}

#[cfg(test)]
mod tests {
    use super::super::Hop;
    use super::*;
    use crate::secret::Secret;
    use crate::time::later;
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

    struct Bench {
        cache: TokenCache,
        clock: Clock,
        offset: Arc<AtomicI64>,
        renewals: AtomicU32,
    }

    impl Bench {
        fn new() -> Self {
            let offset = Arc::new(AtomicI64::new(0));
            Self {
                cache: TokenCache::default(),
                clock: Clock::shifted(Arc::clone(&offset)),
                offset,
                renewals: AtomicU32::new(0),
            }
        }

        /// The number of the renewal that made the token we got; each token lives an hour.
        async fn get(&self) -> Result<String, Error> {
            let renew = || async {
                let number = self.renewals.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::time::sleep(Duration::from_secs(2)).await;
                let expires_at = later(self.clock.now(), Duration::from_secs(3600));
                Ok(AccessToken { token: Secret::new(number.to_string()), expires_at })
            };
            self.cache.get(&self.clock, renew).await.map(|token| token.token.expose().clone())
        }

        async fn fail(&self) -> Result<String, Error> {
            let renew = || async {
                self.renewals.fetch_add(1, Ordering::Relaxed);
                Err(Error::Unavailable { hop: Hop::Sts, reason: "status 503".into() })
            };
            self.cache.get(&self.clock, renew).await.map(|token| token.token.expose().clone())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_kept_until_five_minutes_before_its_end() {
        let bench = Bench::new();
        assert_eq!(bench.get().await.unwrap(), "1");
        bench.offset.store(3290, Ordering::Relaxed);
        assert_eq!(bench.get().await.unwrap(), "1");
        bench.offset.store(3301, Ordering::Relaxed);
        assert_eq!(bench.get().await.unwrap(), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn one_renews_and_the_others_wait_or_take_the_old_token() {
        let bench = Bench::new();
        let (a, b, c) = tokio::join!(bench.get(), bench.get(), bench.get());
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), ("1".into(), "1".into(), "1".into()));
        bench.offset.store(3400, Ordering::Relaxed);
        let (a, b) = tokio::join!(bench.get(), bench.get());
        assert_eq!((a.unwrap(), b.unwrap()), ("2".into(), "1".into()));
        assert_eq!(bench.renewals.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_shared_for_a_moment_and_then_asked_again() {
        let bench = Bench::new();
        assert!(bench.fail().await.is_err() && bench.get().await.is_err());
        assert_eq!(bench.renewals.load(Ordering::Relaxed), 1);
        tokio::time::advance(FAILURE_HOLD).await;
        assert_eq!(bench.get().await.unwrap(), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_leaves_the_old_token_until_it_is_nearly_over() {
        let bench = Bench::new();
        bench.get().await.unwrap();
        bench.offset.store(3400, Ordering::Relaxed);
        assert_eq!(bench.fail().await.unwrap(), "1");
        bench.offset.store(3575, Ordering::Relaxed);
        assert!(bench.fail().await.is_err());
    }
}

//! One service, and how hard it is leaned on: so many calls at a time, so many callers who wait, and silence while it
//! has asked for silence.
//!
//! A service that is overrun answers 429; asking again at once makes it worse, and callers who pile up behind it take
//! the proxy down with it. So a 429 (RFC 6585 §4), or a 503 with `Retry-After` (RFC 9110 §10.2.3), lets everybody rest:
//! for as long as it says, else longer each time. Who could not be served within their deadline is told at once.
//!
//! Invariant: what waits and what is under way is bounded, whatever the service does.

use super::retry::{self, ATTEMPTS, LEAST_TIME};
use super::{Error, Response};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};

/// Calls of one service that are under way at most.
pub const MAX_CALLS: usize = 64;
/// Callers who wait for one service at most; a further one is refused.
pub const MAX_WAITING: usize = 256;
/// The first rest after a 429 that names none; each further one in a row is twice as long …
pub const FIRST_REST: Duration = Duration::from_millis(500);
/// … up to this. A `Retry-After` that asks for more is cut to it, so that one answer cannot shut a service off.
pub const MAX_REST: Duration = Duration::from_secs(60);

/// After what a service may be asked again; always after 429, and where it could not be reached or broke off (Google's
/// client libraries for Go: `ECONNREFUSED`, `ECONNRESET`, an unexpected end).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// After any 5xx.
    ServerErrors,
    /// Of the 5xx after 503 alone (AIP-194: `UNAVAILABLE`).
    Unavailable,
}

impl Again {
    fn follows(self, outcome: &Result<Response, Error>) -> bool {
        let passes = match (self, outcome) {
            (Self::Unavailable, Ok(response)) => matches!(response.status, 429 | 503),
            _ => true,
        };
        passes && retry::is_transient(outcome)
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Turned {
    /// Too many callers wait for the service already, or none of its calls ended in time.
    #[error("too many calls wait for {0}")]
    Busy(&'static str),
    /// The service has asked not to be asked for longer than this call may take.
    #[error("{service} takes no calls for {left:?}")]
    Resting {
        /// Its name.
        service: &'static str,
        /// How long still.
        left: Duration,
    },
    /// The call was made.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// A service. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    again: Again,
    calls: Semaphore,
    waiting: AtomicUsize,
    rest: Mutex<Rest>,
}

/// Until when nobody asks, and how many rests in a row there were.
#[derive(Debug, Default)]
struct Rest {
    until: Option<Instant>,
    row: u32,
}

/// One place in the queue; given back on drop.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    /// `name` is said in errors.
    pub fn new(name: &'static str, again: Again) -> Self {
        let calls = Semaphore::new(MAX_CALLS);
        Self(Arc::new(Inner { name, again, calls, waiting: AtomicUsize::new(0), rest: Mutex::default() }))
    }

    /// Makes `call`, again after what may pass, three times at most, all within `deadline`; waits its turn.
    /// May be dropped at any time.
    pub async fn call<F, Call>(&self, deadline: Duration, mut call: F) -> Result<Response, Turned>
    where
        F: FnMut(Duration) -> Call,
        Call: Future<Output = Result<Response, Error>>,
    {
        let end = Instant::now() + deadline;
        let mut attempt = 1;
        loop {
            let turn = self.turn(end).await?;
            let outcome = call(end.saturating_duration_since(Instant::now())).await;
            drop(turn);
            let rests = self.heard(&outcome);
            if attempt == ATTEMPTS || !self.0.again.follows(&outcome) {
                return Ok(retry::name_deadline(outcome, deadline)?);
            }
            if !rests {
                let pause = retry::pause(attempt);
                if Instant::now() + pause + LEAST_TIME > end {
                    return Ok(retry::name_deadline(outcome, deadline)?);
                }
                sleep(pause).await;
            }
            attempt += 1;
        }
    }

    /// Waits until the service may be asked and has room.
    async fn turn(&self, end: Instant) -> Result<SemaphorePermit<'_>, Turned> {
        let Inner { name, calls, .. } = &*self.0;
        if self.rest_left().is_none()
            && let Ok(turn) = calls.try_acquire()
        {
            return Ok(turn);
        }
        let _waiting = self.wait()?;
        loop {
            if let Some(left) = self.rest_left() {
                let left = retry::spread(left);
                if Instant::now() + left + LEAST_TIME > end {
                    return Err(Turned::Resting { service: name, left });
                }
                sleep(left).await;
                continue;
            }
            let Ok(Ok(turn)) = timeout_at(end, calls.acquire()).await else {
                return Err(Turned::Busy(name));
            };
            if self.rest_left().is_none() {
                return Ok(turn);
            }
        }
    }

    fn wait(&self) -> Result<Waiting<'_>, Turned> {
        let Inner { name, waiting, .. } = &*self.0;
        let more = |count: usize| (count < MAX_WAITING).then_some(count + 1);
        match waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Waiting(waiting)),
            Err(_) => Err(Turned::Busy(name)),
        }
    }

    fn rest_left(&self) -> Option<Duration> {
        let rest = self.0.rest.lock().unwrap_or_else(PoisonError::into_inner);
        rest.until.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Begins or ends a rest; true when the service rests now.
    fn heard(&self, outcome: &Result<Response, Error>) -> bool {
        let Ok(response) = outcome else { return false };
        let asked = response.retry_after.filter(|_| matches!(response.status, 429 | 503));
        let now = Instant::now();
        let mut rest = self.0.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if response.status != 429 && asked.is_none() {
            if response.status < 500 {
                rest.row = 0;
            }
            return false;
        }
        // Calls that were under way together are one refusal.
        let already = rest.until.is_some_and(|until| until > now);
        if !already {
            rest.row = rest.row.saturating_add(1);
        }
        let own = FIRST_REST * 2_u32.saturating_pow(rest.row.saturating_sub(1).min(16));
        let until = now + asked.unwrap_or(own).min(MAX_REST);
        rest.until = Some(rest.until.filter(|_| already).map_or(until, |before| before.max(until)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn answer(status: u16, retry_after: Option<u64>) -> Response {
        Response { status, retry_after: retry_after.map(Duration::from_secs), ..Response::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_lets_everybody_rest_as_long_as_it_says() {
        let service = Service::new("STS", Again::ServerErrors);
        let begin = Instant::now();
        let mut answers = vec![answer(200, None), answer(429, Some(3))];
        let outcome = service.call(DEADLINE, |_| std::future::ready(Ok(answers.pop().unwrap()))).await;
        assert_eq!(outcome.unwrap().status, 200);
        assert!((3..5).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());

        // Somebody else's 429 is everybody's rest: who has no time for it is told at once, and nothing is asked.
        let outcome = service.call(Duration::from_millis(100), |_| std::future::ready(Ok(answer(429, Some(30))))).await;
        assert!(matches!(outcome, Err(Turned::Resting { .. })), "{outcome:?}");
        let begin = Instant::now();
        let asked = AtomicU32::new(0);
        let outcome = service
            .call(DEADLINE, |_| {
                asked.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Ok(answer(200, None)))
            })
            .await;
        assert!(matches!(outcome, Err(Turned::Resting { left, .. }) if left.as_secs() >= 22), "{outcome:?}");
        assert_eq!((asked.load(Ordering::Relaxed), begin.elapsed()), (0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn rests_that_nobody_named_grow_and_end_with_an_answer() {
        let service = Service::new("STS", Again::ServerErrors);
        for expected in [500, 1000, 2000, 4000] {
            assert!(service.heard(&Ok(answer(429, None))));
            // Calls that were under way with it change nothing.
            assert!(service.heard(&Ok(answer(429, None))));
            assert_eq!(service.rest_left(), Some(Duration::from_millis(expected)));
            tokio::time::advance(Duration::from_millis(expected)).await;
        }
        assert!(!service.heard(&Ok(answer(503, None))), "a 503 that names no time is no rest");
        assert!(!service.heard(&Ok(answer(200, None))));
        assert!(service.heard(&Ok(answer(429, None))));
        assert_eq!(service.rest_left(), Some(FIRST_REST));
        assert!(service.heard(&Ok(answer(503, Some(86_400)))));
        assert_eq!(service.rest_left(), Some(MAX_REST), "no answer shuts a service off for a day");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_the_next_is_refused_at_once() {
        let service = Service::new("STS", Again::ServerErrors);
        let hang = |_| std::future::pending::<Result<Response, Error>>();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..MAX_CALLS + MAX_WAITING {
            let service = service.clone();
            calls.spawn(async move { service.call(DEADLINE, hang).await });
        }
        sleep(Duration::from_millis(1)).await;
        let begin = Instant::now();
        let outcome = service.call(DEADLINE, |_| std::future::ready(Ok(answer(200, None)))).await;
        assert!(matches!(outcome, Err(Turned::Busy(_))), "{outcome:?}");
        assert_eq!(begin.elapsed(), Duration::ZERO);
        // Who waits in vain is told at the deadline, and nobody's place is lost.
        tokio::time::advance(DEADLINE).await;
        sleep(Duration::from_millis(1)).await;
        calls.shutdown().await;
        assert_eq!(service.0.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(service.0.calls.available_permits(), MAX_CALLS);
        assert!(service.call(DEADLINE, |_| std::future::ready(Ok(answer(200, None)))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final_and_an_outage_is_asked_again() {
        let (any, one) = (Again::ServerErrors, Again::Unavailable);
        for (again, status, times) in [
            (any, 200, 1),
            (any, 400, 1),
            (any, 403, 1),
            (any, 500, ATTEMPTS),
            (any, 503, ATTEMPTS),
            (any, 429, ATTEMPTS),
            (one, 500, 1),
            (one, 503, ATTEMPTS),
            (one, 429, ATTEMPTS),
        ] {
            let service = Service::new("a service", again);
            let asked = AtomicU32::new(0);
            let outcome = service
                .call(DEADLINE, |_| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    std::future::ready(Ok(answer(status, None)))
                })
                .await;
            assert_eq!((outcome.unwrap().status, asked.load(Ordering::Relaxed)), (status, times));
            tokio::time::advance(MAX_REST).await;
        }
    }
}

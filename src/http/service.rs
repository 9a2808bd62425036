//! One service, and how hard it is leaned on: so many calls at a time, so many callers who wait, and silence while it
//! has asked for silence.
//!
//! A service that is overrun answers 429; asking again at once makes it worse, and callers who pile up behind it take
//! the proxy down with it. So a 429 (RFC 6585 §4), or a 503 with `Retry-After` (RFC 9110 §10.2.3), lets everybody rest
//! whose calls count on the same quota: for as long as it says, else longer each time. Who could not be served within
//! their deadline is told at once.
//!
//! Invariant: what waits and what is under way is bounded, whatever the service does.

use super::retry::{self, ATTEMPTS, LEAST_TIME};
use super::{Error, Response};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};

/// Calls of one service that are under way at most.
pub const MAX_CALLS: usize = 64;
/// Callers who wait for one service at most, and for the end of one quota's rest; a further one is refused. So many
/// clients come at once when all of them have lost their sessions; none waits longer than its call's deadline.
pub const MAX_WAITING: usize = 5_000;
/// Quotas of one service that are told apart at most; of more the rest share one.
pub const MAX_QUOTAS: usize = 256;
/// The quota that those share who find no place of their own; a real one has a name.
const OVERFLOW: &str = "";
/// The first rest after a 429 that names none; each further one in a row is twice as long …
pub const FIRST_REST: Duration = Duration::from_millis(500);
/// … up to this. A `Retry-After` that asks for more is cut to it, so that one answer cannot shut a service off.
pub const MAX_REST: Duration = Duration::from_secs(60);

/// After what a service may be asked again; always after 429, and where it could not be reached or broke off (Google's
/// client libraries for Go: `ECONNREFUSED`, `ECONNRESET`, an unexpected end).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// After any 5xx, and 408.
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
    quotas: Mutex<HashMap<String, Arc<Quota>>>,
}

/// What a service counts together, and refuses together: a project's calls, say.
#[derive(Debug, Default)]
struct Quota {
    rest: Mutex<Rest>,
    /// Who waits for its rest to end.
    waiting: AtomicUsize,
}

/// Until when nobody asks, and how many rests in a row there were.
#[derive(Debug, Default)]
struct Rest {
    until: Option<Instant>,
    row: u32,
}

/// One place in a queue; given back on drop.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn take(places: &'a AtomicUsize, service: &'static str) -> Result<Self, Turned> {
        let more = |count: usize| (count < MAX_WAITING).then_some(count + 1);
        match places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Self(places)),
            Err(_) => Err(Turned::Busy(service)),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    /// `name` is said in errors.
    pub fn new(name: &'static str, again: Again) -> Self {
        let (calls, waiting) = (Semaphore::new(MAX_CALLS), AtomicUsize::new(0));
        Self(Arc::new(Inner { name, again, calls, waiting, quotas: Mutex::default() }))
    }

    /// Makes `call`, again after what may pass, three times at most, all within `deadline`; waits its turn. `quota` names
    /// what the service counts the call on: a 429 lets those rest who share it, and nobody else.
    /// May be dropped at any time.
    pub async fn call<F, Call>(&self, quota: &str, deadline: Duration, mut call: F) -> Result<Response, Turned>
    where
        F: FnMut(Duration) -> Call,
        Call: Future<Output = Result<Response, Error>>,
    {
        let quota = self.quota(quota);
        let end = Instant::now() + deadline;
        let mut attempt = 1;
        loop {
            let turn = self.turn(&quota, end).await?;
            let outcome = call(end.saturating_duration_since(Instant::now())).await;
            drop(turn);
            let rests = quota.heard(&outcome);
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

    /// Waits until the quota may be used and the service has room. Who waits for a rest takes no place from those who
    /// wait for room.
    async fn turn(&self, quota: &Quota, end: Instant) -> Result<SemaphorePermit<'_>, Turned> {
        let Inner { name, calls, waiting, .. } = &*self.0;
        loop {
            quota.rested(name, end).await?;
            if let Ok(turn) = calls.try_acquire() {
                return Ok(turn);
            }
            let _waiting = Waiting::take(waiting, name)?;
            let Ok(Ok(turn)) = timeout_at(end, calls.acquire()).await else {
                return Err(Turned::Busy(name));
            };
            if quota.rest_left().is_none() {
                return Ok(turn);
            }
        }
    }

    /// What is known of a quota. Past [`MAX_QUOTAS`] those that nobody uses and that do not rest are forgotten; were there
    /// none, the newcomers would share one.
    fn quota(&self, name: &str) -> Arc<Quota> {
        let mut quotas = self.0.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = quotas.get(name) {
            return Arc::clone(quota);
        }
        if quotas.len() >= MAX_QUOTAS {
            quotas.retain(|_, quota| Arc::strong_count(quota) > 1 || quota.rest_left().is_some());
        }
        let name = if quotas.len() >= MAX_QUOTAS { OVERFLOW } else { name };
        Arc::clone(quotas.entry(name.to_owned()).or_default())
    }
}

impl Quota {
    /// Waits until the rest is over, if that comes before `end`.
    async fn rested(&self, service: &'static str, end: Instant) -> Result<(), Turned> {
        let mut place = None;
        while let Some(left) = self.rest_left() {
            let left = retry::spread(left);
            if Instant::now() + left + LEAST_TIME > end {
                return Err(Turned::Resting { service, left });
            }
            if place.is_none() {
                place = Some(Waiting::take(&self.waiting, service)?);
            }
            sleep(left).await;
        }
        Ok(())
    }

    fn rest_left(&self) -> Option<Duration> {
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        rest.until.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Begins or ends a rest; true when it rests now.
    fn heard(&self, outcome: &Result<Response, Error>) -> bool {
        let Ok(response) = outcome else { return false };
        let asked = response.retry_after.filter(|_| matches!(response.status, 429 | 503));
        let now = Instant::now();
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
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
    const QUOTA: &str = "projects/1";

    fn answer(status: u16, retry_after: Option<u64>) -> Response {
        Response { status, retry_after: retry_after.map(Duration::from_secs), ..Response::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_lets_everybody_rest_as_long_as_it_says() {
        let service = Service::new("STS", Again::ServerErrors);
        let begin = Instant::now();
        let mut answers = vec![answer(200, None), answer(429, Some(3))];
        let outcome = service.call(QUOTA, DEADLINE, |_| std::future::ready(Ok(answers.pop().unwrap()))).await;
        assert_eq!(outcome.unwrap().status, 200);
        assert!((3..5).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());

        // Somebody else's 429 is everybody's rest: who has no time for it is told at once, and nothing is asked.
        let outcome =
            service.call(QUOTA, Duration::from_millis(100), |_| std::future::ready(Ok(answer(429, Some(30))))).await;
        assert!(matches!(outcome, Err(Turned::Resting { .. })), "{outcome:?}");
        let begin = Instant::now();
        let asked = AtomicU32::new(0);
        let outcome = service
            .call(QUOTA, DEADLINE, |_| {
                asked.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Ok(answer(200, None)))
            })
            .await;
        assert!(matches!(outcome, Err(Turned::Resting { left, .. }) if left.as_secs() >= 22), "{outcome:?}");
        assert_eq!((asked.load(Ordering::Relaxed), begin.elapsed()), (0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quotas_rest_is_nobody_elses_and_who_waits_for_it_takes_no_others_place() {
        let service = Service::new("STS", Again::ServerErrors);
        let answers = |status| move |_| std::future::ready(Ok(answer(status, Some(5))));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..MAX_CALLS + MAX_WAITING {
            let service = service.clone();
            waiting.spawn(async move { service.call(QUOTA, DEADLINE, answers(429)).await });
        }
        sleep(Duration::from_millis(1)).await;
        let begin = Instant::now();
        let outcome = service.call(QUOTA, DEADLINE, answers(200)).await;
        assert!(matches!(outcome, Err(Turned::Busy(_))), "so many wait for the rest's end: {outcome:?}");
        assert_eq!(service.call("projects/2", DEADLINE, answers(200)).await.unwrap().status, 200);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        // Others find their own places, however many wait for that quota.
        let hang = |_| std::future::pending::<Result<Response, Error>>();
        let mut others = tokio::task::JoinSet::new();
        for _ in 0..MAX_CALLS + MAX_WAITING {
            let service = service.clone();
            others.spawn(async move { service.call("projects/2", Duration::from_secs(1), hang).await });
        }
        sleep(Duration::from_millis(1)).await;
        assert!(others.try_join_next().is_none(), "nobody was turned away");
    }

    #[tokio::test(start_paused = true)]
    async fn quotas_are_bounded_and_those_that_rest_are_not_forgotten() {
        let service = Service::new("STS", Again::ServerErrors);
        let asked = AtomicU32::new(0);
        let ask = async |quota: &str, status| {
            let call = |_| {
                asked.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Ok(answer(status, Some(30))))
            };
            service.call(quota, DEADLINE, call).await.map(|answer| answer.status)
        };
        for number in 0..MAX_QUOTAS * 4 {
            assert_eq!(ask(&format!("projects/{number}"), 200).await.unwrap(), 200);
            assert!(service.0.quotas.lock().unwrap().len() <= MAX_QUOTAS);
        }
        for number in 0..MAX_QUOTAS {
            assert!(ask(&format!("busy/{number}"), 429).await.is_err());
        }
        let before = asked.load(Ordering::Relaxed);
        assert!(ask("busy/0", 200).await.is_err() && ask("another", 429).await.is_err());
        assert!(ask("one more", 200).await.is_err(), "where all rest, those beyond them share one");
        assert_eq!(asked.load(Ordering::Relaxed), before + 1, "who rests is not asked");
        assert!(service.0.quotas.lock().unwrap().len() <= MAX_QUOTAS + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn rests_that_nobody_named_grow_and_end_with_an_answer() {
        let quota = Quota::default();
        for expected in [500, 1000, 2000, 4000] {
            assert!(quota.heard(&Ok(answer(429, None))));
            // Calls that were under way with it change nothing.
            assert!(quota.heard(&Ok(answer(429, None))));
            assert_eq!(quota.rest_left(), Some(Duration::from_millis(expected)));
            tokio::time::advance(Duration::from_millis(expected)).await;
        }
        assert!(!quota.heard(&Ok(answer(503, None))), "a 503 that names no time is no rest");
        assert!(!quota.heard(&Ok(answer(200, None))));
        assert!(quota.heard(&Ok(answer(429, None))));
        assert_eq!(quota.rest_left(), Some(FIRST_REST));
        assert!(quota.heard(&Ok(answer(503, Some(86_400)))));
        assert_eq!(quota.rest_left(), Some(MAX_REST), "no answer shuts a service off for a day");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_the_next_is_refused_at_once() {
        let service = Service::new("STS", Again::ServerErrors);
        let hang = |_| std::future::pending::<Result<Response, Error>>();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..MAX_CALLS + MAX_WAITING {
            let service = service.clone();
            calls.spawn(async move { service.call(QUOTA, DEADLINE, hang).await });
        }
        sleep(Duration::from_millis(1)).await;
        let begin = Instant::now();
        let outcome = service.call(QUOTA, DEADLINE, |_| std::future::ready(Ok(answer(200, None)))).await;
        assert!(matches!(outcome, Err(Turned::Busy(_))), "{outcome:?}");
        assert_eq!(begin.elapsed(), Duration::ZERO);
        // Who waits in vain is told at the deadline, and nobody's place is lost.
        tokio::time::advance(DEADLINE).await;
        sleep(Duration::from_millis(1)).await;
        calls.shutdown().await;
        assert_eq!(service.0.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(service.0.calls.available_permits(), MAX_CALLS);
        assert!(service.call(QUOTA, DEADLINE, |_| std::future::ready(Ok(answer(200, None)))).await.is_ok());
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
                .call(QUOTA, DEADLINE, |_| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    std::future::ready(Ok(answer(status, None)))
                })
                .await;
            assert_eq!((outcome.unwrap().status, asked.load(Ordering::Relaxed)), (status, times));
            tokio::time::advance(MAX_REST).await;
        }
    }
}

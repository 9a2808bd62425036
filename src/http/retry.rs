//! The retry rule: a service that could not be reached, broke off, or said 5xx, 429 or 408 is asked again,
//! twice at most, with jittered pauses, all within one deadline. For calls that may be made twice.

use super::{Error, Response};
use std::time::Duration;
use tokio::time::Instant;

/// How often a call is made at most.
pub const ATTEMPTS: u32 = 3;
/// The pause before the second attempt; the third waits twice as long. A random quarter more or less.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// An attempt with less time than this left is not made.
pub(super) const LEAST_TIME: Duration = Duration::from_millis(50);

/// Makes `call` until it gives a final answer; it is given the time that is left.
///
/// The last attempt's outcome is returned as it is: the caller still sees the 5xx, or why there was no answer.
/// [`Error::Deadline`] names the whole `deadline`.
pub async fn with_retries<F, Call>(deadline: Duration, mut call: F) -> Result<Response, Error>
where
    F: FnMut(Duration) -> Call,
    Call: Future<Output = Result<Response, Error>>,
{
    let end = Instant::now() + deadline;
    let mut attempt = 1;
    loop {
        let outcome = call(end.saturating_duration_since(Instant::now())).await;
        let pause = pause(attempt);
        let time_left = end.saturating_duration_since(Instant::now());
        if attempt == ATTEMPTS || !is_transient(&outcome) || time_left < pause + LEAST_TIME {
            return name_deadline(outcome, deadline);
        }
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

/// Whether the same call may go better in a moment. 408: the server gave up waiting for what had been sent (RFC 9110
/// §15.5.9), as front ends say that lost the service behind them.
pub(super) fn is_transient(outcome: &Result<Response, Error>) -> bool {
    match outcome {
        Ok(response) => matches!(response.status, 408 | 429 | 500..),
        Err(Error::Unreachable { .. } | Error::Broken { .. }) => true,
        Err(_) => false,
    }
}

/// Names the whole `deadline` where one attempt's share of it passed.
pub(super) fn name_deadline(outcome: Result<Response, Error>, deadline: Duration) -> Result<Response, Error> {
    outcome.map_err(|error| match error {
        Error::Deadline { host, .. } => Error::Deadline { host, deadline },
        other => other,
    })
}

/// The pause after this attempt.
pub(super) fn pause(attempt: u32) -> Duration {
    jittered(FIRST_PAUSE * attempt)
}

/// Spreads what would happen at one time over a quarter more: never earlier.
pub(super) fn spread(wait: Duration) -> Duration {
    let jittered = jittered(wait);
    wait + jittered.saturating_sub(wait * 3 / 4) / 2
}

/// Spreads retries of many sessions: 75 % to 125 % of `pause`.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness the pause is merely not spread.
    if aws_lc_rs::rand::fill(&mut byte).is_err() {
        return pause;
    }
    let [random] = byte;
    pause * 3 / 4 + pause / 2 * u32::from(random) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Response {
        Response { status, ..Response::default() }
    }

    fn unreachable() -> Error {
        Error::Unreachable { host: "sts".into(), source: "refused".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_asked_again() {
        for (first, calls) in [(200, 1), (400, 1), (403, 1), (408, 2), (429, 2), (500, 2), (503, 2)] {
            let mut outcomes = vec![answer(200), answer(first)];
            let mut made = 0;
            let last = with_retries(Duration::from_secs(10), |_| {
                made += 1;
                std::future::ready(Ok(outcomes.pop().unwrap()))
            });
            last.await.unwrap();
            assert_eq!(made, calls);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end_and_the_last_outcome_is_kept() {
        let mut made = 0;
        let outcome = with_retries(Duration::from_secs(10), |_| {
            made += 1;
            std::future::ready(Err(unreachable()))
        });
        assert!(matches!(outcome.await, Err(Error::Unreachable { .. })));
        assert_eq!(made, ATTEMPTS);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_stay_within_the_deadline() {
        let begin = Instant::now();
        let deadline = Duration::from_millis(300);
        let mut made = 0;
        let outcome = with_retries(deadline, |left| {
            made += 1;
            assert!(left <= deadline);
            std::future::ready(Err(unreachable()))
        });
        assert!(outcome.await.is_err());
        assert!(begin.elapsed() <= deadline && made < ATTEMPTS, "{made} attempts in {:?}", begin.elapsed());
    }

    #[test]
    fn jitter_stays_in_its_band() {
        let pause = Duration::from_millis(400);
        for _ in 0..200 {
            let jittered = jittered(pause);
            assert!(jittered >= Duration::from_millis(300) && jittered <= Duration::from_millis(500), "{jittered:?}");
            let spread = spread(pause);
            assert!(spread >= pause && spread <= Duration::from_millis(500), "{spread:?}");
        }
    }
}

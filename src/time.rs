//! The wall clock: the only place that reads it.
//!
//! Everything that compares wall time takes a [`Timestamp`]; whoever needs "now" holds a [`Clock`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A wall-clock instant (RFC 3339 in `Display`), nanosecond resolution.
pub use jiff::Timestamp;

/// Where "now" comes from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// The system's clock, moved by a number of seconds that tests can change.
    Shifted(Arc<AtomicI64>),
    /// It stands still.
    Fixed(Timestamp),
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that runs `offset` seconds from the system's; simulators and tests move it.
    pub fn shifted(offset: Arc<AtomicI64>) -> Self {
        Self(Source::Shifted(offset))
    }

    /// A clock that stands still, for what must come out the same in every run.
    pub fn fixed(at: Timestamp) -> Self {
        Self(Source::Fixed(at))
    }

    /// The current wall time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Fixed(at) => *at,
            Source::Shifted(offset) => {
                let shift = jiff::SignedDuration::from_secs(offset.load(Ordering::Relaxed));
                Timestamp::now().checked_add(shift).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// `at` moved later by `by`, saturating at the end of time.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// How long from `now` until `at`; zero when `at` has passed.
pub fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// A unix time in whole seconds (JWT `NumericDate`, RFC 7519 §2), if it is in range.
pub fn from_unix(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok()
}

/// The day that a time is in, in UTC: `YYYY-MM-DD`. Days sort as they follow.
pub fn day(at: Timestamp) -> String {
    at.to_string().get(..10).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_clock_moves_and_the_past_is_no_wait() {
        let offset = Arc::new(AtomicI64::new(-3600));
        let clock = Clock::shifted(Arc::clone(&offset));
        let before = clock.now();
        offset.store(3600, Ordering::Relaxed);
        assert!(until(clock.now(), before) >= Duration::from_secs(7199));
        assert_eq!(until(before, clock.now()), Duration::ZERO);
    }
}

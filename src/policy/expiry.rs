//! How long a rule's sessions live: the end of what they rest on, and their own length.
//!
//! Cloud SQL checks a login token once, at the login; it ends no session when the token does ("existing sessions
//! continue"). That a session does not outlive its grant is the proxy's to see to. Pure: times come in as arguments.

use crate::time::{Timestamp, later};
use std::time::Duration;

/// How long a session that is to end may go on with what it does, unless the rule says otherwise.
pub const END_GRACE: Duration = Duration::from_secs(15 * 60);

/// `at_expiry`, `end_grace` and `max_session` of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// When the caller's token expires.
    pub at_expiry: AtExpiry,
    /// From when a session is to end until it is ended whatever it does.
    pub grace: Duration,
    /// From the login until the session is to end.
    pub max_session: Option<Duration>,
}

/// What becomes of a session whose caller's token has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtExpiry {
    /// It ends between two transactions, and at the latest after the grace.
    #[default]
    Drain,
    /// It goes on.
    Keep,
    /// It ends at once.
    End,
}

/// A session's time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Why.
    pub because: Because,
    /// How soon.
    pub how: Urgency,
}

/// Which time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// The caller's token has expired.
    Expired,
    /// The session has lasted this long.
    Length(Duration),
}

/// How soon a session is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Between two transactions.
    WhenIdle,
    /// Whatever it does.
    Now,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self { at_expiry: AtExpiry::Drain, grace: END_GRACE, max_session: None }
    }
}

impl Lifetime {
    /// Whether the time of a session is up at `now` that is there `since` then and rests on something good `until` then.
    /// Of two ends the more urgent counts.
    pub fn due(&self, since: Timestamp, until: Timestamp, now: Timestamp) -> Option<Due> {
        let expired = match self.at_expiry {
            AtExpiry::Keep => None,
            AtExpiry::Drain => self.drained(until, now),
            AtExpiry::End => (now >= until).then_some(Urgency::Now),
        };
        let over = self.max_session.and_then(|most| Some((self.drained(later(since, most), now)?, most)));
        match (expired, over) {
            (None, None) => None,
            (Some(expired), over) if over.is_none_or(|(over, _)| over <= expired) => {
                Some(Due { because: Because::Expired, how: expired })
            }
            (_, Some((how, most))) => Some(Due { because: Because::Length(most), how }),
            (Some(how), None) => Some(Due { because: Because::Expired, how }),
        }
    }

    fn drained(&self, end: Timestamp, now: Timestamp) -> Option<Urgency> {
        if now >= later(end, self.grace) {
            Some(Urgency::Now)
        } else if now >= end {
            Some(Urgency::WhenIdle)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRES: u64 = 3600;

    fn due(lifetime: Lifetime, second: u64) -> Option<Due> {
        let at = |second| later(Timestamp::UNIX_EPOCH, Duration::from_secs(second));
        lifetime.due(at(0), at(EXPIRES), at(second))
    }

    #[test]
    fn a_token_that_expires_drains_keeps_or_ends_its_sessions() {
        let grace = Duration::from_secs(60);
        let lifetime = |at_expiry| Lifetime { at_expiry, grace, max_session: None };
        for (at_expiry, before, at, hard) in [
            (AtExpiry::Drain, None, Some(Urgency::WhenIdle), Some(Urgency::Now)),
            (AtExpiry::Keep, None, None, None),
            (AtExpiry::End, None, Some(Urgency::Now), Some(Urgency::Now)),
        ] {
            let expired = |how: Option<Urgency>| how.map(|how| Due { because: Because::Expired, how });
            for (second, how) in
                [(0, before), (EXPIRES - 1, before), (EXPIRES, at), (EXPIRES + 59, at), (EXPIRES + 60, hard)]
            {
                assert_eq!(due(lifetime(at_expiry), second), expired(how), "{at_expiry:?} at {second}");
            }
        }
    }

    #[test]
    fn a_session_has_its_length_whatever_becomes_of_its_token() {
        let grace = Duration::from_secs(60);
        let most = Duration::from_secs(600);
        let length = |how| Some(Due { because: Because::Length(most), how });
        let kept = Lifetime { at_expiry: AtExpiry::Keep, grace, max_session: Some(most) };
        for (second, expected) in [
            (599, None),
            (600, length(Urgency::WhenIdle)),
            (659, length(Urgency::WhenIdle)),
            (660, length(Urgency::Now)),
            (9999, length(Urgency::Now)),
        ] {
            assert_eq!(due(kept, second), expected, "{second}");
        }
    }

    #[test]
    fn of_two_ends_the_more_urgent_counts() {
        let grace = Duration::from_secs(600);
        let both = Lifetime { at_expiry: AtExpiry::End, grace, max_session: Some(Duration::from_secs(EXPIRES)) };
        assert_eq!(due(both, EXPIRES), Some(Due { because: Because::Expired, how: Urgency::Now }));
        let most = Duration::from_secs(EXPIRES - 600);
        let both = Lifetime { at_expiry: AtExpiry::Drain, grace, max_session: Some(most) };
        assert_eq!(due(both, EXPIRES), Some(Due { because: Because::Length(most), how: Urgency::Now }));
        assert_eq!(due(both, EXPIRES - 1), Some(Due { because: Because::Length(most), how: Urgency::WhenIdle }));
    }
}

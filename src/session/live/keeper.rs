//! Whose time is up: looked at often enough that nobody notices the difference.

use super::{Session, Sessions};
use crate::policy::{Because, Urgency};
use crate::relay::{Cause, Wish};
use crate::time::{Clock, Timestamp};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often sessions are looked at. The wall clock is read each time: a machine that slept is noticed.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks for ever.
pub async fn keep_time(sessions: Sessions, clock: Clock) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let told = sessions.look(clock.now());
        if told > 0 {
            tracing::info!(sessions = told, "sessions whose time is up were told to end");
        }
    }
}

impl Session {
    /// What is to be wished of this session at `now`.
    pub(super) fn due(&self, now: Timestamp) -> Option<Wish> {
        let mut wish = Wish::Run;
        if let Some(due) = self.lifetime.due(self.live.since, self.live.good_until(), now) {
            let cause = match due.because {
                Because::Expired => Cause::GrantExpired(self.live.grant.expires_at()),
                Because::Length(length) => Cause::SessionLength(length),
            };
            wish.hasten(match due.how {
                Urgency::WhenIdle => Wish::WhenIdle(cause),
                Urgency::Now => Wish::Now(cause),
            });
        }
        if let Some((_, cause)) = self.at_latest.filter(|(limit, _)| now >= *limit) {
            wish.hasten(Wish::Now(cause));
        }
        (wish != Wish::Run).then_some(wish)
    }
}

//! A policy that was loaded while sessions are there: each is decided about again, by what is known of its caller.

use super::{Ask, Entry, Live, Sessions};
use crate::identity::{IssuerConfig, Verifier};
use crate::policy::{Lifetime, Policy, Request, Withdrawn};
use crate::relay::Cause;
use crate::time::{Timestamp, later};
use std::sync::Arc;
use std::time::Duration;

/// What sessions are judged by: a policy, and the issuers whose tokens it speaks of.
#[derive(Debug)]
pub struct Judge {
    /// Decides.
    pub policy: Arc<Policy>,
    /// Whose tokens are accepted.
    pub verifier: Arc<Verifier>,
    /// How long a session that is not given any more may take to become idle.
    pub drain: Duration,
}

impl Judge {
    /// How long the session lives from now on, or why it does not.
    fn again(&self, live: &Live) -> Result<Lifetime, Withdrawn> {
        let accepts = |issuer: &Arc<IssuerConfig>| issuer.still_accepts(&live.issuer, &live.caller);
        if !self.verifier.issuer(&live.caller.issuer).is_some_and(accepts) {
            return Err(Withdrawn::Issuer);
        }
        let request = Request {
            database: live.grant.target().alias.as_str(),
            purpose: live.purpose,
            address: live.client.limited(),
            parameters: &live.parameters,
        };
        self.policy.renew(&live.grant, &live.caller, &request)
    }
}

impl Sessions {
    /// Judges every session anew, and from now on each that was granted by something earlier; how many are to end.
    pub fn judge(&self, judge: Arc<Judge>, now: Timestamp) -> usize {
        let mut shared = self.lock();
        let ended = shared.entries.values_mut().filter_map(|entry| entry.judge(&judge, now)).count();
        shared.judge = Some(judge);
        ended
    }
}

impl Entry {
    /// `Some` if the session is to end.
    pub(super) fn judge(&mut self, judge: &Judge, now: Timestamp) -> Option<()> {
        let session = self.session.as_mut()?;
        match judge.again(&session.live) {
            Ok(lifetime) => {
                session.lifetime = lifetime;
                self.look(now);
                None
            }
            Err(reason) => {
                let live = &session.live;
                tracing::warn!(session = %live.session, rule = %live.grant.rule(), %reason, "the policy has taken the session away");
                self.end(Cause::Policy, Ask::Drain(later(now, judge.drain)));
                Some(())
            }
        }
    }
}

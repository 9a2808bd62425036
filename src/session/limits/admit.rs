//! One login against every limit: what costs nothing first, and all of it before anything is bought or dialled.

use super::super::callers::{self, TooMany};
use super::super::{Connection, Error, Services};
use super::{Over, Seat};
use crate::frontend::Place;
use crate::identity::VerifiedIdentity;
use crate::policy::Grant;
use crate::telemetry::LimitOutcome;

/// A session's places among its rule's, its caller's and all sessions; given back on drop.
#[derive(Debug)]
pub struct Seats {
    /// Under its rule.
    pub of_rule: Seat,
    _of_all: callers::Seat,
}

impl Connection<'_> {
    /// Takes the places that a session needs. May wait as long as the rule says, and stands aside then.
    pub(in crate::session) async fn admit(
        &self,
        identity: &VerifiedIdentity,
        grant: &Grant,
        place: &mut Place,
    ) -> Result<Seats, Error> {
        let Services { limits, tokens, callers, metrics, clock, .. } = self.services;
        let refused = |over: Over| {
            metrics.limit_reached(over.rule(), over.limit(), LimitOutcome::Refused, 1);
            Error::OverLimit(over)
        };
        if grant.limits().one_address_per_token {
            tokens.check(identity, self.peer.limited(), grant.rule(), clock.now()).map_err(refused)?;
        }
        let facts = identity.facts();
        let wait = |limit| {
            let aside = place.stand_aside();
            if aside {
                metrics.limit_reached(grant.rule(), limit, LimitOutcome::Waited, 1);
            }
            aside
        };
        let of_rule = limits.enter(facts, grant, wait).await.map_err(refused)?;
        // After the wait: who waits takes no session away from those who need not.
        let of_all = callers.enter(facts).map_err(|full: TooMany| Error::TooMany(full))?;
        Ok(Seats { of_rule, _of_all: of_all })
    }
}

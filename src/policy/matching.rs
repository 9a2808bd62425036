//! Whether a rule speaks of a caller and a database, and whether one rule leaves nothing for another.
//!
//! Every comparison is exact. The config writes GUIDs as Entra does (lower case, hyphenated).

use super::{Rule, Who};
use crate::identity::IdentityFacts;
use crate::names::DatabaseAlias;
use ipnet::IpNet;
use std::net::IpAddr;

impl Rule {
    /// Whether this rule speaks of this caller and database.
    pub(super) fn matches(&self, caller: &IdentityFacts, database: &DatabaseAlias, address: Option<IpAddr>) -> bool {
        self.matches_elsewhere(caller, database) && self.who.is_at(address)
    }

    /// Whether it would, wherever the client is.
    pub(super) fn matches_elsewhere(&self, caller: &IdentityFacts, database: &DatabaseAlias) -> bool {
        self.issuer == caller.issuer && self.databases.contains(database) && self.who.is_met_by(caller)
    }

    /// Whether every caller of `later` is this rule's caller too, whatever the database.
    pub fn takes_callers_of(&self, later: &Rule) -> bool {
        self.issuer == later.issuer && self.who.is_implied_by(&later.who)
    }
}

impl Who {
    fn is_met_by(&self, caller: &IdentityFacts) -> bool {
        self.kind.is_none_or(|kind| kind == caller.kind)
            && self.guest.is_none_or(|guest| guest == caller.guest)
            && names(&self.object_ids, &caller.object_id)
            && names(&self.apps, &caller.app)
            && shares(&self.groups, caller.groups.as_deref())
            && shares(&self.roles, caller.roles.as_deref())
    }

    /// An address that is not known is in no network.
    fn is_at(&self, address: Option<IpAddr>) -> bool {
        let contains = |address: IpAddr| self.networks.iter().any(|network| network.contains(&address));
        self.networks.is_empty() || address.is_some_and(|address| contains(address.to_canonical()))
    }

    /// Whether whoever meets `narrower` meets this as well: each list that is given here is given there, with no
    /// entry that is missing here.
    fn is_implied_by(&self, narrower: &Who) -> bool {
        let kind = self.kind.is_none() || self.kind == narrower.kind;
        let guest = self.guest.is_none() || self.guest == narrower.guest;
        let within = |network: &IpNet| self.networks.iter().any(|wide| wide.contains(network));
        let networks =
            self.networks.is_empty() || (!narrower.networks.is_empty() && narrower.networks.iter().all(within));
        kind && guest
            && networks
            && self.lists().iter().zip(narrower.lists()).all(|(wide, narrow)| {
                wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|entry| wide.contains(entry)))
            })
    }

    fn lists(&self) -> [&[String]; 4] {
        [&self.object_ids, &self.groups, &self.roles, &self.apps]
    }
}

fn names(asked: &[String], value: &str) -> bool {
    asked.is_empty() || asked.iter().any(|entry| entry == value)
}

/// `None`, the absent claim, meets no condition: overage must not read as "in no group", nor as "in any".
fn shares(asked: &[String], carried: Option<&[String]>) -> bool {
    asked.is_empty() || carried.is_some_and(|carried| asked.iter().any(|entry| carried.contains(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::CallerKind;

    fn who(kind: Option<CallerKind>, groups: &[&str], apps: &[&str]) -> Who {
        let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        Who { kind, groups: owned(groups), apps: owned(apps), ..Who::default() }
    }

    #[test]
    fn a_wider_rule_implies_the_narrower_and_never_the_other_way() {
        let user = Some(CallerKind::User);
        for (wide, narrow) in [
            (who(user, &[], &[]), who(user, &["g"], &[])),
            (who(None, &["g", "h"], &[]), who(None, &["h"], &[])),
            (who(None, &["g"], &[]), who(user, &["g"], &["a"])),
        ] {
            assert!(wide.is_implied_by(&narrow), "{wide:?} takes all of {narrow:?}");
            assert!(!narrow.is_implied_by(&wide), "{narrow:?} does not take all of {wide:?}");
        }
        let (groups, apps) = (who(None, &["g"], &[]), who(None, &[], &["a"]));
        assert!(!groups.is_implied_by(&apps) && !apps.is_implied_by(&groups), "unlike conditions are not compared");
    }

    #[test]
    fn an_absent_claim_meets_no_condition() {
        let asked = ["g".to_owned()];
        assert!(!shares(&asked, None));
        assert!(!shares(&asked, Some(&[])));
        assert!(!shares(&asked, Some(&["G".to_owned()])), "exact");
        assert!(shares(&asked, Some(&["h".to_owned(), "g".to_owned()])));
        assert!(shares(&[], None), "nothing asked");
    }
}

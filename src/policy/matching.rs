//! Whether a rule speaks of a caller and a database.
//!
//! Every comparison is exact. The config writes GUIDs as Entra does (lower case, hyphenated).

use super::{Rule, Who};
use crate::identity::{CallerKind, IdentityFacts};
use crate::names::DatabaseAlias;
use std::net::IpAddr;

/// What conditions look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits<'a> {
    pub(super) kind: CallerKind,
    pub(super) guest: bool,
    pub(super) object_id: &'a str,
    pub(super) app: &'a str,
    pub(super) groups: Option<&'a [String]>,
    pub(super) roles: Option<&'a [String]>,
}

impl<'a> From<&'a IdentityFacts> for Traits<'a> {
    fn from(facts: &'a IdentityFacts) -> Self {
        Self {
            kind: facts.kind,
            guest: facts.guest,
            object_id: &facts.object_id,
            app: &facts.app,
            groups: facts.groups.as_deref(),
            roles: facts.roles.as_deref(),
        }
    }
}

impl Rule {
    /// Whether this rule speaks of this caller and database.
    pub(super) fn matches(&self, caller: &IdentityFacts, database: &DatabaseAlias, address: Option<IpAddr>) -> bool {
        self.matches_elsewhere(caller, database) && self.who.is_at(address)
    }

    /// Whether it would, wherever the client is.
    pub(super) fn matches_elsewhere(&self, caller: &IdentityFacts, database: &DatabaseAlias) -> bool {
        self.issuer == caller.issuer && self.databases.contains(database) && self.who.is_met_by(&caller.into())
    }
}

impl Rule {
    /// Whether this rule would speak of this caller, were they in a group that it names, and nobody knows whether they
    /// are: their groups are too many for the token, and a directory was not asked about this one. What it would have
    /// said, no later rule may say in its place.
    pub(super) fn hangs_on_groups(&self, caller: &IdentityFacts, database: &DatabaseAlias, at: Option<IpAddr>) -> bool {
        let unknown = self.who.groups.iter().any(|group| caller.may_be_in(group));
        let member = Traits { groups: Some(&self.who.groups), ..caller.into() };
        unknown
            && !self.who.is_met_by(&caller.into())
            && self.issuer == caller.issuer
            && self.databases.contains(database)
            && self.who.is_met_by(&member)
            && self.who.is_at(at)
    }
}

impl Who {
    /// Whether every condition but the address holds.
    pub(super) fn is_met_by(&self, caller: &Traits<'_>) -> bool {
        self.kind.is_none_or(|kind| kind == caller.kind)
            && self.guest.is_none_or(|guest| guest == caller.guest)
            && names(&self.object_ids, caller.object_id)
            && names(&self.apps, caller.app)
            && shares(&self.groups, caller.groups)
            && shares(&self.roles, caller.roles)
    }

    /// An address that is not known is in no network.
    pub(super) fn is_at(&self, address: Option<IpAddr>) -> bool {
        let contains = |address: IpAddr| self.networks.iter().any(|network| network.contains(&address));
        self.networks.is_empty() || address.is_some_and(|address| contains(address.to_canonical()))
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

    #[test]
    fn an_absent_claim_meets_no_condition() {
        let asked = ["g".to_owned()];
        assert!(!shares(&asked, None));
        assert!(!shares(&asked, Some(&[])));
        assert!(!shares(&asked, Some(&["G".to_owned()])), "exact");
        assert!(shares(&asked, Some(&["h".to_owned(), "g".to_owned()])));
        assert!(shares(&[], None), "nothing asked");
    }

    #[test]
    fn an_address_is_in_a_network_as_what_it_means() {
        let who =
            Who { networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()], ..Who::default() };
        for (address, inside) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::7", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("2001:db9::", false),
            ("::10.1.2.3", false),
        ] {
            assert_eq!(who.is_at(Some(address.parse().unwrap())), inside, "{address}");
        }
        assert!(!who.is_at(None) && Who::default().is_at(None), "an address that is not known is in no network");
    }
}

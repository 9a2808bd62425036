//! Whether a rule can decide at all: whether earlier rules leave a caller for it.
//!
//! Every condition of a rule is met by more when a caller has more (another group, another role). So it suffices to try
//! the callers who have as little as the rule asks: one of its groups, one of its roles, one of its ids each, otherwise
//! one that no rule names. A rule that none of them gets to is got to by nobody. Addresses are tried at every edge of a
//! network, between which no rule changes its mind.

use super::matching::Traits;
use super::{Rule, Who};
use crate::identity::{CallerKind, Dialect, IssuerConfig, KindRule};
use crate::names::DatabaseAlias;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Comparisons of a caller with a rule that one config is worth. Past it rules count as reached.
pub const MAX_COMPARISONS: u64 = 20_000_000;

/// Which callers an issuer's tokens can make.
#[derive(Debug, Clone)]
pub struct Population {
    /// Kinds of callers.
    pub kinds: Vec<CallerKind>,
    /// Conditions that none of its tokens can meet, as the config calls them: `guest`, `groups`, `roles`, `apps`.
    pub unsaid: Vec<&'static str>,
}

/// Who gets to a rule, for one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Somebody, as far as is known.
    Somebody,
    /// Nobody meets its conditions, whatever other rules there are.
    Nobody,
    /// Earlier rules decide for everybody who meets its conditions: their places in the order.
    Shadowed(Vec<usize>),
}

impl Population {
    /// What a section of the config lets through.
    pub fn of(issuer: &IssuerConfig) -> Self {
        let allowed = |kind: &CallerKind| issuer.allowed_kinds.is_empty() || issuer.allowed_kinds.contains(kind);
        let kinds = [CallerKind::User, CallerKind::App].into_iter().filter(allowed);
        let Dialect::Oidc(oidc) = &issuer.dialect else {
            return Self { kinds: kinds.collect(), unsaid: Vec::new() };
        };
        let says = |kind: &CallerKind| match &oidc.kind {
            KindRule::Always(always) => always == kind,
            KindRule::UserClaim(_) => true,
        };
        let claims = [("groups", &oidc.groups_claim), ("roles", &oidc.roles_claim), ("apps", &oidc.app_claim)];
        let unsaid = claims.iter().filter(|(_, claim)| claim.is_none()).map(|(condition, _)| *condition);
        Self { kinds: kinds.filter(says).collect(), unsaid: std::iter::once("guest").chain(unsaid).collect() }
    }

    /// The condition that its callers cannot meet.
    pub fn cannot_meet(&self, who: &Who) -> Option<&'static str> {
        let mut kinds = self.kinds.iter().filter(|kind| who.kind.is_none_or(|asked| asked == **kind)).peekable();
        if kinds.peek().is_none() {
            return Some("kind");
        }
        if who.guest == Some(true) && !kinds.any(|kind| self.can_be_guest(*kind)) {
            return Some("guest");
        }
        let asked = [("groups", &who.groups), ("roles", &who.roles), ("apps", &who.apps)];
        let unsaid = |condition: &str| self.unsaid.contains(&condition);
        asked
            .into_iter()
            .find(|(condition, list)| !list.is_empty() && unsaid(condition))
            .map(|(condition, _)| condition)
    }

    fn can_be_guest(&self, kind: CallerKind) -> bool {
        kind == CallerKind::User && !self.unsaid.contains(&"guest")
    }
}

/// Who gets to the rule at `index`. `budget` is what is left of [`MAX_COMPARISONS`].
pub fn reach(
    rules: &[Rule],
    index: usize,
    database: &DatabaseAlias,
    population: &Population,
    budget: &mut u64,
) -> Reach {
    let Some((before, rule)) = rules.split_at_checked(index).and_then(|(before, rest)| Some((before, rest.first()?)))
    else {
        return Reach::Somebody;
    };
    if population.cannot_meet(&rule.who).is_some() {
        return Reach::Nobody;
    }
    let rivals = || {
        let rivals = before.iter().enumerate();
        rivals.filter(|(_, other)| other.issuer == rule.issuer && other.databases.contains(database))
    };
    let places = addresses(&rule.who, rivals().map(|(_, rival)| &rival.who));
    let mut takers: Vec<usize> = Vec::new();
    for (traits, address) in callers(&rule.who, population, &places) {
        // Nothing more is known.
        if *budget == 0 {
            return Reach::Somebody;
        }
        let mut taken = None;
        for (place, rival) in rivals() {
            *budget = budget.saturating_sub(1);
            if rival.who.is_met_by(&traits) && rival.who.is_at(address) {
                taken = Some(place);
                break;
            }
        }
        match taken {
            Some(place) if takers.contains(&place) => {}
            Some(place) => takers.push(place),
            None => return Reach::Somebody,
        }
        if *budget == 0 {
            return Reach::Somebody;
        }
    }
    takers.sort_unstable();
    if takers.is_empty() { Reach::Nobody } else { Reach::Shadowed(takers) }
}

/// Everybody who meets a rule's conditions and has nothing besides, each with an address.
fn callers<'a>(
    who: &'a Who,
    population: &'a Population,
    addresses: &'a [Option<IpAddr>],
) -> impl Iterator<Item = (Traits<'a>, Option<IpAddr>)> {
    let kinds = population.kinds.iter().filter(|kind| who.kind.is_none_or(|asked| asked == **kind));
    let people = kinds.flat_map(move |kind| {
        let possible = move |guest: &bool| !guest || population.can_be_guest(*kind);
        let guest = [false, true].into_iter().filter(move |guest| who.guest.is_none_or(|asked| asked == *guest));
        guest.filter(possible).map(move |guest| (*kind, guest))
    });
    people.flat_map(move |(kind, guest)| {
        each(&who.object_ids).flat_map(move |object_id| {
            each(&who.apps).flat_map(move |app| {
                each(&who.groups).flat_map(move |group| {
                    each(&who.roles).flat_map(move |role| {
                        addresses.iter().map(move |address| {
                            let (object_id, app) = (text(object_id), text(app));
                            let (groups, roles) = (group.map(std::slice::from_ref), role.map(std::slice::from_ref));
                            (Traits { kind, guest, object_id, app, groups, roles }, *address)
                        })
                    })
                })
            })
        })
    })
}

/// Each entry of a condition; none of them, once, where it asks nothing.
fn each(list: &[String]) -> impl Iterator<Item = Option<&String>> + Clone {
    let nothing = list.is_empty().then_some(None);
    list.iter().map(Some).chain(nothing)
}

/// An id that no rule names: names are never empty.
fn text(entry: Option<&String>) -> &str {
    entry.map_or("", String::as_str)
}

/// Addresses of a rule's networks, one at least of each part that another rule's networks cut out of them. Where the
/// rule asks for none: one that is not known, which is in no network.
fn addresses<'a>(who: &Who, rivals: impl Iterator<Item = &'a Who>) -> Vec<Option<IpAddr>> {
    if who.networks.is_empty() {
        return vec![None];
    }
    let networks: Vec<IpNet> = rivals.flat_map(|rival| &rival.networks).chain(&who.networks).copied().collect();
    let starts = networks.iter().map(IpNet::network);
    let behind = networks.iter().filter_map(|network| next(network.broadcast()));
    let mut edges: Vec<IpAddr> = starts.chain(behind).filter(|address| who.is_at(Some(*address))).collect();
    edges.sort_unstable();
    edges.dedup();
    edges.into_iter().map(Some).collect()
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?))),
        IpAddr::V6(address) => Some(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?))),
    }
}

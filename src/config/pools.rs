//! Providers, pools and issuers that do not go together.
//!
//! Google's pool provider takes the tokens of one issuer ("Configure Workload Identity Federation": one provider, one
//! issuer URI). And Cloud SQL cannot tell equal subjects of different pools apart ("Workforce Identity Federation" for
//! Cloud SQL): two people whose subjects can be equal could be each other in the database.

use super::reader::{Declared, Placed, Report};
use crate::federation::OwnIdentityConfig;
use crate::identity::{Dialect, IssuerConfig};
use crate::names::InstanceName;
use crate::policy::{How, Rule, Target};

/// Each provider is fed by one issuer, and none by two; the proxy's own by none.
pub(super) fn feeds(report: &Report<'_>, rules: &[Placed<Rule>], own: Option<&OwnIdentityConfig>) {
    // Of those with the same provider and issuer the first: rules can be thousands.
    let mut earlier: Vec<&Placed<Rule>> = Vec::new();
    for rule in rules {
        let provider = rule.value.how.provider();
        let key = format!("{}.grant.provider", rule.key);
        if let Some(OwnIdentityConfig::AzureManagedIdentity { provider: own, .. }) = own
            && own == provider
        {
            report.problem(rule.at, &key, "is the proxy's own (own_identity.provider), which must take no callers");
        }
        let mut same = earlier.iter().filter(|other| other.value.how.provider() == provider).peekable();
        let known = same.clone().any(|other| other.value.issuer == rule.value.issuer);
        let other = same.find(|other| other.value.issuer != rule.value.issuer);
        if let Some(other) = other {
            let (ours, theirs) = (&rule.value.issuer, &other.value.issuer);
            let reason = format!(
                "is fed by issuer {theirs} in {}, and a provider takes the tokens of one issuer: it would refuse those \
                 of {ours}",
                other.key
            );
            report.problem(rule.at, &key, &reason);
        }
        if !known {
            earlier.push(rule);
        }
    }
}

/// One way to name people on an instance.
struct Naming<'a> {
    rule: &'a Placed<Rule>,
    issuer: &'a IssuerConfig,
    claim: &'a str,
    prefix: &'a str,
}

/// No two ways to name people on one instance can give two people one name.
pub(super) fn subjects(
    report: &Report<'_>,
    rules: &[Placed<Rule>],
    issuers: &Declared<IssuerConfig>,
    databases: &Declared<Target>,
) {
    // Of those who name in the same way on the same databases the first: rules can be thousands.
    let mut earlier: Vec<Naming<'_>> = Vec::new();
    for later in rules.iter().filter_map(|rule| naming(rule, issuers)) {
        let shared = |other: &Naming<'_>| shared_instance(&other.rule.value, &later.rule.value, databases);
        let mut meeting = earlier.iter().filter(|other| can_meet(other, &later));
        if let Some((other, instance)) = meeting.find_map(|other| Some((other, shared(other)?))) {
            let reason = format!(
                "can name a person of {} as {} names another of {} on {instance}, and Cloud SQL cannot tell them apart: \
                 map `oid` of Entra tenants, or give each a subject_prefix of its own with a character that no user name \
                 has, such as a colon",
                later.issuer.name, other.rule.key, other.issuer.name
            );
            report.problem(later.rule.at, &format!("{}.grant.subject_claim", later.rule.key), &reason);
        }
        if !earlier.iter().any(|other| other.is_like(&later)) {
            earlier.push(later);
        }
    }
}

fn naming<'a>(rule: &'a Placed<Rule>, issuers: &'a Declared<IssuerConfig>) -> Option<Naming<'a>> {
    let How::Workforce { subject_claim, subject_prefix, .. } = &rule.value.how else { return None };
    let issuer = issuers.entries.iter().find(|issuer| issuer.value.name == rule.value.issuer)?;
    Some(Naming { rule, issuer: &issuer.value, claim: subject_claim, prefix: subject_prefix })
}

fn shared_instance<'a>(one: &Rule, other: &Rule, databases: &'a Declared<Target>) -> Option<&'a InstanceName> {
    let reached = |rule: &Rule| {
        let names = rule.databases.clone();
        databases.entries.iter().filter(move |d| names.contains(&d.value.alias)).map(|d| &d.value.instance)
    };
    reached(one).find(|instance| reached(other).any(|theirs| theirs == *instance))
}

/// What a claim's values look like, as far as its issuer guarantees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Entra's `oid`: a GUID that Entra gives out once, in whatever tenant.
    ObjectId,
    /// Entra's `upn`: with an `@`, and of the characters that user principal names have.
    PrincipalName,
    /// Entra's `sub`: a hash of its own, 43 base64url characters.
    Pairwise,
    /// Whatever the issuer likes.
    Any,
}

impl Naming<'_> {
    /// Whether whatever is true of one is true of the other, too.
    fn is_like(&self, other: &Self) -> bool {
        (&self.issuer.name, self.claim, self.prefix, &self.rule.value.databases)
            == (&other.issuer.name, other.claim, other.prefix, &other.rule.value.databases)
    }

    fn shape(&self) -> Shape {
        match (&self.issuer.dialect, self.claim) {
            (Dialect::Entra(_), "oid") => Shape::ObjectId,
            (Dialect::Entra(_), "upn") => Shape::PrincipalName,
            (Dialect::Entra(_), "sub") => Shape::Pairwise,
            _ => Shape::Any,
        }
    }

    /// Whether one of its names could begin with a text, seen from its shape alone.
    fn can_begin_with(&self, text: &str) -> bool {
        let possible: fn(char) -> bool = match self.shape() {
            Shape::ObjectId => |c| matches!(c, '0'..='9' | 'a'..='f' | '-'),
            Shape::PrincipalName => |c| !matches!(c, ':' | '/' | '\\' | '|' | '<' | '>' | '?' | '*' | ';' | '=' | '%'),
            Shape::Pairwise => |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'),
            Shape::Any => |_| true,
        };
        text.chars().all(possible)
    }
}

/// Whether two different people can get one name.
fn can_meet(one: &Naming<'_>, other: &Naming<'_>) -> bool {
    let same_people = one.issuer.tenant() == other.issuer.tenant() && one.claim == other.claim;
    if one.prefix == other.prefix {
        let distinct = match (one.shape(), other.shape()) {
            (Shape::Any, _) | (_, Shape::Any) | (Shape::PrincipalName, Shape::PrincipalName) => false,
            // Given out once, or of different shapes.
            _ => true,
        };
        return !same_people && !distinct;
    }
    let (short, long) = if one.prefix.len() <= other.prefix.len() { (one, other) } else { (other, one) };
    match long.prefix.strip_prefix(short.prefix) {
        // The rest of the longer prefix would have to begin a claim of the other.
        Some(rest) => short.can_begin_with(rest),
        None => false,
    }
}

//! `[[expect]]`: logins and what must become of them, checked with the policy that they stand beside.

use super::reader::{Declared, Field, Section};
use super::rules::KINDS;
use super::{startup, suggest, values};
use crate::identity::{CallerKind, Dialect, IdentityFacts, IssuerConfig};
use crate::names::{IssuerName, RoleName, RuleName};
use crate::policy::{Expectation, Outcome, Policy, Population, REASONS, refused_subject_claim};
use crate::time::Timestamp;
use crate::wire::{Parameters, Purpose};
use std::collections::BTreeMap;
use std::net::IpAddr;
use toml::de::DeValue;

/// An object id or app that no rule names.
const ANOTHER: &str = "(another)";
/// The sections that an expectation is about. Where one of them has a problem, nothing is said of expectations: each
/// mistake would be told twice.
const ABOUT: [&str; 4] = ["rule", "database", "issuer", "instance"];

/// Reads and checks every expectation; how many there are.
pub(super) fn expectations(root: &Section<'_>, issuers: &Declared<IssuerConfig>, policy: &Policy) -> usize {
    let judged = root.report.is_clean(&ABOUT);
    let entries = root.field("expect").and_then(|field| field.entries()).unwrap_or_default();
    for entry in &entries {
        let Some(section) = entry.section() else { continue };
        let Some((outcome, expectation)) = expectation(section, issuers, policy) else { continue };
        if let Some(instead) = policy.unmet(&expectation).filter(|_| judged) {
            outcome.problem(&format!("does not hold: {instead}"));
        }
    }
    entries.len()
}

fn expectation<'a>(
    mut section: Section<'a>,
    issuers: &Declared<IssuerConfig>,
    policy: &Policy,
) -> Option<(Field<'a>, Expectation)> {
    if let Some(name) = section.optional("name", values::text) {
        section.rename("expect", name);
    }
    let database = section.required("database", values::text).map(str::to_owned);
    let issuer = section.required_field("issuer");
    let issuer = issuer.as_ref().and_then(|field| issuers.resolve(field, "issuer", IssuerName::parse));
    let issuer = issuer.and_then(|name| issuers.entries.iter().find(|issuer| issuer.value.name == name));
    let attributes = Attributes::read(&section, issuer.is_some_and(|issuer| issuer.value.entra().is_some()));
    let address = section.optional("address", address);
    let replication = section.optional("replication", values::boolean).unwrap_or(false);
    let parameters = section.section("startup").map(|section| parameters(&section)).unwrap_or_default();
    let outcome = outcome(&section, policy);
    section.finish();
    let ((field, outcome), issuer, attributes) = (outcome?, &issuer?.value, attributes?);
    let refused = attributes.refused_by(issuer);
    let caller = attributes.facts(issuer);
    let purpose = if replication { Purpose::Replication } else { Purpose::Statements };
    Some((field, Expectation { caller, refused, database: database?, purpose, address, parameters, outcome }))
}

/// `allow = RULE`, with `user` or without, or `deny = REASON`; and which of both it is.
fn outcome<'a>(section: &Section<'a>, policy: &Policy) -> Option<(Field<'a>, Outcome)> {
    let user = section.field("user");
    match (section.field("allow"), section.field("deny")) {
        (Some(allow), None) => {
            let name = allow.read(values::name(RuleName::parse))?;
            let mut rules = policy.rules().iter().map(|rule| rule.name.as_str());
            // Rules that could not be read have been reported.
            if section.report.is_clean(&ABOUT) && !rules.clone().any(|rule| rule == name.as_str()) {
                allow.absence(&format!("names no [[rule]]{}", suggest::hint(name.as_str(), &mut rules)));
                return None;
            }
            let user = match user {
                Some(user) => Some(user.read(values::name(RoleName::parse))?),
                None => None,
            };
            Some((allow, Outcome::Allow { rule: name, user }))
        }
        (None, Some(deny)) => {
            if let Some(user) = user {
                user.problem("is of a login that is allowed; this one is denied");
            }
            let reason = deny.read(values::one_of(REASONS))?;
            Some((deny, Outcome::Deny(reason)))
        }
        (Some(_), Some(deny)) => {
            deny.problem("stands beside allow; a login is one of both");
            None
        }
        (None, None) => {
            section.report.absence(section.at, &section.key, "needs allow = RULE or deny = REASON");
            None
        }
    }
}

/// What the caller's token would say.
struct Attributes {
    kind: CallerKind,
    guest: bool,
    object_id: Option<String>,
    app: Option<String>,
    groups: Option<Vec<String>>,
    overage: bool,
    roles: Option<Vec<String>>,
    claims: BTreeMap<String, String>,
}

impl Attributes {
    fn read(section: &Section<'_>, entra: bool) -> Option<Self> {
        let text = |value: &DeValue<'_>| values::text(value).map(str::to_owned);
        let id = |value: &DeValue<'_>| if entra { values::guid(value) } else { text(value) };
        let list = |key, parse: &dyn Fn(&DeValue<'_>) -> Result<String, String>| {
            section.field(key).is_some().then(|| section.list(key, parse))
        };
        let overage = section.field("groups_overage");
        let groups = list("groups", &id);
        if let Some(field) = overage.as_ref().filter(|_| groups.is_some()) {
            field.problem("stands beside groups; a token with too many says none");
        }
        Some(Self {
            guest: section.optional("guest", values::boolean).unwrap_or(false),
            object_id: section.optional("object_id", id),
            app: section.optional("app", id),
            groups,
            overage: overage.and_then(|field| field.read(values::boolean)).unwrap_or(false),
            roles: list("roles", &text),
            claims: section.section("claims").map(|section| claims(&section)).unwrap_or_default(),
            kind: section.required("kind", values::one_of(KINDS))?,
        })
    }

    /// Why the issuer's section refuses such a token, before any rule is asked.
    fn refused_by(&self, issuer: &IssuerConfig) -> Option<String> {
        let name = &issuer.name;
        let population = Population::of(issuer);
        if !population.kinds.contains(&self.kind) {
            return Some(format!("issuer {name} accepts no caller of kind {:?}", self.kind.as_str()));
        }
        let app = self.app.as_ref().filter(|_| !issuer.allowed_apps.is_empty());
        if app.is_some_and(|app| !issuer.allowed_apps.iter().any(|allowed| allowed.eq_ignore_ascii_case(app))) {
            return Some(format!("issuer {name} accepts no token of this app (allowed_apps)"));
        }
        let required = issuer.entra().map(|entra| &entra.required_roles).filter(|_| self.kind == CallerKind::App)?;
        let held = self.roles.as_deref().unwrap_or_default();
        let lacks = !required.is_empty() && !required.iter().any(|role| held.contains(role));
        lacks.then(|| format!("issuer {name} accepts no software without one of required_roles"))
    }

    /// The same as a verified token gives it. What is not said is nothing that a rule names.
    fn facts(self, issuer: &IssuerConfig) -> IdentityFacts {
        let object_id = self.object_id.unwrap_or_else(|| ANOTHER.to_owned());
        let mut claims = self.claims;
        let subject = match &issuer.dialect {
            Dialect::Entra(_) => "oid",
            Dialect::Oidc(oidc) => &oidc.subject_claim,
        };
        claims.entry(subject.to_owned()).or_insert_with(|| object_id.clone());
        IdentityFacts {
            issuer: issuer.name.clone(),
            issuer_url: issuer.url(),
            tenant: issuer.tenant(),
            object_id,
            kind: self.kind,
            guest: self.guest,
            // Not a claim's value: those are not repeated in problems.
            label: "the caller".to_owned(),
            app: self.app.or_else(|| issuer.allowed_apps.first().cloned()).unwrap_or_else(|| ANOTHER.to_owned()),
            groups: self.groups,
            overage: self.overage,
            asked_groups: None,
            roles: self.roles,
            claims,
            token_id: None,
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
        }
    }
}

/// Claims that can name a database user.
fn claims(section: &Section<'_>) -> BTreeMap<String, String> {
    let claim = |(name, field): (&str, Field<'_>)| {
        if let Some(reason) = refused_subject_claim(name) {
            field.problem(&format!("names no database user: {reason}"));
            return None;
        }
        Some((name.to_owned(), field.read(values::text)?.to_owned()))
    };
    section.all_fields().into_iter().filter_map(claim).collect()
}

fn parameters(section: &Section<'_>) -> Parameters {
    let parameter =
        |(name, field): (&str, Field<'_>)| Some((name.as_bytes().to_vec(), field.read(startup::value)?.into_bytes()));
    section.all_fields().into_iter().filter_map(parameter).collect()
}

fn address(value: &DeValue<'_>) -> Result<IpAddr, String> {
    values::text(value)?.parse().map_err(|_| "is not an IP address".to_owned())
}

//! `[[rule]]`: who may reach what, and how they arrive there.

use super::reader::{Declared, Placed, Section};
use super::who::who;
use super::{lifetimes, limits, startup, trust, values};
use crate::audit::sealing::Texts;
use crate::audit::{Durability, Parameters, UnrecordedCommit};
use crate::identity::{CallerKind, IssuerConfig};
use crate::names::{DatabaseAlias, IssuerName, RuleName, ServiceAccount};
use crate::policy::{How, Rule, Target, refused_subject_claim};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use toml::de::DeValue;

/// As rules and issuers name them.
pub(super) const KINDS: &[(&str, CallerKind)] = &[("user", CallerKind::User), ("app", CallerKind::App)];
/// The longest quota project, in bytes (STS, `options.userProject`).
const MAX_USER_PROJECT_BYTES: usize = 32;

/// The longest text in front of a subject, in bytes; PostgreSQL's names have 63.
const MAX_PREFIX_BYTES: usize = 26;

#[derive(Clone, Copy)]
enum Grant {
    Workforce,
    ServiceAccount,
}

const GRANTS: &[(&str, Grant)] = &[("workforce", Grant::Workforce), ("service_account", Grant::ServiceAccount)];

const DURABILITY: &[(&str, Durability)] =
    &[("strict", Durability::Strict), ("batch", Durability::Batch), ("none", Durability::None)];

const TEXTS: &[(&str, Texts)] = &[("clear", Texts::Clear), ("sealed", Texts::Sealed)];

const PARAMETERS: &[(&str, Parameters)] =
    &[("off", Parameters::Off), ("hmac", Parameters::Hmac), ("full", Parameters::Full)];

/// Every rule, in the order of the file.
pub(super) fn rules(
    root: &Section<'_>,
    issuers: &Declared<IssuerConfig>,
    databases: &Declared<Target>,
) -> Vec<Placed<Rule>> {
    let mut rules: Vec<Placed<Rule>> = Vec::new();
    let mut names = HashMap::new();
    let audit = root.section("audit");
    let entries = root.required_field("rule").and_then(|field| field.entries()).unwrap_or_default();
    for entry in entries {
        let Some(section) = entry.section() else { continue };
        let Some(rule) = rule(section, issuers, databases, audit.as_ref()) else { continue };
        match names.entry(rule.value.name.clone()) {
            Entry::Vacant(place) => {
                place.insert(rule.at);
            }
            Entry::Occupied(twin) => {
                let line = entry.report.line(*twin.get());
                entry.report.problem(rule.at, &rule.key, &format!("is the name of the rule on line {line} as well"));
            }
        }
        rules.push(rule);
    }
    rules
}

fn rule(
    mut section: Section<'_>,
    issuers: &Declared<IssuerConfig>,
    databases: &Declared<Target>,
    audit: Option<&Section<'_>>,
) -> Option<Placed<Rule>> {
    let name = section.required("name", values::name(RuleName::parse));
    if let Some(name) = &name {
        section.rename("rule", name.as_str());
    }
    let issuer = section.required_field("issuer");
    let issuer = issuer.as_ref().and_then(|field| issuers.resolve(field, "issuer", IssuerName::parse));
    let listed = section.required_field("databases").and_then(|field| field.some_entries()).unwrap_or_default();
    let databases =
        listed.iter().filter_map(|entry| databases.resolve(entry, "database", DatabaseAlias::parse)).collect();
    let who = who(&section, issuer.as_ref().is_some_and(|name| is_entra(name, issuers)));
    let how = section.required_section("grant").and_then(how);
    let replication = section.optional("replication", values::boolean).unwrap_or(false);
    let limits = section.section("limits").map(limits::limits).unwrap_or_default();
    let lifetime = lifetimes::lifetime(&section);
    let (durability, unrecorded_commit) = (durability(&section), unrecorded_commit(&section));
    let recorded_parameters = parameters(&section, audit);
    let texts = section.optional("texts", values::one_of(TEXTS)).unwrap_or_default();
    let startup = startup::powers(section.section("startup"));
    let (key, at) = (section.key.clone(), section.at);
    section.finish();
    let (name, issuer, who, how) = (name?, issuer?, who?, how?);
    Some(Placed {
        key,
        at,
        value: Rule {
            name,
            issuer,
            databases,
            who,
            how,
            replication,
            startup,
            limits,
            lifetime,
            durability,
            recorded_parameters,
            texts,
            unrecorded_commit,
        },
    })
}

fn durability(section: &Section<'_>) -> Durability {
    let Some(field) = section.field("durability") else { return Durability::default() };
    let durability = field.read(values::one_of(DURABILITY)).unwrap_or_default();
    if durability == Durability::None {
        field.warning("lets statements run whose records are lost when the proxy is killed within the next second");
    }
    durability
}

fn unrecorded_commit(section: &Section<'_>) -> UnrecordedCommit {
    let Some(field) = section.field("commit_unrecorded") else { return UnrecordedCommit::default() };
    if field.read(values::boolean) != Some(true) {
        return UnrecordedCommit::Refused;
    }
    field.warning(
        "lets transactions commit whose COMMIT is in no record, only in a count, while the audit log's disk is full",
    );
    UnrecordedCommit::Passes
}

fn parameters(section: &Section<'_>, audit: Option<&Section<'_>>) -> Parameters {
    let Some(field) = section.field("parameters") else { return Parameters::default() };
    let parameters = field.read(values::one_of(PARAMETERS)).unwrap_or_default();
    match parameters {
        Parameters::Off => {}
        Parameters::Hmac => {
            if audit.is_some_and(|audit| audit.field("parameters_key").is_none()) {
                field.problem("needs audit.parameters_key; make one with: pgpassport audit key --new-secret FILE");
            }
        }
        Parameters::Full => field.warning("has the values that callers send in the audit log, secrets among them"),
    }
    parameters
}

/// An issuer that could not be read was reported; its rules may say anything.
fn is_entra(name: &IssuerName, issuers: &Declared<IssuerConfig>) -> bool {
    let issuer = issuers.entries.iter().find(|issuer| issuer.value.name == *name);
    issuer.is_some_and(|issuer| issuer.value.entra().is_some())
}

fn how(section: Section<'_>) -> Option<How> {
    let how = match section.required("kind", values::one_of(GRANTS))? {
        Grant::Workforce => workforce(&section),
        Grant::ServiceAccount => service_account(&section),
    };
    section.finish();
    how
}

fn workforce(section: &Section<'_>) -> Option<How> {
    let provider = section.required("provider", trust::workforce_provider);
    let subject_claim = section.required("subject_claim", subject_claim);
    let subject_prefix = section.optional("subject_prefix", subject_prefix).unwrap_or_default();
    let user_project = section.optional("user_project", user_project);
    Some(How::Workforce { provider: provider?, subject_claim: subject_claim?, subject_prefix, user_project })
}

fn service_account(section: &Section<'_>) -> Option<How> {
    let provider = section.required("provider", trust::workload_provider);
    let account = section.required("service_account", |value| {
        let account = values::name(ServiceAccount::parse)(value)?;
        account.database_user().map_err(|error| format!("gives a database user that {error}"))?;
        Ok(account)
    });
    let delegates = trust::delegates(section, account.as_ref());
    Some(How::ServiceAccount { provider: provider?, account: account?, delegates: delegates? })
}

fn subject_claim(value: &DeValue<'_>) -> Result<String, String> {
    let claim = values::text(value)?;
    if let Some(reason) = refused_subject_claim(claim) {
        return Err(reason.to_owned());
    }
    if !claim.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("is not a claim's name, such as upn, oid or sub".to_owned());
    }
    Ok(claim.to_owned())
}

/// Printable and short, so that room is left for the claim.
fn subject_prefix(value: &DeValue<'_>) -> Result<String, String> {
    let prefix = values::text(value)?;
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\');
    if prefix.len() > MAX_PREFIX_BYTES || !prefix.chars().all(allowed) {
        return Err(format!("is not at most {MAX_PREFIX_BYTES} printable ASCII characters, without quotes"));
    }
    Ok(prefix.to_owned())
}

fn user_project(value: &DeValue<'_>) -> Result<String, String> {
    let project = values::text(value)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | ':');
    if project.len() > MAX_USER_PROJECT_BYTES || !project.chars().all(allowed) {
        return Err(format!("is not a project's id or number of at most {MAX_USER_PROJECT_BYTES} characters"));
    }
    Ok(project.to_owned())
}

//! `[on_behalf_of.ISSUER]`: people's tokens of an Entra issuer are traded for a second API's before Google sees any.

use super::reader::{Declared, Placed, Section};
use super::{files, values};
use crate::federation::{CredentialConfig, OnBehalfOfConfig};
use crate::identity::{CallerKind, Entra, IssuerConfig, Version};
use crate::names::IssuerName;
use crate::policy::Rule;
use std::collections::BTreeMap;
use std::path::Path;
use toml::de::DeValue;

/// What a managed identity's token as an app's credential is for, by login host (Microsoft: "Configure an application
/// to trust a managed identity").
const EXCHANGES: [(&str, &str); 3] = [
    ("https://login.microsoftonline.com", "api://AzureADTokenExchange"),
    ("https://login.microsoftonline.us", "api://AzureADTokenExchangeUSGov"),
    ("https://login.partner.microsoftonline.cn", "api://AzureADTokenExchangeChina"),
];

/// Every section, by its issuer.
pub(super) fn sections(
    root: &Section<'_>,
    issuers: &Declared<IssuerConfig>,
    rules: &[Placed<Rule>],
    folder: &Path,
) -> BTreeMap<IssuerName, OnBehalfOfConfig> {
    let mut sections = BTreeMap::new();
    if root.field("on_behalf_of").is_none() {
        return sections;
    }
    for (name, section) in root.named_sections("on_behalf_of") {
        let Some(issuer) = issuers.entries.iter().find(|issuer| issuer.value.name.as_str() == name) else {
            if !issuers.names.iter().any(|declared| declared == name) {
                section.report.problem(
                    section.at,
                    &section.key,
                    &format!("names no [issuer.…]: {name:?} is not there"),
                );
            }
            continue;
        };
        let Some(entra) = issuer.value.entra() else {
            section.report.problem(section.at, &section.key, "is for Entra's issuers: others have no such trade");
            continue;
        };
        ways_round(&section, &issuer.value.name, rules);
        if let Some(config) = section_of(section, &issuer.value, entra, folder) {
            sections.insert(issuer.value.name.clone(), config);
        }
    }
    sections
}

fn section_of(section: Section<'_>, issuer: &IssuerConfig, entra: &Entra, folder: &Path) -> Option<OnBehalfOfConfig> {
    let client_id = match section.field("client_id") {
        Some(field) => field.read(values::guid),
        // A v2.0 token's audience is the API's own client id.
        None if entra.version == Version::V2 => issuer.audiences.first().cloned(),
        None => {
            let reason = "is required: v1.0 audiences do not say the app's client id";
            section.report.absence(section.at, &section.path("client_id"), reason);
            None
        }
    };
    let scope = section.required("scope", scope);
    let field = section.required_field("audience");
    let audience = field.as_ref().and_then(|field| field.read(|value| values::text(value).map(str::to_owned)));
    if let (Some(field), Some(audience)) = (&field, &audience)
        && issuer.accepts_audience(audience)
    {
        field.problem("is what callers' own tokens are for: the second API must be another, or nothing is won");
    }
    let credential = credential(&section, entra, folder);
    let token_endpoint = format!("{}/{}/oauth2/v2.0/token", entra.authority, entra.tenant);
    section.finish();
    Some(OnBehalfOfConfig {
        token_endpoint,
        client_id: client_id?,
        scope: scope?,
        audience: audience?,
        credential: credential?,
    })
}

/// One of three.
fn credential(section: &Section<'_>, entra: &Entra, folder: &Path) -> Option<CredentialConfig> {
    let secret = section.field("client_secret_file");
    let (certificate, key) = (section.field("certificate"), section.field("key"));
    let (identity, resource) =
        (section.field("managed_identity_client_id"), section.field("managed_identity_resource"));
    let given = [secret.is_some(), certificate.is_some() || key.is_some(), identity.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        let reason = "needs one credential: client_secret_file, certificate and key, or managed_identity_client_id";
        section.report.absence(section.at, &section.key, reason);
        return None;
    }
    if let Some(field) = secret {
        let path = field.read(|value| files::client_secret(value, folder))?;
        if files::everyone_reads(&path) {
            field.warning("can be read by every user of this machine; mode 0600 or 0640 is enough");
        }
        return Some(CredentialConfig::SecretFile(path));
    }
    if let Some(field) = identity {
        let client_id = field.read(values::guid);
        let known = EXCHANGES.iter().find(|(authority, _)| *authority == entra.authority).map(|(_, known)| *known);
        let resource = match resource {
            Some(field) => field.read(|value| values::text(value).map(str::to_owned)),
            None => Some(known.unwrap_or("api://AzureADTokenExchange").to_owned()),
        };
        return Some(CredentialConfig::ManagedIdentity { client_id: client_id?, resource: resource? });
    }
    let certificate = section.required("certificate", |value| files::certificates(value, folder));
    let field = section.required_field("key")?;
    let key = field.read(|value| files::rsa_key(value, folder))?;
    let private = field.read(|value| files::private_key(value, folder))?;
    let (certificate, chain) = certificate?;
    files::pair(chain, private.1, &section.path("certificate")).map_err(|reason| field.problem(&reason)).ok()?;
    if files::everyone_reads(&key) {
        field.warning("can be read by every user of this machine; mode 0600 or 0640 is enough");
    }
    Some(CredentialConfig::Certificate { certificate, key })
}

/// `api://…/.default`, or permissions of one API.
fn scope(value: &DeValue<'_>) -> Result<String, String> {
    let scope = values::text(value)?;
    let shaped =
        scope.split(' ').all(|one| one.rsplit_once('/').is_some_and(|(api, name)| !api.is_empty() && !name.is_empty()));
    if shaped {
        Ok(scope.to_owned())
    } else {
        Err("is not a scope of an API, such as \"api://…/.default\"".to_owned())
    }
}

/// Software's tokens cannot be traded. A provider that takes both kinds has to take what people hold, too.
fn ways_round(section: &Section<'_>, issuer: &IssuerName, rules: &[Placed<Rule>]) {
    let takes = |rule: &Rule, kind| rule.issuer == *issuer && rule.who.kind.is_none_or(|only| only == kind);
    for people in rules.iter().filter(|rule| takes(&rule.value, CallerKind::User)) {
        let provider = people.value.how.provider();
        let software =
            |rule: &&Placed<Rule>| takes(&rule.value, CallerKind::App) && rule.value.how.provider() == provider;
        if let Some(software) = rules.iter().find(software) {
            let reason = format!(
                "gives the provider of {} to software too, whose tokens cannot be traded: a provider that takes those \
                 takes people's untraded ones, unless its condition tells them apart; give each kind its own",
                software.key
            );
            section.report.warning(people.at, &format!("{}.grant.provider", people.key), &reason);
        }
    }
}

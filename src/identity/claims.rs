//! The claims of a v2.0 access token, checked at a time: [`Claims`] and a configured issuer in, facts out.
//!
//! Claims: Microsoft identity platform, "Access token claims reference". Times are `NumericDate`s (RFC 7519 §2),
//! compared with the time that is handed in and with [`LEEWAY`]. Pure: no I/O, no clock.

use super::jws::Claims;
use super::{CallerKind, Error, IdentityFacts, IssuerConfig};
use crate::names::TenantId;
use crate::time::{Timestamp, from_unix, later};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// How far our clock and Entra's may differ.
pub const LEEWAY: Duration = Duration::from_secs(60);
/// The longest single claim that is carried on, in bytes.
pub const MAX_CLAIM_BYTES: usize = 1024;
/// The most top-level claims of a token.
pub const MAX_CLAIMS: usize = 256;
/// The most entries of `groups` or `roles`; Entra itself ends at 200 groups.
pub const MAX_LIST_ENTRIES: usize = 1000;

/// String claims that never name a database user: protocol fields, and what people, guests among them, can set
/// for themselves ("Claims validation": never use mutable claims for authorization).
pub const NO_SUBJECTS: [&str; 19] = [
    "email",
    "name",
    "given_name",
    "family_name",
    "nickname",
    "preferred_username",
    "unique_name",
    "iss",
    "aud",
    "tid",
    "azp",
    "azpacr",
    "ver",
    "idp",
    "idtyp",
    "scp",
    "aio",
    "rh",
    "uti",
];

/// Checks every claim that matters, from whose token it is to whom it names.
pub(super) fn check(claims: &Claims, issuer: &IssuerConfig, now: Timestamp) -> Result<IdentityFacts, Error> {
    if claims.len() > MAX_CLAIMS {
        return Err(Error::NotAToken);
    }
    check_origin(claims, issuer)?;
    let (issued_at, expires_at) = check_times(claims, now)?;
    let object_id = guid(claims, "oid")?;
    let app = check_app(claims, issuer)?;
    let kind = kind(claims)?;
    if !issuer.allowed_kinds.is_empty() && !issuer.allowed_kinds.contains(&kind) {
        return Err(Error::Kind(kind));
    }
    Ok(IdentityFacts {
        issuer: issuer.name.clone(),
        issuer_url: issuer.url(),
        tenant: issuer.tenant,
        label: label(claims, kind, &object_id, &app),
        object_id,
        kind,
        guest: kind == CallerKind::User && is_guest(claims, issuer)?,
        app,
        groups: groups(claims)?,
        roles: list(claims, "roles")?,
        claims: subjects(claims),
        token_id: usable(claims.get("uti")).map(str::to_owned),
        issued_at,
        expires_at,
    })
}

/// `iss`, `tid`, `ver` and `aud`: exact strings, never arrays or prefixes.
fn check_origin(claims: &Claims, issuer: &IssuerConfig) -> Result<(), Error> {
    if text(claims, "iss")? != issuer.url() {
        return Err(Error::Issuer);
    }
    match TenantId::parse(text(claims, "tid")?) {
        Ok(tenant) if tenant == issuer.tenant => {}
        _ => return Err(Error::Issuer),
    }
    if text(claims, "ver")? != "2.0" {
        return Err(Error::Version);
    }
    if text(claims, "aud")? == issuer.audience { Ok(()) } else { Err(Error::Audience) }
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(Timestamp, Timestamp), Error> {
    let (expires, begins, issued) = (time(claims, "exp")?, time(claims, "nbf")?, time(claims, "iat")?);
    if now >= later(expires, LEEWAY) {
        return Err(Error::Expired(expires));
    }
    if begins > later(now, LEEWAY) || issued > later(now, LEEWAY) {
        return Err(Error::NotYetValid);
    }
    Ok((issued, expires))
}

fn check_app(claims: &Claims, issuer: &IssuerConfig) -> Result<String, Error> {
    let app = guid(claims, "azp")?;
    let allowed = issuer.allowed_apps.is_empty() || issuer.allowed_apps.iter().any(|a| a.eq_ignore_ascii_case(&app));
    if allowed { Ok(app) } else { Err(Error::App(app)) }
}

/// `idtyp` decides where the app registration emits it; else delegated tokens alone carry `scp`.
/// A token that says both is neither.
fn kind(claims: &Claims) -> Result<CallerKind, Error> {
    let delegated = match claims.get("scp") {
        None => false,
        Some(Value::String(scopes)) if !scopes.trim().is_empty() => true,
        Some(_) => return Err(Error::Claim("scp")),
    };
    match (claims.get("idtyp").map(Value::as_str), delegated) {
        (Some(Some("app")) | None, false) => Ok(CallerKind::App),
        (Some(Some("user")) | None, true) => Ok(CallerKind::User),
        (Some(Some("user")), false) => Err(Error::Claim("scp")),
        (Some(_), _) => Err(Error::Claim("idtyp")),
    }
}

/// A guest says `acct` 1, or comes from another identity provider, or has a guest's user name. Any sign suffices.
fn is_guest(claims: &Claims, issuer: &IssuerConfig) -> Result<bool, Error> {
    let account = match claims.get("acct") {
        None => false,
        Some(Value::Number(number)) => number.as_i64() != Some(0),
        Some(Value::String(number)) => number != "0",
        Some(_) => return Err(Error::Claim("acct")),
    };
    let own = [issuer.url(), format!("https://sts.windows.net/{}/", issuer.tenant)];
    let foreign = match claims.get("idp") {
        None => false,
        Some(Value::String(provider)) => !own.contains(provider),
        Some(_) => return Err(Error::Claim("idp")),
    };
    let named = usable(claims.get("upn")).is_some_and(|upn| upn.to_ascii_uppercase().contains("#EXT#"));
    Ok(account || foreign || named)
}

/// An overage (`_claim_names.groups`, `hasgroups`) is "unknown", never "none" ("Groups overage claim").
fn groups(claims: &Claims) -> Result<Option<Vec<String>>, Error> {
    let elsewhere = claims.get("_claim_names").is_some_and(|names| names.get("groups").is_some() || !names.is_object());
    if elsewhere || claims.contains_key("hasgroups") { Ok(None) } else { list(claims, "groups") }
}

fn label(claims: &Claims, kind: CallerKind, object_id: &str, app: &str) -> String {
    let named = match kind {
        CallerKind::User => ["upn", "preferred_username"].as_slice(),
        CallerKind::App => ["app_displayname"].as_slice(),
    };
    let unnamed = match kind {
        CallerKind::User => object_id,
        CallerKind::App => app,
    };
    named.iter().find_map(|name| usable(claims.get(*name))).unwrap_or(unnamed).to_owned()
}

fn subjects(claims: &Claims) -> BTreeMap<String, String> {
    let named =
        claims.iter().filter(|(name, _)| !NO_SUBJECTS.contains(&name.as_str()) && name.len() <= MAX_CLAIM_BYTES);
    named.filter_map(|(name, value)| Some((name.clone(), usable(Some(value))?.to_owned()))).collect()
}

/// A string that can be shown and compared: not empty, not long, without control characters.
fn usable(value: Option<&Value>) -> Option<&str> {
    let text = value?.as_str()?;
    let fits = !text.is_empty() && text.len() <= MAX_CLAIM_BYTES && !text.chars().any(char::is_control);
    fits.then_some(text)
}

fn text<'c>(claims: &'c Claims, name: &'static str) -> Result<&'c str, Error> {
    claims.get(name).and_then(Value::as_str).ok_or(Error::Claim(name))
}

/// A GUID in its canonical spelling, so that one identity has one name.
fn guid(claims: &Claims, name: &'static str) -> Result<String, Error> {
    let text = text(claims, name)?;
    match Uuid::try_parse(text) {
        Ok(id) if text.len() == 36 => Ok(id.hyphenated().to_string()),
        _ => Err(Error::Claim(name)),
    }
}

fn time(claims: &Claims, name: &'static str) -> Result<Timestamp, Error> {
    claims.get(name).and_then(Value::as_i64).and_then(from_unix).ok_or(Error::Claim(name))
}

fn list(claims: &Claims, name: &'static str) -> Result<Option<Vec<String>>, Error> {
    let entries = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Array(entries)) if entries.len() <= MAX_LIST_ENTRIES => entries,
        Some(_) => return Err(Error::Claim(name)),
    };
    let texts = entries.iter().map(|entry| usable(Some(entry)).map(str::to_owned));
    texts.collect::<Option<Vec<String>>>().map(Some).ok_or(Error::Claim(name))
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;

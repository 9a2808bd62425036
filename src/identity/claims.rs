//! What a token whose signature holds says of its caller: claims, a configured issuer and a time in, facts out.
//!
//! Times are `NumericDate`s (RFC 7519 §2), compared with the time that is handed in and with the issuer's leeway. A
//! claim of another type than expected is an error, never absent. Pure: no I/O, no clock.

mod entra;
mod oidc;

pub use entra::managed_identity;

use super::jws::Claims;
use super::{CallerKind, Dialect, Error, IdentityFacts, IssuerConfig};
use crate::time::{Timestamp, from_unix, later};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The longest single claim that is carried on, in bytes.
pub const MAX_CLAIM_BYTES: usize = 1024;
/// The most top-level claims of a token.
pub const MAX_CLAIMS: usize = 256;
/// The most entries of `groups` or `roles`; Entra itself ends at 200 groups.
pub const MAX_LIST_ENTRIES: usize = 1000;

/// String claims that never name a database user: protocol fields, and what people, guests among them, can set
/// for themselves ("Claims validation": never use mutable claims for authorization).
pub const NO_SUBJECTS: [&str; 22] = [
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
    "appid",
    "appidacr",
    "ver",
    "idp",
    "idtyp",
    "scp",
    "aio",
    "rh",
    "uti",
    "jti",
];

/// Checks every claim that matters, from whose token it is to whom it names.
pub(super) fn check(claims: &Claims, issuer: &IssuerConfig, now: Timestamp) -> Result<IdentityFacts, Error> {
    if claims.len() > MAX_CLAIMS {
        return Err(Error::NotAToken);
    }
    match &issuer.dialect {
        Dialect::Entra(entra) => entra::check(claims, issuer, entra, now),
        Dialect::Oidc(oidc) => oidc::check(claims, issuer, oidc, now),
    }
}

/// `iat` and `exp`, once they, `nbf` and the token's age are right. Where `nbf` may be absent, `iat` stands for it.
fn times(claims: &Claims, issuer: &IssuerConfig, now: Timestamp) -> Result<(Timestamp, Timestamp), Error> {
    let (ends, since) = (time(claims, "exp")?, time(claims, "iat")?);
    let begins = match (&issuer.dialect, claims.get("nbf")) {
        (Dialect::Oidc(_), None) => since,
        _ => time(claims, "nbf")?,
    };
    if now >= later(ends, issuer.leeway) {
        return Err(Error::Expired(ends));
    }
    if begins > later(now, issuer.leeway) || since > later(now, issuer.leeway) {
        return Err(Error::NotYetValid);
    }
    match issuer.max_token_age {
        Some(most) if now > later(later(since, most), issuer.leeway) => Err(Error::TooOld(since)),
        _ => Ok((since, ends)),
    }
}

/// Whether this client app and this kind of caller may present tokens here. An absent app is none that is allowed. Ids are
/// compared exactly: another provider's may differ in case alone, and Entra's are lower case in the config and here.
pub(super) fn check_caller(issuer: &IssuerConfig, app: &str, kind: CallerKind) -> Result<(), Error> {
    let allowed = issuer.allowed_apps.is_empty() || issuer.allowed_apps.iter().any(|allowed| allowed == app);
    if !allowed {
        return Err(Error::App(app.to_owned()));
    }
    let accepted = issuer.allowed_kinds.is_empty() || issuer.allowed_kinds.contains(&kind);
    if accepted { Ok(()) } else { Err(Error::Kind(kind)) }
}

/// One audience, written as a string or as a list of one: a token for several is good at several.
pub(super) fn one_audience(aud: Option<&Value>) -> Option<&str> {
    match aud? {
        Value::String(audience) => Some(audience),
        Value::Array(audiences) => match audiences.as_slice() {
            [one] => one.as_str(),
            _ => None,
        },
        _ => None,
    }
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
    claims.get(name).and_then(Value::as_str).ok_or(Error::Claim(name.into()))
}

/// A GUID in its canonical spelling, so that one identity has one name.
fn guid(claims: &Claims, name: &'static str) -> Result<String, Error> {
    let text = text(claims, name)?;
    match Uuid::try_parse(text) {
        Ok(id) if text.len() == 36 => Ok(id.hyphenated().to_string()),
        _ => Err(Error::Claim(name.into())),
    }
}

fn time(claims: &Claims, name: &'static str) -> Result<Timestamp, Error> {
    claims.get(name).and_then(Value::as_i64).and_then(from_unix).ok_or(Error::Claim(name.into()))
}

fn list(claims: &Claims, name: &str) -> Result<Option<Vec<String>>, Error> {
    let wrong = || Error::Claim(name.to_owned().into());
    let entries = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Array(entries)) if entries.len() <= MAX_LIST_ENTRIES => entries,
        Some(_) => return Err(wrong()),
    };
    let texts = entries.iter().map(|entry| usable(Some(entry)).map(str::to_owned));
    texts.collect::<Option<Vec<String>>>().map(Some).ok_or_else(wrong)
}

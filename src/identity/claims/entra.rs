//! The claims of Entra's access tokens, v1.0 and v2.0.
//!
//! Source: Microsoft identity platform, "Access token claims reference", "Optional claims reference", "Secure
//! applications and APIs by validating claims". The two versions differ in `iss`, `aud` and the client app's name.

use super::super::jws::Claims;
use super::super::{CallerKind, Entra, Error, IdentityFacts, IssuerConfig, Version};
use super::{check_caller, guid, list, subjects, text, times, usable};
use crate::names::TenantId;
use crate::time::Timestamp;
use serde_json::Value;

pub(super) fn check(
    claims: &Claims,
    issuer: &IssuerConfig,
    entra: &Entra,
    now: Timestamp,
) -> Result<IdentityFacts, Error> {
    check_origin(claims, issuer, entra)?;
    let (issued_at, expires_at) = times(claims, issuer, now)?;
    let object_id = guid(claims, "oid")?;
    let app = guid(claims, client_claim(entra.version))?;
    let kind = kind(claims)?;
    check_caller(issuer, &app, kind)?;
    let roles = list(claims, "roles")?;
    check_permissions(claims, entra, kind, roles.as_deref())?;
    let overage = overage(claims);
    let mut subjects = subjects(claims);
    subjects.insert("oid".to_owned(), object_id.clone());
    Ok(IdentityFacts {
        issuer: issuer.name.clone(),
        issuer_url: issuer.url(),
        tenant: entra.tenant.into(),
        label: label(claims, kind, &object_id, &app),
        object_id,
        kind,
        guest: kind == CallerKind::User && is_guest(claims, entra)?,
        app,
        groups: if overage { None } else { list(claims, "groups")? },
        overage,
        asked_groups: None,
        roles,
        claims: subjects,
        token_id: usable(claims.get("uti")).map(str::to_owned),
        issued_at,
        expires_at,
    })
}

/// `iss`, `tid`, `ver` and `aud`: exact strings, never arrays or prefixes. `tid` is the tenant that `iss` names.
fn check_origin(claims: &Claims, issuer: &IssuerConfig, entra: &Entra) -> Result<(), Error> {
    if text(claims, "iss")? != issuer.url() {
        return Err(Error::Issuer);
    }
    match TenantId::parse(text(claims, "tid")?) {
        Ok(tenant) if tenant == entra.tenant => {}
        _ => return Err(Error::Issuer),
    }
    match text(claims, "ver")? {
        version if version == entra.version.as_str() => {}
        "1.0" => return Err(Error::Version(Version::V1)),
        "2.0" => return Err(Error::Version(Version::V2)),
        _ => return Err(Error::Claim("ver".into())),
    }
    if issuer.accepts_audience(text(claims, "aud")?) { Ok(()) } else { Err(Error::Audience) }
}

fn client_claim(version: Version) -> &'static str {
    match version {
        Version::V1 => "appid",
        Version::V2 => "azp",
    }
}

/// `idtyp` decides where the app registration emits it; else delegated tokens alone carry `scp`.
/// A token that says both is neither.
fn kind(claims: &Claims) -> Result<CallerKind, Error> {
    let delegated = match claims.get("scp") {
        None => false,
        Some(Value::String(scopes)) if !scopes.trim().is_empty() => true,
        Some(_) => return Err(Error::Claim("scp".into())),
    };
    match (claims.get("idtyp").map(Value::as_str), delegated) {
        (Some(Some("app")) | None, false) => Ok(CallerKind::App),
        (Some(Some("user")) | None, true) => Ok(CallerKind::User),
        (Some(Some("user")), false) => Err(Error::Claim("scp".into())),
        (Some(_), _) => Err(Error::Claim("idtyp".into())),
    }
}

/// What the API itself asks for: a scope of people, an app role of software. Any identity of a tenant gets a token for
/// any of its APIs ("Managed identities": without a grant), so that the audience alone says little.
fn check_permissions(claims: &Claims, entra: &Entra, kind: CallerKind, roles: Option<&[String]>) -> Result<(), Error> {
    let scopes = || claims.get("scp").and_then(Value::as_str).unwrap_or_default().split(' ');
    let (claim, asked, held) = match kind {
        CallerKind::User => ("scp", &entra.required_scopes, scopes().collect::<Vec<_>>()),
        CallerKind::App => {
            ("roles", &entra.required_roles, roles.unwrap_or_default().iter().map(String::as_str).collect())
        }
    };
    let has = asked.is_empty() || held.iter().any(|held| asked.iter().any(|asked| asked == held));
    if has { Ok(()) } else { Err(Error::Permission(claim)) }
}

/// A guest says `acct` 1, or comes from another identity provider, or has a guest's user name. Any sign suffices.
fn is_guest(claims: &Claims, entra: &Entra) -> Result<bool, Error> {
    let account = match claims.get("acct") {
        None => false,
        Some(Value::Number(number)) => number.as_i64() != Some(0),
        Some(Value::String(number)) => number != "0",
        Some(_) => return Err(Error::Claim("acct".into())),
    };
    let foreign = match claims.get("idp") {
        None => false,
        Some(Value::String(provider)) => *provider != entra.v2_url() && *provider != entra.v1_url(),
        Some(_) => return Err(Error::Claim("idp".into())),
    };
    let named = usable(claims.get("upn")).is_some_and(|upn| upn.to_ascii_uppercase().contains("#EXT#"));
    Ok(account || foreign || named)
}

/// The groups did not fit into the token (`_claim_names.groups`, `hasgroups`): "unknown", never "none" ("Groups overage
/// claim"). The address that such a token carries is not followed.
fn overage(claims: &Claims) -> bool {
    let elsewhere = claims.get("_claim_names").is_some_and(|names| names.get("groups").is_some() || !names.is_object());
    elsewhere || claims.contains_key("hasgroups")
}

/// A name to show: a person's user name; an app's, or the last part of a managed identity's resource id.
fn label(claims: &Claims, kind: CallerKind, object_id: &str, app: &str) -> String {
    let claim = |name: &str| usable(claims.get(name)).map(str::to_owned);
    match kind {
        CallerKind::User => {
            let name = ["upn", "preferred_username", "unique_name"].into_iter().find_map(claim);
            name.unwrap_or_else(|| object_id.to_owned())
        }
        CallerKind::App => {
            let identity = || usable(claims.get("xms_mirid")).and_then(managed_identity).map(str::to_owned);
            claim("app_displayname").or_else(identity).unwrap_or_else(|| app.to_owned())
        }
    }
}

/// The name in a managed identity's resource id (`xms_mirid`): the last part of
/// `/subscriptions/…/providers/PROVIDER/TYPE/NAME`.
pub fn managed_identity(resource: &str) -> Option<&str> {
    let (_, path) = resource.split_once("/providers/")?;
    let mut parts = path.split('/');
    let (_provider, _kind, name) = (parts.next()?, parts.next()?, parts.next_back()?);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
#[path = "entra_tests.rs"]
mod tests;

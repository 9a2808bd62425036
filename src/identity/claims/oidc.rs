//! The claims of any other `OpenID` provider's tokens, read as the config maps them.
//!
//! RFC 7519, `OpenID` Connect Core 1.0 §2, RFC 9068. Whoever the provider lets in is who the claims say, so the config
//! names a subject claim that the provider assigns, and the claims that must have one value.

use super::super::jws::Claims;
use super::super::{CallerKind, Error, IdentityFacts, IssuerConfig, KindRule, Oidc};
use super::{check_caller, list, one_audience, subjects, text, times, usable};
use crate::time::Timestamp;
use serde_json::Value;

pub(super) fn check(
    claims: &Claims,
    issuer: &IssuerConfig,
    oidc: &Oidc,
    now: Timestamp,
) -> Result<IdentityFacts, Error> {
    if text(claims, "iss")? != oidc.url {
        return Err(Error::Issuer);
    }
    let audience = one_audience(claims.get("aud")).ok_or(Error::Claim("aud".into()))?;
    if !issuer.accepts_audience(audience) {
        return Err(Error::Audience);
    }
    let (issued_at, expires_at) = times(claims, issuer, now)?;
    let wrong = |name: &str| Error::Claim(name.to_owned().into());
    if let Some((name, _)) = oidc.required_claims.iter().find(|(name, value)| !says(claims.get(*name), value)) {
        return Err(wrong(name));
    }
    let subject = usable(claims.get(&oidc.subject_claim)).ok_or_else(|| wrong(&oidc.subject_claim))?;
    let optional = |name: &Option<String>| match name.as_ref().map(|name| (name, claims.get(name))) {
        None | Some((_, None)) => Ok(None),
        Some((name, value)) => usable(value).map(str::to_owned).map(Some).ok_or_else(|| wrong(name)),
    };
    let several = |name: &Option<String>| name.as_ref().map_or(Ok(None), |name| list(claims, name));
    let app = optional(&oidc.app_claim)?.unwrap_or_default();
    let kind = kind(claims, &oidc.kind)?;
    check_caller(issuer, &app, kind)?;
    Ok(IdentityFacts {
        issuer: issuer.name.clone(),
        issuer_url: oidc.url.clone(),
        tenant: oidc.tenant.clone(),
        object_id: subject.to_owned(),
        kind,
        guest: false,
        label: optional(&oidc.label_claim)?.unwrap_or_else(|| subject.to_owned()),
        app,
        groups: several(&oidc.groups_claim)?,
        overage: false,
        asked_groups: None,
        roles: several(&oidc.roles_claim)?,
        claims: subjects(claims),
        token_id: usable(claims.get(&oidc.token_id_claim)).map(str::to_owned),
        issued_at,
        expires_at,
    })
}

/// A required value: a string, or `true` and `false` as the config writes them.
fn says(value: Option<&Value>, required: &str) -> bool {
    match value {
        Some(Value::String(text)) => text == required,
        Some(Value::Bool(flag)) => required == if *flag { "true" } else { "false" },
        _ => false,
    }
}

/// A claim that marks people must be a value that says something, so that `null` or `""` makes nobody a person.
fn kind(claims: &Claims, rule: &KindRule) -> Result<CallerKind, Error> {
    match rule {
        KindRule::Always(kind) => Ok(*kind),
        KindRule::UserClaim(name) => match claims.get(name) {
            None => Ok(CallerKind::App),
            value if usable(value).is_some() => Ok(CallerKind::User),
            _ => Err(Error::Claim(name.clone().into())),
        },
    }
}

#[cfg(test)]
#[path = "oidc_tests.rs"]
mod tests;

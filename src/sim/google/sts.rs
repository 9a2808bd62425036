//! Google STS: `POST /v1/token` exchanges an Entra token for a federated access token (RFC 8693).
//!
//! Rules and error texts: Google's STS reference (`sts.googleapis.com` v1, `token`) and "Troubleshoot Workload
//! Identity Federation". The texts for a wrong issuer, a wrong signature, missing fields and a missing
//! `sub` are assumptions.

use super::errors::bearer;
use super::iam::{Permission, Principal, pool_of};
use super::tokens::Issued;
use super::{CLOUD_PLATFORM, Google, IAM_SCOPE};
use crate::federation::{ADMIN_SCOPE, LOGIN_SCOPE};
use crate::sim::entra::{Members, read};
use crate::sim::world::{self, CONTOSO, PROXY_API, Tenant};
use crate::time::{Timestamp, from_unix, later};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// `google.subject` may have this many bytes.
const MAX_SUBJECT_BYTES: usize = 127;
/// `options.userProject` may have this many characters.
const MAX_USER_PROJECT: usize = 32;
/// A subject token may be this old, in seconds.
const MAX_AGE: i64 = 24 * 3600;
/// How far a subject token's `iat` may lie ahead, in seconds (an assumption; clocks differ).
const MAX_AHEAD: i64 = 60;
/// Lifetime of a federated token (workforce pools: the default session duration).
const LIFETIME: Duration = Duration::from_secs(3600);

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// Attribute conditions of Contoso's providers, as the README's quick start sets them.
const PEOPLE: &[(&str, &str)] = &[("tid", CONTOSO.id), ("idtyp", "user")];
const SOFTWARE: &[(&str, &str)] = &[("tid", CONTOSO.id), ("idtyp", "app")];
const OWN: &[(&str, &str)] = &[("tid", CONTOSO.id), ("oid", world::OWN_OBJECT_ID)];
/// v1.0 tokens name the App ID URI as the client asked for it: without a slash, or with one.
const V1_AUDIENCES: &[&str] = &[world::PROXY_API_URI, "api://pgpassport/"];

type Answer<T> = Result<T, (StatusCode, Json<Value>)>;

/// A pool provider: whose tokens it takes and what it makes of them.
struct PoolProvider {
    name: &'static str,
    /// Whose keys sign for it: an Entra tenant, or else the partner.
    tenant: Option<Tenant>,
    issuer: String,
    /// `allowedAudiences`, or a workforce provider's `clientId`; compared exactly.
    audiences: &'static [&'static str],
    /// The attribute condition: `assertion.CLAIM == 'VALUE'` of each.
    condition: &'static [(&'static str, &'static str)],
    /// What stands in front of the claim in the mapping of `google.subject`.
    prefix: &'static str,
    /// The claim mapped to `google.subject`.
    subject: &'static str,
    /// `assertion.azp == '…'` in the attribute condition.
    azp: Option<&'static str>,
}

/// `POST /v1/token`
pub(super) async fn token(State(google): State<Arc<Google>>, headers: HeaderMap, body: Bytes) -> Answer<Json<Value>> {
    if bearer(&headers).is_some() || headers.contains_key(header::AUTHORIZATION) {
        return refused("invalid_request", "The request must not carry an Authorization header.");
    }
    let fields = fields(&headers, &body)?;
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    if field("grant_type") != GRANT {
        return refused("unsupported_grant_type", "The grant type is not supported.");
    }
    if field("requested_token_type") != ACCESS_TOKEN {
        return refused("invalid_request", "Invalid value for \"requested_token_type\".");
    }
    if ![JWT, ID_TOKEN].contains(&field("subject_token_type")) {
        return refused("invalid_request", "Invalid value for \"subject_token_type\".");
    }
    let Some(provider) = google.here(field("audience")).and_then(|name| google.provider(&name)) else {
        return refused(
            "invalid_target",
            "The target service indicated by the \"audience\" parameters is invalid. This might either be because \
             the pool or provider is disabled or deleted or because it doesn't exist.",
        );
    };
    let scopes = scopes(field("scope"))?;
    let claims = google.check(&provider, field("subject_token"))?;
    let principal = principal(&provider, &claims)?;
    google.check_options(field("options"), &principal)?;
    let now = google.clock.now();
    let expires_at = expiry(&provider, &claims, now);
    let lifetime = expires_at.as_second() - now.as_second() - 1;
    let issued = Issued { principal, scopes, expires_at };
    let token = crate::sim::lock(&google.tokens).issue("ya29.d.", issued, now);
    Ok(Json(json!({
        "access_token": token, "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": lifetime,
    })))
}

impl Google {
    fn provider(&self, audience: &str) -> Option<PoolProvider> {
        let v2 = self.issuers.entra.issuer_v2(CONTOSO);
        let v1 = self.issuers.entra.issuer_v1(CONTOSO);
        let provider = |name, issuer, audiences, condition, subject| PoolProvider {
            name,
            tenant: Some(CONTOSO),
            issuer,
            audiences,
            condition,
            prefix: "",
            subject,
            azp: None,
        };
        let partner = PoolProvider {
            name: world::PARTNER_PROVIDER,
            tenant: None,
            issuer: self.issuers.oidc.issuer().to_owned(),
            audiences: &[world::PARTNER_API],
            condition: &[("org", "northwind")],
            prefix: world::PARTNER_PREFIX,
            subject: "uid",
            azp: None,
        };
        let traded = PoolProvider {
            azp: Some(PROXY_API),
            ..provider(world::WORKFORCE_PROVIDER_OBO, v2.clone(), &[world::SECOND_API], PEOPLE, "upn")
        };
        if crate::sim::lock(&self.disabled).contains(audience) {
            return None;
        }
        [
            provider(world::WORKLOAD_PROVIDER, v2.clone(), &[PROXY_API], SOFTWARE, "oid"),
            provider(world::WORKLOAD_PROVIDER_V1, v1, V1_AUDIENCES, SOFTWARE, "oid"),
            provider(world::WORKFORCE_PROVIDER, v2.clone(), &[PROXY_API], PEOPLE, "upn"),
            provider(world::OWN_PROVIDER, v2, &[world::OWN_AUDIENCE], OWN, "sub"),
            partner,
            traded,
        ]
        .into_iter()
        .find(|provider| provider.name == audience)
    }

    /// Checks a subject token; returns its claims.
    fn check(&self, provider: &PoolProvider, token: &str) -> Answer<Members> {
        let Some((header, claims)) = read(token) else {
            return refused("invalid_request", "Unable to parse the ID Token.");
        };
        let alg = header.get("alg").and_then(Value::as_str).unwrap_or_default();
        if !["RS256", "ES256"].contains(&alg) || !header.contains_key("kid") {
            return refused(
                "invalid_grant",
                "The ID Token's header must have \"kid\" and an \"alg\" of RS256 or ES256.",
            );
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("iss") != provider.issuer {
            let expected = &provider.issuer;
            return refused(
                "invalid_grant",
                &format!("The issuer in ID Token {} does not match the expected one {expected}.", text("iss")),
            );
        }
        let signed = match provider.tenant {
            Some(tenant) => self.issuers.entra.signed(tenant, token),
            None => self.issuers.oidc.signed(token),
        };
        if !signed {
            return refused("invalid_grant", "The signature of the ID Token is invalid.");
        }
        if text("sub").is_empty() {
            return refused("invalid_grant", "The ID Token must have the claim \"sub\".");
        }
        if !provider.audiences.contains(&text("aud")) {
            return refused(
                "invalid_grant",
                &format!("The audience in ID Token [{}] does not match the expected audience.", text("aud")),
            );
        }
        let time = |name: &str| claims.get(name).and_then(Value::as_i64);
        let now = self.clock.now().as_second();
        let issued = time("iat").unwrap_or_default();
        let fresh = issued <= now + MAX_AHEAD && now - issued <= MAX_AGE && time("exp").is_some_and(|exp| exp > now);
        if !fresh {
            return refused("invalid_grant", &format!("ID Token issued at {issued} is stale to sign-in."));
        }
        let unmet = provider.condition.iter().any(|(claim, value)| text(claim) != *value);
        if unmet || provider.azp.is_some_and(|azp| text("azp") != azp) {
            return refused("unauthorized_client", "The given credential is rejected by the attribute condition.");
        }
        Ok(claims)
    }

    /// `options.userProject`: whoever names a quota project needs `serviceusage.services.use` on it.
    fn check_options(&self, options: &str, principal: &Principal) -> Answer<()> {
        let Some(options) = parse_options(options)? else { return Ok(()) };
        let Some(project) = options.get("userProject").and_then(Value::as_str) else { return Ok(()) };
        if project.chars().count() > MAX_USER_PROJECT {
            return refused("invalid_request", "Invalid value for \"userProject\".");
        }
        let known = [world::PROJECT, world::PROJECT_NUMBER].contains(&project);
        if !known || !self.allows(principal, Permission::ServicesUse) {
            let text = format!("The caller does not have permission to use project {project}.");
            return refused("unauthorized_client", &text);
        }
        Ok(())
    }
}

fn refused<T>(error: &str, description: &str) -> Answer<T> {
    Err((StatusCode::BAD_REQUEST, Json(json!({ "error": error, "error_description": description }))))
}

/// A form with `snake_case` names, or JSON with `camelCase` names.
fn fields(headers: &HeaderMap, body: &[u8]) -> Answer<HashMap<String, String>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/json") {
        let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
            return refused("invalid_request", "Invalid JSON payload received.");
        };
        let text = |value: Value| value.as_str().map(str::to_owned);
        return Ok(members.into_iter().filter_map(|(name, value)| Some((snake_case(&name), text(value)?))).collect());
    }
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return refused("invalid_request", "The request body must be a form or JSON.");
    }
    Ok(form_urlencoded(body))
}

fn snake_case(name: &str) -> String {
    name.chars().flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain(c.to_lowercase())).collect()
}

/// The fields of a form; none if any of them is broken.
fn form_urlencoded(body: &[u8]) -> HashMap<String, String> {
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name)?, decode(value)?))
    };
    let text = std::str::from_utf8(body).unwrap_or_default();
    text.split('&').filter(|part| !part.is_empty()).map(pair).collect::<Option<_>>().unwrap_or_default()
}

/// RFC 3986 §2.1; `None` for a broken escape or bytes that are not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Clients send the JSON as it is, or percent-encoded once more.
fn parse_options(options: &str) -> Answer<Option<Value>> {
    if options.is_empty() {
        return Ok(None);
    }
    let decoded = percent_decode(options).unwrap_or_default();
    match serde_json::from_str(options).or_else(|_| serde_json::from_str(&decoded)) {
        Ok(options @ Value::Object(_)) => Ok(Some(options)),
        _ => refused("invalid_request", "Invalid value for \"options\"."),
    }
}

fn scopes(text: &str) -> Answer<Vec<String>> {
    let scopes: Vec<String> = text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
    if scopes.is_empty() {
        return refused("invalid_scope", "The \"scope\" parameter is required.");
    }
    let known = [CLOUD_PLATFORM, IAM_SCOPE, ADMIN_SCOPE, LOGIN_SCOPE];
    match scopes.iter().find(|scope| !known.contains(&scope.as_str())) {
        None => Ok(scopes),
        Some(unknown) => refused("invalid_scope", &format!("Some requested scopes were invalid: [{unknown}]")),
    }
}

fn principal(provider: &PoolProvider, claims: &Members) -> Answer<Principal> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let Some(subject) = text(provider.subject).filter(|subject| !subject.is_empty()) else {
        return refused("invalid_grant", "Could not obtain a value for google.subject from the given credential.");
    };
    let subject = format!("{}{subject}", provider.prefix);
    if subject.len() > MAX_SUBJECT_BYTES {
        return refused(
            "invalid_request",
            "The size of mapped attribute google.subject exceeds the 127 bytes limit. Either modify your attribute \
             mapping or the incoming assertion to produce a mapped attribute that is less than 127 bytes.",
        );
    }
    let attribute = |name: &str| Some((name.to_owned(), text(name)?.to_owned()));
    let groups = claims.get("groups").and_then(Value::as_array).into_iter().flatten();
    Ok(Principal::Federated {
        pool: pool_of(provider.name).to_owned(),
        subject,
        groups: groups.filter_map(Value::as_str).map(str::to_owned).collect(),
        attributes: ["tid", "azp"].into_iter().filter_map(attribute).collect::<BTreeMap<_, _>>(),
    })
}

/// Workforce: the pool's session duration. Workload: an hour, and not beyond the subject token (an assumption).
fn expiry(provider: &PoolProvider, claims: &Members, now: Timestamp) -> Timestamp {
    let hour = later(now, LIFETIME);
    if provider.name.contains("/workforcePools/") {
        return hour;
    }
    let subject = claims.get("exp").and_then(Value::as_i64).and_then(from_unix);
    subject.map_or(hour, |end| end.min(hour))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_plain_or_encoded_once_more() {
        for text in [r#"{"userProject":"123"}"#, "%7B%22userProject%22%3A%22123%22%7D"] {
            let options = parse_options(text).unwrap().unwrap();
            assert_eq!(options["userProject"], "123", "{text}");
        }
        assert_eq!(parse_options("").unwrap(), None);
        assert!(parse_options("nonsense").is_err());
        assert!(parse_options("%zz").is_err());
    }

    #[test]
    fn json_names_become_form_names() {
        assert_eq!(snake_case("subjectTokenType"), "subject_token_type");
        assert_eq!(percent_decode("a%2Fb%"), None);
        assert_eq!(form_urlencoded(b"a=1+2&b=%2F")["b"], "/");
    }
}

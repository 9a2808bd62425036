//! The authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636), as Entra speaks it for people.
//!
//! Source: Microsoft identity platform, "OAuth 2.0 authorization code flow", and its list of AADSTS codes. A person
//! is signed in at once when `login_hint` names one, as with a browser that has a session; else a page asks.

use super::errors::{Refusal, Refuse, unknown_tenant};
use super::people::{PEOPLE, SignIn, public_client};
use super::tokens::Scope;
use super::{Entra, tenant};
use crate::sim::lock;
use crate::sim::world::{Person, Tenant};
use crate::time::{Timestamp, later};
use aws_lc_rs::digest;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// How long a code can be redeemed.
const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// Codes kept at a time; the simulator refuses more.
const MAX_CODES: usize = 1000;
/// What every redirect URI of the public client begins with; any port, as Entra has it for `http://localhost`.
const LOOPBACK: &str = "http://localhost";

/// A code that was given out.
#[derive(Debug)]
pub(super) struct Code {
    sign_in: SignIn,
    redirect_uri: String,
    challenge: Option<Challenge>,
    expires_at: Timestamp,
    redeemed: bool,
}

/// `code_challenge` with its method.
#[derive(Debug)]
enum Challenge {
    Plain(String),
    Sha256(String),
}

/// `GET /{tenant}/oauth2/v2.0/authorize`; the page's own buttons add `login_hint` and `decision`.
pub(super) async fn authorize(
    State(entra): State<Arc<Entra>>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let tenant = tenant(&name).ok_or_else(|| unknown_tenant(&name, &entra.clock));
    // Before the redirect URI is known to be the app's, errors stay on Entra's page.
    let request = match tenant.and_then(|tenant| Request::read(&entra, tenant, query)) {
        Ok(request) => request,
        Err(refusal) => return refusal.page(),
    };
    match request.query.get("login_hint") {
        None => request.ask(),
        Some(_) => match request.decide(&entra) {
            Ok(members) => request.answer(&members),
            Err(text) => (StatusCode::BAD_REQUEST, Html(text)).into_response(),
        },
    }
}

/// Answers `grant_type=authorization_code`. A code is good for one token.
pub(super) fn token(entra: &Entra, tenant: Tenant, form: &HashMap<String, String>) -> Result<Json<Value>, Refusal> {
    let refuse = Refuse::at(&entra.clock);
    let client = public_client(refuse, tenant, form)?;
    let code = form.get("code").ok_or_else(|| refuse.missing("code"))?;
    let redirect_uri = form.get("redirect_uri").ok_or_else(|| refuse.missing("redirect_uri"))?;
    let invalid_grant = |code, text: &str| Err(refuse.with(400, "invalid_grant", code, text));
    let mut codes = lock(&entra.codes);
    let Some(known) = codes.get_mut(code).filter(|c| c.sign_in.tenant == tenant && c.sign_in.client == *client) else {
        return invalid_grant(9_002_313, "Invalid request. Request is malformed or invalid.");
    };
    if known.redeemed {
        let text = "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an \
                    existing refresh token.";
        return invalid_grant(54_005, text);
    }
    if known.expires_at <= entra.clock.now() {
        let text = "The provided authorization code or refresh token has expired due to inactivity. Send a new \
                    interactive authorization request for this user and resource.";
        return invalid_grant(70_008, text);
    }
    if known.redirect_uri != *redirect_uri {
        let text = format!(
            "The reply address '{redirect_uri}' does not match the reply address '{}' provided when requesting \
             Authorization code.",
            known.redirect_uri
        );
        return Err(refuse.with(400, "invalid_client", 500_112, &text));
    }
    let verifier = form.get("code_verifier").map(String::as_str);
    if !verifies(known.challenge.as_ref(), verifier) {
        let text = "The Code_Verifier does not match the code_challenge supplied in the authorization request.";
        return invalid_grant(501_481, text);
    }
    if let Some(asked) = form.get("scope") {
        known.sign_in.scope.covers(refuse, &super::people::scope(refuse, tenant, asked)?)?;
    }
    known.redeemed = true;
    let sign_in = known.sign_in.clone();
    drop(codes);
    entra.signed_in(&sign_in).map(Json)
}

/// A request whose client, redirect URI and scope are known.
struct Request {
    tenant: Tenant,
    query: HashMap<String, String>,
    scope: Scope,
    redirect_uri: String,
}

impl Request {
    fn read(entra: &Entra, tenant: Tenant, query: HashMap<String, String>) -> Result<Self, Refusal> {
        let refuse = Refuse::at(&entra.clock);
        let client = public_client(refuse, tenant, &query)?;
        let redirect_uri = query.get("redirect_uri").ok_or_else(|| refuse.missing("redirect_uri"))?.clone();
        if !registered(&redirect_uri) {
            let text = format!(
                "The redirect URI '{redirect_uri}' specified in the request does not match the redirect URIs \
                 configured for the application '{client}'."
            );
            return Err(refuse.with(400, "invalid_request", 50_011, &text));
        }
        if query.get("response_type").map(String::as_str) != Some("code") {
            let text = "The response_type is not enabled for the application.";
            return Err(refuse.with(400, "unsupported_response_type", 700_054, text));
        }
        let asked = query.get("scope").ok_or_else(|| refuse.missing("scope"))?;
        let scope = super::people::scope(refuse, tenant, asked)?;
        Ok(Self { tenant, query, scope, redirect_uri })
    }

    /// What the person decided, as the members of the answer to the app; or what the page says instead.
    fn decide(&self, entra: &Entra) -> Result<Vec<(&'static str, String)>, &'static str> {
        let field = |name: &str| self.query.get(name).cloned();
        let login = field("login_hint").unwrap_or_default();
        let person = PEOPLE.into_iter().find(|person| person.upn == login && person.tenant == self.tenant);
        let Some(person) = person else { return Err("This username may be incorrect.\n") };
        if field("decision").as_deref() == Some("decline") {
            let text = "AADSTS65004: User declined to consent to access the app.".to_owned();
            return Ok(vec![("error", "access_denied".to_owned()), ("error_description", text)]);
        }
        let code = format!("1.{0}{0}{0}", uuid::Uuid::new_v4().simple());
        let mut codes = lock(&entra.codes);
        codes.retain(|_, known| later(known.expires_at, CODE_LIFETIME) > entra.clock.now());
        if codes.len() >= MAX_CODES {
            return Err("A transient error has occurred. Please try again.\n");
        }
        codes.insert(code.clone(), self.code(entra, person));
        Ok(vec![("code", code)])
    }

    fn code(&self, entra: &Entra, person: Person) -> Code {
        let field = |name: &str| self.query.get(name).cloned();
        let challenge = field("code_challenge").map(|challenge| match field("code_challenge_method").as_deref() {
            Some("S256") => Challenge::Sha256(challenge),
            _ => Challenge::Plain(challenge),
        });
        Code {
            sign_in: SignIn {
                tenant: self.tenant,
                person,
                client: field("client_id").unwrap_or_default(),
                scope: self.scope.clone(),
                nonce: field("nonce"),
            },
            redirect_uri: self.redirect_uri.clone(),
            challenge,
            expires_at: later(entra.clock.now(), CODE_LIFETIME),
            redeemed: false,
        }
    }

    /// Sends the browser back to the app, in the response mode that it asked for.
    fn answer(&self, members: &[(&str, String)]) -> Response {
        let state = self.query.get("state").map(|state| ("state", state.clone()));
        let members: Vec<_> = members.iter().cloned().chain(state).collect();
        match self.query.get("response_mode").map_or("query", String::as_str) {
            "form_post" => Html(form(&self.redirect_uri, "post", &members)).into_response(),
            mode => {
                let separator = if mode == "fragment" { '#' } else { '?' };
                let location = format!("{}{separator}{}", self.redirect_uri, encoded(&members));
                (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
            }
        }
    }

    /// The sign-in page, which asks again with the person's name.
    fn ask(&self) -> Response {
        let members: Vec<_> = self.query.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        Html(form("", "get", &members)).into_response()
    }
}

/// A public client's registration: `http://localhost` with any port.
fn registered(redirect_uri: &str) -> bool {
    let Some(rest) = redirect_uri.strip_prefix(LOOPBACK) else { return false };
    let rest = rest.trim_end_matches('/');
    rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// RFC 7636 §4.6; without a challenge no verifier is looked at.
fn verifies(challenge: Option<&Challenge>, verifier: Option<&str>) -> bool {
    match (challenge, verifier) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(Challenge::Plain(challenge)), Some(verifier)) => challenge == verifier,
        (Some(Challenge::Sha256(challenge)), Some(verifier)) => {
            *challenge == URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
        }
    }
}

/// A form with hidden members; a browser without scripts shows its button.
fn form(action: &str, method: &str, members: &[(&str, String)]) -> String {
    let mut page = format!("<!doctype html><title>Simulated sign-in</title><form method={method} action=\"{action}\">");
    for (name, value) in members {
        let _ = write!(page, "<input type=hidden name=\"{}\" value=\"{}\">", html(name), html(value));
    }
    if method == "get" {
        page.push_str("<input name=login_hint placeholder=user@tenant>");
    }
    page.push_str("<button>Continue</button></form>");
    page
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

/// `application/x-www-form-urlencoded`.
fn encoded(members: &[(&str, String)]) -> String {
    let pair = |(name, value): &(&str, String)| format!("{name}={}", percent_encoded(value));
    members.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// RFC 3986 §2.3: all but unreserved characters.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_must_hash_to_its_challenge() {
        // RFC 7636, appendix B.
        let challenge = Challenge::Sha256("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned());
        assert!(verifies(Some(&challenge), Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")));
        assert!(!verifies(Some(&challenge), Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK")));
        assert!(!verifies(Some(&challenge), None));
        let plain = Challenge::Plain("v".to_owned());
        assert!(verifies(Some(&plain), Some("v")) && !verifies(Some(&plain), Some("w")));
    }

    #[test]
    fn only_localhost_is_a_registered_redirect() {
        for (uri, expected) in [
            ("http://localhost", true),
            ("http://localhost:8400", true),
            ("http://localhost:8400/", true),
            ("http://localhost.evil.example", false),
            ("http://localhost:80@evil.example", false),
            ("https://localhost:8400", false),
            ("http://127.0.0.1:8400", false),
        ] {
            assert_eq!(registered(uri), expected, "{uri}");
        }
    }

    #[test]
    fn answers_cannot_break_out_of_their_place() {
        assert_eq!(encoded(&[("state", "a&b=c d#é".to_owned())]), "state=a%26b%3Dc%20d%23%C3%A9");
        assert!(!form("x", "post", &[("state", "\"><script>".to_owned())]).contains("<script>"));
    }
}

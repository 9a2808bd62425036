//! The device authorization grant (RFC 8628) as Entra speaks it, and the page that stands for the browser.
//!
//! Errors: Microsoft identity platform, "OAuth 2.0 device authorization grant", which has four, `slow_down` not among
//! them: whoever polls too often is told `authorization_pending` here too.

use super::errors::{Refusal, Refuse, unknown_tenant};
use super::people::{PEOPLE, SignIn, public_client, scope};
use super::tokens::Scope;
use super::{Entra, tenant};
use crate::sim::lock;
use crate::sim::world::{Person, Tenant};
use crate::time::{Timestamp, later};
use axum::Json;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a code can be approved.
const CODE_LIFETIME: Duration = Duration::from_secs(900);
/// Seconds that a client waits between polls.
const POLL_INTERVAL: u32 = 5;
/// Codes that wait at a time; the simulator refuses more.
const MAX_CODES: usize = 1000;

/// A sign-in that has begun.
#[derive(Debug)]
pub(super) struct Device {
    tenant: Tenant,
    user_code: String,
    scope: Scope,
    expires_at: Timestamp,
    decision: Decision,
}

#[derive(Debug, Clone, Copy)]
enum Decision {
    Pending,
    Approved(Person),
    Declined,
}

/// `POST /{tenant}/oauth2/v2.0/devicecode`
pub(super) async fn start(
    State(entra): State<Arc<Entra>>,
    Path(name): Path<String>,
    Form(form): Form<HashMap<String, String>>,
) -> Result<Json<Value>, Refusal> {
    let tenant = tenant(&name).ok_or_else(|| unknown_tenant(&name, &entra.clock))?;
    let refuse = Refuse::at(&entra.clock);
    public_client(refuse, tenant, &form)?;
    let scope = scope(refuse, tenant, form.get("scope").ok_or_else(|| refuse.missing("scope"))?)?;
    let device_code = format!("{0}{0}", uuid::Uuid::new_v4().simple());
    let user_code = user_code();
    let expires_at = later(entra.clock.now(), CODE_LIFETIME);
    let answer = json!({
        "user_code": user_code, "device_code": device_code, "expires_in": CODE_LIFETIME.as_secs(),
        "verification_uri": format!("{}/devicelogin", entra.base), "interval": POLL_INTERVAL,
        "message": format!(
            "To sign in, use a web browser to open the page {}/devicelogin and enter the code {user_code} to authenticate.",
            entra.base
        ),
    });
    let mut devices = lock(&entra.devices);
    devices.retain(|_, device| device.expires_at > entra.clock.now());
    if devices.len() >= MAX_CODES {
        return Err(refuse.with(429, "temporarily_unavailable", 90_033, "A transient error has occurred."));
    }
    devices.insert(device_code, Device { tenant, user_code, scope, expires_at, decision: Decision::Pending });
    Ok(Json(answer))
}

/// `POST /devicelogin` with `otc` (the user code), `login` (a user principal name) and `decision` (`approve` or
/// `decline`): what a person does in the browser.
pub(super) async fn approve(
    State(entra): State<Arc<Entra>>,
    Form(form): Form<HashMap<String, String>>,
) -> (StatusCode, &'static str) {
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let mut devices = lock(&entra.devices);
    let now = entra.clock.now();
    let waiting = devices.values_mut().find(|d| d.user_code == field("otc") && d.expires_at > now);
    let Some(device) = waiting else {
        return (StatusCode::BAD_REQUEST, "That code didn't work. Check the code and try again.\n");
    };
    let Some(person) = PEOPLE.into_iter().find(|p| p.upn == field("login") && p.tenant == device.tenant) else {
        return (StatusCode::BAD_REQUEST, "This username may be incorrect.\n");
    };
    device.decision = if field("decision") == "decline" { Decision::Declined } else { Decision::Approved(person) };
    (StatusCode::OK, "You have signed in. You may now close this window.\n")
}

/// `GET /devicelogin`
pub(super) async fn page() -> Html<&'static str> {
    Html(
        "<!doctype html><title>Simulated sign-in</title><form method=post><input name=otc placeholder=code>\
         <input name=login placeholder=user@tenant><button name=decision value=approve>Sign in</button>\
         <button name=decision value=decline>Decline</button></form>",
    )
}

/// Answers `grant_type=urn:ietf:params:oauth:grant-type:device_code`. A code is good for one token.
pub(super) fn token(entra: &Entra, tenant: Tenant, form: &HashMap<String, String>) -> Result<Json<Value>, Refusal> {
    let refuse = Refuse::at(&entra.clock);
    let client = public_client(refuse, tenant, form)?;
    let code = form.get("device_code").ok_or_else(|| refuse.missing("device_code"))?;
    let mut devices = lock(&entra.devices);
    let Some(device) = devices.get(code).filter(|device| device.tenant == tenant) else {
        let text = "The provided value for the input parameter 'device_code' is not valid.";
        return Err(refuse.with(400, "bad_verification_code", 70_000, text));
    };
    if device.expires_at <= entra.clock.now() {
        let text = "Verification code expired. Have the user retry the sign-in.";
        return Err(refuse.with(400, "expired_token", 70_019, text));
    }
    match device.decision {
        Decision::Pending => {
            let text = "OAuth 2.0 device flow error. Authorization is pending. Continue polling.";
            Err(refuse.with(400, "authorization_pending", 70_016, text))
        }
        Decision::Declined => {
            let text = "OAuth 2.0 device flow error. The end user denied the authorization request.";
            Err(refuse.with(400, "authorization_declined", 70_017, text))
        }
        Decision::Approved(person) => {
            let scope = device.scope.clone();
            devices.remove(code);
            drop(devices);
            let sign_in = SignIn { tenant, person, client: client.clone(), scope, nonce: None };
            entra.signed_in(&sign_in).map(Json)
        }
    }
}

/// Nine characters without those that are easily confused.
fn user_code() -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let random = uuid::Uuid::new_v4().into_bytes();
    random.iter().take(9).filter_map(|byte| ALPHABET.get(usize::from(byte & 31)).copied().map(char::from)).collect()
}

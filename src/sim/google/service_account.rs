//! Service accounts without federation: Google's token endpoint for their keys, and the metadata server.
//!
//! Sources: "Using OAuth 2.0 for Server to Server Applications" (RFC 7523 assertions and the refusals' texts), and
//! Compute Engine's "About VM metadata". Only the proxy's own account has a key or a machine here.

use super::tokens::Issued;
use super::{CLOUD_PLATFORM, Google, Principal};
use crate::sim::world::{OWN_SERVICE_ACCOUNT, PROJECT};
use crate::time::{Timestamp, from_unix};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::Json;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Lifetime of a token, and the longest of an assertion.
const LIFETIME: Duration = Duration::from_secs(3600);
/// How far an assertion's `iat` may lie ahead, in seconds.
const MAX_AHEAD: i64 = 60;
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

type Refused = (StatusCode, Json<Value>);

/// `POST /token` of `oauth2.googleapis.com`.
pub(super) async fn token(
    State(google): State<Arc<Google>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Result<Json<Value>, Refused> {
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if field("grant_type") != GRANT {
        return Err(refused("unsupported_grant_type", "Invalid grant_type"));
    }
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let claims = google.assertion(field("assertion"), &format!("https://{host}/token"))?;
    let scopes: Vec<String> =
        claims.get("scope").and_then(Value::as_str).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if scopes.is_empty() {
        return Err(refused("invalid_scope", "Empty or missing scope not allowed."));
    }
    Ok(Json(google.own_account_token(scopes)))
}

/// `GET …/service-accounts/default/token`
pub(super) async fn metadata_token(State(google): State<Arc<Google>>, headers: HeaderMap) -> Response {
    metadata(&headers, || Json(google.own_account_token(vec![CLOUD_PLATFORM.to_owned()])))
}

/// `GET …/project/project-id`
pub(super) async fn metadata_project(headers: HeaderMap) -> Response {
    metadata(&headers, || PROJECT)
}

/// Answers only who says `Metadata-Flavor: Google`, so that a redirected browser learns nothing.
fn metadata<Body: IntoResponse>(headers: &HeaderMap, body: impl FnOnce() -> Body) -> Response {
    let flavor = [("Metadata-Flavor", "Google")];
    if headers.get("metadata-flavor").and_then(|value| value.to_str().ok()) == Some("Google") {
        (flavor, body()).into_response()
    } else {
        (StatusCode::FORBIDDEN, flavor, "Missing Metadata-Flavor:Google header.").into_response()
    }
}

impl Google {
    fn own_account_token(&self, scopes: Vec<String>) -> Value {
        let now = self.clock.now();
        let expires_at = crate::time::later(now, LIFETIME);
        let issued =
            Issued { principal: Principal::ServiceAccount(OWN_SERVICE_ACCOUNT.to_owned()), scopes, expires_at };
        let token = crate::sim::lock(&self.tokens).issue("ya29.c.", issued, now);
        json!({ "access_token": token, "expires_in": LIFETIME.as_secs() - 1, "token_type": "Bearer" })
    }

    /// The claims of an assertion that the account's key has signed for this endpoint, now.
    fn assertion(&self, assertion: &str, audience: &str) -> Result<Value, Refused> {
        let signature = || refused("invalid_grant", "Invalid JWT Signature.");
        let (signed, mac) = assertion.rsplit_once('.').ok_or_else(signature)?;
        let claims = signed.split_once('.').and_then(|(_, claims)| decoded(claims)).ok_or_else(signature)?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| signature())?;
        let key = crate::sim::lock(&self.own_account_key).clone();
        let Some(key) = key.filter(|_| claims.get("iss").and_then(Value::as_str) == Some(OWN_SERVICE_ACCOUNT)) else {
            return Err(refused("invalid_grant", "Invalid grant: account not found"));
        };
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(signed.as_bytes(), &decoded(mac).ok_or_else(signature)?)
            .map_err(|_| signature())?;
        if claims.get("aud").and_then(Value::as_str) != Some(audience) {
            return Err(refused("invalid_grant", "Invalid JWT: Failed audience check."));
        }
        let time = |name: &str| claims.get(name).and_then(Value::as_i64).and_then(from_unix);
        match (time("iat"), time("exp")) {
            (Some(from), Some(until)) if timely(from, until, self.clock.now()) => Ok(claims),
            _ => Err(refused(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your \
                 iat and exp values in the JWT claim.",
            )),
        }
    }
}

fn timely(from: Timestamp, until: Timestamp, now: Timestamp) -> bool {
    let lifetime = i64::try_from(LIFETIME.as_secs()).unwrap_or(0);
    until > now && from.as_second() <= now.as_second() + MAX_AHEAD && until.as_second() - from.as_second() <= lifetime
}

/// base64url; Google takes padding, which RFC 7515 leaves out.
fn decoded(segment: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(segment.trim_end_matches('=')).ok()
}

fn refused(error: &str, description: &str) -> Refused {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error, "error_description": description })))
}

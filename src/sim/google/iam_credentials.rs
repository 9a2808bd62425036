//! IAM Credentials: `generateAccessToken`, impersonation of a service account.
//!
//! Source: IAM Service Account Credentials API v1, `projects.serviceAccounts.generateAccessToken`.

use super::errors::{Refusal, bearer, insufficient_scopes, invalid_argument, unauthenticated};
use super::iam::{Permission, Principal};
use super::tokens::Issued;
use super::{CLOUD_PLATFORM, Google, IAM_SCOPE};
use crate::sim::world;
use crate::time::later;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const SERVICE: &str = "iamcredentials.googleapis.com";
/// Longest lifetime without the organisation's exception, in seconds.
const MAX_LIFETIME: u64 = 3600;

/// `POST /v1/projects/-/serviceAccounts/{email}:generateAccessToken`
pub(super) async fn call(
    State(google): State<Arc<Google>>,
    Path((project, call)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let bearer = bearer(&headers);
    let caller = bearer.and_then(|token| google.inspect(token)).ok_or_else(|| unauthenticated(bearer, SERVICE))?;
    let Some((account, "generateAccessToken")) = call.rsplit_once(':') else {
        return Err(Refusal::new(404, "NOT_FOUND", "Method not found."));
    };
    if project != "-" {
        return Err(invalid_argument("Invalid form of account ID; the project must be the wildcard \"-\"."));
    }
    if !caller.has_scope(&[CLOUD_PLATFORM, IAM_SCOPE]) {
        return Err(insufficient_scopes(SERVICE));
    }
    let request =
        serde_json::from_slice::<Value>(&body).map_err(|_| invalid_argument("Invalid JSON payload received."))?;
    let (scopes, lifetime) = (scopes(&request)?, lifetime(&request)?);
    let mut asks = caller.principal;
    for next in delegates(&request)?.into_iter().chain([account.to_owned()]) {
        if !exists(&next) || !google.allows(&asks, Permission::GetAccessToken(&next)) {
            return Err(denied(&next));
        }
        asks = Principal::ServiceAccount(next);
    }
    let now = google.clock.now();
    let expires_at = later(now, lifetime);
    let issued = Issued { principal: Principal::ServiceAccount(account.to_owned()), scopes, expires_at };
    let token = crate::sim::lock(&google.tokens).issue("ya29.c.", issued, now);
    Ok(Json(json!({
        "accessToken": token,
        // Clients parse whole seconds only.
        "expireTime": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })))
}

/// Accounts that exist; one that does not is denied with the same words.
fn exists(account: &str) -> bool {
    [
        world::OWN_SERVICE_ACCOUNT,
        world::ORDERS_APP.service_account,
        world::REPORTS_APP.service_account,
        world::OTHER_APP.service_account,
    ]
    .contains(&account)
}

fn denied(account: &str) -> Refusal {
    let metadata = json!({ "permission": "iam.serviceAccounts.getAccessToken" });
    tracing::debug!(account, "the simulated IAM denies impersonation");
    let message = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).";
    Refusal::new(403, "PERMISSION_DENIED", message).info("IAM_PERMISSION_DENIED", "iam.googleapis.com", metadata)
}

fn scopes(request: &Value) -> Result<Vec<String>, Refusal> {
    let scopes = request.get("scope").and_then(Value::as_array).into_iter().flatten();
    let scopes: Vec<String> = scopes.filter_map(Value::as_str).map(str::to_owned).collect();
    if scopes.is_empty() || scopes.iter().any(|scope| !scope.starts_with("https://www.googleapis.com/auth/")) {
        return Err(invalid_argument("Request contains an invalid argument."));
    }
    Ok(scopes)
}

/// `"3600s"`: a protobuf duration, at most an hour.
fn lifetime(request: &Value) -> Result<Duration, Refusal> {
    let Some(text) = request.get("lifetime").filter(|value| !value.is_null()) else {
        return Ok(Duration::from_secs(MAX_LIFETIME));
    };
    let seconds = text.as_str().and_then(|text| text.strip_suffix('s')).and_then(|text| text.parse::<u64>().ok());
    match seconds {
        Some(seconds) if (1..=MAX_LIFETIME).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(invalid_argument("Request contains an invalid argument.")),
    }
}

/// The accounts between the caller and the one that is asked for: the caller may be the first, each may be the next.
fn delegates(request: &Value) -> Result<Vec<String>, Refusal> {
    let invalid = || invalid_argument("Request contains an invalid argument.");
    match request.get("delegates") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(chain)) => chain
            .iter()
            .map(|name| name.as_str()?.strip_prefix("projects/-/serviceAccounts/").map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(invalid),
        Some(_) => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_durations_of_at_most_an_hour() {
        for (text, expected) in [
            (json!("3600s"), Some(3600)),
            (json!("300s"), Some(300)),
            (json!(null), Some(3600)),
            (json!("3601s"), None),
            (json!("0s"), None),
            (json!("1h"), None),
            (json!(3600), None),
        ] {
            let got = lifetime(&json!({ "lifetime": text })).ok().map(|lifetime| lifetime.as_secs());
            assert_eq!(got, expected, "{text}");
        }
    }
}

//! App Service's managed identity endpoint: the proxy's own identity on Azure.
//!
//! Tokens are version 1.0, for the App ID URI as asked, valid for a day and cached by the platform for as long.

use super::Entra;
use crate::sim::lock;
use crate::sim::token_spec::{TokenSpec, Version};
use crate::sim::world::{CONTOSO, OWN_CLIENT_ID, OWN_OBJECT_ID, OWN_RESOURCE, PROXY_API, PROXY_API_URI};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// The version of the endpoint's contract.
const API_VERSION: &str = "2019-08-01";
/// Lifetime of a managed identity's token, in seconds.
const LIFETIME: i64 = 86_400;

/// A token that the platform keeps.
#[derive(Debug)]
pub(super) struct Cached {
    token: String,
    not_before: i64,
    expires_on: i64,
}

type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

/// `GET /msi/token?api-version=2019-08-01&resource=…[&client_id=…]` with `X-IDENTITY-HEADER`.
pub(super) async fn token(
    State(entra): State<Arc<Entra>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let field = |name: &str| query.get(name).map(String::as_str);
    let refused = |status: StatusCode, message: String| {
        Err((status, Json(json!({ "statusCode": status.as_u16(), "message": message }))))
    };
    let header = headers.get("x-identity-header").and_then(|value| value.to_str().ok());
    if header != Some(entra.identity_header.as_str()) {
        return refused(StatusCode::UNAUTHORIZED, "The identity header is missing or wrong.".to_owned());
    }
    if field("api-version") != Some(API_VERSION) {
        return refused(StatusCode::BAD_REQUEST, "Unsupported or missing api-version.".to_owned());
    }
    let Some(resource) = field("resource").filter(|resource| !resource.is_empty()) else {
        return refused(StatusCode::BAD_REQUEST, "The parameter 'resource' is missing.".to_owned());
    };
    if field("client_id").or(field("principal_id")).is_some_and(|id| ![OWN_CLIENT_ID, OWN_OBJECT_ID].contains(&id)) {
        return refused(StatusCode::BAD_REQUEST, "No User Assigned or Delegated Managed Identity found.".to_owned());
    }
    if ![OWN_RESOURCE, PROXY_API_URI, PROXY_API].contains(&resource.trim_end_matches('/')) {
        let message = format!(
            "AADSTS500011: The resource principal named {resource} was not found in the tenant named {}.",
            CONTOSO.domain
        );
        return refused(StatusCode::BAD_REQUEST, message);
    }
    entra
        .identity_token(resource)
        .map(Json)
        .or_else(|error| refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

impl Entra {
    fn identity_token(&self, resource: &str) -> Result<Value, crate::sim::Error> {
        let now = self.clock.now().as_second();
        let mut tokens = lock(&self.identity_tokens);
        tokens.retain(|_, cached| cached.expires_on > now);
        if !tokens.contains_key(resource) {
            let spec = TokenSpec::managed_identity().audience(resource).version(Version::V1).lifetime(LIFETIME);
            let token = self.mint(&spec)?.expose().clone();
            tokens.insert(resource.to_owned(), Cached { token, not_before: now, expires_on: now + LIFETIME });
        }
        let cached = tokens.get(resource);
        Ok(json!({
            "access_token": cached.map(|c| c.token.as_str()),
            "expires_in": cached.map(|c| (c.expires_on - now).to_string()),
            "ext_expires_in": cached.map(|c| (c.expires_on - now).to_string()),
            "expires_on": cached.map(|c| c.expires_on.to_string()),
            "not_before": cached.map(|c| c.not_before.to_string()),
            "resource": resource, "token_type": "Bearer", "client_id": OWN_CLIENT_ID,
        }))
    }
}

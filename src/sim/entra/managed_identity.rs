//! App Service's managed identity endpoint: the proxy's own identity on Azure, and a caller's.
//!
//! Tokens are valid for a day and cached by the platform for as long. The resource decides their version and audience
//! (`requestedAccessTokenVersion` of its app registration, "Access tokens: token formats"): 1.0 and the App ID URI as
//! asked, or 2.0 and the registration's id, as of the proxy's API and of the exchange of tokens.

use super::Entra;
use super::graph::PERMISSIONS;
use crate::sim::lock;
use crate::sim::token_spec::{TokenSpec, Version};
use crate::sim::world::{
    CONTOSO, ManagedIdentity, ORDERS_JOB, OWN_AUDIENCE, OWN_IDENTITY, OWN_RESOURCE, PLAIN_API_URI, PROXY_API,
    PROXY_API_URI,
};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    let Some(identity) = assigned(field("client_id"), field("principal_id")) else {
        return refused(StatusCode::BAD_REQUEST, "No User Assigned or Delegated Managed Identity found.".to_owned());
    };
    if ![OWN_RESOURCE, OWN_AUDIENCE, PROXY_API_URI, PROXY_API, PLAIN_API_URI, &entra.graph]
        .contains(&resource.trim_end_matches('/'))
    {
        let message = format!(
            "AADSTS500011: The resource principal named {resource} was not found in the tenant named {}.",
            CONTOSO.domain
        );
        return refused(StatusCode::BAD_REQUEST, message);
    }
    entra
        .identity_token(&identity, resource)
        .map(Json)
        .or_else(|error| refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// The identity that is asked for; the proxy's own, if none is.
fn assigned(client_id: Option<&str>, object_id: Option<&str>) -> Option<ManagedIdentity> {
    let asked = |identity: &ManagedIdentity| match (client_id, object_id) {
        (None, None) => true,
        (Some(id), _) => identity.client_id == id,
        (None, Some(id)) => identity.object_id == id,
    };
    [OWN_IDENTITY, ORDERS_JOB].into_iter().find(asked)
}

impl Entra {
    /// A token that Graph alone can check, with the permissions that the identity was granted.
    fn for_graph(&self, spec: TokenSpec) -> TokenSpec {
        let spec = spec.header("nonce", "q8Xv1nJ7aZ0");
        let granted = self.graph_granted.load(Ordering::Relaxed);
        if granted { spec.claim("roles", PERMISSIONS.to_vec()) } else { spec }
    }

    fn identity_token(&self, identity: &ManagedIdentity, resource: &str) -> Result<Value, crate::sim::Error> {
        let now = self.clock.now().as_second();
        let mut tokens = lock(&self.identity_tokens);
        tokens.retain(|_, cached| cached.expires_on > now);
        let key = (identity.client_id, resource.to_owned());
        if !tokens.contains_key(&key) {
            let spec = TokenSpec::managed_identity(identity).lifetime(LIFETIME);
            let spec = match resource.trim_end_matches('/') {
                PROXY_API_URI | PROXY_API => spec,
                OWN_RESOURCE | OWN_AUDIENCE => spec.audience(OWN_AUDIENCE),
                _ => spec.audience(resource).version(Version::V1),
            };
            let spec = if resource == self.graph { self.for_graph(spec) } else { spec };
            let token = self.mint(&spec)?.expose().clone();
            tokens.insert(key.clone(), Cached { token, not_before: now, expires_on: now + LIFETIME });
        }
        let cached = tokens.get(&key);
        Ok(json!({
            "access_token": cached.map(|c| c.token.as_str()),
            "expires_in": cached.map(|c| (c.expires_on - now).to_string()),
            "ext_expires_in": cached.map(|c| (c.expires_on - now).to_string()),
            "expires_on": cached.map(|c| c.expires_on.to_string()),
            "not_before": cached.map(|c| c.not_before.to_string()),
            "resource": resource, "token_type": "Bearer", "client_id": identity.client_id,
        }))
    }
}

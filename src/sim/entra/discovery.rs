//! Discovery documents and key sets, versions 1.0 and 2.0.

use super::errors::{Refusal, unknown_tenant};
use super::{Entra, tenant};
use crate::sim::world::Tenant;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::sync::Arc;

type Document = Result<([(header::HeaderName, &'static str); 1], Json<Value>), Refusal>;

/// `GET /{tenant}/v2.0/.well-known/openid-configuration`
pub(super) async fn v2(State(entra): State<Arc<Entra>>, Path(name): Path<String>) -> impl IntoResponse {
    document(&entra, &name, |tenant| {
        let (base, id) = (&entra.base, tenant.id);
        json!({
            "token_endpoint": format!("{base}/{id}/oauth2/v2.0/token"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{base}/{id}/discovery/v2.0/keys"),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": entra.issuer_v2(tenant),
            "request_uri_parameter_supported": false,
            "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
            "authorization_endpoint": format!("{base}/{id}/oauth2/v2.0/authorize"),
            "device_authorization_endpoint": format!("{base}/{id}/oauth2/v2.0/devicecode"),
            "http_logout_supported": true,
            "frontchannel_logout_supported": true,
            "end_session_endpoint": format!("{base}/{id}/oauth2/v2.0/logout"),
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "name", "preferred_username", "oid", "tid", "upn"],
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
            "rbac_url": "https://pas.windows.net",
        })
    })
}

/// `GET /{tenant}/.well-known/openid-configuration`
pub(super) async fn v1(State(entra): State<Arc<Entra>>, Path(name): Path<String>) -> impl IntoResponse {
    document(&entra, &name, |tenant| {
        let (base, id) = (&entra.base, tenant.id);
        json!({
            "token_endpoint": format!("{base}/{id}/oauth2/token"),
            "jwks_uri": format!("{base}/{id}/discovery/keys"),
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "token id_token", "token"],
            "issuer": entra.issuer_v1(tenant),
            "authorization_endpoint": format!("{base}/{id}/oauth2/authorize"),
            "device_authorization_endpoint": format!("{base}/{id}/oauth2/devicecode"),
        })
    })
}

/// `GET /{tenant}/discovery/v2.0/keys`: every key says whose it is.
pub(super) async fn keys_v2(State(entra): State<Arc<Entra>>, Path(name): Path<String>) -> impl IntoResponse {
    document(&entra, &name, |tenant| {
        let issuer = entra.issuer_v2(tenant);
        let keys: Vec<Value> = entra.published(tenant).iter().map(|key| key.jwk(Some(&issuer))).collect();
        json!({ "keys": keys })
    })
}

/// `GET /{tenant}/discovery/keys`
pub(super) async fn keys_v1(State(entra): State<Arc<Entra>>, Path(name): Path<String>) -> impl IntoResponse {
    document(&entra, &name, |tenant| {
        let keys: Vec<Value> = entra.published(tenant).iter().map(|key| key.jwk(None)).collect();
        json!({ "keys": keys })
    })
}

fn document(entra: &Entra, name: &str, fill: impl Fn(Tenant) -> Value) -> Document {
    let tenant = tenant(name).ok_or_else(|| unknown_tenant(name, &entra.clock))?;
    Ok(([(header::CACHE_CONTROL, "max-age=86400, private")], Json(fill(tenant))))
}

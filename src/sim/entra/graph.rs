//! Microsoft Graph, as far as it says who is in which groups.
//!
//! Source: Microsoft Graph v1.0, "directoryObject: getMemberGroups", "List servicePrincipal transitive memberOf", their
//! permissions, and "Microsoft Graph error
//! responses". Its tokens show a nonce whose SHA-256 the signature covers: nobody else can check them.

use super::keys::{read, signing_input};
use super::people::PEOPLE;
use super::tokens::hashed_nonce;
use super::{Entra, errors};
use crate::sim::calls::{Calls, Endpoint};
use crate::sim::faults::Faults;
use crate::sim::https::Service;
use crate::sim::world::{CONTOSO, ORDERS_APP, OTHER_APP, REPORTS_APP};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What an application needs to read memberships: the first two for users', the last for service principals'.
pub(super) const PERMISSIONS: [&str; 3] = ["User.ReadBasic.All", "GroupMember.Read.All", "Application.Read.All"];

type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

/// Graph's host (HTTPS).
pub(in crate::sim) fn graph_service(entra: Arc<Entra>, calls: Calls, faults: Faults) -> Service {
    let router = Router::new().route("/v1.0/{collection}/{id}/getMemberGroups", post(member_groups)).with_state(entra);
    Service { router, endpoint: |_| Some(Endpoint::Graph), error: errors::outage, calls, faults }
}

async fn member_groups(
    State(entra): State<Arc<Entra>>,
    Path((collection, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let [basic, members, applications] = PERMISSIONS;
    let needed = if collection == "servicePrincipals" { vec![applications] } else { vec![basic, members] };
    entra.admit(&headers, &needed)?;
    let asked = serde_json::from_slice::<Value>(&body).ok();
    if asked.and_then(|asked| asked.get("securityEnabledOnly").and_then(Value::as_bool)) != Some(true) {
        return refused(StatusCode::BAD_REQUEST, "Request_BadRequest", "securityEnabledOnly is missing.");
    }
    let groups = match collection.as_str() {
        "users" => PEOPLE.into_iter().find(|p| p.object_id == id && p.tenant == CONTOSO).map(|p| p.groups),
        "servicePrincipals" => {
            let known = [ORDERS_APP, REPORTS_APP, OTHER_APP].into_iter().any(|app| app.object_id == id);
            known.then_some([].as_slice())
        }
        _ => None,
    };
    let Some(groups) = groups else {
        let text =
            format!("Resource '{id}' does not exist or one of its queried reference-property objects are not present.");
        return refused(StatusCode::NOT_FOUND, "Request_ResourceNotFound", &text);
    };
    Ok(Json(json!({
        "@odata.context": format!("{}/v1.0/$metadata#Collection(Edm.String)", entra.graph), "value": groups,
    })))
}

impl Entra {
    /// Takes the proxy's identity its permissions on Graph, for tokens that are minted from now on.
    pub(in crate::sim) fn revoke_graph(&self) {
        self.graph_granted.store(false, Ordering::Relaxed);
        crate::sim::lock(&self.identity_tokens).clear();
    }

    /// A bearer token for Graph, with the permissions that are needed.
    fn admit(&self, headers: &HeaderMap, needed: &[&str]) -> Result<(), (StatusCode, Json<Value>)> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let Some(claims) = bearer.and_then(|token| self.graph_claims(token)) else {
            return refused(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken", "Access token validation failure.");
        };
        let roles = claims.get("roles").and_then(Value::as_array).cloned().unwrap_or_default();
        if needed.iter().all(|needed| roles.iter().any(|role| role == needed)) {
            return Ok(());
        }
        let text = "Insufficient privileges to complete the operation.";
        refused(StatusCode::FORBIDDEN, "Authorization_RequestDenied", text)
    }

    fn graph_claims(&self, token: &str) -> Option<super::Members> {
        let (header, claims) = read(token)?;
        let (_, signature) = token.rsplit_once('.')?;
        let covered = format!("{}.{signature}", signing_input(&hashed_nonce(&header), &claims));
        let now = self.clock.now().as_second();
        let current = claims.get("exp").and_then(Value::as_i64).is_some_and(|end| end > now);
        let ours = claims.get("aud").and_then(Value::as_str) == Some(&self.graph);
        (header.contains_key("nonce") && current && ours && self.signed(CONTOSO, &covered)).then_some(claims)
    }
}

fn refused<T>(status: StatusCode, code: &str, message: &str) -> Result<T, (StatusCode, Json<Value>)> {
    Err((status, Json(json!({ "error": { "code": code, "message": message, "innerError": {} } }))))
}

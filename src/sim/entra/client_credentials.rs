//! The client credentials grant: an app signs in as itself, with a secret or a federated assertion.

use super::errors::{Refusal, Refuse};
use super::tokens::Scope;
use super::{Entra, read};
use crate::sim::token_spec::TokenSpec;
use crate::sim::world::{
    ASSIGNED_API_URI, App, CONTOSO, ORDERS_APP, OTHER_APP, OWN_AUDIENCE, OWN_OBJECT_ID, OWN_RESOURCE, PROXY_API,
    REPORTS_APP, Tenant,
};
use axum::Json;
use serde_json::Value;
use std::collections::HashMap;

/// The only assertion type there is.
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Answers `grant_type=client_credentials`.
pub(super) fn token(entra: &Entra, tenant: Tenant, form: &HashMap<String, String>) -> Result<Json<Value>, Refusal> {
    let refuse = Refuse::at(&entra.clock);
    let client = form.get("client_id").ok_or_else(|| refuse.missing("client_id"))?;
    let app = app(tenant, client).ok_or_else(|| refuse.client(client, tenant.domain))?;
    match (form.get("client_secret"), form.get("client_assertion")) {
        (Some(secret), _) if secret == app.secret => {}
        (Some(_), _) => return Err(wrong_secret(refuse, &app)),
        (None, Some(assertion)) => {
            if form.get("client_assertion_type").map(String::as_str) != Some(JWT_BEARER) {
                return Err(refuse.missing("client_assertion_type"));
            }
            federated(entra, &app, assertion)?;
        }
        (None, None) => {
            let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
            return Err(refuse.with(401, "invalid_client", 7_000_218, text));
        }
    }
    let asked = form.get("scope").ok_or_else(|| refuse.missing("scope"))?;
    let scope = scope(refuse, asked, tenant)?;
    assigned(refuse, &app, &scope)?;
    entra.grant(TokenSpec::app(&app), &scope).map(Json)
}

fn app(tenant: Tenant, client: &str) -> Option<App> {
    [ORDERS_APP, REPORTS_APP, OTHER_APP].into_iter().find(|app| app.client_id == client && app.tenant == tenant)
}

pub(super) fn wrong_secret(refuse: Refuse, app: &App) -> Refusal {
    let text = format!(
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not \
         the client secret ID, for a secret added to app '{}'.",
        app.client_id
    );
    refuse.with(401, "invalid_client", 7_000_215, &text)
}

/// Client credentials ask for everything that was granted to the app: `…/.default` of one API.
fn scope(refuse: Refuse, asked: &str, tenant: Tenant) -> Result<Scope, Refusal> {
    match Scope::parse(asked) {
        Some(scope) if !scope.known() => Err(refuse.resource(scope.resource(), tenant.domain)),
        Some(scope) if scope.is_default() && !asked.contains(' ') => Ok(scope),
        _ => {
            let text = format!(
                "The provided value for scope {asked} is not valid. Client credential flows must have a scope value \
                 with /.default suffixed to the resource identifier (application ID URI)."
            );
            Err(refuse.with(400, "invalid_scope", 1_002_012, &text))
        }
    }
}

/// Where the API demands assignment, an app needs a role (Microsoft, "AADSTS501051").
fn assigned(refuse: Refuse, app: &App, scope: &Scope) -> Result<(), Refusal> {
    if scope.resource() != ASSIGNED_API_URI || !app.roles.is_empty() {
        return Ok(());
    }
    let text =
        format!("Application '{}' is not assigned to a role for the application '{ASSIGNED_API_URI}'.", app.client_id);
    Err(refuse.with(400, "invalid_grant", 501_051, &text))
}

/// A federated identity credential: the simulated cloud's managed identity may stand for the orders app and for the
/// proxy's own.
pub(super) fn federated(entra: &Entra, app: &App, assertion: &str) -> Result<(), Refusal> {
    let refuse = Refuse::at(&entra.clock);
    let refused = |code, text: &str| Err(refuse.with(401, "invalid_client", code, text));
    let Some((_, claims)) = read(assertion) else {
        return refused(50_027, "JWT token is invalid or malformed.");
    };
    let text_claim = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let advice =
        "Check your federated identity credential Subject, Audience and Issuer against the presented assertion.";
    if text_claim("iss") != entra.issuer_v2(CONTOSO) {
        let text = format!(
            "No matching federated identity record found for presented assertion issuer '{}'. {advice}",
            text_claim("iss")
        );
        return refused(700_211, &text);
    }
    if !entra.signed(CONTOSO, assertion) {
        return refused(700_027, "Client assertion failed signature validation.");
    }
    let now = entra.clock.now().as_second();
    let time = |name: &str| claims.get(name).and_then(Value::as_i64).unwrap_or_default();
    if !(time("nbf")..time("exp")).contains(&now) {
        return refused(700_024, "Client assertion is not within its valid time range.");
    }
    // The credential names the URI, a managed identity's token the same API's id.
    if ![OWN_RESOURCE, OWN_AUDIENCE].contains(&text_claim("aud")) {
        let text = format!(
            "No matching federated identity record found for presented assertion audience '{}'. {advice}",
            text_claim("aud")
        );
        return refused(700_212, &text);
    }
    if text_claim("sub") != OWN_OBJECT_ID || ![ORDERS_APP.client_id, PROXY_API].contains(&app.client_id) {
        let text = format!(
            "No matching federated identity record found for presented assertion subject '{}'. {advice}",
            text_claim("sub")
        );
        return refused(700_213, &text);
    }
    Ok(())
}

//! Entra: discovery and keys per tenant, client credentials, device code, authorization code, refresh tokens, and
//! the managed identity endpoint.
//!
//! Shapes: Microsoft identity platform, "`OpenID` Connect", "OAuth 2.0 client credentials flow", "device
//! authorization grant", and App Service's "REST endpoint reference" for managed identities.

mod authorize;
mod client_credentials;
mod device;
mod discovery;
mod errors;
mod graph;
mod keys;
mod managed_identity;
mod on_behalf_of;
mod people;
mod tokens;

pub(super) use graph::graph_service;
pub(super) use keys::{Members, read, signed_by};
pub(super) use on_behalf_of::{Ordered, Registered};

use super::Error;
use super::calls::{Calls, Endpoint};
use super::faults::Faults;
use super::https::Service;
use super::world::{CONTOSO, FABRIKAM, Tenant};
use crate::time::Clock;
use axum::Router;
use axum::routing::{get, post};
use keys::SigningKey;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

/// Entra's state, shared by its endpoints and by Google's STS, which trusts its keys.
#[derive(Debug)]
pub(super) struct Entra {
    /// `https://127.0.0.1:PORT`
    base: String,
    /// Microsoft Graph, `https://127.0.0.1:PORT`.
    graph: String,
    /// Whether the proxy's identity has its permissions on Graph.
    graph_granted: AtomicBool,
    clock: Clock,
    keys: RwLock<HashMap<&'static str, TenantKeys>>,
    /// Signs what nobody shall accept; made when first asked for.
    rogue: OnceLock<SigningKey>,
    devices: Mutex<HashMap<String, device::Device>>,
    /// Authorization codes, the redeemed ones too until they are long past.
    codes: Mutex<HashMap<String, authorize::Code>>,
    refresh_tokens: Mutex<HashMap<String, people::Refresh>>,
    /// The certificate of the proxy's own app.
    registered: Mutex<Option<Registered>>,
    /// What every trade on behalf of somebody is answered.
    on_behalf_of_ordered: Mutex<Ordered>,
    identity_header: String,
    /// Managed identity tokens are cached by the platform for about a day; audience to token.
    identity_tokens: Mutex<HashMap<(&'static str, String), managed_identity::Cached>>,
}

/// Signing key first; the others are published only.
#[derive(Debug)]
struct TenantKeys(Vec<Arc<SigningKey>>);

impl Entra {
    /// Makes keys and waits for requests. Blocks for about a second: call it off the runtime.
    pub(super) fn new(base: String, graph: String, clock: Clock) -> Result<Self, Error> {
        let entra = Self {
            base,
            graph,
            graph_granted: AtomicBool::new(true),
            clock,
            keys: RwLock::default(),
            rogue: OnceLock::new(),
            devices: Mutex::default(),
            codes: Mutex::default(),
            refresh_tokens: Mutex::default(),
            registered: Mutex::default(),
            on_behalf_of_ordered: Mutex::default(),
            identity_header: uuid::Uuid::new_v4().simple().to_string().to_uppercase(),
            identity_tokens: Mutex::default(),
        };
        entra.roll_keys()?;
        Ok(entra)
    }

    /// New keys for every tenant; the old ones are not published any more.
    pub(super) fn roll_keys(&self) -> Result<(), Error> {
        let shared = Arc::new(SigningKey::generate()?);
        let mut fresh = HashMap::new();
        for tenant in [CONTOSO, FABRIKAM] {
            fresh.insert(tenant.id, TenantKeys(vec![Arc::new(SigningKey::generate()?), Arc::clone(&shared)]));
        }
        *super::write(&self.keys) = fresh;
        Ok(())
    }

    /// The secret that callers of the managed identity endpoint send.
    pub(super) fn identity_header(&self) -> &str {
        &self.identity_header
    }

    /// `iss` of a tenant's version 2.0 tokens.
    pub(super) fn issuer_v2(&self, tenant: Tenant) -> String {
        format!("{}/{}/v2.0", self.base, tenant.id)
    }

    /// `iss` of a tenant's version 1.0 tokens; with the trailing slash, as `https://sts.windows.net/{tid}/`.
    pub(super) fn issuer_v1(&self, tenant: Tenant) -> String {
        format!("{}/{}/", self.base, tenant.id)
    }

    /// Whether one of the keys that this tenant publishes signed the token.
    pub(super) fn signed(&self, tenant: Tenant, token: &str) -> bool {
        let keys = super::read(&self.keys);
        keys.get(tenant.id).is_some_and(|keys| signed_by(token, keys.0.iter().map(Arc::as_ref)))
    }

    fn published(&self, tenant: Tenant) -> Vec<Arc<SigningKey>> {
        super::read(&self.keys).get(tenant.id).map(|keys| keys.0.clone()).unwrap_or_default()
    }
}

/// The tenant that a path names by id or domain.
fn tenant(name: &str) -> Option<Tenant> {
    [CONTOSO, FABRIKAM].into_iter().find(|tenant| tenant.id.eq_ignore_ascii_case(name) || tenant.domain == name)
}

/// The login host (HTTPS).
pub(super) fn login_service(entra: Arc<Entra>, calls: Calls, faults: Faults) -> Service {
    let router = Router::new()
        .route("/{tenant}/v2.0/.well-known/openid-configuration", get(discovery::v2))
        .route("/{tenant}/.well-known/openid-configuration", get(discovery::v1))
        .route("/{tenant}/discovery/v2.0/keys", get(discovery::keys_v2))
        .route("/{tenant}/discovery/keys", get(discovery::keys_v1))
        .route("/{tenant}/oauth2/v2.0/devicecode", post(device::start))
        .route("/{tenant}/oauth2/v2.0/authorize", get(authorize::authorize))
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/devicelogin", get(device::page).post(device::approve))
        .with_state(entra);
    Service { router, endpoint: login_endpoint, error: errors::outage, calls, faults }
}

/// The managed identity endpoint (plain http, as on App Service).
pub(super) fn identity_service(entra: Arc<Entra>, calls: Calls, faults: Faults) -> Service {
    let router = Router::new().route("/msi/token", get(managed_identity::token)).with_state(entra);
    Service { router, endpoint: |_| Some(Endpoint::OwnIdentity), error: errors::outage, calls, faults }
}

fn login_endpoint(path: &str) -> Option<Endpoint> {
    if path.ends_with("/openid-configuration") {
        Some(Endpoint::EntraDiscovery)
    } else if path.ends_with("/keys") {
        Some(Endpoint::EntraKeys)
    } else if path.ends_with("/devicecode") {
        Some(Endpoint::EntraDeviceCode)
    } else if path.ends_with("/token") {
        Some(Endpoint::EntraToken)
    } else {
        None
    }
}

/// `POST /{tenant}/oauth2/v2.0/token`: the grants that are simulated.
async fn token(
    axum::extract::State(entra): axum::extract::State<Arc<Entra>>,
    axum::extract::Path(name): axum::extract::Path<String>,
    axum::extract::Form(form): axum::extract::Form<HashMap<String, String>>,
) -> Result<axum::Json<serde_json::Value>, errors::Refusal> {
    let tenant = tenant(&name).ok_or_else(|| errors::unknown_tenant(&name, &entra.clock))?;
    let refuse = errors::Refuse::at(&entra.clock);
    match form.get("grant_type").map(String::as_str) {
        None => Err(refuse.missing("grant_type")),
        Some("client_credentials") => client_credentials::token(&entra, tenant, &form),
        Some("authorization_code") => authorize::token(&entra, tenant, &form),
        Some("refresh_token") => people::refresh(&entra, tenant, &form),
        Some("urn:ietf:params:oauth:grant-type:device_code") => device::token(&entra, tenant, &form),
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => on_behalf_of::token(&entra, tenant, &form),
        Some(other) => Err(refuse.with(
            400,
            "unsupported_grant_type",
            70003,
            &format!("The app requested an unsupported grant type '{other}'."),
        )),
    }
}

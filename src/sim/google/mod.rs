//! Google: STS, IAM Credentials, the SQL Admin API, and the IAM that they and the instance ask.

mod errors;
mod iam;
mod iam_credentials;
mod service_account;
mod sql_admin;
mod sts;
mod tokens;

pub(super) use iam::{Iam, Permission, Principal};
pub(super) use tokens::Issued;

use super::calls::{Calls, Endpoint};
use super::entra::Entra;
use super::faults::Faults;
use super::https::Service;
use super::instance::Instance;
use super::oidc::Oidc;
use crate::time::Clock;
use axum::Router;
use axum::routing::{get, post};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, RwLock};
use tokens::TokenStore;

/// OAuth scope that includes all others.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
/// OAuth scope of IAM Credentials.
const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// Google's public cloud.
const PUBLIC_UNIVERSE: &str = "googleapis.com";

/// Whose keys pool providers trust.
#[derive(Debug)]
pub(super) struct Issuers {
    pub(super) entra: Arc<Entra>,
    pub(super) oidc: Arc<Oidc>,
}

/// Google's state, shared by its services and the instance.
#[derive(Debug)]
pub(super) struct Google {
    issuers: Issuers,
    clock: Clock,
    tokens: Mutex<TokenStore>,
    iam: RwLock<Iam>,
    instance: Arc<Instance>,
    /// The domain under which this Google stands, and by which its pools are named.
    universe: Mutex<String>,
    /// Providers that are switched off.
    disabled: Mutex<HashSet<String>>,
    /// The public key (PKCS#1) of the proxy's own account, once it has one.
    own_account_key: Mutex<Option<Vec<u8>>>,
}

impl Google {
    /// With the standard bindings and no tokens.
    pub(super) fn new(issuers: Issuers, clock: Clock, instance: Arc<Instance>) -> Self {
        Self {
            issuers,
            clock,
            tokens: Mutex::default(),
            iam: RwLock::new(Iam::standard()),
            instance,
            universe: Mutex::new(PUBLIC_UNIVERSE.to_owned()),
            disabled: Mutex::default(),
            own_account_key: Mutex::default(),
        }
    }

    /// From now on this is the Google of another universe.
    pub(super) fn move_to(&self, universe: &str) {
        universe.clone_into(&mut super::lock(&self.universe));
    }

    /// A name of this universe's IAM, as the world's tables have it; `None` for one of another universe.
    fn here(&self, name: &str) -> Option<String> {
        let path = name.strip_prefix(&format!("//iam.{}/", super::lock(&self.universe)))?;
        Some(format!("//iam.{PUBLIC_UNIVERSE}/{path}"))
    }

    /// Switches a provider off.
    pub(super) fn disable_provider(&self, provider: &str) {
        super::lock(&self.disabled).insert(provider.to_owned());
    }

    /// Gives the proxy's own account this key, in place of the one before.
    pub(super) fn set_own_account_key(&self, public: Vec<u8>) {
        *super::lock(&self.own_account_key) = Some(public);
    }

    /// The text that this subject's login tokens have from now on.
    pub(super) fn steady_login_token(&self, subject: &str) -> String {
        super::lock(&self.tokens).steady(subject)
    }

    /// `http://metadata.google.internal`
    pub(super) fn metadata_service(self: &Arc<Self>, calls: Calls, faults: Faults) -> Service {
        let router = Router::new()
            .route("/computeMetadata/v1/instance/service-accounts/default/token", get(service_account::metadata_token))
            .route("/computeMetadata/v1/project/project-id", get(service_account::metadata_project))
            .with_state(Arc::clone(self));
        Service { router, endpoint: |_| Some(Endpoint::Metadata), error: errors::outage, calls, faults }
    }

    /// What an access token is good for now; `None` for one that is unknown or expired.
    pub(super) fn inspect(&self, token: &str) -> Option<Issued> {
        super::lock(&self.tokens).get(token, self.clock.now())
    }

    /// Whether IAM lets the principal do this.
    pub(super) fn allows(&self, principal: &Principal, permission: Permission) -> bool {
        super::read(&self.iam).allows(principal, permission)
    }

    /// Binds a role to a member, on the project or on one service account.
    pub(super) fn grant(&self, role: &'static str, member: &str, account: Option<&'static str>) {
        super::write(&self.iam).grant(role, member, account);
    }

    /// Takes a role away from a member.
    pub(super) fn revoke(&self, role: &str, member: &str) {
        super::write(&self.iam).revoke(role, member);
    }

    /// `https://sts.googleapis.com`, and `https://oauth2.googleapis.com` beside it.
    pub(super) fn sts_service(self: &Arc<Self>, calls: Calls, faults: Faults) -> Service {
        let router = Router::new()
            .route("/v1/token", post(sts::token))
            .route("/token", post(service_account::token))
            .with_state(Arc::clone(self));
        let endpoint = |path: &str| Some(if path == "/token" { Endpoint::ServiceAccountToken } else { Endpoint::Sts });
        Service { router, endpoint, error: errors::oauth_outage, calls, faults }
    }

    /// `https://iamcredentials.googleapis.com`
    pub(super) fn iam_credentials_service(self: &Arc<Self>, calls: Calls, faults: Faults) -> Service {
        let router = Router::new()
            .route("/v1/projects/{project}/serviceAccounts/{call}", post(iam_credentials::call))
            .with_state(Arc::clone(self));
        Service { router, endpoint: |_| Some(Endpoint::GenerateAccessToken), error: errors::outage, calls, faults }
    }

    /// `https://sqladmin.googleapis.com`
    pub(super) fn sql_admin_service(self: &Arc<Self>, calls: Calls, faults: Faults) -> Service {
        let instances = "/sql/v1beta4/projects/{project}/instances/{instance}";
        let router = Router::new()
            .route(&format!("{instances}/connectSettings"), get(sql_admin::connect_settings))
            .route(instances, post(sql_admin::call))
            .with_state(Arc::clone(self));
        Service { router, endpoint: sql_admin_endpoint, error: errors::outage, calls, faults }
    }
}

fn sql_admin_endpoint(path: &str) -> Option<Endpoint> {
    if path.ends_with("/connectSettings") {
        Some(Endpoint::ConnectSettings)
    } else if path.ends_with(":generateEphemeralCert") {
        Some(Endpoint::GenerateEphemeralCert)
    } else {
        None
    }
}

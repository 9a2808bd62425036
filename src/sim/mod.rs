//! The simulated cloud: Entra, Google STS, IAM Credentials, the SQL Admin API, and a Cloud SQL instance in front
//! of a real PostgreSQL, all in this process and on loopback.
//!
//! It is strict: what Microsoft or Google refuse is refused with the same status and body. Several clouds run
//! at once: ports are ephemeral, and each instance finds its own 127.x.y.z:3307. Nothing outlives the cloud, even
//! when this process is killed: a watchdog stops PostgreSQL and removes the folders.
//!
//! Not for production: the `demo` feature builds it, and release images are built without.

mod calls;
mod certs;
mod entra;
mod faults;
mod gate;
mod google;
mod https;
mod instance;
mod oidc;
mod postgres;
mod proxy_config;
mod start;
mod state_dir;
mod token_spec;
mod watchdog;
pub mod world;

#[cfg(test)]
mod tests;

pub use calls::{Calls, Endpoint};
pub use faults::{Fault, Faults, Hop};
pub use token_spec::{Signing, TokenSpec, Version};

use crate::names::InstanceName;
use crate::secret::Secret;
use crate::time::Clock;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entra::Entra;
use google::Google;
use instance::Instance;
use oidc::Oidc;
use postgres::Postgres;
use state_dir::StateDir;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::task::JoinSet;

/// Why the cloud does not start or cannot do what a test asks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, folder, socket or process of the simulator.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A certificate or key cannot be made.
    #[error("cannot make {0}")]
    Certificate(String),
    /// PostgreSQL is not installed.
    #[error("no PostgreSQL server found: set PGPASSPORT_POSTGRES_BIN or install the package postgresql")]
    NoPostgres,
    /// PostgreSQL does not come up.
    #[error("PostgreSQL does not start: {0}")]
    Postgres(String),
}

/// How a cloud starts.
#[derive(Debug, Clone, Default)]
pub struct CloudOptions {
    /// The instance's server certificate; can be changed later by [`Cloud::present`].
    pub server_certificate: ServerCertificate,
    /// The PostgreSQL behind the instance.
    pub postgres: PostgresOptions,
    /// Where Google's metadata server listens; clients know one address, `metadata.google.internal:80`.
    pub metadata: Option<SocketAddr>,
}

/// Which PostgreSQL runs behind the instance, and how; by default the newest that is installed, logging every
/// statement.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Folder of `initdb` and `postgres`. They run as an unprivileged user, who must be able to read them.
    pub bin: Option<PathBuf>,
    /// Lines of `postgresql.conf` that override the simulator's.
    pub settings: String,
}

/// What the instance shows to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerCertificate {
    /// Per-instance internal CA, CN `project:instance`, no SAN.
    #[default]
    CommonName,
    /// The right CA, but the CN of another instance.
    OtherInstance,
    /// CAS: intermediate CA, empty CN, a SAN that ends in a dot, and the same name in `connectSettings`.
    DnsName,
    /// The right CN, signed by a CA that `connectSettings` does not name.
    ForeignCa,
    /// The right name and CA, but expired yesterday.
    Expired,
}

/// Where the proxy under test listens and writes.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// `[listen] address`.
    pub listen: SocketAddr,
    /// `[admin] address`.
    pub admin: SocketAddr,
    /// `[audit] folder`; copies of records and checkpoints go beside it.
    pub audit_folder: PathBuf,
    /// Lines appended to the file (`[limits]`, `[deadlines]`, further tables).
    pub extra: String,
}

impl ProxyConfig {
    /// Where records go as JSON Lines.
    pub fn jsonl(&self) -> PathBuf {
        self.audit_folder.with_extension("jsonl")
    }

    /// Where checkpoints go.
    pub fn anchor(&self) -> PathBuf {
        self.audit_folder.with_extension("anchor")
    }
}

/// A running cloud. Dropping it ends everything it started, and waits for that.
#[derive(Debug)]
pub struct Cloud {
    // Dropped in this order: servers first, then PostgreSQL, then the folder.
    servers: JoinSet<()>,
    postgres: Postgres,
    state: StateDir,
    entra: Arc<Entra>,
    oidc: Arc<Oidc>,
    google: Arc<Google>,
    instance: Arc<Instance>,
    faults: Faults,
    calls: Calls,
    clock: Clock,
    offset: Arc<AtomicI64>,
    urls: Urls,
    direct: SocketAddr,
}

/// Where the services are.
#[derive(Debug)]
struct Urls {
    entra: String,
    graph: String,
    sts: String,
    iam_credentials: String,
    sql_admin: String,
    identity: String,
}

impl Cloud {
    /// Starts every simulator and PostgreSQL; ready when it returns.
    pub async fn start(options: CloudOptions) -> Result<Self, Error> {
        start::cloud(options).await
    }

    /// Ends everything and waits until it is gone.
    pub async fn shutdown(mut self) {
        self.servers.shutdown().await;
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    /// Entra's login host, `https://127.0.0.1:PORT`.
    pub fn entra_authority(&self) -> &str {
        &self.urls.entra
    }
    /// Microsoft Graph, `https://127.0.0.1:PORT`.
    pub fn graph_url(&self) -> &str {
        &self.urls.graph
    }
    /// The `iss` of the partner's `OpenID` provider, `https://127.0.0.1:PORT`.
    pub fn partner_issuer(&self) -> &str {
        self.oidc.issuer()
    }
    /// STS, `https://127.0.0.1:PORT`.
    pub fn sts_url(&self) -> &str {
        &self.urls.sts
    }
    /// IAM Credentials, `https://127.0.0.1:PORT`.
    pub fn iam_credentials_url(&self) -> &str {
        &self.urls.iam_credentials
    }
    /// The SQL Admin API, `https://127.0.0.1:PORT`.
    pub fn sql_admin_url(&self) -> &str {
        &self.urls.sql_admin
    }
    /// App Service's managed identity endpoint (`IDENTITY_ENDPOINT`, plain http).
    pub fn identity_endpoint(&self) -> &str {
        &self.urls.identity
    }
    /// What callers of that endpoint must send (`IDENTITY_HEADER`).
    pub fn identity_header(&self) -> &str {
        self.entra.identity_header()
    }
    /// Environment variables that the proxy needs.
    pub fn proxy_environment(&self) -> Vec<(String, String)> {
        vec![
            ("IDENTITY_ENDPOINT".to_owned(), self.identity_endpoint().to_owned()),
            ("IDENTITY_HEADER".to_owned(), self.identity_header().to_owned()),
        ]
    }
    /// PEM of the CA that signs every HTTPS simulator and the proxy's listener certificate.
    pub fn ca_path(&self) -> &Path {
        self.state.ca()
    }
    /// Certificate chain and key (PEM files) for a proxy on `localhost` and 127.0.0.1.
    pub fn listener_certificate(&self) -> (PathBuf, PathBuf) {
        self.state.listener()
    }
    /// The private key that signs a proxy's audit log (file).
    pub fn audit_key(&self) -> PathBuf {
        self.state.audit_key()
    }
    /// The instance's connection name.
    pub fn instance_name(&self) -> &InstanceName {
        self.instance.name()
    }
    /// Where the instance listens: 127.x.y.z:3307.
    pub fn instance_address(&self) -> SocketAddr {
        self.instance.address()
    }
    /// Where the instance listens for direct connections: port 5432 of the same address, unless that is taken.
    pub fn direct_address(&self) -> SocketAddr {
        self.direct
    }
    /// PostgreSQL's own log: `%m [%p] %u %d %e` and every statement.
    pub fn postgres_log(&self) -> &Path {
        self.postgres.log()
    }
    /// PostgreSQL's Unix socket, for a look that goes past the instance: every database user is let in.
    pub fn postgres_socket(&self) -> &Path {
        self.postgres.socket()
    }
    /// From now on whoever reaches the instance and gets through its TLS speaks with a program at this address, in
    /// clear text, in place of the login and PostgreSQL; `None` ends it.
    pub fn stand_in(&self, address: Option<SocketAddr>) {
        self.instance.set_stand_in(address);
    }
    /// A folder (0700) for the files of a test or demo, removed with the cloud.
    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }
    /// The config file of a proxy in front of this cloud, as TOML.
    pub fn proxy_config(&self, proxy: &ProxyConfig) -> String {
        proxy_config::render(self, proxy)
    }

    /// Mints any token, right or wrong, without asking an endpoint.
    pub fn mint(&self, spec: &TokenSpec) -> Result<Secret<String>, Error> {
        self.entra.mint(spec)
    }
    /// Mints the partner's consultant a token with these claims in place of its own; null takes one out.
    pub fn mint_partner(&self, changes: &serde_json::Value) -> Result<Secret<String>, Error> {
        self.oidc.mint(changes)
    }
    /// Orders and clears faults.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
    /// How often each endpoint was reached.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }
    /// The cloud's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
    /// Sets the cloud's clock this many seconds ahead of the system's (negative: behind).
    pub fn shift_clock(&self, seconds: i64) {
        self.offset.store(seconds, Ordering::Relaxed);
    }
    /// Replaces Entra's signing keys of every tenant (an emergency roll-over). Blocks for about a second.
    pub fn roll_keys(&self) -> Result<(), Error> {
        self.entra.roll_keys()
    }
    /// Changes the instance's server certificate for new connections.
    pub fn present(&self, certificate: ServerCertificate) {
        self.instance.present(certificate);
    }
    /// Lays top-level members over `connectSettings`' answer (null takes one out); an empty object ends it.
    pub fn patch_connect_settings(&self, patch: serde_json::Map<String, serde_json::Value>) {
        self.instance.patch(patch);
    }
    /// The instance's certificate chain and key (PEM), for a PostgreSQL that listens itself in the instance's place.
    pub fn server_identity(&self) -> (String, Secret<String>) {
        let (chain, key) = self.instance.server_identity();
        (chain, Secret::new(key))
    }
    /// From now on this person's login tokens all have one text, which such a PostgreSQL can have as their password.
    pub fn steady_login_token(&self, person: &world::Person) -> Secret<String> {
        Secret::new(self.google.steady_login_token(person.upn))
    }
    /// Gives a member an IAM role on the project, or on one service account.
    pub fn grant(&self, role: &'static str, member: &str, account: Option<&'static str>) {
        self.google.grant(role, member, account);
    }
    /// Takes an IAM role away from a member everywhere (`roles/cloudsql.client`, `serviceAccount:…`, `principal://…`).
    pub fn revoke(&self, role: &str, member: &str) {
        self.google.revoke(role, member);
    }
    /// Makes a key for the proxy's own service account, in place of the one before, and writes it as the key file that
    /// Google's console gives out (mode 0600).
    pub fn service_account_key(&self) -> Result<PathBuf, Error> {
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            .map_err(|error| certs::failed("a service account's key", error))?;
        self.google.set_own_account_key(rcgen::PublicKeyData::der_bytes(&key).to_vec());
        let content = serde_json::json!({
            "type": "service_account", "project_id": world::PROJECT, "private_key_id": "0a1b2c3d",
            "private_key": key.serialize_pem(), "client_email": world::OWN_SERVICE_ACCOUNT,
            "token_uri": format!("{}/token", self.urls.sts),
        });
        self.state.write_new("service-account.json", content.to_string().as_bytes())
    }
    /// Registers a new certificate with the proxy's own app; gives back certificate and key (PEM, mode 0600).
    pub fn register_app_certificate(&self) -> Result<(PathBuf, PathBuf), Error> {
        let failed = |error| certs::failed("the app's certificate", error);
        let key =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).map_err(failed)?;
        let params = rcgen::CertificateParams::new(Vec::new()).map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
        self.entra.register_certificate(entra::Registered {
            thumbprint: URL_SAFE_NO_PAD.encode(digest),
            public: rcgen::PublicKeyData::der_bytes(&key).to_vec(),
        });
        let certificate = self.state.write_new("app.crt", certificate.pem().as_bytes())?;
        Ok((certificate, self.state.write_new("app.key", key.serialize_pem().as_bytes())?))
    }
    /// From now on every trade on behalf of somebody is answered with this OAuth `error` and number.
    pub fn order_on_behalf_of(&self, ordered: Option<(&'static str, u32)>) {
        self.entra.order_on_behalf_of(ordered);
    }
    /// Switches off a pool's provider.
    pub fn disable_provider(&self, provider: &str) {
        self.google.disable_provider(provider);
    }
    /// `connectorEnforcement = REQUIRED`: PostgreSQL's own port takes nobody any more.
    pub fn require_connectors(&self) {
        self.instance.require_connectors();
    }
    /// Google becomes that of another universe: STS knows pools by names of that domain alone.
    pub fn move_to_universe(&self, domain: &str) {
        self.google.move_to(domain);
    }
    /// Takes the proxy's identity its permissions on Microsoft Graph.
    pub fn revoke_graph(&self) {
        self.entra.revoke_graph();
    }
    /// Replaces the instance's client CA: certificates issued so far are refused from now on.
    pub fn rotate_client_ca(&self) -> Result<(), Error> {
        self.instance.rotate_client_authority()
    }
}

impl Error {
    fn io(action: &str, source: std::io::Error) -> Self {
        Self::Io { action: action.to_owned(), source }
    }
}

/// TLS by aws-lc-rs, whatever the process's default is.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

// The simulators' state stays usable after a panic in a test's thread.

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

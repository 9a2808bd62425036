//! An instance's name in, a verified TLS stream to it out: by the connector protocol to port 3307, or directly to
//! PostgreSQL's own port.
//!
//! Settings and the ephemeral certificate are cached per instance and refreshed as Google's connectors do. On either
//! path the server's chain **and name** are verified before anything that could serve a stranger leaves: on the
//! direct path an `SSLRequest` comes first, which says nothing. The reference for every rule here is Google's own
//! `cloud-sql-go-connector`. A caller's login token is seen here only for [`LoginMethod::TokenInCertificate`]; it goes
//! to the Admin API alone.

mod admin;
mod callers;
mod certificate;
mod connector;
mod direct;
mod refresh;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;

pub use callers::Caller;
pub use connector::Connector;

use crate::federation::OwnIdentity;
use crate::names::InstanceName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The connector's port on every instance (`serverProxyPort` in Google's connector).
pub const CONNECTOR_PORT: u16 = 3307;
/// PostgreSQL's own port on every instance; 6432 is the managed pooler's.
pub const DIRECT_PORT: u16 = 5432;

/// Which of an instance's addresses to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpType {
    /// `PRIMARY`: the public address.
    #[default]
    Public,
    /// `PRIVATE`.
    Private,
    /// Private Service Connect, by DNS name.
    Psc,
}

/// How an instance is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Route {
    /// TLS with an ephemeral client certificate to [`CONNECTOR_PORT`].
    #[default]
    Connector,
    /// `SSLRequest` and TLS to PostgreSQL's own port (PostgreSQL documentation, "SSL Session Encryption"). A client
    /// certificate is shown only when it carries the login token.
    Direct {
        /// [`DIRECT_PORT`], or 6432 for the managed pooler.
        port: u16,
    },
}

/// How an instance learns who the session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoginMethod {
    /// The login token answers the request for a cleartext password. One certificate serves every caller.
    #[default]
    TokenAsPassword,
    /// The login token is inside the ephemeral certificate (Cloud SQL: "automatic IAM database authentication"): one
    /// certificate, and one Admin API call, for each caller. No password is asked for.
    TokenInCertificate,
}

/// One `[instance."PROJECT:REGION:INSTANCE"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceConfig {
    /// Connection name.
    pub name: InstanceName,
    /// Which address.
    pub ip_type: IpType,
    /// Which way.
    pub route: Route,
    /// How callers log in.
    pub login: LoginMethod,
}

impl InstanceConfig {
    /// Whether the instance is shown any client certificate.
    fn shows_certificate(&self) -> bool {
        self.route == Route::Connector || self.login == LoginMethod::TokenInCertificate
    }
}

/// Bounds of the hops to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Each Admin API call, retries included.
    pub admin_api: Duration,
    /// TCP connect.
    pub dial: Duration,
    /// TLS handshake.
    pub handshake: Duration,
}

/// A verified stream to an instance.
#[derive(Debug)]
pub struct ServerStream {
    /// TLS over TCP.
    pub stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    /// Where it goes; cancels go to the same address.
    pub address: SocketAddr,
    /// How the session on it must log in.
    pub login: LoginMethod,
}

/// Why an instance cannot be reached. `Clone`, because all who wait for one refresh learn of its failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The instance is not in the config.
    #[error("instance {0} is not configured")]
    Unknown(InstanceName),
    /// The proxy has no credential of its own.
    #[error("the proxy's own identity failed")]
    OwnIdentity(#[source] Arc<crate::federation::Error>),
    /// The Admin API did not answer, or 5xx after its retries, or 429.
    #[error("the SQL Admin API is unavailable: {0}")]
    AdminUnavailable(String),
    /// So many callers wait for certificates of their own already that this one is not let in.
    #[error("too many calls of the SQL Admin API are under way")]
    AdminBusy,
    /// The Admin API said 429 to a caller's certificate, or has said so a moment ago and is left alone for longer than
    /// this login may take.
    #[error("the SQL Admin API takes no more calls for now")]
    AdminThrottled {
        /// How long still, where that is known.
        left: Option<Duration>,
    },
    /// The Admin API said no (401, 403, 404…).
    #[error("the SQL Admin API refused: {status} {reason}: {message}")]
    AdminRefused {
        /// HTTP status.
        status: u16,
        /// `error.errors[0].reason` or `error.status`.
        reason: String,
        /// `error.message`.
        message: String,
    },
    /// The Admin API answered something that cannot be used.
    #[error("the SQL Admin API answered something that cannot be used: {0}")]
    AdminBroken(String),
    /// The instance does not fit the config (region, address type, engine).
    #[error("the instance does not fit the config: {0}")]
    Mismatch(String),
    /// TCP connect failed or timed out.
    #[error("cannot dial {address}: {reason}")]
    Dial {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The handshake did not end within its deadline.
    #[error("{address} did not finish the TLS handshake within {deadline:?}")]
    HandshakeDeadline {
        /// Where.
        address: String,
        /// The limit that passed.
        deadline: Duration,
    },
    /// The handshake failed, the chain or the name is wrong, or the instance offers no TLS.
    #[error("TLS with {address} failed: {reason}")]
    Tls {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The connector's own key or TLS settings cannot be made.
    #[error("cannot set up the connector: {0}")]
    SetUp(String),
}

/// Whose token calls the Admin API: in production always the proxy's own.
#[derive(Debug)]
enum Credential {
    Own(Arc<OwnIdentity>),
    #[cfg(test)]
    Fixed(Arc<crate::federation::AccessToken>),
}

impl Credential {
    async fn token(&self) -> Result<Arc<crate::federation::AccessToken>, crate::federation::Error> {
        match self {
            Self::Own(own) => own.token().await,
            #[cfg(test)]
            Self::Fixed(token) => Ok(Arc::clone(token)),
        }
    }
}

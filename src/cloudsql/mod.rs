//! The connector protocol: an instance's name in, a verified TLS stream to its port 3307 out.
//!
//! Settings and the ephemeral certificate are cached per instance and refreshed as Google's connectors do
//! (facts: Cloud SQL §4). The server's chain **and name** are verified before a byte is sent (§2.3, §2.4).

use crate::federation::{GoogleEndpoints, OwnIdentity};
use crate::names::InstanceName;
use crate::time::Clock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The connector's port on every instance (facts: Cloud SQL §2.1).
pub const CONNECTOR_PORT: u16 = 3307;

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

/// One `[instance."PROJECT:REGION:INSTANCE"]`.
#[derive(Debug, Clone)]
pub struct InstanceConfig {
    /// Connection name.
    pub name: InstanceName,
    /// Which address.
    pub ip_type: IpType,
}

/// Bounds of the hops to an instance.
#[derive(Debug, Clone, Copy)]
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
}

/// Why an instance cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance is not in the config.
    #[error("instance {0} is not configured")]
    Unknown(InstanceName),
    /// The proxy has no credential of its own.
    #[error("the proxy's own identity failed")]
    OwnIdentity(#[source] crate::federation::Error),
    /// The Admin API did not answer, or 5xx after its retries, or 429.
    #[error("the SQL Admin API is unavailable: {0}")]
    AdminUnavailable(String),
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
    /// The handshake failed, the chain or the name is wrong included.
    #[error("TLS with {address} failed: {reason}")]
    Tls {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
}

/// Dials instances; holds one RSA key and, per instance, settings and certificate.
#[derive(Debug)]
pub struct Connector {
    _private: (),
}

impl Connector {
    /// Generates the RSA-2048 key; calls nothing yet.
    pub fn new(
        instances: Vec<InstanceConfig>,
        endpoints: GoogleEndpoints,
        own: Arc<OwnIdentity>,
        http: crate::http::Client,
        clock: Clock,
        deadlines: Deadlines,
    ) -> Result<Self, Error> {
        let _ = (instances, endpoints, own, http, clock, deadlines);
        todo!()
    }

    /// A new verified connection to the instance.
    pub async fn dial(&self, instance: &InstanceName) -> Result<ServerStream, Error> {
        let _ = instance;
        todo!()
    }

    /// A new verified connection to exactly this address of the instance, for a cancel.
    pub async fn dial_address(&self, instance: &InstanceName, address: SocketAddr) -> Result<ServerStream, Error> {
        let _ = (instance, address);
        todo!()
    }

    /// What an instance's TLS stream told after the handshake: drop its cached certificate, so that the next dial
    /// gets a new one (a TLS 1.3 server rejects a client certificate only on the first read).
    pub fn forget(&self, instance: &InstanceName) {
        let _ = instance;
        todo!()
    }
}

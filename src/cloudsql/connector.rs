//! The dialer: an instance's name in, a verified TLS 1.3 stream to it out, by the path that its config names.

use super::admin::Admin;
use super::certificate::ClientKey;
use super::refresh::{Instance, Material, Source};
use super::settings::Destination;
use super::{
    CONNECTOR_PORT, Caller, Credential, Deadlines, Error, InstanceConfig, LoginMethod, Route, ServerStream, direct,
};
use crate::federation::{GoogleEndpoints, OwnIdentity};
use crate::http::Client;
use crate::names::InstanceName;
use crate::time::Clock;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Idle time before TCP asks whether the instance is still there, and between two such questions.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Addresses of one DNS name that are tried, in the resolver's order.
const MAX_ADDRESSES: usize = 4;

/// Dials instances; holds one RSA key and, per instance, settings and certificate.
///
/// Each instance that has been dialled has a task that keeps its certificate fresh; it ends with the connector.
pub struct Connector {
    instances: HashMap<InstanceName, Instance>,
    deadlines: Deadlines,
    /// Of [`Route::Connector`].
    port: u16,
}

impl Connector {
    /// Generates the RSA-2048 key; calls nothing yet.
    pub fn new(
        instances: Vec<InstanceConfig>,
        endpoints: GoogleEndpoints,
        own: Arc<OwnIdentity>,
        http: Client,
        clock: Clock,
        deadlines: Deadlines,
    ) -> Result<Self, Error> {
        let admin = Admin::new(endpoints.sql_admin, http, deadlines.admin_api);
        Self::with_credential(instances, admin, Credential::Own(own), clock, deadlines)
    }

    pub(super) fn with_credential(
        instances: Vec<InstanceConfig>,
        admin: Admin,
        credential: Credential,
        clock: Clock,
        deadlines: Deadlines,
    ) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let source = Arc::new(Source { admin, credential, key: ClientKey::generate()?, provider, clock });
        let instances = instances
            .into_iter()
            .map(|config| (config.name.clone(), Instance::new(config, Arc::clone(&source))))
            .collect();
        Ok(Self { instances, deadlines, port: CONNECTOR_PORT })
    }

    /// Reaches no instance.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let none = Duration::ZERO;
        let deadlines = Deadlines { admin_api: none, dial: none, handshake: none };
        Self { instances: HashMap::new(), deadlines, port: CONNECTOR_PORT }
    }

    /// The same for servers that a test runs on another port.
    #[cfg(test)]
    pub(super) fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// A new verified connection to the instance, for a session of this caller's. Cancel-safe: what was half done is
    /// closed.
    pub async fn dial(&self, instance: &InstanceName, caller: Caller<'_>) -> Result<ServerStream, Error> {
        let instance = self.instance(instance)?;
        let material = instance.material().await?;
        let tls = match instance.config().login {
            LoginMethod::TokenAsPassword => Arc::clone(&material.tls),
            LoginMethod::TokenInCertificate => instance.tls_for(&material, caller).await?,
        };
        let tcp = self.connect(self.port_of(instance), &material.destination).await;
        self.handshake(instance, &material, tls, tcp).await
    }

    /// A new verified connection to exactly this address of the instance, for a cancel: the same path and the same
    /// checks. It logs nobody in, so that no certificate with a token in it is shown.
    pub async fn dial_address(&self, instance: &InstanceName, address: SocketAddr) -> Result<ServerStream, Error> {
        let instance = self.instance(instance)?;
        let material = instance.material().await?;
        let tcp = self.connect_to(&address.to_string(), async { Ok(vec![address]) }).await;
        self.handshake(instance, &material, Arc::clone(&material.tls), tcp).await
    }

    /// What an instance's TLS stream told after the handshake: drop its cached certificate, so that the next dial
    /// gets a new one (a TLS 1.3 server rejects a client certificate only on the first read). A certificate with
    /// which nobody has connected yet stays: it cannot be the one that was refused. Where the certificate is the
    /// caller's own, that one goes; what all share is asked for anew and serves on until then.
    pub fn forget(&self, instance: &InstanceName, caller: Caller<'_>) {
        let Some(instance) = self.instances.get(instance) else { return };
        match (instance.config().route, instance.config().login) {
            (Route::Connector, LoginMethod::TokenAsPassword) => instance.forget(),
            (Route::Direct { .. }, LoginMethod::TokenAsPassword) => instance.refresh(),
            (_, LoginMethod::TokenInCertificate) => {
                instance.forget_caller(caller);
                instance.refresh();
            }
        }
    }

    fn port_of(&self, instance: &Instance) -> u16 {
        match instance.config().route {
            Route::Connector => self.port,
            Route::Direct { port } => port,
        }
    }

    fn instance(&self, name: &InstanceName) -> Result<&Instance, Error> {
        self.instances.get(name).ok_or_else(|| Error::Unknown(name.clone()))
    }

    async fn connect(&self, port: u16, destination: &Destination) -> Result<(TcpStream, SocketAddr), Error> {
        match destination {
            Destination::Address(ip) => {
                let address = SocketAddr::new(*ip, port);
                self.connect_to(&address.to_string(), async { Ok(vec![address]) }).await
            }
            Destination::Name(name) => {
                let found = async { tokio::net::lookup_host((name.as_str(), port)).await.map(Iterator::collect) };
                self.connect_to(&format!("{name}:{port}"), found).await
            }
        }
    }

    /// TCP to the first of the addresses that answers, looked up and dialled within one deadline.
    async fn connect_to(
        &self,
        address: &str,
        found: impl Future<Output = io::Result<Vec<SocketAddr>>>,
    ) -> Result<(TcpStream, SocketAddr), Error> {
        let dial = async { first_that_answers(&found.await?).await };
        let failed = |reason: String| Error::Dial { address: address.to_owned(), reason };
        match timeout(self.deadlines.dial, dial).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {:?}", self.deadlines.dial))),
        }
    }

    /// TLS on a dialled socket. Any failure, the socket's included, asks for new settings and a new certificate.
    async fn handshake(
        &self,
        instance: &Instance,
        material: &Material,
        tls: Arc<rustls::ClientConfig>,
        tcp: Result<(TcpStream, SocketAddr), Error>,
    ) -> Result<ServerStream, Error> {
        let (mut tcp, address) = tcp.inspect_err(|_| instance.refresh())?;
        let name = match &material.server_name {
            Some(name) => ServerName::DnsName(name.clone()),
            None => ServerName::IpAddress(address.ip().into()),
        };
        let route = instance.config().route;
        let handshake = async move {
            if let Route::Direct { .. } = route {
                direct::request_tls(&mut tcp).await?;
            }
            TlsConnector::from(tls).connect(name, tcp).await
        };
        let at = || address.to_string();
        let failure = match timeout(self.deadlines.handshake, handshake).await {
            Ok(Ok(stream)) => {
                material.mark_used();
                return Ok(ServerStream { stream, address, login: instance.config().login });
            }
            Ok(Err(error)) => Error::Tls { address: at(), reason: handshake_failure(&error) },
            Err(_) => Error::HandshakeDeadline { address: at(), deadline: self.deadlines.handshake },
        };
        instance.refresh();
        Err(failure)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("instances", &self.instances.keys()).finish_non_exhaustive()
    }
}

/// Why a handshake failed. Our own check's words are taken out of rustls' error, which would print their `Debug`.
fn handshake_failure(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(own))) => own.to_string(),
        _ => error.to_string(),
    }
}

async fn first_that_answers(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for &address in addresses.iter().take(MAX_ADDRESSES) {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
                SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
                return Ok((tcp, address));
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

//! The instance's listeners: TLS 1.3, login, then bytes to and from PostgreSQL. The connector's port wants a client
//! certificate; PostgreSQL's own port wants an `SSLRequest` first, lets nobody in without TLS (`sslMode`
//! `ENCRYPTED_ONLY`), and takes a client certificate of the instance's CA without asking for one.

use super::Instance;
use super::login::{Admitted, Door, first_packet, refuse, tls_is_asked_for};
use crate::sim::calls::{Calls, Endpoint};
use crate::sim::certs::failed;
use crate::sim::faults::{Fault, Faults, Hop};
use crate::sim::gate::Gate;
use crate::sim::google::Google;
use crate::sim::{Error, provider};
use crate::time::Clock;
use crate::wire::ErrorFields;
use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::FromDer as _;

/// The connector's port.
const PORT: u16 = 3307;
/// PostgreSQL's own port.
const DIRECT_PORT: u16 = 5432;
/// Addresses to try before giving up.
const MAX_BIND_ATTEMPTS: u32 = 4096;
/// From accept until the session is let in (`authentication_timeout`).
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Sessions at a time; further ones wait to be accepted.
const MAX_SESSIONS: usize = 1024;
/// Bytes of a `Garbage` fault: no TLS record and no PostgreSQL message.
const GARBAGE: &[u8] = b"\x00\xff\x00\xffthis is neither TLS nor PostgreSQL\n";

/// Everything a connection needs.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Server {
    pub(in crate::sim) instance: Arc<Instance>,
    pub(in crate::sim) google: Arc<Google>,
    pub(in crate::sim) clock: Clock,
    pub(in crate::sim) calls: Calls,
    pub(in crate::sim) faults: Faults,
    /// PostgreSQL's Unix socket.
    pub(in crate::sim) socket: PathBuf,
}

/// Which of the instance's ports a client came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Path {
    /// 3307.
    Connector,
    /// 5432.
    Direct,
}

/// Finds a free loopback address for port 3307: clouds that run at once have different ones. The second gate is port
/// 5432 of that address, or another one where a PostgreSQL of this machine's own listens on every address.
pub(in crate::sim) fn bind(faults: &Faults) -> Result<(Gate, Gate), Error> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for _ in 0..MAX_BIND_ATTEMPTS {
        // Random, so that clouds of any process rarely meet; the kernel decides when they do.
        let [high, low, ..] = uuid::Uuid::new_v4().into_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(127, 77, high, low.clamp(1, 254)), PORT));
        let bind = |port| Gate::bind(SocketAddr::new(address.ip(), port), Hop::InstanceTcp, faults.clone());
        let both = bind(PORT).and_then(|gate| Ok((gate, bind(DIRECT_PORT).or_else(|_| bind(0))?)));
        match both {
            Ok(gates) => return Ok(gates),
            Err(error) => last = error,
        }
    }
    Err(Error::io("bind a loopback address at port 3307", last))
}

impl Server {
    /// Serves until dropped; every session ends with it.
    pub(in crate::sim) async fn serve(self, mut gate: Gate, path: Path) {
        let mut sessions = JoinSet::new();
        loop {
            while sessions.try_join_next().is_some() {}
            if sessions.len() >= MAX_SESSIONS {
                sessions.join_next().await;
            }
            match gate.accept().await {
                Ok(stream) => drop(sessions.spawn(self.clone().connection(stream, path))),
                Err(error) => {
                    tracing::warn!(%error, "the simulated instance cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, path: Path) {
        self.calls.add(Endpoint::InstanceConnection);
        if let Err(error) = self.session(stream, path).await {
            tracing::debug!(%error, "a session of the simulated instance ended");
        }
    }

    async fn session(self, mut stream: TcpStream, path: Path) -> io::Result<()> {
        // How Cloud SQL turns them away is not documented; a close is what hurts least to assume.
        if path == Path::Direct && self.instance.connectors_only.load(Ordering::Relaxed) {
            return Ok(());
        }
        let letting_in = async {
            if self.disturb(Hop::InstanceTcp, &mut stream).await?
                || (path == Path::Direct && !self.offer_tls(&mut stream).await?)
                || self.disturb(Hop::InstanceTls, &mut stream).await?
            {
                return Ok(None);
            }
            let mut stream = self.handshake(stream, path).await?;
            let admitted = self.let_in(&mut stream).await?;
            Ok::<_, io::Error>(admitted.map(|admitted| (stream, admitted)))
        };
        let Ok(admitted) = tokio::time::timeout(AUTHENTICATION_TIMEOUT, letting_in).await else { return Ok(()) };
        match admitted? {
            None => Ok(()),
            Some((stream, Admitted::Session(packet))) => self.relay(stream, &packet).await,
            Some((stream, Admitted::Cancel(packet))) => self.cancel(stream, &packet).await,
            Some((stream, Admitted::StandIn(address))) => {
                let program = TcpStream::connect(address).await?;
                forward(stream, program).await
            }
        }
    }

    /// Does what a fault orders before TLS; true when nothing more is to be done.
    async fn disturb(&self, hop: Hop, stream: &mut TcpStream) -> io::Result<bool> {
        let fault = self.faults.get(hop);
        if hop == Hop::InstanceTls && fault == Some(Fault::Reset) {
            // In answer to the client's first bytes: at once it could be taken for a connection that was not made.
            stream.peek(&mut [0]).await?;
        }
        match fault {
            None | Some(Fault::AskFor(_) | Fault::NoTls) => return Ok(false),
            Some(Fault::Delay(duration)) => {
                tokio::time::sleep(duration).await;
                return Ok(false);
            }
            Some(Fault::Garbage) => stream.write_all(GARBAGE).await?,
            Some(Fault::Close | Fault::Status(_) | Fault::RetryAfter(_)) => {}
            // A TLS record that announces more than TLS allows, and goes on.
            Some(Fault::Huge) => stream.write_all(&huge(b"\x16\x03\x03\xff\xff")).await?,
            Some(Fault::Reset | Fault::Refuse | Fault::BlackHole) => stream.set_zero_linger()?,
        }
        Ok(true)
    }

    /// Answers the direct port's first packet; true when TLS comes next.
    async fn offer_tls(&self, stream: &mut TcpStream) -> io::Result<bool> {
        if !tls_is_asked_for(stream).await? {
            // `ENCRYPTED_ONLY`. PostgreSQL says more here (`libpq/auth.c`: host, user and database), once it has read the
            // start-up packet, which is not read here.
            let fields = ErrorFields::new("FATAL", "28000", "no pg_hba.conf entry for host, no encryption");
            return refuse(stream, &fields).await.map(|_: Option<()>| false);
        }
        self.calls.add(Endpoint::InstanceTlsRequest);
        let offered = self.faults.get(Hop::InstanceTls) != Some(Fault::NoTls);
        stream.write_all(if offered { b"S" } else { b"N" }).await?;
        Ok(offered)
    }

    /// TLS 1.3 with a client certificate of the instance's client CA; the direct port does without.
    async fn handshake(&self, stream: TcpStream, path: Path) -> io::Result<TlsStream<TcpStream>> {
        let config = self.tls(path).map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        self.calls.add(Endpoint::InstanceHandshake);
        Ok(stream)
    }

    fn tls(&self, path: Path) -> Result<ServerConfig, Error> {
        let roots = Arc::clone(&crate::sim::read(&self.instance.clients).roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let verifier = if path == Path::Direct { verifier.allow_unauthenticated() } else { verifier };
        let verifier = verifier.build().map_err(|error| failed("the client verifier", error))?;
        let identity = self.instance.certificates.identity(*crate::sim::read(&self.instance.presented));
        ServerConfig::builder_with_details(provider(), Arc::new(SharedTime(self.clock.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| failed("TLS 1.3", error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| failed("the server certificate", error))
    }

    async fn let_in(&self, stream: &mut TlsStream<TcpStream>) -> io::Result<Option<Admitted>> {
        if let Some(address) = *crate::sim::read(&self.instance.stand_in) {
            return Ok(Some(Admitted::StandIn(address)));
        }
        let serial = client_serial(stream)?;
        let (initial, packet) = first_packet(stream).await?;
        let fault = self.faults.get(Hop::InstanceLogin);
        let mut method = None;
        match fault {
            None | Some(Fault::NoTls) => {}
            Some(Fault::Delay(duration)) => tokio::time::sleep(duration).await,
            Some(Fault::AskFor(asked)) => method = Some(asked),
            Some(Fault::Status(status)) => return refuse(stream, &fatal(status)).await,
            Some(Fault::RetryAfter(_)) => return refuse(stream, &fatal(429)).await,
            Some(Fault::Garbage) => {
                stream.write_all(GARBAGE).await?;
                stream.shutdown().await?;
                return Ok(None);
            }
            Some(Fault::Huge) => {
                // An ErrorResponse of 2 GiB begins.
                stream.write_all(&huge(b"E\x7f\xff\xff\xff")).await?;
                stream.shutdown().await?;
                return Ok(None);
            }
            Some(Fault::Close) => {
                stream.shutdown().await?;
                return Ok(None);
            }
            Some(Fault::Reset | Fault::Refuse | Fault::BlackHole) => {
                stream.get_ref().0.set_zero_linger()?;
                return Ok(None);
            }
        }
        let door = Door { instance: &self.instance, google: &self.google, calls: &self.calls, serial: &serial, method };
        door.admit(stream, initial, packet).await
    }

    /// Hands the session to PostgreSQL, which sends `AuthenticationOk` itself, or asks a built-in user's password; backpressure and half-close pass through.
    async fn relay(self, stream: TlsStream<TcpStream>, packet: &[u8]) -> io::Result<()> {
        self.calls.add(Endpoint::InstanceLogin);
        let mut postgres = UnixStream::connect(&self.socket).await?;
        postgres.write_all(packet).await?;
        forward(stream, postgres).await
    }

    /// Passes a cancel on and closes when PostgreSQL has taken it.
    async fn cancel(self, mut stream: TlsStream<TcpStream>, packet: &[u8]) -> io::Result<()> {
        self.calls.add(Endpoint::InstanceCancel);
        match self.faults.get(Hop::InstanceCancel) {
            Some(Fault::Delay(duration)) => tokio::time::sleep(duration).await,
            Some(Fault::BlackHole) => return stream.read_to_end(&mut Vec::new()).await.map(drop),
            Some(Fault::Close) => return stream.shutdown().await,
            _ => {}
        }
        let mut postgres = UnixStream::connect(&self.socket).await?;
        postgres.write_all(packet).await?;
        let mut nothing = Vec::new();
        postgres.take(1).read_to_end(&mut nothing).await?;
        stream.shutdown().await
    }
}

/// Forwards both ways until the program behind has closed. One that takes no more of what the client sends may have
/// answered what came before: that reaches the client still.
async fn forward<C, B>(client: C, behind: B) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let ((mut from_client, mut to_client), (mut from_behind, mut to_behind)) = (split(client), split(behind));
    let asked = async {
        let _ = copy(&mut from_client, &mut to_behind).await;
        let _ = to_behind.shutdown().await;
        pending::<()>().await;
    };
    let answered = async {
        copy(&mut from_behind, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::select! {
        answered = answered => answered,
        () = asked => Ok(()),
    }
}

/// What PostgreSQL says in place of an HTTP status.
fn fatal(status: u16) -> ErrorFields {
    match status {
        429 => ErrorFields::new("FATAL", "53300", "sorry, too many clients already"),
        400..=499 => ErrorFields::new("FATAL", "28000", "Cloud SQL IAM user authentication failed"),
        _ => ErrorFields::new("FATAL", "57P03", "the database system is starting up"),
    }
}

/// A beginning, and two megabytes more.
fn huge(begin: &[u8]) -> Vec<u8> {
    [begin, &vec![b'x'; 2 * 1024 * 1024]].concat()
}

/// The serial number of the client's certificate, as the leaf has it; empty for a client without one.
fn client_serial(stream: &TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    let Some(leaf) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else { return Ok(Vec::new()) };
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(leaf).map_err(io::Error::other)?;
    Ok(certificate.raw_serial().to_vec())
}

/// rustls judges client certificates by the cloud's clock.
#[derive(Debug)]
struct SharedTime(Clock);

impl TimeProvider for SharedTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::Shutdown;

    #[tokio::test]
    async fn what_was_answered_arrives_though_no_more_is_taken() {
        let (mut client, stream) = tokio::io::duplex(1024);
        let (behind, postgres) = UnixStream::pair().expect("a pair");
        let mut postgres = postgres.into_std().expect("it is no task's");
        postgres.write_all(b"its last word").expect("room for it");
        postgres.shutdown(Shutdown::Read).expect("it takes no more");
        client.write_all(b"more").await.expect("room for it");
        drop(postgres);
        let mut answered = Vec::new();
        let (forwarded, read) = tokio::join!(forward(stream, behind), client.read_to_end(&mut answered));
        assert_eq!((forwarded.ok(), read.ok(), answered.as_slice()), (Some(()), Some(13), b"its last word".as_slice()));
    }
}

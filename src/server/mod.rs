//! Bind, serve, drain.
//!
//! The order matters: everything that can be wrong with the settings is found before a listener opens; the proxy is
//! ready once both listeners are open; on SIGTERM or SIGINT it stops accepting, lets sessions end when they are idle,
//! and ends those that are not at the drain deadline.

use crate::admin::{self, AdminState, Readiness};
use crate::audit::Auditor;
use crate::cloudsql::{self, Connector};
use crate::config::{Config, Deadlines, Limits};
use crate::federation::{self, Exchanger, Google, GraphIdentity, OwnIdentity};
use crate::frontend::{self, Door, DoorConfig};
use crate::identity::{self, Directory, IssuerConfig, Overage, Verifier};
use crate::names::SessionId;
use crate::policy::Policy;
use crate::relay::{Cause, Wish};
use crate::session::{self, Callers, CancelKeys, Services, Sessions};
use crate::telemetry::Metrics;
use crate::time::Clock;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

/// When a client has been silent for this long, its machine is asked …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … this often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// … and after this many questions without an answer the connection is over.
const KEEPALIVE_RETRIES: u32 = 4;
/// How long to wait after a failed accept (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often refusals that were only counted are told, and old keys are fetched again.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(60);
/// How long sessions may take after the drain deadline: to cancel what runs, and for their last words (`relay`).
const LAST_WORDS: Duration = Duration::from_secs(25);

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener's certificate.
    #[error(transparent)]
    Tls(#[from] frontend::TlsError),
    /// The HTTPS client.
    #[error(transparent)]
    Http(#[from] crate::http::Error),
    /// The proxy's own identity.
    #[error("cannot set up the proxy's own identity")]
    OwnIdentity(#[source] federation::Error),
    /// The connector.
    #[error("cannot set up the connector")]
    Connector(#[source] cloudsql::Error),
    /// The metrics.
    #[error("cannot set up the metrics")]
    Metrics(#[source] prometheus::Error),
    /// The log.
    #[error("cannot open the audit log {path}")]
    Audit {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config) -> Result<(), Error> {
    let clock = Clock::system();
    let metrics = Arc::new(Metrics::new().map_err(Error::Metrics)?);
    let (readiness, watched) = watch::channel(Readiness::Starting);
    let door = Door::new(door_config(&config));
    let (address, admin_address) = (config.listen.address, config.admin);
    let drain = config.deadlines.drain;
    let services = Arc::new(services(config, Arc::clone(&metrics), clock)?);
    let listener = listen(address).await?;
    let mut stop = Stop::new().map_err(Error::Signals)?;
    let (_admin_stop, admin_stopped) = watch::channel(());
    if let Some(address) = admin_address {
        let listener = listen(address).await?;
        tracing::info!(address = %listener.local_addr().unwrap_or(address), "admin listener");
        let state = AdminState { metrics, readiness: watched };
        tokio::spawn(admin::serve(listener, state, closed(admin_stopped)));
    }
    for (issuer, error) in services.verifier.warm_up().await {
        tracing::warn!(issuer = %issuer, error = %error, "the issuer's keys cannot be fetched yet");
    }
    tracing::info!(address = %listener.local_addr().unwrap_or(address), "ready");
    readiness.send_replace(Readiness::Ready);
    let connections = accept(&listener, &door, &services, &mut stop).await;
    drop(listener);
    readiness.send_replace(Readiness::Draining);
    drain_sessions(&services.sessions, connections, drain, &mut stop).await;
    let _ = services.auditor.record_suppressed(SessionId::generate());
    tracing::info!("stopped");
    Ok(())
}

fn services(config: Config, metrics: Arc<Metrics>, clock: Clock) -> Result<Services, Error> {
    let Config {
        listen,
        audit,
        issuers,
        google,
        ca_certificate,
        own_identity,
        instances,
        policy,
        tag,
        limits,
        deadlines,
        ..
    } = config;
    let tls = frontend::server_config(&listen.certificate, &listen.key)?;
    let http = crate::http::Client::new(ca_certificate.as_deref())?;
    let auditor = Auditor::open(&audit.path, audit.unverified_refusals_per_minute, clock.clone())
        .map_err(|source| Error::Audit { path: audit.path, source })?;
    let calls = federation::Deadlines { sts: deadlines.sts, iam_credentials: deadlines.iam_credentials };
    let google_calls = || Google {
        endpoints: google.clone(),
        http: http.clone(),
        clock: clock.clone(),
        deadlines: calls,
        services: federation::Services::default(),
    };
    let own = OwnIdentity::new(own_identity, google_calls(), deadlines.own_identity).map_err(Error::OwnIdentity)?;
    let exchanger = Exchanger::new(google_calls());
    let hops =
        cloudsql::Deadlines { admin_api: deadlines.admin_api, dial: deadlines.dial, handshake: deadlines.handshake };
    let connector = Connector::new(instances, google, Arc::new(own), http.clone(), clock.clone(), hops)
        .map_err(Error::Connector)?;
    let verifier = verifier(issuers, &policy, (&limits, &deadlines), &http, &clock)?;
    Ok(Services {
        tls,
        verifier,
        policy,
        tag,
        exchanger,
        connector,
        auditor,
        sessions: Sessions::default(),
        cancel_keys: CancelKeys::default(),
        callers: Callers::new(limits.sessions, limits.sessions_per_caller),
        metrics,
        clock,
        deadlines,
    })
}

/// Checks tokens, and asks directories for the groups that do not fit into them.
fn verifier(
    issuers: Vec<IssuerConfig>,
    policy: &Policy,
    (limits, deadlines): (&Limits, &Deadlines),
    http: &crate::http::Client,
    clock: &Clock,
) -> Result<Verifier, Error> {
    let mut directories = Vec::new();
    for issuer in &issuers {
        let Some(Overage::Graph { endpoint, client_id }) = issuer.entra().map(|entra| &entra.overage) else { continue };
        let own = deadlines.own_identity;
        let token = GraphIdentity::new(http.clone(), clock.clone(), own, endpoint, client_id.clone())
            .map_err(Error::OwnIdentity)?;
        let asked = policy.groups_of(&issuer.name).cloned().collect();
        let directory = Directory::new(endpoint, Arc::new(token), http.clone(), deadlines.keys, asked);
        directories.push((issuer.name.clone(), directory));
    }
    let bounds = identity::Settings { keys: deadlines.keys, bad_tokens_per_address: limits.bad_tokens_per_address };
    let verifier = Verifier::new(issuers, http.clone(), bounds);
    Ok(directories.into_iter().fold(verifier, |verifier, (name, directory)| verifier.with_directory(name, directory)))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn door_config(config: &Config) -> DoorConfig {
    DoorConfig {
        logins: config.limits.logins,
        logins_per_address: config.limits.logins_per_address,
        trusted_proxies: config.listen.trusted_proxies.clone(),
        proxy_protocol: config.listen.proxy_protocol,
    }
}

/// Accepts until told to stop. Connections are served in the returned set; the door and `limits.sessions` bound how many.
async fn accept(listener: &TcpListener, door: &Door, services: &Arc<Services>, stop: &mut Stop) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let mut minute = interval(HOUSEKEEPING_EVERY);
    loop {
        tokio::select! {
            () = stop.wait() => return connections,
            _ = minute.tick() => {
                let _ = services.auditor.record_suppressed(SessionId::generate());
                services.verifier.refresh_ahead();
                services.exchanger.sweep();
            }
            Some(result) = connections.join_next(), if !connections.is_empty() => report(result),
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => {
                    settle(&socket);
                    if let Some(arrival) = door.admit(socket, address) {
                        connections.spawn(session::serve(arrival, Arc::clone(services)));
                    } else {
                        tracing::warn!(%address, "dropped: too many connections to tell it why");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Small messages leave at once; a client that vanished without a word is noticed.
fn settle(socket: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    let settled = socket.set_nodelay(true).and_then(|()| SockRef::from(socket).set_tcp_keepalive(&keepalive));
    if let Err(error) = settled {
        tracing::debug!(%error, "socket options");
    }
}

/// Lets sessions end when idle; past the deadline, or at a second signal, ends them.
async fn drain_sessions(sessions: &Sessions, mut connections: JoinSet<()>, deadline: Duration, stop: &mut Stop) {
    tracing::info!(connections = connections.len(), ?deadline, "draining");
    sessions.wish_everybody(Wish::WhenIdle(Cause::Shutdown));
    tokio::select! {
        () = join(&mut connections) => return,
        () = sleep(deadline) => tracing::warn!(connections = connections.len(), "drain deadline; ending what is left"),
        () = stop.wait() => tracing::warn!(connections = connections.len(), "second signal; ending what is left"),
    }
    sessions.wish_everybody(Wish::Now(Cause::Shutdown));
    let _ = timeout(LAST_WORDS, join(&mut connections)).await;
    connections.shutdown().await;
}

async fn join(connections: &mut JoinSet<()>) {
    while let Some(result) = connections.join_next().await {
        report(result);
    }
}

/// A session that panicked is a bug: it must be seen, and hurt nobody else.
fn report(result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result
        && error.is_panic()
    {
        tracing::error!(%error, "a session panicked");
    }
}

/// Resolves when the sender is gone.
async fn closed(mut watched: watch::Receiver<()>) {
    while watched.changed().await.is_ok() {}
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

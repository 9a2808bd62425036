//! Bind, serve, drain.
//!
//! The order matters: everything that can be wrong with the settings is found before a listener opens; the proxy is
//! ready once both listeners are open; on SIGTERM or SIGINT it stops accepting, lets sessions end when they are idle,
//! and ends those that are not at the drain deadline.

mod descriptors;
mod generation;
mod reload;
mod workers;

use crate::admin::{self, AdminSocket, AdminState, Operations, Readiness};
use crate::audit::Auditor;
use crate::audit::ledger::{Anchored, Status};
use crate::cloudsql;
use crate::config::Config;
use crate::federation;
use crate::frontend::{self, Arrival};
use crate::http::chain;
use crate::identity;
use crate::names::SessionId;
use crate::relay::{self, Cause, Wish};
use crate::session::{self, Services, Sessions};
use crate::telemetry::{AnchorGauge, AuditGauge, Metrics};
use crate::time::{Clock, Timestamp};
use generation::{Fixed, Generation, Lasting};
use reload::Reloader;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use workers::Workers;

/// When a client has been silent for this long, its machine is asked …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … this often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// … and after this many questions without an answer the connection is over.
const KEEPALIVE_RETRIES: u32 = 4;
/// How long to wait after a failed accept (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often records that wait in memory are written.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How often refusals that were only counted are told, and old keys are fetched again.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(60);
/// How long sessions may take after the drain deadline besides their cancels and last words.
const SPARE: Duration = Duration::from_secs(5);

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
    /// The trade on behalf of callers.
    #[error("cannot set up the trade on behalf of callers")]
    OnBehalfOf(#[source] federation::Error),
    /// The connector.
    #[error("cannot set up the connector")]
    Connector(#[source] cloudsql::Error),
    /// The metrics.
    #[error("cannot set up the metrics")]
    Metrics(#[source] prometheus::Error),
    /// The log.
    #[error("cannot open the audit log")]
    Audit(#[from] crate::audit::OpenError),
    /// The keys of sealed texts.
    #[error("cannot open audit.sealing")]
    Sealing(#[from] crate::audit::sealing::VaultError),
    /// The first record.
    #[error(transparent)]
    Unrecorded(#[from] crate::audit::Unrecorded),
    /// An address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The admin socket.
    #[error("cannot listen on the admin socket {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Threads.
    #[error("cannot start the threads that serve")]
    Workers(#[source] io::Error),
    /// Signals.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT, then drains; on SIGHUP, reads the file at `source` again.
pub async fn run(config: Config, source: PathBuf) -> Result<(), Error> {
    let mut stop = Stop::new().map_err(Error::Signals)?;
    let hangup = signal(SignalKind::hangup()).map_err(Error::Signals)?;
    descriptors::make_room(&config.limits);
    let metrics = Arc::new(Metrics::new().map_err(Error::Metrics)?);
    let (readiness, watched) = watch::channel(Readiness::Starting);
    let fixed = Fixed::of(&config);
    let (address, admin_address, admin_socket) = (config.listen.address, config.admin, config.admin_socket.clone());
    let workers = config.listen.workers;
    let lasting = Lasting::open(&config, Arc::clone(&metrics), Clock::system())?;
    let generation = Generation::make(config, &lasting, None)?;
    let listener = listen(address).await?;
    let workers = Workers::start(workers.unwrap_or_else(processors)).map_err(Error::Workers)?;
    let (_admin_stop, admin_stopped) = watch::channel(());
    if let Some(address) = admin_address {
        let listener = listen(address).await?;
        tracing::info!(address = %listener.local_addr().unwrap_or(address), "admin listener");
        let state = AdminState { metrics, readiness: watched };
        tokio::spawn(admin::serve(listener, state, closed(admin_stopped)));
    }
    warm_up(&generation).await;
    let (current, serving) = watch::channel(generation);
    let mut beside = JoinSet::new();
    if let Some(path) = admin_socket {
        let socket = AdminSocket::bind(&path).map_err(|source| Error::Socket { path, source })?;
        beside.spawn(socket.serve(operations(&lasting, &serving)));
    }
    let keys = serving.clone();
    beside.spawn(identity::keep_keys(move || Arc::clone(&keys.borrow().services.verifier)));
    beside.spawn(keep_flushing(lasting.auditor.clone(), Arc::clone(&lasting.metrics)));
    beside.spawn(session::keep_time(lasting.sessions.clone(), lasting.clock.clone()));
    let reloading = beside.spawn(Reloader { source, fixed, lasting: lasting.clone(), current }.run(hangup));
    tracing::info!(address = %listener.local_addr().unwrap_or(address), "ready");
    readiness.send_replace(Readiness::Ready);
    let connections = accept(&listener, &serving, &workers, &mut stop).await;
    drop(listener);
    reloading.abort();
    readiness.send_replace(Readiness::Draining);
    let deadlines = serving.borrow().services.deadlines;
    let last_words = relay::LAST_WORDS.saturating_add(deadlines.cancel).saturating_add(SPARE);
    drain_sessions(&lasting.sessions, connections, (deadlines.drain, last_words), &mut stop).await;
    if let Err(error) = lasting.auditor.record_suppressed(SessionId::generate()) {
        let sessions = lasting.auditor.owed();
        tracing::error!(%error, sessions, blame = "proxy", "lost: the last records of sessions that are over");
    }
    let auditor = lasting.auditor;
    let _ = tokio::task::spawn_blocking(move || auditor.close()).await;
    tracing::info!("stopped");
    Ok(())
}

/// How many this process may use.
fn processors() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Writes what waits for the log's next record, and what sessions that are over have left to the log. What it does not
/// take stays.
async fn keep_flushing(auditor: Auditor, metrics: Arc<Metrics>) {
    let mut ticks = interval(FLUSH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let _ = auditor.flush();
        if let Some(status) = auditor.status() {
            metrics.audit_log(&gauges(&status));
        }
    }
}

fn gauges(status: &Status) -> AuditGauge<'_> {
    let Status { records, bytes, reserve_bytes, sealed, ref anchors } = *status;
    AuditGauge { records, bytes, reserve_bytes, sealed, anchors: anchors.iter().map(anchor_gauge).collect() }
}

fn anchor_gauge(anchor: &Anchored) -> AnchorGauge<'_> {
    AnchorGauge {
        name: &anchor.name,
        anchored: anchor.before,
        failing_since: anchor.failing_since.map_or(0, Timestamp::as_second),
        is_another_log: anchor.is_another_log,
    }
}

/// What operators act on. They may while the process drains, too.
fn operations(lasting: &Lasting, serving: &watch::Receiver<Generation>) -> Operations {
    let Lasting { sessions, auditor, clock, .. } = lasting.clone();
    let serving = serving.clone();
    Operations { sessions, auditor, clock, drain: Arc::new(move || serving.borrow().services.deadlines.drain) }
}

/// Fetches issuers' keys, so that the first caller does not wait.
async fn warm_up(generation: &Generation) {
    for (issuer, error) in generation.services.verifier.warm_up().await {
        tracing::warn!(issuer = %issuer, error = %chain(&error), "the issuer's keys cannot be fetched yet");
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Accepts until told to stop, each connection for the generation that is there then. Connections are served in the
/// returned set; the door and `limits.sessions` bound how many.
async fn accept(
    listener: &TcpListener,
    serving: &watch::Receiver<Generation>,
    workers: &Workers,
    stop: &mut Stop,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let mut minute = interval(HOUSEKEEPING_EVERY);
    let mut dropped = 0_u64;
    loop {
        tokio::select! {
            () = stop.wait() => return connections,
            _ = minute.tick() => {
                if let Some(more) = dropped.checked_sub(1).filter(|more| *more > 0) {
                    tracing::warn!(more, "more connections were dropped in the last minute, too many to tell them why");
                }
                dropped = 0;
                let services = Arc::clone(&serving.borrow().services);
                let _ = services.auditor.record_suppressed(SessionId::generate());
                services.exchanger.sweep();
                services.limits.sweep();
                services.tokens.sweep(services.clock.now());
            }
            Some(result) = connections.join_next(), if !connections.is_empty() => report(result),
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => {
                    settle(&socket);
                    let generation = serving.borrow().clone();
                    if let Some(arrival) = generation.door.admit(socket, address) {
                        workers.spawn(&mut connections, serve(Box::new(arrival), generation.services));
                    } else {
                        // One line a minute: whoever can open connections is not to fill the log with them.
                        if dropped == 0 {
                            tracing::warn!(%address, "dropped: too many connections to tell it why");
                        }
                        dropped = dropped.saturating_add(1);
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

/// One connection's life, on its own thread.
async fn serve(arrival: Box<Arrival>, services: Arc<Services>) {
    let arrival = match arrival.here() {
        Ok(arrival) => arrival,
        Err(error) => return tracing::error!(%error, "a connection could not be handed to its thread"),
    };
    session::serve(arrival, services).await;
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

/// Lets sessions end when idle; past the deadline, or at a second signal, ends them, for which they have `last_words`.
async fn drain_sessions(
    sessions: &Sessions,
    mut connections: JoinSet<()>,
    (deadline, last_words): (Duration, Duration),
    stop: &mut Stop,
) {
    tracing::info!(connections = connections.len(), ?deadline, "draining");
    sessions.wish_everybody(Wish::WhenIdle(Cause::Shutdown));
    tokio::select! {
        () = join(&mut connections) => return,
        () = sleep(deadline) => tracing::warn!(connections = connections.len(), "drain deadline; ending what is left"),
        () = stop.wait() => tracing::warn!(connections = connections.len(), "second signal; ending what is left"),
    }
    sessions.wish_everybody(Wish::Now(Cause::Shutdown));
    let _ = timeout(last_words, join(&mut connections)).await;
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

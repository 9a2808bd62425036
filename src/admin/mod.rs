//! Where operators look: `/healthz`, `/readyz` and `/metrics` over plain HTTP, on loopback unless the config says
//! otherwise; and where they act: the admin [`socket`].
//!
//! Promises: nothing over HTTP names a caller or changes the proxy; a slow or endless request costs one of a few places
//! for a short time. Not for clients, and not for the review of records.

mod operator;
mod socket;

pub use operator::{Answer, Chosen, Erasure, Listed, Operations, Question};
pub use socket::{AdminSocket, MAX_PATH_BYTES, folder_of};

use crate::telemetry::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Requests served at a time; more wait in the listener's backlog.
pub const MAX_CONNECTIONS: usize = 32;
/// From accept until the request's head is there.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// From accept until the answer is written.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// The most that is buffered of a request, in bytes (hyper's own minimum).
pub const MAX_HEAD_BYTES: usize = 8192;
/// Pause after an accept that failed (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether clients should be sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// Serving what is there; new clients should go elsewhere.
    Draining,
}

/// What the pages show.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// The server's own word.
    pub readiness: watch::Receiver<Readiness>,
}

/// Serves until `shutdown` resolves, then finishes the requests that are there, within [`REQUEST_DEADLINE`].
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: impl Future<Output = ()>) {
    let pages = pages(state);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut requests = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = requests.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let pages = pages.clone();
        requests.spawn(async move {
            answer(stream, pages).await;
            drop(place);
        });
    }
    drop(listener);
    while requests.join_next().await.is_some() {}
}

/// Waits for a place before it accepts, so that what cannot be served is not taken. Cancel-safe.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, blame = "proxy", "the admin listener cannot accept");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// One request; the connection closes after it.
async fn answer(stream: TcpStream, pages: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    match tokio::time::timeout(REQUEST_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, blame = "client", "an admin request broke off"),
        Err(_) => tracing::debug!(blame = "client", "an admin request took too long"),
    }
}

fn pages(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state)
}

async fn readyz(State(state): State<AdminState>) -> (StatusCode, &'static str) {
    let readiness = *state.readiness.borrow();
    match readiness {
        Readiness::Ready => (StatusCode::OK, "ready\n"),
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn metrics(State(state): State<AdminState>) -> Response {
    match state.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, blame = "proxy", "the metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    struct Running {
        address: SocketAddr,
        readiness: watch::Sender<Readiness>,
        metrics: Arc<Metrics>,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    async fn running() -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, receiver) = watch::channel(Readiness::Starting);
        let metrics = Arc::new(Metrics::new().unwrap());
        let (stop, stopped) = oneshot::channel();
        let state = AdminState { metrics: Arc::clone(&metrics), readiness: receiver };
        let task = tokio::spawn(serve(listener, state, async { drop(stopped.await) }));
        Running { address, readiness, metrics, stop, task }
    }

    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The answer may come, and the socket close, before a long request is sent.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn fetch(address: SocketAddr, path: &str) -> String {
        exchange(address, format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n").as_bytes()).await
    }

    #[tokio::test]
    async fn health_is_the_process_and_readiness_the_servers_word() {
        let admin = running().await;
        for (readiness, status, reason) in [
            (Readiness::Starting, "503", "starting"),
            (Readiness::Ready, "200", "ready"),
            (Readiness::Draining, "503", "draining"),
        ] {
            admin.readiness.send(readiness).unwrap();
            let answer = fetch(admin.address, "/readyz").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(reason), "{answer}");
            assert!(fetch(admin.address, "/healthz").await.starts_with("HTTP/1.1 200"));
        }
        admin.metrics.connection_accepted();
        let answer = fetch(admin.address, "/metrics").await;
        assert!(answer.contains("version=0.0.4") && answer.contains("pgpassport_connections_total 1"), "{answer}");
    }

    #[tokio::test]
    async fn other_requests_are_refused_and_oversized_heads_cut() {
        let admin = running().await;
        assert!(fetch(admin.address, "/").await.starts_with("HTTP/1.1 404"));
        let post = b"POST /metrics HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\n\r\n";
        assert!(exchange(admin.address, post).await.starts_with("HTTP/1.1 405"));
        assert!(exchange(admin.address, b"\x16\x03\x01\x02\x00\x01\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(4 * MAX_HEAD_BYTES));
        assert!(!exchange(admin.address, long.as_bytes()).await.contains("HTTP/1.1 200"));
        assert!(fetch(admin.address, "/healthz").await.starts_with("HTTP/1.1 200"), "still serving");
    }

    #[tokio::test]
    async fn silent_connections_are_closed_and_give_their_places_back() {
        let admin = running().await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(admin.address).await.unwrap());
        }
        let started = Instant::now();
        let answer = fetch(admin.address, "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let waited = started.elapsed();
        assert!(waited >= HEAD_DEADLINE / 2, "all places were taken, yet it took only {waited:?}");
        assert!(waited < REQUEST_DEADLINE * 2, "{waited:?}");
    }

    #[tokio::test]
    async fn shutdown_closes_the_listener_and_ends() {
        let admin = running().await;
        assert!(fetch(admin.address, "/healthz").await.starts_with("HTTP/1.1 200"));
        admin.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), admin.task).await.expect("ends").unwrap();
        assert!(TcpStream::connect(admin.address).await.is_err());
    }
}

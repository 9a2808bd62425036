//! The HTTP side of the simulators: axum routers over hyper, with TLS, counters and faults.

use super::calls::{Calls, Endpoint};
use super::certs::{Identity, failed};
use super::faults::{Fault, Faults, Hop};
use super::gate::Gate;
use super::{Error, provider};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

/// Connections that one simulator serves at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// Bytes of a `Huge` fault's body: more than anybody should read.
const HUGE: usize = 2 * 1024 * 1024;
/// TLS handshakes that take longer are given up.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// One simulated HTTP service.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) router: Router,
    /// What a path and method reach, for counters and faults.
    pub(super) endpoint: fn(&str) -> Option<Endpoint>,
    /// The service's error body for a status that a fault orders.
    pub(super) error: fn(u16) -> Response<Body>,
    pub(super) calls: Calls,
    pub(super) faults: Faults,
}

/// Binds a loopback port.
pub(super) fn bind(hop: Hop, faults: &Faults) -> Result<Gate, Error> {
    Gate::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), hop, faults.clone())
        .map_err(|source| Error::io("bind a loopback port", source))
}

/// TLS 1.2 and 1.3 with one certificate, for HTTPS.
pub(super) fn acceptor(identity: &Identity) -> Result<TlsAcceptor, Error> {
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("an HTTPS server", error))?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| failed("an HTTPS server", error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until dropped; every connection ends with it. `tls` is `None` for plain http.
pub(super) async fn serve(mut gate: Gate, tls: Option<TlsAcceptor>, service: Service) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match gate.accept().await {
            Ok(stream) => drop(connections.spawn(connection(stream, tls.clone(), service.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a simulator cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Ends a connection from inside one of its requests.
#[derive(Debug, Default)]
struct Cut {
    reset: Notify,
    close: Notify,
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, service: Service) {
    let Ok((stream, second)) = twice(stream) else { return };
    let cut = Arc::new(Cut::default());
    let serving = async {
        match tls {
            None => requests(stream, service, Arc::clone(&cut)).await,
            Some(tls) => {
                if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_DEADLINE, tls.accept(stream)).await {
                    requests(stream, service, Arc::clone(&cut)).await;
                }
            }
        }
    };
    tokio::select! {
        () = serving => {}
        () = cut.close.notified() => {}
        () = cut.reset.notified() => drop(second.set_zero_linger()),
    }
}

/// The stream and a second handle on its socket, on which the reset is set while hyper owns the first.
pub(super) fn twice(stream: TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    let first = stream.into_std()?;
    let second = first.try_clone()?;
    Ok((TcpStream::from_std(first)?, TcpStream::from_std(second)?))
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin, service: Service, cut: Arc<Cut>) {
    let answering = service_fn(move |request| answer(request, service.clone(), Arc::clone(&cut)));
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), answering);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a simulator's connection ended");
    }
}

async fn answer(request: Request<Incoming>, service: Service, cut: Arc<Cut>) -> Result<Response<Body>, Infallible> {
    let endpoint = (service.endpoint)(request.uri().path());
    if let Some(endpoint) = endpoint {
        service.calls.add(endpoint);
    }
    match endpoint.and_then(Endpoint::hop).and_then(|hop| service.faults.get(hop)) {
        None | Some(Fault::AskFor(_) | Fault::NoTls) => {}
        Some(Fault::Delay(duration)) => tokio::time::sleep(duration).await,
        Some(Fault::Status(status)) => return Ok((service.error)(status)),
        Some(Fault::RetryAfter(seconds)) => {
            let mut response = (service.error)(429);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return Ok(response);
        }
        Some(Fault::Garbage) => return Ok(json(Body::from("\u{fffd}{{ not json"))),
        Some(Fault::Huge) => return Ok(json(Body::from(format!(r#"{{"access_token":"{}"}}"#, "x".repeat(HUGE))))),
        Some(Fault::Reset | Fault::Refuse | Fault::BlackHole) => {
            cut.reset.notify_one();
            std::future::pending::<()>().await;
        }
        Some(Fault::Close) => {
            cut.close.notify_one();
            std::future::pending::<()>().await;
        }
    }
    service.router.clone().call(request).await
}

/// What says it is JSON.
fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A status code from a number; 500 for one that is none.
pub(super) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

//! Loopback servers for tests: what was asked, and whatever answer a test wants.

use super::Client;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Header lines, lower-case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A form field, decoded.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let url = reqwest::Url::parse(&format!("http://form/?{}", self.body)).unwrap();
        url.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
    }
}

/// A plain HTTP server on loopback; stops when dropped.
pub(crate) struct Server {
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers each request with `reply`'s status and body.
    pub(crate) async fn start(reply: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::bind(TcpListener::bind("127.0.0.1:0").await.unwrap(), reply)
    }

    /// The same on a listener whose address is known already.
    pub(crate) fn bind(listener: TcpListener, reply: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let record = Arc::clone(&seen);
        let reply = Arc::new(reply);
        let handler = move |request: axum::extract::Request| {
            let (record, reply) = (Arc::clone(&record), Arc::clone(&reply));
            async move {
                let request = see(request).await;
                record.lock().unwrap().push(request.clone());
                let (status, body) = reply(&request);
                (axum::http::StatusCode::from_u16(status).unwrap(), body)
            }
        };
        let app = axum::Router::new().fallback(handler);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen, task }
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn see(request: axum::extract::Request) -> Seen {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let header = |(n, v): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned())
    };
    Seen {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().unwrap().to_string(),
        headers: parts.headers.iter().map(header).collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// Serves `reply` over TLS and HTTP/2 alone, as Google and Microsoft do; gives back its address.
pub(crate) async fn http2(ca: &Ca, reply: impl Fn(&Seen) -> (u16, String) + Clone + Send + Sync + 'static) -> String {
    let acceptor = acceptor(ca, b"h2");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let reply = reply.clone();
            let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let reply = reply.clone();
                async move {
                    let (status, body) = reply(&see(request.map(axum::body::Body::new)).await);
                    hyper::Response::builder().status(status).body(axum::body::Body::from(body))
                }
            });
            let executor = hyper_util::rt::TokioExecutor::new();
            let stream = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http2::Builder::new(executor).serve_connection(stream, service));
        }
    });
    url
}

/// TLS as `ca`, with one application protocol.
pub(crate) fn acceptor(ca: &Ca, protocol: &[u8]) -> tokio_rustls::TlsAcceptor {
    let key = rustls::pki_types::PrivateKeyDer::try_from(ca.key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![ca.certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// A self-signed certificate for 127.0.0.1, its key, and where its PEM lies.
pub(crate) struct Ca {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: rcgen::KeyPair,
    pub(crate) file: PathBuf,
    _folder: tempfile::TempDir,
}

/// Makes one.
pub(crate) fn ca() -> Ca {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    Ca { certificate, key, file, _folder: folder }
}

/// A client that needs no trust roots of the machine.
pub(crate) fn client() -> Client {
    Client::new(Some(&ca().file)).unwrap()
}

/// A port where one raw answer is written to each connection, which is then closed.
pub(crate) async fn raw(answer: Vec<u8>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, task)
}

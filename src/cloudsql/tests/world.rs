//! The connector's surroundings on loopback: a fake Admin API, and an instance that speaks TLS.

use crate::cloudsql::admin::Admin;
use crate::cloudsql::testing::{Authority, Leaf};
use crate::cloudsql::*;
use crate::federation::AccessToken;
use crate::identity::CallerId;
use crate::names::RoleName;
use crate::secret::Secret;
use crate::time::{Clock, Timestamp};
use axum::http::StatusCode;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::AtomicI64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

pub(super) const COMMON: &str = "demo-project:orders";
pub(super) const DNS: &str = "42cfcd0e.abc123.europe-west1.sql.goog.";
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const MINUTE: i64 = 60;
pub(super) static TLS12_ONLY: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// What the fake Admin API does, and what it saw.
pub(super) struct Api {
    pub(super) settings: Value,
    pub(super) lifetime: Duration,
    /// Answers in place of the real ones, taken from the back; the first stays.
    pub(super) failures: Vec<(StatusCode, Value)>,
    /// Answers nothing at all.
    pub(super) stalled: bool,
    /// Method, target, `Authorization` and body of each call.
    pub(super) seen: Vec<(String, String, String, String)>,
    /// The certificates issued, as PEM.
    pub(super) issued: Vec<String>,
    pub(super) clients: Arc<Authority>,
}

/// What the TLS server saw of one completed handshake.
pub(super) struct Visit {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) sni: Option<String>,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) kind: Option<HandshakeKind>,
    pub(super) version: Option<rustls::ProtocolVersion>,
}

/// How the TLS server behaves.
pub(super) struct Server {
    pub(super) leaf: Leaf,
    /// In place of the instance's own CA.
    pub(super) foreign: bool,
    pub(super) versions: &'static [&'static rustls::SupportedProtocolVersion],
    /// Trusts other client certificates than the API issues.
    pub(super) refuses_clients: bool,
}

impl Default for Server {
    fn default() -> Self {
        let leaf = Leaf::server(Some(COMMON), &[]);
        Self { leaf, foreign: false, versions: rustls::ALL_VERSIONS, refuses_clients: false }
    }
}

pub(super) struct World {
    pub(super) connector: Connector,
    pub(super) name: InstanceName,
    pub(super) api: Arc<Mutex<Api>>,
    pub(super) visits: Arc<Mutex<Vec<Visit>>>,
    /// Seconds that the connector's clock is ahead.
    pub(super) offset: Arc<AtomicI64>,
    pub(super) address: SocketAddr,
    pub(super) tasks: Vec<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub(super) fn deadlines() -> Deadlines {
    Deadlines {
        admin_api: Duration::from_millis(1500),
        dial: Duration::from_millis(1500),
        handshake: Duration::from_millis(1500),
    }
}

impl World {
    pub(super) async fn new(server: Server) -> Self {
        Self::with(server, IpType::Public, |_| {}).await
    }

    /// `change` edits the answer of `connectSettings`.
    pub(super) async fn with(server: Server, ip_type: IpType, change: impl FnOnce(&mut Value)) -> Self {
        let instance_ca = Authority::new("Google Cloud SQL Root CA");
        let mut settings = json!({
            "kind": "sql#connectSettings",
            "serverCaCert": { "kind": "sql#sslCert", "cert": instance_ca.pem() },
            "ipAddresses": [{ "type": "PRIMARY", "ipAddress": "127.0.0.1" }],
            "region": "europe-west1",
            "databaseVersion": "POSTGRES_18",
            "backendType": "SECOND_GEN",
        });
        change(&mut settings);
        let clients = Arc::new(Authority::new("Google Cloud SQL Signing CA demo"));
        let (visits, (address, tls)) = (Arc::default(), listen().await);
        let acceptor = acceptor(&server, &instance_ca, &clients);
        let tasks = vec![tokio::spawn(serve_tls(tls, acceptor, Arc::clone(&visits)))];
        let api = Arc::new(Mutex::new(Api {
            settings,
            lifetime: HOUR,
            failures: Vec::new(),
            stalled: false,
            seen: Vec::new(),
            issued: Vec::new(),
            clients,
        }));
        let mut world = Self::around(Arc::clone(&api), visits, address, ip_type).await;
        world.tasks.extend(tasks);
        world
    }

    pub(super) async fn around(
        api: Arc<Mutex<Api>>,
        visits: Arc<Mutex<Vec<Visit>>>,
        address: SocketAddr,
        ip_type: IpType,
    ) -> Self {
        let (base, listener) = listen().await;
        let state = Arc::clone(&api);
        let app = axum::Router::new().fallback(move |request| answer(Arc::clone(&state), request));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let offset = Arc::new(AtomicI64::new(0));
        let token = AccessToken { token: Secret::new("ya29.own".to_owned()), expires_at: Timestamp::MAX };
        let name = InstanceName::parse("demo-project:europe-west1:orders").unwrap();
        let connector = Connector::with_credential(
            vec![InstanceConfig {
                name: name.clone(),
                ip_type,
                route: Route::default(),
                login: LoginMethod::default(),
            }],
            Admin::new(format!("http://{base}"), crate::http::testing::client(), deadlines().admin_api),
            Credential::Fixed(Arc::new(token)),
            Clock::shifted(Arc::clone(&offset)),
            deadlines(),
        );
        let connector = connector.unwrap().with_port(address.port());
        Self { connector, name, api, visits, offset, address, tasks: vec![task] }
    }

    pub(super) async fn dial_to(&self, name: &InstanceName) -> Result<ServerStream, Error> {
        let (role, own) = (RoleName::parse("analyst@contoso.example").unwrap(), Secret::new("eyJ.own".to_owned()));
        let login = AccessToken { token: Secret::new("ya29.login".to_owned()), expires_at: Timestamp::MAX };
        self.connector.dial(name, Caller { id: CallerId::number(1), role: &role, own: &own, login: &login }).await
    }

    pub(super) fn forget(&self) {
        self.forget_at(&self.name);
    }

    pub(super) fn forget_at(&self, name: &InstanceName) {
        let (role, own) = (RoleName::parse("analyst@contoso.example").unwrap(), Secret::new("eyJ.own".to_owned()));
        let login = AccessToken { token: Secret::new("ya29.login".to_owned()), expires_at: Timestamp::MAX };
        self.connector.forget(name, Caller { id: CallerId::number(1), role: &role, own: &own, login: &login });
    }

    pub(super) async fn dial(&self) -> Result<ServerStream, Error> {
        timeout(Duration::from_secs(10), self.dial_to(&self.name)).await.expect("a dial never hangs")
    }

    /// Dials, and waits for the server's greeting: it has accepted the client's certificate.
    pub(super) async fn arrive(&self) -> ServerStream {
        let mut server = self.dial().await.unwrap();
        assert_eq!(server.stream.read_u8().await.unwrap(), b'!');
        server
    }

    pub(super) fn calls(&self) -> usize {
        self.api.lock().unwrap().seen.len()
    }

    pub(super) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.visits.lock().unwrap().iter().map(|visit| visit.certificate.clone()).collect()
    }

    pub(super) async fn until_calls(&self, count: usize) {
        let end = Instant::now() + Duration::from_secs(5);
        while self.calls() < count {
            assert!(Instant::now() < end, "{} of {count} calls", self.calls());
            sleep(Duration::from_millis(5)).await;
        }
        // The answer of the last call is on its way.
        sleep(Duration::from_millis(200)).await;
    }
}

pub(super) async fn listen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

/// The fake Admin API.
pub(super) async fn answer(api: Arc<Mutex<Api>>, request: axum::extract::Request) -> (StatusCode, String) {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let authorization = parts.headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    let target = parts.uri.to_string();
    let stalled = {
        let mut api = api.lock().unwrap();
        api.seen.push((parts.method.to_string(), target.clone(), authorization.to_owned(), body.clone()));
        api.stalled
    };
    if stalled {
        std::future::pending::<()>().await;
    }
    let mut api = api.lock().unwrap();
    if let Some((status, body)) =
        if api.failures.len() > 1 { api.failures.pop() } else { api.failures.first().cloned() }
    {
        return (status, body.to_string());
    }
    if target.ends_with("/connectSettings") {
        return (StatusCode::OK, api.settings.to_string());
    }
    let request: Value = serde_json::from_str(&body).unwrap();
    let pem = api.clients.ephemeral(request["public_key"].as_str().unwrap(), api.lifetime);
    api.issued.push(pem.clone());
    (StatusCode::OK, json!({ "ephemeralCert": { "kind": "sql#sslCert", "cert": pem } }).to_string())
}

pub(super) fn acceptor(server: &Server, instance_ca: &Authority, clients: &Authority) -> tokio_rustls::TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(if server.refuses_clients { Authority::new("old signing CA").der() } else { clients.der() }).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let foreign = Authority::new("Google Cloud SQL Root CA");
    let signed = if server.foreign { &foreign } else { instance_ca }.sign(&server.leaf);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(server.versions)
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(vec![signed.der], signed.key)
        .unwrap();
    config.alpn_protocols = Vec::new();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// The instance: says `!` and then echoes.
pub(super) async fn serve_tls(
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    visits: Arc<Mutex<Vec<Visit>>>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, visits) = (acceptor.clone(), Arc::clone(&visits));
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(tcp).await else { return };
            let connection = stream.get_ref().1;
            visits.lock().unwrap().push(Visit {
                certificate: connection.peer_certificates().unwrap()[0].clone().into_owned(),
                sni: connection.server_name().map(str::to_owned),
                alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
                kind: connection.handshake_kind(),
                version: connection.protocol_version(),
            });
            let _ = stream.write_all(b"!").await;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
    }
}

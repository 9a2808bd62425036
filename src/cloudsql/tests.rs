//! The connector against a fake Admin API and a TLS server on loopback.

use super::admin::Admin;
use super::testing::{Authority, Leaf};
use super::*;
use crate::federation::AccessToken;
use crate::secret::Secret;
use crate::time::{Clock, Timestamp};
use axum::http::StatusCode;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const COMMON: &str = "demo-project:orders";
const DNS: &str = "42cfcd0e.abc123.europe-west1.sql.goog.";
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: i64 = 60;
static TLS12_ONLY: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// What the fake Admin API does, and what it saw.
struct Api {
    settings: Value,
    lifetime: Duration,
    /// Answers in place of the real ones, taken from the back; the first stays.
    failures: Vec<(StatusCode, Value)>,
    /// Answers nothing at all.
    stalled: bool,
    /// Method, target, `Authorization` and body of each call.
    seen: Vec<(String, String, String, String)>,
    /// The certificates issued, as PEM.
    issued: Vec<String>,
    clients: Arc<Authority>,
}

/// What the TLS server saw of one completed handshake.
struct Visit {
    certificate: CertificateDer<'static>,
    sni: Option<String>,
    alpn: Option<Vec<u8>>,
    kind: Option<HandshakeKind>,
    version: Option<rustls::ProtocolVersion>,
}

/// How the TLS server behaves.
struct Server {
    leaf: Leaf,
    /// In place of the instance's own CA.
    foreign: bool,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
    /// Trusts other client certificates than the API issues.
    refuses_clients: bool,
}

impl Default for Server {
    fn default() -> Self {
        let leaf = Leaf::server(Some(COMMON), &[]);
        Self { leaf, foreign: false, versions: rustls::ALL_VERSIONS, refuses_clients: false }
    }
}

struct World {
    connector: Connector,
    name: InstanceName,
    api: Arc<Mutex<Api>>,
    visits: Arc<Mutex<Vec<Visit>>>,
    /// Seconds that the connector's clock is ahead.
    offset: Arc<AtomicI64>,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn deadlines() -> Deadlines {
    Deadlines {
        admin_api: Duration::from_millis(1500),
        dial: Duration::from_millis(1500),
        handshake: Duration::from_millis(1500),
    }
}

impl World {
    async fn new(server: Server) -> Self {
        Self::with(server, IpType::Public, |_| {}).await
    }

    /// `change` edits the answer of `connectSettings`.
    async fn with(server: Server, ip_type: IpType, change: impl FnOnce(&mut Value)) -> Self {
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

    async fn around(
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
            vec![InstanceConfig { name: name.clone(), ip_type }],
            Admin::new(format!("http://{base}"), crate::http::testing::client(), deadlines().admin_api),
            Credential::Fixed(Arc::new(token)),
            Clock::shifted(Arc::clone(&offset)),
            deadlines(),
        );
        let connector = connector.unwrap().with_port(address.port());
        Self { connector, name, api, visits, offset, address, tasks: vec![task] }
    }

    async fn dial(&self) -> Result<ServerStream, Error> {
        timeout(Duration::from_secs(10), self.connector.dial(&self.name)).await.expect("a dial never hangs")
    }

    /// Dials, and waits for the server's greeting: it has accepted the client's certificate.
    async fn arrive(&self) -> ServerStream {
        let mut server = self.dial().await.unwrap();
        assert_eq!(server.stream.read_u8().await.unwrap(), b'!');
        server
    }

    fn calls(&self) -> usize {
        self.api.lock().unwrap().seen.len()
    }

    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.visits.lock().unwrap().iter().map(|visit| visit.certificate.clone()).collect()
    }

    async fn until_calls(&self, count: usize) {
        let end = Instant::now() + Duration::from_secs(5);
        while self.calls() < count {
            assert!(Instant::now() < end, "{} of {count} calls", self.calls());
            sleep(Duration::from_millis(5)).await;
        }
        // The answer of the last call is on its way.
        sleep(Duration::from_millis(200)).await;
    }
}

async fn listen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

/// The fake Admin API.
async fn answer(api: Arc<Mutex<Api>>, request: axum::extract::Request) -> (StatusCode, String) {
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

fn acceptor(server: &Server, instance_ca: &Authority, clients: &Authority) -> tokio_rustls::TlsAcceptor {
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
async fn serve_tls(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, visits: Arc<Mutex<Vec<Visit>>>) {
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

#[tokio::test]
async fn an_instance_is_reached_with_the_certificate_that_the_api_issued() {
    let world = World::new(Server::default()).await;
    let mut server = world.arrive().await;
    assert_eq!(server.address, world.address);
    server.stream.write_all(b"ping").await.unwrap();
    server.stream.flush().await.unwrap();
    let mut echo = [0; 4];
    server.stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
    assert!(server.stream.get_ref().0.nodelay().unwrap());
    assert!(socket2::SockRef::from(server.stream.get_ref().0).keepalive().unwrap());

    world.arrive().await;
    let api = world.api.lock().unwrap();
    let mut calls: Vec<_> = api.seen.iter().map(|(method, target, ..)| (method.as_str(), target.as_str())).collect();
    calls.sort_unstable();
    let path = "/sql/v1beta4/projects/demo-project/instances/orders";
    let (get, post) = (format!("{path}/connectSettings"), format!("{path}:generateEphemeralCert"));
    assert_eq!(calls, [("GET", get.as_str()), ("POST", post.as_str())], "the second dial asks nothing");
    assert!(api.seen.iter().all(|(_, _, authorization, _)| authorization == "Bearer ya29.own"));
    let body: Value = serde_json::from_str(&api.seen.iter().find(|call| call.0 == "POST").unwrap().3).unwrap();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["public_key"]);

    let visits = world.visits.lock().unwrap();
    assert_eq!(visits.len(), 2);
    for visit in visits.iter() {
        assert!(api.issued[0].contains(&pem_body(&visit.certificate)));
        assert_eq!((visit.sni.as_deref(), visit.alpn.as_deref()), (None, None));
        assert_eq!(visit.version, Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(visit.kind, Some(HandshakeKind::Full), "no session is resumed");
    }
}

fn pem_body(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(der)[..64].to_owned()
}

#[tokio::test]
async fn many_first_dials_share_one_refresh() {
    let world = Arc::new(World::new(Server::default()).await);
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let world = Arc::clone(&world);
        dials.spawn(async move { world.arrive().await });
    }
    assert_eq!(dials.join_all().await.len(), 20);
    assert_eq!(world.calls(), 2);
}

#[tokio::test]
async fn a_name_from_the_settings_is_sent_and_checked() {
    let leaf = || Leaf::server(None, &[DNS]);
    let named = |settings: &mut Value| settings["dnsName"] = json!(DNS);
    let world = World::with(Server { leaf: leaf(), ..Server::default() }, IpType::Public, named).await;
    world.arrive().await;
    assert_eq!(world.visits.lock().unwrap()[0].sni.as_deref(), Some(DNS.trim_end_matches('.')));

    let unnamed = World::new(Server { leaf: leaf(), ..Server::default() }).await;
    let Err(Error::Tls { reason, .. }) = unnamed.dial().await else { panic!("the name cannot be checked") };
    assert_eq!(reason, format!("the certificate is for {DNS:?}, not for demo-project:orders"));
}

#[tokio::test]
async fn private_service_connect_is_dialled_by_name() {
    let leaf = Leaf::server(None, &["localhost"]);
    let psc = |settings: &mut Value| {
        settings["pscEnabled"] = json!(true);
        settings["dnsNames"] = json!([{ "name": "localhost", "connectionType": "PRIVATE_SERVICE_CONNECT",
                                        "dnsScope": "INSTANCE" }]);
    };
    let world = World::with(Server { leaf, ..Server::default() }, IpType::Psc, psc).await;
    assert_eq!(world.arrive().await.address, world.address);
}

#[tokio::test]
async fn a_server_that_is_not_the_instance_gets_nothing_and_the_settings_are_asked_again() {
    let servers = [
        ("foreign CA", "BadSignature", Server { foreign: true, ..Server::default() }),
        (
            "other instance",
            "for \"other:inst\", not for demo-project:orders",
            Server { leaf: Leaf::server(Some("other:inst"), &[]), ..Server::default() },
        ),
        (
            "no name",
            "for \"127.0.0.1\", not for",
            Server { leaf: Leaf::server(None, &["127.0.0.1"]), ..Server::default() },
        ),
        ("TLS 1.2", "ProtocolVersion", Server { versions: TLS12_ONLY, ..Server::default() }),
    ];
    for (name, said, server) in servers {
        let world = World::new(server).await;
        let Err(Error::Tls { reason, .. }) = world.dial().await else { panic!("{name} must be refused") };
        assert!(reason.contains(said), "{name}: {reason}");
        assert!(world.visits.lock().unwrap().is_empty(), "{name}: no handshake was completed");
        world.until_calls(4).await;
    }
}

#[tokio::test]
async fn a_renewal_holds_nobody_up() {
    let world = World::new(Server::default()).await;
    world.arrive().await;
    world.api.lock().unwrap().stalled = true;
    world.offset.store(57 * MINUTE, Ordering::Relaxed);
    let begun = Instant::now();
    for _ in 0..3 {
        world.arrive().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    world.until_calls(4).await;
    assert_eq!(world.calls(), 4, "one renewal is on its way, whoever dials");
    assert_eq!(world.api.lock().unwrap().issued.len(), 1);
}

#[tokio::test]
async fn a_renewed_certificate_takes_over_before_the_old_one_ends() {
    let world = World::new(Server::default()).await;
    world.arrive().await;
    world.offset.store(57 * MINUTE, Ordering::Relaxed);
    world.api.lock().unwrap().lifetime = 2 * HOUR;
    world.arrive().await;
    world.until_calls(4).await;
    world.arrive().await;
    let seen = world.certificates();
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[1], seen[2]);
    assert_eq!(world.calls(), 4);
}

#[tokio::test]
async fn an_expired_certificate_is_never_presented() {
    let world = World::new(Server::default()).await;
    world.arrive().await;
    world.api.lock().unwrap().stalled = true;
    world.offset.store(61 * MINUTE, Ordering::Relaxed);
    let error = world.dial().await.unwrap_err();
    assert!(matches!(error, Error::AdminUnavailable(_)), "{error:?}");
    assert_eq!(world.visits.lock().unwrap().len(), 1, "the instance was not dialled");

    // Both refreshes of the burst are used: the failure is told at once, and no call is made.
    let (calls, begun) = (world.calls(), Instant::now());
    assert!(matches!(world.dial().await, Err(Error::AdminUnavailable(_))));
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!(world.calls(), calls);
}

#[tokio::test]
async fn a_certificate_that_comes_expired_is_an_error() {
    let world = World::new(Server::default()).await;
    world.offset.store(2 * 60 * MINUTE, Ordering::Relaxed);
    assert!(matches!(world.dial().await, Err(Error::AdminBroken(_))));
}

#[tokio::test]
async fn a_forgotten_certificate_is_not_presented_again() {
    let world = World::new(Server::default()).await;
    world.connector.forget(&world.name);
    world.arrive().await;
    world.connector.forget(&world.name);
    world.connector.forget(&world.name);
    world.arrive().await;
    let seen = world.certificates();
    assert_ne!(seen[0], seen[1]);
    assert_eq!(world.calls(), 4, "forgetting twice, or what was never used, costs nothing");
    world.connector.forget(&InstanceName::parse("a:b:c").unwrap());
}

#[tokio::test]
async fn a_certificate_refused_again_and_again_is_an_error_at_once() {
    let world = World::new(Server::default()).await;
    for _ in 0..2 {
        world.arrive().await;
        world.connector.forget(&world.name);
    }
    let begun = Instant::now();
    assert!(matches!(world.dial().await, Err(Error::AdminUnavailable(text)) if text.contains("30s")));
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!((world.calls(), world.certificates().len()), (4, 2));
}

#[tokio::test]
async fn a_client_certificate_that_is_refused_shows_on_the_first_read() {
    let world = World::new(Server { refuses_clients: true, ..Server::default() }).await;
    let mut server = world.dial().await.unwrap();
    let error = server.stream.read_u8().await.unwrap_err();
    assert!(error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some(), "{error:?}");
    assert!(world.visits.lock().unwrap().is_empty());
}

fn google_error(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    (code, json!({ "error": { "code": code.as_u16(), "message": "no", "errors": [{ "reason": reason }] } }))
}

#[tokio::test]
async fn a_refusal_is_told_and_nothing_is_dialled() {
    let world = World::new(Server::default()).await;
    world.api.lock().unwrap().failures = vec![google_error(StatusCode::FORBIDDEN, "notAuthorized")];
    let Err(Error::AdminRefused { status, reason, message }) = world.dial().await else { panic!("must be refused") };
    assert_eq!((status, reason.as_str(), message.as_str()), (403, "notAuthorized", "no"));
    assert!(world.visits.lock().unwrap().is_empty());
    assert!(world.calls() <= 2, "a refusal is not retried");
}

#[tokio::test]
async fn a_refusal_can_be_mended_without_a_restart() {
    let world = World::new(Server::default()).await;
    world.api.lock().unwrap().failures = vec![google_error(StatusCode::FORBIDDEN, "notAuthorized")];
    assert!(world.dial().await.is_err());
    world.api.lock().unwrap().failures.clear();
    world.arrive().await;
}

#[tokio::test]
async fn server_errors_are_retried_and_throttling_is_not() {
    let world = World::new(Server::default()).await;
    let fault = google_error(StatusCode::SERVICE_UNAVAILABLE, "backendError");
    // Taken from the back; the last one left would stay.
    world.api.lock().unwrap().failures = vec![fault.clone(), fault.clone()];
    let api = Arc::clone(&world.api);
    let mend = async {
        world.until_calls(2).await;
        api.lock().unwrap().failures.clear();
    };
    let (outcome, ()) = tokio::join!(world.dial(), mend);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(world.calls(), 4, "each call once more");

    let world = World::new(Server::default()).await;
    world.api.lock().unwrap().failures = vec![fault];
    let begun = Instant::now();
    assert!(matches!(world.dial().await, Err(Error::AdminUnavailable(text)) if text.contains("backendError")));
    assert!(begun.elapsed() < deadlines().admin_api + Duration::from_millis(500));

    let world = World::new(Server::default()).await;
    world.api.lock().unwrap().failures = vec![google_error(StatusCode::TOO_MANY_REQUESTS, "rateLimitExceeded")];
    assert!(matches!(world.dial().await, Err(Error::AdminUnavailable(text)) if text.contains("rateLimitExceeded")));
    assert!(world.calls() <= 2);
}

#[tokio::test]
async fn an_instance_that_is_not_configured_costs_no_call() {
    let world = World::new(Server::default()).await;
    let other = InstanceName::parse("demo-project:europe-west1:other").unwrap();
    assert!(matches!(world.connector.dial(&other).await, Err(Error::Unknown(name)) if name == other));
    assert!(matches!(world.connector.dial_address(&other, world.address).await, Err(Error::Unknown(_))));
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn a_cancel_goes_to_the_very_address_and_is_checked_as_well() {
    let world = World::with(Server::default(), IpType::Public, |settings| {
        settings["ipAddresses"][0]["ipAddress"] = json!("127.0.0.77");
    })
    .await;
    assert!(matches!(world.dial().await, Err(Error::Dial { .. })), "nobody listens there");
    assert!(world.connector.dial_address(&world.name, world.address).await.is_ok());
    let impostor = World::new(Server { foreign: true, ..Server::default() }).await;
    let outcome = world.connector.dial_address(&world.name, impostor.address).await;
    assert!(matches!(outcome, Err(Error::Tls { .. })));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_in_time() {
    let world = World::new(Server::default()).await;
    let (silent, _listener) = listen().await;
    let outcome = timeout(Duration::from_secs(5), world.connector.dial_address(&world.name, silent)).await.unwrap();
    assert!(matches!(outcome, Err(Error::Tls { reason, .. }) if reason.contains("no answer within")));
}

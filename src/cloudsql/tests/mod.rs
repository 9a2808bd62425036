//! The connector against a fake Admin API and a TLS server on loopback.

mod world;

use self::world::{DNS, HOUR, MINUTE, Server, TLS12_ONLY, World, deadlines, listen};
use super::testing::Leaf;
use super::*;
use axum::http::StatusCode;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

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
async fn the_task_renews_in_time_though_nobody_dials() {
    let world = World::new(Server::default()).await;
    // Four minutes before its end, that is in about a second.
    world.api.lock().unwrap().lifetime = Duration::from_secs(4 * 60 + 2);
    world.arrive().await;
    assert_eq!(world.calls(), 2);
    world.until_calls(4).await;
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
    world.forget();
    world.arrive().await;
    world.forget();
    world.forget();
    world.arrive().await;
    let seen = world.certificates();
    assert_ne!(seen[0], seen[1]);
    assert_eq!(world.calls(), 4, "forgetting twice, or what was never used, costs nothing");
    world.forget_at(&InstanceName::parse("a:b:c").unwrap());
}

#[tokio::test]
async fn who_forgets_late_does_not_take_the_next_certificate_along() {
    let world = World::new(Server::default()).await;
    world.arrive().await;
    world.forget();
    world.until_calls(4).await;
    world.forget();
    world.arrive().await;
    assert_eq!(world.calls(), 4);
}

#[tokio::test]
async fn a_certificate_refused_again_and_again_is_an_error_at_once() {
    let world = World::new(Server::default()).await;
    for _ in 0..2 {
        world.arrive().await;
        world.forget();
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
    let calls = world.calls();
    assert!(world.dial().await.is_err());
    assert_eq!(world.calls(), calls, "the failure stands for a moment");
    tokio::time::sleep(Duration::from_millis(1100)).await;
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
    assert!(matches!(world.dial_to(&other).await, Err(Error::Unknown(name)) if name == other));
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
    assert!(matches!(outcome, Err(Error::HandshakeDeadline { .. })));
}

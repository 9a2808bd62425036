//! A program in PostgreSQL's place: what it says must neither be believed nor hurt.

use crate::family;
use pgpassport::sim::world::ANALYST;
use proto_tests::chain::{Chain, Setup};
use proto_tests::script::query;
use proto_tests::stand_in::{ASK, StandIn, WELCOME};
use proto_tests::wire::{self, message};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn published_bugs_of_servers() {
    let mut chain = family!(Chain::start().await, cve_2026_6665, cve_2026_6666);
    assert!(chain.proxy.is_alive());
    chain.cloud.stand_in(None);
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

/// Bytes in clear behind the server's `S` reach the handshake and fail there: no question in them is answered.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2021_23222() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let chain = Setup::default().instance(&format!("path = \"direct\"\nport = {port}")).prepare().await;
    let here = serde_json::json!({"ipAddresses": [{"type": "PRIMARY", "ipAddress": "127.0.0.1"}]});
    chain.cloud.patch_connect_settings(here.as_object().expect("an object").clone());
    let mut chain = chain.start().await;
    let (login, mut client) = (chain.person(), chain.tls().await.expect("TLS"));
    let server = async {
        let (mut stream, _) = listener.accept().await.expect("the proxy");
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.expect("a request");
        assert_eq!(request.as_slice(), wire::ssl_request());
        stream.write_all(&[b"S", ASK, WELCOME].concat()).await.expect("said");
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut heard)).await;
        heard
    };
    let (answer, heard) = tokio::join!(chain.attempt(&mut client, &login), server);
    assert_eq!(answer.sqlstate(), "08006");
    assert_eq!(heard.first(), Some(&0x16), "a TLS handshake and nothing else: {}", heard.escape_ascii());
    let told = |text: &[u8]| heard.windows(text.len()).any(|window| window == text);
    assert!(!told(b"analyst") && !told(b"p\0\0"), "{}", heard.escape_ascii());
    assert!(chain.proxy.is_alive());
}

/// A server that asks for SCRAM, at any length and out of order, hears nothing.
async fn cve_2026_6665(chain: &Chain) {
    let stand_in = StandIn::start(chain).await;
    let nonce = format!("r={},s=c2FsdA==,i=4096", "n".repeat(29_000));
    let mechanisms = [b"SCRAM-SHA-256\0".repeat(2_000), vec![0]].concat();
    for (name, said) in [
        ("mechanisms", message(b'R', &[10_u32.to_be_bytes().to_vec(), mechanisms].concat())),
        ("a challenge", message(b'R', &[11_u32.to_be_bytes().to_vec(), nonce.clone().into_bytes()].concat())),
        ("an end", message(b'R', &[12_u32.to_be_bytes().to_vec(), b"v=c2ln".to_vec()].concat())),
        ("a message past the limit", [b"R".as_slice(), &0x7fff_ffff_u32.to_be_bytes(), nonce.as_bytes()].concat()),
    ] {
        let (login, mut client) = (chain.person(), chain.tls().await.expect("TLS"));
        let server = async {
            let mut backend = stand_in.connection().await;
            backend.say(&said).await;
            backend.rest().await
        };
        let (answer, heard) = tokio::join!(chain.attempt(&mut client, &login), server);
        assert_eq!(answer.tag, b'E', "{name}");
        assert!(heard.is_empty(), "{name}: the proxy answered {}", heard.escape_ascii());
    }
}

/// Errors without SQLSTATE, without message, without anything: during the login and in a session.
async fn cve_2026_6666(chain: &Chain) {
    let stand_in = StandIn::start(chain).await;
    for body in [b"SFATAL\0Mno\0\0".as_slice(), b"SERROR\0\0", b"\0", b"C\0\0", b"C1234567\0\0"] {
        let (login, mut client) = (chain.person(), chain.tls().await.expect("TLS"));
        let server = async { stand_in.connection().await.say(&message(b'E', body)).await };
        let (answer, ()) = tokio::join!(chain.attempt(&mut client, &login), server);
        assert_eq!(answer.sqlstate().len(), 5, "{}", body.escape_ascii());
    }
    for body in [b"SERROR\0Mno\0\0".as_slice(), b"\0", b"C\0\0"] {
        let login = chain.person();
        let (mut client, mut backend) = tokio::join!(chain.session(&login), stand_in.session());
        client.write_all(&query("select 'cve_2026_6666'")).await.expect("sent");
        assert_eq!(backend.hear().await.tag, b'Q');
        backend.say(&[message(b'E', body), message(b'Z', b"I")].concat()).await;
        let (error, ready) = (wire::read(&mut client).await, wire::read(&mut client).await);
        assert_eq!((error.expect("an error").body.as_slice(), ready.expect("ready").tag), (body, b'Z'));
    }
    let records = chain.records_when("the records", |records| {
        records.began("select 'cve_2026_6666'").len() == 3 && records.open().is_empty()
    });
    let records = records.await;
    for begin in &records.began("select 'cve_2026_6666'") {
        let end = records.end_of(begin);
        assert_eq!((&end["outcome"], &end["sqlstate"]), (&"error".into(), &"XX000".into()), "{end}");
        assert_eq!(begin["caller"]["label"], ANALYST.upn);
    }
}

//! Balancers in front of the proxy: whom the PROXY header (version 2) is believed from, and what it decides.

use proto_tests::balancer::{Balancer, header};
use proto_tests::chain::{Chain, HOST, Setup};
use proto_tests::psql::Login;
use proto_tests::refusal::{Expected, check};
use proto_tests::wire;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

const CLIENT: &str = "203.0.113.7:49153";
const OTHER: &str = "[2001:db8::7]:49153";
/// `LOCAL`: the balancer's own connection.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// Every connection of these tests comes from this address.
const TRUSTED: &str = "127.0.0.1/32";

async fn chain(trusted: &str, proxy_protocol: &str, limits: &str) -> Chain {
    let lines = format!("[listen]\ntrusted_proxies = [\"{trusted}\"]\nproxy_protocol = \"{proxy_protocol}\"\n");
    Setup::default().replace("[listen]\n", &lines).extra(limits).start().await
}

fn client(text: &str) -> Vec<u8> {
    header(text.parse().expect("an address"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_limited_and_recorded_and_not_the_balancer() {
    let chain = chain(TRUSTED, "required", "[limits]\nlogins_per_address = 1").await;
    let balancer = Balancer::start(chain.proxy.address(), client(CLIENT)).await;
    let login = Login { port: balancer.address().port(), ..chain.person() };
    assert_eq!(chain.query(&login, "select 1").await, "1");
    let printed = chain.psql(&Login { password: "no.to.ken".to_owned(), ..login.clone() }, &["-c", "select 1"]).await;
    let refusal = chain.refusal(&printed.correlation()).await;
    let records = chain.records_when("a session", |records| !records.of("session_start").is_empty()).await;
    for record in [records.of("session_start").only(), &refusal] {
        assert_eq!(record["client"], CLIENT, "{record}");
        let via: SocketAddr = record["via"].as_str().and_then(|via| via.parse().ok()).expect("the balancer's address");
        assert!(via.ip().is_loopback() && via != chain.proxy.address(), "{record}");
    }
    // One login of each client's address, however many come through the balancer.
    let _silent = begun(&chain, &client(CLIENT)).await;
    let expected = Expected { sqlstate: "53300", says: "address" };
    check(&chain.attempt(&mut tls(&chain, &client(CLIENT)).await, &login).await, &login, expected);
    let other = chain.attempt(&mut tls(&chain, &client(OTHER)).await, &login).await;
    assert_eq!(other.tag, b'Z', "another client of the same balancer: {:?}", other.field(b'M'));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_believed() {
    let chain = chain("127.0.0.2/32", "required", "").await;
    let login = chain.person();
    // A header from an address that is not the balancer's.
    let expected = Expected { sqlstate: "08P01", says: "trusted_proxies" };
    let mut stream = chain.tcp().await;
    stream.write_all(&client(CLIENT)).await.expect("sent");
    let answer = wire::read(&mut stream).await.expect("an answer");
    let record = chain.refusal(&check(&answer, &login, expected)).await;
    assert!(record["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{record}");
    assert!(record.get("via").is_none(), "{record}");
    // Whoever comes without the balancer is served as ever.
    assert_eq!(chain.query(&login, "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_must_say_so_where_it_is_required() {
    let chain = chain(TRUSTED, "required", "").await;
    for (sent, says) in [
        (wire::ssl_request(), "there is none"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 49153 5432\r\n".to_vec(), "version 1"),
        ([&client(CLIENT)[..13], &[0x00, 0, 0]].concat(), "no client"),
    ] {
        let mut stream = chain.tcp().await;
        stream.write_all(&sent).await.expect("sent");
        let answer = wire::read(&mut stream).await.expect("an answer");
        check(&answer, &chain.person(), Expected { sqlstate: "08P01", says });
        assert!(answer.field(b'M').is_some_and(|message| message.contains(says)), "{:?}", answer.field(b'M'));
    }
    // A health check of the balancer's own: LOCAL, and then whatever it likes.
    let _balancer = begun(&chain, LOCAL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_balancer_without_headers_meets_no_limit_of_one_address() {
    for (proxy_protocol, sent) in [("off", b"".as_slice()), ("optional", b""), ("optional", LOCAL)] {
        let chain = chain(TRUSTED, proxy_protocol, "[limits]\nlogins_per_address = 1").await;
        let _silent = [begun(&chain, sent).await, begun(&chain, sent).await];
        let login = chain.person();
        let answer = chain.attempt(&mut tls(&chain, sent).await, &login).await;
        assert_eq!(answer.tag, b'Z', "{proxy_protocol}: {:?}", answer.field(b'M'));
    }
}

/// A connection that sent this and is in TLS; it will log in no further. The place that it takes may still be that of one
/// whose client has just left.
async fn begun(chain: &Chain, sent: &[u8]) -> TlsStream<TcpStream> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut stream = tls(chain, sent).await;
        stream.write_all(&wire::startup(&[(b"user", b"analyst"), (b"database", b"orders")])).await.expect("sent");
        let answer = wire::read(&mut stream).await.expect("an answer");
        if answer.tag == b'R' {
            return stream;
        }
        let full = answer.tag == b'E' && answer.sqlstate() == "53300" && Instant::now() < deadline;
        assert!(full, "the token is asked for: {:?}", answer.field(b'M'));
        sleep(Duration::from_millis(20)).await;
    }
}

async fn tls(chain: &Chain, sent: &[u8]) -> TlsStream<TcpStream> {
    let mut socket = chain.tcp().await;
    socket.write_all(&[sent, &wire::ssl_request()].concat()).await.expect("sent");
    wire::expect_consent(&mut socket).await.expect("TLS is offered");
    wire::handshake(socket, chain.cloud.ca_path(), HOST).await.expect("TLS")
}

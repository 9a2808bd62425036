//! Nothing a client sends can crash or hang the process: after each of these the same process serves the next caller.

use proto_tests::chain::{Chain, Setup};
use proto_tests::proxy::Limited;
use proto_tests::wire::{self, message, text};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How long the proxy may keep a connection that will never log in, in these tests.
const STARTUP: Duration = Duration::from_secs(2);
/// The same as a config line, with room in the address limit for many connections at once.
const SHORT_STARTUP: &str = "[deadlines]\nstartup = \"2s\"\n[limits]\nlogins_per_address = 500";

/// A length word and what follows it.
fn packet(length: u32, body: &[u8]) -> Vec<u8> {
    [length.to_be_bytes().as_slice(), body].concat()
}

/// Bytes without sense, the same in every run.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state & 0xff).unwrap_or_default()
    };
    (0..count).map(|_| next()).collect()
}

fn before_tls() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", Vec::new()),
        ("one byte", vec![0]),
        ("a length below its own size", packet(3, &[])),
        ("a length of 0", packet(0, &[])),
        ("a length of 4 GiB", packet(u32::MAX, &[0; 64])),
        ("a length of 2 GiB", packet(0x7fff_ffff, &[0; 64])),
        ("a packet past PostgreSQL's limit", packet(10_001, &vec![b'a'; 9_997])),
        ("protocol 2", packet(8, &[0, 2, 0, 0])),
        ("protocol 4", packet(9, &[0, 4, 0, 0, 0])),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("SSLRequest twice", [wire::ssl_request(), wire::ssl_request()].concat()),
        (
            "SSLRequest with a start-up stuffed behind it",
            [wire::ssl_request(), wire::startup(&[(b"user", b"x")])].concat(),
        ),
        ("GSSENCRequest for ever", wire::request(80_877_104).repeat(1000)),
        ("a cancel with a key of nobody", packet(16, &[4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 1])),
        ("a cancel that is too short", packet(12, &[4, 210, 22, 46, 0, 0, 0, 1])),
        ("a cancel with an endless key", packet(9_000, &[4, 210, 22, 46].repeat(2_249))),
        ("a TLS hello cut short", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("a TLS record past the limit", [&[0x16, 3, 1, 0xff, 0xff], vec![1; 70_000].as_slice()].concat()),
        ("noise", noise(100_000, 42)),
        ("noise after SSLRequest", [wire::ssl_request(), noise(20_000, 7)].concat()),
    ]
}

fn before_the_token() -> Vec<(&'static str, Vec<u8>)> {
    let hello = wire::startup(&[(b"user", b"analyst@contoso.example"), (b"database", b"orders")]);
    let then = |more: Vec<u8>| [hello.clone(), more].concat();
    let many: Vec<(Vec<u8>, Vec<u8>)> = (0..900).map(|n| (format!("p{n}").into_bytes(), b"v".to_vec())).collect();
    let many: Vec<(&[u8], &[u8])> = many.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
    vec![
        ("noise inside TLS", noise(50_000, 3)),
        ("a second SSLRequest inside TLS", wire::ssl_request()),
        ("a start-up of many parameters", wire::startup(&many)),
        ("a start-up that never ends", packet(9_999, b"user\0x\0")),
        ("a query in place of the token", then(message(b'Q', &text("select 1")))),
        ("a token message of 2 GiB", then([b"p", packet(0x7fff_ffff, &[b'x'; 1000]).as_slice()].concat())),
        ("a token message of 1 MiB", then(message(b'p', &vec![b'x'; 1024 * 1024]))),
        ("a token without an end", then(message(b'p', b"token"))),
        ("a token with bytes behind its end", then(message(b'p', b"token\0token\0"))),
        ("a terminate", then(message(b'X', &[]))),
        ("a token of NULs", then(message(b'p', &[0; 5000]))),
        ("a deep JSON as token", then(message(b'p', &text(&format!("{0}.{0}.{0}", "W1tbW1tbW1tb".repeat(2000)))))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_before_tls_leave_the_process_alive() {
    let mut chain = Setup::default().extra(SHORT_STARTUP).start().await;
    for (name, bytes) in before_tls() {
        println!("{name}");
        let mut stream = chain.tcp().await;
        let _ = stream.write_all(&bytes).await;
        assert!(closed(&mut stream).await, "{name}: the connection is kept past its deadline");
        assert!(chain.proxy.is_alive(), "{name}");
    }
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_before_the_token_leave_the_process_alive() {
    let mut chain = Setup::default().extra(SHORT_STARTUP).start().await;
    for (name, bytes) in before_the_token() {
        println!("{name}");
        let mut stream = chain.tls().await.expect("TLS");
        let _ = stream.write_all(&bytes).await;
        assert!(closed(&mut stream).await, "{name}: the connection is kept past its deadline");
        assert!(chain.proxy.is_alive(), "{name}");
    }
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_at_a_time_does_not_outlive_the_start_up_deadline() {
    let chain = Setup::default().extra(SHORT_STARTUP).start().await;
    let mut stream = chain.tls().await.expect("TLS");
    let began = Instant::now();
    let slow = wire::startup(&[(b"user", b"analyst@contoso.example"), (b"database", &[b'o'; 60])]);
    for byte in slow {
        if stream.write_all(&[byte]).await.is_err() || began.elapsed() > 4 * STARTUP {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(closed(&mut stream).await && began.elapsed() < 4 * STARTUP, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_silent_connections_do_not_keep_a_caller_out() {
    let chain = Setup::default().extra(SHORT_STARTUP).start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(chain.tcp().await);
    }
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_of_a_caller_who_is_logged_in_end_that_session_only() {
    let chain = Chain::start().await;
    let other = chain.connect(&chain.app()).await;
    let bytes: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown message", message(b'~', b"x")),
        ("a length below its own size", [b"Q", packet(3, &[]).as_slice()].concat()),
        ("a length of 4 GiB", [b"Q", packet(u32::MAX, b"select 1\0").as_slice()].concat()),
        ("a statement without an end", message(b'Q', b"select 1")),
        ("a Parse without an end", message(b'P', b"name")),
        (
            "a Bind of a statement that is not there",
            [message(b'B', &[text(""), text("nothing"), vec![0; 6]].concat()), message(b'S', &[])].concat(),
        ),
        ("an Execute without its row count", message(b'E', b"\0")),
        ("a name that never ends", message(b'P', &vec![b'n'; 300_000])),
        ("COPY data outside a COPY", [message(b'd', b"row\n"), message(b'c', &[]), message(b'S', &[])].concat()),
        ("a second token", message(b'p', &text("token"))),
        ("noise", noise(100_000, 99)),
    ];
    for (name, bytes) in bytes {
        println!("{name}");
        let mut stream = chain.session(&chain.person()).await;
        let _ = stream.write_all(&bytes).await;
        // Either an error and the session goes on, or it ends: a Sync or Terminate settles it.
        let _ = stream.write_all(&[message(b'S', &[]), message(b'X', &[])].concat()).await;
        drain(&mut stream).await;
        other
            .client
            .simple_query("select 1")
            .await
            .unwrap_or_else(|error| panic!("{name} hit another session: {error}"));
    }
    let records = chain.records_when("every session's end", |records| records.of("session_end").len() == 11).await;
    assert!(records.open().is_empty(), "{:#?}", records.open());
}

/// The log on standard error is for operators; that nobody can read it is no reason to stop, or to panic.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_hurts_nobody() {
    let mut chain = Setup::default().limited(Limited::NoLog).environment("RUST_LOG", "debug").start().await;
    for _ in 0..3 {
        assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
        let mut stream = chain.tls().await.expect("TLS");
        let answer = wire::log_in(&mut stream, b"analyst", b"orders", "no.to.ken").await.expect("an answer");
        assert_eq!(answer.sqlstate(), "28P01");
    }
    assert!(chain.proxy.is_alive());
}

/// Whether the proxy closes within the start-up deadline and some seconds.
async fn closed<S: AsyncReadExt + Unpin>(stream: &mut S) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(STARTUP + Duration::from_secs(5), stream.read_to_end(&mut rest)).await.is_ok()
}

/// Reads until the end; what comes does not matter, that it comes to an end does not either.
async fn drain(stream: &mut TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await;
}

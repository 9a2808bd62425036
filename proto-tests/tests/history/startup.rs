//! Before a session: encryption, start-up packets, tokens.

use crate::family;
use pgpassport::sim::TokenSpec;
use pgpassport::sim::world::{ANALYST, DATABASE};
use proto_tests::chain::{Chain, HOST, Setup};
use proto_tests::wire::{self, message, text};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long a connection that will never log in is kept here.
const CONFIG: &str = "[deadlines]\nstartup = \"5s\"\n[limits]\nlogins_per_address = 500";
/// The longest token, in bytes.
const LONGEST: usize = 65_535;

#[tokio::test(flavor = "multi_thread")]
async fn published_bugs_before_a_session() {
    let mut chain = family!(
        Setup::default().extra(CONFIG).start().await,
        cve_2021_23214,
        cve_2026_6664,
        cve_2025_2291,
        cve_2015_6817,
        cve_2012_4575,
        pgbouncer_1_5_5,
        pgbouncer_874,
        pgbouncer_1058,
        pgbouncer_1215,
        electric_630,
        pgwire_p7,
        pgwire_p10,
    );
    assert!(chain.proxy.is_alive());
    println!("peak memory: {} KiB", chain.proxy.peak_memory() / 1024);
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

/// Bytes in clear behind `SSLRequest` reach the handshake and fail there: neither believed nor remembered.
async fn cve_2021_23214(chain: &Chain) {
    let stuffed = wire::startup(&[(b"user", b"mallory"), (b"database", b"orders")]);
    for behind in [stuffed, message(b'Q', &text("select 'mallory'")), vec![0x16, 3, 1, 0, 4, b'j', b'u', b'n', b'k']] {
        let mut stream = chain.tcp().await;
        stream.write_all(&[wire::ssl_request(), behind].concat()).await.expect("sent");
        assert_eq!(stream.read_u8().await.expect("an answer"), b'S');
        let handshake = wire::handshake(stream, chain.cloud.ca_path(), HOST).await;
        assert!(handshake.is_err(), "TLS came up on stuffed bytes");
    }
    // Who comes next is let in, and nobody has heard of the other.
    let login = chain.person();
    let mut stream = chain.tls().await.expect("TLS");
    assert_eq!(chain.attempt(&mut stream, &login).await.tag, b'Z');
    assert!(!chain.everything_recorded().contains("mallory"));
}

/// Any length of a password message: refused or waited for, never added to.
async fn cve_2026_6664(chain: &Chain) {
    let lengths = [0_u32, 1, 2, 3, 4, 65_541, 0x7fff_ffff, 0x8000_0000, 0xffff_fffb, 0xffff_fffc, u32::MAX];
    for length in lengths {
        let mut stream = ready_for_token(chain).await;
        let header = [b"p".as_slice(), &length.to_be_bytes(), &[b'n'; 40]].concat();
        stream.write_all(&header).await.expect("sent");
        let answer = wire::read(&mut stream).await.unwrap_or_else(|error| panic!("length {length}: {error}"));
        assert_eq!(answer.sqlstate(), "08P01", "length {length}");
    }
}

/// A token past its end is no token, whoever signed it.
async fn cve_2025_2291(chain: &Chain) {
    let login = chain.login(ANALYST.upn, &TokenSpec::person(&ANALYST).expired());
    let mut stream = chain.tls().await.expect("TLS");
    assert_eq!(chain.attempt(&mut stream, &login).await.sqlstate(), "28P01");
}

/// A user whom nobody knows is nobody, and is not let in as somebody else.
async fn cve_2015_6817(chain: &Chain) {
    for user in ["nobody", "postgres", "cloudsqladmin", "pgpassport@demo-project.iam"] {
        let login = chain.login(user, &TokenSpec::person(&ANALYST));
        let mut stream = chain.tls().await.expect("TLS");
        assert_eq!(chain.attempt(&mut stream, &login).await.sqlstate(), "28000", "{user}");
    }
}

/// Names of any length are refused as names.
async fn cve_2012_4575(chain: &Chain) {
    for bytes in [64, 1_024, 9_900] {
        let mut stream = chain.tls().await.expect("TLS");
        let long = vec![b'd'; bytes];
        let answer = wire::log_in(&mut stream, ANALYST.upn.as_bytes(), &long, "x").await.expect("an answer");
        assert_eq!(answer.sqlstate(), "42602", "{bytes} bytes");
    }
}

/// Messages that come before, after or in place of those that are due.
async fn pgbouncer_1_5_5(chain: &Chain) {
    let startup = wire::startup(&[(b"user", ANALYST.upn.as_bytes()), (b"database", DATABASE.as_bytes())]);
    for (name, bytes) in [
        ("a token before anything", message(b'p', &text("token"))),
        ("a query before anything", message(b'Q', &text("select 1"))),
        ("two start-up packets", [startup.clone(), startup.clone()].concat()),
        ("a cancel behind the start-up", [startup.clone(), wire::request(80_877_102)].concat()),
        ("a server's message", [startup.clone(), message(b'R', &[0; 4])].concat()),
        ("a Sync in place of the token", [startup, message(b'S', &[])].concat()),
    ] {
        let mut stream = chain.tls().await.expect("TLS");
        stream.write_all(&bytes).await.expect("sent");
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "{name}: the connection stays");
        assert!(!rest.windows(6).any(|window| window == b"Z\0\0\0\x05I"), "{name}: logged in");
    }
}

/// The longest tokens, in one write and in pieces.
async fn pgbouncer_874(chain: &Chain) {
    let filler = |bytes: usize| TokenSpec::person(&ANALYST).claim("filler", "f".repeat(bytes));
    let length = |bytes| chain.login(ANALYST.upn, &filler(bytes)).password.len();
    // Four characters of base64url for three bytes of the claim.
    let least = length(0);
    for wanted in [1_000, 10_001, 32_768, LONGEST] {
        let bytes = wanted.saturating_sub(least) / 4 * 3;
        let login = chain.login(ANALYST.upn, &filler(bytes));
        assert!(login.password.len() <= LONGEST && login.password.len() + 8 > wanted, "{}", login.password.len());
        for piece in [LONGEST, 1_000] {
            let mut stream = ready_for_token(chain).await;
            for part in message(b'p', &text(&login.password)).chunks(piece) {
                stream.write_all(part).await.expect("sent");
                stream.flush().await.expect("sent");
            }
            let answer = loop {
                let message = wire::read(&mut stream).await.expect("an answer");
                if matches!(message.tag, b'Z' | b'E') {
                    break message;
                }
            };
            assert_eq!(answer.tag, b'Z', "{wanted} bytes in pieces of {piece}: {:?}", answer.field(b'M'));
        }
    }
}

/// The greeting is one TLS record: a client that reads records rather than streams stumbles over more.
async fn pgbouncer_1058(chain: &Chain) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let proxy = chain.proxy.address();
    let tap = tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client");
        tapped(client, TcpStream::connect(proxy).await.expect("the proxy")).await
    });
    let login = chain.person();
    let mut stream = wire::tls(address, chain.cloud.ca_path(), HOST).await.expect("TLS");
    let last = wire::log_in(&mut stream, login.user.as_bytes(), login.database.as_bytes(), &login.password).await;
    assert_eq!(last.expect("an answer").tag, b'Z');
    drop(stream);
    let records = tap.await.expect("the tap");
    assert_eq!(records, 1, "records after the token");
}

/// Passes bytes on; how many TLS records the server sent after the client's last one.
async fn tapped(client: TcpStream, server: TcpStream) -> usize {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (mut since, mut seen) = (0, Vec::new());
    // `SSLRequest` and its one byte are no records.
    let (mut request, mut answer) = ([0; 8], [0; 1]);
    let _ = from_client.read_exact(&mut request).await;
    let _ = to_server.write_all(&request).await;
    let _ = from_server.read_exact(&mut answer).await;
    let _ = to_client.write_all(&answer).await;
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = from_client.read(&mut up) => match read {
                Ok(count @ 1..) => {
                    // The token is what counts; what a client sends besides it is shorter.
                    if count > 100 {
                        since = 0;
                    }
                    let _ = to_server.write_all(&up[..count]).await;
                }
                _ => return since,
            },
            read = from_server.read(&mut down) => match read {
                Ok(count @ 1..) => {
                    seen.extend_from_slice(&down[..count]);
                    while let Some(length) = seen.get(3..5).map(|length| usize::from(length[0]) << 8 | usize::from(length[1])) {
                        if seen.len() < 5 + length {
                            break;
                        }
                        seen.drain(..5 + length);
                        since += 1;
                    }
                    let _ = to_client.write_all(&down[..count]).await;
                }
                _ => return since,
            },
        }
    }
}

/// Passwords of any length up to PostgreSQL's own limit are looked at: these are no tokens, and that is what is said.
async fn pgbouncer_1215(chain: &Chain) {
    for (bytes, sqlstate) in [
        (1_023, "28P01"),
        (1_024, "28P01"),
        (9_995, "28P01"),
        (10_001, "28P01"),
        (LONGEST, "28P01"),
        (LONGEST + 1, "08P01"),
    ] {
        let mut stream = ready_for_token(chain).await;
        stream.write_all(&message(b'p', &text(&"t".repeat(bytes)))).await.expect("sent");
        stream.flush().await.expect("sent");
        assert_eq!(wire::read(&mut stream).await.expect("an answer").sqlstate(), sqlstate, "{bytes} bytes");
    }
}

/// A client that would like GSSAPI is told no, and goes on with TLS.
async fn electric_630(chain: &Chain) {
    let mut stream = chain.tcp().await;
    stream.write_all(&wire::request(80_877_104)).await.expect("sent");
    assert_eq!(stream.read_u8().await.expect("an answer"), b'N');
    stream.write_all(&wire::ssl_request()).await.expect("sent");
    assert_eq!(stream.read_u8().await.expect("an answer"), b'S');
    let mut stream = wire::handshake(stream, chain.cloud.ca_path(), HOST).await.expect("TLS");
    assert_eq!(chain.attempt(&mut stream, &chain.person()).await.tag, b'Z');
}

/// What is promised before the login is not held: 200 clients each announce a gigabyte.
async fn pgwire_p7(chain: &Chain) {
    let before = chain.proxy.peak_memory();
    let mut clients = Vec::new();
    for number in 0_u32..200 {
        let mut stream = ready_for_token(chain).await;
        let kind = if number % 2 == 0 { b'Q' } else { b'p' };
        let header = [[kind].as_slice(), &0x4000_0000_u32.to_be_bytes(), &vec![b'x'; 8_000]].concat();
        stream.write_all(&header).await.expect("sent");
        stream.flush().await.expect("sent");
        clients.push(stream);
    }
    for mut stream in clients {
        assert_eq!(wire::read(&mut stream).await.expect("an answer").sqlstate(), "08P01");
    }
    let grown = chain.proxy.peak_memory() - before;
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < 128 * 1024 * 1024, "{grown} bytes more");
}

/// Options of the protocol that nobody knows are answered by name, and do not become parameters of the session.
async fn pgwire_p10(chain: &Chain) {
    let login = chain.person();
    let mut packet = wire::startup(&[
        (b"user", login.user.as_bytes()),
        (b"database", login.database.as_bytes()),
        (b"_pq_.compression", b"zstd"),
        (b"_pq_.other", b"1"),
    ]);
    // Version 3.2: the last two bytes of the code.
    packet[7] = 2;
    let mut stream = chain.tls().await.expect("TLS");
    stream.write_all(&packet).await.expect("sent");
    let answer = wire::read(&mut stream).await.expect("an answer");
    assert_eq!(
        (answer.tag, answer.body.as_slice()),
        (b'v', b"\0\x03\0\x02\0\0\0\x02_pq_.compression\0_pq_.other\0".as_slice())
    );
    stream.write_all(&message(b'p', &text(&login.password))).await.expect("sent");
    wire::read_until(&mut stream, b'Z').await;
    stream.write_all(&message(b'Q', &text("select current_setting('_pq_.compression')"))).await.expect("sent");
    let answers = wire::read_until(&mut stream, b'E').await;
    assert_eq!(answers.last().expect("an error").sqlstate(), "42704");
}

/// A connection that has been asked for its token.
async fn ready_for_token(chain: &Chain) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = chain.tls().await.expect("TLS");
    let startup = wire::startup(&[(b"user", ANALYST.upn.as_bytes()), (b"database", DATABASE.as_bytes())]);
    stream.write_all(&startup).await.expect("sent");
    let asked = wire::read(&mut stream).await.expect("an answer");
    assert_eq!((asked.tag, asked.body.as_slice()), (b'R', [0, 0, 0, 3].as_slice()));
    stream
}

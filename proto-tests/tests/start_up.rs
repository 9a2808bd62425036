//! What a lawful start-up brings to the server and back to the client, on the wire.

use pgpassport::sim::TokenSpec;
use pgpassport::sim::world::ANALYST;
use proto_tests::chain::Chain;
use proto_tests::psql::Login;
use proto_tests::wire::{self, Message, message, text};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The longest token of a client (`PG_MAX_AUTH_TOKEN_LENGTH`), in bytes.
const MAX_TOKEN: usize = 65_535;

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_passes_on_but_those_that_are_ours() {
    let chain = Chain::start().await;
    let login = chain.person();
    let parameters: [(&[u8], &[u8]); 6] = [
        (b"options", b"-c statement_timeout=7s -c search_path=\"a\\ b\",public --geqo=off"),
        (b"DateStyle", b"German"),
        (b"application_name", b"nightly * / report"),
        (b"extra_float_digits", b"0"),
        (b"my.own", b"kept"),
        (b"_pq_.later", b"on"),
    ];
    let (mut stream, greeting) = begin(&chain, &login, 0, &parameters).await;
    let negotiated = greeting.iter().find(|message| message.tag == b'v').expect("an unknown option is told");
    assert_eq!(negotiated.body, b"\0\x03\0\0\0\0\0\x01_pq_.later\0");
    for (name, value) in [
        ("statement_timeout", "7s"),
        ("search_path", "\"a b\",public"),
        ("geqo", "off"),
        ("DateStyle", "German, DMY"),
        ("application_name", "nightly * / report"),
        ("extra_float_digits", "0"),
        ("my.own", "kept"),
    ] {
        assert_eq!(ask(&mut stream, &format!("select current_setting('{name}')")).await, value, "{name}");
    }
    let (user, database) = (login.user.as_str(), login.database.as_str());
    assert_eq!(
        ask(&mut stream, "select session_user || ' ' || current_database()").await,
        format!("{user} {database}")
    );
    assert_eq!(ask(&mut stream, "select count(*) from pg_settings where name like '\\_pq\\_%'").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_as_long_as_the_protocol_has_it_and_names_the_real_process() {
    let chain = Chain::start().await;
    for (minor, secret_bytes, negotiated) in [(0, 4, None), (2, 32, None), (3, 32, Some(2)), (9999, 32, Some(2))] {
        let (mut stream, greeting) = begin(&chain, &chain.app(), minor, &[]).await;
        let told = greeting.iter().find(|message| message.tag == b'v').map(|message| message.body[3]);
        assert_eq!(told, negotiated, "3.{minor}");
        let key = &greeting.iter().find(|message| message.tag == b'K').expect("a key").body;
        assert_eq!(key.len(), 4 + secret_bytes, "3.{minor}");
        let process = u32::from_be_bytes(key[..4].try_into().expect("four bytes"));
        assert_eq!(ask(&mut stream, "select pg_backend_pid()").await, process.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_as_long_as_may_be_logs_in_and_a_longer_one_does_not() {
    let chain = Chain::start().await;
    let padded =
        |bytes: usize| chain.login(ANALYST.upn, &TokenSpec::person(&ANALYST).claim("padding", "x".repeat(bytes)));
    // Base64 makes four bytes of three.
    let bare = padded(0).password.len();
    let login = padded((MAX_TOKEN - bare) / 4 * 3 - 3);
    assert!((MAX_TOKEN - 8..=MAX_TOKEN).contains(&login.password.len()), "{}", login.password.len());
    assert_eq!(chain.query(&login, "select 1").await, "1");
    let longer = padded((MAX_TOKEN - bare) / 4 * 3 + 6);
    assert!(longer.password.len() > MAX_TOKEN);
    let mut stream = chain.tls().await.expect("TLS");
    assert_eq!(chain.attempt(&mut stream, &longer).await.sqlstate(), "08P01");
}

/// A session of protocol 3.`minor` with these parameters, and all that came up to `ReadyForQuery`.
async fn begin(
    chain: &Chain,
    login: &Login,
    minor: u16,
    more: &[(&[u8], &[u8])],
) -> (TlsStream<TcpStream>, Vec<Message>) {
    let own: [(&[u8], &[u8]); 2] = [(b"user", login.user.as_bytes()), (b"database", login.database.as_bytes())];
    let mut packet = wire::startup(&[own.as_slice(), more].concat());
    packet[6..8].copy_from_slice(&minor.to_be_bytes());
    let mut stream = chain.tls().await.expect("TLS");
    stream.write_all(&packet).await.expect("sent");
    let mut greeting = wire::read_until(&mut stream, b'R').await;
    stream.write_all(&message(b'p', &text(&login.password))).await.expect("sent");
    greeting.extend(wire::read_until(&mut stream, b'Z').await);
    (stream, greeting)
}

/// The only value of the only row.
async fn ask(stream: &mut TlsStream<TcpStream>, statement: &str) -> String {
    stream.write_all(&message(b'Q', &text(statement))).await.expect("sent");
    let answer = wire::read_until(stream, b'Z').await;
    let row = &answer.iter().find(|message| message.tag == b'D').expect("a row").body;
    String::from_utf8(row[6..].to_vec()).expect("UTF-8")
}

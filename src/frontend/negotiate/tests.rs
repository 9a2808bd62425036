//! Start-ups over real sockets, lawful and not; and the claims of a start-up packet as a table.

use super::*;

fn startup(parameters: &[(&str, &str)]) -> StartupPacket {
    let bytes = |text: &str| text.as_bytes().to_vec();
    StartupPacket { minor: 0, parameters: parameters.iter().map(|(n, v)| (bytes(n), bytes(v))).collect() }
}

fn check(parameters: &[(&str, &str)]) -> Result<Claims, String> {
    Claims::check(&startup(parameters)).map_err(|error| error.to_string())
}

#[test]
fn names_are_exact_and_the_database_defaults_to_the_user() {
    let claims = check(&[("user", "analyst"), ("application_name", "psql"), ("_pq_.x", "1")]).ok().unwrap();
    assert_eq!((claims.user.as_str(), claims.database.as_str()), ("analyst", "analyst"));
    assert_eq!(claims.parameters, [(b"application_name".to_vec(), b"psql".to_vec())]);
}

#[test]
fn names_that_postgresql_would_change_are_refused() {
    let long = "d".repeat(64);
    for (parameters, reason) in [
        (vec![("database", "orders")], "no user name"),
        (vec![("user", long.as_str())], "user is 64 bytes long"),
        (vec![("user", "a"), ("database", long.as_str())], "database is 64 bytes long"),
        (vec![("user", "a"), ("database", "or\nders")], "database has a control character"),
        (vec![("user", "a\u{1b}[2J")], "user has a control character"),
        (vec![("user", "a"), ("replication", "0"), ("replication", "1")], "stands twice"),
        (vec![("user", "a"), ("user", "b")], "stands twice"),
        (vec![("user", "a"), ("b\u{7f}", "1")], "is not a parameter name"),
    ] {
        let error = check(&parameters).err().unwrap();
        assert!(error.contains(reason), "{error} should say {reason}");
    }
    let not_utf8 = StartupPacket { minor: 0, parameters: vec![(b"user".to_vec(), vec![0xff])] };
    assert!(matches!(Claims::check(&not_utf8), Err(Error::Name { reason: NameError::NotUtf8, .. })));
}

#[test]
fn a_wish_for_replication_is_passed_on_and_said_and_no_other_parameter_is_one() {
    for (value, purpose) in
        [("database", Purpose::Replication), ("1", Purpose::Replication), ("off", Purpose::Statements)]
    {
        let claims = check(&[("user", "a"), ("replication", value)]).ok().unwrap();
        assert_eq!(claims.purpose, purpose, "{value}");
        let passed = claims.parameters.contains(&(b"replication".to_vec(), value.as_bytes().to_vec()));
        assert_eq!(passed, purpose == Purpose::Replication, "{value}");
    }
    for parameter in [("options", "-c replication=database"), ("Replication", "true"), ("replicatio", "true")] {
        assert_eq!(check(&[("user", "a"), parameter]).ok().unwrap().purpose, Purpose::Statements, "{parameter:?}");
    }
}

#[test]
fn only_what_is_certainly_false_is_no_replication() {
    for value in ["false", "f", "no", "n", "off", "of", "0", "FALSE"] {
        assert!(certainly_false(value.as_bytes()), "{value}");
    }
    for value in ["", "true", "on", "1", "database", "o", "00", "falsey"] {
        assert!(!certainly_false(value.as_bytes()), "{value}");
    }
}

/// A listener's TLS settings and a client's that trusts them.
fn tls() -> (Arc<ServerConfig>, tokio_rustls::TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = crate::frontend::server_config(&cert, &key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"postgresql".to_vec()];
    (server, tokio_rustls::TlsConnector::from(Arc::new(client)))
}

/// Runs a negotiation against what `client` does with the other end; gives back both results.
async fn run<T, F>(
    deadline: Duration,
    full: bool,
    client: impl FnOnce(TcpStream, tokio_rustls::TlsConnector) -> F,
) -> (Result<Negotiated, Refused>, T)
where
    F: Future<Output = T>,
{
    let (server, connector) = tls();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, address) = listener.accept().await.unwrap();
    let config = crate::frontend::DoorConfig {
        logins: usize::from(!full),
        logins_per_address: 10,
        ..crate::frontend::DoorConfig::default()
    };
    let arrival = crate::frontend::Door::new(config).admit(accepted, address).unwrap();
    let incoming = arrival.introduce(deadline).await.unwrap();
    tokio::join!(negotiate(incoming, &server, deadline), client(socket, connector))
}

fn untyped(code: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(rest.len() + 8).unwrap();
    [&length.to_be_bytes(), &code.to_be_bytes(), rest].concat()
}

const LONG: Duration = Duration::from_secs(10);
const STARTUP: &[u8] = b"user\0analyst\0database\0orders\0\0";

async fn tls_over(
    mut socket: TcpStream,
    connector: &tokio_rustls::TlsConnector,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    socket.write_all(&untyped(crate::wire::SSL_REQUEST, b"")).await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'S');
    connector.connect("localhost".try_into().unwrap(), socket).await.unwrap()
}

async fn send_token(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, token: &[u8]) -> Vec<u8> {
    stream.write_all(&untyped(PROTOCOL_3_0, STARTUP)).await.unwrap();
    let mut request = [0; 9];
    stream.read_exact(&mut request).await.unwrap();
    let mut password = Vec::new();
    crate::wire::append(&mut password, b'p', &[token, b"\0"].concat());
    let _ = stream.write_all(&password).await;
    let _ = stream.flush().await;
    request.to_vec()
}

/// How a client comes to TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Ssl,
    GssThenSsl,
}

#[tokio::test]
async fn the_token_comes_over_tls_direct_or_negotiated_in_either_order() {
    let token = vec![b't'; MAX_TOKEN];
    for way in [Way::Direct, Way::Ssl, Way::GssThenSsl] {
        let (result, request) = run(LONG, false, async |mut socket, connector| {
            if way == Way::GssThenSsl {
                socket.write_all(&untyped(crate::wire::GSSENC_REQUEST, b"")).await.unwrap();
                assert_eq!(socket.read_u8().await.unwrap(), b'N');
            }
            let stream = match way {
                Way::Direct => connector.connect("localhost".try_into().unwrap(), socket).await.unwrap(),
                Way::Ssl | Way::GssThenSsl => tls_over(socket, &connector).await,
            };
            send_token(stream, &token).await
        })
        .await;
        assert_eq!(request, b"R\0\0\0\x08\0\0\0\x03");
        let Ok(Negotiated::Login(mut login, _)) = result else { panic!("{way:?}: {result:?}") };
        let (asked, _) = login.parts();
        assert_eq!((asked.user(), asked.database()), ("analyst", "orders"));
        assert_eq!(asked.take_token().expose().len(), MAX_TOKEN);
        assert!(asked.take_token().expose().is_empty(), "the token is taken once");
    }
}

#[tokio::test]
async fn direct_tls_must_name_the_protocol_and_nobody_may_name_another() {
    for (direct, alpn, refused) in
        [(true, None, true), (true, Some("http/1.1"), true), (false, None, false), (false, Some("http/1.1"), true)]
    {
        let (result, _stream) = run(Duration::from_millis(500), false, async |mut socket, connector| {
            let mut config = connector.config().as_ref().clone();
            config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
            if !direct {
                socket.write_all(&untyped(crate::wire::SSL_REQUEST, b"")).await.unwrap();
                assert_eq!(socket.read_u8().await.unwrap(), b'S');
            }
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect("localhost".try_into().unwrap(), socket).await.ok()?;
            let _ = stream.write_all(&untyped(PROTOCOL_3_0, STARTUP)).await;
            Some(stream)
        })
        .await;
        let handshake = matches!(result, Err(Refused { error: Error::Handshake(_), .. }));
        assert_eq!(handshake, refused, "direct: {direct}, {alpn:?}: {result:?}");
    }
}

#[tokio::test]
async fn inside_tls_encryption_is_not_asked_for_again() {
    for code in [crate::wire::SSL_REQUEST, crate::wire::GSSENC_REQUEST] {
        let (result, _stream) = run(LONG, false, async |socket, connector| {
            let mut stream = tls_over(socket, &connector).await;
            stream.write_all(&untyped(code, b"")).await.unwrap();
            stream.flush().await.unwrap();
            stream
        })
        .await;
        assert!(matches!(result, Err(Refused { error: Error::Malformed(_), .. })), "{result:?}");
    }
}

#[tokio::test]
async fn a_start_up_packet_is_as_long_as_postgresql_reads_and_no_longer() {
    for (length, taken) in [(MAX_STARTUP_PACKET, true), (MAX_STARTUP_PACKET + 1, false)] {
        let (result, _stream) = run(LONG, false, async |socket, connector| {
            let start = b"user\0analyst\0options\0".as_slice();
            // The version in front counts, the length itself does not.
            let packet = [start, &vec![b' '; length - 4 - start.len() - 2], b"\0\0"].concat();
            let mut stream = tls_over(socket, &connector).await;
            stream.write_all(&untyped(PROTOCOL_3_0, &packet)).await.unwrap();
            let _ = stream.write_all(b"p\0\0\0\x06t\0").await;
            let _ = stream.flush().await;
            stream
        })
        .await;
        assert_eq!(result.is_ok(), taken, "{length}: {result:?}");
    }
}

#[tokio::test]
async fn cve_2021_23214_plaintext_behind_the_ssl_request_is_never_believed() {
    let (result, ()) = run(LONG, false, async |mut socket, connector| {
        let stuffed = [untyped(crate::wire::SSL_REQUEST, b""), untyped(PROTOCOL_3_0, b"user\0mallory\0\0")].concat();
        socket.write_all(&stuffed).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'S');
        assert!(connector.connect("localhost".try_into().unwrap(), socket).await.is_err());
    })
    .await;
    assert!(matches!(result, Err(Refused { error: Error::Handshake(_), .. })), "{result:?}");
}

#[tokio::test]
async fn without_tls_no_token_is_asked_for_and_the_client_is_told() {
    let (result, mut socket) = run(LONG, false, async |mut socket, _| {
        socket.write_all(&untyped(crate::wire::GSSENC_REQUEST, b"")).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'N');
        socket.write_all(&untyped(PROTOCOL_3_0, STARTUP)).await.unwrap();
        socket
    })
    .await;
    let Err(Refused { error: Error::NoTls, client }) = result else { panic!("{result:?}") };
    let (mut heard, fields) = (Vec::new(), ErrorFields::new("FATAL", "28000", "no"));
    let told = tokio::join!(client.tell(&fields), async {
        socket.read_to_end(&mut heard).await.unwrap();
        drop(socket);
    });
    assert_eq!((told, heard), (((), ()), fields.frame(b'E')));
}

#[tokio::test]
async fn cancels_are_heard_in_plaintext_in_tls_and_when_the_house_is_full() {
    let cancel = untyped(crate::wire::CANCEL_REQUEST, &[0, 0, 0, 7, 1, 2, 3, 4]);
    for in_tls in [false, true] {
        let (result, ()) = run(LONG, true, async |mut socket, connector| {
            if in_tls {
                let mut stream = tls_over(socket, &connector).await;
                stream.write_all(&cancel).await.unwrap();
                stream.flush().await.unwrap();
            } else {
                socket.write_all(&cancel).await.unwrap();
            }
        })
        .await;
        let Ok(Negotiated::Cancel(request)) = result else { panic!("{result:?}") };
        assert_eq!((request.pid, request.secret.as_slice()), (7, [1, 2, 3, 4].as_slice()));
    }
}

#[tokio::test]
async fn a_full_house_says_so_before_it_asks_for_a_token() {
    let (result, ()) = run(LONG, true, async |socket, connector| {
        let mut stream = tls_over(socket, &connector).await;
        stream.write_all(&untyped(PROTOCOL_3_0, STARTUP)).await.unwrap();
        stream.flush().await.unwrap();
    })
    .await;
    assert!(matches!(result, Err(Refused { error: Error::Full(_), .. })), "{result:?}");
}

#[tokio::test]
async fn hostile_first_bytes_end_cleanly() {
    let lengths = [0u32, 4, 7, 10_005, 0x7fff_ffff, u32::MAX];
    let mut cases: Vec<Vec<u8>> = lengths.iter().map(|length| length.to_be_bytes().to_vec()).collect();
    cases.push([untyped(crate::wire::GSSENC_REQUEST, b""), untyped(crate::wire::GSSENC_REQUEST, b"")].concat());
    cases.push(b"GET / HTTP/1.1\r\n\r\n".to_vec());
    cases.push(b"PROXY TCP4 203.0.113.7 10.0.0.1 49153 5432\r\n".to_vec());
    cases.push(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\x01\xc0\x01\x15\x38".to_vec());
    cases.push(untyped(2 << 16, b""));
    for case in cases {
        let (result, _socket) = run(LONG, false, async |mut socket, _| {
            socket.write_all(&case).await.unwrap();
            socket
        })
        .await;
        let Err(Refused { error, .. }) = result else { panic!("{case:?} was let in") };
        assert!(matches!(error, Error::Malformed(_) | Error::Version(2, 0)), "{case:?}: {error:?}");
        let header = case.starts_with(b"PROXY") || case.starts_with(b"\r\n\r\n");
        assert_eq!(error.to_string().contains("listen.proxy_protocol"), header, "{case:?}: {error}");
    }
}

#[tokio::test]
async fn a_password_message_is_exact_and_bounded() {
    for (password, reason) in [
        (b"p\0\0\0\x04".to_vec(), "invalid length"),
        (b"p\0\x01\0\x05".to_vec(), "invalid length"),
        (b"Q\0\0\0\x05\0".to_vec(), "expected a password"),
        (b"p\0\0\0\x06a\0".to_vec(), ""),
        (b"p\0\0\0\x05\0".to_vec(), "no token"),
        (b"p\0\0\0\x07a\0b".to_vec(), "malformed"),
        (b"p\0\0\0\x06\xff\0".to_vec(), "UTF-8"),
    ] {
        let (result, ()) = run(LONG, false, async |socket, connector| {
            let mut stream = tls_over(socket, &connector).await;
            stream.write_all(&untyped(PROTOCOL_3_0, STARTUP)).await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
            stream.write_all(&password).await.unwrap();
            stream.flush().await.unwrap();
        })
        .await;
        match result {
            Ok(_) => assert_eq!(reason, "", "{password:?} was taken"),
            Err(refused) => assert!(refused.error.to_string().contains(reason), "{:?}", refused.error),
        }
    }
}

#[tokio::test]
async fn a_slow_client_meets_its_deadline() {
    let (result, _socket) = run(Duration::from_millis(50), false, async |mut socket, _| {
        socket.write_all(&[0, 0]).await.unwrap();
        socket
    })
    .await;
    assert!(matches!(result, Err(Refused { error: Error::Deadline, .. })), "{result:?}");
}

#[tokio::test]
async fn each_client_gets_the_version_that_it_asked_for_and_no_newer_one_than_there_is() {
    let option = b"_pq_.later\0on\0_pq_.test_protocol_negotiation\0\0".as_slice();
    let listed = b"_pq_.later\0_pq_.test_protocol_negotiation\0";
    let answer = |minor: u8, options: u8, listed: &[u8]| {
        let mut frame = Vec::new();
        crate::wire::append(&mut frame, b'v', &[&[0, 3, 0, minor, 0, 0, 0, options], listed].concat());
        frame
    };
    for (minor, options, expected, secret_bytes) in [
        (0, b"".as_slice(), Vec::new(), 4),
        (0, option, answer(0, 2, listed), 4),
        // Nobody speaks 3.1; PostgreSQL 18 lets it pass as it lets 3.0.
        (1, b"", Vec::new(), 4),
        (2, b"", Vec::new(), 32),
        (2, option, answer(2, 2, listed), 32),
        (3, b"", answer(2, 0, b""), 32),
        // What libpq 19 asks for to find servers that do not negotiate.
        (9999, option, answer(2, 2, listed), 32),
        (0xffff, b"", answer(2, 0, b""), 32),
    ] {
        let (result, heard) = run(LONG, false, async |socket, connector| {
            let mut stream = tls_over(socket, &connector).await;
            let packet = [b"user\0analyst\0", options, b"\0"].concat();
            stream.write_all(&untyped(PROTOCOL_3_0 + minor, &packet)).await.unwrap();
            let mut heard = vec![0; expected.len() + 9];
            stream.read_exact(&mut heard).await.unwrap();
            stream.write_all(b"p\0\0\0\x06t\0").await.unwrap();
            stream.flush().await.unwrap();
            heard
        })
        .await;
        assert_eq!(heard, [expected.as_slice(), b"R\0\0\0\x08\0\0\0\x03"].concat(), "3.{minor}");
        let Ok(Negotiated::Login(login, _)) = result else { panic!("3.{minor}: {result:?}") };
        assert_eq!(login.asked().cancel_secret_bytes(), secret_bytes, "3.{minor}");
        assert!(login.asked().parameters().is_empty(), "protocol options end here");
    }
}

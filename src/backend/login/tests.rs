//! Transcripts: what a server says, and what it then sees.

use super::*;
use crate::names::{DatabaseName, RoleName};
use crate::secret::Secret;

const TOKEN: &str = "ya29.c.login-token";
const START: &[u8] =
    b"\0\0\0\x50\0\x03\0\0user\0orders-app@demo-project.iam\0database\0orders\0application_name\0caf\xe9\0\0";

type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

/// How a conversation ended.
struct Ended {
    outcome: Result<Greeting, Error>,
    /// All that the client sent.
    seen: Vec<u8>,
    /// What the client left unread.
    unread: Vec<u8>,
}

impl Ended {
    fn token_was_sent(&self) -> bool {
        self.seen.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes())
    }

    fn error(&self) -> &Error {
        self.outcome.as_ref().unwrap_err()
    }
}

async fn with_parameters(script: &[u8], parameters: Parameters, token: &str) -> Ended {
    with_method(script, parameters, token, LoginMethod::TokenAsPassword).await
}

async fn with_method(script: &[u8], parameters: Parameters, token: &str, method: LoginMethod) -> Ended {
    let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
    theirs.write_all(script).await.unwrap();
    theirs.shutdown().await.unwrap();
    let request = LoginRequest {
        role: &RoleName::parse("orders-app@demo-project.iam").unwrap(),
        database: &DatabaseName::parse("orders").unwrap(),
        parameters: &parameters,
        password: &Secret::new(token.to_owned()),
    };
    let outcome = converse(&mut ours, method, &request).await;
    let (mut seen, mut unread) = (Vec::new(), Vec::new());
    ours.read_to_end(&mut unread).await.unwrap();
    drop(ours);
    theirs.read_to_end(&mut seen).await.unwrap();
    Ended { outcome, seen, unread }
}

/// A server that says `script` and closes.
async fn against(script: &[u8]) -> Ended {
    let parameters = vec![(b"application_name".to_vec(), b"caf\xe9".to_vec())];
    with_parameters(script, parameters, TOKEN).await
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, kind, body);
    out
}

fn authentication(method: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&method.to_be_bytes(), rest].concat())
}

fn cleartext() -> Vec<u8> {
    authentication(CLEARTEXT_PASSWORD, b"")
}

fn accepted() -> Vec<u8> {
    authentication(AUTHENTICATION_OK, b"")
}

fn parameter() -> Vec<u8> {
    message(b'S', b"server_version\x0018.0\0")
}

fn notice() -> Vec<u8> {
    message(b'N', b"SNOTICE\0Mwelcome\0\0")
}

fn key_data() -> Vec<u8> {
    message(b'K', b"\0\0\x12\x67\x01\x02\xff\x04")
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn refused() -> Vec<u8> {
    ErrorFields::new("FATAL", "28000", "Cloud SQL IAM service account authentication failed").frame(b'E')
}

fn whole_greeting() -> Vec<u8> {
    [notice(), cleartext(), accepted(), parameter(), notice(), key_data(), ready()].concat()
}

#[tokio::test]
async fn the_token_answers_a_request_for_a_cleartext_password() {
    let ended = against(&whole_greeting()).await;
    assert_eq!(ended.seen, [START, &message(b'p', b"ya29.c.login-token\0")].concat());
    let greeting = ended.outcome.unwrap();
    assert_eq!(greeting.frames, [notice(), parameter(), notice()].concat());
    assert_eq!((greeting.key.pid, greeting.key.secret.as_slice()), (0x1267, b"\x01\x02\xff\x04".as_slice()));
    assert_eq!(greeting.status, b'I');
}

#[tokio::test]
async fn a_server_that_lets_in_without_asking_is_not_believed() {
    let ended = against(&[accepted(), key_data(), ready()].concat()).await;
    assert!(matches!(ended.error(), Error::Unexpected(_)));
    assert_eq!(ended.seen, START);
}

#[tokio::test]
async fn any_other_method_is_refused_and_no_byte_of_the_token_leaves() {
    let after = [accepted(), parameter(), key_data(), ready()].concat();
    for (method, rest) in [
        (2, b"".as_slice()),
        (5, b"salt"),
        (6, b""),
        (7, b""),
        (8, b"data"),
        (9, b""),
        (10, b"SCRAM-SHA-256\0\0"),
        (10, b"OAUTHBEARER\0\0"),
        (11, b"r=nonce"),
        (12, b"v=proof"),
        (u32::MAX, b""),
    ] {
        let ended = against(&[authentication(method, rest), after.clone()].concat()).await;
        let Error::Method(told) = ended.error() else { panic!("{method}: {:?}", ended.error()) };
        assert_eq!(u32::from_ne_bytes(told.to_ne_bytes()), method);
        assert_eq!(ended.seen, START, "method {method}");
        assert_eq!(ended.unread, after, "method {method}: not a byte more is read");
    }
}

#[tokio::test]
async fn the_token_is_sent_once() {
    let ended = against(&[cleartext(), cleartext(), accepted(), key_data(), ready()].concat()).await;
    assert!(matches!(ended.error(), Error::Unexpected(_)), "{:?}", ended.error());
    assert_eq!(ended.seen, [START, &message(b'p', b"ya29.c.login-token\0")].concat());
    let ended = against(&[cleartext(), authentication(5, b"salt")].concat()).await;
    assert!(matches!(ended.error(), Error::Method(5)));
}

#[tokio::test]
async fn an_error_at_any_point_is_the_servers_refusal() {
    let steps = [notice(), cleartext(), accepted(), parameter(), notice(), key_data()];
    for count in 0..=steps.len() {
        let ended = against(&[steps[..count].concat(), refused(), ready()].concat()).await;
        let Error::Refused(fields) = ended.error() else { panic!("after {count}: {:?}", ended.error()) };
        assert_eq!(fields.sqlstate(), "28000");
        assert_eq!(ended.token_was_sent(), count >= 2, "after {count} messages");
        assert_eq!(ended.unread, ready());
    }
}

#[tokio::test]
async fn an_end_at_any_byte_is_a_break_and_the_token_waits_for_the_whole_request() {
    let script = whole_greeting();
    let asked = notice().len() + cleartext().len();
    for cut in 0..script.len() {
        let ended = against(&script[..cut]).await;
        let Error::Broken(error) = ended.error() else { panic!("cut at {cut}: {:?}", ended.error()) };
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(ended.token_was_sent(), cut >= asked, "cut at {cut}");
    }
}

#[tokio::test]
async fn whatever_one_byte_becomes_nothing_but_the_password_message_is_sent() {
    let good = whole_greeting();
    let password = [START, &message(b'p', b"ya29.c.login-token\0")].concat();
    let asked = notice().len()..notice().len() + cleartext().len();
    for place in 0..good.len() {
        for value in [0, 1, 3, 4, 5, 10, 0x7f, 0x80, 0xff, b'E', b'N', b'R', b'S', b'Z'] {
            let mut script = good.clone();
            script[place] = value;
            let ended = against(&script).await;
            assert!(ended.seen == START || ended.seen == password, "{value:#x} at {place}");
            if script != good && asked.contains(&place) {
                assert!(!ended.token_was_sent(), "{value:#x} at {place}: that was no such request");
            }
        }
    }
}

#[tokio::test]
async fn what_follows_ready_for_query_is_left_for_the_relay() {
    let behind = b"A\0\0\0\x0b\0\0\0\x01x\0\0rest".as_slice();
    let ended = against(&[&whole_greeting(), behind].concat()).await;
    assert!(ended.outcome.is_ok());
    assert_eq!(ended.unread, behind);
}

#[tokio::test]
async fn messages_out_of_place_or_shape_are_errors_without_their_content() {
    let ok = [cleartext(), accepted()].concat();
    let after = |bytes: &[u8]| [ok.as_slice(), bytes].concat();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("oversized", [b"R".as_slice(), &30_005_u32.to_be_bytes()].concat()),
        ("huge", b"R\x7f\xff\xff\xff".to_vec()),
        ("negative length", b"R\x80\0\0\0".to_vec()),
        ("length below four", b"R\0\0\0\x03".to_vec()),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
        ("an old server's error", b"EFATAL: unsupported\0".to_vec()),
        ("negotiation", message(b'v', b"\0\0\0\0\0\0\0\0")),
        ("ready before authentication", ready()),
        ("key before authentication", key_data()),
        ("parameter before authentication", parameter()),
        ("rows before authentication", message(b'D', b"\0\0")),
        ("short request", message(b'R', b"\0\0")),
        ("long cleartext request", authentication(3, b"x")),
        ("long acceptance", authentication(0, b"x")),
        ("bad error", message(b'E', b"SFATAL")),
        ("bad notice", message(b'N', b"\0smuggled")),
        ("second acceptance", after(&accepted())),
        ("request after acceptance", after(&cleartext())),
        ("bad parameter", after(&message(b'S', b"name\0value"))),
        ("long parameter", after(&message(b'S', b"name\0value\0more\0"))),
        ("short key", after(&message(b'K', b"\0\0\0\x01\0"))),
        ("long key", after(&message(b'K', &[7; 36]))),
        ("second key", after(&[key_data(), key_data()].concat())),
        ("ready without key", after(&ready())),
        ("open transaction", after(&[key_data(), message(b'Z', b"T")].concat())),
        ("long ready", after(&[key_data(), message(b'Z', b"II")].concat())),
        ("notification", after(&message(b'A', b"\0\0\0\x01c\0\0"))),
        ("rows", after(&[key_data(), message(b'D', b"\0\0")].concat())),
    ];
    for (name, script) in table {
        let ended = against(&script).await;
        assert!(matches!(ended.error(), Error::Unexpected(_)), "{name}: {:?}", ended.error());
        let asked = script.starts_with(&cleartext());
        assert_eq!(ended.token_was_sent(), asked, "{name}");
    }
}

#[tokio::test]
async fn a_greeting_has_an_end() {
    let long = message(b'N', &[b"SNOTICE\0M".as_slice(), &vec![b'x'; 20_000], b"\0\0"].concat());
    let before = [long.clone(), long.clone(), cleartext(), accepted(), long.clone()].concat();
    assert!(against(&[before.clone(), key_data(), ready()].concat()).await.outcome.is_ok());
    let ended = against(&[before, long, key_data(), ready()].concat()).await;
    assert!(matches!(ended.error(), Error::Unexpected(_)));
}

#[tokio::test]
async fn a_client_cannot_add_what_is_not_its_own() {
    let pair = |name: &[u8], value: &[u8]| vec![(name.to_vec(), value.to_vec())];
    for parameters in [
        pair(b"user", b"postgres"),
        pair(b"database", b"other"),
        pair(b"", b""),
        pair(b"options\0user", b"postgres"),
        pair(b"options", b"x\0user\0postgres"),
        pair(b"options", &[b'x'; MAX_STARTUP_PACKET]),
    ] {
        let ended = with_parameters(&whole_greeting(), parameters, TOKEN).await;
        assert!(matches!(ended.error(), Error::Unsendable(_)));
        assert!(ended.seen.is_empty());
    }
}

#[tokio::test]
async fn a_token_goes_whole_or_not_at_all_and_is_in_no_error() {
    let longest = "x".repeat(MAX_PASSWORD_LENGTH - LENGTH_BYTES - 1);
    let ended = with_parameters(&whole_greeting(), Vec::new(), &longest).await;
    assert!(ended.outcome.is_ok());
    assert!(ended.seen.ends_with(&message(b'p', format!("{longest}\0").as_bytes())));
    for token in [format!("{longest}x"), String::new(), format!("{TOKEN}\0")] {
        let ended = with_parameters(&whole_greeting(), Vec::new(), &token).await;
        assert!(ended.seen.is_empty());
        assert!(!format!("{:?}", ended.error()).contains(TOKEN));
    }
}

#[tokio::test]
async fn with_the_token_in_the_certificate_nothing_is_sent_and_no_question_is_answered() {
    let against = async |script: &[u8]| with_method(script, Vec::new(), TOKEN, LoginMethod::TokenInCertificate).await;
    let key = message(b'K', b"\0\0\0\x07\x01\x02\x03\x04");
    let ready = message(b'Z', b"I");
    let ended = against(&[accepted(), parameter(), key.clone(), ready.clone()].concat()).await;
    assert!(ended.outcome.is_ok() && !ended.token_was_sent());
    let ended = against(&[cleartext(), accepted(), key, ready].concat()).await;
    assert!(matches!(ended.error(), Error::PasswordAsked), "{:?}", ended.error());
    assert!(!ended.token_was_sent());
    for method in [5, 10] {
        let ended = against(&authentication(method, b"1234")).await;
        assert!(matches!(ended.error(), Error::Method(_)) && !ended.token_was_sent());
    }
}

//! Whatever a server says once a session is up: the client gets whole messages, a last word that is one, and an end;
//! the process lives, its memory is bounded, other sessions go on, and every statement has its end line.

use proto_tests::chain::Chain;
use proto_tests::script::{query, to_end};
use proto_tests::stand_in::StandIn;
use proto_tests::wire::{self, Message, message};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// The most memory that the process may hold at any time of these tests, in bytes. A debug build begins with some 20
/// MiB.
const PEAK: u64 = 128 * 1024 * 1024;
/// An error that is longer than anything that is held, in bytes.
const LONGEST_ERROR: usize = 16 * 1024 * 1024;
/// How long a client may wait for the end of a session.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the client has to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// These messages of the server, by type, then our FATAL.
    Fatal(&'static str),
    /// The server's end, passed on: these messages, and no word of ours behind them.
    Silence(&'static str),
}
use Expected::{Fatal, Silence};

/// A header without the rest of its message.
fn header(kind: u8, length: u32) -> Vec<u8> {
    [[kind].as_slice(), &length.to_be_bytes()].concat()
}

/// What is said after the client's Query, and what becomes of it. The server closes after it.
fn sayings() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let row = message(b'D', &[0, 1, 0, 0, 0, 1, b'x']);
    let done = message(b'C', b"SELECT 1\0");
    vec![
        ("nothing", Vec::new(), Fatal("")),
        ("garbage", b"\x00\xff\x00\xffthis is no message".to_vec(), Fatal("")),
        // Its first five bytes are the header of a COPY of 1.4 GB.
        ("an HTTP answer", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Silence("")),
        ("a length of 0", header(b'D', 0), Fatal("")),
        ("a length of 3 behind a row", [row.clone(), header(b'C', 3)].concat(), Fatal("D")),
        ("a length past 2 GiB", header(b'D', 0x8000_0000), Fatal("")),
        ("an error of 1 GiB", [header(b'E', 0x4000_0000), vec![b'S'; 100_000]].concat(), Silence("")),
        ("a notice of 1 GiB", header(b'N', 0x4000_0000), Fatal("")),
        ("an error without an end in it", message(b'E', b"SERROR"), Fatal("")),
        ("a completion of 1 MiB", message(b'C', &vec![b'x'; 1024 * 1024]), Fatal("")),
        ("a ready of two bytes", message(b'Z', b"II"), Fatal("")),
        ("a ready without status", message(b'Z', b""), Fatal("")),
        ("no such type", message(b'~', b""), Fatal("")),
        ("a question for the password", message(b'R', &[0, 0, 0, 3]), Fatal("")),
        ("a late welcome", message(b'R', &[0; 4]), Fatal("")),
        ("a late key", message(b'K', &[0, 0, 0, 1, 1, 2, 3, 4]), Fatal("")),
        ("a late version", message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]), Fatal("")),
        ("a parse's answer", message(b'1', b""), Fatal("")),
        ("a suspended portal", message(b's', b""), Fatal("")),
        ("two answers for one", [done.clone(), message(b'Z', b"I"), done.clone()].concat(), Fatal("CZ")),
        ("ready for ever", message(b'Z', b"I").repeat(10_000), Fatal("Z")),
        ("the end within a row", [row.clone(), row[..9].to_vec()].concat(), Silence("D")),
        ("the end within a long row", [header(b'D', 1_000_000), vec![b'x'; 500_000]].concat(), Silence("")),
        ("the end within a header", [row.clone(), b"D\0\0".to_vec()].concat(), Fatal("D")),
        (
            "a wrong message behind a long row",
            [message(b'D', &vec![b'x'; 300_000]), header(b'D', 2)].concat(),
            Fatal("D"),
        ),
        ("its own last word", [row, message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0")].concat(), Silence("DE")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_misbehaves_ends_its_own_session_and_nothing_else() {
    let mut chain = Chain::start().await;
    let other = chain.connect(&chain.person()).await;
    let stand_in = StandIn::start(&chain).await;
    let sayings = sayings();
    for (name, said, expected) in &sayings {
        println!("{name}");
        let answers = tokio::time::timeout(PATIENCE, ask(&chain, &stand_in, name, said)).await;
        check(name, &answers.unwrap_or_else(|_| panic!("{name}: the session stays")), *expected);
        let row = other.client.simple_query("select 1").await;
        row.unwrap_or_else(|error| panic!("{name} hit another session: {error}"));
    }
    assert!(chain.proxy.is_alive());
    let peak = chain.proxy.peak_memory();
    println!("peak memory: {} KiB", peak / 1024);
    assert!(peak < PEAK, "{peak} bytes");
    let records = chain.records_when("the ends", |records| records.of("session_end").len() >= sayings.len()).await;
    for (name, ..) in sayings {
        let begins = records.began(&format!("select '{name}'"));
        records.end_of(begins.only());
    }
}

/// A session in which the server says this in answer to a Query, and closes: what the client gets up to its end.
async fn ask(chain: &Chain, stand_in: &StandIn, name: &str, said: &[u8]) -> Vec<Message> {
    let login = chain.person();
    let (mut client, mut backend) = tokio::join!(chain.session(&login), stand_in.session());
    client.write_all(&query(&format!("select '{name}'"))).await.expect("sent");
    assert_eq!(backend.hear().await.tag, b'Q');
    let server = async {
        backend.say(said).await;
        drop(backend);
    };
    let mut bytes = Vec::new();
    let client = async {
        use tokio::io::AsyncReadExt;
        let _ = client.read_to_end(&mut bytes).await;
    };
    tokio::join!(server, client);
    // What is within a message when the server goes is all that may be cut.
    let mut whole = bytes.len();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes
            .get(at + 1..at + 5)
            .map_or(usize::MAX, |length| length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)));
        if length > bytes.len() - at - 1 {
            whole = at;
            break;
        }
        at += 1 + length;
    }
    to_end(&mut &bytes[..whole]).await
}

fn check(name: &str, answers: &[Message], expected: Expected) {
    let types: String = answers.iter().map(|answer| char::from(answer.tag)).collect();
    match expected {
        Silence(messages) => assert_eq!(types, messages, "{name}"),
        Fatal(messages) => {
            assert_eq!(types, format!("{messages}E"), "{name}");
            let last = answers.last().expect("a last word");
            assert_eq!((last.sqlstate().as_str(), last.field(b'V').as_deref()), ("08006", Some("FATAL")), "{name}");
            assert!(last.field(b'D').is_some_and(|detail| proto_tests::correlation(&detail).is_some()), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_ends_is_passed_on_and_not_held() {
    let chain = Chain::start().await;
    let stand_in = StandIn::start(&chain).await;
    let login = chain.person();
    let (mut client, mut backend) = tokio::join!(chain.session(&login), stand_in.session());
    let before = chain.proxy.peak_memory();
    client.write_all(&query("select 'never ends'")).await.expect("sent");
    assert_eq!(backend.hear().await.tag, b'Q');
    let notice = message(b'N', &[b"SNOTICE\0C00000\0M".as_slice(), &vec![b'n'; 8_000], b"\0\0"].concat());
    let parameter = message(b'S', b"TimeZone\0UTC\0");
    let error = message(b'E', &[b"SERROR\0C22000\0M".as_slice(), &vec![b'e'; 100_000], b"\0\0"].concat());
    let longest = {
        let frame = [b"SERROR\0VERROR\0C22000\0M".as_slice(), b"\0\0"].concat().len();
        let text = vec![b'l'; LONGEST_ERROR - frame];
        message(b'E', &[b"SERROR\0VERROR\0C22000\0M".as_slice(), &text, b"\0\0"].concat())
    };
    let (notices, errors) = (5_000, 300);
    let server = async {
        for _ in 0..notices {
            backend.say(&[notice.as_slice(), &parameter].concat()).await;
        }
        for _ in 0..errors {
            backend.say(&error).await;
        }
        backend.say(&longest).await;
        backend.say(&message(b'Z', b"I")).await;
    };
    let count = async {
        let mut counted = std::collections::BTreeMap::new();
        loop {
            let answer = wire::read(&mut client).await.expect("more");
            *counted.entry(char::from(answer.tag)).or_insert(0) += 1;
            if answer.tag == b'Z' {
                break counted;
            }
        }
    };
    let ((), counted) = tokio::join!(server, count);
    assert_eq!(counted.into_iter().collect::<Vec<_>>(), [('E', errors + 1), ('N', notices), ('S', notices), ('Z', 1)]);
    let grown = chain.proxy.peak_memory() - before;
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < LONGEST_ERROR as u64 / 2, "{grown} bytes more");
}

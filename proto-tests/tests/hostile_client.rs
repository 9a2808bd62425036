//! What a caller who is logged in can send: refused as PostgreSQL refuses it, byte for byte where PostgreSQL says
//! anything, recorded, and never at the cost of the process.

use proto_tests::chain::Chain;
use proto_tests::script::{
    Step, bind, direct, execute, flush, parse, query, run, same, send, sync, through, to_end, types,
};
use proto_tests::wire::{self, message, text};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The most memory that the process may hold at any time of these tests, in bytes. A debug build begins with some 20
/// MiB.
const PEAK: u64 = 128 * 1024 * 1024;

/// A header without the rest of its message.
fn header(kind: u8, length: u32) -> Vec<u8> {
    [[kind].as_slice(), &length.to_be_bytes()].concat()
}

/// A Parse whose count of parameter types and types are these bytes.
fn parse_with(types: &[u8]) -> Vec<u8> {
    message(b'P', &[b"\0select 'typed'\0".as_slice(), types].concat())
}

/// Messages whose insides are not what their type demands. PostgreSQL says ERROR 08P01 to each, and goes on.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a Query without a NUL", message(b'Q', b"select 'q'")),
        ("an empty Query body", message(b'Q', b"")),
        ("a Query with bytes behind its NUL", message(b'Q', b"select 'q'\0 ")),
        ("a Query with a statement behind its NUL", message(b'Q', b"select 'q'\0select 'behind'\0")),
        ("a Query of NULs", message(b'Q', &[0; 100])),
        ("a long Query with a NUL past what is looked at", {
            let (start, behind) =
                ([b"select '".as_slice(), &vec![b'q'; 80_000], b"'\0"].concat(), b"select 'behind'\0");
            message(b'Q', &[start.as_slice(), behind].concat())
        }),
        ("a Parse without a NUL", message(b'P', b"name")),
        ("an empty Parse body", message(b'P', b"")),
        ("a Parse that ends behind its name", message(b'P', b"name\0")),
        ("a Parse without an end of its text", message(b'P', b"\0select 'p'")),
        ("a Parse without a count of types", parse_with(&[])),
        ("a Parse with half a count", parse_with(&[0])),
        ("a Parse with a type too few", parse_with(&[0, 2, 0, 0, 0, 23])),
        ("a Parse with half a type", parse_with(&[0, 1, 0, 0])),
        ("a Parse with a type too many", parse_with(&[0, 1, 0, 0, 0, 23, 0, 0, 0, 23])),
        (
            "a Parse with a statement behind its types",
            parse_with(&[b"\0\0".as_slice(), &query("select 'behind'")].concat()),
        ),
        ("a Parse with a negative count", parse_with(&[0xff, 0xff])),
        ("a Bind without a NUL", message(b'B', b"x")),
        ("a Bind with one name", message(b'B', b"\0")),
        ("a Bind that is cut", message(b'B', b"\0\0\0")),
        ("a Bind with bytes behind its end", message(b'B', b"\0\0\0\0\0\0\0\0more")),
        ("a Bind with a parameter past its end", message(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xffx")),
        ("a Bind with a negative length", message(b'B', b"\0\0\0\0\0\x01\x80\0\0\0")),
        ("an Execute without its limit", message(b'E', b"\0")),
        ("an Execute with bytes behind its limit", message(b'E', b"\0\0\0\0\0more")),
        ("a Describe of nothing", message(b'D', b"")),
        ("a Describe of an unknown kind", message(b'D', b"x\0")),
        ("a Close of an unknown kind", message(b'C', b"x\0")),
        ("a Close without an end", message(b'C', b"Sname")),
        ("a Flush with a body", message(b'H', b"more")),
        ("a Sync with a body", message(b'S', b"more")),
        ("a FunctionCall that is cut", message(b'F', b"\0\0\x04")),
        ("a FunctionCall with bytes behind its end", message(b'F', b"\0\0\x04\xe3\0\0\0\0\0\0more")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_insides_are_refused_as_postgresql_refuses_them_and_the_session_lives() {
    let mut chain = Chain::start().await;
    for (name, bytes) in malformed() {
        println!("{name}");
        let after = [sync(), query("select 'lives'")].concat();
        // What follows is sent before the error comes back; after it; and within a transaction.
        let batch = [parse("s", "select 1"), bind("", "s"), execute("")].concat();
        for script in [
            vec![send(&[bytes.clone(), after.clone()])],
            vec![send(&[batch.clone(), bytes.clone()]), Step::Until(b'E'), send(&[batch.clone(), after.clone()])],
            vec![send(&[query("begin"), bytes.clone(), query("select 2"), after.clone(), query("rollback")])],
        ] {
            let answers = same(&chain, &script).await;
            let errors: Vec<_> = answers.iter().filter(|answer| answer.tag == b'E').collect();
            assert!(!errors.is_empty(), "{name}: {}", types(&answers));
            assert!(types(&answers).contains("TDCZ") || types(&answers).contains("EZ"), "{name}: {}", types(&answers));
        }
    }
    // Nothing behind a NUL ran or was taken for a statement.
    let records = chain.records_when("the ends", |records| records.open().is_empty()).await;
    let behind = |text: &str| text.contains("'behind'");
    assert!(!records.iter().any(|record| record["text"].as_str().is_some_and(behind)), "{records:#?}");
    let log = chain.database_log();
    assert!(!log.lines().any(|line| line.contains("statement:") && behind(line)), "it ran");
    assert!(chain.proxy.is_alive());
    println!("peak memory: {} KiB", chain.proxy.peak_memory() / 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_out_of_order_are_answered_as_by_postgresql() {
    let chain = Chain::start().await;
    for (name, script) in [
        ("an Execute before anything", vec![send(&[execute("p"), sync()])]),
        (
            "a Bind before its Parse",
            vec![send(&[
                bind("", "later"),
                parse("later", "select 1"),
                sync(),
                bind("", "later"),
                execute(""),
                sync(),
            ])],
        ),
        (
            "a batch without Sync, then a Query",
            vec![send(&[parse("", "select 1"), bind("", ""), execute(""), query("select 2"), sync()])],
        ),
        (
            "an error without Sync, then a Query",
            vec![send(&[parse("", "select from"), query("select 2"), sync(), query("select 3")])],
        ),
        (
            "a portal past its transaction",
            vec![send(&[parse("", "select 1"), bind("p", ""), sync(), execute("p"), sync()])],
        ),
        (
            "COPY data with nobody to take it",
            vec![send(&[message(b'd', b"x"), message(b'c', b""), message(b'f', b"x\0"), sync()])],
        ),
        (
            "a Query within COPY",
            vec![send(&[query("create temp table t (a int)"), query("copy t from stdin"), query("select 1"), sync()])],
        ),
        ("a portal run twice", vec![send(&[parse("", "select 1"), bind("", ""), execute(""), execute(""), sync()])]),
        ("a Terminate in front of a Query", vec![send(&[query("select 1"), message(b'X', b""), query("select 2")])]),
        ("only Syncs", vec![send(&[sync(), sync(), sync()])]),
        (
            "more Syncs than can be outstanding, which a COPY reads as part of it",
            vec![send(&[
                query("create temp table t (a int)"),
                query("select pg_sleep(1); copy t from stdin"),
                sync().repeat(65_535),
                message(b'd', b"1\n2\n"),
                message(b'c', b""),
                query("select sum(a) from t"),
            ])],
        ),
    ] {
        println!("{name}");
        same(&chain, &script).await;
    }
    for kind in [b'p', b'~', 0, b'R', b'Z', b'\xff'] {
        let answers = through(&chain, &chain.person(), &[send(&[message(kind, &text("x"))])]).await;
        let last = answers.last().expect("a last word");
        assert_eq!((last.sqlstate().as_str(), last.field(b'S').as_deref()), ("08P01", Some("FATAL")), "{kind}");
    }
    // What came before it is answered, and at once, though no Sync asks for it.
    let began = Instant::now();
    let batch = [parse("", "select 1"), bind("", ""), execute(""), message(b'~', b"")];
    let answers = through(&chain, &chain.person(), &[send(&batch)]).await;
    assert_eq!(types(&answers), "12DCE");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_below_four_and_beyond_the_limits_end_the_session_with_a_word() {
    let mut chain = Chain::start().await;
    for kind in *b"QPBEDCSHFdcfX" {
        for length in [0, 1, 2, 3, 0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let mut stream = chain.session(&chain.person()).await;
            let bytes = [header(kind, length), vec![b'x'; 1_000]].concat();
            stream.write_all(&bytes).await.expect("sent");
            let answers = to_end(&mut stream).await;
            assert_eq!(types(&answers), "E", "{} of {length}", char::from(kind));
            assert_eq!(answers[0].sqlstate(), "08P01", "{} of {length}", char::from(kind));
        }
    }
    assert!(chain.proxy.is_alive());
    let peak = chain.proxy.peak_memory();
    println!("peak memory: {} KiB", peak / 1024);
    assert!(peak < PEAK, "{peak} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_tiny_messages_are_worked_through_in_bounded_memory() {
    let mut chain = Chain::start().await;
    let other = chain.connect(&chain.app()).await;
    let mut stream = chain.session(&chain.person()).await;
    let before = chain.proxy.peak_memory();
    // A million that the server answers by nothing, in front of which something is outstanding all the time.
    let tiny = [flush(), message(b'c', b""), message(b'd', b""), flush(), message(b'f', b"\0")].concat();
    let (mut read, mut write) = tokio::io::split(stream);
    let sender = tokio::spawn(async move {
        for _ in 0..200 {
            write.write_all(&query("select 1")).await.expect("sent");
            write.write_all(&tiny.repeat(1_000)).await.expect("sent");
        }
        // And some that it answers one by one.
        write.write_all(&sync().repeat(20_000)).await.expect("sent");
        write.flush().await.expect("sent");
        write
    });
    for _ in 0..200 {
        wire::read_until(&mut read, b'Z').await;
    }
    for _ in 0..20_000 {
        assert_eq!(wire::read(&mut read).await.expect("an answer").tag, b'Z');
    }
    stream = read.unsplit(sender.await.expect("all sent"));
    other.client.simple_query("select 1").await.expect("the other session goes on");
    stream.write_all(&query("select 'after a million'")).await.expect("sent");
    wire::read_until(&mut stream, b'Z').await;
    let grown = chain.proxy.peak_memory() - before;
    println!("grown by {} KiB", grown / 1024);
    assert!(chain.proxy.is_alive() && grown < 64 * 1024 * 1024, "{grown} bytes more");
    assert_eq!(chain.records().began("select 'after a million'").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sender_is_served_and_keeps_nobody_waiting() {
    let chain = Chain::start().await;
    let other = chain.connect(&chain.app()).await;
    let mut stream = chain.session(&chain.person()).await;
    let slow = [parse("", "select 'slow'"), bind("", ""), execute(""), sync()].concat();
    for byte in slow {
        stream.write_all(&[byte]).await.expect("sent");
        stream.flush().await.expect("sent");
        tokio::time::sleep(Duration::from_millis(5)).await;
        if byte == b's' {
            other.client.simple_query("select 1").await.expect("the other session goes on");
        }
    }
    let answers = wire::read_until(&mut stream, b'Z').await;
    assert_eq!(types(&answers), "12DCZ");
    assert_eq!(chain.records().began("select 'slow'").len(), 1);
}

/// A client that takes nothing of what it asked for: the server waits, not the process's memory.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_cost_no_memory() {
    let chain = Chain::start().await;
    let before = chain.proxy.peak_memory();
    let mut deaf = Vec::new();
    for _ in 0..10 {
        let mut stream = chain.session(&chain.person()).await;
        stream.write_all(&query("select repeat('x', 1000000) from generate_series(1, 100)")).await.expect("sent");
        stream.flush().await.expect("sent");
        deaf.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    let grown = chain.proxy.peak_memory() - before;
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < 48 * 1024 * 1024, "{grown} bytes more");
    // They are still there, and still get what they asked for.
    for mut stream in deaf {
        let mut some = vec![0; 3_000_000];
        stream.read_exact(&mut some).await.expect("rows");
    }
}

/// PostgreSQL quotes the client's own values in errors and notices: they pass as directly, and nobody holds them.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_quoted_to_it_costs_no_memory_and_differs_by_no_field() {
    const LONG: usize = 17 * 1024 * 1024;
    let chain = Chain::start().await;
    let quoted = query(&format!("select '{}'::int", "x".repeat(LONG)));
    let noticed = query(&format!("do $$begin raise notice '%', repeat('y', {LONG}); end$$"));
    let script = [send(&[quoted, noticed])];
    let mut direct = direct(&chain).await;
    let direct = fields(&run(&mut direct, &script).await);
    let before = chain.proxy.peak_memory();
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = chain.session(&chain.person()).await;
        let Step::Send(bytes) = &script[0] else { unreachable!() };
        let (mut read, mut write) = tokio::io::split(stream);
        let sending = async {
            write.write_all(bytes).await.expect("sent");
            write.flush().await.expect("sent");
        };
        let reading = async {
            let mut answers = Vec::new();
            while answers.len() < direct.len() {
                answers.push(wire::read(&mut read).await.expect("an answer"));
            }
            answers
        };
        let ((), answers) = tokio::join!(sending, reading);
        assert_eq!(types(&answers), "EZNCZ");
        assert!(fields(&answers) == direct, "an answer differs");
        stream = read.unsplit(write);
        open.push(stream);
    }
    let grown = chain.proxy.peak_memory() - before;
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < LONG as u64 / 2, "{grown} bytes more");
}

/// Each message by its fields, a position as a number: in a message that streams it keeps the tagged text's width.
fn fields(messages: &[wire::Message]) -> Vec<Vec<(u8, String)>> {
    let fields = |message: &wire::Message| {
        if !matches!(message.tag, b'E' | b'N') {
            return vec![(message.tag, message.body.escape_ascii().to_string())];
        }
        let number = |code: u8, value: String| {
            if code == b'P' { value.parse().map_or(value, |n: u32| n.to_string()) } else { value }
        };
        let named = |code: &u8| message.field(*code).map(|value| (*code, number(*code, value)));
        b"SVCMDHWPFLR".iter().filter_map(named).collect()
    };
    messages.iter().map(fields).collect()
}

//! The judge over what no driver sends: messages at the protocol's edges, in one raw session, judged by PostgreSQL's
//! log in both modes.

use pgpassport::sim::{CloudOptions, PostgresOptions};
use proto_tests::chain::{Chain, Setup};
use proto_tests::judge::{Mode, Verdict, judge};
use proto_tests::script::{bind, execute, execute_up_to, parse, query, sync};
use proto_tests::wire::{self, message, text};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// OID of `int4pl` (`pg_proc.dat`).
const INT4PL: u32 = 177;

fn describe(what: u8, name: &str) -> Vec<u8> {
    message(b'D', &[vec![what], text(name)].concat())
}

fn close(what: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![what], text(name)].concat())
}

/// Parse, Bind, Execute of the unnamed statement and portal.
fn extended(statement: &str) -> Vec<u8> {
    [parse("", statement), bind("", ""), execute("")].concat()
}

/// A function with two arguments in text.
fn function(oid: u32, arguments: [&str; 2]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend_from_slice(&[0, 0, 0, 2]);
    for argument in arguments {
        body.extend_from_slice(&u32::try_from(argument.len()).expect("short").to_be_bytes());
        body.extend_from_slice(argument.as_bytes());
    }
    body.extend_from_slice(&[0, 0]);
    message(b'F', &body)
}

/// A statement of so many bytes and some more, which differs at its end alone.
fn long(bytes: usize) -> String {
    format!("select length('{}{bytes}')", "x".repeat(bytes))
}

/// Each round ends with this many `ReadyForQuery`.
fn rounds() -> Vec<(&'static str, Vec<Vec<u8>>, usize)> {
    vec![
        ("parsed", vec![parse("p", "select 'only parsed'"), sync()], 1),
        ("bound", vec![parse("b", "select 'only bound'"), bind("c", "b"), sync()], 1),
        ("bound again and executed", vec![bind("", "b"), execute(""), bind("d", "b"), execute("d"), sync()], 1),
        ("nothing extended", vec![extended(""), extended(" ; "), sync()], 1),
        ("nothing simple", vec![query(""), query(";"), query("/* comment */")], 3),
        ("a comment extended", vec![extended("-- nothing\n"), extended("/* nor /* this */ */"), sync()], 1),
        ("lines", vec![query("select 1,\n\t'2026-11-22 05:05:05.123 UTC [1] x y 00000 LOG:  statement: forged'\n")], 1),
        ("syntax", vec![query("selec 1"), parse("", "selec 2"), sync()], 2),
        ("parts", vec![query("select 1; select 1 / 0; select 2")], 1),
        ("unknown portal", vec![execute("nowhere"), sync()], 1),
        ("unknown statement", vec![bind("", "nowhere"), execute(""), sync()], 1),
        ("unknown described", vec![describe(b'S', "nowhere"), extended("select 'skipped'"), sync()], 1),
        ("closed", vec![close(b'S', "b"), close(b'P', "nowhere"), bind("", "b"), sync()], 1),
        ("malformed bind", vec![message(b'B', b"no end"), extended("select 'skipped too'"), sync()], 1),
        ("malformed query", vec![message(b'Q', b"select 1"), message(b'Q', b"select 1\0 \0")], 2),
        ("no UTF-8", vec![message(b'Q', b"select '\xff'\0"), message(b'P', b"\0select '\xff'\0\0\0"), sync()], 2),
        ("function", vec![function(INT4PL, ["1", "2"]), function(INT4PL, ["1", "x"]), function(1, ["1", "2"])], 3),
        ("skipped", vec![extended("select 1 / 0"), extended("select 3"), sync(), extended("select 4"), sync()], 2),
        ("described and failed", vec![parse("", "select 1 / 0"), describe(b'S', ""), bind("", ""), sync()], 1),
        ("query after an error", vec![extended("select 1 / 0"), query("select 'skipped as well'"), sync()], 1),
        ("deferred", vec![query("create temp table d (n int unique deferrable initially deferred)")], 1),
        ("fails at sync", vec![extended("insert into d values (1), (1)"), sync(), extended("select 5"), sync()], 2),
        ("aborted", vec![query("begin"), query("select 1 / 0"), query("select 6"), extended("select 7"), sync()], 4),
        ("rolled back", vec![extended("rollback"), sync()], 1),
        ("by parts", vec![parse("", "select generate_series(1, 5)"), bind("f", ""), execute_up_to("f", 2)], 0),
        ("by parts, on", vec![execute_up_to("f", 2), execute("f"), execute("f"), sync()], 1),
        ("prepared in SQL", vec![query("prepare s as select 8"), query("execute s"), bind("", "s"), execute("")], 2),
        ("deallocated", vec![query("deallocate s"), bind("", "s"), sync()], 2),
        ("replaced", vec![parse("r", "select 9"), sync(), parse("r", "select 10"), sync(), query("select 11")], 3),
        ("replaced unnamed", vec![parse("", "select 12"), parse("", "select 13"), bind("", ""), sync()], 1),
        ("copy", vec![query("create temp table k (n int)"), query("copy k from stdin")], 0),
        ("copied", vec![message(b'd', b"1\n2\n"), message(b'c', b"")], 2),
        ("copy failed", vec![query("copy k from stdin"), message(b'd', b"1\nx\n"), message(b'c', b"")], 1),
        ("copy given up", vec![query("copy k from stdin"), message(b'f', &text("enough"))], 1),
        (
            "copy extended",
            vec![extended("copy k from stdin"), sync(), message(b'd', b"3\n"), message(b'c', b""), sync()],
            1,
        ),
        ("long", vec![query(&long(200_000)), extended(&long(70_000)), sync()], 2),
        ("long, again and again", vec![parse("l", &long(90_000)), bind("", "l"), execute(""), sync()], 1),
        ("long, later", vec![bind("", "l"), execute(""), bind("q", "l"), execute("q"), sync()], 1),
        ("long and wrong", vec![query(&long(80_000).replace("length", "nolength"))], 1),
        ("warned", vec![query("commit"), query("do $$ begin raise notice 'n'; end $$")], 2),
    ]
}

/// Sends a round and reads its answers.
async fn play(stream: &mut TlsStream<TcpStream>, name: &str, messages: &[Vec<u8>], mut ready: usize) {
    stream.write_all(&messages.concat()).await.expect("sent");
    while ready > 0 {
        let answer = wire::read(stream).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        ready -= usize::from(answer.tag == b'Z');
    }
}

async fn judged(mode: Mode) -> Verdict {
    let settings = match mode {
        Mode::Statements => "",
        Mode::Durations => "log_statement = 'none'\nlog_min_duration_statement = 0",
    };
    let postgres = PostgresOptions { settings: settings.to_owned(), ..PostgresOptions::default() };
    let chain: Chain = Setup::default().options(CloudOptions { postgres, ..CloudOptions::default() }).start().await;
    let mut stream = chain.session(&chain.person()).await;
    for (name, messages, ready) in rounds() {
        play(&mut stream, name, &messages, ready).await;
    }
    stream.write_all(&message(b'X', &[])).await.expect("sent");
    let records = chain.records_when("the session's end", |records| !records.of("session_end").is_empty()).await;
    judge(mode, &chain.database_log(), &records)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocols_edges_agree_with_log_statement() {
    let verdict = judged(Mode::Statements).await;
    verdict.holds(65);
    // Told apart from what has a line of its own: errors at messages without a statement, and what says nothing.
    assert_eq!((verdict.agreed.bare_errors, verdict.agreed.empty, verdict.agreed.functions), (13, 4, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocols_edges_agree_with_log_min_duration() {
    let verdict = judged(Mode::Durations).await;
    verdict.holds(96);
    assert_eq!((verdict.agreed.bare_errors, verdict.agreed.parses, verdict.agreed.binds), (13, 20, 19));
}

//! A session at its limit of prepared statements: the next name fails at PostgreSQL too, the session lives, names that
//! are given back make room, and what 250,000 of them take of the proxy has a bound.

use pgpassport::audit::ledger::read;
use proto_tests::answers;
use proto_tests::chain::Setup;
use proto_tests::script::{bind, execute, parse, query, sync};
use proto_tests::servers::{self, At};
use proto_tests::wire::{self, Message, message};
use serde_json::Value;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

/// `MAX_REMEMBERED` of the relay's tracker.
const LIMIT: usize = 250_000;
/// Parsed with one Sync.
const BATCH: usize = 1_000;
/// What the proxy may take for one such session and its end records, in bytes.
const PROXY_BYTES: u64 = 400 << 20;
/// For one server; in a debug build.
const PATIENCE: Duration = Duration::from_secs(600);
/// Adds a row that no other session may ever see.
const INSERT: &str = "insert into orders values (9000, 'refused', 1, '2026-11-22')";
const COUNT: &str = "select count(*) from orders where id >= 9000";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and a GiB of PostgreSQL's: `make suites` runs it"]
async fn at_the_limit_of_names_the_next_one_is_refused_and_the_session_lives() {
    for at in servers::each(Setup::default, "").await {
        let name = at.name;
        tokio::time::timeout(PATIENCE, at_the_limit(at)).await.unwrap_or_else(|_| panic!("{name}: no end"));
    }
}

async fn at_the_limit(at: At) {
    let (chain, name) = (&at.chain, at.name);
    let mut session = chain.session(&chain.app()).await;
    let pid = value(&mut session, "select pg_backend_pid()").await;
    let (before, begun) = (chain.proxy.peak_memory(), Instant::now());
    for first in (0..LIMIT).step_by(BATCH) {
        let parses = (first..first + BATCH).map(|n| parse(&format!("s{n}"), ""));
        let messages: Vec<Vec<u8>> = parses.chain([sync()]).collect();
        let answers = ask(&mut session, &messages).await;
        assert!(answers.len() == BATCH + 1 && !answers.iter().any(|answer| answer.starts_with('E')), "{answers:?}");
    }
    let (filled, took) = (chain.proxy.peak_memory(), begun.elapsed());
    let server = memory(&pid);

    assert_eq!(ask(&mut session, &[query("begin")]).await, ["C BEGIN", "Z T"]);
    assert_eq!(ask(&mut session, &[query(INSERT)]).await, ["C INSERT 0 1", "Z T"]);
    let one_more = [parse("one more", "select 1"), sync()];
    assert_eq!(ask(&mut session, &one_more).await, ["E 54000", "Z E"], "{name}: one more statement");
    assert_eq!(ask(&mut session, &[query("commit")]).await, ["C ROLLBACK", "Z I"], "{name}: it failed there too");
    assert_eq!(chain.query(&chain.person(), COUNT).await, "0", "{name}");
    let portal = [bind("one more", "s7"), sync()];
    assert_eq!(ask(&mut session, &portal).await, ["E 54000", "Z I"], "{name}: a portal is a name as well");
    let unnamed = |text| [parse("", text), bind("", ""), execute(""), sync()];
    assert_eq!(ask(&mut session, &unnamed("select 1")).await, ["1", "2", "D", "C SELECT 1", "Z I"], "{name}: it lives");

    let close = [message(b'C', b"Ss7\0"), sync()];
    assert_eq!(ask(&mut session, &close).await, ["3", "Z I"]);
    assert_eq!(ask(&mut session, &one_more).await, ["1", "Z I"], "{name}: a Close makes room for one");
    assert_eq!(ask(&mut session, &[parse("another", ""), sync()]).await, ["E 54000", "Z I"], "{name}");

    let begun = Instant::now();
    let all: &[Vec<u8>] = if name == "18" { &[query("discard all")] } else { &unnamed("deallocate all") };
    let answers = ask(&mut session, all).await;
    let (gone, peak) = (begun.elapsed(), chain.proxy.peak_memory());
    assert!(answers.iter().any(|answer| answer.ends_with(" ALL")), "{name}: {answers:?}");
    assert_eq!(ask(&mut session, &[parse("another", ""), sync()]).await, ["1", "Z I"], "{name}: there is room again");
    assert_eq!(value(&mut session, "select count(*) from pg_prepared_statements where name <> ''").await, "1");
    println!(
        "{name}: {LIMIT} names in {took:.0?}, the proxy took {} MiB of {}, the server's process {} MiB; their end took \
         {gone:.1?} and the proxy {} MiB more",
        (filled - before) >> 20,
        filled >> 20,
        server >> 20,
        (peak - filled) >> 20
    );
    assert!(peak - before < PROXY_BYTES, "{name}: the proxy took {} bytes", peak - before);
    session.write_all(&message(b'X', &[])).await.expect("sent");
    drop(session);
    while chain.proxy.get("/metrics").await.expect("metrics").1.contains("\npgpassport_sessions_active 1") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    every_statement_has_its_end(&chain.audit_folder(), name);
}

/// Events that begin and never end, of all records, without holding them.
fn every_statement_has_its_end(folder: &Path, name: &str) {
    let (mut open, mut parsed) = (HashSet::new(), 0);
    let look = |_, record: &[u8]| {
        let record: Value = serde_json::from_slice(record).expect("a record");
        let id = || record["id"].as_str().expect("an id").to_owned();
        match record["event"].as_str() {
            Some("begin") => drop(open.insert(id())),
            Some("end") => {
                assert!(open.contains(&id()), "{name}: it ends and has not begun: {record}");
                parsed += usize::from(record["outcome"] == "parsed");
                if record["final"] == true {
                    open.remove(&id());
                }
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    };
    read::each(folder, look).expect("the log can be read");
    assert!(open.is_empty(), "{name}: {} events have no end", open.len());
    assert!(parsed >= LIMIT - 1, "{name}: {parsed} statements ended as parsed");
}

async fn ask(stream: &mut Raw, messages: &[Vec<u8>]) -> Vec<String> {
    answers::ask_with(stream, messages, says_the_next_step).await
}

fn says_the_next_step(error: &Message) {
    let hint = error.field(b'H').unwrap_or_default();
    assert!(hint.contains("Close prepared statements"), "the next step: {hint}");
    assert!(proto_tests::correlation(&error.field(b'D').unwrap_or_default()).is_some(), "{error:?}");
}

async fn value(stream: &mut Raw, statement: &str) -> String {
    stream.write_all(&query(statement)).await.expect("sent");
    let answers = wire::read_until(stream, b'Z').await;
    let row = answers.iter().find(|answer| answer.tag == b'D').expect("a row");
    String::from_utf8_lossy(&row.body[6..]).into_owned()
}

/// What a process takes, in bytes.
fn memory(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

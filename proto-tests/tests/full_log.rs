//! A log that takes no records in the middle of a session: what is refused fails at PostgreSQL too, nothing around it
//! commits, the session lives, and goes on when there is room again.

use pgpassport::sim::{Fault, Hop};
use proto_tests::answers;
use proto_tests::chain::{Chain, Setup};
use proto_tests::proxy::Limited;
use proto_tests::records::Records;
use proto_tests::script::{bind, execute, parse, query, sync};
use proto_tests::wire::{self, Message, message};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

/// Adds a row that no other session may ever see.
const INSERT: &str = "insert into orders values (9000, 'refused', 1, '2026-11-22')";
const COUNT: &str = "select count(*) from orders where id >= 9000";
/// `lo_creat` (`pg_proc.dat`).
const LO_CREAT: u32 = 957;

async fn start() -> Chain {
    Setup::default().limited(Limited::Later).start().await
}

fn function_call(oid: u32) -> Vec<u8> {
    message(b'F', &[oid.to_be_bytes().as_slice(), &[0; 6]].concat())
}

async fn ask(stream: &mut Raw, messages: &[Vec<u8>]) -> Vec<String> {
    answers::ask_with(stream, messages, explains_itself).await
}

async fn until(stream: &mut Raw, last: u8) -> Vec<String> {
    answers::until_with(stream, last, explains_itself).await
}

fn explains_itself(answer: &Message) {
    if answer.sqlstate() == "53100" {
        assert_eq!(answer.field(b'S').as_deref(), Some("ERROR"), "the session lives");
        assert!(answer.field(b'M').is_some_and(|message| message.contains("audit log")), "{answer:?}");
        assert!(proto_tests::correlation(&answer.field(b'D').unwrap_or_default()).is_some(), "{answer:?}");
        assert!(answer.field(b'H').is_some_and(|hint| hint.contains("ROLLBACK")), "{answer:?}");
        assert_eq!((answer.field(b'P'), answer.field(b'F')), (None, None), "nothing of the server's own error");
    }
}

/// A session in a transaction that has written a row.
async fn in_transaction(chain: &Chain) -> Raw {
    let mut session = chain.session(&chain.app()).await;
    assert_eq!(ask(&mut session, &[query("begin")]).await, ["C BEGIN", "Z T"]);
    assert_eq!(ask(&mut session, &[query(INSERT)]).await, ["C INSERT 0 1", "Z T"]);
    session
}

/// The transaction was aborted at the server, COMMIT takes back, and the session goes on.
async fn nothing_commits(chain: &Chain, session: &mut Raw, what: &str) {
    assert_eq!(ask(session, &[query("commit")]).await, ["E 53100", "Z E"], "{what}: COMMIT needs a record");
    chain.proxy.free_disk();
    assert_eq!(ask(session, &[query("select 1")]).await, ["E 25P02", "Z E"], "{what}: the transaction is aborted");
    assert_eq!(ask(session, &[query("commit")]).await, ["C ROLLBACK", "Z I"], "{what}: nothing is left to commit");
    assert_eq!(ask(session, &[query("select 1")]).await, ["T", "D", "C SELECT 1", "Z I"], "{what}: the session lives");
    assert_eq!(chain.query(&chain.app(), COUNT).await, "0", "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_message_that_is_refused_aborts_its_transaction_and_the_session_lives() {
    let chain = start().await;
    for (what, before, refused) in [
        ("Q", vec![], vec![query(INSERT)]),
        (
            "Q of several",
            vec![],
            vec![query("select 1; insert into orders values (9001, 'x', 1, '2026-11-22'); commit")],
        ),
        ("P", vec![], vec![parse("", INSERT), bind("", ""), execute(""), sync()]),
        ("P of a name", vec![], vec![parse("s", INSERT), sync()]),
        ("B", vec![parse("b", INSERT), sync()], vec![bind("", "b"), execute(""), sync()]),
        ("E", vec![parse("e", INSERT), bind("p", "e"), sync()], vec![execute("p"), sync()]),
        ("F", vec![], vec![function_call(LO_CREAT)]),
    ] {
        println!("{what}");
        let mut session = in_transaction(&chain).await;
        if !before.is_empty() {
            let answers = ask(&mut session, &before).await;
            assert!(!answers.iter().any(|answer| answer.starts_with('E')), "{what}: {answers:?}");
        }
        chain.proxy.fill_disk(&chain.segment_path());
        assert_eq!(ask(&mut session, &refused).await, ["E 53100", "Z E"], "{what}");
        nothing_commits(&chain, &mut session, what).await;
    }
    assert!(!chain.database_log().contains("values (9001"), "a refused text reached the database");
    let records = chain.records();
    assert_eq!(records.began(INSERT).with("stage", "query").len(), 7, "one for each session, none that was refused");
    assert_eq!(records.of("gap").iter().map(|gap| gap["refused"].as_u64().unwrap()).sum::<u64>(), 7 + 2 + 1 + 7);
    // The process's own log says when it began and when it was over, and nothing of each message.
    let told = chain.proxy.output();
    for (what, times) in [
        ("the audit log does not take the session's lines", 7),
        ("refusing messages", 7),
        ("the audit log takes the session's lines again", 7),
    ] {
        assert_eq!(told.matches(what).count(), times, "{what}: {told}");
    }
}

/// Data is not recorded by itself; what shows that the log takes nothing is a record that it has refused, whosever it is.
#[tokio::test(flavor = "multi_thread")]
async fn copy_data_that_is_refused_fails_the_copy() {
    let chain = start().await;
    let mut session = in_transaction(&chain).await;
    let ahead = [query("select pg_sleep(1)"), query("copy orders from stdin")];
    session.write_all(&ahead.concat()).await.expect("sent");
    chain.records_when("the COPY's begin", |records| !records.began("copy orders from stdin").is_empty()).await;
    chain.proxy.fill_disk(&chain.segment_path());
    assert_eq!(until(&mut session, b'G').await, ["T", "D", "C SELECT 1", "Z T", "G"]);
    // The end of the first waits for the log, which is asked within a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let row = message(b'd', b"9002\tcopied\t1\t2026-11-22\n");
    let data = [row.clone(), row, message(b'c', &[])];
    assert_eq!(ask(&mut session, &data).await, ["E 53100", "Z E"]);
    nothing_commits(&chain, &mut session, "d").await;
    let records = chain.records();
    let copy = records.began("copy orders from stdin");
    let end = records.end_of(copy.only());
    assert_eq!((end["outcome"].as_str(), end["sqlstate"].as_str()), (Some("refused"), Some("53100")));
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_passes_a_full_log_and_the_gap_is_recorded_when_there_is_room() {
    let chain = start().await;
    let mut session = in_transaction(&chain).await;
    chain.proxy.fill_disk(&chain.segment_path());
    for refused in ["commit", "end;", "rollback; select 1", "rollback and chain", "select 1"] {
        assert_eq!(ask(&mut session, &[query(refused)]).await, ["E 53100", "Z E"], "{refused}");
    }
    assert_eq!(ask(&mut session, &[query(" RollBack ;")]).await, ["C ROLLBACK", "Z I"]);
    let rollback = [parse("", "abort"), bind("", ""), execute(""), sync()];
    assert_eq!(ask(&mut session, &rollback).await, ["1", "2", "N", "C ROLLBACK", "Z I"]);
    assert_eq!(ask(&mut session, &[query("select 1")]).await, ["E 53100", "Z I"]);
    let (_, metrics) = chain.proxy.get("/metrics").await.expect("metrics");
    for line in
        ["pgpassport_messages_refused_total{sqlstate=\"53100\"} 6", "pgpassport_messages_passed_unrecorded_total 4"]
    {
        assert!(metrics.lines().any(|have| have == line), "{line} is missing from:\n{metrics}");
    }
    chain.proxy.free_disk();
    assert_eq!(chain.query(&chain.app(), COUNT).await, "0");
    assert_eq!(ask(&mut session, &[query("select 2")]).await, ["T", "D", "C SELECT 1", "Z I"]);
    let records = chain.records_when("every end", |records| records.open().is_empty()).await;
    let gaps = records.of("gap");
    let gap = gaps.only();
    assert_eq!((gap["refused"].as_u64(), gap["passed"].as_u64(), gap["lost"].as_u64()), (Some(6), Some(4), Some(0)));
    assert!(records.open().is_empty(), "{:#?}", records.open());
}

/// Not even the reserve takes anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_passes_unrecorded_where_its_rule_says_so_and_is_counted() {
    let (name, choice) = ("name = \"orders-app\"\n", "name = \"orders-app\"\ncommit_unrecorded = true\n");
    let chain = Setup::default().replace(name, choice).limited(Limited::Later).start().await;
    let mut session = in_transaction(&chain).await;
    chain.proxy.fill_disk(&chain.segment_path());
    assert_eq!(ask(&mut session, &[query("Commit;")]).await, ["C COMMIT", "Z I"]);
    assert_eq!(ask(&mut session, &[query(INSERT)]).await, ["E 53100", "Z I"], "nothing else passes");
    let mixed = [parse("", "end"), bind("", ""), execute(""), sync(), query("commit and chain")];
    assert_eq!(ask(&mut session, &mixed).await, ["1", "2", "N", "C COMMIT", "Z I"]);
    assert_eq!(until(&mut session, b'Z').await, ["E 53100", "Z I"], "only the whole word does");
    chain.proxy.free_disk();
    assert_eq!(chain.query(&chain.person(), COUNT).await, "1", "it has committed");
    assert_eq!(ask(&mut session, &[query("select 1")]).await, ["T", "D", "C SELECT 1", "Z I"]);
    let records = chain.records();
    let gaps = records.of("gap");
    let gap = gaps.only();
    let counted = ["refused", "passed", "commits"].map(|member| gap[member].as_u64().unwrap());
    assert_eq!(counted, [2, 4, 4]);
    let told = |rule: &str| records.of("session_start").with("rule", rule).only()["commit_unrecorded"].clone();
    assert_eq!((told("orders-app"), told("orders-people")), (true.into(), serde_json::Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_with_a_refusal_skips_to_its_sync_and_commits_nothing() {
    let chain = start().await;
    let mut session = chain.session(&chain.app()).await;
    let execution = |query: &str| vec![parse("", query), bind("", ""), execute("")];
    // One implicit transaction: its first half is recorded and runs, its second half is refused.
    let first = [execution(INSERT), vec![message(b'H', &[])]].concat();
    session.write_all(&first.concat()).await.expect("sent");
    assert_eq!(until(&mut session, b'C').await, ["1", "2", "C INSERT 0 1"]);
    chain.proxy.fill_disk(&chain.segment_path());
    let second = [execution("select 'refused'"), execution("select 'skipped'"), vec![sync()]].concat();
    assert_eq!(ask(&mut session, &second).await, ["E 53100", "Z I"], "one error, and it is ours");
    chain.proxy.free_disk();
    assert_eq!(chain.query(&chain.app(), COUNT).await, "0", "the implicit transaction committed");
    let next = [execution("select 1"), vec![sync()]].concat();
    assert_eq!(ask(&mut session, &next).await, ["1", "2", "D", "C SELECT 1", "Z I"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_error_hides_a_refusal_and_is_not_rewritten() {
    let chain = start().await;
    let mut session = chain.session(&chain.app()).await;
    let slow = "select 1 / length(pg_sleep(1)::text)";
    let first = [parse("", slow), bind("", ""), execute(""), message(b'H', &[])];
    session.write_all(&first.concat()).await.expect("sent");
    let began = |records: &Records| records.messages("execute").len() == 1;
    chain.records_when("the execution", began).await;
    chain.proxy.fill_disk(&chain.segment_path());
    let second = [parse("", INSERT), bind("", ""), execute(""), sync()];
    assert_eq!(ask(&mut session, &second).await, ["1", "2", "E 22012", "Z I"]);
    chain.proxy.free_disk();
    assert_eq!(ask(&mut session, &[query("select 1")]).await, ["T", "D", "C SELECT 1", "Z I"]);
    let records = chain.records();
    let slow = records.began(slow);
    assert_eq!(records.end_of(slow.only())["sqlstate"], "22012", "its end line waited for room");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_the_log_is_full_is_in_it_when_there_is_room() {
    let chain = start().await;
    let mut session = chain.session(&chain.app()).await;
    session.write_all(&query("select pg_sleep(1)")).await.expect("sent");
    chain.records_when("the sleep", |records| !records.began("select pg_sleep(1)").is_empty()).await;
    chain.proxy.fill_disk(&chain.segment_path());
    assert_eq!(until(&mut session, b'Z').await, ["T", "D", "C SELECT 1", "Z I"]);
    session.write_all(&message(b'X', &[])).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(chain.records().of("session_end").is_empty());
    chain.proxy.free_disk();
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
    let records = chain.records_when("both ends", |records| records.of("session_end").len() == 2).await;
    assert!(records.open().is_empty(), "{:#?}", records.open());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_keeps_running_for_a_caller_who_is_gone() {
    let chain = Chain::start().await;
    for says_goodbye in [false, true] {
        let mut session = chain.session(&chain.app()).await;
        session.write_all(&query("select pg_sleep(60)")).await.expect("sent");
        let asleep = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)' and state = 'active'";
        let until = |count: &'static str| {
            let chain = &chain;
            async move {
                while chain.query(&chain.app(), asleep).await != count {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        until("1").await;
        let gone = Instant::now();
        if says_goodbye {
            session.write_all(&message(b'X', &[])).await.expect("sent");
        }
        drop(session);
        until("0").await;
        let took = gone.elapsed();
        let limit = if says_goodbye { 10 } else { 4 };
        assert!(took < Duration::from_secs(limit), "said goodbye: {says_goodbye}: {took:?}");
    }
    let ended = |records: &Records| records.of("end").with("outcome", "canceled").len() == 2;
    chain.records_when("both ends, and all others", |records| ended(records) && records.open().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_on_its_way_at_shutdown_is_told_and_has_its_end() {
    let mut chain = Chain::start().await;
    chain.cloud.faults().set(Hop::Sts, Fault::Delay(Duration::from_secs(60)));
    let login = chain.app();
    let mut stream = chain.tls().await.expect("TLS");
    let attempt = tokio::spawn(async move {
        wire::log_in(&mut stream, login.user.as_bytes(), login.database.as_bytes(), &login.password).await
    });
    chain.records_when("the start", |records| !records.of("session_start").is_empty()).await;
    let asked = Instant::now();
    chain.proxy.terminate();
    assert_eq!(attempt.await.expect("joined").expect("an answer").sqlstate(), "57P01");
    let ended = chain.proxy.ended().await;
    assert!(ended.status.success() && asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(chain.records().of("session_end").only()["reason"], "drain");
}

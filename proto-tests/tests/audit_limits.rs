//! `audit_mib_per_day`: one caller does not fill the log's disk. What is over it fails at the database too and gets no
//! record of its own; other callers are not hit.

use proto_tests::answers;
use proto_tests::chain::{Chain, Setup};
use proto_tests::records::recorded_bytes;
use proto_tests::script::{bind, execute, parse, query, sync};
use proto_tests::wire::{self, Message};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

const RULE: &str = "orders-app";
const INSERT: &str = "insert into orders values (9000, 'kept', 1, '2026-11-22')";
const COUNT: &str = "select count(*) from orders where id >= 9000";
const MIB: u64 = 1 << 20;

async fn ask(stream: &mut Raw, messages: &[Vec<u8>]) -> Vec<String> {
    answers::ask_with(stream, messages, says_the_next_step).await
}

fn says_the_next_step(error: &Message) {
    let hint = error.field(b'H').unwrap_or_default();
    assert!(error.sqlstate() != "53400" || hint.contains("audit_mib_per_day"), "the next step: {hint}");
}

/// What records take of the disk, in bytes.
fn recorded(chain: &Chain) -> u64 {
    recorded_bytes(&chain.segment_path())
}

fn long(n: u64) -> Vec<u8> {
    query(&format!("select {n} /* {} */", "x".repeat(60_000)))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_callers_records_are_bounded_and_nobody_elses_are_hit() {
    let chain = Setup::default().limits(RULE, "audit_mib_per_day = 1").start().await;
    let (mut first, mut second) = (chain.session(&chain.app()).await, chain.session(&chain.app()).await);
    assert_eq!(ask(&mut first, &[query("begin")]).await, ["C BEGIN", "Z T"]);
    assert_eq!(ask(&mut first, &[query(INSERT)]).await, ["C INSERT 0 1", "Z T"]);
    // Two sessions share what one has: less than twenty of these.
    let mut ran = 0;
    while ask(&mut second, &[long(ran)]).await != ["E 53400", "Z I"] {
        ran += 1;
        assert!(ran < 20, "a MiB has no end");
    }
    assert!(ran > 10, "{ran} of 60 KiB are no MiB");

    // Over it nothing runs and nothing is recorded, in either protocol.
    let before = recorded(&chain);
    for n in 0..40 {
        assert_eq!(ask(&mut second, &[long(n)]).await, ["E 53400", "Z I"]);
    }
    let execution = [parse("", "select 1"), bind("", ""), execute(""), sync()];
    assert_eq!(ask(&mut second, &execution).await, ["E 53400", "Z I"]);
    assert!(recorded(&chain) - before < 2048, "{} bytes of refusals", recorded(&chain) - before);

    // What only ends a transaction passes, and has its record.
    let commit = [parse("", "commit"), bind("", ""), execute(""), sync()];
    assert_eq!(ask(&mut first, &commit).await, ["1", "2", "C COMMIT", "Z I"]);
    assert_eq!(chain.query(&chain.person(), COUNT).await, "1", "another caller is not hit, and it has committed");

    // Until what is kept for that is used up too: then as in a log whose reserve is full.
    let mut rollbacks = 0;
    let mut size = recorded(&chain);
    loop {
        assert_eq!(ask(&mut second, &[query("rollback")]).await, ["N", "C ROLLBACK", "Z I"]);
        rollbacks += 1;
        if std::mem::replace(&mut size, recorded(&chain)) == recorded(&chain) {
            break;
        }
        assert!(rollbacks < 400, "they fill the log");
    }
    assert_eq!(ask(&mut second, &[query("commit")]).await, ["E 53400", "Z I"]);
    assert_eq!(ask(&mut second, &[query("select 1")]).await, ["E 53400", "Z I"]);
    assert!(recorded(&chain) < MIB + MIB / 16 + 256 * 1024, "{} bytes of one caller", recorded(&chain));

    let (_, metrics) = chain.proxy.get("/metrics").await.expect("metrics");
    let line =
        format!("pgpassport_limits_reached_total{{limit=\"audit_mib_per_day\",outcome=\"refused\",rule=\"{RULE}\"}} ");
    let refused: u64 =
        metrics.lines().find_map(|have| have.strip_prefix(&line)).expect("counted").parse().expect("a count");
    assert_eq!(refused, 1 + 40 + 3 + 2, "each message of an execution is one");
    assert!(metrics.contains("pgpassport_messages_passed_unrecorded_total 1\n"), "{metrics}");

    second.write_all(&wire::message(b'X', &[])).await.expect("sent");
    let told = |records: &proto_tests::records::Records, member: &str| -> u64 {
        records.of("audit_limit").iter().map(|told| told[member].as_u64().expect("a count")).sum()
    };
    let records = chain.records_when("what had no record", |records| told(records, "refused") == refused).await;
    assert_eq!(told(&records, "passed"), 1);
    drop(first);
    let records = chain.records_when("their ends", |records| records.of("session_end").len() >= 3).await;
    assert!(records.open().is_empty(), "{:#?}", records.open());
    // Coming anew gives nothing back.
    let mut anew = chain.session(&chain.app()).await;
    assert_eq!(ask(&mut anew, &[query("select 1")]).await, ["E 53400", "Z I"]);
}

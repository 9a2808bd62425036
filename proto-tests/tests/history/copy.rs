//! COPY at PostgreSQL: each script runs through the proxy and directly, and no answer may differ by a byte.

use crate::family;
use proto_tests::chain::Chain;
use proto_tests::script::{Step, bind, execute, flush, parse, query, same, send, sync, types};
use proto_tests::wire::{message, text};

#[tokio::test(flavor = "multi_thread")]
async fn published_bugs_of_copy() {
    let mut chain = family!(Chain::start().await, pgbouncer_1023, pgdog_886, pgpool_79, gatewayd_533, xtdb_6079,);
    assert!(chain.proxy.is_alive());
    let records = chain.records_when("every session's end", |records| {
        records.of("session_end").len() == records.of("session_start").len()
    });
    let open = records.await.open();
    assert!(open.is_empty(), "{open:#?}");
}

/// Sync behind the Execute of a COPY, before its data: the server reads it as part of the COPY.
async fn pgbouncer_1023(chain: &Chain) {
    let begin =
        [query("create temp table t (a int)"), parse("", "copy t from stdin"), bind("", ""), execute(""), sync()];
    let data = [message(b'd', b"1\n2\n"), message(b'c', &[]), sync(), query("select count(*) from t")];
    let script = [send(&begin), Step::Until(b'G'), send(&data)];
    assert_eq!(types(&same(chain, &script).await), "CZ12GCZTDCZ");
}

/// A COPY that fails before its data, with a Sync in front of the data and one behind.
async fn pgdog_886(chain: &Chain) {
    let begin = [parse("", "copy nowhere from stdin"), bind("", ""), execute(""), sync()];
    let data = [message(b'd', b"1\n"), message(b'c', &[]), sync(), query("select 1")];
    let script = [send(&begin), Step::Until(b'Z'), send(&data)];
    let answers = types(&same(chain, &script).await);
    assert!(answers.ends_with("ZZTDCZ"), "{answers}");
}

/// Flush and Sync within COPY FROM STDIN, each way to run it.
async fn pgpool_79(chain: &Chain) {
    let begin = [query("create temp table t (a int)"), query("copy t from stdin")];
    let data = [message(b'd', b"1\n"), flush(), message(b'd', b"2\n"), sync(), flush(), message(b'c', &[])];
    let script =
        [send(&begin), Step::Until(b'G'), send(&data), Step::Until(b'Z'), send(&[query("select sum(a) from t")])];
    assert_eq!(types(&same(chain, &script).await), "CZGCZTDCZ");
}

/// COPY of some megabytes, in and out again, in pieces that fit nothing.
async fn gatewayd_533(chain: &Chain) {
    let row = format!("{}\n", "r".repeat(997));
    let data: Vec<Vec<u8>> = row
        .repeat(5_000)
        .as_bytes()
        .chunks(7_001)
        .map(|piece| message(b'd', piece))
        .chain([message(b'c', &[])])
        .collect();
    let script = [
        send(&[query("create temp table t (a text)"), query("copy t from stdin")]),
        Step::Until(b'G'),
        send(&data),
        Step::Until(b'Z'),
        send(&[query("copy t to stdout")]),
    ];
    let answers = same(chain, &script).await;
    let rows = answers.iter().filter(|answer| answer.tag == b'd').count();
    assert_eq!(rows, 5_000);
}

/// COPY's messages outside COPY are read and answered by nothing.
async fn xtdb_6079(chain: &Chain) {
    let stray = [message(b'f', &text("no")), message(b'c', &[]), message(b'd', b"1\n"), message(b'f', &[])];
    let script = [send(&stray), send(&[query("select 1")]), send(&stray), send(&[sync()])];
    assert_eq!(types(&same(chain, &script).await), "TDCZZ");
}

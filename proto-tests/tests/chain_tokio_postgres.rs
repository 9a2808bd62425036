//! tokio-postgres through the whole chain: the extended protocol, COPY, cancel, large values.

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt, pin_mut};
use pgpassport::sim::Endpoint;
use proto_tests::chain::Chain;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The largest single value of the tests, in bytes.
const LARGE: usize = 20 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn parameters_arrive_and_rows_return() {
    let chain = Chain::start().await;
    let session = chain.connect(&chain.app()).await;
    let row = session
        .client
        .query_one(
            "select $1::int + 1, $2::text, $3::bytea, $4::float8, $5::int is null",
            &[&41_i32, &"grüße '*/ --", &[0_u8, 1, 255].as_slice(), &0.5_f64, &None::<i32>],
        )
        .await
        .expect("a row");
    assert_eq!(row.get::<_, i32>(0), 42);
    assert_eq!(row.get::<_, &str>(1), "grüße '*/ --");
    assert_eq!(row.get::<_, &[u8]>(2), [0, 1, 255]);
    assert!((row.get::<_, f64>(3) - 0.5).abs() < f64::EPSILON);
    assert!(row.get::<_, bool>(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_serves_a_hundred_executions_and_each_is_one_event() {
    const TEXT: &str = "select $1::int * 2 as doubled_a_hundred_times";
    let chain = Chain::start().await;
    let session = chain.connect(&chain.app()).await;
    let statement = session.client.prepare(TEXT).await.expect("prepared");
    for n in 0..100_i32 {
        let row = session.client.query_one(&statement, &[&n]).await.expect("a row");
        assert_eq!(row.get::<_, i32>(0), 2 * n);
    }
    let ended = |outcome: &'static str| {
        move |records: &proto_tests::records::Records| {
            records
                .began(TEXT)
                .iter()
                .filter(|begin| {
                    records.of("end").with("id", begin["id"].as_str().unwrap()).with("outcome", outcome).len() == 1
                })
                .count()
        }
    };
    let records = chain.records_when("100 executions", |records| ended("ok")(records) == 100).await;
    assert_eq!(records.messages("parse").with("text", TEXT).len(), 1, "parsed once");
    assert_eq!(records.messages("execute").len(), 100);
    assert_eq!(ended("error")(&records), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_commit_and_roll_back() {
    let chain = Chain::start().await;
    let mut session = chain.connect(&chain.app()).await;
    let client = &mut session.client;
    client.batch_execute("create temp table kept (n int)").await.expect("a table");
    for (commit, n) in [(true, 1), (false, 2)] {
        let transaction = client.transaction().await.expect("begun");
        transaction.execute("insert into kept values ($1)", &[&n]).await.expect("inserted");
        let seen: i64 = transaction.query_one("select count(*) from kept", &[]).await.expect("counted").get(0);
        assert_eq!(seen, i64::from(n));
        if commit {
            transaction.commit().await.expect("committed");
        } else {
            transaction.rollback().await.expect("rolled back");
        }
    }
    let failing = client.transaction().await.expect("begun");
    assert!(failing.execute("insert into kept select 1 / 0", &[]).await.is_err());
    let aborted = failing.query("select 1", &[]).await.expect_err("the transaction is aborted");
    assert_eq!(aborted.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    failing.rollback().await.expect("rolled back");
    let kept: Vec<i32> = client.query("select n from kept", &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn error_positions_count_in_the_clients_own_text() {
    let chain = Chain::start().await;
    let session = chain.connect(&chain.app()).await;
    for (text, wrong) in [
        ("select nope", "nope"),
        ("nonsense", "nonsense"),
        ("select 'äöü€', nope from generate_series(1, 3)", "nope"),
        ("select 1;\n  select 'ä',\n  nope", "nope"),
        ("/* of the client's own */ select nope", "nope"),
    ] {
        let byte = text.rfind(wrong).expect("in the text");
        let position = ErrorPosition::Original(u32::try_from(text[..byte].chars().count() + 1).unwrap());
        let simple = session.client.simple_query(text).await.expect_err("an error");
        assert_eq!(simple.as_db_error().expect("of the server").position(), Some(&position), "simple: {text}");
        if !text.contains(';') {
            let extended = session.client.prepare(text).await.expect_err("an error");
            assert_eq!(extended.as_db_error().expect("of the server").position(), Some(&position), "prepared: {text}");
        }
    }
    // An error inside a function has an internal position, which is no position in the client's text.
    let inner = session.client.simple_query("do $$ begin execute 'select nope'; end $$").await.expect_err("an error");
    match inner.as_db_error().expect("of the server").position() {
        Some(ErrorPosition::Internal { position, query }) => {
            assert_eq!((*position, query.as_str()), (8, "select nope"));
        }
        other => panic!("an internal position, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_goes_in_and_out() {
    const ROWS: u32 = 50_000;
    let chain = Chain::start().await;
    let session = chain.connect(&chain.app()).await;
    session.client.batch_execute("create temp table copied (n int, text text)").await.expect("a table");
    let sink = session.client.copy_in("copy copied from stdin").await.expect("copy in");
    pin_mut!(sink);
    let mut sent = 0_u64;
    for chunk in 0..50 {
        let rows: Vec<String> = (0..ROWS / 50).map(|n| format!("{}\trow {n}\n", chunk * (ROWS / 50) + n)).collect();
        let rows = rows.concat();
        sent += rows.len() as u64;
        sink.send(Bytes::from(rows)).await.expect("sent");
    }
    assert_eq!(sink.finish().await.expect("finished"), u64::from(ROWS));
    let out = session.client.copy_out("copy (select * from copied order by n) to stdout").await.expect("copy out");
    let received: Vec<Bytes> = out.try_collect().await.expect("received");
    assert_eq!(received.iter().map(|chunk| chunk.len() as u64).sum::<u64>(), sent);
    let refused = session.client.copy_in::<_, Bytes>("copy copied from stdin").await.expect("copy in");
    drop(refused);
    session.client.simple_query("select 1").await.expect("the session lives on after a CopyFail");

    let records = chain.records_when("COPY", |records| records.began("copy copied from stdin").len() == 2).await;
    let begin = records.began("copy copied from stdin");
    let end = records.end_of(begin.iter().next().unwrap());
    assert_eq!((end["outcome"].as_str(), end["rows"].as_u64()), (Some("ok"), Some(u64::from(ROWS))));
    assert!(end["bytes_in"].as_u64().unwrap() >= sent, "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_a_sleep_within_a_second() {
    let chain = Chain::start().await;
    let session = chain.connect(&chain.app()).await;
    let other = chain.connect(&chain.app()).await;
    let token = session.client.cancel_token();
    let tls = chain.tls().await.expect("TLS");
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let asked = Instant::now();
        token.cancel_query_raw(tls, NoTls).await.expect("the cancel is sent");
        asked
    };
    let (slept, asked) = tokio::join!(session.client.simple_query("select pg_sleep(30)"), cancel);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(slept.expect_err("canceled").code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(chain.calls().count(Endpoint::InstanceCancel), 1);
    // Nobody else was hit, and the session lives on.
    for client in [&session.client, &other.client] {
        client.simple_query("select 1").await.expect("alive");
    }
    let records = chain.records_when("the cancel", |records| !records.of("cancel").is_empty()).await;
    assert_eq!(records.of("cancel").only()["outcome"], "forwarded");
    let begin = records.began("select pg_sleep(30)");
    assert_eq!(records.end_of(begin.only())["outcome"], "canceled");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_pass_both_ways() {
    let chain = Chain::start().await;
    let session = chain.connect(&chain.app()).await;
    let value: String = (0..LARGE).map(|n| char::from(b'a' + u8::try_from(n * 7 % 26).unwrap())).collect();
    let row = session.client.query_one("select $1::text, length($1::text)", &[&value]).await.expect("a row");
    assert!(row.get::<_, &str>(0) == value, "the parameter came back changed");
    assert_eq!(row.get::<_, i32>(1), i32::try_from(LARGE).unwrap());
    // The same as a literal: the statement itself is large.
    let messages = session.client.simple_query(&format!("select '{value}'")).await.expect("rows");
    let back = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert!(back == Some(value.as_str()), "the literal came back changed");
    let records = chain.records_when("the literal", |records| records.open().is_empty()).await;
    let longest = records.of("begin").iter().filter_map(|begin| begin["text_bytes"].as_u64()).max();
    assert_eq!(longest, Some(LARGE as u64 + "select ''".len() as u64), "the record tells the whole length");
    let kept = records.of("begin").iter().filter_map(|begin| begin["text"].as_str().map(str::len)).max();
    assert!(kept.is_some_and(|kept| kept <= 64 * 1024), "the record keeps at most 64 KiB of a text, not {kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_reach_an_idle_client() {
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    stream.write_all(&proto_tests::wire::message(b'Q', &proto_tests::wire::text("listen news"))).await.unwrap();
    proto_tests::wire::read_until(&mut stream, b'Z').await;
    let speaker = chain.connect(&chain.app()).await;
    speaker.client.simple_query("notify news, 'something'").await.expect("notified");
    let message = proto_tests::wire::read(&mut stream).await.expect("a message while idle");
    assert_eq!(message.tag, b'A', "{message:?}");
}

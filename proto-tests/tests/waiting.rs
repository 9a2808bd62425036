//! Logins that wait, for their rule's turn or for Google: they are in nobody's way, and end as soon as the client leaves.

use pgpassport::sim::world::{ANALYST, Person};
use pgpassport::sim::{Endpoint, Fault, Hop, TokenSpec};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;
use proto_tests::records::Records;
use proto_tests::refusal::{Expected, check};
use proto_tests::script::query;
use proto_tests::wire;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Long enough that nothing here ends because it was waited out.
const LINE: &str = "sessions = 1, logins_over = \"wait\", logins_wait = \"5m\"";

/// Somebody else of the same rule, who may use the same database user.
fn colleague(chain: &Chain, number: u8) -> Login {
    let object_id: &'static str = format!("5b1f0f5e-6f0a-4a55-8f2b-0c3d6d1f7a{number:02}").leak();
    chain.login(ANALYST.upn, &TokenSpec::person(&Person { object_id, ..ANALYST }))
}

/// A client that has sent its token and has no answer yet.
async fn sent(chain: &Chain, login: &Login) -> TlsStream<TcpStream> {
    let mut stream = chain.tls().await.expect("TLS");
    let names: [(&[u8], &[u8]); 2] = [(b"user", login.user.as_bytes()), (b"database", login.database.as_bytes())];
    stream.write_all(&wire::startup(&names)).await.expect("sent");
    let asked = wire::read(&mut stream).await.expect("an answer");
    assert_eq!((asked.tag, asked.body.as_slice()), (b'R', [0, 0, 0, 3].as_slice()));
    stream.write_all(&wire::message(b'p', &wire::text(&login.password))).await.expect("sent");
    stream
}

/// The same, who is surely in line by now.
async fn in_line(chain: &Chain, login: &Login) -> TlsStream<TcpStream> {
    let mut stream = sent(chain, login).await;
    let answer = tokio::time::timeout(Duration::from_secs(1), wire::read(&mut stream)).await;
    assert!(answer.is_err(), "it does not wait: {answer:?}");
    stream
}

async fn left(chain: &Chain, logins: usize) -> Records {
    let gone = |records: &Records| records.of("refused").with("sqlstate", "08006").len() == logins;
    chain.records_when("the record of who left", gone).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_in_no_other_logins_way_and_only_so_many_wait() {
    let limits = "[limits]\nlogins = 2\nlogins_per_address = 2";
    let chain = Setup::default().limits("orders-people", LINE).extra(limits).start().await;
    let first = chain.connect(&chain.person()).await;
    let waiting = [in_line(&chain, &colleague(&chain, 1)).await, in_line(&chain, &colleague(&chain, 2)).await];
    // Every place for logins would be taken, were they still theirs.
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
    let third = colleague(&chain, 3);
    let refused = chain.attempt(&mut chain.tls().await.expect("TLS"), &third).await;
    check(&refused, &third, Expected { sqlstate: "53300", says: "the callers of rule orders-people have 1 sessions" });
    drop(first);
    let [mut one, mut two] = waiting;
    wire::read_until(&mut one, b'Z').await;
    drop(one);
    wire::read_until(&mut two, b'Z').await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_the_line_is_noticed_at_once_and_its_place_is_free() {
    let members = format!("{LINE}, logins_waiting = 1");
    let chain = Setup::default().limits("orders-people", &members).start().await;
    let first = chain.connect(&chain.person()).await;
    let waits = colleague(&chain, 1);
    let asked = chain.calls().count(Endpoint::Sts);
    // A goodbye, an end of TLS, and a connection that is just gone.
    for (number, farewell) in ["terminate", "shutdown", "drop"].into_iter().enumerate() {
        println!("{farewell}");
        let mut gone = in_line(&chain, &waits).await;
        match farewell {
            "terminate" => gone.write_all(&wire::message(b'X', &[])).await.expect("sent"),
            "shutdown" => gone.shutdown().await.expect("shut down"),
            _ => drop(gone.into_inner()),
        }
        let records = left(&chain, number + 1).await;
        let record = records.of("refused");
        let record = record.iter().last().expect("a record");
        assert_eq!((&record["blame"], &record["caller"]["label"]), (&"client".into(), &ANALYST.upn.into()), "{record}");
    }
    // The one place in line is free each time, and the session goes to who is there.
    let mut stays = in_line(&chain, &waits).await;
    drop(first);
    wire::read_until(&mut stays, b'Z').await;
    assert_eq!(chain.calls().count(Endpoint::Sts), asked + 1, "nothing was bought for who had left");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_before_it_is_answered_is_heard_when_it_is() {
    let chain = Setup::default().limits("orders-people", LINE).start().await;
    let first = chain.connect(&chain.person()).await;
    let mut waiting = in_line(&chain, &colleague(&chain, 1)).await;
    // More than is read ahead of time.
    let early = format!("select length('{}')", "x".repeat(40_000));
    waiting.write_all(&[query("select 'early'"), query(&early)].concat()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(first);
    wire::read_until(&mut waiting, b'Z').await;
    for expected in ["early", "40000"] {
        let answers = wire::read_until(&mut waiting, b'Z').await;
        let row = answers.iter().find(|answer| answer.tag == b'D').expect("a row");
        assert!(String::from_utf8_lossy(&row.body).contains(expected), "{row:?}");
    }
    let records = chain.records();
    assert_eq!((records.began("select 'early'").len(), records.began(&early).len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_google_or_the_instance_is_asked_is_noticed_at_once() {
    for (hop, endpoint) in [(Hop::Sts, Endpoint::Sts), (Hop::InstanceLogin, Endpoint::InstanceStartup)] {
        println!("{hop:?}");
        let limits = "sessions = 1";
        let chain = Setup::default().limits("orders-people", limits).start().await;
        chain.query(&chain.app(), "select 'the proxy has what is its own'").await;
        let before = chain.calls().count(endpoint);
        chain.cloud.faults().set(hop, Fault::Delay(Duration::from_secs(8)));
        let leaves = sent(&chain, &chain.person()).await;
        let asked = async {
            while chain.calls().count(endpoint) == before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // A delayed hop may be counted only once it answers.
        let _ = tokio::time::timeout(Duration::from_secs(1), asked).await;
        let begun = Instant::now();
        drop(leaves);
        let records = left(&chain, 1).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "it was noticed after {:?}", begun.elapsed());
        let end = records.of("session_end").with("reason", "client");
        assert!(!end.is_empty(), "the record is closed");
        chain.cloud.faults().clear_all();
        // Its session is free at once.
        assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    }
}

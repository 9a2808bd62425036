//! What becomes of a session when its caller's token expires, and when it has lasted long enough; and that nothing of it
//! keeps running.

use pgpassport::sim::TokenSpec;
use pgpassport::sim::world::ORDERS_APP;
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;
use proto_tests::records::Records;
use proto_tests::wire::{self, Message, message, text};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

/// How long the tokens of these tests are good.
const SHORT: Duration = Duration::from_secs(4);
/// How often the proxy looks, and what a busy machine adds.
const SLACK: Duration = Duration::from_secs(4);

/// A chain whose app rule says these lines.
async fn start(lines: &str) -> Chain {
    Setup::default()
        .replace("authority = ", "leeway = \"0s\"\nauthority = ")
        .replace("name = \"orders-app\"\n", &format!("name = \"orders-app\"\n{lines}\n"))
        .start()
        .await
}

/// The app with a token that ends soon, and when that is.
fn short(chain: &Chain) -> (Login, Instant) {
    let seconds = i64::try_from(SHORT.as_secs()).expect("few");
    (chain.login(ORDERS_APP.database_user, &TokenSpec::app(&ORDERS_APP).lifetime(seconds)), Instant::now() + SHORT)
}

fn query(query: &str) -> Vec<u8> {
    message(b'Q', &text(query))
}

async fn ask(session: &mut Raw, asked: &str) -> Message {
    session.write_all(&query(asked)).await.expect("sent");
    wire::read_until(session, b'Z').await.pop().expect("an answer")
}

/// The session's last word, which says what happened and what to do.
async fn told(session: &mut Raw, what: &str) -> Message {
    let word = timeout(Duration::from_secs(30), wire::read_until(session, b'E')).await.expect("a last word");
    let word = word.last().expect("a last word").clone();
    assert_eq!((word.sqlstate().as_str(), word.field(b'S').as_deref()), ("57P01", Some("FATAL")));
    assert!(word.field(b'M').is_some_and(|message| message.contains(what)), "{word:?}");
    assert!(proto_tests::correlation(&word.field(b'D').unwrap_or_default()).is_some(), "{word:?}");
    word
}

async fn ended(chain: &Chain, reason: &str) -> Records {
    let records = chain.records_when("the end", |records| !records.of("session_end").is_empty()).await;
    let end = records.of("session_end");
    assert_eq!((end.only()["reason"].as_str(), end.only()["sqlstate"].as_str()), (Some(reason), Some("57P01")));
    assert!(records.open().is_empty(), "{:#?}", records.open());
    records
}

/// Nothing that sleeps is left at the server.
async fn nothing_runs(chain: &Chain) {
    let asleep = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)' and state = 'active'";
    let deadline = Instant::now() + Duration::from_secs(5);
    while chain.query(&chain.person(), asleep).await != "0" {
        assert!(Instant::now() < deadline, "it still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_ends_when_its_token_does_and_another_token_gets_another() {
    let chain = start("").await;
    let (login, expires) = short(&chain);
    let mut session = chain.session(&login).await;
    let word = told(&mut session, "expired at").await;
    let at = Instant::now();
    assert!(at >= expires.checked_sub(Duration::from_secs(1)).unwrap() && at < expires + SLACK, "{:?}", at - expires);
    assert!(word.field(b'H').is_some_and(|hint| hint.contains("new access token")), "{word:?}");
    ended(&chain, "grant_expired").await;
    let again = chain.attempt(&mut chain.tls().await.expect("TLS"), &login).await;
    assert_eq!(again.sqlstate(), "28P01", "the same token does no more");
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
    let (_, metrics) = chain.proxy.get("/metrics").await.expect("metrics");
    assert!(metrics.contains("pgpassport_sessions_ended_total{reason=\"grant_expired\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_finished_before_its_session_drains() {
    let chain = start("at_expiry = \"drain\"\nend_grace = \"60s\"").await;
    let (login, expires) = short(&chain);
    let mut session = chain.session(&login).await;
    assert_eq!(ask(&mut session, "begin").await.body, b"T");
    tokio::time::sleep_until((expires + SLACK).into()).await;
    assert_eq!(ask(&mut session, "insert into orders values (9100, 'late', 1, '2026-11-22')").await.body, b"T");
    assert_eq!(ask(&mut session, "commit").await.body, b"I", "the transaction was cut");
    told(&mut session, "expired at").await;
    ended(&chain, "grant_expired").await;
    assert_eq!(chain.query(&chain.app(), "select count(*) from orders where id = 9100").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_past_the_grace_is_cancelled_and_rolled_back() {
    let chain = start("end_grace = \"2s\"").await;
    let (login, expires) = short(&chain);
    let mut session = chain.session(&login).await;
    assert_eq!(ask(&mut session, "begin").await.body, b"T");
    assert_eq!(ask(&mut session, "insert into orders values (9101, 'lost', 1, '2026-11-22')").await.body, b"T");
    session.write_all(&query("select pg_sleep(60)")).await.expect("sent");
    told(&mut session, "expired at").await;
    let at = Instant::now();
    let hard = expires + Duration::from_secs(2);
    assert!(at >= hard.checked_sub(Duration::from_secs(1)).unwrap() && at < hard + SLACK, "{:?}", at - expires);
    let records = ended(&chain, "grant_expired").await;
    let slept = records.began("select pg_sleep(60)");
    assert_eq!(records.end_of(slept.only())["outcome"], "canceled");
    nothing_runs(&chain).await;
    assert_eq!(chain.query(&chain.app(), "select count(*) from orders where id = 9101").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_can_end_sessions_at_once_and_can_keep_them() {
    let chain = start("at_expiry = \"end\"").await;
    let (login, expires) = short(&chain);
    let mut session = chain.session(&login).await;
    session.write_all(&query("select pg_sleep(60)")).await.expect("sent");
    told(&mut session, "expired at").await;
    assert!(Instant::now() < expires + SLACK);
    ended(&chain, "grant_expired").await;
    nothing_runs(&chain).await;

    let chain = start("at_expiry = \"keep\"").await;
    let (login, expires) = short(&chain);
    let mut session = chain.session(&login).await;
    tokio::time::sleep_until((expires + SLACK).into()).await;
    assert_eq!(ask(&mut session, "select 1").await.body, b"I", "it was to go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lasts_as_long_as_its_rule_says_and_others_are_not_hit() {
    let chain = start("at_expiry = \"keep\"\nmax_session = \"2s\"\nend_grace = \"2s\"").await;
    let began = Instant::now();
    let (mut idle, mut busy) = (chain.session(&chain.app()).await, chain.session(&chain.app()).await);
    let mut other = chain.session(&chain.person()).await;
    busy.write_all(&query("select pg_sleep(60)")).await.expect("sent");
    let word = told(&mut idle, "has lasted 2 s").await;
    assert!(word.field(b'H').is_some_and(|hint| hint.contains("max_session")), "{word:?}");
    told(&mut busy, "has lasted 2 s").await;
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    nothing_runs(&chain).await;
    assert_eq!(ask(&mut other, "select 1").await.body, b"I", "another rule's session");
    let lasted = |records: &Records| records.of("session_end").with("reason", "session_length").len() == 2;
    chain.records_when("both ends", lasted).await;
}

//! Cancels: they end what they mean, from whatever connection they come, and nothing else, however many there are.

use pgpassport::sim::{Endpoint, Fault, Hop};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Printed;
use proto_tests::raw::{Key, Raw, until_it_runs};
use proto_tests::wire;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// SQLSTATE of a cancelled statement.
const CANCELED: &str = "57014";
/// Much less than a statement of these tests takes that nobody cancels.
const SOON: Duration = Duration::from_secs(10);

/// Outcomes of the cancels that are recorded, in order.
async fn outcomes(chain: &Chain, count: usize) -> Vec<String> {
    let records = chain.records_when("the cancels", |records| records.of("cancel").len() >= count).await;
    records.of("cancel").iter().map(|record| record["outcome"].as_str().expect("an outcome").to_owned()).collect()
}

/// A counter of `/metrics`.
async fn counted(chain: &Chain, outcome: &str) -> u64 {
    let (_, text) = chain.proxy.get("/metrics").await.expect("metrics");
    let series = format!("pgpassport_cancels_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
}

/// Waits until a cancel has come as far as the instance.
async fn it_has_arrived(chain: &Chain) {
    let began = Instant::now();
    while chain.calls().count(Endpoint::InstanceCancel) == 0 {
        assert!(began.elapsed() < SOON, "the cancel does not arrive");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_psql_ends_a_sleep() {
    const SLEEP: &str = "select pg_sleep(60)";
    let chain = Chain::start().await;
    let mut observer = Raw::log_in(&chain, &chain.app()).await;
    let psql = chain.app().command(chain.cloud.ca_path(), &["-c", SLEEP]).spawn().expect("psql is installed");
    until_it_runs(&mut observer, SLEEP).await;
    let pressed = Instant::now();
    let pid = psql.id().expect("psql runs");
    let interrupted = Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().expect("sh is there");
    assert!(interrupted.success());
    let ended = tokio::time::timeout(SOON, psql.wait_with_output()).await.expect("psql ends soon").expect("psql ends");
    let printed = Printed::of(ended);
    assert!(printed.err.contains("canceling statement due to user request"), "{printed:?}");
    assert!(pressed.elapsed() < SOON, "{:?}", pressed.elapsed());
    assert_eq!(outcomes(&chain, 1).await, ["forwarded"]);
    let records = chain.records_when("the end", |records| records.open().is_empty()).await;
    let begin = records.began(SLEEP);
    let end = records.end_of(begin.only());
    assert_eq!((end["outcome"].as_str(), end["sqlstate"].as_str()), (Some("canceled"), Some(CANCELED)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_heard_in_plaintext_and_over_tls_and_means_one_session() {
    let chain = Chain::start().await;
    let mut observer = Raw::log_in(&chain, &chain.app()).await;
    let mut other = Raw::log_in(&chain, &chain.app()).await;
    other.send("select pg_sleep(8), 'of somebody else'").await;
    for tls in [false, true] {
        let mut session = Raw::log_in(&chain, &chain.app()).await;
        let statement = format!("select pg_sleep(60), {tls}");
        session.send(&statement).await;
        until_it_runs(&mut observer, &statement).await;
        if tls {
            session.key.cancel(chain.tls().await.expect("TLS")).await;
        } else {
            session.key.cancel(chain.tcp().await).await;
        }
        assert_eq!(session.answer().await.unwrap_err(), CANCELED);
        session.query("select 1").await.expect("the session lives on");
    }
    assert_eq!(outcomes(&chain, 2).await, ["forwarded", "forwarded"]);
    assert_eq!(chain.calls().count(Endpoint::InstanceCancel), 2);
    other.answer().await.expect("nobody else was hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_nothing_is_sent_no_cancel() {
    let chain = Chain::start().await;
    let mut session = Raw::log_in(&chain, &chain.app()).await;
    session.key.cancel(chain.tcp().await).await;
    session.query("begin").await.expect("begun");
    session.key.cancel(chain.tcp().await).await;
    session.query("commit").await.expect("committed");
    assert_eq!(outcomes(&chain, 2).await, ["idle", "idle"]);
    assert_eq!(chain.calls().count(Endpoint::InstanceCancel), 0);
    assert_eq!(counted(&chain, "idle").await, 2);
}

/// The instance takes two seconds to pass the cancel on. By then the statement is over and the client has sent the
/// next one, which PostgreSQL's signal would hit.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_sends_after_its_cancel_waits_until_the_signal_is_spent() {
    const SLOW: Duration = Duration::from_secs(2);
    let chain = Chain::start().await;
    let mut observer = Raw::log_in(&chain, &chain.app()).await;
    let mut session = Raw::log_in(&chain, &chain.app()).await;
    chain.cloud.faults().set(Hop::InstanceCancel, Fault::Delay(SLOW));
    session.send("select pg_sleep(1), 'first'").await;
    until_it_runs(&mut observer, "first").await;
    let (key, stream) = (session.key.clone(), chain.tcp().await);
    let cancelled = Instant::now();
    let cancel = tokio::spawn(async move { key.cancel(stream).await });
    it_has_arrived(&chain).await;
    session.answer().await.expect("the first ends by itself before the signal comes");
    assert!(cancelled.elapsed() < SLOW, "too slow a machine to show anything");
    let second = session.query("select pg_sleep(2), 'second'").await;
    assert!(second.is_ok(), "a statement that came after the cancel was hit: {second:?}");
    assert!(cancelled.elapsed() >= SLOW + Duration::from_secs(2), "it did not wait: {:?}", cancelled.elapsed());
    cancel.await.expect("closed");
    assert_eq!(outcomes(&chain, 1).await, ["forwarded"]);
    // The record says when the bytes left: not before the cancel was through.
    let records = chain.records();
    let position = |what: &str| records.iter().position(|record| record.to_string().contains(what)).expect("recorded");
    assert!(position("second") > position("first"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_finds_its_statement_over_is_dropped_and_holds_nobody_up() {
    const SLOW: Duration = Duration::from_secs(6);
    let chain = Chain::start().await;
    let mut observer = Raw::log_in(&chain, &chain.app()).await;
    let mut session = Raw::log_in(&chain, &chain.app()).await;
    chain.cloud.faults().set(Hop::InstanceTls, Fault::Delay(SLOW));
    session.send("select pg_sleep(2), 'first'").await;
    until_it_runs(&mut observer, "first").await;
    let (began, key, stream) = (Instant::now(), session.key.clone(), chain.tcp().await);
    let cancel = tokio::spawn(async move { key.cancel(stream).await });
    session.answer().await.expect("it was never cancelled");
    session.query("select 'second'").await.expect("the next one runs at once");
    assert!(began.elapsed() < SLOW, "it waited for a cancel that is of no use: {:?}", began.elapsed());
    cancel.await.expect("closed");
    assert_eq!(outcomes(&chain, 1).await, ["late"]);
    sleep(SLOW.saturating_sub(began.elapsed())).await;
    assert_eq!(chain.calls().count(Endpoint::InstanceCancel), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_the_instance_leaves_open_ends_the_session() {
    let chain = Setup::default().extra("[deadlines]\ncancel = \"1s\"").start().await;
    let mut observer = Raw::log_in(&chain, &chain.app()).await;
    let mut session = Raw::log_in(&chain, &chain.app()).await;
    chain.cloud.faults().set(Hop::InstanceCancel, Fault::BlackHole);
    session.send("select pg_sleep(3), 'first'").await;
    until_it_runs(&mut observer, "first").await;
    let (key, stream) = (session.key.clone(), chain.tcp().await);
    let cancel = tokio::spawn(async move { key.cancel(stream).await });
    it_has_arrived(&chain).await;
    session.send("select 'never'").await;
    let last = wire::read_until(&mut session.stream, b'E').await.pop().expect("a last word");
    assert_eq!((last.field(b'S').as_deref(), last.sqlstate().as_str()), (Some("FATAL"), "08006"));
    cancel.await.expect("closed");
    assert_eq!(outcomes(&chain, 1).await, ["failed"]);
    let records = chain.records_when("the end", |records| !records.of("session_end").is_empty()).await;
    assert_eq!(records.of("session_end").only()["reason"], "cancel_unanswered");
    assert!(records.began("select 'never'").is_empty(), "bytes that came after the cancel have left");
    assert!(!chain.database_log().contains("'never'"));
    observer.query("select 1").await.expect("nobody else is ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_cancels_hits_neither_others_nor_what_comes_after_it() {
    const VICTIMS: usize = 8;
    const ROUNDS: u64 = 8;
    let chain = Chain::start().await;
    let over = AtomicBool::new(false);
    let bystander = async || {
        let mut session = Raw::log_in(&chain, &chain.app()).await;
        let mut statements = 0;
        while !over.load(Ordering::Relaxed) {
            session.query("select pg_sleep(0.002)").await.expect("nobody cancels a bystander");
            statements += 1;
        }
        statements
    };
    let victim = async |number: u64| {
        let mut session = Raw::log_in(&chain, &chain.app()).await;
        for round in 0..ROUNDS {
            let key = session.key.clone();
            // Busy, just over, or not begun yet: the storm comes at any time.
            let storm = async |late: u64| {
                sleep(Duration::from_millis(late)).await;
                key.cancel(chain.tcp().await).await;
            };
            let working = async {
                let worked = session.query("select pg_sleep(0.004)").await;
                assert!(worked.is_ok() || worked.as_ref().is_err_and(|state| state == CANCELED), "{worked:?}");
            };
            tokio::join!(working, storm((number + round) % 7), storm(round % 5));
            let after = session.query("select pg_sleep(0.004)").await;
            assert!(after.is_ok(), "a cancel was through, and what came after it was hit: {after:?}");
        }
    };
    let bystanders = futures_util::future::join_all((0..4).map(|_| bystander()));
    let victims = async {
        futures_util::future::join_all((0..VICTIMS as u64).map(victim)).await;
        over.store(true, Ordering::Relaxed);
    };
    let (statements, ()) = tokio::join!(bystanders, victims);
    assert!(statements.iter().all(|count| *count > 10), "the bystanders hardly ran: {statements:?}");
    let all = VICTIMS * usize::try_from(ROUNDS).unwrap() * 2;
    let outcomes = outcomes(&chain, all).await;
    let forwarded = outcomes.iter().filter(|outcome| *outcome == "forwarded").count();
    println!("{forwarded} of {all} forwarded");
    assert!(forwarded > 0, "the storm hit nothing: {outcomes:?}");
    assert!(outcomes.iter().all(|outcome| ["forwarded", "idle", "late"].contains(&outcome.as_str())), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sessions_storm_costs_the_instance_few_connections() {
    const STORM: usize = 100;
    let chain = Chain::start().await;
    let mut observer = Raw::log_in(&chain, &chain.app()).await;
    let mut session = Raw::log_in(&chain, &chain.app()).await;
    chain.cloud.faults().set(Hop::InstanceCancel, Fault::Delay(Duration::from_millis(50)));
    let began = Instant::now();
    session.send("select pg_sleep(60), 'stormed'").await;
    until_it_runs(&mut observer, "stormed").await;
    let storm = (0..STORM).map(async |_| session.key.clone().cancel(chain.tcp().await).await);
    futures_util::future::join_all(storm).await;
    let allowed = 20 + 4 * (began.elapsed().as_secs() + 1);
    assert_eq!(session.answer().await.unwrap_err(), CANCELED);
    session.query("select 1").await.expect("the session lives on");
    let limited = counted(&chain, "limited").await;
    assert!(limited >= STORM as u64 - allowed, "{limited} were dropped, {allowed} are allowed");
    assert!(chain.calls().count(Endpoint::InstanceCancel) <= allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_keys_is_slowed_down_and_fills_no_log() {
    const GUESSES: u32 = 400;
    let chain = Setup::default().replace("[audit]\n", "[audit]\nunverified_refusals_per_minute = 10\n").start().await;
    let session = Raw::log_in(&chain, &chain.app()).await;
    let began = Instant::now();
    for guess in 0..GUESSES {
        let wrong = Key { pid: session.key.pid, secret: guess.to_be_bytes().to_vec() };
        wrong.cancel(chain.tcp().await).await;
    }
    let allowed = 256 + 20 * (began.elapsed().as_secs() + 1);
    let (unknown, limited) = (counted(&chain, "unknown").await, counted(&chain, "limited").await);
    assert_eq!(unknown + limited, u64::from(GUESSES), "each was counted");
    assert!(unknown <= allowed && limited > 0, "{unknown} were looked up, {allowed} are allowed");
    let recorded = chain.records().of("cancel").len();
    assert!((1..=20).contains(&recorded), "{recorded} records");
    assert_eq!(chain.calls().count(Endpoint::InstanceCancel), 0);
}

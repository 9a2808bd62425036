//! `[rule.limits]` of logins: each is refused or waits as the rule says, before anything is bought or dialled, and hits nobody else.

use pgpassport::sim::world::{ANALYST, Person};
use pgpassport::sim::{Endpoint, TokenSpec};
use proto_tests::chain::{Chain, HOST, Setup};
use proto_tests::psql::Login;
use proto_tests::refusal::{Expected, check, refused_by_psql, until_let_in};
use proto_tests::wire::{self, Message};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;

const PEOPLE: &str = "orders-people";

/// Somebody else of the same rule, who may use the same database user.
fn colleague(chain: &Chain) -> Login {
    let object_id = "5b1f0f5e-6f0a-4a55-8f2b-0c3d6d1f7a02";
    chain.login(ANALYST.upn, &TokenSpec::person(&Person { object_id, ..ANALYST }))
}

async fn limited(members: &str) -> Chain {
    Setup::default().limits(PEOPLE, members).start().await
}

async fn metric(chain: &Chain, limit: &str, outcome: &str) -> u64 {
    let (_, metrics) = chain.proxy.get("/metrics").await.expect("metrics");
    let series =
        format!("pgpassport_limits_reached_total{{limit=\"{limit}\",outcome=\"{outcome}\",rule=\"{PEOPLE}\"}} ");
    let lines: Vec<&str> = metrics.lines().filter(|line| line.starts_with("pgpassport_limits_reached")).collect();
    assert!(!lines.iter().any(|line| line.contains("analyst") || line.contains(ANALYST.object_id)), "{lines:#?}");
    lines.iter().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().expect("a count"))
}

/// A login that is under way; what became of it, and how long it took.
fn later(chain: &Chain, login: &Login) -> tokio::task::JoinHandle<(Message, Duration)> {
    let (address, ca, login) = (chain.proxy.address(), chain.cloud.ca_path().to_owned(), login.clone());
    tokio::spawn(async move {
        let begun = Instant::now();
        let mut stream = wire::tls(address, &ca, HOST).await.expect("TLS");
        let answer = wire::log_in(&mut stream, login.user.as_bytes(), login.database.as_bytes(), &login.password).await;
        (answer.expect("an answer"), begun.elapsed())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_rule_and_of_each_of_its_callers_are_limited() {
    let chain = limited("sessions = 2, sessions_per_caller = 1").await;
    let own = chain.connect(&chain.person()).await;
    let asked = chain.calls().count(Endpoint::InstanceConnection);
    let says = "this caller has 1 sessions under rule orders-people";
    refused_by_psql(&chain, &chain.person(), Expected { sqlstate: "53300", says }).await;
    assert_eq!(
        chain.calls().count(Endpoint::InstanceConnection),
        asked,
        "the instance was dialled for a login that is over a limit"
    );
    let _other = chain.connect(&colleague(&chain)).await;
    let object_id = "9c1f0f5e-6f0a-4a55-8f2b-0c3d6d1f7a03";
    let third = chain.login(ANALYST.upn, &TokenSpec::person(&Person { object_id, ..ANALYST }));
    let says = "the callers of rule orders-people have 2 sessions";
    let record = refused_by_psql(&chain, &third, Expected { sqlstate: "53300", says }).await;
    assert_eq!(record["blame"], "client", "{record}");
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1", "another rule is not hit");
    own.client.simple_query("select 1").await.expect("those who are there go on");
    assert_eq!(
        (metric(&chain, "sessions", "refused").await, metric(&chain, "sessions_per_caller", "refused").await),
        (1, 1)
    );
    drop(own);
    until_let_in(&chain, &third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_over_a_limit_waits_in_line_as_long_as_the_rule_says() {
    let chain = limited("sessions = 1, logins_over = \"wait\", logins_waiting = 1, logins_wait = \"1m\"").await;
    let first = chain.connect(&chain.person()).await;
    let waiting = later(&chain, &colleague(&chain));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "it waits");
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1", "and nobody else does");
    let says = "the callers of rule orders-people have 1 sessions";
    let one_more = later(&chain, &colleague(&chain)).await.expect("joined");
    check(&one_more.0, &chain.person(), Expected { sqlstate: "53300", says });
    drop(first);
    let (answer, took) = waiting.await.expect("joined");
    assert_eq!(answer.tag, b'Z', "its turn came: {:?}", answer.field(b'M'));
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert_eq!((metric(&chain, "sessions", "waited").await, metric(&chain, "sessions", "refused").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_turn_does_not_come_is_refused_at_the_end_of_its_patience() {
    let chain = limited("sessions = 1, logins_over = \"wait\", logins_wait = \"2s\"").await;
    let _first = chain.connect(&chain.person()).await;
    let (answer, took) = later(&chain, &colleague(&chain)).await.expect("joined");
    let says = "the callers of rule orders-people have 1 sessions";
    check(&answer, &chain.person(), Expected { sqlstate: "53300", says });
    assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&took), "{took:?}");
    assert_eq!((metric(&chain, "sessions", "waited").await, metric(&chain, "sessions", "refused").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_when_the_proxy_leaves() {
    let mut chain = limited("sessions = 1, logins_over = \"wait\", logins_wait = \"5m\"").await;
    let first = chain.connect(&chain.person()).await;
    let waiting = later(&chain, &colleague(&chain));
    tokio::time::sleep(Duration::from_millis(500)).await;
    chain.proxy.terminate();
    assert_eq!(waiting.await.expect("joined").0.sqlstate(), "57P01");
    drop(first);
    assert!(chain.proxy.ended().await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_a_minute_are_limited_for_each_caller() {
    let chain = limited("connects_per_minute = 2").await;
    for _ in 0..2 {
        assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    }
    let asked = chain.calls().count(Endpoint::InstanceConnection);
    let says = "this caller connects more often than 2 times a minute";
    refused_by_psql(&chain, &chain.person(), Expected { sqlstate: "53300", says }).await;
    assert_eq!(
        chain.calls().count(Endpoint::InstanceConnection),
        asked,
        "the instance was dialled for a login that is over a limit"
    );
    assert_eq!(chain.query(&colleague(&chain), "select 1").await, "1", "another caller is not hit");
    assert_eq!(metric(&chain, "connects_per_minute", "refused").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_wait_their_turn_where_the_rule_says_so() {
    let chain = limited("connects_per_minute = 30, logins_over = \"wait\"").await;
    let sessions: Vec<_> = (0..31).map(|_| later(&chain, &chain.person())).collect();
    let mut longest = Duration::ZERO;
    for session in sessions {
        let (answer, took) = session.await.expect("joined");
        assert_eq!(answer.tag, b'Z', "{:?}", answer.field(b'M'));
        longest = longest.max(took);
    }
    assert!(longest >= Duration::from_millis(1500), "the last one waited two seconds for its turn: {longest:?}");
    assert!(metric(&chain, "connects_per_minute", "waited").await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_the_address_that_it_was_used_from_first() {
    let chain = limited("one_address_per_token = true").await;
    let token = chain.person();
    let from = async |address: &str, login: &Login| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{address}:0").parse().expect("an address")).expect("a loopback address");
        let mut socket = socket.connect(chain.proxy.address()).await.expect("the proxy accepts");
        tokio::io::AsyncWriteExt::write_all(&mut socket, &wire::ssl_request()).await.expect("sent");
        wire::expect_consent(&mut socket).await.expect("TLS is offered");
        let mut stream = wire::handshake(socket, chain.cloud.ca_path(), HOST).await.expect("TLS");
        chain.attempt(&mut stream, login).await
    };
    for _ in 0..2 {
        assert_eq!(from("127.0.0.1", &token).await.tag, b'Z');
    }
    let says = "another address";
    let asked = chain.calls().count(Endpoint::InstanceConnection);
    let correlation = check(&from("127.0.0.2", &token).await, &token, Expected { sqlstate: "53300", says });
    assert_eq!(chain.calls().count(Endpoint::InstanceConnection), asked, "the instance was dialled");
    let record = chain.refusal(&correlation).await;
    assert!(record["caller"]["object_id"] == ANALYST.object_id && record["client"].as_str().is_some(), "{record}");
    assert_eq!(from("127.0.0.1", &token).await.tag, b'Z', "its first address goes on");
    assert_eq!(from("127.0.0.2", &chain.person()).await.tag, b'Z', "a new token may be used from there");
    assert_eq!(from("127.0.0.3", &chain.app()).await.tag, b'Z');
    assert_eq!(metric(&chain, "one_address_per_token", "refused").await, 1);
}

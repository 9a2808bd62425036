//! `[rule.limits]` of what sessions do: statements, bytes, idle transactions. What is over waits or fails at the database
//! too; answers, cancels and ends go on; other callers are not hit.

use pgpassport::sim::world::ORDERS_APP;
use proto_tests::answers;
use proto_tests::chain::{Chain, Setup};
use proto_tests::script::{self, Step, bind, execute, parse, query, sync};
use proto_tests::wire::{self, Message, message};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

const RULE: &str = "orders-app";
/// Adds a row that no other session may ever see.
const INSERT: &str = "insert into orders values (9000, 'refused', 1, '2026-11-22')";
const COUNT: &str = "select count(*) from orders where id >= 9000";
/// `lo_creat` (`pg_proc.dat`).
const LO_CREAT: u32 = 957;

async fn limited(members: &str) -> Chain {
    Setup::default().limits(RULE, members).start().await
}

async fn ask(stream: &mut Raw, messages: &[Vec<u8>]) -> Vec<String> {
    answers::ask_with(stream, messages, lets_the_session_live).await
}

fn lets_the_session_live(error: &Message) {
    assert_eq!(error.field(b'V').as_deref(), Some("ERROR"), "the session lives: {error:?}");
    assert!(error.field(b'H').is_some() && error.field(b'P').is_none(), "{error:?}");
}

async fn metric(chain: &Chain, limit: &str, outcome: &str) -> u64 {
    let (_, metrics) = chain.proxy.get("/metrics").await.expect("metrics");
    let series = format!("pgpassport_limits_reached_total{{limit=\"{limit}\",outcome=\"{outcome}\",rule=\"{RULE}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().expect("a count"))
}

const ONE: [&str; 4] = ["T", "D", "C SELECT 1", "Z I"];

#[tokio::test(flavor = "multi_thread")]
async fn statements_over_the_limit_wait_in_all_sessions_of_the_caller_and_nobody_elses() {
    let chain = limited("statements_per_second = 5, statements_burst = 2").await;
    let mut sessions = [chain.session(&chain.app()).await, chain.session(&chain.app()).await];
    let begun = Instant::now();
    for _ in 0..6 {
        for session in &mut sessions {
            assert_eq!(ask(session, &[query("select 1")]).await, ONE);
        }
    }
    let took = begun.elapsed();
    assert!((Duration::from_millis(1950)..Duration::from_secs(8)).contains(&took), "ten fifths of a second: {took:?}");
    let pipeline = [parse("", "select 1"), bind("", ""), execute(""), execute(""), execute(""), sync()];
    let begun = Instant::now();
    assert_eq!(
        ask(&mut sessions[0], &pipeline).await,
        ["1", "2", "D", "C SELECT 1", "C SELECT 0", "C SELECT 0", "Z I"]
    );
    assert!(begun.elapsed() >= Duration::from_millis(350), "each Execute is one: {:?}", begun.elapsed());
    assert!(metric(&chain, "statements_per_second", "waited").await >= 10);
    let mut other = chain.session(&chain.person()).await;
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(&mut other, &[query("select 1")]).await, ONE);
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "another caller is not hit: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_statements_in_one_query_are_as_many_statements() {
    let chain = limited("statements_per_second = 5, statements_burst = 1").await;
    let mut session = chain.session(&chain.app()).await;
    let begun = Instant::now();
    let answers = ask(&mut session, &[query(&"set local work_mem = '1MB';".repeat(15))]).await;
    assert_eq!(answers.iter().filter(|answer| *answer == "C SET").count(), 15);
    let (first, mut other) = (begun.elapsed(), chain.session(&chain.app()).await);
    assert!(first < Duration::from_secs(2), "one message is let in as one: {first:?}");
    assert_eq!(ask(&mut other, &[query("select 1")]).await, ONE);
    let took = begun.elapsed();
    assert!((Duration::from_millis(2900)..Duration::from_secs(10)).contains(&took), "fifteen fifths: {took:?}");

    let chain = limited("statements_per_second = 1, statements_burst = 3, statements_over = \"refuse\"").await;
    let mut session = chain.session(&chain.app()).await;
    ask(&mut session, &[query("select 1; select 2; select 3; select 4; select 5")]).await;
    assert_eq!(ask(&mut session, &[query("select 1")]).await, ["E 53400", "Z I"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_means_what_runs_or_else_what_waits() {
    let chain = limited("statements_per_second = 1").await;
    let session = chain.connect(&chain.app()).await;
    let token = session.client.cancel_token();
    let cancel = async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query_raw(chain.tls().await.expect("TLS"), NoTls).await.expect("the cancel is sent");
    };
    let begun = Instant::now();
    let (slept, ()) = tokio::join!(session.client.simple_query("select pg_sleep(30)"), cancel());
    assert_eq!(slept.expect_err("canceled").code(), Some(&SqlState::QUERY_CANCELED));
    // Its turn would be a second after the first one's.
    let (inserted, ()) = tokio::join!(session.client.simple_query(INSERT), cancel());
    let error = inserted.expect_err("canceled");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(session.client.query_one(COUNT, &[]).await.expect("the session lives").get::<_, i64>(0), 0);
    let records = chain.records_when("both cancels", |records| records.of("cancel").len() == 2).await;
    let outcomes: Vec<_> = records.of("cancel").iter().map(|cancel| cancel["outcome"].clone()).collect();
    assert_eq!(outcomes, ["forwarded", "withdrawn"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_statement_leaves_nothing_of_its_transaction() {
    let chain = limited("statements_per_second = 1, statements_burst = 3, statements_over = \"refuse\"").await;
    for (what, refused) in [
        ("Q", vec![query(INSERT)]),
        ("Q of several", vec![query("insert into orders values (9001, 'x', 1, '2026-11-22'); commit")]),
        ("E", vec![parse("", INSERT), bind("", ""), execute(""), sync()]),
        ("F", vec![message(b'F', &[LO_CREAT.to_be_bytes().as_slice(), &[0; 6]].concat())]),
    ] {
        println!("{what}");
        tokio::time::sleep(Duration::from_millis(3100)).await;
        let mut session = chain.session(&chain.app()).await;
        assert_eq!(ask(&mut session, &[query("begin")]).await, ["C BEGIN", "Z T"]);
        assert_eq!(ask(&mut session, &[query(INSERT)]).await, ["C INSERT 0 1", "Z T"]);
        assert_eq!(ask(&mut session, &[query("select 1")]).await, ["T", "D", "C SELECT 1", "Z T"]);
        let answers = ask(&mut session, &refused).await;
        assert_eq!(answers[answers.len() - 2..], ["E 53400", "Z E"], "{what}: {answers:?}");
        assert_eq!(ask(&mut session, &[query("commit")]).await, ["E 53400", "Z E"], "{what}: COMMIT is over it too");
        tokio::time::sleep(Duration::from_millis(2100)).await;
        assert_eq!(ask(&mut session, &[query("commit")]).await, ["C ROLLBACK", "Z I"], "{what}: nothing is left of it");
        assert_eq!(ask(&mut session, &[query("select 1")]).await, ONE, "{what}: the session lives");
        // A ROLLBACK is never refused: it waits.
        let begun = Instant::now();
        assert_eq!(ask(&mut session, &[query("rollback")]).await, ["N", "C ROLLBACK", "Z I"]);
        assert!(begun.elapsed() < Duration::from_secs(3));
        assert_eq!(chain.query(&chain.person(), COUNT).await, "0", "{what}");
    }
    assert_eq!(metric(&chain, "statements_per_second", "refused").await, 8);
    assert!(!chain.database_log().contains("values (9001"), "a refused text reached the database");
    // How the last statement ended is written within a second.
    let records = chain.records_when("every end", |records| records.open().is_empty()).await;
    let ends = records.of("end").with("outcome", "refused");
    assert!(ends.len() == 8 && ends.iter().all(|end| end["sqlstate"] == "53400"), "{ends:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_over_the_limit_wait_in_both_directions_and_arrive_whole() {
    let chain = limited("bytes_per_second = 500_000, bytes_burst = 100_000").await;
    let mut session = chain.session(&chain.app()).await;
    let begun = Instant::now();
    session.write_all(&query("select repeat('x', 1000000)")).await.expect("sent");
    let answers = wire::read_until(&mut session, b'Z').await;
    let took = begun.elapsed();
    assert!(answers.iter().any(|answer| answer.tag == b'D' && answer.body.len() > 1_000_000));
    assert!((Duration::from_millis(1500)..Duration::from_secs(10)).contains(&took), "a megabyte down: {took:?}");
    let begun = Instant::now();
    let row = message(b'd', format!("9100\t{}\t1\t2026-11-22\n", "y".repeat(1_000_000)).as_bytes());
    let copy = [query("begin"), query("copy orders from stdin"), row, message(b'c', &[]), query("rollback")];
    session.write_all(&copy.concat()).await.expect("sent");
    let mut commands = Vec::new();
    while commands.len() < 3 {
        let answer = wire::read(&mut session).await.expect("an answer");
        assert_ne!(answer.tag, b'E', "{answer:?}");
        if answer.tag == b'C' {
            commands.push(String::from_utf8_lossy(&answer.body).trim_end_matches('\0').to_owned());
        }
    }
    assert_eq!(commands, ["BEGIN", "COPY 1", "ROLLBACK"]);
    let took = begun.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(10)).contains(&took), "a megabyte up: {took:?}");
    assert!(metric(&chain, "bytes_per_second", "waited").await > 5);
    let begun = Instant::now();
    assert_eq!(chain.query(&chain.person(), "select length(repeat('x', 3000000))").await, "3000000");
    assert_eq!(chain.query(&chain.person(), "select repeat('x', 3000000)").await.len(), 3_000_000);
    assert!(begun.elapsed() < Duration::from_secs(4), "another caller is not hit: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_over_the_limit_refuse_the_next_statement_where_the_rule_says_so() {
    let chain = limited("bytes_per_second = 70_000, bytes_over = \"refuse\"").await;
    let mut session = chain.session(&chain.app()).await;
    assert_eq!(ask(&mut session, &[query("begin")]).await, ["C BEGIN", "Z T"]);
    assert_eq!(ask(&mut session, &[query(INSERT)]).await, ["C INSERT 0 1", "Z T"]);
    session.write_all(&query("select repeat('x', 300000)")).await.expect("sent");
    assert_eq!(wire::read_until(&mut session, b'Z').await.last().map(|last| last.body.clone()), Some(b"T".to_vec()));
    assert_eq!(ask(&mut session, &[query("commit")]).await, ["E 53400", "Z E"]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ask(&mut session, &[query("commit")]).await, ["C ROLLBACK", "Z I"]);
    assert_eq!(chain.query(&chain.person(), COUNT).await, "0");
    assert!(metric(&chain, "bytes_per_second", "refused").await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_transaction_ends_as_postgresql_ends_it() {
    let chain = limited("idle_in_transaction = \"700ms\"").await;
    let mut idle = chain.session(&chain.app()).await;
    // Neither a session without a transaction nor one that works is idle in one.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let script = [query("begin"), query(INSERT), query("select pg_sleep(1.2)")];
    assert_eq!(ask(&mut idle, &script[..1]).await, ["C BEGIN", "Z T"]);
    assert_eq!(ask(&mut idle, &script[1..2]).await, ["C INSERT 0 1", "Z T"]);
    assert_eq!(ask(&mut idle, &script[2..]).await, ["T", "D", "C SELECT 1", "Z T"]);
    let told = script::to_end(&mut idle).await;
    let [fatal] = told.as_slice() else { panic!("one last word: {told:?}") };
    let mut direct = script::direct(&chain).await;
    let own = [query("set idle_in_transaction_session_timeout = '100ms'"), query("begin")];
    let steps = [Step::Send(own.concat()), Step::Until(b'Z'), Step::Until(b'Z'), Step::Until(b'E')];
    let own = script::run(&mut direct, &steps).await;
    let own = own.iter().find(|message| message.tag == b'E').expect("PostgreSQL's own");
    for field in [b'S', b'V', b'C', b'M'] {
        assert_eq!(fatal.field(field), own.field(field), "{}", char::from(field));
    }
    assert_eq!(fatal.sqlstate(), "25P03");
    assert_eq!(chain.query(&chain.person(), COUNT).await, "0");
    let held = format!("select count(*) from pg_stat_activity where usename = '{}'", ORDERS_APP.database_user);
    let mut left = String::new();
    for _ in 0..100 {
        left = chain.query(&chain.person(), &held).await;
        if left == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(left, "0", "the database still holds the transaction");
    let records =
        chain.records_when("its end", |records| !records.of("session_end").with("sqlstate", "25P03").is_empty());
    assert_eq!(records.await.of("session_end").with("sqlstate", "25P03").only()["reason"], "idle_in_transaction");
    assert_eq!(metric(&chain, "idle_in_transaction", "refused").await, 1);
}

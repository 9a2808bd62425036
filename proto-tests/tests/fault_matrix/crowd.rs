//! Many callers at once while a hop fails, and when it is well again: of callers with one token one asks, nothing
//! cascades, and who does not need the hop goes on.

use super::cells::Hop;
use super::{DEADLINE, SLACK};
use pgpassport::sim::{Endpoint, Fault};
use proto_tests::chain::Chain;
use proto_tests::psql::Login;
use proto_tests::wire::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Callers with a token of their own …
const TOKENS: u64 = 8;
/// … each on so many connections.
const EACH: usize = 3;
/// How often a call is made at most.
const ATTEMPTS: u64 = pgpassport::http::ATTEMPTS as u64;
/// Longer than any failure here stands.
const SETTLE: Duration = Duration::from_millis(2500);

/// All log in at once.
async fn storm(chain: &Arc<Chain>, logins: &[Login]) -> Vec<Message> {
    let mut streams = Vec::new();
    for login in logins {
        for _ in 0..EACH {
            streams.push((chain.tls().await.expect("TLS"), login.clone()));
        }
    }
    let mut answers = JoinSet::new();
    for (mut stream, login) in streams {
        let chain = Arc::clone(chain);
        answers.spawn(async move { chain.attempt(&mut stream, &login).await });
    }
    answers.join_all().await
}

/// What a hop's crowd may cost.
struct Weather {
    hop: Hop,
    fault: Fault,
    endpoint: Endpoint,
    /// Requests while it fails.
    most: u64,
    /// Requests when it is well again.
    again: u64,
}

async fn weathers(Weather { hop, fault, endpoint, most, again }: Weather) {
    let what = format!("{} × {fault:?}", hop.name());
    let chain = Arc::new(hop.prepare(hop.deadline()).await.start().await);
    // Bought already: needs none of the hops that fail.
    let known = chain.app();
    assert_eq!(chain.query(&known, "select 1").await, "1");
    let logins: Vec<Login> = (0..TOKENS).map(|_| hop.caller(&chain)).collect();
    chain.calls().reset();
    chain.cloud.faults().set(hop.simulated(), fault);
    let began = Instant::now();
    let others = async {
        tokio::time::sleep(DEADLINE / 4).await;
        let began = Instant::now();
        assert_eq!(chain.query(&known, "select 1").await, "1", "{what}: who does not need it");
        assert!(began.elapsed() < SLACK, "{what}: others wait {:?}", began.elapsed());
    };
    let (answers, ()) = tokio::join!(storm(&chain, &logins), others);
    assert!(began.elapsed() <= DEADLINE + SLACK, "{what}: {:?}", began.elapsed());
    for answer in &answers {
        assert_eq!(answer.sqlstate(), "57P03", "{what}: {:?}", answer.field(b'M'));
    }
    let count = chain.calls().count(endpoint);
    assert!((1..=most).contains(&count), "{what}: {count} requests for {} logins", answers.len());
    chain.cloud.faults().clear_all();
    tokio::time::sleep(SETTLE).await;
    chain.calls().reset();
    let answers = storm(&chain, &logins).await;
    for answer in &answers {
        assert_eq!(answer.tag, b'Z', "{what}, over: {:?}", answer.field(b'M'));
    }
    assert_eq!(chain.calls().count(endpoint), again, "{what}, over: one request for each key");
}

/// Beside each other: they mostly wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_costs_a_failing_hop_little_and_everybody_comes_in_afterwards() {
    let hangs = Fault::Delay(Duration::from_secs(40));
    let asked = TOKENS * ATTEMPTS;
    let weather = |hop, endpoint, fault, most, again| Weather { hop, fault, endpoint, most, again };
    let mut all = JoinSet::new();
    for weather in [
        weather(Hop::Sts, Endpoint::Sts, Fault::Status(503), asked, TOKENS),
        // The callers share a project's quota: what one is told holds for all.
        weather(Hop::Sts, Endpoint::Sts, Fault::RetryAfter(2), TOKENS, TOKENS),
        weather(Hop::Iam, Endpoint::GenerateAccessToken, hangs, TOKENS, TOKENS),
        weather(Hop::OnBehalfOf, Endpoint::EntraToken, Fault::Status(503), asked, TOKENS),
        // All of them are one person, about whom one question is enough.
        weather(Hop::Graph, Endpoint::Graph, hangs, 1, 1),
    ] {
        all.spawn(weathers(weather));
    }
    all.join_all().await;
}

//! The admin listener: health, readiness, metrics that name nobody.

use pgpassport::sim::world::{ANALYST, CONTOSO, SIGN_IN_CLIENT};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;
use std::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_answer() {
    let chain = Chain::start().await;
    assert_eq!(chain.proxy.get("/healthz").await.expect("an answer").0, 200);
    assert_eq!(chain.proxy.get("/readyz").await.expect("an answer").0, 200);
    assert_eq!(chain.proxy.get("/").await.expect("an answer").0, 404);
    assert!(chain.proxy.admin().ip().is_loopback());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_and_name_nobody() {
    let chain = Chain::start().await;
    chain.query(&chain.person(), "select 1").await;
    let stranger = Login { password: "no.to.ken".to_owned(), ..chain.person() };
    chain.psql(&stranger, &["-c", "select 1"]).await.refused();
    let (status, text) = chain.proxy.get("/metrics").await.expect("an answer");
    assert_eq!(status, 200);
    let samples: Vec<&str> = text.lines().filter(|line| line.starts_with("pgpassport_")).collect();
    let moved = samples.iter().filter(|line| !line.ends_with(" 0")).count();
    assert!(moved >= 2, "a session and a refusal were counted:\n{text}");
    for identity in [ANALYST.upn, ANALYST.object_id, CONTOSO.id, SIGN_IN_CLIENT, "analyst"] {
        assert!(!text.contains(identity), "{identity} is in the metrics:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_turned_off() {
    let prepared = Setup::default().prepare().await;
    let config = prepared.config().replace("[admin]", "[admin]\nenabled = false");
    std::fs::write(prepared.config_path(), config).expect("written");
    let chain = prepared.start_without_admin().await;
    assert!(TcpStream::connect(chain.proxy.admin()).is_err(), "nobody listens");
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

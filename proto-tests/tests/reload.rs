//! SIGHUP: a good file becomes what serves, sessions that it does not give end, and a bad file changes nothing.

use pgpassport::sim::world::{ANALYST, ORDERS_APP, ORDERS_GROUP, STAFF_GROUP, WORKLOAD_PROVIDER};
use pgpassport::sim::{Endpoint, Fault, Hop, TokenSpec};
use proto_tests::chain::{Chain, Setup};
use proto_tests::proxy::Limited;
use proto_tests::wire::{self, Message, message, text};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

/// A group that nobody is in.
const NOBODY: &str = "00000000-0000-4000-8000-00000000dead";

async fn ask(session: &mut Raw, query: &str) -> Message {
    session.write_all(&message(b'Q', &text(query))).await.expect("sent");
    wire::read_until(session, b'Z').await.pop().expect("an answer")
}

async fn told(session: &mut Raw) -> Message {
    let word = timeout(Duration::from_secs(30), wire::read_until(session, b'E')).await.expect("a last word");
    word.last().expect("a last word").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_takes_a_rule_away_ends_its_sessions_and_no_others() {
    let chain = Setup::default().extra("[deadlines]\ndrain = \"2s\"").start().await;
    let (mut idle, mut busy) = (chain.session(&chain.person()).await, chain.session(&chain.person()).await);
    let mut other = chain.session(&chain.app()).await;
    busy.write_all(&message(b'Q', &text("select pg_sleep(60)"))).await.expect("sent");
    chain.records_when("the sleep", |records| !records.began("select pg_sleep(60)").is_empty()).await;
    let records = chain.reload(ORDERS_GROUP, NOBODY).await;
    assert_eq!(records.of("reload").only()["outcome"], "applied");
    for session in [&mut idle, &mut busy] {
        let word = told(session).await;
        assert_eq!(word.sqlstate(), "57P01", "{word:?}");
        assert!(word.field(b'M').is_some_and(|message| message.contains("policy has changed")), "{word:?}");
    }
    assert_eq!(ask(&mut other, "select 1").await.body, b"I", "another rule's session");
    let records = chain.records_when("both ends", |records| records.of("session_end").len() == 2).await;
    assert_eq!(records.of("session_end").with("reason", "policy").len(), 2);
    let slept = records.began("select pg_sleep(60)");
    assert_eq!(records.end_of(slept.only())["outcome"], "canceled", "nothing keeps running");
    let refused = chain.attempt(&mut chain.tls().await.expect("TLS"), &chain.person()).await;
    assert_eq!(refused.sqlstate(), "42501");
    chain.reload(NOBODY, ORDERS_GROUP).await;
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1", "given again");
    assert_eq!(ask(&mut other, "select 1").await.body, b"I");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_keeps_the_old_one_serving_and_says_why() {
    let mut chain = Chain::start().await;
    let mut session = chain.session(&chain.person()).await;
    let records = chain.reload("databases = [\"orders\"]", "databases = [\"odrers\"]").await;
    let reload = records.of("reload").only().clone();
    let text = std::fs::read_to_string(chain.config_path()).expect("the config");
    let line = text.lines().position(|line| line.contains("odrers")).expect("the mistake") + 1;
    assert_eq!(reload["outcome"], "refused");
    let problem = reload["problems"][0].as_str().expect("a problem");
    assert!(problem.contains(&format!("pgpassport.toml:{line}: rule.orders-people.databases")), "{problem}");
    let output = chain.proxy.output();
    assert!(output.contains("rule.orders-people.databases") && output.contains("not reloaded"), "{output}");
    assert!(chain.proxy.is_alive());
    assert_eq!(ask(&mut session, "select 1").await.body, b"I");
    assert_eq!(chain.query(&chain.person(), "select 2").await, "2");
    let (_, metrics) = chain.proxy.get("/metrics").await.expect("metrics");
    assert!(metrics.contains("pgpassport_reloads_total{outcome=\"refused\"} 1"), "{metrics}");
    let records = chain.reload("odrers", "orders").await;
    assert_eq!(records.of("reload").with("outcome", "applied").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_start_can_set_is_said_by_its_key() {
    let chain = Chain::start().await;
    let elsewhere = "address = \"127.0.0.1:1\"\ntrusted_proxies = [\"192.0.2.0/24\"]";
    let records = chain.reload(&format!("address = \"{}\"", chain.proxy.address()), elsewhere).await;
    let reload = records.of("reload").only().clone();
    assert_eq!(
        (reload["outcome"].as_str(), &reload["unchanged"]),
        (Some("applied"), &serde_json::json!(["listen.address"]))
    );
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1", "it listens where it did");
    assert!(chain.proxy.output().contains("listen.address: has changed in the file"), "{}", chain.proxy.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_is_not_fetched_again_and_entra_may_be_away() {
    let chain = Chain::start().await;
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    let app = chain.app();
    chain.calls().reset();
    chain.cloud.faults().set(Hop::EntraKeys, Fault::Status(503));
    chain.cloud.faults().set(Hop::SqlAdmin, Fault::Status(503));
    chain.reload("kind = \"user\"", "kind = \"user\"\nat_expiry = \"keep\"").await;
    assert_eq!(chain.query(&app, "select 2").await, "2", "a reload while others are away locks nobody out");
    for kept in
        [Endpoint::EntraDiscovery, Endpoint::EntraKeys, Endpoint::ConnectSettings, Endpoint::GenerateEphemeralCert]
    {
        assert_eq!(chain.calls().count(kept), 0, "{kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_the_log_cannot_take_does_not_count() {
    let chain = Setup::default().limited(Limited::Later).start().await;
    let mut session = chain.session(&chain.person()).await;
    chain.proxy.fill_disk(&chain.segment_path());
    let path = chain.config_path();
    let text = std::fs::read_to_string(&path).expect("the config");
    std::fs::write(&path, text.replacen(ORDERS_GROUP, NOBODY, 1)).expect("written");
    chain.proxy.hang_up();
    let refused = async {
        while !chain.proxy.get("/metrics").await.expect("metrics").1.contains("reloads_total{outcome=\"refused\"} 1") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), refused).await.expect("it is refused");
    chain.proxy.free_disk();
    assert_eq!(ask(&mut session, "select 1").await.body, b"I");
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1", "the old policy serves on");
}

/// The analyst's groups do not fit into the token: Graph says those that rules name. Of groups that a new policy names
/// nobody has asked, and the analyst is in one.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_names_groups_nobody_asked_about_ends_whom_it_could_deny() {
    let asking = "[issuer.contoso]\ngroups_overage = \"graph\"\ngraph = \"GRAPH\"";
    let prepared = Setup::default().replace("[issuer.contoso]", asking).prepare().await;
    let url = prepared.cloud.graph_url().to_owned();
    let chain = prepared.replace("GRAPH", &url).start().await;
    let spec = TokenSpec::person(&ANALYST).without("groups").claim("hasgroups", true);
    let mut session = chain.session(&chain.login(ANALYST.upn, &spec)).await;
    let (provider, account) = (WORKLOAD_PROVIDER, ORDERS_APP.service_account);
    let staff = format!(
        "[[rule]]\nname = \"staff\"\nissuer = \"contoso\"\ndatabases = [\"orders\"]\nkind = \"user\"\n\
         groups = [\"{STAFF_GROUP}\"]\n\
         grant = {{ kind = \"service_account\", provider = \"{provider}\", service_account = \"{account}\" }}\n\n"
    );
    let (people, app) = ("[[rule]]\nname = \"orders-people\"", "[[rule]]\nname = \"orders-app\"");
    chain.reload(app, &format!("{staff}{app}")).await;
    assert_eq!(ask(&mut session, "select 1").await.body, b"I", "an earlier rule decides as it did");
    let text = std::fs::read_to_string(chain.config_path()).expect("the config");
    std::fs::write(chain.config_path(), text.replace(&staff, "")).expect("written");
    let records = chain.reload(people, &format!("{staff}{people}")).await;
    assert_eq!(records.of("reload").with("outcome", "applied").len(), 2);
    assert_eq!(told(&mut session).await.sqlstate(), "57P01");
    let output = chain.proxy.output();
    assert!(output.contains("Microsoft Graph was not asked about when"), "{output}");
}

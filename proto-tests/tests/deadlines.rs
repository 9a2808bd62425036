//! Deadlines: config/README.md's table is the code's defaults, and a hop that hangs is given up in time, by name.

use pgpassport::config::Deadlines;
use pgpassport::sim::world::ANALYST;
use pgpassport::sim::{Endpoint, Fault, Hop, TokenSpec};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;
use proto_tests::refusal::until_let_in;
use proto_tests::wire::{self, message};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// What a hop may take in these tests; the others keep their defaults, so that only it can be what ended the wait.
const SHORT: Duration = Duration::from_millis(1500);
/// How much later than its deadline a refusal may come on a busy machine: less than any other deadline.
const SLACK: Duration = Duration::from_secs(3);
/// Longer than the proxy remembers that the keys could not be fetched.
const SETTLE: Duration = Duration::from_millis(2500);
/// How much earlier than its deadline a refusal may seem to come.
const EARLY: Duration = Duration::from_millis(100);
/// How long a hop hangs.
const HANG: Duration = Duration::from_secs(30);

#[test]
fn the_reference_lists_every_deadline_with_its_default() {
    let Deadlines {
        startup,
        keys,
        on_behalf_of,
        sts,
        iam_credentials,
        own_identity,
        admin_api,
        dial,
        handshake,
        login,
        cancel,
        drain,
    } = Deadlines::default();
    let defaults = BTreeMap::from([
        ("startup", startup),
        ("keys", keys),
        ("on_behalf_of", on_behalf_of),
        ("sts", sts),
        ("iam_credentials", iam_credentials),
        ("own_identity", own_identity),
        ("admin_api", admin_api),
        ("dial", dial),
        ("handshake", handshake),
        ("login", login),
        ("cancel", cancel),
        ("drain", drain),
    ]);
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/README.md");
    let reference = std::fs::read_to_string(reference).expect("config/README.md");
    let section = reference.split("\n## Deadlines\n").nth(1).expect("a section on deadlines");
    let section = section.split("\n#").next().unwrap_or_default();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let key = cells.next()?.strip_suffix('`')?.to_owned();
        let seconds = cells.next()?.strip_suffix(" s")?.parse().ok()?;
        Some((key, Duration::from_secs(seconds)))
    };
    let listed: BTreeMap<String, Duration> = section.lines().filter_map(row).collect();
    let defaults: BTreeMap<String, Duration> =
        defaults.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    assert_eq!(listed, defaults);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_that_hangs_is_given_up_in_time() {
    let cases = [
        ("keys", Hop::EntraKeys, Fault::Delay(HANG), "keys"),
        ("sts", Hop::Sts, Fault::Delay(HANG), "STS"),
        ("iam_credentials", Hop::IamCredentials, Fault::Delay(HANG), "IAM Credentials"),
        ("own_identity", Hop::OwnIdentity, Fault::Delay(HANG), "identity of its own"),
        ("admin_api", Hop::SqlAdmin, Fault::Delay(HANG), "Admin API"),
        ("dial", Hop::InstanceTcp, Fault::BlackHole, "instance"),
        ("handshake", Hop::InstanceTls, Fault::Delay(HANG), "instance"),
        ("login", Hop::InstanceLogin, Fault::Delay(HANG), "instance"),
    ];
    let mut wrong = Vec::new();
    for (key, hop, fault, says) in cases {
        println!("{key}");
        let prepared =
            Setup::default().extra(&format!("[deadlines]\n{key} = \"{}ms\"", SHORT.as_millis())).prepare().await;
        prepared.cloud.faults().set(hop, fault);
        let chain = prepared.start().await;
        // The keys are fetched before the proxy is ready; what failed then is not tried again at once.
        tokio::time::sleep(SETTLE).await;
        let began = Instant::now();
        let printed = chain.psql(&chain.app(), &["-c", "select 'must not run'"]).await;
        let took = began.elapsed();
        let record = chain.refusal(&printed.correlation()).await;
        if !(SHORT..SHORT + SLACK).contains(&(took + EARLY)) {
            wrong.push(format!("{key}: refused after {took:?}: {record}"));
        }
        if record["sqlstate"] != "57P03" || !printed.refused().contains(says) {
            wrong.push(format!("{key}: {}", printed.err));
        }
        assert_eq!(chain.calls().count(Endpoint::InstanceLogin), 0);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_hop_within_its_deadline_is_waited_for() {
    let chain = Chain::start().await;
    for hop in [Hop::EntraKeys, Hop::Sts, Hop::IamCredentials, Hop::SqlAdmin, Hop::InstanceLogin] {
        chain.cloud.faults().set(hop, Fault::Delay(Duration::from_millis(300)));
    }
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_and_says_nothing_is_let_go() {
    let chain = Setup::default().extra("[deadlines]\nstartup = \"1500ms\"").start().await;
    let mut silent = chain.tcp().await;
    let mut hesitant = chain.tls().await.expect("TLS");
    let began = Instant::now();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(wire::DEADLINE, silent.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && began.elapsed() < SHORT + SLACK, "{:?}", began.elapsed());
    rest.clear();
    let end = tokio::time::timeout(wire::DEADLINE, hesitant.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && began.elapsed() < SHORT + SLACK, "{:?}", began.elapsed());
}

/// One login at a time, of which Graph is asked the groups; hops may take longer than any test.
async fn patient() -> Chain {
    let patience = "[limits]\nlogins = 1\nlogins_per_address = 1\n[deadlines]\nkeys = \"60s\"\nsts = \"60s\"";
    let asking = "[issuer.contoso]\ngroups_overage = \"graph\"\ngraph = \"GRAPH\"";
    let prepared = Setup::default().extra(patience).replace("[issuer.contoso]", asking).prepare().await;
    let url = prepared.cloud.graph_url().to_owned();
    prepared.replace("GRAPH", &url).start().await
}

/// Begins a login that gets as far as a hop that hangs.
async fn hanging(chain: &Chain, (hop, endpoint): (Hop, Endpoint), login: &Login) -> TlsStream<TcpStream> {
    chain.cloud.faults().set(hop, Fault::Delay(HANG));
    let before = chain.calls().count(endpoint);
    let mut stream = chain.tls().await.expect("TLS");
    let waits = async {
        while chain.calls().count(endpoint) == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        answer = chain.attempt(&mut stream, login) => panic!("answered: {answer:?}"),
        () = waits => {}
    }
    stream
}

/// The analyst, whose groups do not fit into the token.
fn crowded(chain: &Chain) -> Login {
    chain.login(ANALYST.upn, &TokenSpec::person(&ANALYST).without("groups").claim("hasgroups", true))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_that_hangs_holds_no_place_for_a_client_that_has_left() {
    let chain = patient().await;
    let known = chain.app();
    assert_eq!(chain.query(&known, "select 1").await, "1");
    let cases =
        [((Hop::Graph, Endpoint::Graph), crowded(&chain), false), ((Hop::Sts, Endpoint::Sts), chain.person(), true)];
    for (nth, (hop, login, says_goodbye)) in cases.into_iter().enumerate() {
        let mut stream = hanging(&chain, hop, &login).await;
        if says_goodbye {
            stream.write_all(&message(b'X', &[])).await.expect("sent");
        }
        let began = Instant::now();
        drop(stream);
        // Whose login is bought already, and needs neither of the two.
        until_let_in(&chain, &known).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{hop:?}: {:?}", began.elapsed());
        let records = chain.records_when("who left", |records| records.of("refused").len() > nth).await;
        let left = records.of("refused").with("sqlstate", "08006");
        assert_eq!(left.len(), nth + 1, "{hop:?}");
        assert!(left.iter().all(|left| left["blame"] == "client" && left["caller"]["label"] == ANALYST.upn));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_leaves_waits_for_no_groups() {
    let mut chain = patient().await;
    let mut stream = hanging(&chain, (Hop::Graph, Endpoint::Graph), &crowded(&chain)).await;
    let began = Instant::now();
    chain.proxy.terminate();
    let told = wire::read_until(&mut stream, b'E').await.pop().expect("a last word");
    assert_eq!(told.sqlstate(), "57P01");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // It waits a while for the client to have read.
    drop(stream);
    chain.proxy.ended().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

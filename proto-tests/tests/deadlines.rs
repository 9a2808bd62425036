//! Deadlines: the README's table is the code's defaults, and a hop that hangs is given up in time, by name.

use pgpassport::config::Deadlines;
use pgpassport::sim::{Endpoint, Fault, Hop};
use proto_tests::chain::{Chain, Setup};
use proto_tests::wire;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

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
fn the_readme_lists_every_deadline_with_its_default() {
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
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).expect("README.md");
    let section = readme.split("### Deadlines").nth(1).expect("a section on deadlines");
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

//! The proxy's own identity on Google: a service account's key file, and the metadata server. (On Azure it is that of
//! every other test.) Each time psql runs, and what the endpoint or its impostor may not have stays here.

use pgpassport::sim::world::ORDERS_APP;
use pgpassport::sim::{CloudOptions, Endpoint, Fault, Hop};
use proto_tests::chain::{Chain, Setup, managed_identity};
use proto_tests::refusal::{Expected, refused_by_psql};
use std::io::Write as _;
use std::process::{Command, Stdio};

const NO_IDENTITY: Expected<'_> = Expected { sqlstate: "57P03", says: "no identity of its own" };

/// A self-signed root that has signed nothing; its key is gone.
const FOREIGN_ROOT: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBoDCCAUWgAwIBAgIUGMYOLuG4kT3dn+dtINJb9SKYhjcwCgYIKoZIzj0EAwIw\n\
JDEiMCAGA1UEAwwZQSByb290IHRoYXQgc2lnbnMgbm90aGluZzAgFw0yNjExMjIw\n\
NTM0MDNaGA8yMTI2MTAyOTA1MzQwM1owJDEiMCAGA1UEAwwZQSByb290IHRoYXQg\n\
c2lnbnMgbm90aGluZzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABOmK7F6I1EGQ\n\
zcX9nkF6aMfyq3TNeqSYc47RmCZbXX0l0ZEiFPvLB4ijPLf/nzlFBvOYXKQ4u8eG\n\
7vd1x5CenGOjUzBRMB0GA1UdDgQWBBQrwRuNw3hk1jvX/+p3C2fu9ZXATTAfBgNV\n\
HSMEGDAWgBQrwRuNw3hk1jvX/+p3C2fu9ZXATTAPBgNVHRMBAf8EBTADAQH/MAoG\n\
CCqGSM49BAMCA0kAMEYCIQDpzjzjfBhJZrl01HbsrlomYNj517BvZ1PC37MOsdkI\n\
fAIhAOp5i5XOk+FS+fzDGThFmZ2r8MiRU/Dq2haRHu9DJgZj\n\
-----END CERTIFICATE-----\n\
";

/// Only Google was asked who the proxy is, and not more often than needed; the caller's exchange is its own.
async fn opens_instances(chain: &Chain, endpoint: Endpoint, calls: u64) {
    for _ in 0..2 {
        assert_eq!(chain.query(&chain.app(), "select session_user").await, ORDERS_APP.database_user);
    }
    let count = |endpoint| chain.calls().count(endpoint);
    assert_eq!(count(endpoint), calls, "the token is kept");
    assert_eq!(count(Endpoint::OwnIdentity), 0, "Azure was not asked");
    assert_eq!((count(Endpoint::Sts), count(Endpoint::GenerateAccessToken)), (2, 2), "the caller's two exchanges");
    assert_eq!((count(Endpoint::ConnectSettings), count(Endpoint::GenerateEphemeralCert)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_accounts_key_opens_instances_and_is_not_told() {
    let prepared = Setup::default().prepare().await;
    let key = prepared.cloud.service_account_key().expect("a key");
    let chain = prepared.with_service_account_key(&key).start().await;
    opens_instances(&chain, Endpoint::ServiceAccountToken, 1).await;
    let private = std::fs::read_to_string(&key).expect("the key file");
    let line = private.split("\\n").nth(3).expect("a line of the key");
    assert!(line.len() == 64, "{} characters", line.len());
    for name in ["proxy.out", "proxy.err"] {
        let output = std::fs::read_to_string(chain.folder().join(name)).expect("the proxy's output");
        assert!(!output.contains(line) && !output.contains("ya29."), "{name} has a secret");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_google_no_longer_knows_opens_nothing() {
    let prepared = Setup::default().prepare().await;
    let old = prepared.folder().join("old.json");
    std::fs::rename(prepared.cloud.service_account_key().expect("a key"), &old).expect("renamed");
    let new = prepared.cloud.service_account_key().expect("another key");
    let chain = prepared.with_service_account_key(&old).start().await;
    refused_by_psql(&chain, &chain.app(), NO_IDENTITY).await;
    assert!(chain.calls().count(Endpoint::ServiceAccountToken) > 0, "it was asked");
    assert_eq!(chain.calls().count(Endpoint::ConnectSettings), 0, "and gave nothing");
    // The file is read anew for each token: a rotated key needs no restart.
    std::fs::copy(new, &old).expect("rotated");
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_the_platform_does_not_trust_gets_no_assertion() {
    let prepared = Setup::default().prepare().await;
    let key = prepared.cloud.service_account_key().expect("a key");
    let foreign = prepared.folder().join("foreign.pem");
    std::fs::write(&foreign, FOREIGN_ROOT).expect("written");
    let chain = prepared.with_service_account_key(&key).with_environment("SSL_CERT_FILE", &foreign).start().await;
    refused_by_psql(&chain, &chain.app(), NO_IDENTITY).await;
    assert_eq!(chain.calls().count(Endpoint::ServiceAccountToken), 0);
    assert_eq!(chain.calls().count(Endpoint::ConnectSettings), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_told_and_asked_again() {
    for fault in [Fault::Status(503), Fault::Delay(std::time::Duration::from_secs(30)), Fault::Close] {
        println!("{fault:?}");
        let prepared = Setup::default().extra("[deadlines]\nown_identity = \"2s\"").prepare().await;
        let key = prepared.cloud.service_account_key().expect("a key");
        prepared.cloud.faults().set(Hop::OwnIdentity, fault);
        let chain = prepared.with_service_account_key(&key).start().await;
        refused_by_psql(&chain, &chain.app(), NO_IDENTITY).await;
        chain.cloud.faults().clear_all();
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
    }
}

/// The metadata server has one name and one port, which only a network and a hosts file of its own can give to a
/// simulator: this test runs the next one inside.
#[test]
fn the_metadata_servers_account_opens_instances() {
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "--"]).args(arguments).stdin(Stdio::null());
        command
    };
    let possible = inside(&["ip", "link", "set", "lo", "up"]).output();
    let reason = match possible {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(reason) = reason {
        // Past the capture of the test's output: a skipped test must show.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED the_metadata_servers_account_opens_instances: needs root for a network namespace ({reason})"
        );
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n169.254.169.254 metadata.google.internal\n").expect("written");
    let script = r#"ip link set lo up
        ip address add 169.254.169.254/32 dev lo
        mount --bind "$1" /etc/hosts
        exec "$2" --exact inside_the_namespace --ignored --nocapture"#;
    let this = std::env::current_exe().expect("a test knows its own path");
    let (hosts, this) = (hosts.display().to_string(), this.display().to_string());
    let done = inside(&["bash", "-euc", script, "namespace", &hosts, &this]).output().expect("unshare runs");
    let output = [done.stdout, done.stderr].concat();
    let output = String::from_utf8_lossy(&output);
    assert!(done.status.success() && output.contains("1 passed"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the namespace that the test above makes"]
async fn inside_the_namespace() {
    let metadata = Some("169.254.169.254:80".parse().expect("an address"));
    let setup = || Setup::default().options(CloudOptions { metadata, ..CloudOptions::default() });
    let section = "kind = \"google-metadata\"\n";
    let chain = setup().replace(&managed_identity(), section).start().await;
    // The token, and the project's id, which `gcp_auth` wants too.
    opens_instances(&chain, Endpoint::Metadata, 2).await;
    drop(chain);
    let prepared = setup().replace(&managed_identity(), section).prepare().await;
    prepared.cloud.faults().set(Hop::OwnIdentity, Fault::Status(503));
    let chain = prepared.start().await;
    refused_by_psql(&chain, &chain.app(), NO_IDENTITY).await;
    assert_eq!(chain.calls().count(Endpoint::ConnectSettings), 0);
}

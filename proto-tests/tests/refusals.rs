//! Every refusal, through psql: the right SQLSTATE, what failed, a next step, and a correlation id that the records
//! have too. Each test also shows how far the refused caller got.

use pgpassport::sim::world::{
    ANALYST, BYSTANDER, CONTOSO, FABRIKAM, GUEST, ORDERS_APP, OTHER_APP, OUTSIDER, REPORTS_APP, TRAINEE,
};
use pgpassport::sim::{Endpoint, Fault, Hop, ServerCertificate, Signing, TokenSpec, Version};
use proto_tests::chain::{Chain, Setup};
use proto_tests::proxy::Limited;
use proto_tests::psql::Login;
use proto_tests::refusal::{Expected, check, refused, refused_by_psql, until_let_in};
use proto_tests::wire;
use tokio::io::AsyncWriteExt;

fn analyst() -> TokenSpec {
    TokenSpec::person(&ANALYST)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_nobody_is_asked_for_a_token() {
    let chain = Chain::start().await;
    let expected = Expected { sqlstate: "28000", says: "TLS" };
    let login = Login { sslmode: "disable", ..chain.person() };
    refused(&chain, &login, expected).await;
    // On the wire: the first and only answer is the error. No authentication request came first.
    let mut stream = chain.tcp().await;
    stream.write_all(&wire::startup(&[(b"user", b"analyst"), (b"database", b"orders")])).await.unwrap();
    check(&wire::read(&mut stream).await.expect("an answer"), &login, expected);
    assert!(wire::read(&mut stream).await.is_err(), "the proxy closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_an_accepted_token_is_refused_before_google_hears_of_it() {
    let chain = Chain::start().await;
    let bad = "28P01";
    let cases: Vec<(&str, &str, TokenSpec)> = vec![
        ("expired", "the token expired at", analyst().expired()),
        ("another audience", "for another audience", analyst().audience("https://graph.microsoft.com")),
        (
            "Azure's own PostgreSQL audience",
            "for another audience",
            analyst().audience("https://ossrdbms-aad.database.windows.net"),
        ),
        ("another issuer", "issuer is not accepted", analyst().claim("iss", "https://issuer.example/v2.0")),
        (
            "an issuer that only begins right",
            "issuer is not accepted",
            analyst().claim("iss", format!("{}.example/{}/v2.0", chain.cloud.entra_authority(), CONTOSO.id)),
        ),
        ("a key that nobody publishes", "does not publish", analyst().signing(Signing::UnknownKey)),
        ("a wrong key under a known name", "signature", analyst().signing(Signing::WrongKey)),
        ("another tenant's key", "does not publish", analyst().signing(Signing::KeyOf(FABRIKAM))),
        ("no signature", "RS256", analyst().signing(Signing::None)),
        ("HS256 with the public key", "RS256", analyst().signing(Signing::Hs256WithPublicKey)),
        ("a Microsoft Graph token", "is a token for Microsoft Graph", analyst().header("nonce", "AQABAAAAAAD")),
        ("a critical header", "demands extensions", analyst().header("crit", serde_json::json!(["b64"]))),
        ("a v1.0 token", "v1.0", analyst().version(Version::V1)),
        ("issued in the future", "not valid yet", analyst().issued_ago(-3600)),
        ("no object id", "\"oid\"", analyst().without("oid")),
    ];
    for (name, says, spec) in cases {
        println!("{name}");
        refused(&chain, &chain.login(ANALYST.upn, &spec), Expected { sqlstate: bad, says }).await;
    }
    for password in ["", "secret", "a.b.c", "eyJhbGciOiJSUzI1NiJ9.e30", &"x".repeat(60_000)] {
        println!("{} bytes that are no token", password.len());
        let login = Login { password: password.to_owned(), ..chain.person() };
        if password.is_empty() {
            // psql itself does not connect without a password; the wire does.
            let mut stream = chain.tls().await.expect("TLS");
            check(&chain.attempt(&mut stream, &login).await, &login, Expected { sqlstate: bad, says: "" });
        } else {
            refused(&chain, &login, Expected { sqlstate: bad, says: "not an access token" }).await;
        }
    }
    assert_eq!(chain.calls().count(Endpoint::Sts), 0, "no token went to Google");
    assert_eq!(chain.calls().count(Endpoint::InstanceConnection), 0, "the instance was not dialled");
    assert!(!chain.database_log().contains("must not run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_that_are_not_allowed_are_refused_before_google_hears_of_them() {
    let other = "allowed_apps = [\"00000000-0000-4000-8000-000000000000\"]";
    let chain = Setup::default().start().await;
    let expected = |says| Expected { sqlstate: "28000", says };
    refused(&chain, &chain.as_person(&OUTSIDER), expected("tenant")).await;
    refused(&chain, &chain.as_person(&GUEST), expected("guest")).await;
    assert_eq!(chain.calls().count(Endpoint::Sts), 0);
    let chain = Setup::default().replace("[issuer.contoso]", &format!("[issuer.contoso]\n{other}")).start().await;
    refused(&chain, &chain.app(), expected(ORDERS_APP.client_id)).await;
    assert_eq!(chain.calls().count(Endpoint::Sts), 0);
    let people = "[issuer.contoso]\nallowed_kinds = [\"user\"]";
    // A rule for software that no token of the issuer can be would be refused with the config.
    let setup = Setup::default().replace("[issuer.contoso]", people).replace("kind = \"app\"", "everyone = true");
    let chain = setup.start().await;
    refused(&chain, &chain.app(), expected("kind app")).await;
    assert_eq!(chain.calls().count(Endpoint::Sts), 0);
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_databases_and_missing_grants_are_told_apart() {
    let chain = Chain::start().await;
    let unknown = Login { database: "invoices".to_owned(), ..chain.person() };
    refused(&chain, &unknown, Expected { sqlstate: "3D000", says: "invoices" }).await;
    let denied = Expected { sqlstate: "42501", says: "orders" };
    let record = refused(&chain, &chain.as_person(&BYSTANDER), denied).await;
    assert_eq!(record["caller"]["object_id"], BYSTANDER.object_id);
    refused(&chain, &chain.as_app(&OTHER_APP), denied).await;
    assert_eq!(chain.calls().count(Endpoint::Sts), 0);
    assert_eq!(chain.calls().count(Endpoint::InstanceConnection), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_google_and_the_instance_refuse_is_told_with_the_role_that_mends_it() {
    let chain = Chain::start().await;
    // Granted by the policy, but the account may not be impersonated.
    let record = refused(
        &chain,
        &chain.as_app(&REPORTS_APP),
        Expected { sqlstate: "28000", says: "roles/iam.workloadIdentityUser" },
    )
    .await;
    assert_eq!(record["blame"], "google");
    assert_eq!(chain.calls().count(Endpoint::InstancePassword), 0, "no token left for the instance");
    // Granted and exchanged, but without the permission to log in to the instance.
    let record = refused(
        &chain,
        &chain.as_person(&TRAINEE),
        Expected { sqlstate: "28000", says: "roles/cloudsql.instanceUser" },
    )
    .await;
    assert_eq!(record["caller"]["label"], TRAINEE.upn);
    assert_eq!(chain.calls().count(Endpoint::InstanceLogin), 0);
    // Entra's token is still right, but too old for STS: only a new one helps.
    let stale = analyst().issued_ago(25 * 3600).lifetime(26 * 3600);
    refused(&chain, &chain.login(ANALYST.upn, &stale), Expected { sqlstate: "28P01", says: "stale" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_that_is_unavailable_is_named() {
    let cases = [
        (Hop::EntraKeys, Fault::Status(503), "keys"),
        (Hop::EntraKeys, Fault::Refuse, "keys"),
        (Hop::Sts, Fault::Status(503), "STS"),
        (Hop::Sts, Fault::Refuse, "STS"),
        (Hop::IamCredentials, Fault::Status(503), "IAM"),
        (Hop::OwnIdentity, Fault::Status(503), "identity of its own"),
        (Hop::SqlAdmin, Fault::Status(503), "Admin API"),
        (Hop::SqlAdmin, Fault::Refuse, "Admin API"),
        (Hop::InstanceTcp, Fault::Refuse, "instance"),
        (Hop::InstanceLogin, Fault::Status(503), "instance"),
    ];
    for (hop, fault, says) in cases {
        println!("{hop:?} {fault:?}");
        let prepared = Setup::default().prepare().await;
        prepared.cloud.faults().set(hop, fault);
        let chain = prepared.start().await;
        refused_by_psql(&chain, &chain.app(), Expected { sqlstate: "57P03", says }).await;
        assert_eq!(chain.calls().count(Endpoint::InstanceLogin), 0);
        // The fault passes, and so does the caller: nothing wrong was kept, but for a moment's pause after a failure.
        chain.cloud.faults().clear_all();
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        until_let_in(&chain, &chain.app()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_that_breaks_is_named() {
    let cases = [
        (Hop::Sts, Fault::Garbage, "STS"),
        (Hop::IamCredentials, Fault::Garbage, "IAM"),
        (Hop::SqlAdmin, Fault::Garbage, "Admin API"),
        (Hop::InstanceTls, Fault::Garbage, "instance"),
        (Hop::InstanceTls, Fault::Close, "instance"),
        (Hop::InstanceLogin, Fault::Garbage, "instance"),
        (Hop::InstanceLogin, Fault::Close, "instance"),
        (Hop::InstanceLogin, Fault::Reset, "instance"),
    ];
    for (hop, fault, says) in cases {
        println!("{hop:?} {fault:?}");
        let prepared = Setup::default().prepare().await;
        prepared.cloud.faults().set(hop, fault);
        let chain = prepared.start().await;
        refused_by_psql(&chain, &chain.app(), Expected { sqlstate: "08006", says }).await;
        chain.cloud.faults().clear_all();
        until_let_in(&chain, &chain.app()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_leaves_for_a_server_that_is_not_the_instance() {
    for certificate in [ServerCertificate::OtherInstance, ServerCertificate::ForeignCa, ServerCertificate::Expired] {
        println!("{certificate:?}");
        let chain = Chain::start().await;
        chain.cloud.present(certificate);
        refused(&chain, &chain.app(), Expected { sqlstate: "08006", says: "not the instance's own" }).await;
        assert_eq!(chain.calls().count(Endpoint::InstanceStartup), 0);
        assert_eq!(chain.calls().count(Endpoint::InstancePassword), 0);
    }
    // The other right shape passes: a name in place of the common name.
    let chain = Chain::start().await;
    chain.cloud.present(ServerCertificate::DnsName);
    until_let_in(&chain, &chain.app()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_answers_nothing_but_a_request_for_a_cleartext_password() {
    for (name, method) in [("nothing at all", 0), ("MD5", 5), ("SASL", 10)] {
        println!("{name}");
        let chain = Chain::start().await;
        chain.cloud.faults().set(Hop::InstanceLogin, Fault::AskFor(method));
        refused(&chain, &chain.app(), Expected { sqlstate: "08006", says: "instance" }).await;
        assert_eq!(chain.calls().count(Endpoint::InstancePassword), 0, "the token was sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_instance_no_longer_takes_is_replaced() {
    let chain = Chain::start().await;
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
    chain.cloud.rotate_client_ca().expect("rotated");
    // One caller may meet the old certificate; the next must not.
    until_let_in(&chain, &chain.app()).await;
    assert_eq!(chain.calls().count(Endpoint::GenerateEphemeralCert), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_keys_that_the_issuer_publishes_now_count() {
    let prepared = Setup::default().prepare().await;
    let before = prepared.cloud.mint(&analyst()).expect("a token");
    prepared.cloud.roll_keys().expect("rolled");
    let chain = prepared.start().await;
    let old = Login { password: before.expose().clone(), ..chain.person() };
    refused(&chain, &old, Expected { sqlstate: "28P01", says: "key" }).await;
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_rolled_while_the_proxy_runs_are_followed_at_once() {
    let chain = Chain::start().await;
    let then = chain.person();
    assert_eq!(chain.query(&then, "select 1").await, "1");
    chain.cloud.roll_keys().expect("rolled");
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    refused(&chain, &then, Expected { sqlstate: "28P01", says: "key" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_whom_the_log_cannot_take() {
    let chain = Setup::default().limited(Limited::Later).start().await;
    chain.proxy.fill_disk(&chain.segment_path());
    let expected = Expected { sqlstate: "53100", says: "audit log" };
    let printed = chain.psql(&chain.person(), &["-c", "select 'must not run'"]).await;
    assert!(printed.refused().contains(expected.says), "{}", printed.err);
    let login = chain.app();
    let mut stream = chain.tls().await.expect("TLS");
    check(&chain.attempt(&mut stream, &login).await, &login, expected);
    assert_eq!(chain.calls().count(Endpoint::Sts), 0, "no token was exchanged");
    assert_eq!(chain.calls().count(Endpoint::InstanceConnection), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_the_log_cannot_take_does_not_reach_the_database() {
    let chain = Setup::default().limited(Limited::Later).start().await;
    chain.proxy.limit_files(16 * 1024);
    let session = chain.connect(&chain.person()).await;
    let mut refused = None;
    for n in 0..200 {
        let text = format!("select 'statement {n} {}'", "x".repeat(200));
        if let Err(error) = session.client.simple_query(&text).await {
            refused = Some((n, error));
            break;
        }
    }
    let (n, error) = refused.expect("the log is full before 200 statements");
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("53100"), "{error}");
    let again = session.client.simple_query("select 'the session lives, the log is still full'").await.unwrap_err();
    assert_eq!(again.code().map(tokio_postgres::error::SqlState::code), Some("53100"), "{again}");
    let log = chain.database_log();
    assert!(log.contains(&format!("statement {} ", n - 1)), "the one before it ran");
    assert!(!log.contains(&format!("statement {n} ")), "a statement ran that is not in the log");
    assert_eq!(chain.records().of("begin").len(), n, "every statement that ran is in the log, whole");
}

//! Both ways to an instance and both ways to log in there, all four: psql runs, whoever is not the instance learns
//! nothing, whoever is not the database user is refused, and cancels arrive.

use pgpassport::sim::world::{ANALYST, ORDERS_APP, TRAINEE};
use pgpassport::sim::{Endpoint, Fault, Hop, ServerCertificate, TokenSpec};
use proto_tests::chain::Setup;
use proto_tests::refusal::{Expected, refused, refused_by_psql};
use std::time::{Duration, Instant};

/// One way to an instance: lines of its section, and what they mean.
#[derive(Debug, Clone, Copy)]
struct Way {
    lines: &'static str,
    direct: bool,
    in_certificate: bool,
}

const WAYS: [Way; 4] = [
    Way { lines: "path = \"connector\"\nlogin = \"token-as-password\"", direct: false, in_certificate: false },
    Way { lines: "path = \"connector\"\nlogin = \"token-in-certificate\"", direct: false, in_certificate: true },
    Way {
        lines: "path = \"direct\"\nport = DIRECT_PORT\nlogin = \"token-as-password\"",
        direct: true,
        in_certificate: false,
    },
    Way {
        lines: "path = \"direct\"\nport = DIRECT_PORT\nlogin = \"token-in-certificate\"",
        direct: true,
        in_certificate: true,
    },
];

impl Way {
    fn setup(self) -> Setup {
        println!("{}", self.lines);
        Setup::default().instance(self.lines)
    }

    /// The database user comes from a claim that the pool does not map: the login token stays the analyst's.
    fn setup_with_foreign_user(self) -> Setup {
        self.setup().replace("subject_claim = \"upn\"", "subject_claim = \"employee\"")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_apps_arrive_as_themselves_on_every_way() {
    for way in WAYS {
        let chain = way.setup().start().await;
        let (person, app) = (chain.person(), chain.app());
        assert_eq!(chain.query(&person, "select session_user").await, ANALYST.upn);
        assert_eq!(chain.query(&app, "select session_user").await, ORDERS_APP.database_user);
        assert_eq!(chain.query(&person, "select 'again'").await, "again");
        let count = |endpoint| chain.calls().count(endpoint);
        assert_eq!(count(Endpoint::InstanceLogin), 3);
        assert_eq!(count(Endpoint::InstancePassword), if way.in_certificate { 0 } else { 3 });
        assert_eq!(count(Endpoint::InstanceTlsRequest), if way.direct { 3 } else { 0 });
        // The instance's own certificate, if one is shown at all, and one for each caller whose token is inside.
        let certificates = u64::from(!way.direct || way.in_certificate) + if way.in_certificate { 2 } else { 0 };
        assert_eq!(count(Endpoint::GenerateEphemeralCert), certificates);
        assert_eq!(count(Endpoint::ConnectSettings), 1);
        let again = chain.as_person(&ANALYST);
        assert_ne!(again.password, person.password);
        chain.query(&again, "select 1").await;
        assert_eq!(count(Endpoint::GenerateEphemeralCert), certificates + u64::from(way.in_certificate));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_the_instance_gets_no_token() {
    for way in WAYS {
        for certificate in [ServerCertificate::OtherInstance, ServerCertificate::ForeignCa, ServerCertificate::Expired]
        {
            println!("{certificate:?}");
            let chain = way.setup().start().await;
            chain.cloud.present(certificate);
            refused(&chain, &chain.app(), Expected { sqlstate: "08006", says: "not the instance's own" }).await;
            let count = |endpoint| chain.calls().count(endpoint);
            assert_eq!(count(Endpoint::InstanceConnection), 2, "it was dialled");
            assert_eq!(count(Endpoint::InstanceTlsRequest), if way.direct { 2 } else { 0 });
            // The client's certificate travels in the last flight of the handshake, after the server was checked.
            assert_eq!(count(Endpoint::InstanceHandshake), 0, "no client certificate was shown");
            assert_eq!((count(Endpoint::InstanceStartup), count(Endpoint::InstancePassword)), (0, 0));
        }
        // The other right shape passes: a name in place of the common name.
        let chain = way.setup().start().await;
        chain.cloud.present(ServerCertificate::DnsName);
        assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_nothing_is_said_on_the_direct_path() {
    for way in WAYS.into_iter().filter(|way| way.direct) {
        for (fault, says) in [(Fault::NoTls, "TLS"), (Fault::Garbage, "TLS"), (Fault::Close, "TLS")] {
            println!("{fault:?}");
            let chain = way.setup().start().await;
            chain.cloud.faults().set(Hop::InstanceTls, fault);
            refused(&chain, &chain.app(), Expected { sqlstate: "08006", says }).await;
            let count = |endpoint| chain.calls().count(endpoint);
            assert_eq!(count(Endpoint::InstanceTlsRequest), 2, "it was asked for");
            assert_eq!((count(Endpoint::InstanceStartup), count(Endpoint::InstancePassword)), (0, 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_another_principal_is_refused() {
    for way in WAYS {
        let chain = way.setup_with_foreign_user().start().await;
        let spec = TokenSpec::person(&ANALYST).claim("employee", TRAINEE.upn);
        let expected = Expected { sqlstate: "28000", says: "IAM user authentication failed for user \"trainee@" };
        refused(&chain, &chain.login(ANALYST.upn, &spec), expected).await;
        assert_eq!(chain.calls().count(Endpoint::InstanceLogin), 0);
        assert_eq!(chain.calls().count(Endpoint::InstancePassword), if way.in_certificate { 0 } else { 2 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_token_in_the_certificate_no_question_for_a_password_is_answered() {
    for way in WAYS {
        let chain = way.setup_with_foreign_user().start().await;
        // To the instance this is no IAM user: it asks for a password whatever the certificate carries.
        let spec = TokenSpec::person(&ANALYST).claim("employee", "nobody@contoso.example");
        let login = chain.login(ANALYST.upn, &spec);
        let sent = if way.in_certificate {
            refused(&chain, &login, Expected { sqlstate: "28000", says: "the token was not sent" }).await;
            0
        } else {
            refused(&chain, &login, Expected { sqlstate: "28P01", says: "password authentication failed" }).await;
            2
        };
        assert_eq!(chain.calls().count(Endpoint::InstanceStartup), 2);
        assert_eq!(chain.calls().count(Endpoint::InstancePassword), sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lets_in_without_asking_is_not_believed_when_the_token_is_the_password() {
    for way in WAYS.into_iter().filter(|way| !way.in_certificate) {
        for method in [0, 5, 10] {
            let chain = way.setup().start().await;
            chain.cloud.faults().set(Hop::InstanceLogin, Fault::AskFor(method));
            refused(&chain, &chain.app(), Expected { sqlstate: "08006", says: "instance" }).await;
            assert_eq!(chain.calls().count(Endpoint::InstancePassword), 0, "the token was sent");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancels_take_the_same_path_under_the_same_checks() {
    for way in WAYS {
        let chain = way.setup().start().await;
        let session = chain.connect(&chain.person()).await;
        let token = session.client.cancel_token();
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let stream = chain.tls().await.expect("TLS");
            token.cancel_query_raw(stream, tokio_postgres::NoTls).await.expect("sent");
        };
        let started = Instant::now();
        let (slept, ()) = tokio::join!(session.client.batch_execute("select pg_sleep(30)"), cancel);
        let code = slept.expect_err("cancelled");
        assert_eq!(code.code().map(tokio_postgres::error::SqlState::code), Some("57014"), "{code}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let count = |endpoint| chain.calls().count(endpoint);
        assert_eq!(count(Endpoint::InstanceCancel), 1);
        assert_eq!(count(Endpoint::InstanceTlsRequest), if way.direct { 2 } else { 0 });
        // Whoever answers at the instance's address with another's certificate does not get the cancel.
        chain.cloud.present(ServerCertificate::ForeignCa);
        let token = session.client.cancel_token();
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let stream = chain.tls().await.expect("TLS");
            token.cancel_query_raw(stream, tokio_postgres::NoTls).await.expect("sent");
        };
        let (slept, ()) = tokio::join!(session.client.batch_execute("select pg_sleep(2)"), cancel);
        assert_eq!(slept.ok(), Some(()), "what the cancel meant goes on");
        chain.records_when("the failed cancel", |all| all.of("cancel").with("outcome", "failed").len() == 1).await;
        assert_eq!(count(Endpoint::InstanceCancel), 1);
        assert_eq!(session.client.batch_execute("select 1").await.ok(), Some(()), "the session goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_certificate_that_the_instance_no_longer_takes_is_replaced() {
    for way in WAYS.into_iter().filter(|way| way.in_certificate) {
        let chain = way.setup().start().await;
        let login = chain.app();
        assert_eq!(chain.query(&login, "select 1").await, "1");
        chain.cloud.rotate_client_ca().expect("rotated");
        refused_by_psql(&chain, &login, Expected { sqlstate: "08006", says: "broke off the login" }).await;
        assert_eq!(chain.query(&login, "select 1").await, "1", "the next one gets a new certificate");
    }
}

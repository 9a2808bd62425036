//! The instance: who comes in, who does not, and that bytes pass unchanged.

use super::driver::{ClientIdentity, Driver, message, startup};
use crate::sim::world::{ANALYST, GUEST, MD5_USER, ORDERS_APP, SCRAM_USER, TRAINEE};
use crate::sim::{Endpoint, Fault, Hop};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn callers_arrive_as_themselves_and_nobody_is_a_superuser() {
    let driver = Driver::start().await;
    let identity = driver.client_identity(None).await;
    let person = driver.session(&identity, ANALYST.upn, &driver.person_login(&ANALYST).await).await;
    let app = driver.session(&identity, ORDERS_APP.database_user, &driver.app_login(&ORDERS_APP).await).await;
    for (client, user) in [(&person, ANALYST.upn), (&app, ORDERS_APP.database_user)] {
        let row = client
            .query_one(
                "/*caller='x'*/ SELECT session_user::text, count(*), current_setting('is_superuser') FROM orders",
                &[],
            )
            .await
            .unwrap();
        assert_eq!((row.get::<_, String>(0).as_str(), row.get::<_, i64>(1)), (user, 3));
        assert_eq!(row.get::<_, String>(2), "off");
        client
            .batch_execute("CREATE TEMP TABLE t (a int); CREATE TABLE scratch.t (a int); DROP TABLE scratch.t")
            .await
            .unwrap();
        for forbidden in ["CREATE TABLE public.t (a int)", "SET ROLE cloudsqladmin", "COPY orders TO '/tmp/x'"] {
            assert_eq!(
                client.batch_execute(forbidden).await.unwrap_err().code().unwrap().code(),
                "42501",
                "{forbidden}"
            );
        }
    }
    let log = std::fs::read_to_string(driver.cloud.postgres_log()).unwrap();
    assert!(log.contains("/*caller='x'*/ SELECT session_user"), "{log}");
}

#[tokio::test]
async fn logins_are_refused_with_cloud_sqls_words() {
    let driver = Driver::start().await;
    let identity = driver.client_identity(None).await;
    let (analyst, app) = (driver.person_login(&ANALYST).await, driver.app_login(&ORDERS_APP).await);
    let trainee = driver.person_login(&TRAINEE).await;
    let iam_user = |user: &str| format!("Cloud SQL IAM user authentication failed for user \"{user}\"");
    let account =
        format!("Cloud SQL IAM service account authentication failed for user \"{}\"", ORDERS_APP.database_user);
    let wrong_password = |user: &str| format!("password authentication failed for user \"{user}\"");
    for (user, token, sqlstate, text) in [
        (TRAINEE.upn, &trainee, "28000", iam_user(TRAINEE.upn)),
        (GUEST.upn, &analyst, "28000", iam_user(GUEST.upn)),
        (ORDERS_APP.database_user, &analyst, "28000", account),
        (ANALYST.upn, &app, "28000", iam_user(ANALYST.upn)),
        (ANALYST.upn, &"not a token".to_owned(), "28000", iam_user(ANALYST.upn)),
        (ORDERS_APP.service_account, &app, "28P01", wrong_password(ORDERS_APP.service_account)),
        ("nobody", &analyst, "28P01", wrong_password("nobody")),
        ("cloudsqladmin", &analyst, "28P01", wrong_password("cloudsqladmin")),
    ] {
        let refusal = driver.login(&identity, user, token).await.unwrap_or_else(|| panic!("{user} came in"));
        assert_eq!((refusal.sqlstate().as_str(), refusal.message()), (sqlstate, text));
    }
    assert_eq!(driver.cloud.calls().count(Endpoint::InstanceLogin), 0, "none of them reached PostgreSQL");
    driver.cloud.shift_clock(3700);
    let fresh = driver.client_identity(None).await;
    let refusal = driver.login(&fresh, ANALYST.upn, &analyst).await.unwrap();
    assert_eq!((refusal.sqlstate().as_str(), refusal.message()), ("28000", iam_user(ANALYST.upn)), "an expired token");
    assert!(driver.login(&fresh, ANALYST.upn, &driver.person_login(&ANALYST).await).await.is_none());
}

#[tokio::test]
async fn postgresql_itself_asks_built_in_users() {
    let driver = Driver::start().await;
    let token = driver.person_login(&ANALYST).await;
    for identity in [driver.client_identity(None).await, driver.client_identity(Some(&token)).await] {
        for (user, method) in [("postgres", 10), (SCRAM_USER.name, 10), (MD5_USER.name, 5)] {
            let mut stream = driver.dial(&identity).await;
            stream.write_all(&startup(&[("user", user), ("database", "orders")])).await.unwrap();
            let (kind, body) = message(&mut stream).await;
            assert_eq!((kind, &body[..4]), (b'R', [0, 0, 0, method].as_slice()), "{user}");
        }
    }
    assert_eq!(driver.cloud.calls().count(Endpoint::InstancePassword), 0, "the simulator sees no password");
}

#[tokio::test]
async fn a_certificate_may_carry_the_login() {
    let driver = Driver::start().await;
    let token = driver.person_login(&ANALYST).await;
    let identity = driver.client_identity(Some(&token)).await;
    assert!(driver.login(&identity, ANALYST.upn, "").await.is_none());
    assert_eq!(driver.cloud.calls().count(Endpoint::InstancePassword), 0, "it was not asked for a password");
    let refusal = driver.login(&identity, ORDERS_APP.database_user, "").await.unwrap();
    assert_eq!(refusal.sqlstate(), "28000", "another principal's user");
    assert_eq!(driver.login(&identity, "nobody", &token).await.unwrap().sqlstate(), "28P01");
}

#[tokio::test]
async fn client_certificates_are_refused_by_an_alert_after_the_handshake() {
    let driver = Driver::start().await;
    let identity = driver.client_identity(None).await;
    let alert = async |identity: &ClientIdentity| {
        let mut stream = driver.dial(identity).await;
        let _ = stream.write_all(&startup(&[("user", ANALYST.upn)])).await;
        stream.read_u8().await.unwrap_err().to_string()
    };
    driver.cloud.shift_clock(3700);
    let text = alert(&identity).await;
    assert!(text.to_lowercase().contains("expired"), "{text}");
    driver.cloud.shift_clock(0);
    let foreign = foreign_identity();
    let text = alert(&foreign).await;
    assert!(text.contains("UnknownCA") || text.contains("alert"), "{text}");
    driver.cloud.rotate_client_ca().unwrap();
    let text = alert(&identity).await;
    assert!(text.contains("alert"), "{text}");
    let calls = driver.cloud.calls();
    assert_eq!((calls.count(Endpoint::InstanceConnection), calls.count(Endpoint::InstanceHandshake)), (3, 0));
}

#[tokio::test]
async fn large_values_and_cancels_pass_through() {
    let driver = Driver::start().await;
    let identity = driver.client_identity(None).await;
    let client = driver.session(&identity, ANALYST.upn, &driver.person_login(&ANALYST).await).await;
    let large = "x".repeat(20 * 1024 * 1024);
    let row = client.query_one("SELECT $1::text, length($1::text)", &[&large]).await.unwrap();
    assert!(row.get::<_, String>(0) == large && row.get::<_, i32>(1) == 20 * 1024 * 1024);
    let cancel = client.cancel_token();
    let (slept, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let stream = driver.dial(&identity).await;
        cancel.cancel_query_raw(stream, tokio_postgres::NoTls).await.unwrap();
    });
    assert_eq!(slept.unwrap_err().code().unwrap().code(), "57014");
    assert_eq!(driver.cloud.calls().count(Endpoint::InstanceCancel), 1);
}

#[tokio::test]
async fn encryption_requests_inside_are_declined_and_faults_obeyed() {
    let driver = Driver::start().await;
    let identity = driver.client_identity(None).await;
    let mut stream = driver.dial(&identity).await;
    for code in [crate::wire::SSL_REQUEST, crate::wire::GSSENC_REQUEST] {
        stream.write_all(&[8u32.to_be_bytes(), code.to_be_bytes()].concat()).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
    }
    driver.cloud.faults().set(Hop::InstanceLogin, Fault::AskFor(10));
    let packet = startup(&[("user", ANALYST.upn)]);
    let mut asked = driver.dial(&identity).await;
    asked.write_all(&packet).await.unwrap();
    assert_eq!(message(&mut asked).await, (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec()));
    driver.cloud.faults().set(Hop::InstanceLogin, Fault::Status(503));
    let mut refused = driver.dial(&identity).await;
    refused.write_all(&packet).await.unwrap();
    let (kind, body) = message(&mut refused).await;
    let fields = crate::wire::ErrorFields::decode(&body).unwrap();
    assert_eq!((kind, fields.sqlstate().as_str()), (b'E', "57P03"));
    driver.cloud.faults().set(Hop::InstanceTcp, Fault::Refuse);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let address = driver.cloud.instance_address();
    let error = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

fn foreign_identity() -> ClientIdentity {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    ClientIdentity {
        certificate: CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap(),
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
    }
}

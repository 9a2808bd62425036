//! Google's Cloud SQL connectors, with IAM and without, through the simulated Admin API and instance.

use crate::cell::{Cell, Expect, Row};
use crate::google_auth::{impersonation, workforce, workload};
use pgpassport::sim::world::{ANALYST, DATABASE, GUEST, INSTANCE, MD5_USER, ORDERS_APP, Person, SCRAM_USER, TRAINEE};
use pgpassport::sim::{Cloud, CloudOptions, Endpoint, ServerCertificate, TokenSpec};
use proto_tests::stranger::{Stranger, with};
use serde_json::{Value, json};

/// Beyond the hour that an ephemeral certificate is valid, in seconds.
const AN_HOUR_LATER: i64 = 3700;
const CLIENT_ROLE: &str = "roles/cloudsql.client";

/// A connector with a driver, and what it says when it is refused.
#[derive(Debug)]
pub struct Driver {
    name: &'static str,
    /// As its script calls it.
    module: &'static str,
    start: fn(&Cloud) -> Stranger,
    missing_role: &'static [&'static str],
    /// The instance refuses the login: Cloud SQL's words, in this driver's exception.
    refused: &'static str,
    wrong_password: &'static [&'static str],
    expired: &'static [&'static str],
    foreign_client: &'static [&'static str],
    foreign_server: &'static [&'static str],
    wrong_name: Expect,
}

const CHAIN_ONLY: Expect = Expect::Unchecked("connects: this connector verifies the server's chain and no name");
const NOT_AUTHORIZED: &str = "The client is not authorized to make this request.";

/// Python, asyncpg.
pub const ASYNCPG: Driver = Driver {
    name: "cloud-sql-python-connector, asyncpg",
    module: "asyncpg",
    start: Stranger::python,
    missing_role: &["ClientResponseError", "403", NOT_AUTHORIZED],
    refused: "InvalidAuthorizationSpecificationError",
    wrong_password: &["InvalidPasswordError", "password authentication failed"],
    expired: &["ConnectionDoesNotExistError"],
    foreign_client: &["ConnectionDoesNotExistError"],
    foreign_server: &["SSLCertVerificationError"],
    wrong_name: CHAIN_ONLY,
};

/// Python, pg8000.
pub const PG8000: Driver = Driver {
    name: "cloud-sql-python-connector, pg8000",
    module: "pg8000",
    start: Stranger::python,
    missing_role: &["ClientResponseError", "403", NOT_AUTHORIZED],
    refused: "28000",
    wrong_password: &["28P01", "password authentication failed"],
    expired: &["certificate expired"],
    foreign_client: &["alert"],
    foreign_server: &["SSLCertVerificationError"],
    wrong_name: CHAIN_ONLY,
};

/// Python, psycopg.
pub const PSYCOPG: Driver = Driver {
    name: "cloud-sql-python-connector, psycopg",
    module: "psycopg",
    start: Stranger::python,
    missing_role: &["ClientResponseError", "403", NOT_AUTHORIZED],
    refused: "OperationalError",
    wrong_password: &["OperationalError", "password authentication failed"],
    expired: &["OperationalError", "server closed the connection unexpectedly"],
    foreign_client: &["OperationalError", "server closed the connection unexpectedly"],
    foreign_server: &["SSLCertVerificationError"],
    wrong_name: CHAIN_ONLY,
};

/// Node, node-postgres.
pub const NODE: Driver = Driver {
    name: "@google-cloud/cloud-sql-connector, node-postgres",
    module: "pg",
    start: Stranger::node,
    missing_role: &["403", NOT_AUTHORIZED],
    refused: "28000",
    wrong_password: &["28P01", "password authentication failed"],
    expired: &["certificate expired"],
    foreign_client: &["alert"],
    foreign_server: &["SELF_SIGNED_CERT_IN_CHAIN"],
    wrong_name: Expect::Refused(&["EBADSQLADMINVERIFYCERT"]),
};

/// Fills the driver's cells.
pub async fn run(driver: &'static Driver) -> Vec<Cell> {
    let cloud = Cloud::start(CloudOptions::default()).await.expect("a cloud");
    for person in [ANALYST, TRAINEE] {
        cloud.grant(CLIENT_ROLE, &principal(&person), None);
    }
    cloud.grant(CLIENT_ROLE, &format!("serviceAccount:{}", ORDERS_APP.service_account), None);
    let mut connector = Connector { driver, stranger: (driver.start)(&cloud), cloud: &cloud, cells: Vec::new() };
    connector.logins().await;
    connector.refusals().await;
    connector.client_certificates().await;
    connector.server_certificates().await;
    let Connector { cells, stranger, .. } = connector;
    drop(stranger);
    cloud.shutdown().await;
    cells
}

struct Connector<'a> {
    driver: &'static Driver,
    stranger: Stranger,
    cloud: &'a Cloud,
    cells: Vec<Cell>,
}

impl Connector<'_> {
    async fn logins(&mut self) {
        let (app, analyst) = (self.app(), self.person(&ANALYST));
        self.open("IAM, a person of the workforce pool", analyst.clone(), Expect::Works(ANALYST.upn)).await;
        self.open("IAM, a service account", app, Expect::Works(ORDERS_APP.database_user)).await;
        for (act, user) in [("a password, SCRAM", SCRAM_USER), ("a password, MD5", MD5_USER)] {
            let login = with(&analyst, json!({ "user": user.name, "password": user.password }));
            self.open(act, login, Expect::Works(user.name)).await;
        }
    }

    async fn refusals(&mut self) {
        let analyst = self.person(&ANALYST);
        let guest = self.person(&GUEST);
        self.open("missing role, cloudsql.client", guest, Expect::Refused(self.driver.missing_role)).await;
        let texts = self.login_refused(TRAINEE.upn);
        let trainee = self.person(&TRAINEE);
        self.open("missing role, cloudsql.instanceUser", trainee, Expect::Refused(texts)).await;
        let texts = self.login_refused(GUEST.upn);
        let other = with(&analyst, json!({ "user": GUEST.upn }));
        self.open("wrong user", other, Expect::Refused(texts)).await;
        let wrong = with(&analyst, json!({ "user": SCRAM_USER.name, "password": "wrong" }));
        self.open("wrong password", wrong, Expect::Refused(self.driver.wrong_password)).await;
    }

    /// Certificates that the connector holds, and that the instance does not take any more.
    async fn client_certificates(&mut self) {
        let analyst = self.person(&ANALYST);
        self.open("holds a certificate", analyst.clone(), Expect::Works(ANALYST.upn)).await;
        self.cloud.shift_clock(AN_HOUR_LATER);
        self.refused_by_tls("expired certificate", &analyst, self.driver.expired).await;
        self.cloud.shift_clock(0);
        self.open("holds a certificate", analyst.clone(), Expect::Works(ANALYST.upn)).await;
        self.cloud.rotate_client_ca().expect("a new CA");
        self.refused_by_tls("foreign client certificate", &analyst, self.driver.foreign_client).await;
    }

    async fn server_certificates(&mut self) {
        let analyst = self.person(&ANALYST);
        self.cloud.present(ServerCertificate::ForeignCa);
        self.open("foreign server CA", analyst.clone(), Expect::Refused(self.driver.foreign_server)).await;
        self.cloud.present(ServerCertificate::OtherInstance);
        self.open("wrong server name", analyst.clone(), self.driver.wrong_name).await;
        self.cloud.present(ServerCertificate::DnsName);
        self.open("a server name with a trailing dot", analyst, Expect::Works(ANALYST.upn)).await;
    }

    /// A new connector connects.
    async fn open(&mut self, act: &'static str, login: Value, expect: Expect) {
        self.fill(act, with(&login, json!({ "act": "open" })), expect).await;
    }

    /// The connector that is open connects again, with the certificate that it holds: the instance takes the
    /// connection and ends it in the handshake. (asyncpg and psycopg hide TLS's own words.)
    async fn refused_by_tls(&mut self, act: &'static str, login: &Value, texts: &'static [&'static str]) {
        let calls = self.cloud.calls();
        calls.reset();
        self.fill(act, with(login, json!({ "act": "connect" })), Expect::Refused(texts)).await;
        assert!(calls.count(Endpoint::InstanceConnection) > 0, "{act}: it did not come to the instance");
        assert_eq!(calls.count(Endpoint::InstanceHandshake), 0, "{act}: the instance took its certificate");
    }

    async fn fill(&mut self, act: &'static str, request: Value, expect: Expect) {
        let row = Row { client: self.driver.name, act, request, expect };
        self.cells.push(row.fill(&mut self.stranger).await);
    }

    fn login_refused(&self, user: &str) -> &'static [&'static str] {
        let text = format!("Cloud SQL IAM user authentication failed for user \"{user}\"");
        Vec::leak(vec![self.driver.refused, text.leak()])
    }

    fn person(&self, person: &Person) -> Value {
        self.request(&TokenSpec::person(person), person.upn, workforce(self.cloud))
    }

    fn app(&self) -> Value {
        let credentials = with(&workload(self.cloud), impersonation(self.cloud, ORDERS_APP.service_account));
        self.request(&TokenSpec::app(&ORDERS_APP), ORDERS_APP.database_user, credentials)
    }

    fn request(&self, spec: &TokenSpec, user: &str, credentials: Value) -> Value {
        json!({
            "client": "connector", "driver": self.driver.module, "sqladmin": self.cloud.sql_admin_url(),
            "instance": INSTANCE, "user": user, "database": DATABASE, "credentials": credentials,
            "subject_token": self.cloud.mint(spec).expect("a token").expose().as_str(),
        })
    }
}

fn principal(person: &Person) -> String {
    format!("principal://iam.googleapis.com/locations/global/workforcePools/contoso/subject/{}", person.upn)
}

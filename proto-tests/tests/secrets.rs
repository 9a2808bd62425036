//! No secret leaks: the whole chain at TRACE, every dependency's spans included, and none of the tokens, assertions
//! or keys that were in use shows in output, records or errors.

use pgpassport::sim::world::{ANALYST, BYSTANDER, INSTANCE, ORDERS_APP};
use pgpassport::sim::{Endpoint, Fault, Hop, TokenSpec};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;

/// Beginnings that every token or key of the chain has, those included that no test ever sees: JWTs (callers' tokens,
/// the proxy's own assertion), Google access tokens, PEM private keys.
const SHAPES: [&str; 3] = ["eyJ", "ya29.", "PRIVATE KEY"];

/// A statement whose text must be in the records: proof that the search reads the right files.
const MARK: &str = "select 'a mark that must be seen'";

/// What goes wrong on the way, each with a token in its hands.
const FAULTS: [(Hop, Fault); 6] = [
    (Hop::Sts, Fault::Status(400)),
    (Hop::Sts, Fault::Garbage),
    (Hop::IamCredentials, Fault::Status(403)),
    (Hop::InstanceLogin, Fault::Status(503)),
    (Hop::InstanceLogin, Fault::AskFor(5)),
    (Hop::InstanceTls, Fault::Reset),
];

/// Everything that must not show.
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn of(chain: &Chain, logins: &[&Login]) -> Self {
        let mut all: Vec<(String, String)> =
            SHAPES.iter().map(|shape| ("a secret's shape".to_owned(), (*shape).to_owned())).collect();
        for login in logins {
            let parts = login.password.split('.').filter(|part| part.len() > 16);
            all.extend(parts.map(|part| (format!("a part of {}'s token", login.user), part.to_owned())));
        }
        let (_, key) = chain.cloud.listener_certificate();
        let pem = std::fs::read_to_string(key).expect("the listener's key");
        all.extend(
            pem.lines().filter(|line| line.len() > 40).map(|line| ("the listener's key".to_owned(), line.to_owned())),
        );
        all.push(("IDENTITY_HEADER".to_owned(), chain.cloud.identity_header().to_owned()));
        Self(all)
    }

    fn found_in<'a>(&'a self, text: &str) -> Vec<&'a str> {
        self.0.iter().filter(|(_, secret)| text.contains(secret.as_str())).map(|(name, _)| name.as_str()).collect()
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, text: &str) {
        let found = self.found_in(text);
        if found.is_empty() {
            return;
        }
        let lines: Vec<&str> = text.lines().filter(|line| !self.found_in(line).is_empty()).take(3).collect();
        panic!("{found:?} in {place}:\n{}", lines.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_shows_at_trace_in_any_outcome() {
    let chain = Setup::default().environment("RUST_LOG", "trace").start().await;
    let (person, app) = (chain.person(), chain.app());
    // What a token has bought is kept: each fault meets a token of its own.
    let apps = FAULTS.map(|_| chain.app());
    let logins: Vec<&Login> = [&person, &app].into_iter().chain(&apps).collect();
    let secrets = Secrets::of(&chain, &logins);
    let mut told = String::new();

    // Both kinds of grant, and every refusal that has a token in its hands.
    chain.query(&person, MARK).await;
    chain.query(&app, MARK).await;
    for login in [
        Login { user: "postgres".to_owned(), ..person.clone() },
        Login { database: "nowhere".to_owned(), ..person.clone() },
        Login { password: format!("{}x", person.password), ..person.clone() },
        Login { password: person.password.replace('.', "-"), ..person.clone() },
        Login { user: person.password.clone(), ..person.clone() },
        Login { database: person.password.clone(), ..person.clone() },
    ] {
        told.push_str(chain.psql(&login, &["-c", "select 1"]).await.refused());
    }
    for ((hop, fault), app) in FAULTS.into_iter().zip(&apps) {
        chain.cloud.faults().set(hop, fault);
        told.push_str(chain.psql(app, &["-c", "select 1"]).await.refused());
        chain.cloud.faults().clear_all();
    }
    assert!(told.contains("postgres") && told.contains("nowhere"));
    secrets.assert_absent("what clients were told", &told);
    secrets.assert_absent_everywhere(chain).await;
    // And it would see each one.
    for (name, secret) in &secrets.0 {
        assert_eq!(
            secrets.found_in(&format!("line one\n… {secret} …")).first(),
            Some(&secrets.name_of(secret)),
            "{name}"
        );
    }
}

/// The credentials that the first test does not have: a service account's key file, tokens inside certificates, and the
/// one for Microsoft Graph.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_shows_at_trace_of_the_other_credentials() {
    let prepared = Setup::default()
        .environment("RUST_LOG", "trace")
        .replace("[issuer.contoso]", "[issuer.contoso]\ngroups_overage = \"graph\"\ngraph = \"GRAPH\"")
        .replace(
            &format!("[instance.\"{INSTANCE}\"]"),
            &format!("[instance.\"{INSTANCE}\"]\nlogin = \"token-in-certificate\""),
        )
        .prepare()
        .await;
    let graph = prepared.cloud.graph_url().to_owned();
    let key_file = prepared.cloud.service_account_key().expect("a key");
    let chain = prepared.replace("GRAPH", &graph).with_service_account_key(&key_file).start().await;
    let crowded = TokenSpec::person(&ANALYST).without("groups").claim("hasgroups", true);
    let (person, app) = (chain.login(ANALYST.upn, &crowded), chain.app());
    let mut secrets = Secrets::of(&chain, &[&person, &app]);
    let key = std::fs::read_to_string(&key_file).expect("the key file");
    let lines =
        key.split("\\n").filter(|line| line.len() == 64).map(|line| ("the account's key".to_owned(), line.to_owned()));
    secrets.0.extend(lines);
    assert!(secrets.0.iter().any(|(name, _)| name == "the account's key"), "the key file was not read");
    // A certificate carries its caller's token.
    secrets.0.push(("a certificate".to_owned(), "BEGIN CERTIFICATE".to_owned()));

    let mut told = String::new();
    chain.query(&person, MARK).await;
    chain.query(&app, MARK).await;
    for endpoint in [Endpoint::Graph, Endpoint::ServiceAccountToken, Endpoint::GenerateEphemeralCert] {
        assert!(chain.calls().count(endpoint) > 0, "{endpoint:?} was not in use");
    }
    for (hop, fault) in
        [(Hop::SqlAdmin, Fault::Status(403)), (Hop::SqlAdmin, Fault::Garbage), (Hop::Sts, Fault::Garbage)]
    {
        chain.cloud.faults().set(hop, fault);
        let again = chain.login(ORDERS_APP.database_user, &TokenSpec::app(&ORDERS_APP));
        told.push_str(chain.psql(&again, &["-c", "select 1"]).await.refused());
        chain.cloud.faults().clear_all();
    }
    chain.cloud.faults().set(Hop::Graph, Fault::Garbage);
    let other = TokenSpec::person(&BYSTANDER).without("groups").claim("hasgroups", true);
    told.push_str(chain.psql(&chain.login(BYSTANDER.upn, &other), &["-c", "select 1"]).await.refused());
    secrets.assert_absent("what clients were told", &told);
    secrets.assert_absent_everywhere(chain).await;
}

impl Secrets {
    /// Ends the proxy and looks through all that it leaves: output, records, metrics, and what the database logged.
    async fn assert_absent_everywhere(&self, mut chain: Chain) {
        let (status, metrics) = chain.proxy.get("/metrics").await.expect("metrics");
        assert!(status == 200 && metrics.contains("# TYPE"), "these are no metrics: {metrics}");
        chain.proxy.terminate();
        let ended = chain.proxy.ended().await;
        let log = chain.everything_recorded();
        self.assert_absent("the proxy's output", &ended.output);
        self.assert_absent("the records", &log);
        self.assert_absent("the metrics", &metrics);
        self.assert_absent("the database's log", &chain.database_log());
        // The search reads what it must: records and the database's log hold the mark, the output is at TRACE,
        // dependencies and all.
        assert!(log.contains("a mark that must be seen") && chain.database_log().contains("a mark that must be seen"));
        let traced = |crate_name: &str| {
            ended.output.lines().filter(|line| line.contains("TRACE") && line.contains(crate_name)).count()
        };
        assert!(
            traced("hyper_util") > 0,
            "no dependency was traced:\n{}",
            &ended.output[..ended.output.len().min(2000)]
        );
    }

    /// The name under which the search reports a text that is this secret: the first that it contains.
    fn name_of(&self, secret: &str) -> &str {
        self.0.iter().find(|(_, known)| secret.contains(known.as_str())).map_or("", |(name, _)| name)
    }
}

/// Statements are recorded whole, so a secret in one is there: the search does find what was leaked on purpose.
#[tokio::test(flavor = "multi_thread")]
async fn the_search_finds_a_token_that_a_client_puts_into_a_statement() {
    let chain = Chain::start().await;
    let login = chain.login(ANALYST.upn, &TokenSpec::person(&ANALYST));
    let secrets = Secrets::of(&chain, &[&login]);
    let payload = login.password.split('.').nth(1).expect("three parts").to_owned();
    chain.query(&login, &format!("select '{payload}'")).await;
    let log = chain.everything_recorded();
    assert!(secrets.found_in(&log).iter().any(|name| name.contains("token")), "the search is blind");
    let app = chain.app();
    assert!(Secrets::of(&chain, &[&app]).found_in(&app.password).len() >= 3, "{}", ORDERS_APP.client_id);
}

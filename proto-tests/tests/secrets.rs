//! No secret leaks: the whole chain at TRACE, every dependency's spans included, and none of the tokens, assertions
//! or keys that were in use shows in output, records or errors.

use pgpassport::sim::world::{ANALYST, ORDERS_APP};
use pgpassport::sim::{Fault, Hop};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;

/// Beginnings that every token or key of the chain has, those included that no test ever sees: JWTs (callers' tokens,
/// the proxy's own assertion), Google access tokens, PEM private keys.
const SHAPES: [&str; 3] = ["eyJ", "ya29.", "PRIVATE KEY"];

/// A statement whose text must be in the records: proof that the search reads the right files.
const MARK: &str = "select 'a mark that must be seen'";

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
    let secrets = Secrets::of(&chain, &[&person, &app]);
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
    for (hop, fault) in [
        (Hop::Sts, Fault::Status(400)),
        (Hop::Sts, Fault::Garbage),
        (Hop::IamCredentials, Fault::Status(403)),
        (Hop::InstanceLogin, Fault::Status(503)),
        (Hop::InstanceLogin, Fault::AskFor(5)),
        (Hop::InstanceTls, Fault::Reset),
    ] {
        chain.cloud.faults().set(hop, fault);
        told.push_str(chain.psql(&app, &["-c", "select 1"]).await.refused());
        chain.cloud.faults().clear_all();
    }
    let mut chain = chain;
    chain.proxy.terminate();
    let ended = chain.proxy.ended().await;
    let log = std::fs::read_to_string(chain.audit_path()).expect("the log");

    secrets.assert_absent("the proxy's output", &ended.output);
    secrets.assert_absent("the records", &log);
    secrets.assert_absent("what clients were told", &told);
    secrets.assert_absent("the metrics and the database's log", &chain.database_log());

    // The search reads what it must: the records hold the mark, the output is at TRACE, dependencies and all.
    assert!(log.contains("a mark that must be seen"));
    let traced = |crate_name: &str| {
        ended.output.lines().filter(|line| line.contains("TRACE") && line.contains(crate_name)).count()
    };
    assert!(traced("hyper_util") > 0, "no dependency was traced:\n{}", &ended.output[..ended.output.len().min(2000)]);
    assert!(told.contains("postgres") && told.contains("nowhere"));
    // And it would see each one.
    for (name, secret) in &secrets.0 {
        assert_eq!(
            secrets.found_in(&format!("line one\n… {secret} …")).first(),
            Some(&secrets.name_of(secret)),
            "{name}"
        );
    }
}

impl Secrets {
    /// The name under which the search reports a text that is this secret: the first that it contains.
    fn name_of(&self, secret: &str) -> &str {
        self.0.iter().find(|(_, known)| secret.contains(known.as_str())).map_or("", |(name, _)| name)
    }
}

/// Statements are recorded whole, so a secret in one is there: the search does find what was leaked on purpose.
#[tokio::test(flavor = "multi_thread")]
async fn the_search_finds_a_token_that_a_client_puts_into_a_statement() {
    let chain = Chain::start().await;
    let login = chain.login(ANALYST.upn, &pgpassport::sim::TokenSpec::person(&ANALYST));
    let secrets = Secrets::of(&chain, &[&login]);
    let payload = login.password.split('.').nth(1).expect("three parts").to_owned();
    chain.query(&login, &format!("select '{payload}'")).await;
    let log = std::fs::read_to_string(chain.audit_path()).expect("the log");
    assert!(secrets.found_in(&log).iter().any(|name| name.contains("token")), "the search is blind");
    let app = chain.app();
    assert!(Secrets::of(&chain, &[&app]).found_in(&app.password).len() >= 3, "{}", ORDERS_APP.client_id);
}

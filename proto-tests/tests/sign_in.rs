//! A developer's first minute: `pgpassport token` and `pgpassport psql`, every way to sign in, and every error in words.

use pgpassport::sim::world::{
    ANALYST, BYSTANDER, CONTOSO, DATABASE, ORDERS_APP, ORDERS_JOB, PLAIN_API_URI, PROJECT_NUMBER, PROXY_API,
    PROXY_API_URI, SIGN_IN_CLIENT, WORKLOAD_PROVIDER,
};
use pgpassport::sim::{Cloud, CloudOptions, Endpoint, Fault, Hop, TokenSpec};
use proto_tests::chain::{Chain, Setup};
use proto_tests::client::{Person, browser};
use std::net::Ipv4Addr;
use tokio::net::{TcpListener, TcpStream};

const BAD_SETTINGS: i32 = 78;
/// psql's own code when the server refuses.
const NO_CONNECTION: i32 = 2;

/// Settings for everything but `via`.
fn settings(chain: &Chain) -> String {
    let port = chain.proxy.address().port();
    let ca = chain.cloud.ca_path().display();
    format!(
        "{}\n[database.orders]\nhost = \"localhost\"\nport = {port}\nca_certificate = \"{ca}\"\n",
        entra(&chain.cloud)
    )
}

/// Settings for signing in.
fn entra(cloud: &Cloud) -> String {
    let (tenant, ca, authority) = (CONTOSO.id, cloud.ca_path().display(), cloud.entra_authority());
    format!(
        "tenant = \"{tenant}\"\nclient_id = \"{SIGN_IN_CLIENT}\"\nscope = \"{PROXY_API_URI}/.default\"\n\
         authority = \"{authority}\"\nhttps_ca_certificate = \"{ca}\"\n"
    )
}

async fn cloud() -> Cloud {
    Cloud::start(CloudOptions::default()).await.expect("the simulated cloud starts")
}

/// The claims of a printed token.
fn claims(token: &str) -> serde_json::Value {
    jsonwebtoken::dangerous::insecure_decode_claims(token).expect("a token")
}

fn minted(chain: &Chain, spec: &TokenSpec) -> String {
    chain.cloud.mint(spec).expect("minted").expose().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_signs_a_person_in_with_a_browser_and_they_arrive_as_themselves() {
    let chain = Chain::start().await;
    let person = Person::new();
    person.settings(&settings(&chain));
    let mut running = person.start(&["psql", "orders", "--via", "device", "--", "-At", "-c", "select session_user"]);
    let (page, code) = running.prompt().await;
    browser(&chain.cloud, &page, &code, ANALYST.upn, "approve").await;
    let said = running.ended().await;
    assert_eq!(said.well(), ANALYST.upn);
    assert_eq!(said.err, "", "nothing but the prompt is told");
    let records = chain.records_when("the query", |records| !records.of("end").is_empty()).await;
    assert!(!records.of("end").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_takes_the_azure_clis_token_and_sends_it_nowhere_else() {
    let chain = Chain::start().await;
    let person = Person::new();
    let token = minted(&chain, &TokenSpec::person(&ANALYST));
    person.az(&token);
    person.settings(&settings(&chain));
    let psql = async |arguments: &[&str]| {
        person
            .run(&[&["psql", "orders", "--via", "az", "--", "-At", "-c", "select session_user"], arguments].concat())
            .await
    };
    assert_eq!(psql(&[]).await.well(), ANALYST.upn);
    let asked = format!("account get-access-token --scope {PROXY_API_URI}/.default --tenant {} -o json\n", CONTOSO.id);
    assert_eq!(person.asked("az"), asked);
    // An eavesdropper that arguments name is never connected to.
    let trap = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = trap.local_addr().expect("bound").port().to_string();
    let elsewhere = format!("host=127.0.0.1 port={port} sslmode=disable");
    for arguments in [&["-h", "127.0.0.1", "-p", &port, "-U", "other"][..], &["-d", &elsewhere], &[&elsewhere]] {
        assert_eq!(psql(arguments).await.well(), ANALYST.upn, "{arguments:?}");
    }
    let caught = tokio::time::timeout(std::time::Duration::from_millis(200), trap.accept()).await;
    assert!(caught.is_err(), "a connection went elsewhere");
    let said = psql(&["--", &elsewhere]).await;
    assert!(said.failed(2).contains("another --"), "{said:?}");
    // What a program that psql is sees: the token in its environment, and on no command line.
    person.program("psql", "printf '%s' \"$PGPASSWORD\" >\"$HOME/password\"");
    assert_eq!(psql(&[]).await.code, 0);
    let password = std::fs::read_to_string(person.programs().with_file_name("password")).expect("written");
    assert!(password == token, "the password is not the token");
    let asked = person.asked("psql");
    assert!(asked.contains("sslmode='verify-full'") && !asked.contains(&token), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_says_in_words_what_is_wrong_before_anybody_signs_in() {
    let chain = Chain::start().await;
    let other = cloud().await;
    let address = chain.proxy.address();
    // The proxy by an address that its certificate does not have.
    let alias = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), 0)).await.expect("a port");
    let alias_port = alias.local_addr().expect("bound").port().to_string();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = alias.accept().await {
            let mut to = TcpStream::connect(address).await.expect("the proxy accepts");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let plain = chain.proxy.admin().port().to_string();
    let foreign = other.ca_path().to_str().expect("UTF-8").to_owned();
    let person = Person::new();
    person.az("never.asked.for");
    let path = person.settings(&settings(&chain));
    for (arguments, code, words, next) in [
        (&["orders", "--port", "1"][..], 1, "the proxy at localhost:1 cannot be reached: Connection refused", "VPN"),
        (&["orders", "--host", "nowhere.invalid"], 1, "the proxy at nowhere.invalid:", "check `host` and `port`"),
        (&["orders", "--port", &plain], 1, "is no PostgreSQL server with TLS", "`port`"),
        (&["orders", "--ca-certificate", &foreign], 1, "is not signed by a CA of ", "`ca_certificate`"),
        (&["orders", "--host", "127.0.0.3", "--port", &alias_port], 1, "is not for the name \"127.0.0.3\"", "`host`"),
        (&["orders", "--ca-certificate", "/none.pem"], 2, "/none.pem cannot be read", ""),
        (&["odrers"], BAD_SETTINGS, "has no [database.odrers]; did you mean \"orders\"?", ""),
    ] {
        let said = person.run(&[&["psql", "--via", "az"], arguments].concat()).await;
        let err = said.failed(code);
        assert!(err.contains(words) && err.contains(next), "{arguments:?}: {err}");
    }
    let said = person.run(&["psql", "orders"]).await;
    assert!(said.failed(BAD_SETTINGS).contains("needs via (--via)"), "{said:?}");
    // No psql: the path has az alone.
    let mut without = Person::new();
    without.az("never.asked.for");
    without.set("PATH", without.programs().to_str().expect("UTF-8"));
    without.set("PGPASSPORT_CLIENT_CONFIG", path.to_str().expect("UTF-8"));
    let said = without.run(&["psql", "orders", "--via", "az"]).await;
    assert!(said.failed(1).contains("psql is not installed") && said.err.contains("postgresql-client"), "{said:?}");
    assert_eq!(person.asked("az") + &without.asked("az"), "", "somebody signed in for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_shows_the_proxys_refusal_with_its_next_step() {
    let chain = Chain::start().await;
    let person = Person::new();
    // No entries: the proxy knows the names.
    person.settings(&settings(&chain).replace("[database.orders]\n", ""));
    person.az(&minted(&chain, &TokenSpec::person(&BYSTANDER)));
    for (database, words) in [("orders", "no rule gives"), ("payroll", "payroll")] {
        let said = person.run(&["psql", database, "--via", "az", "--", "-c", "select 1"]).await;
        let err = said.failed(NO_CONNECTION);
        assert!(err.contains(words) && err.contains("HINT:") && err.contains("correlation id"), "{err}");
    }
    person.az(&minted(&chain, &TokenSpec::person(&ANALYST)));
    let said = person.run(&["psql", "orders", "--via", "az", "--user", "other@contoso.example"]).await;
    assert!(said.failed(NO_CONNECTION).contains("contradicts the token"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_prints_the_token_alone_and_says_the_rest_beside_it() {
    let cloud = cloud().await;
    let person = Person::new();
    person.settings(&entra(&cloud));
    let mut running = person.start(&["token", "--via", "device", "--json"]);
    let (page, code) = running.prompt().await;
    browser(&cloud, &page, &code, ANALYST.upn, "approve").await;
    let said = running.ended().await;
    let answer: serde_json::Value = serde_json::from_str(said.well()).expect("one JSON object");
    let claims = claims(answer["access_token"].as_str().expect("a token"));
    assert_eq!(claims["upn"], ANALYST.upn);
    let expires: pgpassport::time::Timestamp =
        answer["expires_at"].as_str().expect("a time").parse().expect("RFC 3339");
    assert_eq!(Some(expires.as_second()), claims["exp"].as_i64());
    assert_eq!(said.err, "");
    // Two polls are never closer than the five seconds that Entra asked for: begun, and one poll that was approved.
    assert_eq!(cloud.calls().count(Endpoint::EntraToken), 1);
    person.az("e.y.J");
    let said = person.run(&["token", "--via", "az"]).await;
    assert_eq!((said.well(), said.err.as_str()), ("e.y.J", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_sign_in_that_fails_says_why() {
    let cloud = cloud().await;
    let person = Person::new();
    person.settings(&entra(&cloud));
    let device = ["token", "--via", "device"];
    let mut declined = person.start(&device);
    let (page, code) = declined.prompt().await;
    browser(&cloud, &page, &code, ANALYST.upn, "decline").await;
    let said = declined.ended().await;
    assert!(said.failed(1).contains("the sign-in was declined in the browser\n  next: "), "{said:?}");
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (flag, value, words, next) in [
        ("--client-id", unknown, "AADSTS700016", "check `client_id`"),
        ("--tenant", unknown, "AADSTS90002", "check `tenant`"),
        ("--scope", "api://nothing/.default", "AADSTS500011", "check `scope`"),
        ("--authority", "https://127.0.0.1:1", "Entra cannot be asked: cannot reach 127.0.0.1:1", "check the network"),
    ] {
        let said = person.run(&[&device[..], &[flag, value]].concat()).await;
        let err = said.failed(1);
        assert!(err.contains(words) && err.contains(next) && !err.contains("Trace ID"), "{flag}: {err}");
    }
    let mut expired = person.start(&device);
    expired.prompt().await;
    cloud.shift_clock(901);
    let said = expired.ended().await;
    assert!(said.failed(1).contains("the code expired before the sign-in was finished"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_azure_cli_that_gives_no_token_is_told_in_words() {
    let person = Person::new();
    let az = ["token", "--via", "az", "--scope", "api://pgpassport/.default"];
    let mut bare = Person::new();
    bare.set("PATH", bare.programs().to_str().expect("UTF-8"));
    let said = bare.run(&az).await;
    assert!(said.failed(1).contains("the Azure CLI (az) is not installed") && said.err.contains("--via device"));
    for (script, words, next) in [
        (
            "echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1",
            "the Azure CLI is not signed in: Please run 'az login' to setup account.",
            "next: run: az login --scope api://pgpassport/.default",
        ),
        (
            "echo 'ERROR: The command failed with an unexpected error.' >&2; exit 1",
            "unexpected error",
            "az account show",
        ),
        ("echo '{\"accessToken\": \"e.y.J\"'", "answered something that is no token", "next: "),
    ] {
        person.program("az", script);
        let said = person.run(&az).await;
        let err = said.failed(1);
        assert!(err.contains(words) && err.contains(next) && !err.contains("e.y.J"), "{script}: {err}");
    }
    let said = person.run(&["token"]).await;
    assert!(said.failed(BAD_SETTINGS).contains("needs via (--via), scope (--scope)"), "{said:?}");
    let path = person.settings("via = \"browser\"\nhst = \"x\"\n");
    let said = person.run(&["token"]).await;
    let (first, second) = (format!("{}:1: via: must be", path.display()), format!("{}:2: hst: is not", path.display()));
    assert!(said.failed(BAD_SETTINGS).contains(&first) && said.err.contains(&second), "{said:?}");
    let said = person.run(&["token", "--client-config", "/none.toml"]).await;
    assert!(said.failed(BAD_SETTINGS).contains("/none.toml:1: (file): cannot be read"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_identity_gives_its_token_or_says_what_is_missing() {
    let cloud = cloud().await;
    let mut person = Person::new();
    person.settings(&entra(&cloud).replace("client_id", "# client_id"));
    for (name, value) in cloud.proxy_environment() {
        person.set(&name, value);
    }
    let identity = ["token", "--via", "managed-identity"];
    let said = person.run(&identity).await;
    let own = claims(said.well());
    assert_eq!(
        (&own["aud"], &own["ver"]),
        (&PROXY_API.into(), &"2.0".into()),
        "the version that the proxy's API asks for"
    );
    assert_eq!(said.err, "");
    // An API whose registration says nothing gets version 1.0 tokens, for the App ID URI.
    let other = format!("{PLAIN_API_URI}/.default");
    let said = person.run(&[&identity[..], &["--scope", &other]].concat()).await;
    let claims = claims(said.well());
    assert_eq!((&claims["aud"], &claims["ver"]), (&PLAIN_API_URI.into(), &"1.0".into()));
    // `azure_identity` has one sentence for all that the endpoint answers with 400.
    for wrong in [["--scope", "api://nothing/.default"], ["--client-id", "00000000-0000-4000-8000-000000000000"]] {
        let said = person.run(&[&identity[..], &wrong].concat()).await;
        let err = said.failed(1);
        assert!(err.contains("has not been assigned") && err.contains("check `client_id` and `scope`"), "{err}");
    }
    cloud.faults().set(Hop::OwnIdentity, Fault::Refuse);
    let said = person.run(&identity).await;
    assert!(said.failed(1).contains("no token from a managed identity") && said.err.contains("--via az"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_logs_a_managed_identity_in_and_no_other() {
    let (client, provider, account) = (ORDERS_JOB.client_id, WORKLOAD_PROVIDER, ORDERS_APP.service_account);
    let rule = format!(
        "[[rule]]\nname = \"orders-job\"\nissuer = \"contoso\"\ndatabases = [\"{DATABASE}\"]\nkind = \"app\"\n\
         apps = [\"{client}\"]\ngrant = {{ kind = \"service_account\", provider = \"{provider}\", \
         service_account = \"{account}\" }}\n"
    );
    let chain = Setup::default().extra(&rule).start().await;
    let pool =
        format!("principal://iam.googleapis.com/projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools");
    let member = format!("{pool}/entra/subject/{}", ORDERS_JOB.object_id);
    chain.cloud.grant("roles/iam.workloadIdentityUser", &member, Some(ORDERS_APP.service_account));
    let mut person = Person::new();
    person.settings(&settings(&chain).replace("client_id", "# client_id"));
    for (name, value) in chain.cloud.proxy_environment() {
        person.set(&name, value);
    }
    let job = ["--via", "managed-identity", "--client-id", client, "--", "-At", "-c", "select session_user"];
    let said = person.run(&[&["psql", "orders"], &job[..]].concat()).await;
    assert_eq!((said.well(), said.err.as_str()), (ORDERS_APP.database_user, ""));
    let records = chain.records_when("the query", |records| !records.of("end").is_empty()).await;
    let sessions = records.of("session_start");
    let start = sessions.only();
    assert_eq!((&start["caller"]["app"], &start["caller"]["kind"]), (&client.into(), &"app".into()), "{start}");
    assert_eq!(start["caller"]["object_id"], ORDERS_JOB.object_id, "{start}");
    // The machine's other identity has no rule.
    let said = person.run(&[&["psql", "orders"], &job[..2], &job[4..]].concat()).await;
    assert!(said.failed(NO_CONNECTION).contains("no rule gives"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_help_know_the_new_commands() {
    let person = Person::new();
    let completions = person.run(&["completions", "bash"]).await;
    for word in ["managed-identity", "--client-config", "--ca-certificate"] {
        assert!(completions.well().contains(word), "{word}");
    }
    for (command, words) in
        [("token", "PGPASSWORD=\"$(pgpassport token"), ("psql", "pgpassport psql orders --via device")]
    {
        let said = person.run(&[command, "--help"]).await;
        for word in [words, "PGPASSPORT_CLIENT_CONFIG", "Exit codes", "client.toml"] {
            assert!(said.well().contains(word), "{command}: {word}");
        }
    }
}

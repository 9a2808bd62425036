//! What a rule asks and gives beyond who and where: addresses, start-up powers, expectations; and `SET ROLE` on record.

use pgpassport::sim::world::{ANALYST, ORDERS_GROUP};
use proto_tests::balancer::{Balancer, header};
use proto_tests::chain::{Chain, Setup};
use proto_tests::proxy;
use proto_tests::psql::Login;
use proto_tests::refusal::{Expected, check, refused};
use proto_tests::wire::{self, Message, message, text};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const EX_CONFIG: i32 = 78;
/// A role that the analyst is a member of.
const ROLE: &str = "cloudsqliamuser";

/// The analysts' rule with these lines.
fn people(lines: &str) -> Setup {
    let groups = format!("groups = [\"{ORDERS_GROUP}\"]\n");
    Setup::default().replace(&groups, &format!("{groups}{lines}\n"))
}

/// A start-up of the analyst with these parameters: the stream, and `ReadyForQuery` or the error.
async fn started(chain: &Chain, more: &[(&str, &str)]) -> (TlsStream<TcpStream>, Message) {
    let login = chain.person();
    let mut parameters: Vec<(&[u8], &[u8])> =
        vec![(b"user", login.user.as_bytes()), (b"database", login.database.as_bytes())];
    parameters.extend(more.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let mut stream = chain.tls().await.expect("TLS");
    let mut greeting = wire::greet(&mut stream, &parameters, &login.password).await.expect("an answer");
    (stream, greeting.pop().expect("an answer"))
}

/// The only value of the only row.
async fn ask(stream: &mut TlsStream<TcpStream>, statement: &str) -> String {
    stream.write_all(&message(b'Q', &text(statement))).await.expect("sent");
    let answer = wire::read_until(stream, b'Z').await;
    let row = &answer.iter().find(|message| message.tag == b'D').expect("a row").body;
    String::from_utf8(row[6..].to_vec()).expect("UTF-8")
}

/// What a session says that starts so.
async fn said(chain: &Chain, more: &[(&str, &str)], statement: &str) -> String {
    let (mut stream, last) = started(chain, more).await;
    assert_eq!(last.tag, b'Z', "{more:?}: {:?}", last.field(b'M'));
    ask(&mut stream, statement).await
}

/// Every spelling by which PostgreSQL takes a role at the start.
const SPELLINGS: [(&str, &str); 10] = [
    ("role", "cloudsqliamuser"),
    ("ROLE", "cloudsqliamuser"),
    ("options", "-c role=cloudsqliamuser"),
    ("options", "-crole=cloudsqliamuser"),
    ("options", "--role=cloudsqliamuser"),
    ("options", "--RoLe=cloudsqliamuser"),
    ("options", r"-\c ro\le=cloudsqliamuser"),
    ("options", "-c geqo=off\t-c\x0brole=cloudsqliamuser"),
    ("options", "-ec role=cloudsqliamuser"),
    ("options", "-e-role=cloudsqliamuser --"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_role_at_the_start_is_refused_in_every_spelling_that_postgresql_takes() {
    let chain = Chain::start().await;
    for given in SPELLINGS {
        let (_stream, answer) = started(&chain, &[given]).await;
        let correlation = check(&answer, &chain.person(), Expected { sqlstate: "42501", says: "role" });
        assert!(answer.field(b'H').is_some_and(|hint| hint.contains("[rule.startup]")), "{given:?}");
        let record = chain.refusal(&correlation).await;
        assert!(record["reason"].as_str().is_some_and(|reason| reason.contains("set role at its start")), "{record}");
    }
    for given in [("session_authorization", ANALYST.upn), ("options", "--session-authorization=x"), ("role", "none")] {
        let (_stream, answer) = started(&chain, &[given]).await;
        check(&answer, &chain.person(), Expected { sqlstate: "42501", says: "" });
    }
    let printed = chain.psql(&chain.person(), &["-d", &format!("options='-c role={ROLE}'"), "-c", "select 1"]).await;
    assert!(printed.refused().contains("HINT:") && printed.err.contains("options="), "{}", printed.err);
    assert_eq!(said(&chain, &[], "select current_user").await, ANALYST.upn, "without it nothing is refused");

    // The list is of spellings that would have worked.
    let chain = people("startup = { role = \"allow\" }").start().await;
    for given in SPELLINGS {
        assert_eq!(said(&chain, &[given], "select current_user").await, ROLE, "{given:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_the_rule_lists_is_the_sessions_and_on_record() {
    let chain = people(&format!("startup = {{ role = [\"{ROLE}\"] }}")).start().await;
    let (mut stream, _) = started(&chain, &[("role", ROLE)]).await;
    let users = ask(&mut stream, "select current_user || ' ' || session_user").await;
    assert_eq!(users, format!("{ROLE} {}", ANALYST.upn));
    let records = chain.records_when("a start", |records| !records.of("session_start").is_empty()).await;
    assert_eq!(records.of("session_start").only()["role"], ROLE);
    let (_stream, answer) = started(&chain, &[("role", "cloudsqlsuperuser")]).await;
    check(&answer, &chain.person(), Expected { sqlstate: "42501", says: "role" });
    assert!(answer.field(b'H').is_some_and(|hint| hint.contains(ROLE)), "what is allowed is listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fixed_holds_whatever_the_client_says() {
    let startup = format!("startup = {{ search_path = {{ fixed = \"scratch\" }}, role = {{ fixed = \"{ROLE}\" }} }}");
    let chain = people(&startup).start().await;
    for given in [
        vec![],
        vec![("search_path", "public"), ("role", "dba")],
        vec![("Search_Path", "public"), ("options", "-c search-path=public -c geqo=off --role=dba")],
    ] {
        let statement = "select current_setting('search_path') || ' ' || current_user";
        assert_eq!(said(&chain, &given, statement).await, format!("scratch {ROLE}"), "{given:?}");
    }
    let geqo = [("options", "-c search_path=public -c geqo=off")];
    assert_eq!(said(&chain, &geqo, "select current_setting('geqo')").await, "off", "the rest passes");
    let chain = people("startup = { options = \"refuse\" }").start().await;
    let (_stream, answer) = started(&chain, &geqo).await;
    check(&answer, &chain.person(), Expected { sqlstate: "42501", says: "options" });
    assert_eq!(said(&chain, &[("geqo", "off")], "select current_setting('geqo')").await, "off");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_no_rule_names_is_refused_with_a_next_step() {
    let networks = |network: &str| people(&format!("networks = [\"{network}\"]"));
    let chain = networks("10.0.0.0/8").start().await;
    let record = refused(&chain, &chain.person(), Expected { sqlstate: "28000", says: "127.0.0.1" }).await;
    assert!(record["reason"].as_str().is_some_and(|reason| reason.contains("orders-people")), "{record}");
    // Others' rules are not touched by it.
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
    let chain = networks("127.0.0.0/8").start().await;
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_balancer_the_address_that_counts_is_the_clients() {
    let behind = |proxy_protocol: &str, network: &str| {
        let listen = format!("[listen]\ntrusted_proxies = [\"127.0.0.1/32\"]\nproxy_protocol = \"{proxy_protocol}\"\n");
        people(&format!("networks = [\"{network}\"]")).replace("[listen]\n", &listen)
    };
    let chain = behind("required", "203.0.113.0/24").start().await;
    for (client, expected) in [("203.0.113.7:49153", None), ("198.51.100.7:49153", Some("198.51.100.7"))] {
        let balancer = Balancer::start(chain.proxy.address(), header(client.parse().expect("an address"))).await;
        let login = Login { port: balancer.address().port(), ..chain.person() };
        let printed = chain.psql(&login, &["-c", "select 1"]).await;
        match expected {
            None => assert_eq!(printed.well(), "1"),
            Some(address) => assert!(printed.refused().contains(address), "{}", printed.err),
        }
    }
    // A balancer that says nothing is no client: its own address opens nothing.
    let chain = behind("off", "127.0.0.0/8").start().await;
    refused(&chain, &chain.person(), Expected { sqlstate: "28000", says: "does not tell yours" }).await;
}

const EXPECTED: &str = "[[expect]]\nname = \"analysts\"\nissuer = \"contoso\"\ndatabase = \"orders\"\nkind = \"user\"\n\
                        claims = { upn = \"analyst@contoso.example\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_otherwise_than_expected_is_not_served() {
    let groups = format!("groups = [\"{ORDERS_GROUP}\"]\n");
    let prepared = Setup::default()
        .extra(&format!("{EXPECTED}{groups}deny = \"guest\"\n{EXPECTED}allow = \"orders-people\""))
        .prepare()
        .await;
    let path = prepared.config_path();
    let file = path.to_str().expect("UTF-8");
    let config = prepared.config();
    let line = |of: &str| config.lines().position(|line| line == of).expect("there") + 1;
    for command in ["serve", "check-config"] {
        let ended = proxy::run(&[command, "--config", file], &prepared.environment()).expect("runs");
        assert_eq!(ended.status.code(), Some(EX_CONFIG), "{}", ended.output);
        for told in [
            format!(
                "{file}:{}: expect.analysts.deny: does not hold: rule orders-people allows it",
                line("deny = \"guest\"")
            ),
            format!(
                "{file}:{}: expect.analysts.allow: does not hold: it is denied (no-rule)",
                line("allow = \"orders-people\"")
            ),
        ] {
            assert!(ended.output.contains(&told), "{told}\n{}", ended.output);
        }
    }
    let prepared = Setup::default()
        .extra(&format!("{EXPECTED}{groups}allow = \"orders-people\"\nuser = \"{}\"", ANALYST.upn))
        .prepare()
        .await;
    let path = prepared.config_path();
    let arguments = ["check-config", "--config", path.to_str().expect("UTF-8")];
    let ended = proxy::run(&arguments, &prepared.environment()).expect("runs");
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    assert!(ended.output.contains("expected   1 login(s)"), "{}", ended.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matrix_of_a_config_is_printed_for_people_and_for_scripts() {
    let prepared = people("guest = false\nstartup = { role = [\"reporting\"] }").prepare().await;
    let path = prepared.config_path();
    let arguments = ["check-config", "--config", path.to_str().expect("UTF-8"), "--matrix", "--json"];
    let ended = proxy::run(&arguments[..4], &prepared.environment()).expect("runs");
    let told = format!(
        "orders: orders on demo-project:europe-west1:orders\n    1. orders-people: user and no guest and group \
         {ORDERS_GROUP} of contoso\n       as themselves, by upn\n       at the start role one of [\"reporting\"]\n"
    );
    assert!(ended.output.contains(&told), "{}", ended.output);
    let ended = proxy::run(&arguments, &prepared.environment()).expect("runs");
    let parsed: Value = serde_json::from_str(&ended.output).expect("one object");
    let rule = &parsed["matrix"][0]["rules"][0];
    assert_eq!((&rule["rule"], &rule["who"]["guest"]), (&json!("orders-people"), &json!(false)), "{rule}");
    assert_eq!(rule["startup"]["role"], json!(["reporting"]), "{rule}");
}

#[tokio::test(flavor = "multi_thread")]
async fn set_role_is_on_record_as_such() {
    let chain = Chain::start().await;
    let connected = chain.connect(&chain.person()).await;
    let client = &connected.client;
    for statement in [
        format!("SET ROLE {ROLE}"),
        "RESET ROLE".to_owned(),
        format!("BEGIN; SET LOCAL ROLE {ROLE}; COMMIT"),
        format!("select set_config('role', '{ROLE}', false)"),
        "SET SESSION AUTHORIZATION DEFAULT".to_owned(),
        "select 'SET ROLE dba'".to_owned(),
    ] {
        client.batch_execute(&statement).await.expect("PostgreSQL takes it");
    }
    // Prepared once, executed twice: each execution says what it does.
    let prepared = client.prepare(&format!("SET ROLE {ROLE}")).await.expect("prepared");
    for _ in 0..2 {
        client.execute(&prepared, &[]).await.expect("executed");
    }
    let twice = |records: &proto_tests::records::Records| records.of("end").len() >= 8;
    let records = chain.records_when("every end", twice).await;
    let said: Vec<Value> = records
        .of("begin")
        .iter()
        .filter(|begin| begin.get("text").is_some())
        .map(|begin| begin.get("role_changes").cloned().unwrap_or(Value::Null))
        .collect();
    let role = json!({ "setting": "role", "to": ROLE });
    let local = json!({ "setting": "role", "to": ROLE, "local": true });
    let expected = [
        json!([role]),
        json!([{ "setting": "role", "reset": true }]),
        json!([local]),
        json!([role]),
        json!([{ "setting": "session_authorization", "reset": true }]),
        Value::Null,
        json!([role]),
        json!([role]),
    ];
    assert_eq!(said, expected, "{records:#?}");
}

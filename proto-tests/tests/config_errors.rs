//! A config file that is wrong: every mistake at once, exit code 78 (`EX_CONFIG`), and nothing has been opened.

use proto_tests::chain::Setup;
use proto_tests::proxy;
use std::net::TcpListener;

const EX_CONFIG: i32 = 78;

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_told_at_once_and_no_listener_opens() {
    let prepared = Setup::default()
        .replace("[issuer.contoso]", "[issuer.contoso]\ntennant = \"typo\"")
        .replace("databases = [\"orders\"]", "databases = [\"odrers\"]")
        .extra("[deadlines]\nsts = \"10 parsecs\"\n[limits]\nsessions = 0")
        .prepare()
        .await;
    // The address is taken: whoever tried to listen would say so.
    let _taken = TcpListener::bind(prepared.address()).expect("reserved");
    let path = prepared.config_path();
    let file = path.to_str().expect("UTF-8");
    for command in ["serve", "check-config"] {
        let ended = proxy::run(&[command, "--config", file], &prepared.environment()).expect("runs");
        assert_eq!(ended.status.code(), Some(EX_CONFIG), "{}", ended.output);
        for mistake in ["tennant", "odrers", "deadlines.sts", "limits.sessions"] {
            let line = ended.output.lines().find(|line| line.contains(mistake)).unwrap_or_default();
            assert!(
                line.contains(&format!("{file}:")),
                "{mistake} has no line of its own with its place:\n{}",
                ended.output
            );
        }
        let line = prepared.config().lines().position(|line| line.contains("10 parsecs")).expect("there") + 1;
        assert!(ended.output.contains(&format!("{file}:{line}: deadlines.sts")), "{}", ended.output);
        assert!(!ended.output.contains("in use"), "it tried to listen:\n{}", ended.output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_or_no_toml_is_a_config_error_too() {
    let prepared = Setup::default().prepare().await;
    let missing = prepared.config_path().with_extension("missing");
    let ended = proxy::run(&["serve", "--config", missing.to_str().unwrap()], &prepared.environment()).expect("runs");
    assert_eq!(ended.status.code(), Some(EX_CONFIG), "{}", ended.output);
    std::fs::write(&missing, "[listen\naddress = ").expect("written");
    let ended = proxy::run(&["serve", "--config", missing.to_str().unwrap()], &prepared.environment()).expect("runs");
    assert_eq!(ended.status.code(), Some(EX_CONFIG), "{}", ended.output);
    assert!(ended.output.contains(":1:"), "{}", ended.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_not_repeated_in_errors() {
    const SECRET: &str = "eyJhbGciOiJSUzI1NiJ9.cGF5bG9hZA.c2lnbmF0dXJl";
    let prepared = Setup::default().extra(&format!("[deadlines]\nsts = \"{SECRET}\"")).prepare().await;
    let path = prepared.config_path();
    let ended = proxy::run(&["serve", "--config", path.to_str().unwrap()], &prepared.environment()).expect("runs");
    assert_eq!(ended.status.code(), Some(EX_CONFIG), "{}", ended.output);
    assert!(ended.output.contains("deadlines.sts"), "{}", ended.output);
    assert!(!ended.output.contains(SECRET), "{}", ended.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_issuers_whose_people_could_be_each_other_are_refused() {
    use pgpassport::sim::world::{PARTNER_API, PARTNER_PROVIDER};
    let people = format!(
        r#"[[rule]]
name = "consultants"
issuer = "partner"
databases = ["orders"]
kind = "user"
everyone = true
grant = {{ kind = "workforce", provider = "{PARTNER_PROVIDER}", subject_claim = "uid" }}

[issuer.partner]
kind = "oidc"
issuer = "https://login.northwind.example"
audience = "{PARTNER_API}"
callers = "user"
subject_claim = "uid"
"#
    );
    let prepared = Setup::default().extra(&people).prepare().await;
    let path = prepared.config_path();
    let arguments = ["serve", "--config", path.to_str().unwrap()];
    let ended = proxy::run(&arguments, &prepared.environment()).expect("runs");
    assert_eq!(ended.status.code(), Some(EX_CONFIG), "{}", ended.output);
    assert!(ended.output.contains("Cloud SQL cannot tell them apart"), "{}", ended.output);
    let prepared =
        prepared.replace("subject_claim = \"uid\" }", "subject_claim = \"uid\", subject_prefix = \"partner:\" }");
    let arguments = ["check-config", "--config", path.to_str().unwrap()];
    let ended = proxy::run(&arguments, &prepared.environment()).expect("runs");
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
}

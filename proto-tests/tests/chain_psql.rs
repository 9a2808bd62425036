//! psql through the whole chain, as people use it.

use pgpassport::sim::Endpoint;
use pgpassport::sim::world::{ANALYST, CONTOSO, ORDERS_APP, SIGN_IN_CLIENT};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;

/// The statement that shows itself, tag and all, as the server got it.
const SHOW_MYSELF: &str = "select query from pg_stat_activity where pid = pg_backend_pid()";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_arrives_as_themselves_and_an_app_as_its_service_account() {
    let chain = Chain::start().await;
    assert_eq!(
        chain.query(&chain.person(), "select session_user, current_database()").await,
        format!("{}|orders", ANALYST.upn)
    );
    assert_eq!(chain.calls().count(Endpoint::GenerateAccessToken), 1, "only the proxy's own account was impersonated");
    assert_eq!(chain.query(&chain.app(), "select session_user").await, ORDERS_APP.database_user);
    assert_eq!(chain.calls().count(Endpoint::GenerateAccessToken), 2);
    let superuser = chain.query(&chain.app(), "select rolsuper from pg_roles where rolname = session_user").await;
    assert_eq!(superuser, "f");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_stands_at_byte_0_and_names_the_verified_caller() {
    let chain = Chain::start().await;
    let caller = "analyst%40contoso.example";
    let tag = format!("/*app='{SIGN_IN_CLIENT}',caller='{caller}',oid='{}',tid='{}'*/ ", ANALYST.object_id, CONTOSO.id);
    assert_eq!(chain.query(&chain.person(), SHOW_MYSELF).await, format!("{tag}{SHOW_MYSELF}"));
    // The database's own log has it too.
    assert!(chain.database_log().contains(&format!("{tag}{SHOW_MYSELF}")));
    let app = chain.query(&chain.app(), SHOW_MYSELF).await;
    assert!(app.starts_with(&format!("/*app='{}',caller='", ORDERS_APP.client_id)), "{app}");
    assert!(app.contains(&format!(",oid='{}',tid='{}'*/ select", ORDERS_APP.object_id, CONTOSO.id)), "{app}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_says_of_itself_never_reaches_the_tag() {
    let chain = Chain::start().await;
    let person = chain.person();
    let honest = chain.query(&person, SHOW_MYSELF).await;
    let (tag, _) = honest.split_once("*/ ").expect("a tag");
    for forged in [
        format!("/*app='x',caller='root',oid='y',tid='z'*/ {SHOW_MYSELF}"),
        format!("--\n{SHOW_MYSELF}"),
        format!("*/ {SHOW_MYSELF}"),
        format!("/* {SHOW_MYSELF}"),
    ] {
        let printed = chain.psql(&person, &["-c", &forged]).await;
        if printed.code == 0 {
            assert_eq!(printed.out.trim_end(), format!("{tag}*/ {forged}"));
        } else {
            // A forged text may be wrong SQL; it must not have become right by what stands in front of it.
            assert!(printed.err.contains("ERROR:"), "{}", printed.err);
        }
    }
    // With `standard_conforming_strings` off and another encoding the tag is the same.
    let settings = "set standard_conforming_strings = off; set client_encoding = 'SJIS'";
    let printed = chain.psql(&person, &["-q", "-c", settings, "-c", SHOW_MYSELF]).await;
    assert_eq!(printed.well(), format!("{tag}*/ {SHOW_MYSELF}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_tag_statements_leave_as_they_came_and_the_operator_is_warned() {
    let untagged =
        "\n[database.plain]\ninstance = \"demo-project:europe-west1:orders\"\ndatabase = \"orders\"\ntag = false\n";
    let chain = Setup::default()
        .extra(untagged)
        .replace("databases = [\"orders\"]", "databases = [\"orders\", \"plain\"]")
        .start()
        .await;
    let login = Login { database: "plain".to_owned(), ..chain.person() };
    assert_eq!(chain.query(&login, SHOW_MYSELF).await, SHOW_MYSELF);
    assert!(chain.proxy.output().contains("database.plain.tag"), "{}", chain.proxy.output());
    let records = chain.records();
    assert_eq!(records.began(SHOW_MYSELF).only()["tagged"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_points_at_the_right_place_of_the_text_that_was_typed() {
    let chain = Chain::start().await;
    let printed = chain.psql(&chain.person(), &["-c", "select 'äö', nope from generate_series(1, 3)"]).await;
    assert_eq!(printed.code, 1, "{}", printed.err);
    let lines: Vec<&str> = printed.err.lines().collect();
    assert_eq!(lines[1], "LINE 1: select 'äö', nope from generate_series(1, 3)", "{}", printed.err);
    let caret = lines[2].chars().position(|c| c == '^').expect("a caret");
    assert_eq!(caret, "LINE 1: select 'äö', ".chars().count(), "{}", printed.err);
    assert!(!printed.err.contains("caller="), "the tag shows: {}", printed.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_describing_and_copying_work_in_one_psql() {
    let chain = Chain::start().await;
    let file = chain.folder().join("numbers.csv");
    let path = file.display();
    let (out, into) = (
        format!("\\copy (select n, n * n from generate_series(1, 1000) n) to '{path}' csv"),
        format!("\\copy numbers from '{path}' csv"),
    );
    let printed = chain
        .psql(
            &chain.person(),
            &[
                "-q",
                "-c",
                &out,
                "-c",
                "\\c orders",
                "-c",
                "create temp table numbers (n int, square int)",
                "-c",
                &into,
                "-c",
                "select count(*), sum(square) from numbers",
                "-c",
                "\\d numbers",
            ],
        )
        .await;
    let text = printed.well();
    assert!(text.contains("1000|333833500"), "{text}");
    assert!(text.contains("square|integer"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_dump_works_under_the_alias() {
    let chain = Chain::start().await;
    let login = chain.person();
    let dump = tokio::process::Command::new("pg_dump")
        .args(["--schema-only", "--schema", pgpassport::sim::world::SCRATCH_SCHEMA])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("PGHOST", login.host.as_str()), ("PGUSER", &login.user), ("PGDATABASE", &login.database)])
        .envs([("PGPASSWORD", login.password.as_str()), ("PGSSLMODE", login.sslmode), ("HOME", "/nonexistent")])
        .env("PGPORT", login.port.to_string())
        .env("PGSSLROOTCERT", chain.cloud.ca_path())
        .output()
        .await
        .expect("pg_dump is installed");
    let text = String::from_utf8_lossy(&dump.stdout);
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert!(text.contains("CREATE SCHEMA scratch"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_keys_are_fetched_once_for_many_sessions() {
    let chain = Chain::start().await;
    for _ in 0..3 {
        chain.query(&chain.person(), "select 1").await;
    }
    let calls = chain.calls();
    assert_eq!(calls.count(Endpoint::EntraKeys), 1);
    assert_eq!(calls.count(Endpoint::GenerateEphemeralCert), 1);
    assert_eq!(calls.count(Endpoint::InstanceLogin), 3);
    assert_eq!(calls.count(Endpoint::InstancePassword), 3, "a token left the proxy once for each login");
}

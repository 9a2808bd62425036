//! Long texts and parameters as a real driver sends them: each text is recorded to its last byte, each value as its rule
//! says, and PostgreSQL's log agrees.

use pgpassport::audit::TextDigest;
use proto_tests::audit::run;
use proto_tests::chain::Setup;
use proto_tests::drivers::{Acts, Program};
use proto_tests::judge::{Mode, judge};
use proto_tests::records::Records;
use proto_tests::servers::{At, each};
use serde_json::{Value, json};
use std::path::Path;

const SCRIPT: Program = Program::Python("psycopg_long.py");
/// Lines that it causes for one login: of a Query; of Parse, Bind and Execute of three statements and two Binds and
/// Executes more.
const STATEMENTS: usize = 6;
const DURATIONS: usize = 13;

/// Software's values as HMACs, people's in full.
fn setup(key: &Path) -> Setup {
    let key = format!("[audit]\nparameters_key = \"{}\"\n", key.display());
    [("orders-app", "hmac"), ("orders-people", "full")].into_iter().fold(
        Setup::default().replace("[audit]\n", &key),
        |setup, (rule, parameters)| {
            let name = format!("name = \"{rule}\"\n");
            setup.replace(&name, &format!("{name}parameters = \"{parameters}\"\n"))
        },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drivers_long_texts_and_its_parameters_are_on_record_as_their_rules_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("values.key");
    let path = key.to_str().expect("UTF-8");
    assert!(run(&["key", "--new-secret", path]).status.success());
    for (mode, settings, lines) in [
        (Mode::Statements, "", 2 * STATEMENTS),
        (Mode::Durations, "log_statement = 'none'\nlog_min_duration_statement = 0", 2 * DURATIONS),
    ] {
        for At { name, chain, .. } in each(|| setup(&key), settings).await {
            for (login, kind) in [(chain.app(), "app"), (chain.person(), "user")] {
                let acts = SCRIPT.run_with(&chain, &login, &[("PARAMETERS_KEY", path)]).await;
                let saw = ["simple", "extended", "binary", "prepared"].map(|act| acts.get(act).map(String::as_str));
                let right = ["true|true", "true|true|42|true", "true|true|7", "a|b|a"].map(Some);
                assert_eq!(saw, right, "{name}, {kind}: {acts:?}");
                let ended = |records: &Records| {
                    let own = |start: &&Value| start["caller"]["kind"] == kind;
                    let starts = records.of("session_start");
                    let mut sessions = starts.iter().filter(own);
                    sessions.any(|start| !records.of("session_end").with("session", text(start, "session")).is_empty())
                };
                let records = chain.records_when("its session's end", ended).await;
                texts(&records, kind, &acts);
                parameters(&records, kind, &acts);
            }
            let verdict = judge(mode, &chain.database_log(), &chain.records());
            verdict.holds(lines);
        }
    }
}

fn text<'a>(record: &'a Value, member: &str) -> &'a str {
    record[member].as_str().unwrap_or_default()
}

/// Each is recorded whole, and is what the driver says it sent.
fn texts(records: &Records, kind: &str, acts: &Acts) {
    let begins = records.of("begin");
    let enters = |begin: &&Value| begin["text_bytes"].is_u64() && begin["text_of"].is_null();
    let long = begins.iter().filter(|begin| begin["caller"]["kind"] == kind).filter(enters);
    let mut seen = 0;
    for begin in long {
        let (recorded, cut) = records.whole_text(text(begin, "id"));
        assert!(!cut && recorded.len() > 200_000, "{} bytes of {}", recorded.len(), text(begin, "id"));
        let end = records.of("end").with("id", text(begin, "id"));
        let digest = TextDigest::of(&recorded).sha256();
        assert!(end.iter().all(|end| end["text_sha256"] == digest), "{end:#?}");
        if begin["stage"] == "query" {
            assert_eq!(Some(&digest), acts.get("sha256"));
        }
        seen += 1;
    }
    assert_eq!(seen, 4, "a Query and three Parses");
}

fn parameters(records: &Records, kind: &str, acts: &Acts) {
    let binds = records.messages("bind");
    let lists: Vec<Value> =
        binds.iter().filter(|bind| bind["caller"]["kind"] == kind).map(|bind| bind["parameters"].clone()).collect();
    if kind == "app" {
        let hmac = |act: &str| json!({"hmac_sha256": acts[act]});
        let binary = |act: &str| json!({"format": 1, "hmac_sha256": acts[act]});
        let value = hmac("hmac of VALUE");
        assert_eq!(lists[0], json!([value, value, hmac("hmac of 41"), {"is_null": true}]));
        assert_eq!(lists[1], json!([binary("hmac of bytes"), binary("hmac of 7")]));
        assert_eq!(lists[2..], [json!([hmac("hmac of a")]), json!([hmac("hmac of b")]), json!([hmac("hmac of a")])]);
    } else {
        let text = |value: &str| json!({"bytes": value.len(), "value": value});
        let value = text(&"Zo\u{eb}".repeat(2_000));
        assert_eq!(lists[0], json!([value, value, text("41"), {"is_null": true}]));
        let bytes = json!({"format": 1, "bytes": 200, "value_base64": acts["base64 of bytes"]});
        assert_eq!(lists[1], json!([bytes, {"format": 1, "bytes": 4, "value_base64": "AAAABw=="}]));
        assert_eq!(lists[2..], [json!([text("a")]), json!([text("b")]), json!([text("a")])]);
    }
    assert_eq!(lists.len(), 5);
}

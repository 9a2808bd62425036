//! The log of a real chain, as a reviewer reads it: found, told, followed.

use pgpassport::sim::world;
use proto_tests::chain::{Chain, Setup};
use proto_tests::proxy::binary;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long what is followed may take to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// `pgpassport audit COMMAND FOLDER …`.
fn audit(chain: &Chain, command: &str, more: &[&str]) -> Output {
    let mut audit = Command::new(binary());
    audit.args(["audit", command]).arg(chain.audit_folder()).args(more).env_remove("PGPASSPORT_CONFIG");
    audit.output().expect("the binary runs")
}

#[track_caller]
fn answer(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[track_caller]
fn items(output: &Output) -> Vec<Value> {
    answer(output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_is_found_told_and_followed() {
    let chain = Setup::default().replace("[audit]\n", "[audit]\nsegment_bytes = 4194304\n").start().await;
    let hostile = "select '\u{1b}[31m' || '=evil' as \"=x\"";
    chain.query(&chain.person(), hostile).await;
    chain.psql(&chain.app(), &["-c", "select * from nothing_there"]).await;
    // More than one segment.
    let filler = format!("select length('{}')", "x".repeat(60_000));
    let client = chain.connect(&chain.app()).await.client;
    for _ in 0..100 {
        client.simple_query(&filler).await.expect("it runs");
    }
    let prepared = client.prepare("select generate_series(1, 7)").await.expect("prepared");
    assert_eq!(client.query(&prepared, &[]).await.expect("it runs").len(), 7);
    chain.records_when("every end", |records| records.open().is_empty()).await;
    assert!(std::fs::exists(chain.segment_path().with_file_name("0000000000000002.segment")).expect("a folder"));

    let who = world::ANALYST.upn;
    let mine = items(&audit(&chain, "search", &["--json", "--who", who, "--text", "=EVIL", "--since", "1h"]));
    assert_eq!(mine.len(), 1, "{mine:#?}");
    assert_eq!((mine[0]["text"].as_str(), mine[0]["outcome"].as_str()), (Some(hostile), Some("ok")));
    assert_eq!((mine[0]["rows"].as_u64(), mine[0]["database"].as_str()), (Some(1), Some(world::DATABASE)));
    let failed = items(&audit(&chain, "search", &["--json", "--outcome", "42P01"]));
    assert!(failed.len() == 1 && failed[0]["text"] == "select * from nothing_there", "{failed:#?}");
    let rows = items(&audit(&chain, "search", &["--json", "--rows-over", "6", "--text", "generate_series"]));
    assert_eq!(rows.len(), 1, "in the second segment, of a session of the first: {rows:#?}");
    assert!(items(&audit(&chain, "search", &["--json", "--until", "1h"])).is_empty());
    let csv = answer(&audit(&chain, "search", &["--csv", "--who", who]));
    assert!(csv.contains(r"\u{1b}[31m") && !csv.contains('\u{1b}'), "{csv}");

    let session = mine[0]["session"].as_str().expect("a session");
    let story = answer(&audit(&chain, "session", &[session]));
    for part in [who, "granted rule ", "'=evil'", "end: client"] {
        assert!(story.contains(part), "no {part} in {story}");
    }
    // The folder as the config says it.
    let mut of_config = Command::new(binary());
    of_config.args(["audit", "session", session, "--config"]).arg(chain.config_path());
    assert_eq!(answer(&of_config.output().expect("the binary runs")), story);

    followed(&chain).await;
    left(&chain);
}

/// What comes while somebody looks.
async fn followed(chain: &Chain) {
    let mut tail = Command::new(binary());
    tail.args(["audit", "tail", "-n", "0", "--follow", "--json", "--text", "while somebody looks"]);
    let mut tail = tail.arg(chain.audit_folder()).stdout(Stdio::piped()).spawn().expect("the binary runs");
    let mut lines = BufReader::new(tail.stdout.take().expect("a pipe")).lines();
    // The same again and again: what ran before it had looked is none of what comes.
    let mut line = tokio::task::spawn_blocking(move || lines.next());
    let deadline = Instant::now() + PATIENCE;
    let line = loop {
        chain.query(&chain.person(), "select 'while somebody looks'").await;
        if let Ok(line) = tokio::time::timeout(Duration::from_millis(300), &mut line).await {
            break line.expect("no panic");
        }
        if Instant::now() > deadline {
            tail.kill().expect("it runs");
            panic!("nothing was followed in {PATIENCE:?}");
        }
    };
    let item: Value = serde_json::from_str(&line.expect("a line").expect("UTF-8")).expect("JSON");
    assert_eq!((item["outcome"].as_str(), item["rows"].as_u64()), (Some("ok"), Some(1)));
    tail.kill().expect("it runs");
    tail.wait().expect("it ends");
}

/// A reader who leaves is no error.
fn left(chain: &Chain) {
    let mut search = Command::new(binary());
    search.args(["audit", "search", "--json"]).arg(chain.audit_folder());
    let mut search = search.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut line = String::new();
    BufReader::with_capacity(64, search.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let output = search.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

//! The audit log: what is written when, and how lines join.

use pgpassport::sim::world::{ANALYST, CONTOSO, INSTANCE, SIGN_IN_CLIENT};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;
use proto_tests::records::{Records, as_the_reference_has_it};
use proto_tests::script::{bind, execute, execute_up_to, flush, parse, sync};
use proto_tests::wire::{self, message, read_until, text};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

/// Statement and portal names, parameter formats and types: none.
/// Sends and reads up to `ReadyForQuery`, errors included.
async fn ask(stream: &mut Raw, messages: &[Vec<u8>]) {
    stream.write_all(&messages.concat()).await.expect("sent");
    while wire::read(stream).await.expect("an answer").tag != b'Z' {}
}

/// Every end outcome with its SQLSTATE, in the order of the begin lines that opened the events.
fn outcomes(records: &Records, text: &str) -> Vec<(String, Option<String>)> {
    let field = |end: &Value, name: &str| end[name].as_str().map(str::to_owned);
    let outcome = |begin: &Value| {
        let end = records.end_of(begin);
        (field(end, "outcome").expect("an outcome"), field(end, "sqlstate"))
    };
    records.began(text).iter().map(outcome).collect()
}

fn ended(outcome: &str) -> (String, Option<String>) {
    (outcome.to_owned(), None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_leaves_a_begin_and_an_end_that_name_the_caller() {
    const TEXT: &str = "select * from generate_series(1, 3) /* of the client */";
    let chain = Chain::start().await;
    chain.query(&chain.person(), TEXT).await;
    let records = chain.records_when("the session's end", |records| !records.of("session_end").is_empty()).await;
    let begins = records.began(TEXT);
    let begin = begins.only();
    assert_eq!((begin["stage"].as_str(), begin["tagged"].as_bool()), (Some("query"), Some(true)));
    let caller = &begin["caller"];
    assert_eq!(caller["label"], ANALYST.upn);
    assert_eq!(caller["object_id"], ANALYST.object_id);
    assert_eq!(caller["tenant"], CONTOSO.id);
    assert_eq!(caller["app"], SIGN_IN_CLIENT);
    assert_eq!((caller["kind"].as_str(), caller["issuer"].as_str()), (Some("user"), Some("contoso")));
    let token_id = caller["token_id"].as_str().expect("the token's id in Entra's sign-in logs");
    assert_eq!(records.of("session_start").only()["caller"]["token_id"], token_id);
    let end = records.end_of(begin);
    assert_eq!((end["outcome"].as_str(), end["rows"].as_u64()), (Some("ok"), Some(3)));
    for counted in ["bytes_in", "bytes_out", "duration_us"] {
        assert!(end[counted].as_u64().is_some_and(|n| n > 0), "{counted} in {end}");
    }
    let place = |wanted: &Value| records.iter().position(|record| record == wanted).expect("in the log");
    assert!(place(begin) < place(end));
    let kinds: Vec<&str> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["session_start", "exchanged", "session_open", "begin", "end", "session_end"]);
    assert!(records.iter().all(|record| record["session"] == begin["session"]), "one session");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_says_who_where_and_what_was_claimed() {
    let chain = Chain::start().await;
    let printed = chain.psql(&chain.person(), &["-c", "select current_setting('application_name')"]).await;
    assert_eq!(printed.well(), "psql", "what the client says of itself reaches the database as before");
    let records = chain.records_when("the session's end", |records| !records.of("session_end").is_empty()).await;
    let start = records.of("session_start").only().clone();
    assert_eq!(start["claimed"]["application_name"], "psql");
    assert_eq!(start["database_user"], ANALYST.upn);
    assert_eq!(start["instance"], INSTANCE);
    assert_eq!((start["database"].as_str(), start["grant"].as_str()), (Some("orders"), Some("workforce")));
    assert!(start["rule"].as_str().is_some_and(|rule| !rule.is_empty()));
    assert!(records.of("session_open").only()["backend_pid"].as_u64().is_some_and(|pid| pid > 0));
    let mode = |path: &Path| std::fs::metadata(path).expect("the log").permissions().mode() & 0o777;
    assert_eq!((mode(&chain.audit_folder()), mode(&chain.segment_path())), (0o700, 0o600), "only its owner reads it");
    assert_eq!(mode(&chain.jsonl_path()), 0o600, "nor the copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_begin_line_is_there_while_the_statement_runs() {
    const TEXT: &str = "select pg_sleep(3)";
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    stream.write_all(&message(b'Q', &text(TEXT))).await.unwrap();
    let records = chain.records_when("the begin", |records| !records.began(TEXT).is_empty()).await;
    assert_eq!(records.open().len(), 1, "it runs, and no end is known");
    read_until(&mut stream, b'Z').await;
    chain.records_when("the end", |records| records.open().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_their_sqlstate_and_each_part_of_a_query_its_end() {
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    ask(&mut stream, &[message(b'Q', &text("select nope"))]).await;
    ask(&mut stream, &[message(b'Q', &text("select 1; select 2 union select 3; select 1 / 0; select 4"))]).await;
    let records =
        chain.records_when("the ends", |records| records.of("begin").len() == 2 && records.open().is_empty()).await;
    assert_eq!(outcomes(&records, "select nope"), [("error".to_owned(), Some("42703".to_owned()))]);
    let id = records.began("select 1; select 2 union select 3; select 1 / 0; select 4").only()["id"].clone();
    let parts: Vec<Value> = records
        .of("end")
        .with("id", id.as_str().unwrap())
        .iter()
        .map(|end| serde_json::json!([end["part"], end["outcome"], end["rows"], end["final"]]))
        .collect();
    let expected = serde_json::json!([[0, "ok", 1, false], [1, "ok", 2, false], [2, "error", 0, true]]);
    assert_eq!(Value::Array(parts), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_execution_is_one_event_with_a_begin_line_for_what_came_in_one_read() {
    const TEXT: &str = "select 'extended'";
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    ask(&mut stream, &[parse("", TEXT), bind("", ""), execute(""), sync()]).await;
    let records =
        chain.records_when("the end", |records| records.of("begin").len() == 1 && records.open().is_empty()).await;
    let begin = records.of("begin").only().clone();
    assert_eq!([&begin["since"], &begin["stage"], &begin["text"]], ["parse", "execute", TEXT]);
    assert_eq!(outcomes(&records, TEXT), [ended("ok")]);
    // The second one's messages come by themselves.
    for (one, messages) in [parse("", TEXT), bind("", ""), execute("")].into_iter().zip(2..) {
        stream.write_all(&[one, flush()].concat()).await.expect("sent");
        chain.records_when("its line", |records| records.of("begin").len() == messages).await;
    }
    ask(&mut stream, &[sync()]).await;
    let records = chain.records_when("the end", |records| records.open().is_empty()).await;
    let second: Vec<Value> = records.of("begin").iter().skip(1).cloned().collect();
    let stages: Vec<_> = second.iter().map(|begin| (begin["stage"].as_str(), begin["since"].as_str())).collect();
    assert_eq!(stages, ["parse", "bind", "execute"].map(|stage| (Some(stage), None)));
    assert!(second.iter().all(|line| line["id"] == second[0]["id"] && line["id"] != begin["id"]), "one id");
}

/// PostgreSQL has the whole text; the record has its start, and on every end line what the whole is known by.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_over_64_kib_is_known_by_its_sha256_wherever_it_runs() {
    let long = format!("select length('{}')", "0123456789".repeat(20_000));
    let hash = "select encode(sha256(convert_to(substr(statement, strpos(statement, '*/ ') + 3), 'UTF8')), 'hex') \
                from pg_prepared_statements where name = 'long'";
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    let run = [bind("", "long"), execute("")].concat();
    ask(&mut stream, &[parse("long", &long), run.clone(), run.clone(), sync()]).await;
    ask(&mut stream, &[run.clone(), run, sync()]).await;
    ask(&mut stream, &[message(b'Q', &text(&long))]).await;
    stream.write_all(&message(b'Q', &text(hash))).await.unwrap();
    let answers = read_until(&mut stream, b'Z').await;
    let row = answers.iter().find(|answer| answer.tag == b'D').expect("a row");
    let sha256 = String::from_utf8(row.body[6..].to_vec()).unwrap();
    let records =
        chain.records_when("the ends", |records| records.of("end").len() == 6 && records.open().is_empty()).await;
    let ends = records.of("end");
    let known: Vec<&Value> = ends.iter().filter(|end| end["text_sha256"] == sha256.as_str()).collect();
    assert_eq!(known.len(), 5, "four executions and the Query: {ends:#?}");
    assert!(known.iter().all(|end| end["text_bytes"] == long.len()), "{known:#?}");
    assert_eq!(ends.iter().filter(|end| end["text_sha256"].is_null()).count(), 1, "a short text needs none");
    let begins = records.of("begin");
    let kept = begins.iter().filter_map(|begin| begin["text"].as_str()).map(str::len).max();
    assert_eq!(kept, Some(64 * 1024), "the start is in the record");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_executed_is_recorded_too() {
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    ask(&mut stream, &[parse("p", "select 'only parsed'"), sync()]).await;
    ask(&mut stream, &[parse("b", "select 'only bound'"), bind("c", "b"), sync()]).await;
    stream.write_all(&message(b'X', &[])).await.unwrap();
    let records = chain.records_when("the session's end", |records| !records.of("session_end").is_empty()).await;
    assert_eq!(outcomes(&records, "select 'only parsed'"), [ended("parsed")]);
    assert_eq!(outcomes(&records, "select 'only bound'"), [ended("bound")]);
    assert!(records.open().is_empty(), "no event stays open after its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_skips_after_an_error_is_skipped() {
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    let pipeline = [
        parse("", "select 1 / 0"),
        bind("", ""),
        execute(""),
        parse("", "select 'after the error'"),
        bind("", ""),
        execute(""),
        sync(),
        parse("", "select 'after the sync'"),
        bind("", ""),
        execute(""),
    ];
    stream.write_all(&pipeline.concat()).await.unwrap();
    ask(&mut stream, &[]).await;
    ask(&mut stream, &[sync()]).await;
    let all = |records: &Records| records.of("begin").apart().len() == 9 && records.open().is_empty();
    let records = chain.records_when("the ends", all).await;
    assert_eq!(outcomes(&records, "select 1 / 0"), [("error".to_owned(), Some("22012".to_owned()))]);
    assert_eq!(outcomes(&records, "select 'after the error'"), [ended("skipped")]);
    assert_eq!(outcomes(&records, "select 'after the sync'"), [ended("ok")]);
    assert!(!chain.database_log().contains("after the error"), "the server did skip it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_fetched_in_parts_is_suspended_then_done() {
    const TEXT: &str = "select generate_series(1, 3)";
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    ask(&mut stream, &[parse("", TEXT), bind("", ""), execute_up_to("", 2), execute(""), sync()]).await;
    let records =
        chain.records_when("the ends", |records| records.open().is_empty() && records.of("end").len() == 2).await;
    let ends: Vec<Value> =
        records.of("end").iter().map(|end| serde_json::json!([end["outcome"], end["rows"]])).collect();
    assert_eq!(Value::Array(ends), serde_json::json!([["suspended", 2], ["ok", 1]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_off_ends_its_events_as_unknown() {
    const TEXT: &str = "select pg_sleep(60)";
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    stream.write_all(&message(b'Q', &text(TEXT))).await.unwrap();
    chain.records_when("the begin", |records| !records.began(TEXT).is_empty()).await;
    drop(stream);
    let records = chain.records_when("the session's end", |records| !records.of("session_end").is_empty()).await;
    let outcome = &outcomes(&records, TEXT)[0].0;
    assert!(outcome == "unknown" || outcome == "canceled", "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_fill_the_disk() {
    let chain = Setup::default().replace("[audit]", "[audit]\nunverified_refusals_per_minute = 3").start().await;
    let stranger = Login { password: "no.to.ken".to_owned(), ..chain.person() };
    for _ in 0..10 {
        let mut stream = chain.tls().await.expect("TLS");
        assert_eq!(chain.attempt(&mut stream, &stranger).await.sqlstate(), "28P01", "every one is told");
    }
    // Refusals of verified callers have no budget.
    let verified = Login { database: "nowhere".to_owned(), ..chain.person() };
    for _ in 0..5 {
        let mut stream = chain.tls().await.expect("TLS");
        assert_eq!(chain.attempt(&mut stream, &verified).await.sqlstate(), "3D000");
    }
    let records = chain
        .records_when("the verified ones", |records| records.of("refused").with("sqlstate", "3D000").len() == 5)
        .await;
    let recorded = records.of("refused").with("sqlstate", "28P01").len();
    // A new minute may begin in mid-test.
    assert!((3..=6).contains(&recorded), "{recorded} of 10 were recorded");
    let mut chain = chain;
    chain.proxy.terminate();
    chain.proxy.ended().await;
    let suppressed: u64 =
        chain.records().of("refusals_suppressed").iter().map(|record| record["count"].as_u64().unwrap()).sum();
    assert_eq!(recorded as u64 + suppressed, 10, "what was not recorded was counted");
}

/// SQL within a function gives names that the protocol shares, unseen from outside and without a tag.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_prepared_is_never_recorded_as_tagged_and_certain() {
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.app()).await;
    let within = |sql: &str| message(b'Q', &text(&format!("do $$begin {sql} end$$")));
    ask(&mut stream, &[within("execute 'prepare hidden as delete from orders where false';")]).await;
    ask(&mut stream, &[bind("", "hidden"), execute(""), sync()]).await;
    ask(&mut stream, &[parse("known", "select 1"), sync()]).await;
    ask(
        &mut stream,
        &[within("execute 'deallocate known'; execute 'prepare known as delete from orders where false';")],
    )
    .await;
    ask(&mut stream, &[bind("", "known"), execute(""), sync()]).await;
    ask(&mut stream, &[message(b'Q', &text("begin"))]).await;
    ask(&mut stream, &[message(b'Q', &text("declare held cursor with hold for select 1"))]).await;
    ask(&mut stream, &[message(b'Q', &text("commit"))]).await;
    ask(&mut stream, &[execute("held"), sync()]).await;
    stream.write_all(&message(b'X', &[])).await.unwrap();
    let records = chain.records_when("the session's end", |records| !records.of("session_end").is_empty()).await;
    let hidden = records.of("begin").with("statement", "hidden");
    for begin in &hidden {
        assert_eq!(
            (&begin["tagged"], &begin["text_doubtful"], &begin["text_of"]),
            (&false.into(), &true.into(), &Value::Null)
        );
    }
    assert_eq!(hidden.len(), 2, "its Bind and its Execute");
    assert_eq!(records.end_of(&hidden.iter().next().unwrap().clone())["command"], "DELETE");
    let deleted = records.of("end").with("command", "DELETE");
    assert_eq!(deleted.len(), 2);
    // The second one continues the event of `select 1`, with which DELETE cannot end.
    assert!(deleted.iter().any(|end| end["text_doubtful"] == true), "{deleted:#?}");
    let held = records.of("begin").with("portal", "held");
    assert_eq!((&held.only()["text_doubtful"], &held.only()["tagged"]), (&true.into(), &false.into()));
    assert_eq!(records.end_of(held.only())["command"], "SELECT");
    assert!(chain.database_log().contains("execute hidden: "), "PostgreSQL ran it, and its text has no tag");
}

/// Every test that reads records has them judged so; here what the judge refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_what_the_reference_of_fields_says_and_nothing_else_is() {
    let chain = Chain::start().await;
    chain.query(&chain.person(), "set role none").await;
    let records = chain.records_when("the session's end", |records| !records.of("session_end").is_empty()).await;
    for event in ["session_start", "exchanged", "session_open", "begin", "end", "session_end"] {
        assert!(!records.of(event).is_empty(), "no {event}");
    }
    let begin = records.began("set role none").only().clone();
    let refused = |what: &str, change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut changed = begin.clone();
        change(changed.as_object_mut().expect("an object"));
        assert!(as_the_reference_has_it(&changed).is_err(), "{what}: {changed}");
    };
    assert_eq!(as_the_reference_has_it(&begin), Ok(()));
    refused("a member that nobody explains", &|begin| drop(begin.insert("extra".into(), 1.into())));
    refused("one that must be there", &|begin| drop(begin.remove("caller")));
    refused("null", &|begin| drop(begin.insert("portal".into(), Value::Null)));
    refused("another type", &|begin| drop(begin.insert("tagged".into(), "yes".into())));
    refused("another word", &|begin| drop(begin.insert("stage".into(), "flush".into())));
    refused("inside a list", &|begin| begin["role_changes"][0]["by"] = "who".into());
    refused("inside the caller", &|begin| begin["caller"]["mail"] = "analyst@contoso.example".into());
    refused("an event that nobody explains", &|begin| drop(begin.insert("event".into(), "other".into())));
}

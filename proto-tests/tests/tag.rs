//! The tag, judged by what others make of it: PostgreSQL's parser, its answers, and its own views.

use pgpassport::sim::world::{ANALYST, CONTOSO, INSTANCE, SIGN_IN_CLIENT};
use proto_tests::chain::{Chain, Setup};
use proto_tests::drivers;
use proto_tests::psql::Login;
use proto_tests::script::without_numbers;
use proto_tests::wire::{self, Message, message, read_until, text};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The statement that shows itself, tag and all, as the server got it.
const SHOW_MYSELF: &str = "select query from pg_stat_activity where pid = pg_backend_pid()";
fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[text(name), text(sql), vec![0, 0]].concat())
}

fn bind(statement: &str) -> Vec<u8> {
    message(b'B', &[text(""), text(statement), vec![0; 6]].concat())
}

/// A Bind with one parameter in text form.
fn bind_value(statement: &str, value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let value = [vec![0, 0, 0, 1], length.to_vec(), value.into(), vec![0, 0]].concat();
    message(b'B', &[text(""), text(statement), value].concat())
}

fn execute() -> Vec<u8> {
    message(b'E', &[text(""), vec![0; 4]].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', &[])
}

/// A text that is not UTF-8.
fn raw_query(sql: &[u8]) -> Vec<u8> {
    message(b'Q', &[sql, b"\0"].concat())
}

/// What is asked, each up to its `ReadyForQuery`.
fn questions() -> Vec<Vec<u8>> {
    let extended = |sql: &str| [parse("", sql), bind(""), execute(), sync()].concat();
    let mut all: Vec<Vec<u8>> = ERRORS.iter().flat_map(|sql| [query(sql), extended(sql)]).collect();
    all.extend(SCRIPTS.iter().flat_map(|script| script.iter().map(|sql| query(sql))));
    all.extend([
        // A position that is raised at Bind against a text that was parsed before.
        query("create temp table gone (a int)"),
        [parse("s", "select 'ü', a from gone where a = $1"), sync()].concat(),
        query("drop table gone"),
        [bind_value("s", "1"), execute(), sync()].concat(),
        [parse("n", "select $1::int"), bind_value("n", "ü"), execute(), sync()].concat(),
        // Other encodings of the client: é in Latin 1, 表 in Shift JIS, whose second byte is a backslash.
        query("set client_encoding = latin1"),
        raw_query(b"select '\xe9\xe9\xe9', nope"),
        query("set client_encoding = sjis"),
        raw_query(b"select '\x95\x5c', nope"),
        raw_query(b"select '\x95', nope"),
        query("set client_encoding = utf8"),
        raw_query(b"select '\xff', nope"),
        query("set standard_conforming_strings = off"),
        query("select 'ü', 'a\\'b', nope"),
        query("set standard_conforming_strings = on"),
    ]);
    all
}

/// Alone, in both protocols.
const ERRORS: &[&str] = &[
    "",
    " ",
    ";",
    "-- nothing",
    "/* nothing */",
    "/* nothing */ ; /* */",
    "selec",
    "select nope",
    "select 'ü', nope",
    "select '日本語😀', nope -- tail",
    "select 1 from",
    "select 'open",
    "select \"open",
    "select $$open",
    "/* open",
    "select 1 /* open",
    "select */ 1",
    "select 1 +* 2",
    "select 'x'::int",
    "select 'a b c'::regtype",
    "select ('ü' || 1)::nosuch",
    "select f(1, 2)",
    "insert into nosuch values (1)",
    "create temp table t (a nosuch)",
    "create temp table t (a int check (b > 1))",
    "select sum(sum(1))",
    "do $$ begin perform nope; end $$",
    "do $$ begin raise notice 'ü'; bad syntax; end $$",
    "do 'begin execute ''selec ü''; end'",
    "create function pg_temp.f() returns int language plpgsql as $$ begin retur 1; end $$",
    "create function pg_temp.f() returns int language sql as 'select ü from nosuch'",
    "create function pg_temp.f() returns int language sql as $$ select 1; selec $$",
    "explain select nope",
    "prepare p as select nope",
    "declare c cursor for select nope",
    "copy nosuch from stdin",
    "execute nosuch",
];

/// Several Queries, one after the other.
const SCRIPTS: &[&[&str]] = &[
    &["select 1; select 'ü', nope; select 2", "select 1; selec 2"],
    // An error in a text that came with an earlier Query.
    &["create temp table t1 (a int)", "prepare p1 as select 'ü', a from t1", "drop table t1", "execute p1"],
    // An error in a text that no client sent: its position is short, and stays.
    &[
        "create temp table t2 (a int)",
        "do $$ begin execute 'prepare p2 as select a from t2'; end $$",
        "drop table t2",
        "execute p2",
    ],
    &[
        "create function pg_temp.g(a int) returns int language plpgsql as 'begin return a + nope; end'",
        "select pg_temp.g(1)",
        "select 'ü', pg_temp.g('x')",
    ],
    // A warning with a position.
    &["set standard_conforming_strings = off", "select 'ü', 'a\\b'", "reset standard_conforming_strings"],
    &["begin", "select nope", "select 1", "rollback", "commit"],
];

async fn answers(stream: &mut TlsStream<TcpStream>, question: &[u8]) -> Vec<Message> {
    stream.write_all(question).await.expect("sent");
    let mut all = Vec::new();
    while all.last().is_none_or(|last: &Message| last.tag != b'Z') {
        all.push(wire::read(stream).await.expect("an answer"));
    }
    all
}

/// Errors, warnings, empty queries: with the tag as without, to the byte.
#[tokio::test(flavor = "multi_thread")]
async fn the_tag_changes_no_answer() {
    // The same database without tags.
    let plain = format!("[database.plain]\ninstance = \"{INSTANCE}\"\ndatabase = \"orders\"\ntag = false");
    let chain = Setup::default()
        .extra(&plain)
        .replace("databases = [\"orders\"]\nkind = \"user\"", "databases = [\"orders\", \"plain\"]\nkind = \"user\"")
        .start()
        .await;
    let mut tagged = chain.session(&chain.person()).await;
    let mut plain = chain.session(&Login { database: "plain".to_owned(), ..chain.person() }).await;
    let (mut positions, mut empty) = (0, 0);
    for question in questions() {
        let (with, without) = (answers(&mut tagged, &question).await, answers(&mut plain, &question).await);
        let shown = String::from_utf8_lossy(&question).into_owned();
        let comparable = |answers: &[Message]| answers.iter().map(without_numbers).collect::<Vec<_>>();
        assert_eq!(comparable(&with), comparable(&without), "{shown:?}");
        positions += with.iter().filter(|answer| answer.field(b'P').is_some()).count();
        empty += with.iter().filter(|answer| answer.tag == b'I').count();
    }
    assert!(positions >= 45, "only {positions} answers had a position");
    assert_eq!(empty, 12, "six texts are empty, in two protocols");
    // Every event says whether its text left with the tag.
    let records = chain.records_when("all ends", |records| records.open().is_empty()).await;
    for begin in &records.of("begin") {
        let start = records.of("session_start").with("session", begin["session"].as_str().unwrap()).only().clone();
        assert_eq!(begin["tagged"], start["database"] == "orders", "{begin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tagged_statement_parses_to_the_same_tree() {
    let chain = Chain::start().await;
    let shown = chain.query(&chain.person(), SHOW_MYSELF).await;
    let tag = shown.strip_suffix(SHOW_MYSELF).expect("the tag stands in front");
    assert!(tag.starts_with("/*app='") && tag.ends_with("'*/ "), "{tag}");
    let judge = |tag: &str| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/same_tree.py");
        let python = drivers::folder().join("python/bin/python3");
        Command::new(python).arg("-B").arg(script).arg(tag).output().expect("it runs")
    };
    let verdict = judge(tag);
    let out = String::from_utf8_lossy(&verdict.stdout).into_owned();
    assert!(verdict.status.success(), "{out}{}", String::from_utf8_lossy(&verdict.stderr));
    let counts: Vec<u32> = out.split_whitespace().map(|count| count.parse().unwrap()).collect();
    assert!(counts[0] > 1000 && counts[1] > 1000, "{counts:?} statements had a tree, an error");
    for bad in ["/*app='a", "-- ", "select 1; ", "x "] {
        assert!(!judge(bad).status.success(), "the judge must be able to condemn {bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_config_chooses_the_keys() {
    let insights = Setup::default().extra("[tag]\npreset = \"query-insights\"").start().await;
    let shown = insights.query(&insights.person(), SHOW_MYSELF).await;
    let expected = format!(
        "/*action='analyst%40contoso.example',application='{SIGN_IN_CLIENT}',controller='{}',route='{}'*/ {SHOW_MYSELF}",
        CONTOSO.id, ANALYST.object_id
    );
    assert_eq!(shown, expected);
    let own = "[tag.keys]\nby = \"{rule} on {database}\"\nwho = \"{issuer}/{tenant}/{object_id}\"";
    let own = Setup::default().extra(own).start().await;
    let shown = own.query(&own.person(), SHOW_MYSELF).await;
    let who = format!("contoso%2F{}%2F{}", CONTOSO.id, ANALYST.object_id);
    assert!(shown.starts_with("/*by='") && shown.contains("%20on%20orders',who='"), "{shown}");
    assert!(shown.ends_with(&format!("who='{who}'*/ {SHOW_MYSELF}")), "{shown}");
    // Another session of the same caller has the same.
    assert_eq!(own.query(&own.person(), SHOW_MYSELF).await, shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_cuts_is_not_the_tag() {
    let chain = Chain::start().await;
    let mut stream = chain.session(&chain.person()).await;
    let long = format!("{SHOW_MYSELF} /* {} */", "x".repeat(5000));
    stream.write_all(&query(&long)).await.unwrap();
    let row = read_until(&mut stream, b'Z').await.into_iter().find(|answer| answer.tag == b'D').expect("a row");
    let shown = String::from_utf8(row.body[6..].to_vec()).unwrap();
    assert_eq!(shown.len(), 1023, "track_activity_query_size has cut it");
    assert!(shown.contains(&format!("tid='{}'*/ select query", CONTOSO.id)), "{shown}");
    let records = chain.records_when("the end", |records| records.open().is_empty()).await;
    assert_eq!(records.began(&long).only()["text_bytes"], json!(long.len()));
}

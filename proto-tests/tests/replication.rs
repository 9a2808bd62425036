//! Replication sessions: with a grant that says so `pg_recvlogical` and `pg_basebackup` run unharmed and recorded;
//! without it nobody gets one.

use pgpassport::sim::world::ORDERS_APP;
use pgpassport::sim::{CloudOptions, Endpoint, PostgresOptions};
use proto_tests::chain::{Chain, Setup};
use proto_tests::raw::Raw;
use proto_tests::records::Records;
use proto_tests::wire::{self, Message, message};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How long one of PostgreSQL's programs may run.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a client that streams logically asks for.
const DATABASE: (&[u8], &[u8]) = (b"replication", b"database");

/// PostgreSQL writes what logical decoding needs.
fn logical() -> Setup {
    let postgres = PostgresOptions { settings: "wal_level = logical\n".to_owned(), ..PostgresOptions::default() };
    Setup::default().options(CloudOptions { postgres, ..CloudOptions::default() })
}

/// The app's rule gives replication, also of the database that `pg_basebackup` asks for.
fn granted() -> Setup {
    let apps = format!("apps = [\"{}\"]\n", ORDERS_APP.client_id);
    let rule = "name = \"orders-app\"\nissuer = \"contoso\"\ndatabases = [\"orders\"";
    logical()
        .replace(&apps, &format!("{apps}replication = true\n"))
        .replace(rule, &format!("{rule}, \"replication\""))
        .extra(&format!(
            "[database.replication]\ninstance = \"{}\"\ndatabase = \"orders\"",
            pgpassport::sim::world::INSTANCE
        ))
}

/// A start-up with these parameters, up to `ReadyForQuery` or the error.
async fn greeted(chain: &Chain, more: &[(&[u8], &[u8])]) -> Message {
    let login = chain.app();
    let mut stream = chain.tls().await.expect("TLS");
    let own = [(b"user".as_slice(), login.user.as_bytes()), (b"database", login.database.as_bytes())];
    let greeting = wire::greet(&mut stream, &[&own, more].concat(), &login.password).await.expect("an answer");
    greeting.last().expect("an answer").clone()
}

/// Runs one of PostgreSQL's programs as the app.
async fn run(chain: &Chain, program: &str, arguments: &[&str]) -> (bool, String) {
    let login = chain.app();
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", "/nonexistent")
        .env("PGHOST", &login.host)
        .env("PGPORT", login.port.to_string())
        .env("PGUSER", &login.user)
        .env("PGPASSWORD", &login.password)
        .env("PGSSLMODE", login.sslmode)
        .env("PGSSLROOTCERT", chain.cloud.ca_path())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let done = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends in time").expect("installed");
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Begin records whose text starts so.
fn begun<'a>(records: &'a Records, start: &str) -> Vec<&'a serde_json::Value> {
    let starts = |record: &&serde_json::Value| record["text"].as_str().is_some_and(|text| text.starts_with(start));
    records.iter().filter(|record| record["event"] == "begin").filter(starts).collect()
}

/// The last end record of this begin record.
fn end<'a>(records: &'a Records, begin: &serde_json::Value) -> &'a serde_json::Value {
    let same = |record: &&serde_json::Value| record["event"] == "end" && record["id"] == begin["id"];
    records.iter().rfind(same).unwrap_or_else(|| panic!("{begin} has no end"))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_that_says_so_nobody_replicates() {
    let chain = logical().start().await;
    for value in ["database", "true", "T", "on", "yes", "1", "tr", "", "nonsense"] {
        let refused = greeted(&chain, &[(b"replication", value.as_bytes())]).await;
        assert_eq!(refused.sqlstate(), "42501", "replication={value}");
        let hint = refused.field(b'H').expect("a next step");
        assert!(hint.contains("replication = true"), "{hint}");
    }
    assert_eq!(chain.calls().count(Endpoint::InstanceStartup), 0, "none of them came as far as the instance");
    let records = chain.records_when("the refusals", |records| records.of("refused").len() == 9).await;
    assert!(records.of("refused").iter().all(|record| record["caller"]["label"].is_string()), "{records:#?}");
    let (well, said) = run(&chain, "pg_recvlogical", &["-d", "orders", "--slot=s", "--create-slot"]).await;
    assert!(!well && said.contains("42501") | said.contains("does not allow replication"), "{said}");
    for value in ["false", "off", "of", "no", "n", "0", "FALSE"] {
        assert_eq!(greeted(&chain, &[(b"replication", value.as_bytes())]).await.tag, b'Z', "replication={value}");
    }
    // `options` cannot ask for it: to PostgreSQL it is no setting.
    let refused = greeted(&chain, &[(b"options", b"-c replication=database")]).await;
    assert_eq!((refused.tag, refused.sqlstate().as_str()), (b'E', "42704"));
}

#[tokio::test(flavor = "multi_thread")]
async fn walsender_commands_go_untagged_and_sql_goes_tagged_and_both_are_recorded() {
    const MYSELF: &str = "select query from pg_stat_activity where pid = pg_backend_pid()";
    let chain = granted().start().await;
    let mut session = Raw::log_in_with(&chain, &chain.app(), &[DATABASE]).await;
    for command in ["IDENTIFY_SYSTEM", " \n\tIDENTIFY_SYSTEM;", "SHOW wal_level"] {
        let answer = session.query(command).await.unwrap_or_else(|state| panic!("{command}: {state}"));
        assert!(answer.iter().any(|message| message.tag == b'D'), "{command}: {answer:?}");
    }
    for sql in [MYSELF, "show wal_level"] {
        session.query(sql).await.unwrap_or_else(|state| panic!("{sql}: {state}"));
    }
    let rows = session.query(MYSELF).await.expect("a row");
    let row = rows.iter().find(|message| message.tag == b'D').expect("a row");
    assert!(String::from_utf8_lossy(&row.body).contains("/*app='"), "SQL goes tagged: {row:?}");
    // What PostgreSQL takes for SQL is tagged, however much it looks like a command.
    for wrong in ["identify_system", "/**/ IDENTIFY_SYSTEM", "UPLOAD_MANIFESTS"] {
        assert_eq!(session.query(wrong).await.unwrap_err(), "42601", "{wrong}");
    }
    // The extended protocol is PostgreSQL's to refuse.
    session.stream.write_all(&message(b'P', b"\0select 1\0\0\0")).await.unwrap();
    session.stream.write_all(&message(b'S', b"")).await.unwrap();
    assert_eq!(session.answer().await.unwrap_err(), "08P01");

    let records = chain.records_when("all ends", |records| records.open().is_empty()).await;
    assert_eq!(records.of("session_start").only()["replication"], true);
    for (text, tagged) in [
        ("IDENTIFY_SYSTEM", false),
        (" \n\tIDENTIFY_SYSTEM;", false),
        ("SHOW wal_level", false),
        ("show wal_level", true),
        ("identify_system", true),
        ("/**/ IDENTIFY_SYSTEM", true),
    ] {
        assert_eq!(records.began(text).only()["tagged"], tagged, "{text}");
    }
    // The same words in a session that is none are SQL.
    let mut plain = Raw::log_in(&chain, &chain.app()).await;
    assert_eq!(plain.query("IDENTIFY_SYSTEM").await.unwrap_err(), "42601");
    let records = chain.records();
    assert!(records.began("IDENTIFY_SYSTEM").iter().any(|begin| begin["tagged"] == true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_from_either_side_by_cancel_and_by_drain() {
    let mut chain = granted().extra("[deadlines]\ndrain = \"1s\"").start().await;
    // The client ends it.
    let mut session = streaming(&chain, "left").await;
    session.stream.write_all(&message(b'c', b"")).await.unwrap();
    let ended = session.answer().await.expect("copy ends");
    let tags: Vec<u8> = ended.iter().map(|message| message.tag).filter(|tag| *tag != b'd').collect();
    assert_eq!(tags, *b"cCC", "CopyDone both ways, then two commands complete");
    session.query("IDENTIFY_SYSTEM").await.expect("the session goes on");
    // Somebody cancels it; what the client still sends is ignored.
    let mut session = streaming(&chain, "canceled").await;
    session.key.cancel(chain.tcp().await).await;
    assert_eq!(session.answer().await.unwrap_err(), "57014");
    session.stream.write_all(&message(b'd', &status_update())).await.unwrap();
    session.query("IDENTIFY_SYSTEM").await.expect("the session goes on");
    let records = chain.records_when("the ends", |records| records.open().is_empty()).await;
    let started = begun(&records, "START_REPLICATION");
    let outcomes: Vec<&str> = started.iter().filter_map(|begin| end(&records, begin)["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["ok", "canceled"]);
    // The proxy drains: a stream is never idle, and ends at the deadline.
    let mut session = streaming(&chain, "drained").await;
    chain.proxy.terminate();
    let last = wire::read_until(&mut session.stream, b'E').await.pop().expect("a last word");
    assert_eq!(last.sqlstate(), "57P01");
    assert_eq!(chain.proxy.ended().await.status.code(), Some(0));
    assert!(chain.records().open().is_empty());
}

/// A session that streams from a slot of its own, with data going both ways. (PostgreSQL 15 starts no second logical
/// stream in one session: it ends as soon as it begins.)
async fn streaming(chain: &Chain, slot: &str) -> Raw {
    let mut session = Raw::log_in_with(chain, &chain.app(), &[DATABASE]).await;
    let create = format!("CREATE_REPLICATION_SLOT \"{slot}\" TEMPORARY LOGICAL \"test_decoding\"");
    session.query(&create).await.expect("a slot");
    session.send(&format!("START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0")).await;
    let begun = wire::read(&mut session.stream).await.expect("an answer");
    assert_eq!(begun.tag, b'W', "{begun:?}");
    session.stream.write_all(&message(b'd', &status_update())).await.unwrap();
    // The update asks for an answer: a keepalive.
    let data = wire::read(&mut session.stream).await.expect("an answer");
    assert_eq!((data.tag, data.body.first()), (b'd', Some(&b'k')), "{data:?}");
    session
}

/// "Standby status update" that asks for a reply (PostgreSQL, "Streaming Replication Protocol").
fn status_update() -> Vec<u8> {
    [b"r".as_slice(), &[0; 32], &[1]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_recvlogical_streams_what_others_commit() {
    let chain = granted().start().await;
    let slot = ["-d", "orders", "--slot=changes"];
    let (well, said) =
        run(&chain, "pg_recvlogical", &[&slot[..], &["--create-slot", "-P", "test_decoding"]].concat()).await;
    assert!(well, "{said}");
    let mut session = Raw::log_in(&chain, &chain.app()).await;
    session.query("create table scratch.streamed (n int primary key, pad text)").await.expect("a table");
    session
        .query("insert into scratch.streamed select n, repeat('x', 2000) from generate_series(1, 3000) n")
        .await
        .expect("rows");
    let end_at = chain.query(&chain.app(), "select pg_current_wal_insert_lsn()").await;
    session.query("insert into scratch.streamed values (0, 'last')").await.expect("a row");
    let out = chain.folder().join("changes");
    let file = out.to_str().expect("a path");
    let start = ["--start", "--no-loop", "--endpos", &end_at, "-f", file];
    let (well, said) = run(&chain, "pg_recvlogical", &[&slot[..], &start].concat()).await;
    assert!(well, "{said}");
    let changes = std::fs::read_to_string(&out).expect("changes");
    assert_eq!(changes.matches("table scratch.streamed: INSERT:").count(), 3000, "each row, once");
    let (well, said) = run(&chain, "pg_recvlogical", &[&slot[..], &["--drop-slot"]].concat()).await;
    assert!(well, "{said}");

    let records = chain.records_when("the ends", |records| records.open().is_empty()).await;
    for command in ["CREATE_REPLICATION_SLOT", "START_REPLICATION", "DROP_REPLICATION_SLOT"] {
        let begin = begun(&records, command);
        assert_eq!(begin.len(), 1, "{command}: {begin:?}");
        assert_eq!(begin[0]["tagged"], false, "{command}");
        assert!(begin[0]["caller"]["object_id"].is_string(), "{command} says who");
        assert_eq!(end(&records, begin[0])["outcome"], "ok", "{command}");
    }
    let start = begun(&records, "START_REPLICATION")[0];
    let received: u64 = records
        .of("end")
        .iter()
        .filter(|record| record["id"] == start["id"])
        .filter_map(|record| record["bytes_out"].as_u64())
        .sum();
    assert!(received > 6_000_000, "what was streamed counts: {received}");
    let sql = begun(&records, "SELECT pg_catalog.set_config");
    assert!(!sql.is_empty() && sql.iter().all(|begin| begin["tagged"] == true), "{sql:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_basebackup_backs_up_streaming_and_fetching() {
    let chain = granted().start().await;
    for method in ["stream", "fetch"] {
        let folder = chain.folder().join(method);
        let into = folder.to_str().expect("a path");
        let (well, said) = run(&chain, "pg_basebackup", &["-D", into, "-X", method, "-c", "fast"]).await;
        assert!(well, "-X {method}: {said}");
        verified(&folder).await;
    }
    let records = chain.records_when("the ends", |records| records.open().is_empty()).await;
    let backups = begun(&records, "BASE_BACKUP");
    assert_eq!((backups.len(), begun(&records, "START_REPLICATION").len()), (2, 1), "{records:#?}");
    for begin in backups {
        assert_eq!((begin["tagged"].as_bool(), end(&records, begin)["outcome"].as_str()), (Some(false), Some("ok")));
    }
}

/// `pg_verifybackup` reads every file and the WAL.
async fn verified(folder: &Path) {
    let version = std::fs::read_to_string(folder.join("PG_VERSION")).expect("a backup");
    let program = format!("/usr/lib/postgresql/{}/bin/pg_verifybackup", version.trim());
    let done = tokio::process::Command::new(program).arg(folder).output().await.expect("pg_verifybackup is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_session_names_a_database_too() {
    let chain = logical().start().await;
    let folder = chain.folder().join("never");
    let (well, said) = run(&chain, "pg_basebackup", &["-D", folder.to_str().expect("a path")]).await;
    assert!(!well && said.contains("database \"replication\" is not configured"), "{said}");
    assert!(said.contains("[database.replication]"), "the next step: {said}");
    assert_eq!(chain.calls().count(Endpoint::InstanceStartup), 0);
}

//! Reading a log that is written here, record by record.

use super::fields::Fields;
use super::join::{Join, Lost, Wanted};
use super::reading::Folder;
use super::tests::said;
use super::*;
use crate::audit::ledger::{frame, segment};
use clap::Parser;
use serde_json::{Value, json};
use std::fmt::Write as _;
use tempfile::TempDir;
use uuid::Uuid;

/// Whole segments: when each was begun, and its records.
pub(super) fn written(segments: &[(&str, Vec<Value>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut first = 0;
    for (number, (created, records)) in (1..).zip(segments) {
        add(folder.path(), number, first, created, records);
        first += records.len() as u64;
    }
    folder
}

fn add(folder: &Path, number: u64, first: u64, created: &str, records: &[Value]) {
    let header = segment::Header { log: Uuid::nil(), number, first, created: created.parse().unwrap() };
    let bytes = [header.encode().to_vec(), frames(records)].concat();
    std::fs::write(segment::path(folder, number), bytes).unwrap();
}

fn frames(records: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        assert!(frame::push(&mut out, record.to_string().as_bytes()));
    }
    out
}

fn append(folder: &Path, number: u64, bytes: &[u8]) {
    let path = segment::path(folder, number);
    let before = std::fs::read(&path).unwrap();
    std::fs::write(path, [&before[..], bytes].concat()).unwrap();
}

/// A session that began at some time of 2026-11-22.
fn session(time: &str) -> String {
    let at: crate::time::Timestamp = format!("2026-11-22T{time}Z").parse().unwrap();
    let hex = format!("{:012x}", at.as_millisecond());
    format!("{}-{}-7000-8000-000000000001", &hex[..8], &hex[8..])
}

fn record(session: &str, time: &str, event: &str, more: Value) -> Value {
    let mut record = json!({"version": 1, "time": format!("2026-11-22T{time}Z"), "session": session, "event": event});
    record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    record
}

fn caller(label: &str) -> Value {
    json!({"label": label, "issuer": "contoso", "tenant": "t", "object_id": format!("oid-of-{label}"), "kind": "user",
        "app": format!("app-of-{label}")})
}

fn start(session: &str, time: &str, label: &str, database: &str) -> Value {
    let more = json!({"caller": caller(label), "rule": "people", "grant": "workforce", "database": database,
        "database_name": format!("{database}_db"), "instance": "p:r:i", "database_user": label,
        "client": "192.0.2.7:5000", "claimed": {"user": label}, "tag": true, "token_expires": "2026-11-22T23:00:00Z"});
    record(session, time, "session_start", more)
}

fn begin(session: &str, time: &str, event: u64, label: &str, more: Value) -> Value {
    let mut begin = record(session, time, "begin", more);
    begin["id"] = format!("{session}.{event}").into();
    begin["caller"] = caller(label);
    begin
}

fn query(session: &str, time: &str, event: u64, text: &str) -> Value {
    begin(session, time, event, "analyst", json!({"stage": "query", "text": text, "tagged": true}))
}

fn end(session: &str, time: &str, event: u64, more: Value) -> Value {
    let mut end = record(
        session,
        time,
        "end",
        json!({"id": format!("{session}.{event}"), "part": 0, "final": true, "outcome": "ok", "rows": 1,
            "bytes_in": 10, "bytes_out": 20, "duration_us": 1500}),
    );
    end.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    end
}

fn at(folder: &TempDir) -> String {
    folder.path().display().to_string()
}

/// What a search says as JSON, and on standard error.
fn found(folder: &TempDir, more: &[&str]) -> (Vec<Value>, String) {
    let (outcome, out, err) = said(&[&["search", &at(folder), "--json"], more].concat());
    assert_eq!(outcome, Outcome::Done, "{err}");
    (out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), err)
}

fn texts(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["text"].as_str().unwrap_or("-")).collect()
}

/// Two people, two databases, three segments.
fn log() -> TempDir {
    let (a, b) = (session("10:00:00"), session("11:00:00"));
    let denied = json!({"outcome": "error", "sqlstate": "42501", "rows": 0});
    written(&[
        (
            "2026-11-22T09:59:00Z",
            vec![
                start(&a, "10:00:00", "analyst", "orders"),
                record(&a, "10:00:01", "session_open", json!({"backend_pid": 77, "instance_address": "10.0.0.3:3307"})),
                begin(
                    &a,
                    "10:00:02",
                    1,
                    "analyst",
                    json!({"stage": "parse", "text": "select Über from t", "statement": "s"}),
                ),
                begin(&a, "10:00:02", 1, "analyst", json!({"stage": "bind", "portal": "p"})),
                begin(&a, "10:00:02", 1, "analyst", json!({"stage": "execute"})),
                end(&a, "10:00:03", 1, json!({"rows": 500, "command": "SELECT"})),
            ],
        ),
        (
            "2026-11-22T10:30:00Z",
            vec![
                start(&b, "11:00:00", "auditor", "ledger"),
                begin(&b, "11:00:01", 1, "auditor", json!({"stage": "query", "text": "delete from t"})),
                begin(
                    &a,
                    "11:00:02",
                    2,
                    "analyst",
                    json!({"stage": "execute", "since": "bind", "text_of": format!("{a}.1")}),
                ),
                end(&b, "11:00:03", 1, denied),
                record(&b, "11:00:04", "refused", json!({"sqlstate": "28P01", "message": "=no", "reason": "why"})),
            ],
        ),
        (
            "2026-11-22T11:59:00Z",
            vec![
                end(&a, "12:00:00", 2, json!({"rows": 2})),
                query(&a, "12:00:01", 3, "insert 1; insert 2"),
                end(&a, "12:00:02", 3, json!({"rows": 3, "final": false})),
                end(&a, "12:00:03", 3, json!({"rows": 4, "part": 1, "outcome": "canceled", "sqlstate": "57014"})),
                query(&a, "12:00:04", 4, "select pg_sleep(9)"),
                record(&a, "12:00:05", "cancel", json!({"client": "192.0.2.8:1", "outcome": "forwarded"})),
                end(&a, "12:00:06", 4, json!({"outcome": "canceled", "sqlstate": "57014"})),
                record(
                    &a,
                    "12:00:07",
                    "session_end",
                    json!({"reason": "client", "duration_us": 7_000_000, "statements": 6}),
                ),
                record(&a, "12:00:08", "operator_action", json!({"action": "sessions_end", "uid": 0, "sessions": 0})),
                begin(&b, "12:00:09", 2, "auditor", json!({"stage": "query", "text": "select 'open'"})),
            ],
        ),
    ])
}

#[test]
fn an_execution_is_one_line_of_its_begins_and_its_ends() {
    let log = log();
    let (items, err) = found(&log, &[]);
    let all = ["select Über from t", "delete from t", "select Über from t", "insert 1; insert 2", "select pg_sleep(9)"];
    assert_eq!(texts(&items), [&all[..], &["select 'open'"]].concat());
    assert_eq!(err, "");
    let first = &items[0];
    assert_eq!(first["stages"], json!(["parse", "bind", "execute"]));
    assert_eq!((&first["statement"], &first["portal"], &first["rows"]), (&json!("s"), &json!("p"), &json!(500)));
    assert_eq!(
        (&first["database"], &first["backend_pid"], &first["rule"]),
        (&json!("orders"), &json!(77), &json!("people"))
    );
    assert_eq!((&first["time"], &first["ended"]), (&json!("2026-11-22T10:00:02Z"), &json!("2026-11-22T10:00:03Z")));
    let parts = &items[3];
    assert_eq!((&parts["rows"], &parts["parts"]), (&json!(7), &json!(2)));
    assert_eq!((&parts["outcome"], &parts["sqlstate"]), (&json!("canceled"), &json!("57014")));
    assert_eq!(items[5]["outcome"], "open");
    let (_, out, _) = said(&["search", &at(&log), "--width", "110"]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("TIME ") && lines.len() == 7, "{out}");
    assert!(
        lines[2].contains("auditor") && lines[2].contains("error 42501") && lines[2].ends_with("delete from t"),
        "{out}"
    );
}

#[test]
fn each_filter_takes_what_it_says_and_nothing_else() {
    let log = log();
    let a = session("10:00:00");
    for (arguments, expected) in [
        (&["--who", "AUDITOR"][..], 2),
        (&["--who", "oid-of-analyst"], 4),
        (&["--who", "analys"], 0),
        (&["--app", "app-of-auditor"], 2),
        (&["--app", "auditor"], 0),
        (&["--database", "ledger"], 2),
        (&["--database", "orders_db"], 4),
        (&["--database", "order"], 0),
        (&["--text", "ÜBER FROM"], 2),
        (&["--text", "update"], 0),
        (&["--since", "2026-11-22T12:00:01Z"], 3),
        (&["--since", "2026-11-23"], 0),
        (&["--until", "2026-11-22T11:00:02Z"], 2),
        (&["--since", "2026-11-22T11:00:01Z", "--until", "2026-11-22T11:00:02Z"], 1),
        (&["--until", "2026-11-22"], 0),
        (&["--outcome", "canceled"], 2),
        (&["--outcome", "42501"], 1),
        (&["--outcome", "open"], 1),
        (&["--outcome", "skipped"], 0),
        (&["--rows-over", "4"], 2),
        (&["--rows-over", "500"], 0),
        (&["--session", &a], 4),
        (&["--session", &session("10:30:00")], 0),
        (&["--event", "refused"], 1),
        (&["--event", "refused", "--outcome", "28P01", "--who", "auditor"], 1),
        (&["--event", "refused", "--who", "analyst"], 0),
        (&["--event", "begin"], 8),
        (&["--event", "end", "--rows-over", "3"], 2),
        (&["--event", "gap"], 0),
        (&["--event", "all"], 13),
        (&["--who", "analyst", "--outcome", "42501"], 0),
    ] {
        assert_eq!(found(&log, arguments).0.len(), expected, "{arguments:?}");
    }
}

#[test]
fn a_search_that_stops_says_so() {
    let log = log();
    let (items, err) = found(&log, &["--limit", "2"]);
    assert!(items.len() == 2 && err.contains("first 2, and there are more"), "{err}");
    for enough in ["6", "0"] {
        let (items, err) = found(&log, &["--limit", enough]);
        assert_eq!((items.len(), err.as_str()), (6, ""));
    }
}

#[test]
fn segments_out_of_the_span_are_not_read_and_their_sessions_known_all_the_same() {
    let log = log();
    let a = session("10:00:00");
    // What would be said of it if it were read.
    append(log.path(), 1, &frames(&[json!("no object")])[..12]);
    let (items, err) = found(&log, &["--since", "2026-11-22T11:30:00Z"]);
    assert_eq!((items.len(), err.as_str()), (3, ""));
    assert_eq!((&items[0]["database"], &items[0]["session"]), (&json!("orders"), &json!(a)), "from the segment before");
    assert!(found(&log, &[]).1.contains("0000000000000001.segment"));
    let (items, _) = found(&log, &["--since", "2026-11-22T11:00:02Z", "--text", "über"]);
    assert_eq!(items.len(), 1, "the text is in the segment before");
    append(log.path(), 3, b"torn end");
    let (items, err) = found(&log, &["--since", "2026-11-22T11:00:00Z", "--until", "2026-11-22T11:00:02Z"]);
    assert_eq!((items.len(), err.as_str()), (1, ""));
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_shown() {
    let log = log();
    append(log.path(), 3, b"\x09\0\0\0torn");
    let (items, err) = found(&log, &[]);
    assert_eq!(items.len(), 6);
    assert!(
        err.contains("0000000000000003.segment: 8 bytes from record 21 on") && err.contains("audit verify"),
        "{err}"
    );
    std::fs::remove_file(segment::path(log.path(), 2)).unwrap();
    let (items, err) = found(&log, &[]);
    assert!(err.contains("records 6 to 10 of segment 1 are missing"), "{err}");
    assert_eq!(texts(&items)[1], "-", "its begin record is gone, and it is told");
    std::fs::write(segment::path(log.path(), 2), b"PGPLOG01").unwrap();
    assert!(found(&log, &[]).1.contains("does not start as a segment"));
    let (outcome, _, err) = said(&["search", "/nonexistent/audit"]);
    assert!(outcome == Outcome::Failed && err.contains("cannot read"), "{err}");
    let empty = tempfile::tempdir().unwrap();
    assert!(said(&["search", &at(&empty)]).2.contains("holds no log"));
    let (outcome, _, _) = said(&["search", "--config", &at(&empty)]);
    assert_eq!(outcome, Outcome::BadConfig);
}

#[test]
fn a_terminal_and_a_spreadsheet_obey_nobody() {
    let a = session("10:00:00");
    let mut records = vec![start(&a, "10:00:00", "\u{1b}[31m\u{202e}@evil\u{9b}", "=orders")];
    let texts =
        ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a\"b,\r\n\u{1b}]0;x\u{7}\u{7f}\u{85}\u{2066}", "plain"];
    for (event, text) in (1..).zip(texts) {
        let mut own = query(&a, "10:00:01", event, text);
        own["caller"]["label"] = "=cmd|' /C calc'!A0".into();
        records.extend([own, end(&a, "10:00:02", event, json!({"sqlstate": "\u{1b}[0m"}))]);
    }
    let log = written(&[("2026-11-22T09:59:00Z", records)]);
    let obeys = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{2066}');
    for form in ["--csv", "--width=0", "--width=90"] {
        for event in ["all", "execution", "begin"] {
            let (_, out, _) = said(&["search", &at(&log), form, "--event", event]);
            assert!(!out.replace("\r\n", "").replace('\n', "").chars().any(obeys), "{out:?}");
        }
    }
    let (_, story, _) = said(&["session", &at(&log), &a, "--width", "0"]);
    assert!(!story.replace('\n', "").chars().any(obeys), "{story:?}");
    let (_, csv, _) = said(&["search", &at(&log), "--csv"]);
    let rows: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(rows.len(), 1 + texts.len(), "no text makes a row: {csv}");
    assert!(rows[0].starts_with("time,event,session,id,caller.label,") && rows[0].ends_with(",text"));
    for (row, cell) in rows[1..].iter().zip([
        r#""'=1+1""#,
        r#""'+1""#,
        r#""'-1""#,
        r#""'@SUM(A1)""#,
        r#""'\t=1""#,
        r#""'\r=1""#,
        r#""a""b,\r\n\u{1b}]0;x\u{7}\u{7f}\u{85}\u{2066}""#,
        r#""plain""#,
    ]) {
        assert!(row.ends_with(&format!(",{cell}")), "{row} has {cell}");
        assert!(row.contains(r#","'=cmd|' /C calc'!A0","#) && row.contains(r#","'=orders","#), "{row}");
    }
    let (items, _) = found(&log, &["--limit", "7"]);
    assert_eq!(items[6]["text"], texts[6], "JSON has it as it was recorded");
}

/// The bounds of what is kept.
#[test]
fn past_the_bound_the_oldest_goes_and_nothing_is_lost() {
    let a = session("10:00:00");
    let log = written(&[("2026-11-22T09:59:00Z", vec![])]);
    let folder = Folder::open(log.path(), &mut Vec::new()).unwrap();
    let max = bounded::Bounds { entries: 2, bytes: 1 << 20 };
    let mut join = Join::new(&folder, 0, Wanted { max_open: Some(max), ..Wanted::default() });
    let mut take = |record: Value| -> Vec<Fields> {
        join.take(record.to_string().as_bytes()).unwrap().into_iter().map(|item| item.fields).collect()
    };
    assert!(take(query(&a, "10:00:01", 1, "one")).is_empty() && take(query(&a, "10:00:01", 2, "two")).is_empty());
    let gone = take(query(&a, "10:00:01", 3, "three"));
    assert_eq!((gone.len(), &gone[0]["text"], &gone[0]["outcome"]), (1, &json!("one"), &json!("open")));
    let late = take(end(&a, "10:00:02", 1, json!({})));
    assert_eq!((late.len(), late[0].get("text"), &late[0]["outcome"]), (1, None, &json!("ok")));
    assert_eq!(late[0]["time"], "2026-11-22T10:00:01.9985Z", "its begin, by its duration");
    assert_eq!(take(end(&a, "10:00:02", 2, json!({})))[0]["text"], "two");
    let recovered = take(record(&session("10:00:09"), "10:00:09", "recovery", json!({"records": 6, "unsealed": 0})));
    assert_eq!((&recovered[0]["text"], &recovered[1]["event"]), (&json!("three"), &json!("recovery")));
    assert!(join.take(b"no json").unwrap().is_empty());
    assert_eq!(join.lost, Lost { evicted: 1, strange: 1, ..Lost::default() });
}

#[test]
fn a_session_is_a_story_over_segments() {
    let log = log();
    let a = session("10:00:00");
    let (outcome, story, err) = said(&["session", &at(&log), &a, "--width", "0"]);
    assert_eq!((outcome, err.as_str()), (Outcome::Done, ""));
    let expected = [
        "who     analyst, user, object id oid-of-analyst, issuer contoso, tenant t, by app app-of-analyst",
        "from    192.0.2.7:5000, claimed user analyst",
        "granted rule people, workforce, as database user analyst",
        "to      orders, there called orders_db, on p:r:i",
        "logged in at 2026-11-22T10:00:01.000Z, server process 77, at 10.0.0.3:3307",
        "2026-11-22T10:00:02.000Z  ok                500 row(s)       1.5 ms  select Über from t",
        "2026-11-22T11:00:02.000Z  ok                  2 row(s)       1.5 ms  select Über from t",
        "canceled 57014        7 row(s)",
        "cancel forwarded",
        "select pg_sleep(9)",
        "end: client; after 7000.0 ms; begin records: 6",
    ];
    let mut rest = story.as_str();
    for line in expected {
        let at = rest.find(line).unwrap_or_else(|| panic!("no {line:?} in {rest}"));
        rest = &rest[at..];
    }
    assert!(!story.contains("delete from") && !story.contains("no end is recorded"), "{story}");
    let (_, json, _) = said(&["session", &at(&log), &a, "--json"]);
    assert_eq!(json.lines().count(), 9, "{json}");
    let (_, open, _) = said(&["session", &at(&log), &session("11:00:00"), "--width", "0"]);
    assert!(open.contains("no end is recorded") && open.contains("because why"), "{open}");
    let (outcome, _, err) = said(&["session", &at(&log), &session("10:30:00")]);
    assert!(outcome == Outcome::Failed && err.contains("no record of session"), "{err}");
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    tail: tail::Arguments,
}

#[test]
fn the_last_come_first_and_then_what_is_written() {
    let log = log();
    let b = session("11:00:00");
    let (_, out, err) = said(&["tail", &at(&log), "-n", "3", "--json"]);
    let last: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(texts(&last), ["insert 1; insert 2", "select pg_sleep(9)", "select 'open'"], "{err}");
    let (_, out, _) = said(&["tail", &at(&log), "-n", "100", "--width", "0"]);
    assert_eq!(out.lines().count(), 7, "{out}");
    // Followed: an end, a segment more, and one more with it.
    let line = Line::try_parse_from(["tail", &at(&log), "-n", "1", "-f", "--json"]).unwrap();
    let mut step = 0;
    let again = || {
        step += 1;
        match step {
            1 => {
                let end = frames(&[end(&b, "12:00:10", 2, json!({}))]);
                append(log.path(), 3, &end[..9]);
                true
            }
            2 => {
                let end = frames(&[end(&b, "12:00:10", 2, json!({}))]);
                append(log.path(), 3, &end[9..]);
                true
            }
            3 => {
                append(log.path(), 3, &frames(&[query(&b, "12:01:00", 3, "last of its segment")]));
                add(log.path(), 4, 23, "2026-11-22T12:02:00Z", &[end(&b, "12:03:00", 3, json!({}))]);
                add(log.path(), 5, 24, "2026-11-22T12:04:00Z", &[]);
                true
            }
            4 => {
                let more = [query(&b, "12:05:00", 4, "of the newest"), end(&b, "12:05:00", 4, json!({}))];
                append(log.path(), 5, &frames(&more));
                true
            }
            _ => false,
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    tail::follow(&line.tail, &mut out, &mut err, again).unwrap();
    let out = String::from_utf8(out).unwrap();
    let items: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(texts(&items), ["select pg_sleep(9)", "select 'open'", "last of its segment", "of the newest"]);
    assert!(items.iter().skip(1).all(|item| item["database"] == "ledger"), "{out}");
}

/// Takes a little, and is gone.
struct Head(String);

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.0.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        write!(self.0, "{}", bytes.len()).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let a = session("10:00:00");
    let many = (1..2000).map(|event| query(&a, "10:00:01", event, "select 1"));
    let log = written(&[("2026-11-22T09:59:00Z", many.collect())]);
    for command in [&["search", "--json"][..], &["search", "--csv"], &["search"], &["tail", "-n", "1999"]] {
        let line = tests::Line::try_parse_from([&["audit"], command, &[&at(&log)]].concat()).unwrap();
        let mut err = Vec::new();
        let outcome = run(&line.arguments, &mut Head(String::new()), &mut err);
        assert_eq!((outcome, String::from_utf8(err).unwrap().as_str()), (Outcome::Done, ""), "{command:?}");
    }
}

//! The judge must be able to condemn: agreed logs and records, then each doctored.

use super::*;
use serde_json::{Value, json};

const TAG: &str = "/*app='8d1e',caller='analyst%40contoso.example',oid='2b8f',tid='6f9b'*/ ";

/// Query, a failing Query, and Parse, Bind, Execute of one session.
fn records() -> Vec<Value> {
    let caller = json!({"app": "8d1e", "label": "analyst@contoso.example", "object_id": "2b8f", "tenant": "6f9b"});
    let begin = |id: &str, stage: &str, text: Option<&str>| {
        let mut line = json!({"event": "begin", "session": "s", "id": id, "stage": stage, "caller": caller});
        if let Some(text) = text {
            line["text"] = text.into();
            line["text_bytes"] = text.len().into();
            line["tagged"] = true.into();
        }
        line
    };
    let end = |id: &str, outcome: &str| json!({"event": "end", "session": "s", "id": id, "outcome": outcome, "command": "SELECT"});
    let mut failed = end("s.1", "error");
    failed["sqlstate"] = "42703".into();
    vec![
        json!({"event": "session_start", "session": "s", "database_user": "analyst@contoso.example"}),
        json!({"event": "session_open", "session": "s", "backend_pid": 7}),
        begin("s.0", "query", Some("select 1")),
        end("s.0", "ok"),
        begin("s.1", "query", Some("select nope")),
        failed,
        begin("s.2", "parse", Some("select 2")),
        begin("s.2", "bind", None),
        begin("s.2", "execute", None),
        end("s.2", "ok"),
    ]
}

fn line(text: &str) -> String {
    format!("2026-11-22 05:05:05.123 UTC [7] analyst@contoso.example orders {text}\n")
}

fn statements() -> Vec<String> {
    vec![
        line(&format!("00000 LOG:  statement: {TAG}select 1")),
        line(&format!("00000 LOG:  statement: {TAG}select nope")),
        line("42703 ERROR:  column \"nope\" does not exist") + &line(&format!("42703 STATEMENT:  {TAG}select nope")),
        line(&format!("00000 LOG:  execute <unnamed>: {TAG}select 2")),
    ]
}

fn durations() -> Vec<String> {
    let took = |text: &str| line(&format!("00000 LOG:  duration: 0.123 ms  {text}"));
    vec![
        took(&format!("statement: {TAG}select 1")),
        line("42703 ERROR:  column \"nope\" does not exist") + &line(&format!("42703 STATEMENT:  {TAG}select nope")),
        took(&format!("parse <unnamed>: {TAG}select 2")),
        took(&format!("bind <unnamed>: {TAG}select 2")),
        took(&format!("execute <unnamed>: {TAG}select 2")),
    ]
}

fn tried(mode: Mode, log: &[String], records: &[Value]) -> Verdict {
    judge(mode, &log.concat(), &Records::made_up(records.iter().cloned()))
}

#[test]
fn what_agrees_holds_in_both_modes() {
    let verdict = tried(Mode::Statements, &statements(), &records());
    verdict.holds(4);
    assert_eq!(verdict.agreed, Agreed { queries: 2, executes: 1, errors: 1, ..Agreed::default() });
    tried(Mode::Durations, &durations(), &records()).holds(5);
}

#[test]
fn what_the_server_tells_of_itself_is_no_statement() {
    let with = |told: &str| {
        let mut log = statements();
        log.insert(1, line(told));
        tried(Mode::Statements, &log, &records()).faults.len()
    };
    assert_eq!(with("00000 LOG:  logging memory contexts of PID 7"), 0);
    assert_eq!(with("00000 LOG:  checkpoint starting: immediate force wait"), 0);
    assert!(with("00000 LOG:  statement: select 3") > 0);
    assert!(with("57014 ERROR:  canceling statement due to user request") > 0);
}

#[test]
fn any_line_missing_from_the_log_is_a_fault() {
    for (mode, whole) in [(Mode::Statements, statements()), (Mode::Durations, durations())] {
        for missing in 0..whole.len() {
            // A failing Query that was never begun is what a syntax error looks like.
            if mode == Mode::Statements && missing == 1 {
                continue;
            }
            let mut log = whole.clone();
            let gone = log.remove(missing);
            assert!(!tried(mode, &log, &records()).faults.is_empty(), "{mode:?} without {gone}");
        }
    }
}

#[test]
fn any_record_missing_is_a_fault() {
    for (mode, log) in [(Mode::Statements, statements()), (Mode::Durations, durations())] {
        for event in ["s.0", "s.1", "s.2"] {
            let kept: Vec<Value> = records().into_iter().filter(|record| record["id"] != event).collect();
            assert!(!tried(mode, &log, &kept).faults.is_empty(), "{mode:?} without {event}");
        }
    }
    let nobody = tried(Mode::Statements, &statements(), &[]);
    assert_eq!(nobody.faults.len(), 4, "lines of no session: {:?}", nobody.faults);
}

#[test]
fn a_line_too_many_or_out_of_order_is_a_fault() {
    for (mode, whole) in [(Mode::Statements, statements()), (Mode::Durations, durations())] {
        for (at, extra) in whole.iter().enumerate() {
            let mut log = whole.clone();
            log.insert(at, extra.clone());
            assert!(!tried(mode, &log, &records()).faults.is_empty(), "{mode:?} with {extra} twice");
            let mut log = whole.clone();
            log.reverse();
            assert!(!tried(mode, &log, &records()).faults.is_empty(), "{mode:?} reversed");
        }
    }
}

#[test]
fn another_caller_is_a_fault_on_every_line() {
    for (mode, whole) in [(Mode::Statements, statements()), (Mode::Durations, durations())] {
        for at in 0..whole.len() {
            for (right, wrong) in
                [(TAG, ""), ("analyst%40", "somebody%40"), ("2b8f", "2b80"), ("] analyst@", "] other@")]
            {
                let mut log = whole.clone();
                log[at] = log[at].replace(right, wrong);
                assert!(!tried(mode, &log, &records()).faults.is_empty(), "{mode:?}, {wrong:?} in {}", log[at]);
            }
        }
    }
}

#[test]
fn another_text_or_sqlstate_is_a_fault() {
    for (right, wrong) in [("select 1", "select 10"), ("select 2", "select"), ("42703 ERROR", "42P01 ERROR")] {
        let log: Vec<String> = statements().iter().map(|line| line.replace(right, wrong)).collect();
        assert!(!tried(Mode::Statements, &log, &records()).faults.is_empty(), "{wrong}");
    }
    let mut claimed: Vec<Value> = records();
    claimed[9]["outcome"] = "skipped".into();
    assert!(!tried(Mode::Statements, &statements(), &claimed).faults.is_empty(), "recorded as skipped, and it ran");
}

#[test]
fn a_group_that_fails_at_its_parse_has_one_error_and_nothing_after_it() {
    let mut group: Vec<Value> =
        records().into_iter().filter(|record| !["s.0", "s.1"].iter().any(|id| record["id"] == *id)).collect();
    let end = group.last_mut().unwrap();
    (end["outcome"], end["sqlstate"]) = ("error".into(), "42703".into());
    let error = line("42703 ERROR:  no such column") + &line(&format!("42703 STATEMENT:  {TAG}select 2"));
    for mode in [Mode::Statements, Mode::Durations] {
        tried(mode, std::slice::from_ref(&error), &group).holds(1);
        assert!(!tried(mode, &[], &group).faults.is_empty(), "no error");
        assert!(!tried(mode, &[error.clone(), error.clone()], &group).faults.is_empty(), "two errors");
        let forged = error.replace("analyst%40", "somebody%40");
        assert!(!tried(mode, &[forged], &group).faults.is_empty(), "another caller's error");
    }
    let executed = line(&format!("00000 LOG:  execute <unnamed>: {TAG}select 2"));
    assert!(!tried(Mode::Statements, &[error, executed], &group).faults.is_empty(), "it ran after its error");
}

#[test]
#[should_panic(expected = "the scripts must cause 5")]
fn too_few_lines_do_not_hold() {
    tried(Mode::Statements, &statements(), &records()).holds(5);
}

/// Records with an error beside any event behind that of `s.1`, and the log's line of it at `at`.
fn beside(at: usize, sqlstate: &str) -> Verdict {
    let mut with = records();
    with.insert(6, json!({"event": "sync_error", "session": "s", "sqlstate": "23505"}));
    let mut log = statements();
    log.insert(at, line(&format!("{sqlstate} ERROR:  duplicate key")));
    tried(Mode::Statements, &log, &with)
}

#[test]
fn an_error_beside_any_event_stands_where_the_records_have_it() {
    beside(3, "23505").holds(5);
    for (at, sqlstate) in [(0, "23505"), (1, "23505"), (3, "23503")] {
        assert!(!beside(at, sqlstate).faults.is_empty(), "{sqlstate} at {at}");
    }
}

#[test]
fn an_error_that_must_have_its_statement_is_a_fault_without() {
    for (mode, log) in [(Mode::Statements, statements()), (Mode::Durations, durations())] {
        let bare: Vec<String> =
            log.iter().map(|line| line.lines().next().unwrap_or_default().to_owned() + "\n").collect();
        assert!(!tried(mode, &bare, &records()).faults.is_empty());
    }
    // A Bind of a statement that is not there has none.
    let end =
        |sqlstate: &str| json!({"event": "end", "session": "s", "id": "s.3", "outcome": "error", "sqlstate": sqlstate});
    let caller = records()[2]["caller"].clone();
    let bind =
        json!({"event": "begin", "session": "s", "id": "s.3", "stage": "bind", "statement": "p", "caller": caller});
    for (sqlstate, fits) in [("26000", true), ("34000", false)] {
        let with = [records(), vec![bind.clone(), end(sqlstate)]].concat();
        let log = [statements(), vec![line(&format!("{sqlstate} ERROR:  does not exist"))]].concat();
        assert_eq!(tried(Mode::Statements, &log, &with).faults.is_empty(), fits, "{sqlstate}");
    }
}

#[test]
fn the_servers_last_word_is_what_the_sessions_end_says() {
    let ended = |reason: &str| {
        let end = json!({"event": "session_end", "session": "s", "reason": reason, "sqlstate": "08P01"});
        [records(), vec![end]].concat()
    };
    let said = |sqlstate: &str| [statements(), vec![line(&format!("{sqlstate} FATAL:  lost"))]].concat();
    for reason in ["server", "client"] {
        tried(Mode::Statements, &said("08P01"), &ended(reason)).holds(5);
        assert!(!tried(Mode::Statements, &said("57P01"), &ended(reason)).faults.is_empty(), "another last word");
        assert!(!tried(Mode::Statements, &statements(), &ended(reason)).faults.is_empty(), "no last word");
    }
    assert!(!tried(Mode::Statements, &said("08P01"), &records()).faults.is_empty(), "a last word that is not recorded");
}

/// Where a record leaves a text in doubt, it was one of those before, in the caller's name; and it is counted.
#[test]
fn what_is_in_doubt_is_an_earlier_text_of_the_same_caller() {
    let caller = records()[2]["caller"].clone();
    let begin = json!({"event": "begin", "session": "s", "id": "s.3", "stage": "execute", "caller": caller,
                       "text_of": "s.0", "text_doubtful": true});
    let end = json!({"event": "end", "session": "s", "id": "s.3", "outcome": "ok", "command": "SELECT"});
    let with = [records(), vec![begin, end]].concat();
    let ran = |text: &str| {
        let log = [statements(), vec![line(&format!("00000 LOG:  execute <unnamed>: {text}"))]].concat();
        tried(Mode::Statements, &log, &with)
    };
    let verdict = ran(&format!("{TAG}select 2"));
    verdict.holds(5);
    assert_eq!(verdict.agreed.uncertain, 1);
    assert!(!ran(&format!("{TAG}select 3")).faults.is_empty(), "a text that was never sent");
    assert!(!ran(&format!("{}select 2", TAG.replace("2b8f", "2b80"))).faults.is_empty(), "another caller");
}

/// A Parse brought a PREPARE, and its text ran twice: as itself, and later as what it had prepared. The end lines name the
/// same event for both; PostgreSQL's log names the statement.
#[test]
fn what_sql_has_prepared_has_the_name_that_sql_gave_it() {
    let caller = records()[2]["caller"].clone();
    let text = "prepare S1 as select 3";
    let begin =
        |id: &str, stage: &str| json!({"event": "begin", "session": "s", "id": id, "stage": stage, "caller": caller});
    let end = |id: &str, command: &str| json!({"event": "end", "session": "s", "id": id, "outcome": "ok", "command": command});
    let mut parse = begin("s.3", "parse");
    (parse["text"], parse["text_bytes"], parse["tagged"]) = (text.into(), text.len().into(), true.into());
    let mut doubted = begin("s.4", "execute");
    (doubted["statement"], doubted["text_doubtful"]) = ("s2".into(), true.into());
    let mut certain = end("s.4", "SELECT");
    certain["text_of"] = "s.3".into();
    let mut suspended = certain.clone();
    (suspended["outcome"], suspended["command"]) = ("suspended".into(), Value::Null);
    for last in [certain, suspended] {
        let prepared = [parse.clone(), begin("s.3", "bind"), begin("s.3", "execute"), end("s.3", "PREPARE")];
        let with = [records(), prepared.to_vec(), vec![doubted.clone(), last]].concat();
        let tried = |first: &str, second: &str| {
            let said = |name: &str| line(&format!("00000 LOG:  execute {name}: {TAG}{text}"));
            tried(Mode::Statements, &[statements(), vec![said(first), said(second)]].concat(), &with)
        };
        tried("<unnamed>", "s1").holds(6);
        assert!(!tried("<unnamed>", "<unnamed>").faults.is_empty(), "the PREPARE itself did not run again");
        assert!(!tried("<unnamed>", "s2").faults.is_empty(), "another statement");
        assert!(!tried("s1", "s1").faults.is_empty(), "nothing was prepared yet");
    }
}

/// A Query of a text that no begin line holds, in parts of odd sizes; one of them ends within a character.
fn long(text: &str, most: usize) -> Vec<Value> {
    use base64::Engine;
    let caller = records()[2]["caller"].clone();
    let recorded = &text.as_bytes()[..most.min(text.len())];
    let (head, mut rest) = recorded.split_at(65_535);
    let mut lines =
        vec![json!({"event": "begin", "session": "s", "id": "s.3", "stage": "query", "caller": caller, "tagged": true,
                                "text": std::str::from_utf8(head).unwrap(), "text_bytes": text.len()})];
    while !rest.is_empty() {
        let (part, more) = rest.split_at(rest.len().min(49_999));
        let offset = recorded.len() - rest.len();
        let mut line = json!({"event": "text", "session": "s", "id": "s.3", "offset": offset});
        match std::str::from_utf8(part) {
            Ok(part) => line["text"] = part.into(),
            Err(_) => line["text_base64"] = base64::engine::general_purpose::STANDARD.encode(part).into(),
        }
        lines.push(line);
        rest = more;
    }
    if recorded.len() < text.len() {
        lines.last_mut().unwrap()["cut"] = true.into();
    }
    let digest = pgpassport::audit::TextDigest::of(text.as_bytes());
    lines.push(json!({"event": "end", "session": "s", "id": "s.3", "outcome": "ok", "command": "SELECT",
                      "text_sha256": digest.sha256(), "text_bytes": text.len()}));
    [records(), lines].concat()
}

fn with_line(text: &str) -> Vec<String> {
    [statements(), vec![line(&format!("00000 LOG:  statement: {TAG}{text}"))]].concat()
}

#[test]
fn a_long_text_is_compared_to_its_last_byte_in_the_parts_and_not_by_its_digest_alone() {
    let text = format!("select '{}'", "x\u{e9}".repeat(70_000));
    let log = with_line(&text);
    let whole = long(&text, usize::MAX);
    assert!(whole.iter().filter(|record| record["event"] == "text").count() > 2);
    tried(Mode::Statements, &log, &whole).holds(5);
    let condemned = |what: &str, doctor: &dyn Fn(&mut Vec<Value>)| {
        let mut doctored = whole.clone();
        doctor(&mut doctored);
        assert!(!tried(Mode::Statements, &log, &doctored).faults.is_empty(), "{what}");
    };
    let first = whole.iter().position(|record| record["event"] == "text").expect("a part");
    let last = whole.len() - 2;
    for part in first..=last {
        condemned("a part is missing", &|records| drop(records.remove(part)));
        condemned("a part is another", &|records| {
            let records = &mut records[part];
            records["text_base64"] = Value::Null;
            records["text"] = "x".repeat(49_999).into();
        });
    }
    condemned("parts are swapped", &|records| records.swap(first, first + 1));
    condemned("it goes on, as they say, where it is over", &|records| records[last]["cut"] = true.into());
    // Nor does it help that nothing else knows the text.
    let without = |records: &mut Vec<Value>| {
        let end = records.last_mut().expect("an end").as_object_mut().expect("an object");
        end.retain(|member, _| !member.starts_with("text"));
    };
    let mut bare = whole.clone();
    without(&mut bare);
    tried(Mode::Statements, &log, &bare).holds(5);
    assert!(!tried(Mode::Statements, &with_line(&format!("{}y'", &text[..text.len() - 1])), &bare).faults.is_empty());
    condemned("the last part is missing", &|records| {
        without(records);
        records.remove(last);
    });
}

#[test]
fn past_what_is_recorded_of_any_text_its_digest_says_the_rest() {
    const MOST: usize = pgpassport::audit::DEFAULT_MAX_TEXT_BYTES as usize;
    let text = format!("select '{}'", "x".repeat(MOST));
    tried(Mode::Statements, &with_line(&text), &long(&text, MOST)).holds(5);
    let less = long(&text, MOST - 50_000);
    assert!(!tried(Mode::Statements, &with_line(&text), &less).faults.is_empty(), "less is recorded than is to be");
    let other = format!("{}y'", &text[..text.len() - 2]);
    assert!(
        !tried(Mode::Statements, &with_line(&other), &long(&text, MOST)).faults.is_empty(),
        "behind what is recorded"
    );
}

/// An Execute of a remembered text, whose line repeats a start of it, and the log's line of that Execute.
#[test]
fn a_text_that_is_repeated_is_the_whole_one_of_the_event_that_has_it() {
    let text = format!("select '{}'", "x".repeat(100_000));
    let caller = records()[2]["caller"].clone();
    let again = |start: &str| {
        let begin = json!({"event": "begin", "session": "s", "id": "s.4", "stage": "execute", "caller": caller,
                           "text": start, "text_bytes": text.len(), "text_of": "s.3"});
        let end = json!({"event": "end", "session": "s", "id": "s.4", "outcome": "ok", "command": "SELECT"});
        [long(&text, usize::MAX), vec![begin, end]].concat()
    };
    let ran = |executed: &str| {
        [with_line(&text), vec![line(&format!("00000 LOG:  execute <unnamed>: {TAG}{executed}"))]].concat()
    };
    tried(Mode::Statements, &ran(&text), &again(&text[..4096])).holds(6);
    let other = format!("{}y'", &text[..text.len() - 2]);
    assert!(!tried(Mode::Statements, &ran(&other), &again(&text[..4096])).faults.is_empty(), "it differs at its end");
    assert!(!tried(Mode::Statements, &ran(&text), &again("select 'y")).faults.is_empty(), "another start is repeated");
}

//! Which messages share one begin record, and which do not.

use super::testing::recorder;
use crate::audit::event::{Acting, RoleChange, Stage};
use crate::audit::testing::MemoryLog;
use crate::audit::{Begin, Recorder, Urgency};
use serde_json::Value;

/// Of a text whose record stands for its own message alone, in bytes.
const LONG: usize = 64 * 1024;

fn begin(event: u64, stage: Stage) -> Begin<'static> {
    Begin {
        event,
        stage,
        text: None,
        text_of: None,
        text_doubtful: false,
        role_changes: &[],
        statement: b"s",
        portal: b"p",
        function_oid: None,
        parameters: None,
        tagged: true,
        goes_on: true,
    }
}

fn parse() -> Begin<'static> {
    Begin { text: Some((b"select 1", 8)), portal: b"", goes_on: false, ..begin(1, Stage::Parse) }
}

fn lines(log: &MemoryLog) -> Vec<Value> {
    log.lines().into_iter().filter(|line| line["event"] == "begin").collect()
}

#[test]
fn one_record_stands_for_what_follows_each_other_and_says_nothing_else() {
    let log = MemoryLog::default();
    let mut recorder = recorder(&log);
    let first = recorder.begin(&parse());
    let more = [Stage::Bind, Stage::Execute].map(|stage| recorder.begin(&begin(1, stage)));
    assert!(!first.joined && more.iter().all(|more| more.joined && more.record.start == first.record.start));
    recorder.commit(Urgency::Normal).unwrap();
    let [line] = lines(&log).try_into().unwrap();
    assert_eq!([&line["since"], &line["stage"], &line["portal"]], ["parse", "execute", "p"]);
    assert_eq!(recorder.statements(), 1);
}

#[test]
fn whatever_else_is_to_be_said_has_a_record_of_its_own() {
    let changes = [RoleChange { setting: Acting::Role, to: None, reset: true, local: false }];
    let bind = begin(1, Stage::Bind);
    let text = vec![b'x'; LONG];
    let long = Begin { text: Some((&text, LONG as u64)), ..parse() };
    for (first, other) in [
        (parse(), Begin { goes_on: false, ..bind }),
        (parse(), Begin { event: 2, ..bind }),
        (parse(), Begin { stage: Stage::Execute, ..bind }),
        (parse(), Begin { text: Some((b"x", 1)), ..bind }),
        (parse(), Begin { text_of: Some(0), ..bind }),
        (parse(), Begin { text_doubtful: true, ..bind }),
        (parse(), Begin { role_changes: &changes, ..bind }),
        (parse(), Begin { tagged: false, ..bind }),
        (Begin { stage: Stage::Execute, ..parse() }, bind),
        (long, bind),
    ] {
        let taken = MemoryLog::default();
        let mut recorder = recorder(&taken);
        recorder.begin(&first);
        assert!(!recorder.begin(&other).joined, "{other:?}");
        recorder.commit(Urgency::Normal).unwrap();
        let since: Vec<_> = lines(&taken).iter().map(|line| line["since"].clone()).collect();
        assert_eq!(since, [Value::Null, Value::Null]);
    }
}

#[test]
fn what_the_log_has_or_has_something_behind_it_does_not_change() {
    for between in [
        |recorder: &mut Recorder| recorder.commit(Urgency::Normal).unwrap(),
        |recorder: &mut Recorder| assert!(recorder.text(1, 8, b" + 1")),
    ] {
        let log = MemoryLog::default();
        let mut recorder = recorder(&log);
        recorder.begin(&parse());
        between(&mut recorder);
        assert!(!recorder.begin(&begin(1, Stage::Bind)).joined);
        recorder.commit(Urgency::Normal).unwrap();
        let stages: Vec<_> = lines(&log).iter().map(|line| line["stage"].clone()).collect();
        assert_eq!(stages, ["parse", "bind"]);
    }
}

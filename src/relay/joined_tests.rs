//! Which messages share one begin record, and which do not.

use super::testing::{Says, recorder, recorder_for};
use crate::audit::event::{Acting, RoleChange, Stage};
use crate::audit::sealing::{SealingConfig, Texts};
use crate::audit::testing::MemoryLog;
use crate::audit::{Auditor, Begin, Parameters, Recorder, Urgency, Value as Parameter, Values};
use crate::time::Clock;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Of a text whose record stands for its own message alone, in bytes.
const LONG: usize = 64 * 1024;

fn begin(event: u64, stage: Stage) -> Begin<'static> {
    Begin { statement: b"s", portal: b"p", tagged: true, goes_on: true, ..Begin::of(event, stage) }
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

/// A recorder that seals texts and parameters with keys in the folder `keys` of `folder`, on a day that can be moved.
fn sealing(log: &MemoryLog, folder: &Path) -> (Recorder, Arc<AtomicI64>) {
    let key = folder.join("wrapping.key");
    std::fs::write(&key, crate::audit::key_file::new_secret().unwrap().expose()).unwrap();
    let vault = SealingConfig { folder: folder.join("keys"), key }.open().unwrap();
    let day = Arc::new(AtomicI64::new(0));
    let auditor = Auditor::new(Arc::new(log.clone()), 10, Clock::shifted(Arc::clone(&day)));
    let auditor = auditor.with_vault(Some(Arc::new(vault)));
    let says = Says { parameters: Parameters::Full, texts: Texts::Sealed, ..Says::default() };
    (recorder_for(auditor, says), day)
}

/// No key can be made for that day.
fn next_day_without_a_vault(day: &AtomicI64, folder: &Path) {
    day.store(24 * 3600, Ordering::SeqCst);
    std::fs::rename(folder.join("keys"), folder.join("gone")).unwrap();
    std::fs::write(folder.join("keys"), "").unwrap();
}

#[test]
fn what_cannot_be_sealed_is_not_recorded_though_nothing_else_is_to_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryLog::default();
    let (mut recorder, day) = sealing(&log, folder.path());
    next_day_without_a_vault(&day, folder.path());
    assert!(recorder.begin(&parse()).record.is_empty());
    assert!(recorder.commit(Urgency::Normal).is_err());
    assert!(recorder.is_owing());
    // Not in the log's reserve either, which would take the record of the gap alone.
    assert!(recorder.begin(&parse()).record.is_empty());
    assert!(recorder.commit(Urgency::Reserve).is_err());
    // More of a text whose begin is recorded already.
    recorder.text(1, 8, b" + 1");
    assert!(recorder.commit(Urgency::Normal).is_err());
    assert!(lines(&log).is_empty());
    std::fs::remove_file(folder.path().join("keys")).unwrap();
    std::fs::rename(folder.path().join("gone"), folder.path().join("keys")).unwrap();
    recorder.begin(&parse());
    recorder.commit(Urgency::Normal).unwrap();
    assert_eq!((lines(&log).len(), recorder.is_owing()), (1, false));
}

#[test]
fn what_cannot_be_sealed_leaves_the_record_before_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryLog::default();
    let (mut recorder, day) = sealing(&log, folder.path());
    let first = recorder.begin(&parse());
    next_day_without_a_vault(&day, folder.path());
    let values = Values::Read { values: vec![Parameter { bytes: Some((b"7", 1)), format: 0 }], left_out: 0 };
    let bind = recorder.begin(&Begin { parameters: Some(&values), ..begin(1, Stage::Bind) });
    assert!(!bind.joined && bind.record.is_empty() && bind.record.start == first.record.end);
    let execute = recorder.begin(&begin(1, Stage::Execute));
    assert!(!execute.joined && execute.record.start == first.record.end);
    assert!(recorder.commit(Urgency::Normal).is_err());
    assert!(!recorder.begin_from_reserve(bind.record));
    assert!(recorder.begin_from_reserve(first.record));
    let [line] = lines(&log).try_into().unwrap();
    assert_eq!((&line["stage"], &line["since"]), (&Value::from("parse"), &Value::Null));
}

#[test]
fn the_longest_record_that_goes_on_has_room_for_whatever_a_bind_says() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryLog::default();
    let (mut recorder, _) = sealing(&log, folder.path());
    // Its shape is short.
    let text = format!("select '{}'", "x".repeat(46_000));
    let first = recorder.begin(&Begin { text: Some((text.as_bytes(), text.len() as u64)), ..parse() });
    assert!((60 * 1024..LONG).contains(&first.record.len()), "{}", first.record.len());
    // Every byte is escaped.
    let values = vec![Parameter { bytes: Some((&[1; 12], 12)), format: 0 }; 4096];
    let name = [1; 63];
    let bind =
        Begin { parameters: Some(&Values::Read { values, left_out: 7 }), portal: &name, ..begin(1, Stage::Bind) };
    assert!(recorder.begin(&bind).joined);
    recorder.commit(Urgency::Normal).unwrap();
    assert_eq!(lines(&log).len(), 1);
}

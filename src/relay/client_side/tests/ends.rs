//! COMMIT and ROLLBACK in reads that the log does not take.

use super::*;

const BIND: [u8; 8] = [0; 8];
const EXECUTE: [u8; 5] = [0; 5];

/// What of these messages leaves: their types, in small letters where a substitute does.
fn left(client: &mut Client, messages: &[Vec<u8>]) -> String {
    let (out, ..) = client.send(&messages.concat());
    let of = |(kind, body): &(char, String)| {
        let refused = body.contains("NAME");
        if refused { kind.to_ascii_lowercase() } else { *kind }
    };
    frames(&out).iter().map(of).collect()
}

fn query(text: &str) -> Vec<u8> {
    frame(b'Q', format!("{text}\0").as_bytes())
}

fn execution(text: &str) -> [Vec<u8>; 3] {
    [frame(b'P', format!("\0{text}\0\0\0").as_bytes()), frame(b'B', &BIND), frame(b'E', &EXECUTE)]
}

#[test]
fn a_commit_is_not_refused_with_what_came_in_the_same_read() {
    for (messages, leaves, begins) in [
        (vec![query("commit"), query("insert")], "Qq", vec!["commit"]),
        (vec![query("insert"), query("commit")], "qQ", vec!["commit"]),
        (vec![query("rollback"), query("insert"), query("end;")], "QqQ", vec!["rollback", "end;"]),
        (vec![query("commit and chain"), query("insert")], "qq", vec![]),
    ] {
        let mut client = Client::new(Tag::none());
        client.log.fill(true);
        assert_eq!(left(&mut client, &messages), leaves);
        assert_eq!(client.begins().into_iter().map(|(_, text)| text).collect::<Vec<_>>(), begins);
        let missed = client.side.take_missed();
        let refused = leaves.matches('q').count() as u64;
        assert_eq!((missed.passed, missed.refused.values().sum()), (0, refused), "what was recorded is not missed");
    }
}

#[test]
fn an_execution_of_commit_is_recorded_with_all_its_messages() {
    let mut client = Client::new(Tag::none());
    client.log.fill(true);
    let messages = [execution("insert"), execution("COMMIT")].concat();
    assert_eq!(left(&mut client, &messages), "pbePBE");
    let lines = client.begin_lines();
    assert_eq!((lines.len(), &lines[0]["since"], &lines[0]["stage"]), (1, &json!("parse"), &json!("execute")));
    // One event, which is open; the insert's has never begun.
    client.tracker.finish(Instant::now());
    assert_eq!(client.tracker.take_ends().len(), 1);
}

/// Of one event, by three messages, of which only the last two may stand in one record: each goes by its own.
#[test]
fn a_parse_of_commit_is_not_taken_for_what_runs_it_by_another_name() {
    let portal = [frame(b'B', b"p\0\0\0\0\0\0\0\0"), frame(b'E', b"p\0\0\0\0\0")];
    let [parse, ..] = execution("COMMIT");
    let messages = [vec![parse], portal.to_vec()].concat();
    for (full, leaves, stages) in [(true, "Pbe", vec!["parse"]), (false, "PBE", vec!["parse", "execute"])] {
        let mut client = Client::new(Tag::none());
        client.log.fill(full);
        assert_eq!(left(&mut client, &messages), leaves);
        let lines = client.begin_lines();
        assert_eq!(lines.iter().map(|line| &line["stage"]).collect::<Vec<_>>(), stages);
        assert_eq!((&lines[0]["text"], lines[0].get("since")), (&json!("COMMIT"), None));
    }
}

#[test]
fn where_the_reserve_fails_a_commit_passes_only_if_its_rule_says_so() {
    for (choice, leaves, passed) in
        [(UnrecordedCommit::Refused, "Qqq", (1, 0)), (UnrecordedCommit::Passes, "QqQ", (2, 1))]
    {
        let mut client = Client::new(Tag::none());
        client.side = ClientSide::new(Tag::none()).committing(choice);
        client.log.fail(true);
        assert_eq!(left(&mut client, &[query("rollback"), query("insert"), query("commit")]), leaves);
        let missed = client.side.take_missed();
        assert_eq!((missed.passed, missed.commits), passed);
        assert!(client.begins().is_empty());
    }
}

/// Over a limit of its rule it is refused, whatever the log would take.
#[test]
fn a_commit_that_is_refused_for_another_reason_is_not_offered_to_the_reserve() {
    let mut client = Client::new(Tag::none());
    let commit = query("commit");
    let mut frame = Frame::next(&commit, 0, OID_BYTES, Instant::now()).unwrap().unwrap();
    frame.refusal = Some(Refusal::Withdrawn);
    let mut output = Output::default();
    client.side.message(&frame, &mut client.tracker, &mut client.recorder, &mut output);
    assert_eq!(client.side.recorded[0].ends, None);
}

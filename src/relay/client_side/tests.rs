//! Transcripts of client messages: what leaves, and what was recorded before it did.

use super::super::tag::testing::{analyst, tag};
use super::super::testing::recorder;
use super::*;
use crate::audit::testing::MemoryLog;
use crate::audit::{TextDigest, Urgency, apart};
use crate::wire::{HEADER_BYTES, append};
use serde_json::{Value, json};

mod ends;
mod names;

pub(super) struct Client {
    pub side: ClientSide,
    pub tracker: Tracker,
    pub recorder: Recorder,
    pub log: MemoryLog,
}

impl Client {
    pub fn new(tag: Tag) -> Self {
        let log = MemoryLog::default();
        Self { side: ClientSide::new(tag), tracker: Tracker::new(), recorder: recorder(&log), log }
    }

    pub fn send(&mut self, input: &[u8]) -> (Vec<u8>, usize, Option<String>) {
        let mut output = Output::default();
        let (taken, stop) = self.side.process(input, &mut self.tracker, &mut self.recorder, &mut output);
        if self.recorder.commit(Urgency::Normal).is_err() {
            self.side.refuse(&input[..taken], &mut self.tracker, &mut self.recorder, &mut output);
        }
        let refusal = match stop {
            Stop::Violated(violation) => Some(violation.to_string()),
            _ => None,
        };
        (output.to_vec(input), taken, refusal)
    }

    /// What the begin lines say of each message: stage and text.
    fn begins(&self) -> Vec<(String, String)> {
        let show = |line: serde_json::Map<String, Value>| {
            let member = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            (member("stage"), member("text"))
        };
        self.begin_lines().iter().filter_map(Value::as_object).flat_map(apart).map(show).collect()
    }

    fn begin_lines(&self) -> Vec<Value> {
        self.log.lines().into_iter().filter(|line| line["event"] == "begin").collect()
    }
}

pub(super) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, kind, body);
    out
}

fn tagged(text: &str) -> Vec<u8> {
    [tag(&analyst()).bytes(), text.as_bytes(), b"\0"].concat()
}

#[test]
fn query_and_parse_carry_the_tag_at_byte_0_and_nothing_else_changes() {
    let mut client = Client::new(tag(&analyst()));
    let parse = |text: &[u8]| [b"s1\0".as_slice(), text, b"\0\0\x01\0\0\0\x17"].concat();
    let input = [
        frame(b'Q', b"SELECT 1\0"),
        frame(b'P', &parse(b"SELECT $1")),
        frame(b'B', b"\0s1\0\0\0\0\0\0\0"),
        frame(b'E', b"\0\0\0\0\0"),
        frame(b'S', b""),
    ]
    .concat();
    let tag = tag(&analyst());
    let expected = [
        frame(b'Q', &tagged("SELECT 1")),
        frame(b'P', &parse(&[tag.bytes(), b"SELECT $1"].concat())),
        frame(b'B', b"\0s1\0\0\0\0\0\0\0"),
        frame(b'E', b"\0\0\0\0\0"),
        frame(b'S', b""),
    ]
    .concat();
    assert_eq!(client.send(&input), (expected, input.len(), None));
    let begins = client.begins();
    let stages: Vec<&str> = begins.iter().map(|(stage, _)| stage.as_str()).collect();
    assert_eq!(stages, ["query", "parse", "bind", "execute"]);
    assert_eq!(begins[1].1, "SELECT $1");
}

#[test]
fn without_a_tag_every_byte_is_the_clients() {
    let mut client = Client::new(Tag::none());
    let input = [frame(b'Q', b"SELECT 1\0"), frame(b'P', b"\0SELECT 2\0\0\0"), frame(b'X', b"")].concat();
    assert_eq!(client.send(&input), (input.clone(), input.len(), None));
    assert!(client.side.is_terminated());
    assert_eq!(client.begins().len(), 2);
}

#[test]
fn walsender_commands_go_untagged_in_a_replication_session_and_nowhere_else() {
    let command = frame(b'Q', b"\n IDENTIFY_SYSTEM\0");
    let sql = frame(b'Q', b"identify_system\0");
    let mut walsender = Client::new(tag(&analyst()));
    walsender.side = ClientSide::new(tag(&analyst())).serving(Purpose::Replication);
    let both = [command.clone(), sql].concat();
    let expected = [command.clone(), frame(b'Q', &tagged("identify_system"))].concat();
    assert_eq!(walsender.send(&both), (expected, both.len(), None));
    let recorded: Vec<bool> = walsender.log.lines().iter().filter_map(|line| line["tagged"].as_bool()).collect();
    assert_eq!(recorded, [false, true]);
    assert_eq!(walsender.begins()[0], ("query".to_owned(), "\n IDENTIFY_SYSTEM".to_owned()));
    let mut other = Client::new(tag(&analyst()));
    assert_eq!(other.send(&command).0, frame(b'Q', &tagged("\n IDENTIFY_SYSTEM")));
}

#[test]
fn a_statement_waits_until_its_start_is_there_and_streams_past_it() {
    let mut client = Client::new(Tag::none());
    let text = [vec![b'x'; 200_000], vec![0]].concat();
    let whole = frame(b'Q', &text);
    assert_eq!(client.send(&whole[..1000]).1, 0, "too little to record");
    assert!(client.begins().is_empty());
    let (out, taken, _) = client.send(&whole[..100_000]);
    assert_eq!((out.len(), taken), (100_000, 100_000));
    assert!(client.side.is_mid_frame());
    let lines = client.log.lines();
    let line = lines.iter().find(|line| line["event"] == "begin").unwrap();
    assert_eq!(line["text_bytes"], 200_000);
    assert_eq!(line["text"].as_str().unwrap().len(), MAX_TEXT_BYTES);
    let (out, taken, _) = client.send(&whole[100_000..]);
    assert_eq!((out.len(), taken), (whole.len() - 100_000, whole.len() - 100_000));
    assert!(!client.side.is_mid_frame());
    assert_eq!(client.begins().len(), 1);
}

#[test]
fn what_postgresql_ends_the_session_for_goes_no_further_and_what_came_before_does() {
    for (bad, reason) in [
        (b"p\0\0\0\x05\0".as_slice(), "invalid frontend message type 112"),
        (b"\0\0\0\0\x04", "invalid frontend message type 0"),
        (b"Q\0\0\0\x03", "invalid message length"),
        (b"S\0\0\x27\x11", "invalid message length"),
        (b"Q\x7f\xff\xff\xff", "invalid message length"),
    ] {
        let mut client = Client::new(Tag::none());
        let good = frame(b'Q', b"SELECT 1\0");
        let (out, taken, refusal) = client.send(&[good.as_slice(), bad].concat());
        assert_eq!((out, taken, refusal.as_deref()), (good.clone(), good.len(), Some(reason)));
        assert_eq!(client.begins().len(), 1);
    }
}

/// The digests and lengths at the end lines, once the server has answered everything.
pub(super) fn digests(client: &mut Client, server: &str) -> Vec<Option<(String, u64)>> {
    for kind in server.bytes() {
        let body: &[u8] = if kind == b'C' { b"SELECT 1\0" } else { b"I" };
        client.tracker.server(kind, body, 10, Instant::now()).unwrap();
    }
    let told = |end: &crate::audit::End| end.text.as_ref().map(|text| (text.sha256(), text.bytes()));
    client.tracker.take_ends().iter().map(told).collect()
}

#[test]
fn a_text_over_the_recorded_part_is_known_by_its_digest_however_it_is_cut() {
    let digest = |text: &[u8]| Some((TextDigest::of(text).sha256(), text.len() as u64));
    for length in
        [MAX_TEXT_BYTES - 1, MAX_TEXT_BYTES, MAX_TEXT_BYTES + 1, INSPECTED_BYTES - 1, INSPECTED_BYTES, 200_000]
    {
        let letters = (0..length).map(|n| b'a' + u8::try_from(n % 23).unwrap());
        let text: Vec<u8> = b"select ".iter().copied().chain(letters).take(length).collect();
        let expected = digest(&text).filter(|_| length > MAX_TEXT_BYTES);
        let query = frame(b'Q', &[text.as_slice(), b"\0"].concat());
        let parse = frame(b'P', &[b"s\0", text.as_slice(), b"\0\0\x02\0\0\0\x17\0\0\0\x17"].concat());
        let bind = frame(b'B', b"\0s\0\0\0\0\0\0\0");
        let execute = frame(b'E', b"\0\0\0\0\0");
        let sync = frame(b'S', b"");
        let run = [bind, execute].concat();
        let input = [query, parse, run.clone(), run, sync].concat();
        for step in [input.len(), 70_001, 4_096, 4_095] {
            let mut client = Client::new(tag(&analyst()));
            let mut held = Vec::new();
            for piece in input.chunks(step) {
                held.extend_from_slice(piece);
                let (_, taken, _) = client.send(&held);
                held.drain(..taken);
            }
            assert!(held.is_empty());
            let told = digests(&mut client, "CZ12C2CZ");
            assert_eq!(told, vec![expected.clone(); 3], "{length} bytes in pieces of {step}");
        }
    }
}

#[test]
fn malformed_insides_are_recorded_and_left_to_the_server() {
    let mut client = Client::new(Tag::none());
    let input = [
        frame(b'Q', b"SELECT 1\0DROP TABLE x\0"),
        frame(b'Q', b"SELECT 1"),
        frame(b'P', b"name without end"),
        frame(b'B', b"x"),
        frame(b'E', b""),
        frame(b'F', b"\0"),
    ]
    .concat();
    assert_eq!(client.send(&input), (input.clone(), input.len(), None));
    assert_eq!(client.begins().len(), 6);
}

/// The name in a substitute, and the same bytes with `NAME` in its place.
fn unnamed(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match text.find("refused by pgpassport ") {
        Some(at) => {
            let name = text[at..at + 58].to_owned();
            text.replace(&name, "NAME")
        }
        None => text,
    }
}

/// The frames, each as its type and its body with `NAME` for the impossible name.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<(char, String)> {
    let mut frames = Vec::new();
    while let Some(header) = Header::decode(bytes).unwrap() {
        let (frame, rest) = bytes.split_at(header.frame());
        frames.push((char::from(header.kind), unnamed(&frame[HEADER_BYTES..])));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    frames
}

#[test]
fn what_the_log_cannot_take_leaves_as_what_must_fail() {
    let mut client = Client::new(Tag::none());
    client.log.fail(true);
    let input = [
        frame(b'Q', b"DELETE FROM a\0"),
        frame(b'P', b"s\0DELETE FROM b\0\0\0"),
        frame(b'P', b"\0DELETE FROM c\0\0\0"),
        frame(b'D', b"Ss\0"),
        frame(b'B', b"p\0s\0\0\0\0\x01\0\0\0\x06secret\0\0"),
        frame(b'E', b"p\0\0\0\0\0"),
        frame(b'F', b"\0\0\x08\x34\0\0\0\0\0\0"),
        frame(b'C', b"Ss\0"),
        frame(b'H', b""),
        frame(b'S', b""),
    ]
    .concat();
    let (out, taken, violation) = client.send(&input);
    assert_eq!((taken, violation), (input.len(), None));
    let expected = [
        ('Q', "\"NAME\"\0"),
        ('P', "NAME\0\"NAME\"\0\0\0"),
        ('P', "\0\"NAME\"\0\0\0"),
        ('D', "Ss\0"),
        ('B', "NAME\0NAME\0\0\0\0\0\0\0"),
        ('E', "NAME\0\0\0\0\0"),
        ('F', "\0\0\0\0\0\0\0\0\0\0"),
        ('C', "Ss\0"),
        ('H', ""),
        ('S', ""),
    ];
    assert_eq!(frames(&out), expected.map(|(kind, body)| (kind, body.to_owned())));
    assert!(client.begins().is_empty());
    assert_eq!(client.side.take_missed(), Missed { refused: [(Refusal::Unrecorded, 6)].into(), ..Missed::default() });
    client.tracker.finish(Instant::now());
    assert_eq!(client.tracker.take_ends(), [], "what never began has no end");
}

#[test]
fn where_the_log_takes_nothing_a_rollback_passes_and_nothing_that_looks_like_one() {
    let mut client = Client::new(tag(&analyst()));
    client.send(&frame(b'P', b"named\0ROLLBACK\0\0\0"));
    client.log.fail(true);
    let pass = [frame(b'P', b"\0abort;\0\0\0"), frame(b'B', &[0; 8]), frame(b'E', &[0; 5]), frame(b'S', b"")];
    let (out, ..) = client.send(&pass.concat());
    let kinds: Vec<String> = frames(&out).into_iter().map(|(_, body)| body).collect();
    let prefix = String::from_utf8(tag(&analyst()).bytes().to_vec()).unwrap();
    assert_eq!(kinds, [format!("\0{prefix}abort;\0\0\0"), "\0".repeat(8), "\0".repeat(5), String::new()]);
    assert_eq!(client.side.take_missed().passed, 3);
    let (out, ..) = client.send(&frame(b'Q', b" Rollback ;\0"));
    assert_eq!(frames(&out), [('Q', format!("{prefix} Rollback ;\0"))]);
    assert_eq!(client.side.take_missed().passed, 1);
    for message in [
        frame(b'Q', b"COMMIT\0"),
        frame(b'Q', b"ROLLBACK; DELETE FROM a\0"),
        frame(b'Q', b"ROLLBACK\0; DELETE FROM a\0"),
        frame(b'Q', b"ROLLBACK"),
        frame(b'P', b"named\0ROLLBACK\0\0\0"),
        frame(b'P', b"\0ROLLBACK\0\0\x01\0\0\0\x17"),
        // SQL can give a named statement or portal another meaning.
        frame(b'B', b"\0named\0\0\0\0\0\0\0"),
        frame(b'B', b"portal\0\0\0\0\0\0\0\0"),
        frame(b'E', b"portal\0\0\0\0\0"),
    ] {
        let (out, ..) = client.send(&message);
        assert!(frames(&out)[0].1.contains("NAME"), "{message:?} left as {:?}", frames(&out));
        assert_eq!(client.side.take_missed().passed, 0);
    }
}

#[test]
fn a_portal_bound_before_keeps_its_own_meaning_when_a_rollback_follows() {
    let mut client = Client::new(Tag::none());
    client.send(&[frame(b'P', b"\0DELETE FROM a\0\0\0"), frame(b'B', &[0; 8])].concat());
    client.log.fail(true);
    let rollback = [frame(b'P', b"\0ROLLBACK\0\0\0"), frame(b'B', &[0; 8]), frame(b'E', &[0; 5])].concat();
    let (out, ..) = client.send(&[frame(b'E', &[0; 5]), rollback].concat());
    let names: Vec<bool> = frames(&out).iter().map(|(_, body)| body.contains("NAME")).collect();
    assert_eq!(names, [true, false, false, false]);
}

#[test]
fn the_rest_of_a_long_message_that_was_refused_does_not_leave() {
    let mut client = Client::new(Tag::none());
    client.log.fail(true);
    let whole = frame(b'Q', &[vec![b'x'; 200_000], vec![0]].concat());
    let (out, taken, _) = client.send(&whole[..100_000]);
    assert_eq!((frames(&out), taken), (vec![('Q', "\"NAME\"\0".to_owned())], 100_000));
    assert!(client.side.is_mid_frame() && !client.side.has_left_in_part());
    client.log.fail(false);
    let (out, ..) = client.send(&[&whole[100_000..], &frame(b'Q', b"SELECT 1\0")].concat());
    assert_eq!(frames(&out), [('Q', "SELECT 1\0".to_owned())]);
}

#[test]
fn limits_refuse_with_a_begin_line_and_the_session_lives() {
    let mut client = Client::new(tag(&analyst()));
    let body = frame::LARGE_MESSAGE - 4;
    let start = [&Header { kind: b'Q', body }.encode(), vec![b'x'; 70_000].as_slice()].concat();
    let (out, taken, _) = client.send(&start);
    assert_eq!((frames(&out).len(), taken), (1, start.len()));
    assert_eq!(client.side.take_missed(), Missed { refused: [(Refusal::TooLong, 1)].into(), ..Missed::default() });
    let line = client.log.lines().pop().unwrap();
    assert_eq!((line["event"].as_str(), line["tagged"].as_bool()), (Some("begin"), Some(false)));

    let mut client = Client::new(Tag::none());
    let name = [&vec![b'n'; 70_000], b"\0SELECT 1\0\0\0".as_slice()].concat();
    for (kind, body) in [(b'P', &name), (b'B', &name), (b'B', &[b"\0".as_slice(), &name].concat())] {
        let (out, ..) = client.send(&frame(kind, body));
        assert_eq!(frames(&out).len(), 1);
        assert!(frames(&out)[0].1.contains("NAME") && out.len() < 300);
        assert_eq!(client.side.take_missed().refused, [(Refusal::EndlessName, 1)].into());
    }
    assert_eq!(client.begins().len(), 3);
}

#[test]
fn copy_data_that_is_refused_leaves_as_one_copy_fail() {
    let mut client = Client::new(Tag::none());
    client.send(&frame(b'Q', b"COPY a FROM STDIN\0"));
    client.tracker.server(b'G', &[], 10, Instant::now()).unwrap();
    client.send(&frame(b'd', b"1\n"));
    client.log.fail(true);
    // Only what the session owes the log shows that it takes nothing.
    client.recorder.prepare(&crate::audit::event::Event::RefusalsSuppressed { count: 0 });
    let data = frame(b'd', b"2\n");
    let (out, ..) = client.send(&[data.as_slice(), &data, &data[..6]].concat());
    assert_eq!(frames(&out), [('f', "NAME\0".to_owned())]);
    client.log.fail(false);
    let (out, ..) = client.send(&[&data[6..], &data, &frame(b'c', b""), &frame(b'Q', b"SELECT 1\0")].concat());
    assert_eq!(frames(&out), [('Q', "SELECT 1\0".to_owned())]);
    assert_eq!(client.side.take_missed(), Missed::default());
}

proptest::proptest! {
    /// Cut anywhere, the same bytes leave and the same lines are written.
    #[test]
    fn reads_may_be_cut_anywhere(cuts in proptest::collection::vec(1usize..40, 1..60)) {
        let input = [
            frame(b'Q', b"SELECT 1\0"),
            frame(b'P', b"n\0SELECT 2\0\0\0"),
            frame(b'd', &[1; 90]),
            frame(b'E', b"\0\0\0\0\0"),
            frame(b'F', b"\0\0\0\x09\0\0\0\0\0\0"),
            frame(b'S', b""),
        ].concat();
        let whole = Client::new(tag(&analyst())).send(&input).0;
        let mut client = Client::new(tag(&analyst()));
        let (mut start, mut end, mut sent) = (0, 0, Vec::new());
        for cut in cuts.iter().cycle() {
            end = (end + cut).min(input.len());
            let (out, taken, refusal) = client.send(&input[start..end]);
            proptest::prop_assert!(refusal.is_none());
            sent.extend(out);
            start += taken;
            if end == input.len() { break; }
        }
        proptest::prop_assert_eq!((start, sent), (input.len(), whole));
        proptest::prop_assert_eq!(client.begins().len(), 4);
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        Client::new(tag(&analyst())).send(&input);
    }
}

#[test]
fn a_remembered_text_is_not_multiplied_and_a_commit_is_bounded() {
    let mut client = Client::new(Tag::none());
    client.send(&frame(b'P', &[b"s\0".as_slice(), &vec![1; 65_000], b"\0\0\0"].concat()));
    let bind = frame(b'B', b"\0s\0\0\0\0\0\0\0");
    client.send(&bind);
    let input = bind.repeat(10_000);
    let mut output = Output::default();
    let (taken, stop) = client.side.process(&input, &mut client.tracker, &mut client.recorder, &mut output);
    assert!(matches!(stop, Stop::Commit) && taken < input.len() && taken % bind.len() == 0, "{stop:?}");
    client.recorder.commit(Urgency::Normal).unwrap();
    let line = client.log.lines().into_iter().rfind(|line| line["text"].is_string()).unwrap();
    let repeated = line["text"].as_str().unwrap().len();
    assert_eq!((repeated, line["text_bytes"].as_u64()), (line::REPEATED_TEXT_BYTES / 6, Some(65_000)));
    assert!(line["text_of"].as_str().unwrap().ends_with(".0"), "{line}");
}

#[test]
fn names_are_cut_where_postgresql_cuts_them() {
    let mut client = Client::new(Tag::none());
    let long = "k".repeat(70);
    client.send(&frame(b'P', format!("{long}\0SELECT 1\0\0\0").as_bytes()));
    let line = client.log.lines().pop().unwrap();
    assert_eq!(line["statement"].as_str().unwrap().len(), 63);
}

/// A few bytes must not become many in the log: what is skipped repeats nothing, and a batch repeats a text once.
#[test]
fn a_remembered_text_is_repeated_once_a_batch_and_never_for_what_is_skipped() {
    let mut client = Client::new(Tag::none());
    let text = [b"select 1 --".as_slice(), &[1; 4096]].concat();
    client.send(&frame(b'P', &[b"s\0", text.as_slice(), b"\0\0\0"].concat()));
    client.send(&frame(b'B', b"\0s\0\0\0\0\0\0\0"));
    client.send(&frame(b'E', b"\0\0\0\0\0"));
    let logged = |client: &Client| client.log.lines().iter().map(|line| line.to_string().len()).sum::<usize>();
    let repeats = |client: &Client| client.begins().iter().filter(|(_, text)| !text.is_empty()).count();
    let (before, lines) = (logged(&client), client.begins().len());
    assert_eq!(repeats(&client), 1);
    client.send(&frame(b'E', b"\0\0\0\0\0").repeat(1_000));
    assert_eq!((client.begins().len() - lines, repeats(&client)), (1_000, 2));
    assert!(logged(&client) - before < 1_000 * 600 + 2 * line::REPEATED_TEXT_BYTES);
    client.send(&frame(b'E', b"gone\0\0\0\0\0"));
    for kind in *b"12" {
        client.tracker.server(kind, b"", 5, Instant::now()).unwrap();
    }
    for _ in 0..1_001 {
        client.tracker.server(b'C', b"SELECT 1\0", 14, Instant::now()).unwrap();
    }
    client.tracker.server_error("34000", Instant::now());
    client.send(&frame(b'E', b"\0\0\0\0\0"));
    let skipped = client.log.lines().pop().unwrap();
    assert!(skipped["text"].is_null() && !skipped["text_of"].is_null(), "{skipped}");
}

#[test]
fn copy_data_that_is_refused_in_copy_both_mode_ends_the_session() {
    let mut client = Client::new(Tag::none());
    client.send(&frame(b'Q', b"START_REPLICATION 0/0\0"));
    client.tracker.server(b'W', &[0; 3], 8, Instant::now()).unwrap();
    client.send(&frame(b'd', b"status"));
    assert!(!client.side.must_end());
    client.log.fail(true);
    let mut output = Output::default();
    let data = frame(b'd', b"status");
    client.side.process(&data, &mut client.tracker, &mut client.recorder, &mut output);
    client.side.refuse(&data, &mut client.tracker, &mut client.recorder, &mut output);
    assert!(client.side.must_end(), "a walsender takes no CopyFail");
}

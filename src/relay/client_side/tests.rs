//! Transcripts of client messages: what leaves, and what was recorded before it did.

use super::super::tag::testing::analyst;
use super::super::testing::recorder;
use super::*;
use crate::audit::testing::MemoryLog;
use crate::wire::append;

struct Client {
    side: ClientSide,
    tracker: Tracker,
    recorder: Recorder,
    log: MemoryLog,
}

impl Client {
    fn new(tag: Tag) -> Self {
        let log = MemoryLog::default();
        Self { side: ClientSide::new(tag), tracker: Tracker::new(), recorder: recorder(&log), log }
    }

    fn send(&mut self, input: &[u8]) -> (Vec<u8>, usize, Option<String>) {
        let mut output = Output::default();
        let (taken, stop) = self.side.process(input, &mut self.tracker, &mut self.recorder, &mut output);
        self.recorder.commit().unwrap();
        let refusal = match stop {
            Stop::Refused(refusal) => Some(refusal.to_string()),
            _ => None,
        };
        (output.to_vec(input), taken, refusal)
    }

    /// The begin lines: stage and text.
    fn begins(&self) -> Vec<(String, String)> {
        let show = |line: &serde_json::Value| {
            let member = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            (member("stage"), member("text"))
        };
        self.log.lines().iter().filter(|line| line["event"] == "begin").map(show).collect()
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, kind, body);
    out
}

fn tagged(text: &str) -> Vec<u8> {
    [Tag::of(&analyst()).bytes(), text.as_bytes(), b"\0"].concat()
}

#[test]
fn query_and_parse_carry_the_tag_at_byte_0_and_nothing_else_changes() {
    let mut client = Client::new(Tag::of(&analyst()));
    let parse = |text: &[u8]| [b"s1\0".as_slice(), text, b"\0\0\x01\0\0\0\x17"].concat();
    let input = [
        frame(b'Q', b"SELECT 1\0"),
        frame(b'P', &parse(b"SELECT $1")),
        frame(b'B', b"\0s1\0\0\0\0\0\0\0"),
        frame(b'E', b"\0\0\0\0\0"),
        frame(b'S', b""),
    ]
    .concat();
    let tag = Tag::of(&analyst());
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
fn a_statement_waits_until_its_start_is_there_and_streams_past_it() {
    let mut client = Client::new(Tag::none());
    let text = [vec![b'x'; 200_000], vec![0]].concat();
    let whole = frame(b'Q', &text);
    assert_eq!(client.send(&whole[..1000]).1, 0, "too little to record");
    assert!(client.begins().is_empty());
    let (out, taken, _) = client.send(&whole[..100_000]);
    assert_eq!((out.len(), taken), (100_000, 100_000));
    assert!(client.side.is_mid_frame());
    let line = client.log.lines().pop().unwrap();
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

#[test]
fn a_log_that_fails_prepares_nothing_that_counts() {
    let mut client = Client::new(Tag::none());
    client.log.fail(true);
    let mut output = Output::default();
    let input = frame(b'Q', b"SELECT 1\0");
    client.side.process(&input, &mut client.tracker, &mut client.recorder, &mut output);
    assert!(client.recorder.commit().is_err());
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
        let whole = Client::new(Tag::of(&analyst())).send(&input).0;
        let mut client = Client::new(Tag::of(&analyst()));
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
        Client::new(Tag::of(&analyst())).send(&input);
    }
}

#[test]
fn a_remembered_text_is_not_multiplied_and_a_commit_is_bounded() {
    let mut client = Client::new(Tag::none());
    client.send(&frame(b'P', &[b"s\0".as_slice(), &vec![1; 65_000], b"\0\0\0"].concat()));
    let bind = frame(b'B', b"\0s\0\0\0\0\0\0\0");
    client.send(&bind);
    let input = bind.repeat(1000);
    let mut output = Output::default();
    let (taken, stop) = client.side.process(&input, &mut client.tracker, &mut client.recorder, &mut output);
    assert!(matches!(stop, Stop::Commit) && taken < input.len() && taken % bind.len() == 0, "{stop:?}");
    client.recorder.commit().unwrap();
    let line = client.log.lines().pop().unwrap();
    let repeated = line["text"].as_str().unwrap().len();
    assert_eq!((repeated, line["text_bytes"].as_u64()), (REPEATED_TEXT_BYTES, Some(65_000)));
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

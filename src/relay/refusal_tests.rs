//! Refusals against a model of PostgreSQL: random messages, cut into reads anywhere, a log that takes lines now and
//! then, and answers that come late. Whatever happens, each error reaches the client as its own or as ours.

use super::client_side::{ClientSide, Stop};
use super::output::Output;
use super::server_side::ServerSide;
use super::substitute::Refusal;
use super::tag::Tag;
use super::testing::recorder;
use super::tracker::{Settled, Tracker};
use crate::audit::testing::MemoryLog;
use crate::audit::{Recorder, Urgency};
use crate::wire::{ErrorFields, HEADER_BYTES, Header, Reader, append};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

/// In every text of the client but a `ROLLBACK` or `COMMIT`.
const MARK: &str = "CLIENT";

/// What the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// It takes records.
    Works,
    /// It takes what may use the reserve.
    Full,
    /// It takes nothing.
    Broken,
    /// It takes records, and the disk does not confirm them.
    Unconfirmed,
}

#[derive(Debug, Clone)]
enum Step {
    /// The client sends this message, of this portal and this statement.
    Send(u8, [&'static str; 2], &'static str),
    /// The client sends Parse, Bind and Execute.
    Run([&'static str; 2], &'static str),
    /// What was sent since is read in one read.
    Read(Disk),
    /// The server works through this many messages.
    Answer(usize),
}

const DISKS: [Disk; 5] = [Disk::Works, Disk::Works, Disk::Full, Disk::Broken, Disk::Unconfirmed];

fn step() -> impl Strategy<Value = Step> {
    // As a rule a portal is called as its statement is.
    let name = || prop::sample::select(vec!["", "", "a", "b"]);
    let names = || prop_oneof![3 => name().prop_map(|name| [name; 2]), 1 => [name(), name()]];
    let texts = ["CLIENT ok", "CLIENT ok", "CLIENT fail", "CLIENT BEGIN", "ROLLBACK", "COMMIT"];
    let text = || prop::sample::select(texts.to_vec());
    let kind = prop::sample::select(b"QPPBBEEFDCSSSH".to_vec());
    prop_oneof![
        6 => (kind, names(), text()).prop_map(|(kind, names, text)| Step::Send(kind, names, text)),
        1 => (names(), text()).prop_map(|(names, text)| Step::Run(names, text)),
        2 => prop::sample::select(DISKS.to_vec()).prop_map(Step::Read),
        2 => (1..6usize).prop_map(Step::Answer),
    ]
}

fn message(kind: u8, [portal, name]: [&str; 2], text: &str) -> Vec<u8> {
    let body = match kind {
        b'Q' => format!("{text}\0"),
        b'P' => format!("{name}\0{text}\0\0\0"),
        b'B' => format!("{portal}\0{name}\0\0\0\0\0\0\0"),
        b'E' => format!("{portal}\0\0\0\0\0"),
        b'F' => "\0\0\0\x07\0\0\0\0\0\0".to_owned(),
        b'D' | b'C' => format!("S{name}\0"),
        _ => String::new(),
    };
    let mut out = Vec::new();
    append(&mut out, kind, body.as_bytes());
    out
}

/// PostgreSQL, as far as these messages go.
#[derive(Default)]
struct Server {
    input: VecDeque<(u8, Vec<u8>)>,
    output: Vec<u8>,
    statements: BTreeMap<String, String>,
    portals: BTreeMap<String, String>,
    skipping: bool,
    status: Option<u8>,
    /// What the client must be told for each error: its own number, or none for a substitute's.
    errors: Vec<Option<usize>>,
}

/// Whether a text ends a transaction, an aborted one too.
fn ends(text: &str) -> bool {
    matches!(text, "ROLLBACK" | "COMMIT")
}

impl Server {
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(header) = Header::decode(bytes).unwrap() {
            let (frame, rest) = bytes.split_at(header.frame());
            self.input.push_back((header.kind, frame[HEADER_BYTES..].to_vec()));
            bytes = rest;
        }
        assert!(bytes.is_empty(), "half a message");
    }

    fn say(&mut self, kind: u8, body: &[u8]) {
        append(&mut self.output, kind, body);
    }

    fn fail(&mut self, what: &str) {
        let ours = what.contains("refused by pgpassport") || what.contains("OID 0");
        let message = if ours { what.to_owned() } else { format!("own {}", self.errors.len()) };
        self.errors.push((!ours).then_some(self.errors.len()));
        if self.status() == b'T' {
            self.status = Some(b'E');
        }
        self.say(b'E', format!("SERROR\0VERROR\0C42000\0M{message}\0\0").as_bytes());
    }

    fn status(&self) -> u8 {
        self.status.unwrap_or(b'I')
    }

    fn ready(&mut self) {
        if self.status() == b'I' {
            self.portals.clear();
        }
        let status = self.status();
        self.say(b'Z', &[status]);
    }

    /// Runs a statement: whether it worked.
    fn run(&mut self, text: &str) -> bool {
        if text.contains("fail") || text.starts_with('"') || (self.status() == b'E' && !ends(text)) {
            self.fail(text);
            return false;
        }
        match text {
            "ROLLBACK" | "COMMIT" => self.status = None,
            "CLIENT BEGIN" => self.status = Some(b'T'),
            _ => {}
        }
        self.say(b'C', b"OK\0");
        true
    }

    fn answer(&mut self) {
        let Some((kind, body)) = self.input.pop_front() else { return };
        if self.skipping && kind != b'S' {
            return;
        }
        let mut reader = Reader::new(&body);
        let mut text = || String::from_utf8(reader.cstr().unwrap_or_default().to_vec()).unwrap();
        match kind {
            b'Q' => {
                self.statements.remove("");
                self.run(&text());
                self.ready();
            }
            b'P' => {
                let (name, text) = (text(), text());
                if name.is_empty() {
                    self.statements.remove("");
                }
                let aborted = self.status() == b'E' && text != "ROLLBACK";
                if text.starts_with('"') || aborted || self.statements.contains_key(&name) {
                    self.skipping = true;
                    return self.fail(&text);
                }
                self.statements.insert(name, text);
                self.say(b'1', b"");
            }
            b'B' => {
                let (portal, name) = (text(), text());
                match self.statements.get(&name).cloned() {
                    Some(text) if self.status() != b'E' || ends(&text) => {
                        self.portals.insert(portal, text);
                        self.say(b'2', b"");
                    }
                    _ => {
                        self.skipping = true;
                        self.fail(&name);
                    }
                }
            }
            b'E' => {
                let portal = text();
                let bound = self.portals.get(&portal).cloned();
                if bound.is_none() {
                    self.fail(&portal);
                }
                self.skipping = !bound.is_some_and(|text| self.run(&text));
            }
            b'F' => {
                if body.starts_with(&[0; 4]) {
                    self.fail("function with OID 0");
                } else {
                    self.say(b'V', &[0xff; 4]);
                }
                self.ready();
            }
            b'D' if self.statements.contains_key(&text()[1..]) => self.say(b'n', b""),
            b'D' => {
                self.skipping = true;
                self.fail("nothing to describe");
            }
            b'C' => {
                self.statements.remove(&text()[1..]);
                self.say(b'3', b"");
            }
            b'S' => {
                self.skipping = false;
                self.ready();
            }
            _ => {}
        }
    }
}

/// Client, relay and server in one.
struct World {
    side: ClientSide,
    back: ServerSide,
    tracker: Tracker,
    recorder: Recorder,
    log: MemoryLog,
    server: Server,
    told: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let log = MemoryLog::default();
        let (side, back) = (ClientSide::new(Tag::none()), ServerSide::new(Tag::none()));
        let (tracker, recorder, server) = (Tracker::new(), recorder(&log), Server::default());
        Self { side, back, tracker, recorder, log, server, told: Vec::new() }
    }

    /// As `Relay::take_client` does it.
    fn read(&mut self, mut input: &[u8], disk: Disk) {
        self.log.fail(disk == Disk::Broken);
        self.log.fill(disk == Disk::Full);
        loop {
            let mut output = Output::default();
            let since = self.tracker.mark().event;
            let (taken, stop) = self.side.process(input, &mut self.tracker, &mut self.recorder, &mut output);
            let (dealt_with, rest) = input.split_at(taken);
            let before = self.commits();
            self.recorder.join_group();
            if !self.commit(since, self.side.urgency()) {
                self.side.refuse(dealt_with, &mut self.tracker, &mut self.recorder, &mut output);
            }
            if disk == Disk::Unconfirmed {
                self.side.refuse_unconfirmed(dealt_with, &mut self.tracker, &mut output);
            }
            let out = output.to_vec(dealt_with);
            let text = String::from_utf8_lossy(&out);
            assert!(!text.contains(MARK) || disk == Disk::Works, "a byte left that the log does not have: {text:?}");
            let (left, recorded) = (text.matches("COMMIT").count(), self.commits() - before);
            let as_recorded = if disk == Disk::Unconfirmed { left == 0 } else { left == recorded };
            assert!(as_recorded, "{left} COMMITs left and {recorded} are in the log: {text:?}");
            self.server.take(&out);
            input = rest;
            match stop {
                Stop::Commit => assert!(taken > 0),
                stop => return assert_eq!((stop, input.len()), (Stop::Input, 0)),
            }
        }
    }

    /// Messages with this text that are in the log.
    fn commits(&self) -> usize {
        let own = |line: &&serde_json::Value| line["text"] == "COMMIT" && line["text_of"].is_null();
        self.log.lines().iter().filter(own).count()
    }

    fn commit(&mut self, since: u64, urgency: Urgency) -> bool {
        let settled = self.tracker.take_settled();
        let begun = self.recorder.commit_group();
        let (since, urgency) = if begun { (u64::MAX, Urgency::Normal) } else { (since, urgency) };
        for line in &settled {
            line.tell(&mut self.recorder);
        }
        if self.recorder.commit(urgency).is_ok() {
            return true;
        }
        for line in settled.iter().filter(|line| !matches!(line, Settled::End(end) if end.event >= since)) {
            line.tell(&mut self.recorder);
        }
        self.recorder.owe().unwrap();
        begun
    }

    fn answer(&mut self) {
        self.server.answer();
        let input = std::mem::take(&mut self.server.output);
        let mut output = Output::default();
        let words = |refusal: Refusal| ErrorFields::new("ERROR", "53100", &refusal.to_string());
        let taken = self.back.process(&input, &mut self.tracker, &words, &mut output);
        assert_eq!(taken, Ok(input.len()), "{}", String::from_utf8_lossy(&input));
        self.commit(u64::MAX, Urgency::Normal);
        self.told.extend(output.to_vec(&input));
    }

    /// What the client was told of errors: the server's own number, or none.
    fn errors(&self) -> Vec<Option<usize>> {
        let mut errors = Vec::new();
        let mut told = self.told.as_slice();
        while let Some(header) = Header::decode(told).unwrap() {
            let (frame, rest) = told.split_at(header.frame());
            if header.kind == b'E' {
                let fields = ErrorFields::decode(&frame[HEADER_BYTES..]).unwrap();
                errors.push(fields.message().strip_prefix("own ").map(|own| own.parse().unwrap()));
                assert_eq!(fields.sqlstate() == "53100", errors.last() == Some(&None));
            }
            told = rest;
        }
        errors
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_error_is_its_own_or_ours_and_every_begin_has_its_end(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        let mut sent = Vec::new();
        for step in steps.into_iter().chain([Step::Read(Disk::Works), Step::Send(b'S', [""; 2], ""), Step::Read(Disk::Works), Step::Answer(100)]) {
            match step {
                Step::Send(kind, names, text) => sent.extend(message(kind, names, text)),
                Step::Run(names, text) => sent.extend(b"PBE".iter().flat_map(|kind| message(*kind, names, text))),
                Step::Read(disk) => world.read(&std::mem::take(&mut sent), disk),
                Step::Answer(count) => (0..count).for_each(|_| world.answer()),
            }
        }
        prop_assert!(!world.tracker.is_busy());
        prop_assert_eq!(world.errors(), world.server.errors.clone());
        prop_assert!(!String::from_utf8_lossy(&world.told).contains("refused by pgpassport"));
        world.tracker.finish(Instant::now());
        prop_assert!(world.commit(u64::MAX, Urgency::Normal));
        let lines = world.log.lines();
        let ids = |event: &str| -> BTreeSet<String> {
            lines.iter().filter(|line| line["event"] == event).map(|line| line["id"].as_str().unwrap().to_owned()).collect()
        };
        prop_assert_eq!(ids("begin"), ids("end"));
    }
}

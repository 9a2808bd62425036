//! The tracker against a model: random lawful clients, a server that knows what truly happened, and any order in which
//! the proxy can see both streams.
//!
//! The seed is fixed; `PROPTEST_CASES=1000000 PROPTEST_RNG_SEED=7` looks further.

mod client;
mod run;
mod server;
mod sql;

use super::*;
use client::Dice;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use server::{Answer, Done, Message, Part, Server, Truth};
use std::collections::BTreeMap;

/// How many cases `make test` tries.
const CASES: u32 = 3000;
const SEED: u64 = 20_261_122;

/// What the tracker said of one message when it was about to leave.
#[derive(Debug)]
struct Told {
    event: u64,
    stage: Stage,
    bytes: u64,
    /// The text that a begin line would repeat, by its event; and whether it is doubtful.
    text: Option<u64>,
    doubtful: bool,
}

struct Session {
    tracker: Tracker,
    server: Server,
    told: BTreeMap<usize, Told>,
    sent: usize,
    ends: BTreeMap<u64, Vec<End>>,
    now: Instant,
}

impl Session {
    fn new() -> Self {
        let now = Instant::now();
        let (tracker, server) = (Tracker::new(), Server::new());
        Self { tracker, server, told: BTreeMap::new(), sent: 0, ends: BTreeMap::new(), now }
    }

    /// The client's message passes the tracker and is on its way.
    fn send(&mut self, message: Message) {
        let (number, now) = (self.sent, self.now);
        self.sent += 1;
        let bytes = 10 + number as u64 % 5;
        let tracker = &mut self.tracker;
        let whole = |event, stage| Told { event, stage, bytes, text: None, doubtful: false };
        let again = |place: Place, stage| {
            let (text, doubtful) = (place.text.as_ref().map(|text| text.event), place.doubtful);
            Told { event: place.event, stage, bytes, text, doubtful }
        };
        let told = match &message {
            Message::Query(text) => {
                let text = text.render(number);
                whole(tracker.query(text.as_bytes(), text.len() as u64, bytes, now), Stage::Query)
            }
            Message::Parse { name, text } => {
                let text = text.render(number);
                let event = tracker.parse(name.as_bytes(), text.as_bytes(), text.len() as u64, bytes, now);
                whole(event, Stage::Parse)
            }
            Message::Bind { portal, statement, .. } => {
                again(tracker.bind(portal.as_bytes(), statement.as_bytes(), bytes, now), Stage::Bind)
            }
            Message::Execute { portal, .. } => again(tracker.execute(portal.as_bytes(), bytes, now), Stage::Execute),
            Message::FunctionCall { .. } => whole(tracker.function_call(bytes, now), Stage::FunctionCall),
            other => {
                match other {
                    Message::Describe { .. } => tracker.describe(),
                    Message::Close { statement: true, name } => tracker.close(Target::Statement, name.as_bytes()),
                    Message::Close { name, .. } => tracker.close(Target::Portal, name.as_bytes()),
                    Message::CopyData => tracker.copy_data(7),
                    Message::CopyDone | Message::CopyFail => tracker.copy_end(),
                    _ => tracker.sync(),
                }
                self.server.receive(number, message);
                return;
            }
        };
        self.told.insert(number, told);
        self.server.receive(number, message);
    }

    /// One answer of the server passes the tracker; `false` when there is none.
    fn answer(&mut self) -> bool {
        let Some(Answer { kind, body, bytes }) = self.server.answers.pop_front() else { return false };
        if kind == b'E' {
            self.tracker.server_error(&body, self.now);
        } else {
            let body = if kind == b'C' { format!("{body}\0") } else { body };
            let answered = match kind {
                b'D' | b'd' => self.tracker.server_rows(kind, 1, bytes, self.now),
                _ => self.tracker.server(kind, body.as_bytes(), bytes, self.now),
            };
            answered.unwrap();
        }
        self.collect();
        true
    }

    fn collect(&mut self) {
        for end in self.tracker.take_ends() {
            self.ends.entry(end.event).or_default().push(end);
        }
    }

    /// Plays the script: the client, the server and the proxy's reading of the answers take turns by dice.
    fn play(&mut self, script: &[u32]) {
        let mut dice = Dice::new(script);
        let mut next = VecDeque::new();
        while !dice.is_empty() || !next.is_empty() {
            match dice.roll(8) {
                0..=2 => {
                    if next.is_empty() {
                        next.extend(client::messages(&mut dice));
                    }
                    if let Some(message) = next.pop_front() {
                        self.send(message);
                    }
                }
                3 | 4 => _ = self.server.step(),
                5 | 6 => _ = self.answer(),
                _ => self.tracker.server(b"NSA"[dice.roll(3) as usize], b"", 5, self.now).unwrap(),
            }
        }
    }

    /// Until nothing is on its way. A client whose Sync was read by a COPY that failed must send another.
    fn settle(&mut self) {
        self.send(Message::Sync);
        loop {
            while self.server.step() {}
            while self.answer() {}
            if !self.server.is_skipping() {
                return;
            }
            self.send(Message::Sync);
        }
    }

    /// The messages of each event, in their order.
    fn events(&self) -> BTreeMap<u64, Vec<usize>> {
        let mut events: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (number, told) in &self.told {
            events.entry(told.event).or_default().push(*number);
        }
        events
    }

    fn check(&self) {
        for (event, messages) in self.events() {
            let stages: Vec<Stage> = messages.iter().map(|number| self.told[number].stage).collect();
            assert!(is_one_execution(&stages), "event {event}: {stages:?}");
            let ends = &self.ends[&event];
            let finals: Vec<bool> = ends.iter().map(|end| end.last).collect();
            assert_eq!(finals.iter().filter(|last| **last).count(), 1, "event {event}: {ends:?}");
            assert_eq!(finals.last(), Some(&true));
            self.check_ends(&messages, ends);
            for number in &messages {
                self.check_text(*number, &messages, ends);
            }
        }
        assert_eq!(self.ends.len(), self.events().len(), "ends without a begin");
    }

    fn truth(&self, number: usize) -> &Truth {
        &self.server.truth[&number]
    }

    /// Outcome, rows, bytes, command and SQLSTATE.
    fn check_ends(&self, messages: &[usize], ends: &[End]) {
        let first_trouble = messages.iter().find_map(|number| match &self.truth(*number).done {
            Done::Ok => None,
            other => Some((number, other.clone())),
        });
        let last = messages[messages.len() - 1];
        let mut parts: Vec<Part> = match first_trouble {
            Some((number, done)) => match self.truth(*number).parts.as_slice() {
                [] => vec![Part { done, ..Part::default() }],
                parts => parts.to_vec(),
            },
            None => self.truth(last).parts.clone(),
        };
        if parts.is_empty() {
            parts.push(Part::default());
        }
        assert_eq!(ends.len(), parts.len(), "messages {messages:?}: {ends:?} for {parts:?}");
        for (at, (end, part)) in ends.iter().zip(&parts).enumerate() {
            let (outcome, sqlstate) = self.outcome(last, &part.done);
            let said = (end.outcome, end.sqlstate.as_deref(), end.part as usize);
            assert_eq!(said, (outcome, sqlstate, at), "messages {messages:?}");
            let said = (end.rows, end.bytes_out, end.command.as_deref());
            assert_eq!(said, (part.rows, part.bytes_out, part.command.as_deref()), "messages {messages:?}");
            let executes = part.executes.map(|number| self.told[&number].event);
            let told = end.executes == executes || (end.executes.is_none() && self.server.muddied);
            assert!(told, "messages {messages:?} execute {executes:?}, not {:?}", end.executes);
        }
        if parts.iter().all(|part| part.done == Done::Ok) {
            let own: u64 = messages.iter().map(|number| self.told[number].bytes).sum();
            let copied = self.truth(last).copied as u64 * 7;
            assert_eq!(ends[ends.len() - 1].bytes_in, own + copied, "messages {messages:?}");
        }
    }

    fn outcome<'a>(&self, last: usize, done: &'a Done) -> (Outcome, Option<&'a str>) {
        match done {
            Done::Skipped => (Outcome::Skipped, None),
            Done::Suspended => (Outcome::Suspended, None),
            Done::Error(state) if state == server::COPY_FAILED => (Outcome::Canceled, Some(state)),
            Done::Error(state) => (Outcome::Error, Some(state)),
            Done::Ok => match self.told[&last].stage {
                Stage::Parse => (Outcome::Parsed, None),
                Stage::Bind => (Outcome::Bound, None),
                _ => (Outcome::Ok, None),
            },
        }
    }

    /// What was bound or ran is attributed to the text that it was, or said to be in doubt.
    fn check_text(&self, number: usize, messages: &[usize], ends: &[End]) {
        if self.truth(number).nothing {
            let end = &ends[ends.len() - 1];
            assert!(end.text_doubtful && end.text_of.is_none(), "message {number} ran nothing: {end:?}");
        }
        let Some(text) = self.truth(number).text else { return };
        let truth = self.told[&text].event;
        let opener = &self.told[&messages[0]];
        let begun = match opener.stage {
            Stage::Parse => Some(opener.event),
            _ => opener.text.filter(|_| !opener.doubtful),
        };
        match ends[ends.len() - 1].text_of.or(begun) {
            Some(said) => assert_eq!(said, truth, "message {number} of {messages:?}"),
            None => assert!(self.server.muddied, "message {number} of {messages:?} ran the text of event {truth}"),
        }
    }
}

/// The messages that one event may have.
fn is_one_execution(stages: &[Stage]) -> bool {
    let whole = [Stage::Parse, Stage::Bind, Stage::Execute];
    match stages {
        [Stage::Query | Stage::FunctionCall] => true,
        _ => whole.windows(stages.len()).any(|window| window == stages),
    }
}

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let set = |name| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if set("PROPTEST_CASES") { default.cases } else { CASES },
        rng_seed: if set("PROPTEST_RNG_SEED") { default.rng_seed } else { RngSeed::Fixed(SEED) },
        max_shrink_iters: 100_000,
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_execution_gets_its_own_text_and_end(script in proptest::collection::vec(any::<u32>(), 0..400)) {
        let mut session = Session::new();
        session.play(&script);
        session.settle();
        prop_assert_eq!(session.tracker.take_sync_errors(), session.server.loose_errors.clone());
        prop_assert!(!session.tracker.is_busy());
        prop_assert_eq!(session.tracker.is_idle(), session.server.is_idle());
        session.tracker.finish(session.now);
        session.collect();
        session.check();
    }

    /// However early a session breaks off: every event ends once, and nothing is said to have run that has not.
    #[test]
    fn a_session_that_breaks_off_claims_nothing(script in proptest::collection::vec(any::<u32>(), 0..200)) {
        let mut session = Session::new();
        session.play(&script);
        session.tracker.finish(session.now);
        session.collect();
        for (event, messages) in session.events() {
            let ends = &session.ends[&event];
            prop_assert_eq!(ends.iter().filter(|end| end.last).count(), 1);
            let ran = messages.iter().any(|number| {
                session.server.truth.get(number).is_some_and(|truth| !truth.parts.is_empty())
            });
            let claims = ends.iter().any(|end| matches!(end.outcome, Outcome::Ok | Outcome::Suspended));
            prop_assert!(ran || !claims, "event {}: {:?}", event, ends);
        }
    }
}

//! Fuzz targets: the tag, and both directions of a session with their records.

#![allow(clippy::missing_panics_doc, clippy::panic, reason = "a target's panic is its finding")]

mod canned;
mod values;

use super::client_side::{ClientSide, INSPECTED_BYTES, Stop};
use super::output::Output;
use super::server_side::{MAX_ERROR_BYTES, ServerSide};
use super::substitute::Refusal;
use super::tag::Tag;
use super::tag::testing::{analyst, tag as tag_of};
use super::testing::{Says, recorder_for};
use super::tracker::Tracker;
use crate::audit::testing::MemoryLog;
use crate::audit::{Parameters, Recorder, apart};
use crate::fuzzing::{Choices, pieces};
use crate::identity::IdentityFacts;
use crate::wire::{ErrorFields, HEADER_BYTES, Header, append};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// Whoever the caller and whatever the text: PostgreSQL's scanner, for which comments nest, ends the comment at byte
/// 0 where the tag ends; taking the tag away gives back the client's text; each value is the identity's own, cut
/// between characters at most; an error's position in the client's text is what it was.
pub fn tag(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut value = || String::from_utf8_lossy(choices.short()).into_owned();
    let facts = IdentityFacts { label: value(), app: value(), object_id: value(), ..analyst() };
    let text = choices.rest();
    let tag = tag_of(&facts);
    let tagged = [tag.bytes(), text].concat();
    assert_eq!(comment_end(&tagged).map(|end| end + 1), Some(tag.bytes().len()), "the comment ends elsewhere");
    assert!(tag.bytes().is_ascii() && tag.bytes().ends_with(b"*/ "));
    let inside = String::from_utf8_lossy(tag.bytes()).into_owned();
    for (key, own) in [("app", &facts.app), ("caller", &facts.label), ("oid", &facts.object_id)] {
        let told = inside.split(&format!("{key}='")).nth(1).and_then(|rest| rest.split('\'').next());
        // Behind this an id that is too long has its hash.
        let told = told.and_then(|told| told.split("%7e").next());
        assert!(told.is_some_and(|told| own.as_bytes().starts_with(&percent_decoded(told))), "{key}: {told:?}");
    }
    for position in [1, text.len() + 1] {
        let moved = tag.untag_position((tag.bytes().len() + position).to_string().as_bytes());
        assert_eq!(moved, Some(position.to_string().into_bytes()));
    }
    for (kind, name) in [(b'Q', [].as_slice()), (b'P', b"name\0")] {
        let mut message = Vec::new();
        append(&mut message, kind, &[name, text, &[0]].concat());
        let mut session = Session::new(tag.clone(), Parameters::Off);
        session.client_sends(&message);
        let mut expected = Vec::new();
        append(&mut expected, kind, &[name, &tagged, &[0]].concat());
        assert_eq!(session.to_server, expected);
    }
}

/// Where a comment at the start of `text` ends, as `scan.l` reads it (`<xc>`: comments nest).
fn comment_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_u32, 0);
    loop {
        match text.get(at..at + 2)? {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth.checked_sub(1)?, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        out.push(u8::from_str_radix(code, 16).unwrap_or_default());
        out.extend_from_slice(rest.as_bytes());
    }
    out
}

/// A session of any messages in any order, cut anywhere: what leaves, less the tags, is what came; every Query, Parse,
/// Bind, Execute and FunctionCall that leaves has its begin line, every event that began has exactly one last end, and
/// none ends that did not begin; what waits to be looked at is bounded; and where the reads are cut changes nothing of
/// all that. Parameters, where they are recorded, are each told or counted. What is refused leaves as a substitute with
/// a random name (`refusal_tests`): where the reads are cut must not change that it does.
pub fn relay(data: &[u8]) {
    let mut choices = Choices::new(data);
    let pattern = choices.bytes(3);
    let script = canned::script(choices);
    let are_recorded = pattern.get(2).is_some_and(|byte| byte % 2 == 1);
    let parameters = if are_recorded { Parameters::Full } else { Parameters::Off };
    let whole = run(&script, None, parameters);
    let cut = run(&script, Some(pattern), parameters);
    assert_eq!(whole.refused, cut.refused);
    if whole.refused {
        // Substitutes carry random names.
        return;
    }
    assert_eq!((&whole.to_server, &whole.to_client), (&cut.to_server, &cut.to_client));
    assert_eq!((&whole.begins, &whole.ends, &whole.ending), (&cut.begins, &cut.ends, &cut.ending));
}

/// Who sends what, in order.
type Script = Vec<(Side, Vec<u8>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

#[derive(Debug)]
struct Outcome {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    begins: Vec<Value>,
    ends: Vec<Value>,
    ending: Option<String>,
    refused: bool,
}

fn run(script: &Script, pattern: Option<&[u8]>, parameters: Parameters) -> Outcome {
    let mut session = Session::new(tag_of(&analyst()), parameters);
    for (side, bytes) in script {
        let pieces = pattern.map_or_else(|| vec![bytes.as_slice()], |pattern| pieces(bytes, pattern));
        for piece in pieces {
            match side {
                Side::Client => session.client_sends(piece),
                Side::Server => session.server_sends(piece),
            }
        }
    }
    session.finish()
}

struct Session {
    client: ClientSide,
    server: ServerSide,
    tracker: Tracker,
    recorder: Recorder,
    log: MemoryLog,
    /// Read and not yet dealt with.
    client_held: Vec<u8>,
    server_held: Vec<u8>,
    /// Dealt with.
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    ending: Option<String>,
    /// Something left as its substitute.
    refused: bool,
}

impl Session {
    fn new(tag: Tag, parameters: Parameters) -> Self {
        let log = MemoryLog::default();
        Self {
            client: ClientSide::new(tag.clone()),
            server: ServerSide::new(tag),
            tracker: Tracker::new(),
            recorder: recorder_for(log.auditor(10), Says { parameters, ..Says::default() }),
            log,
            client_held: Vec::new(),
            server_held: Vec::new(),
            from_client: Vec::new(),
            from_server: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            ending: None,
            refused: false,
        }
    }

    /// One read of the client's.
    fn client_sends(&mut self, piece: &[u8]) {
        if self.ending.is_some() || self.client.is_terminated() {
            return;
        }
        self.client_held.extend_from_slice(piece);
        loop {
            let mut output = Output::default();
            let held = std::mem::take(&mut self.client_held);
            let (taken, stop) = self.client.process(&held, &mut self.tracker, &mut self.recorder, &mut output);
            self.record();
            self.to_server.extend_from_slice(&output.to_vec(&held));
            self.refused |= !self.client.take_missed().refused.is_empty();
            let (done, waiting) = held.split_at(taken);
            self.from_client.extend_from_slice(done);
            self.client_held = waiting.to_vec();
            match stop {
                Stop::Commit => {}
                Stop::Input => {
                    let bounded = self.client_held.len() < HEADER_BYTES + INSPECTED_BYTES;
                    assert!(bounded || self.client.is_terminated(), "{} bytes wait", self.client_held.len());
                    break;
                }
                Stop::Answers | Stop::Held | Stop::Wait(_) => break,
                Stop::Violated(violation) => {
                    self.ending = Some(violation.to_string());
                    break;
                }
            }
        }
    }

    /// One read of the server's.
    fn server_sends(&mut self, piece: &[u8]) {
        if self.ending.is_some() {
            return;
        }
        self.server_held.extend_from_slice(piece);
        let mut output = Output::default();
        let held = std::mem::take(&mut self.server_held);
        let words = |refusal: Refusal| ErrorFields::new("ERROR", "53100", &refusal.to_string());
        let outcome = self.server.process(&held, &mut self.tracker, &words, &mut output);
        self.record();
        self.to_client.extend_from_slice(&output.to_vec(&held));
        match outcome {
            Ok(taken) => {
                let (done, waiting) = held.split_at(taken);
                self.from_server.extend_from_slice(done);
                self.server_held = waiting.to_vec();
                assert!(self.server_held.len() < HEADER_BYTES + MAX_ERROR_BYTES);
            }
            Err(misbehaved) => {
                assert!(!self.server.is_mid_frame(), "our last word would stand within a message");
                self.from_server.extend_from_slice(&held);
                self.ending = Some(misbehaved.to_string());
            }
        }
    }

    /// As the pump does after each read, before anything is written.
    fn record(&mut self) {
        for line in self.tracker.take_settled() {
            line.tell(&mut self.recorder);
        }
        assert!(self.recorder.commit(crate::audit::Urgency::Normal).is_ok());
    }

    fn finish(mut self) -> Outcome {
        self.tracker.finish(Instant::now());
        self.record();
        if !self.refused {
            assert_eq!(untagged(&self.to_server), self.from_client);
            assert_positions_moved(&self.from_server, &self.to_client, self.ending.is_some());
        }
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for line in self.log.lines() {
            match line.get("event").and_then(Value::as_str) {
                // Which messages have one record depends on the reads.
                Some("begin") => {
                    let alone = line.as_object().map(apart).unwrap_or_default();
                    begins.extend(alone.into_iter().map(|line| timeless(Value::Object(line))));
                }
                Some("end") => ends.push(timeless(line)),
                _ => {}
            }
        }
        let recorded = headers(&self.to_server).iter().filter(|header| b"QPBEF".contains(&header.kind)).count();
        assert_eq!(begins.len(), recorded, "what leaves is recorded, once");
        assert_every_event_ends_once(&begins, &ends);
        if !self.refused && self.recorder.parameters() == Parameters::Full {
            values::assert_told(&self.to_server, &begins);
        }
        let Self { to_server, to_client, ending, refused, .. } = self;
        Outcome { to_server, to_client, begins, ends, ending, refused }
    }
}

/// The headers of what leaves, the last message's too if only its start has left.
fn headers(mut stream: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    while let Ok(Some(header)) = Header::decode(stream) {
        headers.push(header);
        stream = stream.get(header.frame()..).unwrap_or_default();
    }
    headers
}

/// What leaves, less the tags: an independent reading of the protocol.
fn untagged(mut stream: &[u8]) -> Vec<u8> {
    let (tag, mut out) = (tag_of(&analyst()), Vec::new());
    while let Ok(Some(header)) = Header::decode(stream) {
        let (frame, rest) = stream.split_at_checked(header.frame()).unwrap_or((stream, &[]));
        let body = frame.get(HEADER_BYTES..).unwrap_or_default();
        let text_at = match header.kind {
            b'Q' => Some(0),
            b'P' => body.iter().position(|byte| *byte == 0).map(|end| end + 1),
            _ => None,
        };
        if let Some((before, text)) = text_at.and_then(|at| body.split_at_checked(at)) {
            let text = text.strip_prefix(tag.bytes());
            assert!(text.is_some(), "a text without its tag: {}", frame.escape_ascii());
            out.extend_from_slice(&Header { body: header.body - tag.bytes().len(), ..header }.encode());
            out.extend_from_slice(before);
            out.extend_from_slice(text.unwrap_or_default());
        } else {
            out.extend_from_slice(frame);
        }
        stream = rest;
    }
    out
}

/// Errors and notices differ in their position at most, everything else not at all. In a session that was ended, what
/// is wrong stays away.
fn assert_positions_moved(mut from_server: &[u8], mut to_client: &[u8], ended: bool) {
    let tag = tag_of(&analyst());
    while !to_client.is_empty() {
        let (Ok(before), Ok(after)) = (Header::decode(from_server), Header::decode(to_client)) else {
            panic!("a header that no message has was passed on")
        };
        let (Some(before), Some(after)) = (before, after) else { break };
        let (frame, rest) = from_server.split_at_checked(before.frame()).unwrap_or((from_server, &[]));
        let (told, after_it) = to_client.split_at_checked(after.frame()).unwrap_or((to_client, &[]));
        let fields = |frame: &[u8]| ErrorFields::decode(frame.get(HEADER_BYTES..).unwrap_or_default());
        match (fields(frame), fields(told)) {
            (Ok(mut own), Ok(told)) if matches!(before.kind, b'E' | b'N') => {
                if let Some(moved) = own.get(b'P').and_then(|position| tag.untag_position(position)) {
                    own.set(b'P', &moved);
                }
                assert_eq!(own, told);
            }
            _ => assert_eq!(frame, told),
        }
        (from_server, to_client) = (rest, after_it);
    }
    assert!(from_server == to_client || (ended && to_client.is_empty()));
}

/// A line without what differs from run to run.
fn timeless(mut line: Value) -> Value {
    if let Some(members) = line.as_object_mut() {
        members.retain(|name, _| !matches!(name.as_str(), "time" | "session" | "duration_us" | "first_row_us"));
        if members.contains_key("text_of") {
            // Which line of a batch repeats a text depends on the reads.
            members.retain(|name, _| !matches!(name.as_str(), "text" | "text_base64" | "text_bytes"));
        }
        for name in ["id", "text_of"] {
            if let Some(id) = members.get_mut(name) {
                *id = id.as_str().and_then(|id| id.rsplit('.').next()).unwrap_or_default().into();
            }
        }
    }
    line
}

fn assert_every_event_ends_once(begins: &[Value], ends: &[Value]) {
    let id = |line: &Value| line.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut events: BTreeMap<String, Vec<(u64, bool)>> = begins.iter().map(|begin| (id(begin), Vec::new())).collect();
    for end in ends {
        let part = end.get("part").and_then(Value::as_u64).unwrap_or_default();
        let last = end.get("final").and_then(Value::as_bool);
        assert!(last.is_some(), "{end}");
        match events.get_mut(&id(end)) {
            Some(parts) => parts.push((part, last.unwrap_or_default())),
            None => panic!("an end without a begin: {end}"),
        }
    }
    for (event, parts) in events {
        let expected: Vec<(u64, bool)> =
            (0..).take(parts.len()).map(|part: u64| (part, part + 1 == parts.len() as u64)).collect();
        assert!(!parts.is_empty() && parts == expected, "event {event} ended as {parts:?}");
    }
}

#[cfg(test)]
mod tests {
    use crate::fuzzing::corpus::replay;

    #[test]
    fn tag() {
        replay("tag", super::tag);
    }

    #[test]
    fn relay() {
        replay("relay", super::relay);
    }
}

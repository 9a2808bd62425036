//! A statement's begin and end records, member by member in the order of their types.

use super::super::event::{Begin, End, EventId, Listed, Outcome, Stage};
use crate::names::SessionId;
use serde::Serialize;
use std::io;
use std::ops::Range;

/// How many bytes of a text are looked at together: enough for a vector instruction or two.
const LOOK: usize = 32;

/// Where in a begin record that stands for one message goes what the next one of the same event has to say, in bytes
/// behind the record's start.
#[derive(Debug, Clone)]
pub struct Places {
    /// The stage, and since which.
    stage: Range<usize>,
    /// A Bind's portal and parameters.
    own: usize,
}

/// What a message says that goes on with the event of the one before it.
#[derive(Debug)]
pub struct Next<'a> {
    /// Its own.
    pub stage: Stage,
    /// Of the first message that the record stands for.
    pub since: Stage,
    /// A Bind's.
    pub portal: Option<&'a str>,
    /// A Bind's.
    pub values: &'a Listed,
}

/// A record's head, as it stands in front of what is appended.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// Where it begins.
    pub start: usize,
    /// Where the session's id stands in it.
    pub session_at: usize,
    /// Which that is.
    pub session: SessionId,
}

/// Appends what follows a begin record's head.
pub(super) fn begin(out: &mut Vec<u8>, head: Head, begin: &Begin<'_>) -> io::Result<Places> {
    // Every member is named: a new one cannot be forgotten here.
    let Begin {
        id,
        stage,
        since,
        caller,
        text,
        text_base64,
        text_sealed,
        text_bytes,
        text_of,
        text_doubtful,
        role_changes,
        statement,
        portal,
        function_oid,
        values,
        tagged,
        traceparent,
        durability,
    } = begin;
    let mut members = Members { out, head: Some(head) };
    members.raw(b",\"event\":\"begin\"");
    members.id(b",\"id\":\"", Some(*id))?;
    let stage_at = members.out.len();
    members.raw(stage_member(*stage));
    members.raw(since.map_or(b"".as_slice(), since_member));
    let stage = stage_at.saturating_sub(head.start)..members.out.len().saturating_sub(head.start);
    members.raw(b",\"caller\":");
    members.raw(caller.get().as_bytes());
    members.text(b",\"text\":", text.as_deref());
    members.text(b",\"text_base64\":", text_base64.as_deref());
    members.json(b",\"text_sealed\":", text_sealed.as_ref())?;
    members.json(b",\"text_bytes\":", text_bytes.as_ref())?;
    members.id(b",\"text_of\":\"", *text_of)?;
    members.flag(b",\"text_doubtful\":true", *text_doubtful);
    members.json(b",\"role_changes\":", Some(role_changes).filter(|changes| !changes.is_empty()))?;
    members.text(b",\"statement\":", statement.as_deref());
    let own = members.out.len().saturating_sub(head.start);
    members.text(b",\"portal\":", portal.as_deref());
    members.json(b",\"function_oid\":", function_oid.as_ref())?;
    members.listed(values)?;
    members.raw(if *tagged { b",\"tagged\":true" } else { b",\"tagged\":false" });
    members.text(b",\"traceparent\":", *traceparent);
    members.json(b",\"durability\":", durability.as_ref())?;
    members.raw(b"}");
    Ok(Places { stage, own })
}

/// What [`Next`] says, as bytes.
#[derive(Debug)]
pub struct Encoded {
    /// A Bind's portal and parameters.
    own: Vec<u8>,
    stages: Vec<u8>,
}

impl Next<'_> {
    /// What goes into the record.
    pub fn encode(&self) -> io::Result<Encoded> {
        let mut own = Vec::new();
        let mut members = Members { out: &mut own, head: None };
        members.text(b",\"portal\":", self.portal);
        members.listed(self.values)?;
        Ok(Encoded { own, stages: [stage_member(self.stage), since_member(self.since)].concat() })
    }
}

impl Encoded {
    /// The record grows by so many bytes at most.
    pub fn bytes(&self) -> usize {
        self.own.len().saturating_add(self.stages.len())
    }
}

/// Puts into the begin record at `start` of `out`, which ends there, what the next message says.
pub fn go_on(out: &mut Vec<u8>, start: usize, places: &mut Places, next: &Encoded) {
    let Encoded { own, stages } = next;
    let at = start.saturating_add(places.own);
    replace(out, at..at, own);
    let at = start.saturating_add(places.stage.start);
    replace(out, at..at.saturating_add(places.stage.len()), stages);
    let more = stages.len().saturating_sub(places.stage.len());
    places.stage.end = places.stage.end.saturating_add(more);
    places.own = places.own.saturating_add(more);
}

/// Puts into a place of `out` what is at least as long: what is behind it moves up.
fn replace(out: &mut Vec<u8>, place: Range<usize>, by: &[u8]) {
    let (end, more) = (out.len(), by.len().saturating_sub(place.len()));
    out.resize(end.saturating_add(more), 0);
    out.copy_within(place.end..end, place.end.saturating_add(more));
    for (to, from) in out.iter_mut().skip(place.start).zip(by) {
        *to = *from;
    }
}

/// Appends what follows an end record's head.
pub(super) fn end(out: &mut Vec<u8>, head: Head, end: &End<'_>) -> io::Result<()> {
    let End {
        id,
        part,
        last,
        outcome,
        sqlstate,
        text_of,
        text_sha256,
        text_mac,
        text_bytes,
        text_doubtful,
        executes,
        command,
        rows,
        bytes_in,
        bytes_out,
        first_row_us,
        duration_us,
        durability,
    } = end;
    let mut members = Members { out, head: Some(head) };
    members.raw(b",\"event\":\"end\"");
    members.id(b",\"id\":\"", Some(*id))?;
    members.json(b",\"part\":", Some(part))?;
    members.raw(if *last { b",\"final\":true" } else { b",\"final\":false" });
    members.raw(outcome_member(*outcome));
    members.text(b",\"sqlstate\":", *sqlstate);
    members.id(b",\"text_of\":\"", *text_of)?;
    members.text(b",\"text_sha256\":", text_sha256.as_deref());
    members.json(b",\"text_mac\":", text_mac.as_ref())?;
    members.json(b",\"text_bytes\":", text_bytes.as_ref())?;
    members.flag(b",\"text_doubtful\":true", *text_doubtful);
    members.id(b",\"executes\":\"", *executes)?;
    members.text(b",\"command\":", *command);
    members.json(b",\"rows\":", Some(rows))?;
    members.json(b",\"bytes_in\":", Some(bytes_in))?;
    members.json(b",\"bytes_out\":", Some(bytes_out))?;
    members.json(b",\"first_row_us\":", first_row_us.as_ref())?;
    members.json(b",\"duration_us\":", Some(duration_us))?;
    members.json(b",\"durability\":", durability.as_ref())?;
    members.raw(b"}");
    Ok(())
}

/// The members so far; each `name` has what stands before its value.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    head: Option<Head>,
}

impl Members<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn flag(&mut self, member: &[u8], is_set: bool) {
        if is_set {
            self.raw(member);
        }
    }

    fn id(&mut self, name: &[u8], id: Option<EventId>) -> io::Result<()> {
        let Some(EventId { session, number }) = id else { return Ok(()) };
        self.raw(name);
        match self.head {
            // It is written already.
            Some(head) if head.session == session => {
                self.out.extend_from_within(head.session_at..head.session_at.saturating_add(SessionId::TEXT_BYTES));
            }
            _ => self.raw(session.encode(&mut [0; SessionId::TEXT_BYTES]).as_bytes()),
        }
        self.json(b".", Some(&number))?;
        self.raw(b"\"");
        Ok(())
    }

    fn text(&mut self, name: &[u8], text: Option<&str>) {
        if let Some(text) = text {
            self.raw(name);
            self.raw(b"\"");
            escape(self.out, text.as_bytes());
            self.raw(b"\"");
        }
    }

    fn listed(&mut self, values: &Listed) -> io::Result<()> {
        let Listed { parameters, parameters_sealed, parameters_left_out, parameters_malformed } = values;
        self.json(b",\"parameters\":", Some(parameters).filter(|values| !values.is_empty()))?;
        self.json(b",\"parameters_sealed\":", parameters_sealed.as_ref())?;
        self.json(b",\"parameters_left_out\":", Some(parameters_left_out).filter(|count| **count > 0))?;
        self.flag(b",\"parameters_malformed\":true", *parameters_malformed);
        Ok(())
    }

    fn json<T: Serialize + ?Sized>(&mut self, name: &[u8], value: Option<&T>) -> io::Result<()> {
        if let Some(value) = value {
            self.raw(name);
            serde_json::to_writer(&mut *self.out, value)?;
        }
        Ok(())
    }
}

/// Appends bytes of UTF-8 as a JSON string has them (RFC 8259 §7), with serde's choice of escapes.
fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some((plain, (byte, rest))) =
        text.split_at_checked(plain_bytes(text)).and_then(|(plain, rest)| Some((plain, rest.split_first()?)))
    {
        out.extend_from_slice(plain);
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            0x08 => out.extend(b"\\b"),
            b'\t' => out.extend(b"\\t"),
            b'\n' => out.extend(b"\\n"),
            0x0c => out.extend(b"\\f"),
            b'\r' => out.extend(b"\\r"),
            other => out.extend(format!("\\u{other:04x}").as_bytes()),
        }
        text = rest;
    }
    out.extend_from_slice(text);
}

/// How many bytes at the start need no escape.
fn plain_bytes(text: &[u8]) -> usize {
    // Whole chunks without a way out in their middle: the compiler makes vectors of them.
    let (chunks, _) = text.as_chunks::<LOOK>();
    let is_plain = |chunk: &[u8; LOOK]| !chunk.iter().fold(false, |any, byte| any | is_escaped(*byte));
    let whole = chunks.iter().take_while(|chunk| is_plain(chunk)).count().saturating_mul(LOOK);
    let behind = text.get(whole..).unwrap_or_default();
    let more = behind.iter().position(|byte| is_escaped(*byte)).unwrap_or(behind.len());
    whole.saturating_add(more)
}

fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn stage_member(stage: Stage) -> &'static [u8] {
    match stage {
        Stage::Query => b",\"stage\":\"query\"",
        Stage::Parse => b",\"stage\":\"parse\"",
        Stage::Bind => b",\"stage\":\"bind\"",
        Stage::Execute => b",\"stage\":\"execute\"",
        Stage::FunctionCall => b",\"stage\":\"function_call\"",
    }
}

fn since_member(stage: Stage) -> &'static [u8] {
    match stage {
        Stage::Query => b",\"since\":\"query\"",
        Stage::Parse => b",\"since\":\"parse\"",
        Stage::Bind => b",\"since\":\"bind\"",
        Stage::Execute => b",\"since\":\"execute\"",
        Stage::FunctionCall => b",\"since\":\"function_call\"",
    }
}

fn outcome_member(outcome: Outcome) -> &'static [u8] {
    match outcome {
        Outcome::Ok => b",\"outcome\":\"ok\"",
        Outcome::Error => b",\"outcome\":\"error\"",
        Outcome::Canceled => b",\"outcome\":\"canceled\"",
        Outcome::Suspended => b",\"outcome\":\"suspended\"",
        Outcome::Bound => b",\"outcome\":\"bound\"",
        Outcome::Parsed => b",\"outcome\":\"parsed\"",
        Outcome::Refused => b",\"outcome\":\"refused\"",
        Outcome::Skipped => b",\"outcome\":\"skipped\"",
        Outcome::Unknown => b",\"outcome\":\"unknown\"",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Durability;
    use super::super::super::event::{Acting, Event, RoleChange};
    use super::super::super::parameters::Parameter;
    use super::super::super::sealing::{Mac, Sealed};
    use super::super::tests::{derived, written};
    use super::*;
    use crate::names::SessionId;
    use crate::time::Timestamp;
    use proptest::option;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use std::borrow::Cow;

    const STAGES: [Stage; 5] = [Stage::Query, Stage::Parse, Stage::Bind, Stage::Execute, Stage::FunctionCall];
    const OUTCOMES: [Outcome; 9] = [
        Outcome::Ok,
        Outcome::Error,
        Outcome::Canceled,
        Outcome::Suspended,
        Outcome::Bound,
        Outcome::Parsed,
        Outcome::Refused,
        Outcome::Skipped,
        Outcome::Unknown,
    ];
    const DURABILITIES: [Option<Durability>; 3] = [None, Some(Durability::Strict), Some(Durability::None)];

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[ -~]{0,100}", any::<String>(), "[a-z \\\\\"\n\u{7f}é]{0,70}"]
    }

    fn sealed() -> Sealed {
        Sealed { key: "p/2026-11-22.k".to_owned(), data: "b64==".to_owned() }
    }

    fn same(event: &Event<'_>) {
        let (time, session) = (Timestamp::now(), SessionId::generate());
        assert_eq!(written(time, session, event), derived(time, session, event));
    }

    /// The golden vectors: of this version of the records they must never change.
    #[test]
    fn a_statements_records_are_these_bytes() {
        let (session, time) = (SessionId::generate(), "2026-11-22T10:00:00.25Z".parse().unwrap());
        let caller = RawValue::from_string("{\"kind\":\"person\"}".to_owned()).unwrap();
        let begin = Begin {
            id: EventId { session, number: 7 },
            stage: Stage::Query,
            since: None,
            caller: &caller,
            text: Some(Cow::Borrowed("select \"é\"\n\u{1}")),
            text_base64: None,
            text_sealed: None,
            text_bytes: Some(14),
            text_of: None,
            text_doubtful: false,
            role_changes: &[],
            statement: None,
            portal: Some(Cow::Borrowed("p")),
            function_oid: None,
            values: Listed::default(),
            tagged: true,
            traceparent: None,
            durability: None,
        };
        let end = End {
            id: EventId { session, number: 7 },
            part: 0,
            last: true,
            outcome: Outcome::Error,
            sqlstate: Some("42703"),
            text_of: None,
            text_sha256: None,
            text_mac: None,
            text_bytes: None,
            text_doubtful: false,
            executes: None,
            command: None,
            rows: 0,
            bytes_in: 20,
            bytes_out: 104,
            first_row_us: None,
            duration_us: 1234,
            durability: Some(Durability::Strict),
        };
        let head = format!("{{\"version\":1,\"time\":\"2026-11-22T10:00:00.25Z\",\"session\":\"{session}\"");
        let first = format!(
            "{head},\"event\":\"begin\",\"id\":\"{session}.7\",\"stage\":\"query\",\"caller\":{{\"kind\":\"person\"}},\
             \"text\":\"select \\\"é\\\"\\n\\u0001\",\"text_bytes\":14,\"portal\":\"p\",\"tagged\":true}}"
        );
        let second = format!(
            "{head},\"event\":\"end\",\"id\":\"{session}.7\",\"part\":0,\"final\":true,\"outcome\":\"error\",\
             \"sqlstate\":\"42703\",\"rows\":0,\"bytes_in\":20,\"bytes_out\":104,\"duration_us\":1234,\"durability\":\"strict\"}}"
        );
        assert_eq!(written(time, session, &Event::Begin(begin)), first);
        assert_eq!(written(time, session, &Event::End(end)), second);
    }

    proptest! {
        #[test]
        fn a_begin_record_is_what_its_type_says(
            (stage, durability) in (prop::sample::select(&STAGES[..]), prop::sample::select(&DURABILITIES[..])),
            texts in prop::array::uniform5(option::of(text())),
            numbers in prop::array::uniform4(option::of(any::<u64>())),
            flags in prop::array::uniform6(any::<bool>()),
        ) {
            let caller = RawValue::from_string("{\"issuer\":\"x\"}".to_owned()).unwrap();
            let [of_text, statement, portal, base64, trace] = &texts;
            let to = |text: &Option<String>| text.clone().map(Cow::Owned);
            let session = SessionId::generate();
            let changes = [RoleChange { setting: Acting::Role, to: Some("a\"b".to_owned()), reset: false, local: true }];
            let parameter = Parameter { value: base64.clone(), ..Parameter::default() };
            let begin = Begin {
                id: EventId { session, number: numbers[0].unwrap_or_default() },
                stage,
                since: numbers[3].map(|number| STAGES[usize::try_from(number % 5).unwrap()]),
                caller: &caller,
                text: to(of_text),
                text_base64: base64.clone(),
                text_sealed: flags[0].then(sealed),
                text_bytes: numbers[1],
                text_of: numbers[2].map(|number| EventId { session, number }),
                text_doubtful: flags[1],
                role_changes: if flags[2] { &changes } else { &[] },
                statement: to(statement),
                portal: to(portal),
                function_oid: numbers[3].map(|number| u32::try_from(number >> 32).unwrap()),
                values: Listed {
                    parameters: if flags[3] { vec![parameter] } else { Vec::new() },
                    parameters_sealed: flags[4].then(sealed),
                    parameters_left_out: u32::from(flags[0]) * 7,
                    parameters_malformed: flags[5],
                },
                tagged: flags[2],
                traceparent: trace.as_deref(),
                durability,
            };
            same(&Event::Begin(begin));
        }

        /// As if it had been written with all of its messages known.
        #[test]
        fn a_begin_record_that_goes_on_is_what_its_type_says(
            texts in prop::array::uniform4(option::of(text())),
            (tagged, malformed) in (any::<bool>(), any::<bool>()),
            before in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let caller = RawValue::from_string("{\"issuer\":\"x\"}".to_owned()).unwrap();
            let [of_text, statement, portal, value] = &texts;
            let session = SessionId::generate();
            let listed = || Listed {
                parameters: value.iter().map(|value| Parameter { value: Some(value.clone()), ..Parameter::default() }).collect(),
                parameters_malformed: malformed,
                ..Listed::default()
            };
            let whole = |stage, since, portal: Option<Cow<'static, str>>, values| Begin {
                id: EventId { session, number: 7 },
                stage,
                since,
                caller: &caller,
                text: of_text.as_deref().map(Cow::Borrowed),
                text_base64: None,
                text_sealed: None,
                text_bytes: Some(3),
                text_of: None,
                text_doubtful: false,
                role_changes: &[],
                statement: statement.as_deref().map(Cow::Borrowed),
                portal,
                function_oid: None,
                values,
                tagged,
                traceparent: None,
                durability: Some(Durability::Strict),
            };
            let (time, mut out) = (Timestamp::now(), before.clone());
            let first = whole(Stage::Parse, None, None, Listed::default());
            let mut places = super::super::write_begin(&mut out, time, session, &first).unwrap();
            let nothing = Listed::default();
            for (stage, own, values) in [(Stage::Bind, portal.as_deref(), &listed()), (Stage::Execute, None, &nothing)] {
                let next = Next { stage, since: Stage::Parse, portal: own, values }.encode().unwrap();
                go_on(&mut out, before.len(), &mut places, &next);
                let event = Event::Begin(whole(stage, Some(Stage::Parse), portal.clone().map(Cow::Owned), listed()));
                prop_assert_eq!(std::str::from_utf8(&out[before.len()..]).unwrap(), derived(time, session, &event));
            }
        }

        #[test]
        fn an_end_record_is_what_its_type_says(
            (outcome, durability) in (prop::sample::select(&OUTCOMES[..]), prop::sample::select(&DURABILITIES[..])),
            texts in prop::array::uniform3(option::of(text())),
            numbers in prop::array::uniform8(any::<u64>()),
            flags in prop::array::uniform6(any::<bool>()),
        ) {
            let session = SessionId::generate();
            let id = |number: u64| EventId { session, number };
            let [sqlstate, sha256, command] = &texts;
            let end = End {
                id: id(numbers[0]),
                part: u32::try_from(numbers[1] >> 32).unwrap(),
                last: flags[0],
                outcome,
                sqlstate: sqlstate.as_deref(),
                text_of: flags[1].then(|| id(numbers[2])),
                text_sha256: sha256.clone(),
                text_mac: flags[2].then(|| Mac { key: "k".to_owned(), hmac: "00".to_owned() }),
                text_bytes: flags[2].then_some(numbers[3]),
                text_doubtful: flags[3],
                executes: flags[4].then(|| id(numbers[4])),
                command: command.as_deref(),
                rows: numbers[5],
                bytes_in: numbers[6],
                bytes_out: numbers[7],
                first_row_us: flags[5].then_some(numbers[1]),
                duration_us: numbers[2],
                durability,
            };
            same(&Event::End(end));
        }
    }
}

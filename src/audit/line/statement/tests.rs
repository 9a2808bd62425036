//! The hand-written records against what serde makes of their types, and the bytes that must never change.

use super::super::super::Durability;
use super::super::super::event::{Acting, Event, RoleChange};
use super::super::super::parameters::Parameter;
use super::super::super::sealing::{Mac, Sealed};
use super::super::Heads;
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
        let mut places = super::super::write_begin(&mut out, time, &mut Heads::of(session), &first).unwrap();
        let nothing = Listed::default();
        for (stage, own, values) in [(Stage::Bind, portal.as_deref(), &listed()), (Stage::Execute, None, &nothing)] {
            let next = Next { stage, since: Stage::Parse, portal: own, values }.encode().unwrap();
            insert(&mut out, before.len(), &mut places, &next);
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

//! What of a Bind's and a `FunctionCall`'s values stands in their begin records, and that the messages leave as they came.

use super::super::testing::{Says, recorder_for};
use super::tests::{Client, frame};
use super::*;
use crate::audit::Recording;
use crate::audit::parameters::Key;
use serde_json::{Value as Json, json};
use std::sync::Arc;

fn key() -> Arc<Key> {
    Arc::new(Key::of(&[7; 32]))
}

fn client(parameters: Parameters) -> Client {
    let mut client = Client::new(Tag::none());
    let recorder = recorder_for(client.log.auditor(10), Says { parameters, ..Says::default() });
    client.recorder = recorder.recording(Recording { parameters_key: Some(key()), ..Recording::default() });
    client
}

fn bind(values: &[u8]) -> Vec<u8> {
    frame(b'B', &[b"portal\0statement\0".as_slice(), values].concat())
}

/// One text of so many bytes.
fn long(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).unwrap().to_be_bytes();
    bind(&[b"\0\0\0\x02".as_slice(), &length, &vec![b'v'; bytes], b"\0\0\0\x01w\0\0"].concat())
}

/// The members of the only begin record that are about parameters.
fn told(client: &Client) -> Json {
    let lines = client.log.lines();
    let begin = lines.iter().rfind(|line| line["event"] == "begin").unwrap();
    let own = begin.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("parameters"));
    own.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn a_rule_chooses_what_is_recorded_and_nothing_else_changes() {
    let input = bind(b"\0\x02\0\0\0\x01\0\x02\0\0\0\x06secret\xff\xff\xff\xff\0\0");
    let call = frame(b'F', b"\0\0\x08\x34\0\x01\0\x01\0\x01\0\0\0\x06secret\0\0");
    let full = json!({"parameters": [{"bytes": 6, "value": "secret"}, {"format": 1, "is_null": true}]});
    let hmac = json!({"parameters": [{"hmac_sha256": key().hmac(b"secret")}, {"format": 1, "is_null": true}]});
    let called = json!({"parameters": [{"format": 1, "bytes": 6, "value_base64": "c2VjcmV0"}]});
    for (parameters, input, expected) in [
        (Parameters::Off, &input, json!({})),
        (Parameters::Full, &input, full),
        (Parameters::Hmac, &input, hmac),
        (Parameters::Full, &call, called),
        (Parameters::Off, &call, json!({})),
    ] {
        let mut client = client(parameters);
        assert_eq!(client.send(input), (input.clone(), input.len(), None));
        assert_eq!(told(&client), expected, "{parameters:?}");
        let all = format!("{:?}", client.log.lines());
        assert_eq!(all.contains("secret") || all.contains("c2VjcmV0"), parameters == Parameters::Full);
    }
}

#[test]
fn a_malformed_message_leaves_as_it_came_and_says_so() {
    for body in [&b"x"[..], b"portal\0statement\0\0\0\0\x01\0\0\0\x09short", b"portal\0statement\0", b"p\0s\0\0"] {
        let input = frame(b'B', body);
        let mut client = client(Parameters::Full);
        assert_eq!(client.send(&input), (input.clone(), input.len(), None), "{body:?}");
        assert_eq!(told(&client), json!({"parameters_malformed": true}), "{body:?}");
    }
    let mut client = client(Parameters::Hmac);
    client.send(&frame(b'F', b"\0"));
    assert_eq!(told(&client), json!({"parameters_malformed": true}));
}

/// Of what is longer than what is looked at, the first is cut and says its length; what stands behind it is counted.
#[test]
fn what_streams_is_cut_and_counted() {
    let input = long(300_000);
    for (parameters, cut) in [(Parameters::Full, "value"), (Parameters::Hmac, "cut")] {
        let mut client = client(parameters);
        let (out, taken, _) = client.send(&input[..100_000]);
        assert_eq!((out.len(), taken), (100_000, 100_000));
        assert_eq!(client.send(&input[100_000..]).0, &input[100_000..]);
        let told = told(&client);
        let first = &told["parameters"][0];
        assert_eq!((&first["bytes"], &first["cut"]), (&json!(300_000), &json!(true)), "{told}");
        assert!(!first[cut].is_null() && first["hmac_sha256"].is_null(), "{told}");
        assert_eq!((told["parameters"].as_array().unwrap().len(), &told["parameters_left_out"]), (1, &json!(1)));
    }
    let mut client = client(Parameters::Hmac);
    client.send(&long(60_000));
    let told = told(&client);
    assert_eq!(
        told["parameters"][0]["hmac_sha256"],
        key().hmac(&vec![b'v'; 60_000]),
        "whole where all of it is looked at"
    );
}

/// What does not leave has none on record.
#[test]
fn of_what_is_refused_nothing_is_recorded() {
    let mut client = client(Parameters::Full);
    client.send(&frame(b'B', &[b"\0".as_slice(), &vec![b'n'; 70_000], b"\0\0\0\0\0\0\0"].concat()));
    assert_eq!(told(&client), json!({}));
}

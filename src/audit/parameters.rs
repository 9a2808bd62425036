//! What is recorded of a Bind's parameters and a FunctionCall's arguments: nothing, an HMAC of each, or each.

use super::digest::hex;
use super::event::is_default;
use super::key_file::{self, SECRET_BYTES};
use super::text::{Encoded, Form, encode_text, start};
use aws_lc_rs::hmac;
use schemars::JsonSchema;
use serde::Serialize;
use std::borrow::Cow;
use std::path::Path;

/// The most of one value that is recorded, in bytes.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;
/// The most of all values of one message that is recorded, in bytes.
pub const MAX_VALUES_BYTES: usize = 48 * 1024;
/// The most values of one message that are recorded.
pub const MAX_VALUES: usize = 4096;
/// What a key is known by is the start of the HMAC of this.
const FINGERPRINT_OF: &[u8] = b"pgpassport: which key of parameters is this?";
/// How much of it, in bytes.
const FINGERPRINT_BYTES: usize = 8;

/// What a rule says of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Parameters {
    /// Nothing.
    #[default]
    Off,
    /// HMAC-SHA-256 of each value, so that equal values can be told and no value can be read.
    Hmac,
    /// Each value.
    Full,
}

impl Parameters {
    /// What a session's start says of it: the ordinary is not said.
    pub fn told(self) -> Option<Self> {
        (self != Self::Off).then_some(self)
    }
}

/// A message's values, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values<'a> {
    /// As they stand in it.
    Read {
        /// The first of them.
        values: Vec<Value<'a>>,
        /// How many are not among them.
        left_out: u32,
    },
    /// They cannot be told apart.
    Malformed,
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// Its format code.
    pub format: u16,
    /// As much of it as is looked at, and its length in bytes; none for NULL.
    pub bytes: Option<(&'a [u8], u32)>,
}

/// A value on record.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Parameter {
    /// The format code: 1 is binary; 0, which is text, is left out.
    #[serde(skip_serializing_if = "is_default")]
    pub format: u16,
    /// It is NULL.
    #[serde(skip_serializing_if = "is_default")]
    pub is_null: bool,
    /// Its length in bytes. Left out beside `hmac_sha256`: of a short value a length tells much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// The value, to 16 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64, to 16 KiB of it: where its format is binary, or it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// HMAC-SHA-256 of the value's bytes as they were sent, in hexadecimal, under the key that the session's start names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hmac_sha256: Option<String>,
    /// More of the value was sent than is recorded; with `hmac_sha256` asked for: it is too long for one.
    #[serde(skip_serializing_if = "is_default")]
    pub cut: bool,
}

/// The key of HMACs.
pub struct Key(hmac::Key);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.fingerprint()).finish()
    }
}

impl Key {
    /// Reads a key's file.
    pub fn read(path: &Path) -> Result<Self, key_file::Error> {
        Ok(Self::of(&*key_file::secret(path)?))
    }

    /// Its secret is as long as the digest (RFC 2104 §3).
    pub fn of(secret: &[u8; SECRET_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// What it is known by; tells nothing of it.
    pub fn fingerprint(&self) -> String {
        self.hmac(FINGERPRINT_OF).chars().take(2 * FINGERPRINT_BYTES).collect()
    }

    /// In hexadecimal.
    pub fn hmac(&self, value: &[u8]) -> String {
        hex(hmac::sign(&self.0, value).as_ref())
    }
}

/// How values become members of a record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Recorded<'k> {
    Hmac(&'k Key),
    Full,
}

/// A message's values as a record has them, and how many it leaves out.
pub(super) fn record(values: &[Value<'_>], how: Recorded<'_>) -> (Vec<Parameter>, u32) {
    let mut room = MAX_VALUES_BYTES;
    let listed = values.iter().take(MAX_VALUES).map(|value| parameter(*value, how, &mut room)).collect();
    (listed, u32::try_from(values.len().saturating_sub(MAX_VALUES)).unwrap_or(u32::MAX))
}

fn parameter(value: Value<'_>, how: Recorded<'_>, room: &mut usize) -> Parameter {
    let format = value.format;
    let Some((known, length)) = value.bytes else { return Parameter { format, is_null: true, ..Parameter::default() } };
    let whole = known.len() as u64 == u64::from(length);
    match how {
        Recorded::Hmac(key) if whole => {
            Parameter { format, hmac_sha256: Some(key.hmac(known)), ..Parameter::default() }
        }
        Recorded::Hmac(_) => Parameter { format, bytes: Some(length), cut: true, ..Parameter::default() },
        Recorded::Full => {
            let kept = start(known, u64::from(length), MAX_VALUE_BYTES.min(*room));
            *room = room.saturating_sub(kept.len());
            let cut = !whole || kept.len() < known.len();
            let form = if format == 0 { Form::Text } else { Form::Binary };
            let Encoded { text: value, base64: value_base64 } = encode_text(kept, form);
            let value = value.map(Cow::into_owned);
            Parameter { format, bytes: Some(length), value, value_base64, cut, ..Parameter::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::ledger::frame::MAX_RECORD_BYTES;
    use serde_json::json;

    fn key() -> Key {
        Key::of(&[0x0b; 32])
    }

    fn value(bytes: &[u8]) -> Value<'_> {
        Value { format: 0, bytes: Some((bytes, u32::try_from(bytes.len()).unwrap())) }
    }

    #[test]
    fn an_hmac_is_rfc_2104s_and_says_nothing_of_a_length() {
        // RFC 4231, test case 2, whose key is "Jefe": the digest is the library's; here only our own key's form.
        let padded = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"Jefe"), b"what do ya want for nothing?");
        assert!(padded.as_ref().starts_with(&[0x5b, 0xdc, 0xc1, 0x46]));
        let short = record(&[value(b"1")], Recorded::Hmac(&key())).0;
        let long = record(&[value(&vec![b'1'; 30_000])], Recorded::Hmac(&key())).0;
        for listed in [&short, &long] {
            let shown = serde_json::to_value(&listed[0]).unwrap();
            assert_eq!(shown.as_object().unwrap().keys().collect::<Vec<_>>(), ["hmac_sha256"]);
            assert_eq!(shown["hmac_sha256"].as_str().unwrap().len(), 64);
        }
        assert_ne!(short, long);
        assert_eq!(short, record(&[value(b"1")], Recorded::Hmac(&key())).0, "equal values are told");
        assert_ne!(key().hmac(FINGERPRINT_OF), key().fingerprint());
        assert_eq!(format!("{:?}", key()), format!("Key({:?})", key().fingerprint()));
    }

    #[test]
    fn values_are_recorded_as_they_are_and_what_is_cut_says_so() {
        let binary = Value { format: 1, bytes: Some((b"abc", 3)) };
        let null = Value { format: 0, bytes: None };
        let streams = Value { format: 0, bytes: Some(("x\u{e9}".as_bytes().get(..2).unwrap(), 100_000)) };
        let values = [value(b"it's"), value(b""), value(b"\xff"), binary, null, streams];
        let listed = serde_json::to_value(record(&values, Recorded::Full).0).unwrap();
        let expected = json!([
            {"bytes": 4, "value": "it's"},
            {"bytes": 0, "value": ""},
            {"bytes": 1, "value_base64": "/w=="},
            {"format": 1, "bytes": 3, "value_base64": "YWJj"},
            {"is_null": true},
            {"bytes": 100_000, "value": "x", "cut": true},
        ]);
        assert_eq!(listed, expected);
        let listed = serde_json::to_value(record(&values[4..], Recorded::Hmac(&key())).0).unwrap();
        assert_eq!(listed, json!([{"is_null": true}, {"bytes": 100_000, "cut": true}]));
    }

    #[test]
    fn a_record_has_room_for_whatever_a_client_sends() {
        let long = vec![1; 64 * 1024];
        let (listed, _) = record(&[value(&long), value(&long), value(&long), value(&long)], Recorded::Full);
        let kept: Vec<usize> = listed.iter().map(|listed| listed.value.as_ref().unwrap().len()).collect();
        assert_eq!(kept, [MAX_VALUE_BYTES, MAX_VALUE_BYTES, MAX_VALUE_BYTES, 0]);
        assert!(listed.iter().all(|listed| listed.cut && listed.bytes == Some(64 * 1024)));
        let many = vec![value(&long[..12]); MAX_VALUES + 7];
        for how in [Recorded::Full, Recorded::Hmac(&key())] {
            let (listed, left_out) = record(&many, how);
            assert_eq!((listed.len(), left_out), (MAX_VALUES, 7));
            assert!(serde_json::to_vec(&listed).unwrap().len() < MAX_RECORD_BYTES * 3 / 4);
        }
    }
}

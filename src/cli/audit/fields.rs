//! What a record says, by its members' names.

use crate::time::{Timestamp, from_unix};
use base64::Engine;
use memchr::memmem;
use serde_json::{Map, Value};
use std::time::Duration;
use uuid::Uuid;

/// A record's members.
pub(super) type Fields = Map<String, Value>;

/// What an end record says of an execution whose begin was not read.
pub(super) fn orphan(end: &Fields) -> Fields {
    let took = end.get("duration_us").and_then(Value::as_u64).unwrap_or_default();
    let began = when(end).and_then(|ended| ended.checked_sub(Duration::from_micros(took)).ok());
    let mut fields = Fields::new();
    for name in ["session", "id"] {
        fields.insert(name.to_owned(), end.get(name).cloned().unwrap_or_default());
    }
    fields.insert("event".to_owned(), "execution".into());
    fields.insert("outcome".to_owned(), "open".into());
    fields.insert("time".to_owned(), began.map_or_else(String::new, |began| began.to_string()).into());
    fields
}

/// Adds an end record: rows and answers of several statements add up, and the first that is not well tells the outcome.
pub(super) fn fold(fields: &mut Fields, end: &Fields) {
    let number = |fields: &Fields, name: &str| fields.get(name).and_then(Value::as_u64).unwrap_or_default();
    let settled = !matches!(text(fields, "outcome"), "open" | "ok");
    for (name, value) in end {
        match name.as_str() {
            "version" | "event" | "session" | "id" | "part" | "final" => {}
            "outcome" | "sqlstate" if settled => {}
            "time" => drop(fields.insert("ended".to_owned(), value.clone())),
            "rows" | "bytes_out" => {
                let sum = number(fields, name).saturating_add(number(end, name));
                fields.insert(name.clone(), sum.into());
            }
            _ => drop(fields.insert(name.clone(), value.clone())),
        }
    }
    let parts = number(end, "part").saturating_add(1);
    if parts > 1 {
        fields.insert("parts".to_owned(), parts.into());
    }
}

/// Whether other executions may be of this text, by a name that it gives.
pub(super) fn names(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["prepare", "declare"].iter().any(|word| text.contains(word))
}

/// Most records are not, and are not parsed. (A line that stands for a Parse too says so in `stage` or in `since`.)
pub(super) fn needed_later(record: &[u8]) -> bool {
    [&b"\"event\":\"session_"[..], b"\":\"parse\"", b"\"text\"", b"\"text_sealed\""]
        .iter()
        .any(|mark| memmem::find(record, mark).is_some())
}

/// When a session began: its id says so (RFC 9562 version 7).
pub(super) fn began(session: &str) -> Option<Timestamp> {
    let (seconds, _) = Uuid::try_parse(session).ok()?.get_timestamp()?.to_unix();
    from_unix(i64::try_from(seconds).ok()?)
}

/// A member that is a text; empty where there is none.
pub(super) fn text<'f>(fields: &'f Fields, name: &str) -> &'f str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A record's own time.
pub(super) fn when(fields: &Fields) -> Option<Timestamp> {
    text(fields, "time").parse().ok()
}

/// A statement's text as it can be read, also where it is not UTF-8.
pub(super) fn readable(fields: &Fields) -> String {
    String::from_utf8_lossy(&raw(fields)).into_owned()
}

/// A statement's text, or a part of it, as the client sent it.
pub(super) fn raw(fields: &Fields) -> Vec<u8> {
    let encoded = text(fields, "text_base64");
    match base64::engine::general_purpose::STANDARD.decode(encoded) {
        Ok(bytes) if !bytes.is_empty() => bytes,
        _ => text(fields, "text").as_bytes().to_vec(),
    }
}

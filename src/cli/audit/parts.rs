//! Long texts, which come in parts: searched in bounded memory, and put together where somebody wants them whole.

use super::fields::{Fields, raw, text};
use base64::Engine;
use serde_json::Value;

/// Whether a text has what was asked for, also across the edge of two parts.
#[derive(Debug, Default)]
pub(super) struct Seen {
    found: bool,
    /// The end of what came, in lower case: one character less than what is searched for.
    tail: String,
    /// The start of a character whose end is in the next part.
    pending: Vec<u8>,
}

impl Seen {
    /// The next part; `needle` is in lower case, and nothing is found everywhere.
    pub(super) fn add(&mut self, part: &[u8], needle: Option<&str>) {
        let Some(needle) = needle else {
            self.found = true;
            return;
        };
        if self.found {
            return;
        }
        self.pending.extend_from_slice(part);
        let end = match std::str::from_utf8(&self.pending) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.pending.len(),
        };
        let rest = self.pending.split_off(end);
        self.tail.push_str(&String::from_utf8_lossy(&self.pending).to_lowercase());
        self.pending = rest;
        self.found = self.tail.contains(needle);
        let kept = needle.chars().count().saturating_sub(1);
        let at = self.tail.char_indices().rev().take(kept).last().map_or(self.tail.len(), |(at, _)| at);
        self.tail.drain(..at);
        self.tail.shrink_to_fit();
    }

    pub(super) fn found(&self) -> bool {
        self.found
    }
}

/// An execution whose end is not read yet.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub fields: Fields,
    pub seen: Seen,
    /// Its text as far as it came, where that is wanted.
    whole: Option<Vec<u8>>,
}

impl Open {
    pub(super) fn new(fields: Fields, needle: Option<&str>) -> Self {
        let mut open = Self { fields, ..Self::default() };
        open.seen.add(&raw(&open.fields), needle);
        open
    }

    /// The same, with its whole text when it is complete.
    pub(super) fn whole(self) -> Self {
        Self { whole: Some(raw(&self.fields)), ..self }
    }

    /// A `text` record of it: how many bytes more it takes.
    pub(super) fn add(&mut self, part: &Fields, needle: Option<&str>) -> usize {
        let bytes = raw(part);
        self.seen.add(&bytes, needle);
        if part.get("cut") == Some(&Value::Bool(true)) {
            self.fields.insert("text_cut".to_owned(), true.into());
            return 0;
        }
        let parts = self.fields.get("text_parts").and_then(Value::as_u64).unwrap_or(1);
        self.fields.insert("text_parts".to_owned(), parts.saturating_add(1).into());
        let sealed = |fields: &Fields| ["text_sealed", "text_erased"].iter().any(|name| fields.contains_key(*name));
        let closed = sealed(part) || sealed(&self.fields);
        let Some(whole) = self.whole.as_mut().filter(|_| !closed) else { return 0 };
        if part.get("offset").and_then(Value::as_u64) != Some(whole.len() as u64) {
            self.fields.insert("text_incomplete".to_owned(), true.into());
            return 0;
        }
        whole.extend_from_slice(&bytes);
        bytes.len()
    }

    /// What its text takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.whole.as_ref().map_or(text(&self.fields, "text").len(), |whole| whole.len().saturating_mul(2))
    }

    /// What it comes to, and whether its text has what was asked for.
    pub(super) fn finish(mut self) -> (Fields, bool) {
        if let Some(whole) = self.whole.filter(|whole| whole.len() > text(&self.fields, "text").len()) {
            let (name, other, text) = match String::from_utf8(whole) {
                Ok(text) => ("text", "text_base64", text),
                Err(error) => {
                    let encoded = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
                    ("text_base64", "text", encoded)
                }
            };
            self.fields.remove(other);
            self.fields.insert(name.to_owned(), text.into());
        }
        (self.fields, self.seen.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_searched_is_found_within_a_part_and_across_edges() {
        for (parts, needle, found) in [
            (vec![&b"select 1"[..], b" from Orders"], "from orders", true),
            (vec![b"select 1 fr", b"o", b"m or", b"ders"], "from orders", true),
            (vec![b"select 1 fr", b"um orders"], "from orders", false),
            // A character that was cut.
            (vec![b"caf\xc3", b"\xa9 noir"], "café noir", true),
            (vec![b"a\xf0\x9d", b"\x84", b"\x9eb"], "𝄞b", true),
            (vec![b"\xff\xfe drop", b" table"], "drop table", true),
            (vec![b"x", b"y"], "", true),
        ] {
            let mut seen = Seen::default();
            for part in &parts {
                seen.add(part, Some(needle));
                assert!(seen.tail.len() <= needle.len() * 2, "{} bytes are kept", seen.tail.len());
            }
            assert_eq!(seen.found(), found, "{needle} in {parts:?}");
        }
    }

    #[test]
    fn a_text_is_put_together_and_what_is_missing_is_said() {
        let part = |more: Value| more.as_object().unwrap().clone();
        let begin = || Open::new(part(json!({"text": "select '"})), None).whole();
        let mut open = begin();
        open.add(&part(json!({"offset": 8, "text_base64": "w6k="})), None);
        open.add(&part(json!({"offset": 10, "text": "'", "cut": false})), None);
        open.add(&part(json!({"offset": 11, "text": "", "cut": true})), None);
        let (fields, _) = open.finish();
        assert_eq!(Value::Object(fields), json!({"text": "select 'é'", "text_parts": 3, "text_cut": true}));
        let mut open = begin();
        open.add(&part(json!({"offset": 8, "text_base64": "/w=="})), None);
        assert_eq!(open.finish().0["text_base64"], "c2VsZWN0ICf/");
        let mut open = begin();
        open.add(&part(json!({"offset": 70, "text": "lost"})), None);
        let (fields, _) = open.finish();
        assert_eq!((&fields["text"], &fields["text_incomplete"]), (&json!("select '"), &json!(true)));
    }
}

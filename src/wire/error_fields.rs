//! `ErrorResponse` and `NoticeResponse` bodies: read, changed and written without losing a byte.
//!
//! Values stay bytes: the server speaks the session's `client_encoding`. Field codes: PostgreSQL
//! documentation, "Error and Notice Message Fields" (protocol-error-fields).

use super::{Malformed, Reader};

/// The fields of one error or notice, in the order they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorFields(Vec<(u8, Vec<u8>)>);

impl ErrorFields {
    /// An error of our own.
    pub fn new(severity: &str, sqlstate: &str, message: &str) -> Self {
        let mut fields = Self::default();
        fields.set(b'S', severity.as_bytes());
        fields.set(b'V', severity.as_bytes());
        fields.set(b'C', sqlstate.as_bytes());
        fields.set(b'M', message.as_bytes());
        fields
    }

    /// The same with a detail.
    #[must_use]
    pub fn detail(mut self, text: &str) -> Self {
        self.set(b'D', text.as_bytes());
        self
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, text: &str) -> Self {
        self.set(b'H', text.as_bytes());
        self
    }

    /// Reads a message body.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let mut fields = Vec::new();
        loop {
            match reader.u8()? {
                0 => break,
                code => fields.push((code, reader.cstr()?.to_vec())),
            }
        }
        reader.finish()?;
        Ok(Self(fields))
    }

    /// Reads what is there of a body that is longer: the last value may be cut.
    pub fn decode_start(start: &[u8]) -> Self {
        let mut reader = Reader::new(start);
        let mut fields = Vec::new();
        while let Ok(code @ 1..) = reader.u8() {
            if let Ok(value) = reader.cstr() {
                fields.push((code, value.to_vec()));
            } else {
                fields.push((code, reader.rest().to_vec()));
                break;
            }
        }
        Self(fields)
    }

    /// The body as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.0.iter().map(|(_, value)| value.len() + 2).sum::<usize>() + 1);
        for (code, value) in &self.0 {
            body.push(*code);
            body.extend_from_slice(value);
            body.push(0);
        }
        body.push(0);
        body
    }

    /// The whole message, type `E` for an error, `N` for a notice.
    pub fn frame(&self, kind: u8) -> Vec<u8> {
        let mut out = Vec::new();
        super::append(&mut out, kind, &self.encode());
        out
    }

    /// The first field with this code.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.iter().find(|(c, _)| *c == code).map(|(_, value)| value.as_slice())
    }

    /// Sets a field; NUL bytes cannot stand in one and are left out.
    pub fn set(&mut self, code: u8, value: &[u8]) {
        let value: Vec<u8> = value.iter().copied().filter(|byte| *byte != 0).collect();
        match self.0.iter_mut().find(|(c, _)| *c == code) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((code, value)),
        }
    }

    /// SQLSTATE, or `XX000` when the server sent none (a server may misbehave: CVE-2026-6666).
    pub fn sqlstate(&self) -> String {
        match self.get(b'C') {
            Some(code) if code.len() == 5 && code.iter().all(u8::is_ascii_alphanumeric) => {
                String::from_utf8_lossy(code).into_owned()
            }
            _ => "XX000".to_owned(),
        }
    }

    /// The message, for a log: lossy UTF-8.
    pub fn message(&self) -> String {
        String::from_utf8_lossy(self.get(b'M').unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_a_round_trip_byte_for_byte() {
        let body = b"SERROR\0VERROR\0C42601\0Msyntax error at \xff\0P8\0Fscan.l\0\0";
        let fields = ErrorFields::decode(body).unwrap();
        assert_eq!(fields.encode(), body);
        assert_eq!(fields.sqlstate(), "42601");
        assert_eq!(fields.get(b'P'), Some(b"8".as_slice()));
    }

    #[test]
    fn an_error_without_sqlstate_has_one_anyway() {
        assert_eq!(ErrorFields::decode(b"SERROR\0\0").unwrap().sqlstate(), "XX000");
        assert_eq!(ErrorFields::decode(b"SERROR\0"), Err(Malformed));
        assert_eq!(ErrorFields::decode(b"\0extra"), Err(Malformed));
    }

    #[test]
    fn the_start_of_a_long_error_says_what_there_is() {
        let start = ErrorFields::decode_start(b"SERROR\0VERROR\0C22P02\0Minvalid input synt");
        assert_eq!((start.sqlstate(), start.message()), ("22P02".to_owned(), "invalid input synt".to_owned()));
        for (start, fields) in [(b"".as_slice(), 0), (b"\0S", 0), (b"S", 1), (b"Sx\0\0Cy\0", 1), (b"Sx\0C", 2)] {
            assert_eq!(ErrorFields::decode_start(start).0.len(), fields, "{}", start.escape_ascii());
        }
    }

    #[test]
    fn a_value_cannot_end_its_own_field() {
        let fields = ErrorFields::new("FATAL", "28000", "a\0b").hint("next step");
        assert_eq!(ErrorFields::decode(&fields.encode()).unwrap().message(), "ab");
    }
}

//! The few messages that clients and the stand-in send (PostgreSQL, "Message Formats").

use load::Work;

/// What statements' texts are made of: quotes and line ends, as texts have them, but no apostrophe.
const PATTERN: &str = "lorem ipsum \"dolor\" sit amet,\n\tconsectetur 1234567890; ";
/// `SELECT ''`.
const AROUND: usize = 9;

/// `SSLRequest`.
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Ends a session.
pub(crate) const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// A message with a type.
pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&length(body));
    frame.extend_from_slice(body);
    frame
}

/// The start-up packet, protocol 3.0.
pub(crate) fn start_up(user: &str, database: &str) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for text in ["user", user, "database", database] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    [&length(&body)[..], &body].concat()
}

/// A text that ends with NUL, as `p` and `Q` have it.
pub(crate) fn text(kind: u8, text: &str) -> Vec<u8> {
    frame(kind, &[text.as_bytes(), &[0]].concat())
}

/// One statement, up to what makes the server ready again; `number` says which of several.
pub(crate) fn statement(work: Work, number: usize) -> Vec<u8> {
    match work {
        Work::Query { bytes } => text(b'Q', &query(bytes)),
        Work::Execute { remembered } => {
            // A prime beside the powers of ten that benches ask for: it comes by every one of them.
            let name = format!("s{}", number.wrapping_mul(7919) % remembered.max(1));
            let bind = [&[0], name.as_bytes(), &[0, 0, 0, 0, 0, 0, 0]].concat();
            [frame(b'B', &bind), frame(b'E', &[0, 0, 0, 0, 0]), frame(b'S', &[])].concat()
        }
    }
}

/// A Parse of `s{number}`.
pub(crate) fn parse(number: usize) -> Vec<u8> {
    frame(b'P', format!("s{number}\0SELECT {number}\0\0\0").as_bytes())
}

/// A statement of so many bytes.
fn query(bytes: usize) -> String {
    format!("SELECT '{}'", PATTERN.chars().cycle().take(bytes.saturating_sub(AROUND).max(1)).collect::<String>())
}

/// It counts itself.
fn length(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn messages_are_as_the_protocol_has_them() {
        assert_eq!(frame(b'S', &[]), [b'S', 0, 0, 0, 4]);
        assert_eq!(text(b'p', "ab"), [b'p', 0, 0, 0, 7, b'a', b'b', 0]);
        assert_eq!(start_up("u", "d"), b"\0\0\0\x1b\0\x03\0\0user\0u\0database\0d\0\0");
        assert_eq!(parse(7), b"P\0\0\0\x12s7\0SELECT 7\0\0\0");
        assert_eq!(statement(Work::Execute { remembered: 1 }, 5)[..16], *b"B\0\0\0\x0e\0s0\0\0\0\0\0\0\0E");
    }

    #[test]
    fn a_query_has_as_many_bytes_as_are_asked_for() {
        for bytes in [10, 11, 100, 10_000] {
            assert_eq!(query(bytes).len(), bytes);
        }
        assert_eq!(query(10), "SELECT 'l'");
    }

    #[test]
    fn every_remembered_statement_has_its_turn() {
        let seen: BTreeSet<Vec<u8>> = (0..1000).map(|n| statement(Work::Execute { remembered: 1000 }, n)).collect();
        assert_eq!(seen.len(), 1000);
    }
}

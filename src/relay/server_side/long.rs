//! An error or notice that is too long to be held: its fields pass as they come, and its position is moved on the way.
//!
//! PostgreSQL quotes the client's own values in messages, so an error can be as long as a statement. What is needed to
//! settle it stands in front; the position behind all that can be long (`send_message_to_frontend`,
//! `src/backend/utils/error/elog.c`). The header with the length has left by then, so a moved position keeps its width:
//! zeros stand in front of it.

use crate::relay::tag::Tag;

/// The most digits of a position, and more: PostgreSQL's has ten (`int`).
const MAX_DIGITS: usize = 20;

/// Where in the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fields {
    /// In front of a field's type, or of the NUL that ends them.
    Type,
    /// In a value that passes.
    Value,
    /// In front of a position.
    Position,
    /// Nothing is looked at: the fields are over, or it is another message.
    #[default]
    Over,
}

/// What becomes of the next bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// So many pass.
    Pass(usize),
    /// These stand for as many.
    Instead(Vec<u8>),
    /// More of them must be there.
    Wait,
}

impl Fields {
    /// Looks at `rest`, what is there of the fields; `whole` when they all are.
    pub fn next(&mut self, rest: &[u8], whole: bool, tag: &Tag) -> Next {
        let (state, next) = match (*self, rest.first()) {
            (Self::Over, _) | (_, None) => (Self::Over, Next::Pass(rest.len())),
            (Self::Type, Some(0)) => (Self::Over, Next::Pass(1)),
            (Self::Type, Some(b'P')) => (Self::Position, Next::Pass(1)),
            (Self::Type, Some(_)) => (Self::Value, Next::Pass(1)),
            (Self::Value, _) => match memchr::memchr(0, rest) {
                Some(end) => (Self::Type, Next::Pass(end.saturating_add(1))),
                None => (Self::Value, Next::Pass(rest.len())),
            },
            (Self::Position, _) => match memchr::memchr(0, rest.get(..MAX_DIGITS).unwrap_or(rest)) {
                Some(end) => (Self::Value, moved(rest.get(..end).unwrap_or_default(), tag)),
                None if whole || rest.len() >= MAX_DIGITS => (Self::Value, Next::Pass(0)),
                None => (Self::Position, Next::Wait),
            },
        };
        *self = state;
        next
    }
}

fn moved(position: &[u8], tag: &Tag) -> Next {
    let Some(moved) = tag.untag_position(position) else { return Next::Pass(position.len()) };
    let zeros = position.len().saturating_sub(moved.len());
    Next::Instead([vec![b'0'; zeros], moved].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::tag::testing::{analyst, tag};

    /// What passes of these fields, which come in pieces of so many bytes.
    fn run(body: &[u8], piece: usize) -> Vec<u8> {
        let tag = tag(&analyst());
        let (mut fields, mut out, mut held) = (Fields::Type, Vec::new(), Vec::new());
        let mut left = body.len();
        for bytes in body.chunks(piece) {
            held.extend_from_slice(bytes);
            assert!(held.len() <= MAX_DIGITS + piece, "{} bytes are held", held.len());
            while !held.is_empty() {
                match fields.next(&held, held.len() == left, &tag) {
                    Next::Pass(count) => out.extend(held.drain(..count)),
                    Next::Instead(bytes) => {
                        held.drain(..bytes.len());
                        out.extend(bytes);
                    }
                    Next::Wait => break,
                }
                left = body.len() - out.len();
            }
        }
        assert!(held.is_empty());
        out
    }

    #[test]
    fn a_position_is_moved_and_keeps_its_width_wherever_the_reads_are_cut() {
        let at = tag(&analyst()).bytes().len() + 8;
        let width = at.to_string().len();
        let fields = |position: &str| format!("SERROR\0VERROR\0C22P02\0MP{at}\0DP\0P{position}\0p{at}\0FP{at}\0\0");
        let expected = fields(&format!("{:0width$}", 8));
        for piece in [1, 2, 3, 7, 50, 1000] {
            let out = run(fields(&at.to_string()).as_bytes(), piece);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_position_of_the_clients_text_stays() {
        for body in [
            "SERROR\0P8\0\0",
            "P\0\0",
            "Pnumber\0\0",
            "P99999999999999999999999999999999999999\0\0",
            "P123456789012345678901234567890",
            "P12",
            "P",
            "S",
            "Sno end",
            "\0P4000\0 behind the end",
        ] {
            for piece in [1, 2, 5, 1000] {
                assert_eq!(run(body.as_bytes(), piece), body.as_bytes(), "{body:?} in pieces of {piece}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_streams_keeps_its_length_and_does_not_depend_on_the_reads(
            body in "[SMP][0-9]{0,4}\0?|[a-zP0-9\0]{0,40}", piece in 1..9_usize,
        ) {
            let whole = run(body.as_bytes(), 1000);
            proptest::prop_assert_eq!(whole.len(), body.len());
            proptest::prop_assert_eq!(run(body.as_bytes(), piece), whole);
        }
    }
}

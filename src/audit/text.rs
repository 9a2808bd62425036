//! A client's bytes as records have them: its texts, in parts where they are long.
//!
//! The parts of a text, one behind the other by their offsets, are the client's bytes. A part is UTF-8 wherever it can be
//! read as such: a character that a read has cut in two is in parts of its own.

use base64::Engine;
use std::borrow::Cow;
use std::ops::RangeInclusive;

/// The most of a text that is recorded, unless the config says another number, in bytes.
pub const DEFAULT_MAX_TEXT_BYTES: u32 = 1 << 20;
/// What the config may say of it, in bytes: no less than a begin record has.
pub const MAX_TEXT_BYTES_RANGE: RangeInclusive<u32> = 64 << 10..=64 << 20;

/// Bytes as two members of a record, one of which is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Encoded<'a> {
    /// As UTF-8.
    pub text: Option<Cow<'a, str>>,
    /// In base64, when they are not.
    pub base64: Option<String>,
}

/// What bytes are, as their sender says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// To be read, if it can be.
    Text,
    /// Not to be read.
    Binary,
}

/// A client's bytes, of texts and of parameters, become a record's members here and nowhere else.
pub(super) fn encode_text(bytes: &[u8], form: Form) -> Encoded<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) if form == Form::Text => Encoded { text: Some(Cow::Borrowed(text)), base64: None },
        _ => Encoded { text: None, base64: Some(base64::engine::general_purpose::STANDARD.encode(bytes)) },
    }
}

/// At most so many bytes of a text that has `whole` in all: where it is UTF-8, up to a character's edge.
pub(super) fn start(text: &[u8], whole: u64, most: usize) -> &[u8] {
    let cut = text.get(..most).unwrap_or(text);
    match std::str::from_utf8(cut) {
        // `error_len` is `None` when only the end is missing: the cut went through a character.
        Err(error) if error.error_len().is_none() && whole > cut.len() as u64 => {
            cut.get(..error.valid_up_to()).unwrap_or_default()
        }
        _ => cut,
    }
}

/// The pieces of a part that are recorded each for itself: the end of a character that began before it, what is UTF-8, and
/// the start of a character that goes on behind it. What is not UTF-8 is one piece.
pub(super) fn pieces(part: &[u8]) -> impl Iterator<Item = &[u8]> {
    let within = part.iter().take(3).take_while(|byte| matches!(byte, 0x80..=0xbf)).count();
    let (before, rest) = part.split_at_checked(within).unwrap_or((part, &[]));
    let end = match std::str::from_utf8(rest) {
        Ok(_) => Some(rest.len()),
        Err(error) => error.error_len().is_none().then(|| error.valid_up_to()),
    };
    let pieces = match end.and_then(|end| rest.split_at_checked(end)) {
        Some((middle, after)) => [before, middle, after],
        None => [part, &[], &[]],
    };
    pieces.into_iter().filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event::MAX_TEXT_BYTES;
    use proptest::prelude::*;

    #[test]
    fn text_that_is_not_utf8_is_kept_whole_in_base64() {
        assert_eq!(encode_text(b"SELECT 1", Form::Text).text.as_deref(), Some("SELECT 1"));
        let encoded = encode_text(b"\x83\x5c \xff x", Form::Text);
        assert_eq!((encoded.text, encoded.base64.as_deref()), (None, Some("g1wg/yB4")));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = format!("x{}", "é".repeat(MAX_TEXT_BYTES));
        let whole = text.len() as u64;
        assert_eq!(start(text.as_bytes(), whole, MAX_TEXT_BYTES).len(), MAX_TEXT_BYTES - 1);
        assert_eq!(start(&text.as_bytes()[1..], whole, MAX_TEXT_BYTES).len(), MAX_TEXT_BYTES);
        assert_eq!(start(&text.as_bytes()[2..], whole, MAX_TEXT_BYTES).len(), MAX_TEXT_BYTES, "no UTF-8 at its start");
        assert_eq!(start(b"a\xc3", 2, 10), b"a\xc3", "it ends so");
        assert_eq!(start(b"a\xc3", 3, 10), b"a", "it goes on");
    }

    proptest! {
        /// However a text is cut: its pieces are its bytes, and of a text that is UTF-8 each piece is, but for single
        /// characters that were cut.
        #[test]
        fn pieces_are_the_bytes(text in "[a-zé€𝄞]{0,40}", cuts in prop::collection::vec(0..200usize, 0..6), spoilt: bool) {
            let mut bytes = text.clone().into_bytes();
            if spoilt {
                bytes.push(0xff);
            }
            let mut joined = Vec::new();
            let mut parts = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect::<Vec<_>>();
            parts.extend([0, bytes.len()]);
            parts.sort_unstable();
            for ends in parts.windows(2) {
                for piece in pieces(&bytes[ends[0]..ends[1]]) {
                    joined.extend_from_slice(piece);
                    prop_assert!(spoilt || piece.len() <= 3 || std::str::from_utf8(piece).is_ok(), "{:?}", piece);
                }
            }
            prop_assert_eq!(joined, bytes);
        }
    }
}

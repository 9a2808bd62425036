//! Text as a JSON string has it (RFC 8259 §7), with serde's choice of escapes.

/// How many bytes of a text are looked at together: enough for a vector instruction or two.
const LOOK: usize = 32;
/// The most bytes that a byte of a text takes there: `\u` and four digits.
pub const MAX_ESCAPED_BYTES: usize = 6;

/// Appends bytes of UTF-8 as a JSON string has them (RFC 8259 §7), with serde's choice of escapes.
pub(super) fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
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

/// How many bytes a byte of a text takes there.
pub fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 2,
        ..0x20 => MAX_ESCAPED_BYTES,
        _ => 1,
    }
}

/// How many bytes at the start need no escape.
fn plain_bytes(text: &[u8]) -> usize {
    // Whole chunks without a way out in their middle: the compiler makes vectors of them.
    let (chunks, _) = text.as_chunks::<LOOK>();
    let is_plain = |chunk: &[u8; LOOK]| chunk.iter().fold(u8::MAX, |least, byte| least.min(apart(*byte))) > 0;
    let whole = chunks.iter().take_while(|chunk| is_plain(chunk)).count().saturating_mul(LOOK);
    let behind = text.get(whole..).unwrap_or_default();
    // The end of a text, too: filled up, it is a chunk.
    let mut filled = [b' '; LOOK];
    if let Some(end) = filled.get_mut(..behind.len()) {
        end.copy_from_slice(behind);
        if is_plain(&filled) {
            return text.len();
        }
    }
    let more = behind.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')).unwrap_or(behind.len());
    whole.saturating_add(more)
}

/// How far a byte is from one that is escaped: zero for these.
fn apart(byte: u8) -> u8 {
    byte.saturating_sub(0x1f).min(byte ^ b'"').min(byte ^ b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(text: &str) {
        let mut out = b"before".to_vec();
        escape(&mut out, text.as_bytes());
        let quoted = format!("before{}", serde_json::to_string(text).unwrap().replacen('"', "", 1));
        let bytes: usize = text.bytes().map(escaped_bytes).sum();
        assert_eq!(bytes, out.len() - b"before".len(), "{text:?}");
        assert_eq!(String::from_utf8(out).unwrap() + "\"", quoted, "{text:?}");
    }

    #[test]
    fn every_byte_at_every_place_of_a_chunk() {
        for byte in 0..=0x7f_u8 {
            for at in [0, 1, LOOK - 1, LOOK, LOOK + 1, 2 * LOOK] {
                let mut text = "é".repeat(LOOK / 2) + &"a".repeat(2 * LOOK);
                text.insert(at / 2 * 2, char::from(byte));
                same(&text);
            }
        }
        same("");
    }

    proptest! {
        #[test]
        fn any_text_is_as_serde_has_it(text in prop_oneof![any::<String>(), "[a-z \\\\\"\n\u{7f}é]{0,200}"]) {
            same(&text);
        }
    }
}

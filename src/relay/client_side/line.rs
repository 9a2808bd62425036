//! Begin lines, as far as they are alike.

use crate::audit::event::Stage;
use crate::audit::{Begin, MAX_ESCAPED_BYTES, escaped_bytes};
use crate::relay::tracker::{Place, effective_name};

/// How much of a remembered text a further execution's begin line repeats, in bytes of the line: what JSON escapes
/// counts as it is written, so that few bytes of a client cannot become many in the log.
pub(super) const REPEATED_TEXT_BYTES: usize = 4 * 1024;

/// A begin line on a remembered text: the Parse's line has all of it. Its start is repeated by the first line of a batch
/// that runs it, and by none of what the server skips.
pub(super) fn begin_again<'a>(place: &'a Place, stage: Stage, portal: &'a [u8], batch: u64) -> Begin<'a> {
    let text = place.text.as_deref();
    let repeated = text.filter(|text| !place.skipped && text.is_first_in(batch));
    Begin {
        text: repeated.map(|text| (start(&text.head), text.bytes)),
        text_of: text.map(|text| text.event),
        text_doubtful: place.doubtful,
        role_changes: text.map_or(&[], |text| &text.role_changes),
        statement: &place.statement,
        portal: effective_name(portal),
        ..Begin::of(place.event, stage)
    }
}

/// The start of a text that takes [`REPEATED_TEXT_BYTES`] of a line at most.
fn start(text: &[u8]) -> &[u8] {
    if text.len() <= REPEATED_TEXT_BYTES / MAX_ESCAPED_BYTES {
        return text;
    }
    let mut room = REPEATED_TEXT_BYTES;
    let mut fits = |byte: &u8| {
        let left = room.checked_sub(escaped_bytes(*byte));
        room = left.unwrap_or_default();
        left.is_some()
    };
    let end = text.iter().take(REPEATED_TEXT_BYTES).position(|byte| !fits(byte));
    text.get(..end.unwrap_or(REPEATED_TEXT_BYTES)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_as_long_in_the_line_as_it_may_be_and_no_longer() {
        for (text, taken) in [
            (vec![b'x'; 10_000], REPEATED_TEXT_BYTES),
            (vec![b'x'; 100], 100),
            (vec![1; 10_000], REPEATED_TEXT_BYTES / 6),
            (vec![b'"'; 10_000], REPEATED_TEXT_BYTES / 2),
            (b"\n\t\\\"\x7f\r\x08\x0c\x1f\0".repeat(1_000), 1_518),
            (Vec::new(), 0),
        ] {
            let start = start(&text);
            assert_eq!(start.len(), taken);
            let line = serde_json::to_string(&String::from_utf8_lossy(start)).unwrap();
            assert!(line.len() <= REPEATED_TEXT_BYTES + 2, "{} bytes", line.len());
        }
    }
}

//! Whether every parameter that left is told: an independent reading of Bind and FunctionCall.

use super::headers;
use crate::wire::HEADER_BYTES;
use serde_json::Value;

/// Each value of what has left is in a begin record or counted there, unless one says that a message's cannot be told
/// apart. (What has left in part says nothing yet.)
pub(super) fn assert_told(to_server: &[u8], begins: &[Value]) {
    if begins.iter().any(|begin| begin.get("parameters_malformed").is_some()) {
        return;
    }
    let (mut at, mut declared) = (0, 0);
    for header in headers(to_server) {
        let Some(body) = to_server.get(at + HEADER_BYTES..at + header.frame()) else { return };
        let behind = match header.kind {
            b'B' => body.splitn(3, |byte| *byte == 0).nth(2),
            b'F' => body.get(4..),
            _ => None,
        };
        if let Some(behind) = behind {
            let values = count(behind);
            assert!(values.is_some(), "no count, and not malformed: {}", body.escape_ascii());
            declared += values.unwrap_or_default();
        }
        at += header.frame();
    }
    let listed = |begin: &Value| begin.get("parameters").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let left_out = |begin: &Value| begin.get("parameters_left_out").and_then(Value::as_u64).unwrap_or_default();
    let told: u64 = begins.iter().map(|begin| listed(begin) + left_out(begin)).sum();
    assert_eq!(told, declared, "parameters that are told");
}

/// How many values there are, behind the format codes.
fn count(behind: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u16::from_be_bytes(behind.get(at..)?.first_chunk().copied()?));
    word(2 + 2 * usize::from(word(0)?)).map(u64::from)
}

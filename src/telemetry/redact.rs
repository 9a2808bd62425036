//! Takes out of a text whatever looks like a credential. The last net, not the first: callers log no secrets.
//!
//! Known shapes: JWTs (`eyJ…`), Google access tokens (`ya29.…`), `Bearer` values, PEM private keys, and the first
//! two printed as a list of bytes. Invariant: the output has no token character of a found credential, and a
//! credential split over the writes of one event is still found.

use std::borrow::Cow;
use std::io::{self, Write};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// The longest log event, in bytes; the rest of a longer one is dropped, and the line says so.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

const REDACTED: &str = "[redacted]";
const TRUNCATED: &str = "[truncated]";

/// How a credential begins, and how far it goes.
struct Shape {
    start: &'static str,
    /// Whether the start itself stays in the text.
    keep_start: bool,
    extent: fn(&str) -> usize,
}

/// In the order in which two that start at the same place are tried.
const SHAPES: [Shape; 9] = [
    Shape { start: "-----BEGIN ", keep_start: false, extent: private_key },
    Shape { start: "eyJ", keep_start: false, extent: token },
    Shape { start: "ya29.", keep_start: false, extent: token },
    Shape { start: "Bearer ", keep_start: true, extent: token },
    Shape { start: "bearer ", keep_start: true, extent: token },
    // "eyJ" and "ya29." as Debug prints bytes, with and without the spaces of JSON.
    Shape { start: "101, 121, 74, ", keep_start: false, extent: byte_list },
    Shape { start: "121, 97, 50, 57, 46, ", keep_start: false, extent: byte_list },
    Shape { start: "101,121,74,", keep_start: false, extent: byte_list },
    Shape { start: "121,97,50,57,46,", keep_start: false, extent: byte_list },
];

/// `text` with every credential replaced by `[redacted]`.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut output = String::new();
    let mut rest = text;
    while let Some((at, shape)) = next(rest) {
        let (before, found) = rest.split_at(at);
        output.push_str(before);
        let after = found.strip_prefix(shape.start).unwrap_or(found);
        let length = (shape.extent)(after);
        let (secret, tail) = after.split_at(length);
        if shape.keep_start || secret.is_empty() {
            output.push_str(shape.start);
        }
        if !secret.is_empty() {
            output.push_str(REDACTED);
        }
        rest = tail;
    }
    if output.is_empty() && rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    output.push_str(rest);
    Cow::Owned(output)
}

/// The first credential's beginning. Looks at each place once, so that the whole stays linear.
fn next(text: &str) -> Option<(usize, &'static Shape)> {
    text.char_indices().find_map(|(at, _)| {
        let here = text.get(at..)?;
        SHAPES.iter().find(|shape| here.starts_with(shape.start)).map(|shape| (at, shape))
    })
}

/// RFC 6750 `b64token`, which covers JWTs; `%` for a percent-encoded one.
fn token(text: &str) -> usize {
    span(text, |c| c.is_ascii_alphanumeric() || "-._~+/=%".contains(c))
}

fn byte_list(text: &str) -> usize {
    span(text, |c| c.is_ascii_digit() || c == ',' || c == ' ')
}

/// A PEM block that is a private key, up to its end line; without one, as far as the body's alphabet goes
/// (escaped line ends included). Nothing for certificates and public keys.
fn private_key(text: &str) -> usize {
    let label = span(text, |c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ');
    if !text.get(..label).is_some_and(|label| label.ends_with("PRIVATE KEY")) {
        return 0;
    }
    let end = text.find("-----END ").and_then(|end| {
        let tail = text.get(end + "-----END ".len()..)?;
        Some(text.len() - tail.len() + tail.find("-----")? + "-----".len())
    });
    end.unwrap_or_else(|| span(text, |c| c.is_ascii_alphanumeric() || "+/=\\\r\n- ".contains(c)))
}

fn span(text: &str, allowed: impl Fn(char) -> bool) -> usize {
    text.find(|c: char| !allowed(c)).unwrap_or(text.len())
}

/// Makes writers that hold an event until it is whole, redact it, and pass it on in one write.
#[derive(Debug)]
pub(super) struct Redacting<W>(W);

impl<W> Redacting<W> {
    pub(super) fn new(inner: W) -> Self {
        Self(inner)
    }
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Redacting<W> {
    type Writer = Event<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Event { bytes: Vec::new(), truncated: false, inner: self.0.make_writer() }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> Self::Writer {
        Event { bytes: Vec::new(), truncated: false, inner: self.0.make_writer_for(metadata) }
    }
}

/// One event. Written when it is dropped, as `tracing_subscriber` makes one writer for each event.
pub(super) struct Event<W: Write> {
    bytes: Vec<u8>,
    truncated: bool,
    inner: W,
}

impl<W: Write> Write for Event<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_EVENT_BYTES.saturating_sub(self.bytes.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.truncated |= kept.len() < bytes.len();
        self.bytes.extend_from_slice(kept);
        Ok(bytes.len())
    }

    /// Waits for the whole event: a flush in its middle could part a token.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Drop for Event<W> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut line = redact(&text).into_owned();
        if self.truncated {
            line.push_str(TRUNCATED);
            line.push('\n');
        }
        // Nobody is left to tell when the log itself cannot be written.
        let _ = self.inner.write_all(line.as_bytes()).and_then(|()| self.inner.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JWT: &str = "eyJ0eXAiOiJKV1Qi.eyJhdWQiOiI-_.AbC-_123";

    #[test]
    fn every_shape_goes_and_what_surrounds_it_stays() {
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nAB+/=\n-----END RSA PRIVATE KEY-----";
        let escaped = "-----BEGIN PRIVATE KEY-----\\nMIIEow\\n";
        for (text, expected) in [
            (format!("got {JWT}, next"), "got [redacted], next"),
            (format!("password={JWT}&x=1"), "password=[redacted]&x=1"),
            (format!("{JWT}{JWT} {JWT}"), "[redacted] [redacted]"),
            ("t=\"ya29.d.b0Aa-_X\" ok".to_owned(), "t=\"[redacted]\" ok"),
            ("Authorization: Bearer opaque.value".to_owned(), "Authorization: Bearer [redacted]"),
            ("authorization: bearer opaque".to_owned(), "authorization: bearer [redacted]"),
            (format!("key {key} end"), "key [redacted] end"),
            (format!("{{\"k\":\"{escaped}\"}}"), "{\"k\":\"[redacted]\"}"),
            ("[101, 121, 74, 104, 98, 71] tail".to_owned(), "[[redacted]] tail"),
            ("[121, 97, 50, 57, 46, 100]".to_owned(), "[[redacted]]"),
        ] {
            assert_eq!(redact(&text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_and_is_not_copied() {
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
        for text in ["", "session accepted", "select 1", "[101, 121]", "the bearer", "ya28.x"] {
            assert!(matches!(redact(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        assert_eq!(redact(certificate), certificate);
        assert_eq!(redact("héllo -----BEGIN PUBLIC KEY----- wörld"), "héllo -----BEGIN PUBLIC KEY----- wörld");
    }

    #[test]
    fn a_token_split_over_writes_is_found_and_a_long_event_is_cut() {
        let mut output = Vec::new();
        {
            let mut event = Event { bytes: Vec::new(), truncated: false, inner: &mut output };
            for piece in ["to", "ken e", "yJhb", "Gci.", "eyJ9.c2ln", "!\n"] {
                event.write_all(piece.as_bytes()).unwrap();
                event.flush().unwrap();
            }
        }
        assert_eq!(String::from_utf8(output).unwrap(), "token [redacted]!\n");

        let mut output = Vec::new();
        let mut event = Event { bytes: Vec::new(), truncated: false, inner: &mut output };
        event.write_all(&vec![b' '; MAX_EVENT_BYTES + 1]).unwrap();
        event.write_all(JWT.as_bytes()).unwrap();
        drop(event);
        assert_eq!(output.len(), MAX_EVENT_BYTES + TRUNCATED.len() + 1);
        assert!(output.ends_with(b"[truncated]\n"));
    }

    proptest! {
        #[test]
        fn no_token_survives_and_nothing_panics(before in "\\PC*", body in "[A-Za-z0-9_.-]{8,40}", after in "\\PC*") {
            let secret = format!("eyJ{body}");
            let clean = redact(&format!("{before} {secret} {after}")).into_owned();
            let alone = redact(&before).contains(&body) || redact(&after).contains(&body);
            prop_assert!(alone || !clean.contains(&body), "{clean}");
            // Redacted once is redacted for good.
            prop_assert_eq!(redact(&clean), clean.as_str());
        }
    }
}

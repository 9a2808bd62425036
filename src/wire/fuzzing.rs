//! Fuzz targets: framing and start-up packets.

#![allow(clippy::missing_panics_doc, clippy::panic, reason = "a target's panic is its finding")]

use super::{
    ErrorFields, FrameError, HEADER_BYTES, Header, Initial, Malformed, NEWEST_MINOR, Parameters, Reader, append,
    negotiated_minor,
};
use crate::fuzzing::{Choices, pieces};

/// Frames are the same wherever the stream is cut; encoding a header gives back its bytes; bodies of errors and
/// notices survive reading and writing byte for byte, and no value can end its field.
pub fn framing(data: &[u8]) {
    let mut choices = Choices::new(data);
    let pattern = choices.bytes(3);
    let stream = choices.rest();
    let (frames, end) = frames(stream);
    let mut held = Vec::new();
    let (mut cut_frames, mut cut_end) = (Vec::new(), Ok(()));
    for piece in pieces(stream, pattern) {
        held.extend_from_slice(piece);
        let (more, outcome) = self::frames(&held);
        let taken: usize = more.iter().map(Vec::len).sum();
        held.drain(..taken);
        cut_frames.extend(more);
        cut_end = outcome;
        if cut_end.is_err() {
            break;
        }
    }
    assert_eq!((&frames, end), (&cut_frames, cut_end));
    for frame in &frames {
        let mut again = Vec::new();
        let (kind, body) = (frame.first().copied().unwrap_or_default(), frame.get(HEADER_BYTES..).unwrap_or_default());
        append(&mut again, kind, body);
        assert_eq!(&again, frame);
        fields(body);
    }
    fields(stream);
}

/// Whole frames from the start of `stream`, and whether what follows can still become one.
fn frames(stream: &[u8]) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    let (mut frames, mut rest) = (Vec::new(), stream);
    loop {
        let header = match Header::decode(rest) {
            Ok(Some(header)) => header,
            Ok(None) => {
                assert!(rest.len() < HEADER_BYTES);
                return (frames, Ok(()));
            }
            Err(error) => return (frames, Err(error)),
        };
        assert!(i32::try_from(header.body + 4).is_ok(), "{header:?}");
        assert_eq!(Some(header.encode().as_slice()), rest.get(..HEADER_BYTES));
        let Some((frame, after)) = rest.split_at_checked(header.frame()) else { return (frames, Ok(())) };
        frames.push(frame.to_vec());
        rest = after;
    }
}

fn fields(body: &[u8]) {
    let Ok(mut fields) = ErrorFields::decode(body) else { return };
    assert_eq!(fields.encode(), body);
    let state = fields.sqlstate();
    assert!(state.len() == 5 && state.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{state:?}");
    fields.set(b'P', body);
    let again = ErrorFields::decode(&fields.encode());
    assert_eq!(again, Ok(fields));
}

/// A packet that is understood says exactly its own bytes: written again it is the same, nothing is left over, and no
/// name or value has a NUL. The version spoken is never newer than the one asked for.
pub fn startup(data: &[u8]) {
    let Ok(initial) = Initial::decode(data) else {
        assert!(!is_startup_by_a_plainer_reading(data), "{}", data.escape_ascii());
        return;
    };
    let again = encode(&initial);
    // What follows a foreign version is that version's own.
    assert!(data.starts_with(&again) && (data.len() == again.len() || matches!(initial, Initial::Version(_))));
    let shortened = data.split_last().map(|(_, shorter)| Initial::decode(shorter));
    match &initial {
        Initial::Startup(startup) => {
            assert_eq!(shortened, Some(Err(Malformed)), "its terminator is its last byte");
            let minor = negotiated_minor(startup.minor);
            assert!(minor <= startup.minor && minor <= NEWEST_MINOR);
            for (name, value) in &startup.parameters {
                assert!(!name.is_empty() && !name.contains(&0) && !value.contains(&0));
                assert!(startup.get(&String::from_utf8_lossy(name)).is_some() || !name.is_ascii());
            }
        }
        Initial::Version(version) => assert_ne!(version >> 16, 3),
        Initial::Cancel { secret, .. } => assert!((4..=256).contains(&secret.len())),
        Initial::Ssl | Initial::GssEnc => assert_eq!(data.len(), 4),
    }
}

/// Protocol 3, names and values in pairs, no empty name but the terminator, nothing behind it.
fn is_startup_by_a_plainer_reading(data: &[u8]) -> bool {
    let text = data.get(4..).unwrap_or_default();
    let is_3 = Reader::new(data).u32().is_ok_and(|code| code >> 16 == 3);
    let ended = text == [0] || text.ends_with(&[0, 0]);
    let strings: Vec<_> = text.split(|byte| *byte == 0).rev().skip(2).collect();
    let named = strings.iter().rev().step_by(2).all(|name| !name.is_empty());
    is_3 && ended && strings.len() % 2 == 0 && named
}

fn encode(initial: &Initial) -> Vec<u8> {
    match initial {
        Initial::Ssl => super::SSL_REQUEST.to_be_bytes().to_vec(),
        Initial::GssEnc => super::GSSENC_REQUEST.to_be_bytes().to_vec(),
        Initial::Cancel { pid, secret } => {
            [&super::CANCEL_REQUEST.to_be_bytes(), pid.to_be_bytes().as_slice(), secret].concat()
        }
        Initial::Startup(startup) => {
            let version = super::PROTOCOL_3_0 | u32::from(startup.minor);
            [version.to_be_bytes().to_vec(), list(&startup.parameters)].concat()
        }
        Initial::Version(version) => version.to_be_bytes().to_vec(),
    }
}

/// Names and values with their terminators, as a start-up packet has them.
pub fn list(parameters: &Parameters) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in parameters {
        for text in [name, value] {
            out.extend_from_slice(text);
            out.push(0);
        }
    }
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use crate::fuzzing::corpus::replay;

    #[test]
    fn framing() {
        replay("framing", super::framing);
    }

    #[test]
    fn startup() {
        replay("startup", super::startup);
    }
}

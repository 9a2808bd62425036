//! The values of a Bind and of a FunctionCall, as PostgreSQL reads them (`exec_bind_message`,
//! `src/backend/tcop/postgres.c`; `parse_fcall_arguments`, `src/backend/tcop/fastpath.c`). Only where a rule has them
//! recorded.

use super::frame::{Frame, OID_BYTES};
use crate::audit::{Value, Values};
use crate::wire::{Malformed, Reader};

/// A Bind's parameters: what stands behind its names, if they have an end.
pub(super) fn of_bind<'a>(frame: &Frame<'a>, rest: Result<&'a [u8], Malformed>) -> Values<'a> {
    rest.map_or(Values::Malformed, |rest| values(rest, Whole::of(frame)))
}

/// A `FunctionCall`'s arguments.
pub(super) fn of_call<'a>(frame: &Frame<'a>) -> Values<'a> {
    values(frame.known.get(OID_BYTES..).unwrap_or_default(), Whole::of(frame))
}

/// Format codes, then values: what stands behind a Bind's names, and behind a FunctionCall's OID. `known` is as much of it
/// as is looked at, `whole` whether that is all of it.
fn values(known: &[u8], whole: Whole) -> Values<'_> {
    read(&mut Reader::new(known), whole).unwrap_or(Values::Malformed)
}

/// Whether all of a message is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

impl Whole {
    fn of(frame: &Frame<'_>) -> Self {
        if frame.is_whole() { Self::Yes } else { Self::No }
    }
}

/// `None` where the message says what cannot be.
fn read<'a>(reader: &mut Reader<'a>, whole: Whole) -> Option<Values<'a>> {
    let ended = || (whole == Whole::No).then(|| Values::Read { values: Vec::new(), left_out: 0 });
    let Ok(count) = reader.u16() else { return ended() };
    let Ok(formats) = reader.bytes(usize::from(count).saturating_mul(2)) else { return ended() };
    let Ok(declared) = reader.u16() else { return ended() };
    if count > 1 && count != declared {
        return None;
    }
    let mut values = Vec::new();
    for at in 0..usize::from(declared) {
        let format = format(formats, at);
        let Ok(length) = reader.u32() else {
            return (whole == Whole::No).then(|| left_out(values, declared));
        };
        let bytes = match i32::try_from(length) {
            Ok(_) => {
                let here = reader.rest().len().min(length as usize);
                let known = reader.bytes(here).unwrap_or_default();
                if whole == Whole::Yes && here < length as usize {
                    return None;
                }
                Some((known, length))
            }
            Err(_) if length == u32::MAX => None,
            Err(_) => return None,
        };
        values.push(Value { format, bytes });
    }
    Some(left_out(values, declared))
}

fn left_out(values: Vec<Value<'_>>, declared: u16) -> Values<'_> {
    let left_out = u32::from(declared).saturating_sub(u32::try_from(values.len()).unwrap_or(u32::MAX));
    Values::Read { values, left_out }
}

/// None: text for all; one: for all; else each value's own.
fn format(formats: &[u8], at: usize) -> u16 {
    let at = if formats.len() == 2 { 0 } else { at };
    let code = formats.chunks_exact(2).nth(at).and_then(|code| code.first_chunk::<2>());
    code.map_or(0, |code| u16::from_be_bytes(*code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Formats and values as a client writes them.
    fn message(formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
        let count = |count: usize| u16::try_from(count).unwrap().to_be_bytes();
        let mut out = count(formats.len()).to_vec();
        out.extend(formats.iter().flat_map(|code| code.to_be_bytes()));
        out.extend(count(values.len()));
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            out.extend(length.to_be_bytes());
            out.extend(value.unwrap_or_default());
        }
        out.extend([0, 0]);
        out
    }

    fn known(format: u16, bytes: &[u8]) -> Value<'_> {
        Value { format, bytes: Some((bytes, u32::try_from(bytes.len()).unwrap())) }
    }

    #[test]
    fn formats_are_none_one_for_all_or_each_its_own() {
        for (formats, expected) in [(vec![], [0, 0]), (vec![1], [1, 1]), (vec![0, 1], [0, 1])] {
            let message = message(&formats, &[Some(b"a"), Some(b"")]);
            let both = vec![known(expected[0], b"a"), known(expected[1], b"")];
            assert_eq!(values(&message, Whole::Yes), Values::Read { values: both, left_out: 0 });
        }
        let null = message(&[], &[None]);
        let one = vec![Value { format: 0, bytes: None }];
        assert_eq!(values(&null, Whole::Yes), Values::Read { values: one, left_out: 0 });
    }

    #[test]
    fn what_cannot_be_is_malformed() {
        for wrong in [
            &b""[..],
            b"\0",
            b"\0\x01",
            b"\0\0",
            b"\0\x02\0\0\0\0\0\x01\0\0\0\x01a\0\0",
            b"\0\0\0\x01",
            b"\0\0\0\x01\0\0\0\x05abc\0",
            b"\0\0\0\x01\xff\xff\xff\xfe",
            b"\0\0\0\x01\x80\0\0\0",
            b"\0\0\0\x02\0\0\0\x01a",
        ] {
            assert_eq!(values(wrong, Whole::Yes), Values::Malformed, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_looked_at_is_left_out() {
        let message = message(&[], &[Some(b"abc"), Some(b"defgh"), Some(b"i")]);
        let read = |end: usize| values(&message[..end], Whole::No);
        let cut = Value { format: 0, bytes: Some((b"de", 5)) };
        assert_eq!(read(17), Values::Read { values: vec![known(0, b"abc"), cut], left_out: 1 });
        assert_eq!(read(13), Values::Read { values: vec![known(0, b"abc")], left_out: 2 });
        assert_eq!(read(1), Values::Read { values: Vec::new(), left_out: 0 });
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(given in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..20), cut in any::<prop::sample::Index>()) {
            let given: Vec<Option<&[u8]>> = given.iter().map(Option::as_deref).collect();
            let message = message(&[1], &given);
            let expected: Vec<Value<'_>> = given.iter().map(|value| value.map_or(Value { format: 1, bytes: None }, |value| known(1, value))).collect();
            prop_assert_eq!(values(&message, Whole::Yes), Values::Read { values: expected.clone(), left_out: 0 });
            let part = &message[..cut.index(message.len())];
            if let Values::Read { values: read, left_out } = values(part, Whole::No) {
                prop_assert!(part.len() < 6 || read.len() + left_out as usize == expected.len());
                let starts = read.iter().zip(&expected).all(|(read, expected)| match (read.bytes, expected.bytes) {
                    (Some((read, length)), Some((expected, whole))) => expected.starts_with(read) && length == whole,
                    (read, expected) => read == expected,
                });
                prop_assert!(starts);
            } else {
                prop_assert!(false, "a part is not malformed");
            }
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            values(&bytes, Whole::No);
            values(&bytes, Whole::Yes);
        }
    }
}

//! One record on disk: its length, a checksum, its bytes.
//!
//! `length u32 | crc32c u32 | record`, both numbers little-endian; the checksum (CRC-32C, RFC 3720 §12.1) covers the
//! length's four bytes and the record. A length of zero is no record: it is what preallocated space reads as.
//!
//! The checksum finds accidents. Against people there is the tree ([`super::tree`]).

use std::io;

/// Bytes in front of a record.
pub const HEAD_BYTES: usize = 8;
/// The longest record, in bytes: a begin record with 64 KiB of text whose every byte is escaped, and room.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// A record is being written at the end of a buffer.
#[derive(Debug)]
#[must_use]
pub struct Open {
    start: usize,
}

/// Appends the record that `write` appends; on its error, or where the record is empty or too long, `out` stays as it
/// was.
pub fn append<T>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> io::Result<T>) -> io::Result<T> {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    let written = write(out).inspect_err(|_| out.truncate(start))?;
    if reopen(start).close(out) { Ok(written) } else { Err(too_long()) }
}

/// A record longer than [`MAX_RECORD_BYTES`].
pub fn too_long() -> io::Error {
    io::Error::other("the record is too long")
}

/// The last frame, which begins at `start`, is written again.
pub fn reopen(start: usize) -> Open {
    Open { start }
}

impl Open {
    /// Where the record's bytes begin.
    pub fn record(&self) -> usize {
        self.start.saturating_add(HEAD_BYTES)
    }

    /// Whether the record, which ends where `out` does, may grow by so many bytes.
    pub fn has_room(&self, out: &[u8], more: usize) -> bool {
        out.len().saturating_sub(self.record()).saturating_add(more) <= MAX_RECORD_BYTES
    }

    /// Writes the head. `false` where the record is empty or too long: then the buffer is as it was before.
    pub fn close(self, out: &mut Vec<u8>) -> bool {
        let Some((head, record)) = out.get_mut(self.start..).and_then(|own| own.split_at_mut_checked(HEAD_BYTES))
        else {
            return false;
        };
        if record.is_empty() || record.len() > MAX_RECORD_BYTES {
            out.truncate(self.start);
            return false;
        }
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes();
        let checksum = checksum(length, record).to_le_bytes();
        for (to, from) in head.iter_mut().zip(length.into_iter().chain(checksum)) {
            *to = from;
        }
        true
    }
}

/// Appends one whole record; `false` where it is empty or too long.
pub fn push(out: &mut Vec<u8>, record: &[u8]) -> bool {
    append(out, |out| {
        out.extend_from_slice(record);
        Ok(())
    })
    .is_ok()
}

/// What stands at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan<'a> {
    /// A whole record, and how many bytes it takes with its head.
    Record(&'a [u8], usize),
    /// Nothing, or the zeros of preallocated space.
    End,
    /// A record that is not all there: read more, or it is the torn end of a write.
    Partial,
    /// No record: a length that cannot be, or bytes that do not fit their checksum.
    Bad,
}

/// Reads the record at the start of `bytes`.
pub fn scan(bytes: &[u8]) -> Scan<'_> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
        return if bytes.iter().all(|&byte| byte == 0) { Scan::End } else { Scan::Partial };
    };
    let (Some(length), Some(expected)) = (number(head, 0), number(head, 4)) else { return Scan::Bad };
    let whole = length as usize;
    if whole == 0 {
        return if expected == 0 { Scan::End } else { Scan::Bad };
    }
    if whole > MAX_RECORD_BYTES {
        return Scan::Bad;
    }
    let Some(record) = rest.get(..whole) else { return Scan::Partial };
    if checksum(length.to_le_bytes(), record) != expected {
        return Scan::Bad;
    }
    Scan::Record(record, whole.saturating_add(HEAD_BYTES))
}

/// The records at the start of `bytes`, up to the first place that has none.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let Scan::Record(record, taken) = scan(rest) else { return None };
        rest = rest.get(taken..).unwrap_or_default();
        Some(record)
    })
}

/// The records of whole frames, which this process has made: no checksum is looked at.
pub fn whole(frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = frames;
    std::iter::from_fn(move || {
        let own;
        (own, rest) = rest.split_at_checked(announced(rest)?)?;
        own.get(HEAD_BYTES..)
    })
}

/// How many records whole frames have.
pub fn count(frames: &[u8]) -> u64 {
    whole(frames).count() as u64
}

/// How long the record at the start of `bytes` says it is, with its head; `None` where that cannot be.
pub fn announced(bytes: &[u8]) -> Option<usize> {
    let length = number(bytes, 0)? as usize;
    (1..=MAX_RECORD_BYTES).contains(&length).then(|| length.saturating_add(HEAD_BYTES))
}

fn number(head: &[u8], at: usize) -> Option<u32> {
    let bytes = head.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

fn checksum(length: [u8; 4], record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The golden vector: it must never change.
    #[test]
    fn a_frame_is_its_length_its_checksum_and_its_bytes() {
        let mut out = b"before".to_vec();
        assert!(push(&mut out, br#"{"version":1}"#));
        let (head, record) = out[6..].split_at(HEAD_BYTES);
        assert_eq!(record, br#"{"version":1}"#);
        assert_eq!(head[..4], [13, 0, 0, 0]);
        assert_eq!(head[4..], crc32c::crc32c(b"\x0d\x00\x00\x00{\"version\":1}").to_le_bytes());
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283, "RFC 3720's own check value");
    }

    #[test]
    fn what_is_no_record_is_never_taken_for_one() {
        let mut long = Vec::new();
        assert!(!push(&mut long, &vec![b'x'; MAX_RECORD_BYTES + 1]) && long.is_empty());
        assert!(!push(&mut long, b"") && long.is_empty());
        assert_eq!(scan(b""), Scan::End);
        assert_eq!(scan(&[0; 3]), Scan::End);
        assert_eq!(scan(&[0; 64]), Scan::End);
        assert_eq!(scan(&[0, 0, 0, 0, 1, 0, 0, 0]), Scan::Bad);
        assert_eq!(scan(&[0xff; 64]), Scan::Bad);
        assert_eq!(scan(&[5, 0, 0]), Scan::Partial);
    }

    proptest! {
        #[test]
        fn records_come_back_and_every_changed_bit_is_found(
            entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..8),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut out = Vec::new();
            for entry in &entries {
                prop_assert!(push(&mut out, entry));
            }
            prop_assert_eq!(records(&out).map(<[u8]>::to_vec).collect::<Vec<_>>(), entries.clone());
            prop_assert_eq!(whole(&out).map(<[u8]>::to_vec).collect::<Vec<_>>(), entries.clone());
            let at = at.index(out.len());
            out[at] ^= 1 << bit;
            prop_assert!(records(&out).map(<[u8]>::to_vec).collect::<Vec<_>>() != entries);
        }

        #[test]
        fn any_cut_leaves_whole_records(cut in 0..40usize) {
            let mut out = Vec::new();
            assert!(push(&mut out, b"0123456789") && push(&mut out, b"abcdefghij"));
            prop_assert_eq!(records(&out[..cut.min(out.len())]).count(), usize::from(cut >= 18) + usize::from(cut >= 36));
        }
    }
}

//! A segment: a file of records, and what its first 64 bytes say of it.
//!
//! `magic 8 | log id 16 | number u64 | first index u64 | created i64 (Unix, microseconds) | zeros 12 | crc32c u32`,
//! numbers little-endian, the checksum over what stands before it. Frames ([`super::frame`]) follow. The header only
//! says where a segment belongs; that its records are what they were, the tree says.

use crate::time::Timestamp;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// What a segment starts with; the last two bytes are the version of the framing.
pub const MAGIC: &[u8; 8] = b"PGPLOG01";
/// Segments are `NNNNNNNNNNNNNNNN.segment`, the number in decimal.
pub const SUFFIX: &str = ".segment";
const CHECKED_BYTES: usize = 60;

/// Where a segment belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The log.
    pub log: Uuid,
    /// Its place among the segments, from 1.
    pub number: u64,
    /// The index of its first record in the log, from 0.
    pub first: u64,
    /// When it was begun.
    pub created: Timestamp,
}

impl Header {
    /// As it stands in the file.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.log.as_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.created.as_microsecond().to_le_bytes());
        bytes.resize(CHECKED_BYTES, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.first_chunk().copied().unwrap_or([0; HEADER_BYTES])
    }

    /// Reads the start of a file; `None` where it is no segment of this version.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (checked, sum) = bytes.split_at_checked(CHECKED_BYTES)?;
        let fits = crc32c::crc32c(checked).to_le_bytes() == *sum && checked.starts_with(MAGIC);
        let number = |at: usize| Some(u64::from_le_bytes(*checked.get(at..)?.first_chunk()?));
        let created = i64::from_le_bytes(*checked.get(40..)?.first_chunk()?);
        fits.then_some(Self {
            log: Uuid::from_bytes(*checked.get(8..)?.first_chunk()?),
            number: number(24)?,
            first: number(32)?,
            created: Timestamp::from_microsecond(created).ok()?,
        })
    }
}

/// A segment's file in the log's folder.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}{SUFFIX}"))
}

/// The numbers of the segments in a folder, in order. Files of other names are not looked at.
pub fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let digits = digits.filter(|digits| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit()));
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let created = Timestamp::from_microsecond(1_700_000_000_000_001).unwrap();
        Header { log: Uuid::from_u128(0x0102_0304), number: 7, first: 1000, created }
    }

    /// The golden vector: it must never change.
    #[test]
    fn a_header_is_64_bytes() {
        let bytes = header().encode();
        assert_eq!(&bytes[..8], b"PGPLOG01");
        assert_eq!(bytes[8..24], Uuid::from_u128(0x0102_0304).into_bytes());
        assert_eq!((bytes[24], bytes[32], bytes[33]), (7, 0xe8, 3));
        assert_eq!(bytes[40..48], 1_700_000_000_000_001_i64.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Some(header()));
    }

    #[test]
    fn a_changed_header_is_none() {
        for at in 0..HEADER_BYTES {
            let mut bytes = header().encode();
            bytes[at] ^= 1;
            assert_eq!(Header::decode(&bytes), None, "byte {at}");
        }
    }

    #[test]
    fn only_segments_are_listed_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0000000000000010.segment", "0000000000000002.segment", "2.segment", "x.tmp", "checkpoints"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        assert_eq!(numbers(folder.path()).unwrap(), [2, 10]);
    }
}

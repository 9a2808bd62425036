//! The five bytes in front of every message after start-up: type and length.

/// Bytes of type and length.
pub const HEADER_BYTES: usize = 5;

/// A length that no message of this type may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field counts itself, so it cannot be below 4.
    #[error("invalid message length {0}")]
    Length(u32),
    /// No message has this type.
    #[error("invalid message type {0}")]
    Type(u8),
}

/// A message's header, decoded and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Message type.
    pub kind: u8,
    /// Bytes that follow the header.
    pub body: usize,
}

impl Header {
    /// Decodes the header at the start of `bytes`; `None` while fewer than [`HEADER_BYTES`] are there.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((&[kind, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]);
        let body = length.checked_sub(4).filter(|_| i32::try_from(length).is_ok()).ok_or(FrameError::Length(length))?;
        Ok(Some(Self { kind, body: body as usize }))
    }

    /// The header as bytes; a body over `i32::MAX - 4` saturates, which no caller can reach.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let length = u32::try_from(self.body).unwrap_or(u32::MAX).saturating_add(4);
        let [a, b, c, d] = length.to_be_bytes();
        [self.kind, a, b, c, d]
    }

    /// Header and body together, in bytes.
    pub fn frame(self) -> usize {
        HEADER_BYTES.saturating_add(self.body)
    }
}

/// Appends one message to `out`.
pub fn append(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.extend_from_slice(&Header { kind, body: body.len() }.encode());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_below_four_and_above_i32_are_refused() {
        for length in [0u32, 1, 2, 3, 0x8000_0000, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend_from_slice(&length.to_be_bytes());
            assert_eq!(Header::decode(&bytes), Err(FrameError::Length(length)));
        }
        assert_eq!(Header::decode(b"Q\0\0\0"), Ok(None));
        assert_eq!(Header::decode(b"S\0\0\0\x04"), Ok(Some(Header { kind: b'S', body: 0 })));
    }

    #[test]
    fn encoding_gives_back_what_decoding_took() {
        let mut out = Vec::new();
        append(&mut out, b'Q', b"SELECT 1\0");
        let header = Header::decode(&out).unwrap().unwrap();
        assert_eq!(header, Header { kind: b'Q', body: 9 });
        assert_eq!(header.frame(), out.len());
    }
}

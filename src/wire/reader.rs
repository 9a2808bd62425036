//! A bounded reader over one message's body.

/// The body does not have the shape its type demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid message format")]
pub struct Malformed;

/// Takes fields off the front of a body; never reads past its end.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `body` from its start.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = tail;
        Ok(head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let (&head, tail) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = tail;
        Ok(head)
    }

    /// A big-endian 16-bit number.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = tail;
        Ok(u16::from_be_bytes(*head))
    }

    /// A big-endian 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    /// A string up to its NUL, which is consumed and not returned.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or(Malformed)?;
        let text = self.bytes(end)?;
        self.u8()?;
        Ok(text)
    }

    /// Ends the reading: bytes left over are an error, or they could smuggle a second message.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_and_never_past_the_end() {
        let mut reader = Reader::new(b"ab\0\x00\x05\x00\x00\x01\x00Z");
        assert_eq!(reader.cstr(), Ok(b"ab".as_slice()));
        assert_eq!(reader.u16(), Ok(5));
        assert_eq!(reader.u32(), Ok(256));
        assert_eq!(reader.u8(), Ok(b'Z'));
        assert_eq!(reader.u8(), Err(Malformed));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn an_unterminated_string_and_leftover_bytes_are_malformed() {
        assert_eq!(Reader::new(b"SELECT 1").cstr(), Err(Malformed));
        assert_eq!(Reader::new(b"x").finish(), Err(Malformed));
        assert_eq!(Reader::new(b"abc").u32(), Err(Malformed));
    }
}

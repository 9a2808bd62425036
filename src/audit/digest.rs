//! What a text that the record does not hold whole is known by.

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use std::fmt::{self, Write as _};

/// A whole text's SHA-256 and length: what the client sent, without the tag and the NUL behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextDigest {
    sha256: [u8; SHA256_OUTPUT_LEN],
    bytes: u64,
}

/// A text as it passes; nothing of it is kept.
pub struct Digesting {
    context: Context,
    bytes: u64,
}

impl TextDigest {
    /// Of a text that is there whole.
    pub fn of(text: &[u8]) -> Self {
        let mut digesting = Digesting::start();
        digesting.update(text);
        digesting.finish()
    }

    /// The text's length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// SHA-256.
    pub fn as_bytes(&self) -> &[u8] {
        &self.sha256
    }

    /// SHA-256 in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for TextDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.sha256))
    }
}

impl Digesting {
    /// Of nothing yet.
    pub fn start() -> Self {
        Self { context: Context::new(&SHA256), bytes: 0 }
    }

    /// The text goes on.
    pub fn update(&mut self, part: &[u8]) {
        self.context.update(part);
        self.bytes = self.bytes.saturating_add(part.len() as u64);
    }

    /// The text is over.
    pub fn finish(self) -> TextDigest {
        let mut sha256 = [0; SHA256_OUTPUT_LEN];
        // As many bytes on either side.
        sha256.iter_mut().zip(self.context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        TextDigest { sha256, bytes: self.bytes }
    }
}

impl fmt::Debug for Digesting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digesting").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole() {
        // FIPS 180-2, appendix B.1.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut digesting = Digesting::start();
        for part in [b"a".as_slice(), b"", b"bc"] {
            digesting.update(part);
        }
        let digest = digesting.finish();
        assert_eq!((digest.sha256(), digest.bytes()), (known.to_owned(), 3));
        assert_eq!(digest, TextDigest::of(b"abc"));
    }
}

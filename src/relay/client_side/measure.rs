//! Texts that the record does not hold whole: what they are known by is worked out as they pass.
//!
//! It costs one SHA-256 of such texts and of no others: those over [`MAX_TEXT_BYTES`], and those of which a session
//! remembers no start any more.
//!
//! [`MAX_TEXT_BYTES`]: crate::audit::event::MAX_TEXT_BYTES

use super::frame::Text;
use crate::audit::{Digesting, TextDigest};

/// The text that the client is in the middle of.
#[derive(Debug)]
pub(super) struct Measuring {
    event: u64,
    digesting: Digesting,
}

impl Measuring {
    /// An event's text from its start, as far as that is known. `Err` has the whole of it.
    pub fn begin(event: u64, text: &Text<'_>) -> Result<Self, TextDigest> {
        let mut digesting = Digesting::start();
        digesting.update(text.head);
        if text.whole { Err(digesting.finish()) } else { Ok(Self { event, digesting }) }
    }

    /// The message goes on; `true` when the text in it is over.
    pub fn passes(&mut self, part: &[u8]) -> bool {
        let end = memchr::memchr(0, part);
        self.digesting.update(part.get(..end.unwrap_or(part.len())).unwrap_or_default());
        end.is_some()
    }

    /// Whose text it was, and what it is known by.
    pub fn finish(self) -> (u64, TextDigest) {
        (self.event, self.digesting.finish())
    }
}

//! One message of the client: its header, and as much of its body as must be looked at.

use super::{INSPECTED_BYTES, Violation};
use crate::relay::substitute::{Ends, MAX_ROLLBACK, Refusal, ends};
use crate::relay::tag::Tag;
use crate::relay::tracker::{Target, Tracker};
use crate::wire::{HEADER_BYTES, Header, Reader};
use std::time::Instant;

/// `PQ_SMALL_MESSAGE_LIMIT` (`libpq.h`), in bytes with the length word.
const SMALL_MESSAGE: usize = 10_000;
/// `PQ_LARGE_MESSAGE_LIMIT` (`libpq.h`), in bytes with the length word.
pub(super) const LARGE_MESSAGE: usize = 0x3fff_ffff - 1;

/// How much of a `FunctionCall` is looked at where its arguments are not recorded, in bytes: the function.
pub(super) const OID_BYTES: usize = 4;

/// What one message needs.
pub(super) struct Frame<'a> {
    pub header: Header,
    /// Where it starts in the read buffer.
    pub at: usize,
    /// Its body as far as it is looked at.
    pub known: &'a [u8],
    pub bytes: u64,
    pub now: Instant,
    /// It is not to leave.
    pub refusal: Option<Refusal>,
    /// It gets no record: its caller's records have taken what they may.
    pub unrecorded: bool,
}

/// A Query's or Parse's text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Text<'a> {
    /// Its start, as far as it is looked at.
    pub head: &'a [u8],
    /// Its length in bytes. A Parse that streams declares text and parameter types together; that sum is told then.
    pub bytes: u64,
    /// Nothing of it is missing.
    pub whole: bool,
}

impl<'a> Frame<'a> {
    /// The frame at the start of `rest`, once as much of it is there as must be looked at: of a `FunctionCall`, `call`
    /// bytes.
    pub fn next(rest: &'a [u8], at: usize, call: usize, now: Instant) -> Result<Option<Self>, Violation> {
        let Some(header) = Header::decode(rest).map_err(|_| Violation::Length)? else { return Ok(None) };
        let (limit, looked_at) = match header.kind {
            b'Q' | b'P' | b'B' => (LARGE_MESSAGE, header.body.min(INSPECTED_BYTES)),
            b'F' => (LARGE_MESSAGE, header.body.min(call)),
            b'd' => (LARGE_MESSAGE, 0),
            b'E' | b'C' | b'D' => (SMALL_MESSAGE, header.body),
            b'S' | b'H' | b'X' | b'c' | b'f' => (SMALL_MESSAGE, 0),
            other => return Err(Violation::Type(other)),
        };
        if header.body.saturating_add(4) > limit {
            return Err(Violation::Length);
        }
        let known = rest.get(HEADER_BYTES..HEADER_BYTES.saturating_add(looked_at));
        let bytes = header.frame() as u64;
        Ok(known.map(|known| Self { header, at, known, bytes, now, refusal: None, unrecorded: false }))
    }

    /// Where the body starts in the read buffer.
    pub fn body_start(&self) -> usize {
        self.at.saturating_add(HEADER_BYTES)
    }

    /// Where what is looked at ends in the read buffer.
    pub fn seen(&self) -> usize {
        self.body_start().saturating_add(self.known.len())
    }

    /// Whether all of it is looked at.
    pub fn is_whole(&self) -> bool {
        self.known.len() == self.header.body
    }

    /// Why it is not to leave, if it is not.
    pub fn admitted(&self) -> Result<(), Refusal> {
        self.refusal.map_or(Ok(()), Err)
    }

    /// The same; a Parse or Bind that gives a name also where there are too many already. The
    /// unnamed one is always given: by it a client of the extended protocol takes names back (`DEALLOCATE ALL`).
    pub fn or_overfull(&self, gives: &[u8], tracker: &Tracker) -> Result<(), Refusal> {
        let overfull = (!gives.is_empty() && tracker.is_overfull()).then_some(Refusal::Overfull);
        self.refusal.or(overfull).map_or(Ok(()), Err)
    }

    /// The first string, or `None` if the whole message has no NUL.
    pub fn name(&self) -> Result<Option<&'a [u8]>, Refusal> {
        match Reader::new(self.known).cstr() {
            Ok(name) => Ok(Some(name)),
            Err(_) if self.is_whole() => Ok(None),
            Err(_) => Err(Refusal::EndlessName),
        }
    }

    /// A Close: which statement or portal goes.
    pub fn close(&self, tracker: &mut Tracker) {
        let mut reader = Reader::new(self.known);
        let target = match reader.u8() {
            Ok(b'S') => Target::Statement,
            _ => Target::Portal,
        };
        tracker.close(target, reader.cstr().unwrap_or_default());
    }

    /// How the message ends a transaction, if the text at `start` is all that it has (and, of a Parse, no parameter types)
    /// and does nothing else.
    pub fn only_text(&self, start: usize) -> Option<Ends> {
        let (text, types) = (self.text(start), if start > 0 { 2 } else { 0 });
        let parts = start.saturating_add(text.head.len()).saturating_add(1).saturating_add(types);
        let short = self.is_whole() && parts == self.header.body && text.bytes <= MAX_ROLLBACK;
        if short { ends(text.head) } else { None }
    }

    /// The text that starts at `start` of the body.
    pub fn text(&self, start: usize) -> Text<'a> {
        let known = self.known.get(start..).unwrap_or_default();
        if let Some(end) = memchr::memchr(0, known) {
            return Text { head: known.get(..end).unwrap_or_default(), bytes: end as u64, whole: true };
        }
        let declared = self.header.body.saturating_sub(start).saturating_sub(1);
        Text { head: known, bytes: declared.max(known.len()) as u64, whole: self.is_whole() }
    }
}

/// The header of the same message with the tag in it.
pub(super) fn tagged(header: Header, tag: &Tag) -> Result<Header, Refusal> {
    let body = header.body.saturating_add(tag.bytes().len());
    if body.saturating_add(4) > LARGE_MESSAGE {
        return Err(Refusal::TooLong);
    }
    Ok(Header { body, ..header })
}

//! Texts that a begin record does not hold whole: what follows of them is recorded as it passes, and what they are known
//! by is worked out.
//!
//! Both cost something of such texts and of no others: those over [`MAX_TEXT_BYTES`], and, as to SHA-256, those of which a
//! session remembers no start any more. Nothing of a text is held.
//!
//! [`MAX_TEXT_BYTES`]: crate::audit::event::MAX_TEXT_BYTES

use super::ClientSide;
use super::frame::Text;
use crate::audit::{Digesting, Recorder, TextDigest};
use crate::relay::tracker::Tracker;

/// The text that the client is in the middle of.
#[derive(Debug)]
pub(super) struct Following {
    event: u64,
    /// Where it is to be known by its digest.
    digesting: Option<Digesting>,
    /// Where what comes next stands in the text, as long as it is recorded.
    recorded: Option<u64>,
}

/// Where a text is by now.
#[derive(Debug, PartialEq, Eq)]
enum Passed {
    /// It goes on.
    On,
    /// It is over.
    Whole,
}

impl Following {
    /// An event's text from its start; `begun` is how much of it the begin record has, where its bytes leave.
    fn begin(event: u64, text: &Text<'_>, digest: bool, begun: Option<usize>, recorder: &mut Recorder) -> Self {
        let digesting = digest.then(Digesting::start);
        let mut following = Self { event, digesting, recorded: begun.map(|begun| begun as u64) };
        let (known, rest) = text.head.split_at_checked(begun.unwrap_or_default()).unwrap_or((text.head, &[]));
        following.digesting.iter_mut().for_each(|digesting| digesting.update(known));
        following.take(rest, recorder);
        following
    }

    /// Whether anything is to be done with what follows.
    fn is_needed(&self) -> bool {
        self.digesting.is_some() || self.recorded.is_some()
    }

    /// Whether what follows is recorded.
    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// The message goes on.
    fn passes(&mut self, part: &[u8], recorder: &mut Recorder) -> Passed {
        let end = memchr::memchr(0, part);
        self.take(part.get(..end.unwrap_or(part.len())).unwrap_or_default(), recorder);
        if end.is_some() { Passed::Whole } else { Passed::On }
    }

    /// Whose text it was, and what it is known by.
    fn finish(self) -> Option<(u64, TextDigest)> {
        Some((self.event, self.digesting?.finish()))
    }

    fn take(&mut self, text: &[u8], recorder: &mut Recorder) {
        self.digesting.iter_mut().for_each(|digesting| digesting.update(text));
        if let Some(offset) = self.recorded.filter(|_| !text.is_empty()) {
            let goes_on = recorder.text(self.event, offset, text);
            self.recorded = goes_on.then(|| offset.saturating_add(text.len() as u64));
        }
    }
}

impl ClientSide {
    /// An event's text, of which the begin line has `begun` bytes, where it leaves: what is more of it is recorded, and
    /// what it is known by is worked out, now or as it streams.
    pub(super) fn follow(
        &mut self,
        event: u64,
        text: &Text<'_>,
        begun: Option<usize>,
        tracker: &mut Tracker,
        recorder: &mut Recorder,
    ) {
        let digest = tracker.wants_digest(event, text.bytes);
        let begun = begun.filter(|begun| !text.whole || *begun < text.head.len());
        if !digest && begun.is_none() {
            return;
        }
        let following = Following::begin(event, text, digest, begun, recorder);
        if !text.whole {
            self.following = Some(following).filter(Following::is_needed);
        } else if let Some((event, digest)) = following.finish() {
            tracker.text_is(event, digest);
        }
    }

    /// The next bytes of a message whose start has been looked at.
    pub(super) fn follow_on(&mut self, passed: &[u8], tracker: &mut Tracker, recorder: &mut Recorder) {
        let message_is_over = self.flow.passing == 0;
        let following = self.following.as_mut();
        let text_is_over = following.is_some_and(|text| text.passes(passed, recorder) == Passed::Whole);
        if text_is_over || message_is_over {
            let measured = self.following.take().and_then(Following::finish);
            if let Some((event, digest)) = measured {
                tracker.text_is(event, digest);
            }
        }
    }
}

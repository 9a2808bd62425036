//! One begin record for messages of one event that came in one read.
//!
//! A record stands for its message alone until the next one comes: then that one's portal and parameters are put into it,
//! and its stage. A commit ends that: no record changes that the log has.

use super::{Begin, Recorder};
use crate::audit::Unrecorded;
use crate::audit::event::Stage;
use crate::audit::ledger::frame;
use crate::audit::line::{Next, Places, insert};
use std::ops::Range;

/// A longer record stands for one message, in bytes: with the next one's parameters it could be longer than any may be.
const MAX_JOINED: usize = 64 * 1024;

/// The begin record that was prepared last.
#[derive(Debug)]
pub(super) struct Newest {
    event: u64,
    stage: Stage,
    /// Of the first message that it stands for.
    since: Stage,
    tagged: bool,
    /// Where its frame is among all that wait.
    frame: Range<usize>,
    places: Places,
}

impl Newest {
    pub fn of(begin: &Begin<'_>, frame: Range<usize>, places: Places) -> Self {
        let Begin { event, stage, tagged, .. } = *begin;
        Self { event, stage, since: stage, tagged, frame, places }
    }

    /// Whether the message's record would say nothing else but its portal and parameters.
    fn is_continued_by(&self, begin: &Begin<'_>) -> bool {
        let follows = matches!((self.stage, begin.stage), (Stage::Parse, Stage::Bind) | (Stage::Bind, Stage::Execute));
        let says_nothing = begin.text.is_none() && begin.text_of.is_none() && !begin.text_doubtful;
        let alike = self.event == begin.event && self.tagged == begin.tagged && begin.role_changes.is_empty();
        begin.goes_on && follows && alike && says_nothing && self.frame.len() <= MAX_JOINED
    }
}

impl Recorder {
    /// Puts the message into the record of the one before it, where that can stand for both: where that begins among the
    /// prepared ones. After an error it stands as it was, for the messages before, and nothing goes on with it.
    pub(super) fn join(&mut self, begin: &Begin<'_>) -> Option<Result<usize, Unrecorded>> {
        let end = self.frames.len();
        let mut newest = self.newest.take_if(|newest| newest.frame.end == end && newest.is_continued_by(begin))?;
        let joined = self.go_on(&mut newest, begin);
        Some(joined.map(|()| {
            let first = newest.frame.start.saturating_sub(self.owed);
            self.newest = Some(newest);
            first
        }))
    }

    /// After an error the record is as it was.
    fn go_on(&mut self, newest: &mut Newest, begin: &Begin<'_>) -> Result<(), Unrecorded> {
        let values = begin.parameters.map(|values| self.list(self.id(begin.event), values)).transpose()?;
        // An Execute's portal is its Bind's.
        let portal = super::name(begin.portal).filter(|_| begin.stage == Stage::Bind);
        let (portal, values) = (portal.as_deref(), &values.unwrap_or_default());
        let next = Next { stage: begin.stage, since: newest.since, portal, values }.encode()?;
        let open = frame::reopen(newest.frame.start);
        if !open.has_room(&self.frames, next.bytes()) {
            return Err(frame::too_long().into());
        }
        insert(&mut self.frames, open.record(), &mut newest.places, &next);
        let closed = open.close(&mut self.frames);
        debug_assert!(closed, "there was room");
        newest.stage = begin.stage;
        newest.frame.end = self.frames.len();
        Ok(())
    }
}

//! What of several sessions is written as one.

use super::{Durability, Recorder};

/// What is prepared is handed in for a group as long as it is no longer than this, in bytes: as a rule its copy is cheaper
/// than a write.
const MAX_IN_GROUP: usize = 16 * 1024;

impl Recorder {
    /// Hands in what is prepared, where it has to be written at once and nothing else is to be told first: other sessions'
    /// records may go out with it. Then nothing is prepared until [`Recorder::commit_group`] was asked.
    pub fn join_group(&mut self) -> bool {
        debug_assert!(self.group.is_none(), "one group at a time");
        let may = self.durability == Durability::Batch
            && self.pressing
            && (self.gap.is_none() && self.limited.is_none() && self.unwritable.is_none())
            && self.frames.len() <= MAX_IN_GROUP;
        self.group = if may { self.auditor.join(&self.frames) } else { None };
        self.group.is_some()
    }

    /// Whether what was handed in is in the log now, by whoever's write. Otherwise it is prepared as before, for
    /// [`Recorder::commit`].
    pub fn commit_group(&mut self) -> bool {
        let written = self.group.take().is_some_and(|group| self.auditor.log.commit(&group));
        if written {
            self.wrote(self.frames.len());
            self.done(true);
        }
        written
    }
}

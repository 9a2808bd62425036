//! Messages that were refused: what stands in the queue for them is a substitute that must fail at the server.

use super::copy::MAX_COPY_ENDS;
use super::{Desync, Entry, Kind, Tracker};
use crate::relay::substitute::Ends;
use crate::relay::substitute::{Name, Refusal, Refused};

/// A moment in the order of the client's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The next message that waits for an answer.
    pub order: u64,
    /// The next event.
    pub event: u64,
}

impl Tracker {
    /// Now.
    pub fn mark(&self) -> Mark {
        Mark { order: self.next_order, event: self.book.next() }
    }

    /// The place that the next message takes among those which wait for an answer; none while the server skips.
    pub fn place(&self) -> Option<u64> {
        (!self.skipping).then_some(self.next_order)
    }

    /// How an Execute of this portal would end a transaction, if it is certain that it does nothing else.
    pub fn portal_ends(&mut self, portal: &[u8]) -> Option<Ends> {
        let guess = self.portals.guess(portal, self.segment);
        let known = guess.meaning.as_deref().filter(|known| guess.certain && !known.doubtful && portal.is_empty());
        known.filter(|known| known.statement.is_empty()).and_then(|known| known.text.as_ref()?.ends)
    }

    /// The same of what a Bind of the unnamed statement would give.
    pub fn statement_ends(&mut self) -> Option<Ends> {
        let guess = self.statements.guess(b"", self.segment);
        let known = guess.meaning.as_deref().filter(|known| guess.certain && !known.doubtful);
        known.and_then(|known| known.text.ends)
    }

    /// The message at this place left as a substitute.
    pub fn refuse(&mut self, order: u64, refused: Refused) {
        if let Ok(at) = self.queue.binary_search_by_key(&order, |entry| entry.order)
            && let Some(entry) = self.queue.get_mut(at)
        {
            entry.refused = Some(Box::new(refused));
        }
    }

    /// Of what has begun since only these were recorded: of nothing else an end line must follow.
    pub fn forget_events(&mut self, since: Mark, but: &[u64]) {
        self.book.forget(since.event, but);
    }

    /// Whether the server is in copy-both mode, which only the end of the data or of the session ends: it takes no
    /// CopyFail (`ProcessRepliesIfAny`, `src/backend/replication/walsender.c`).
    pub fn copies_both_ways(&self) -> bool {
        let front = self.queue.front().map(|front| &front.kind);
        matches!(front, Some(Kind::Query { progress, .. }) if progress.copying && progress.both_ways)
    }

    /// COPY data is refused: which name the CopyFail in its place carries; `None` where no COPY can be running, so
    /// that the server would ignore the data. `since` is where the batch began: a CopyDone of it stands for the end.
    pub fn refuse_copy(&mut self, refusal: Refusal, since: Mark) -> Option<Name> {
        if !self.queue.iter().any(|entry| matches!(entry.kind, Kind::Query { .. } | Kind::Execute { .. })) {
            return None;
        }
        let ended = |entry: &Entry| entry.order >= since.order && matches!(entry.kind, Kind::CopyEnd);
        if !self.queue.iter().rev().any(ended) {
            self.copy_end();
        }
        if let Some(last) = self.refused_copies.last().filter(|_| self.refused_copies.len() >= MAX_COPY_ENDS) {
            return Some(last.name);
        }
        let refused = Refused { refusal, name: Name::draw() };
        self.refused_copies.push(refused);
        Some(refused.name)
    }

    /// Whether the server's next error answers a refused message: then why it was refused. `message` is the error's
    /// own; it is needed only where the message's place does not tell.
    pub fn refusal(&mut self, message: &[u8]) -> Option<Refusal> {
        self.drop_strays(b'E');
        let front = self.queue.front()?;
        if let Some(refused) = &front.refused {
            return Some(refused.refusal);
        }
        let (Kind::Query { progress, .. } | Kind::Execute { progress, .. }) = &front.kind else { return None };
        if !progress.copying {
            return None;
        }
        self.refused_copies.iter().find(|refused| refused.name.is_in(message)).map(|refused| refused.refusal)
    }

    /// Whether what the server works on is a substitute.
    pub fn works_on_substitute(&self) -> bool {
        self.queue.front().is_some_and(|front| front.refused.is_some())
    }

    /// Whether a notice quotes the substitute that the server works on.
    pub fn shows_substitute(&self, notice: &[u8]) -> bool {
        let refused = self.queue.front().and_then(|front| front.refused.as_ref());
        refused.is_some_and(|refused| refused.name.is_in(notice))
    }

    /// A substitute can do nothing but fail: any other answer to it is a server that cannot be followed.
    pub(super) fn must_fail(&mut self, answer: u8) -> Result<(), Desync> {
        if matches!(answer, b'N' | b'S' | b'A') {
            return Ok(());
        }
        self.drop_strays(answer);
        let Some(Entry { kind, refused: Some(_), .. }) = self.queue.front() else { return Ok(()) };
        match kind {
            Kind::Query { progress, .. } | Kind::FunctionCall { progress, .. }
                if answer == b'Z' && progress.failed.is_some() =>
            {
                Ok(())
            }
            _ => Err(Desync(answer)),
        }
    }
}

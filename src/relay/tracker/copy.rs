//! COPY FROM STDIN: what the server reads as part of it, and what it may have read of one that failed.
//!
//! The server takes COPY data up to `CopyDone` or `CopyFail` and ignores any Sync or Flush on the way; outside COPY it
//! ignores data and ends (`SocketBackend`, `src/backend/tcop/postgres.c`).

use super::{Desync, Entry, Kind, Tracker};

/// Syncs kept in one COPY FROM STDIN, at most: the server reads them as part of it, so nothing would drain them.
const MAX_COPY_SYNCS: usize = 16;
/// Ends of COPY kept in a row, at most: outside COPY the server answers none of them. As many COPYs from STDIN may
/// stand in one Query whose data is sent ahead.
pub(super) const MAX_COPY_ENDS: usize = 64;
/// Data, ends and Syncs in a row behind which no more data is counted: it belongs to no COPY.
pub(super) const MAX_COPY_RUN: usize = 2 * MAX_COPY_ENDS + MAX_COPY_SYNCS;

/// What a COPY that failed leaves open, until the server is ready for the next query.
#[derive(Debug, Default)]
pub(super) struct Unsure {
    /// Syncs at the queue's front that it may have read, so that they may have no answer.
    syncs: usize,
    /// And so that what follows may be skipped.
    skip: bool,
}

impl Tracker {
    /// `CopyDone` or `CopyFail`; with nothing outstanding the server ignores it.
    pub fn copy_end(&mut self) {
        self.copy_in = false;
        let ends = self.run_back().filter(|entry| matches!(entry.kind, Kind::CopyEnd)).take(MAX_COPY_ENDS).count();
        if !self.queue.is_empty() && ends < MAX_COPY_ENDS {
            self.push(Kind::CopyEnd);
        }
    }

    /// `CopyData` of `bytes` on the wire.
    pub fn copy_data(&mut self, bytes: u64) {
        if let Some(Entry { kind: Kind::CopyData { bytes: sum }, .. }) = self.queue.back_mut() {
            *sum = sum.saturating_add(bytes);
        } else if !self.queue.is_empty() && self.run_back().take(MAX_COPY_RUN).count() < MAX_COPY_RUN {
            self.push(Kind::CopyData { bytes });
        } else if self.copy_in
            && let Some(Kind::Query { event, .. } | Kind::Execute { event, .. }) =
                self.queue.front().map(|front| &front.kind)
        {
            // Behind so many Syncs it is still the COPY's own.
            self.book.add_input(*event, bytes);
        }
    }

    /// Whether a Sync need not be kept: COPY reads it, as it has read enough of them.
    pub(super) fn copy_has_syncs_enough(&self) -> bool {
        let is_sync = |entry: &&Entry| matches!(entry.kind, Kind::Sync);
        self.copy_in && self.run_back().filter(is_sync).take(MAX_COPY_SYNCS).count() >= MAX_COPY_SYNCS
    }

    /// `CopyInResponse` or `CopyBothResponse`: what the client sent behind the statement, up to its end, is read as COPY data.
    pub(super) fn copy_in_begins(&mut self, kind: u8, bytes: u64) -> Result<(), Desync> {
        self.progress(kind, |progress| {
            progress.copying = true;
            progress.both_ways = kind == b'W';
            progress.bytes_out = progress.bytes_out.saturating_add(bytes);
        })?;
        self.copy_in = !self.queue.iter().skip(1).any(|entry| matches!(entry.kind, Kind::CopyEnd));
        Ok(())
    }

    /// The COPY of an entry that was taken off the front is over: what the server read as part of it has no answer.
    pub(super) fn leave_copy(&mut self, front: &mut Entry, failed: bool) {
        let (Kind::Query { event, progress, .. } | Kind::Execute { event, progress, .. }) = &mut front.kind else {
            return;
        };
        if !std::mem::take(&mut progress.copying) {
            return;
        }
        let event = *event;
        let extended = matches!(front.kind, Kind::Execute { .. });
        self.copy_in = false;
        let (mut data, mut syncs, mut length) = (0_u64, 0_usize, 0_usize);
        for entry in &self.queue {
            match entry.kind {
                Kind::CopyData { bytes } => data = data.saturating_add(bytes),
                Kind::Sync => syncs = syncs.saturating_add(1),
                Kind::MalformedFlush => {}
                Kind::CopyEnd => {
                    length = length.saturating_add(1);
                    break;
                }
                _ => break,
            }
            length = length.saturating_add(1);
        }
        self.book.add_input(event, data);
        if failed {
            // Nobody can tell how many of them it had read by then, in their order.
            self.unsure = Unsure { syncs, skip: extended && syncs > 0 };
            self.lost |= self.queue.iter().any(Entry::is_more_than_sync) && self.may_be_skipped();
        } else {
            self.queue.drain(..length);
        }
    }

    /// If the failed COPY has read every Sync that might have ended the skipping, what follows is skipped; else it runs.
    /// A client that sends no further Sync before it makes the two look alike, and its records would be guesses.
    pub(super) fn may_be_skipped(&self) -> bool {
        let syncs = self.queue.iter().take_while(|entry| !entry.is_more_than_sync());
        self.unsure.skip && syncs.filter(|entry| matches!(entry.kind, Kind::Sync)).count() <= self.unsure.syncs
    }

    /// A `ReadyForQuery` came first after a COPY failed: as many Syncs as it may have read can be without an answer,
    /// and which ones cannot be told apart.
    pub(super) fn spread_doubt(&mut self, answered: &Kind) {
        let before = std::mem::take(&mut self.unsure);
        let mut unsure = if matches!(answered, Kind::MaybeSync) { 1 } else { before.syncs };
        for entry in &mut self.queue {
            match entry.kind {
                Kind::Sync if unsure > 0 => {
                    entry.kind = Kind::MaybeSync;
                    unsure = unsure.saturating_sub(1);
                }
                Kind::CopyData { .. } | Kind::CopyEnd => {}
                Kind::MaybeSync if matches!(answered, Kind::MaybeSync) => {}
                _ => break,
            }
        }
    }

    /// What at the front has no answer, when this one belongs to something behind it.
    pub(super) fn drop_strays(&mut self, answer: u8) {
        // Most of the time there is nothing of a COPY.
        while self.queue.front().is_some_and(|front| front.is_stray() && (front.is_of_copy() || answer != b'Z')) {
            self.queue.pop_front();
        }
    }

    /// The queue's end as far as COPY may read it, from the back.
    fn run_back(&self) -> impl Iterator<Item = &Entry> {
        self.queue.iter().rev().take_while(|entry| !entry.is_more_than_sync())
    }
}

//! What the server answers: each reply settles the queue's front.

use super::{Desync, Entry, Kind, Progress, Tracker, Unnamed};
use crate::audit::End;
use crate::audit::event::Outcome;
use std::sync::Arc;
use std::time::Instant;

/// SQLSTATE of a cancelled statement (`query_canceled`, `errcodes.txt`).
const QUERY_CANCELED: &str = "57014";

impl Tracker {
    /// A message from the server other than `ErrorResponse`: its type, its body as far as it is needed (whole for
    /// `CommandComplete` and `ReadyForQuery`), and its bytes on the wire.
    pub fn server(&mut self, kind: u8, body: &[u8], bytes: u64, now: Instant) -> Result<(), Desync> {
        match kind {
            // Notices, parameters and notifications answer nothing.
            b'N' | b'S' | b'A' => Ok(()),
            b'D' | b'd' | b'c' | b'H' => self.progress(kind, |progress| {
                progress.rows = progress.rows.saturating_add(u64::from(kind == b'D'));
                progress.bytes_out = progress.bytes_out.saturating_add(bytes);
            }),
            b'T' => self.row_description(bytes),
            b'1' | b'2' | b'3' | b'n' => self.answered(kind, now),
            b't' => self.describing(kind),
            b'C' => self.completed(command(body), bytes, now),
            b'I' => self.completed((None, None), bytes, now),
            b's' => self.suspended(now),
            b'G' => self.copy_in_begins(),
            b'V' => self.progress(kind, |progress| progress.bytes_out = progress.bytes_out.saturating_add(bytes)),
            b'Z' => self.ready(body.first().copied(), now),
            _ => Err(Desync(kind)),
        }
    }

    /// `ErrorResponse` with this SQLSTATE.
    pub fn server_error(&mut self, sqlstate: &str, now: Instant) {
        self.drop_strays(b'E');
        let Some(mut front) = self.queue.pop_front() else { return };
        let outcome = if sqlstate == QUERY_CANCELED { Outcome::Canceled } else { Outcome::Error };
        self.leave_copy(&mut front, true);
        match front.kind {
            Kind::Sync => {
                self.sync_errors.push(sqlstate.to_owned());
                self.queue.push_front(front);
                return;
            }
            Kind::Query { event, ref mut progress, .. } => {
                progress.failed = Some(sqlstate.to_owned());
                let end = self.book.part(event, progress, now);
                let failed = end.map(|end| End { outcome, sqlstate: progress.failed.clone(), ..end });
                self.hold(front, failed);
                return;
            }
            Kind::FunctionCall { ref mut progress, .. } => {
                progress.failed = Some(sqlstate.to_owned());
                self.queue.push_front(front);
                return;
            }
            Kind::Execute { event, ref mut progress } => {
                progress.failed = Some(sqlstate.to_owned());
                self.book.close(event, outcome, progress, now);
            }
            Kind::Parse { event, .. } | Kind::Bind { event, .. } => {
                let progress = Progress { failed: Some(sqlstate.to_owned()), ..Progress::default() };
                self.book.close(event, outcome, &progress, now);
            }
            // It has no event, but what ran before it in the same implicit transaction does not commit.
            Kind::Describe | Kind::CloseStatement { .. } | Kind::ClosePortal { .. } => {
                self.sync_errors.push(sqlstate.to_owned());
            }
            Kind::CopyEnd => {}
        }
        self.skip_to_sync(front, now);
    }

    /// Everything up to the next Sync is skipped, and what it would have named is as it was before.
    fn skip_to_sync(&mut self, failed: Entry, now: Instant) {
        let mut undone = vec![failed];
        while let Some(entry) = self.queue.pop_front() {
            if matches!(entry.kind, Kind::Sync) {
                self.queue.push_front(entry);
                break;
            }
            match entry.kind {
                Kind::Query { event, .. }
                | Kind::Parse { event, .. }
                | Kind::Bind { event, .. }
                | Kind::Execute { event, .. }
                | Kind::FunctionCall { event, .. } => {
                    self.book.close(event, Outcome::Skipped, &Progress::default(), now);
                }
                _ => {}
            }
            undone.push(entry);
        }
        self.skipping = self.queue.is_empty();
        for (back, entry) in undone.into_iter().enumerate().rev() {
            // A Parse that failed has dropped the unnamed statement all the same (`drop_unnamed_stmt`).
            let keep = back > 0 || !matches!(&entry.kind, Kind::Parse { name, .. } if name.is_empty());
            self.undo(entry, keep);
        }
    }

    /// Takes back what a message that did not succeed was expected to change.
    fn undo(&mut self, entry: Entry, keep: bool) {
        match entry.kind {
            Kind::Query { previous, .. } => {
                let unnamed: Arc<[u8]> = Arc::from([]);
                let Unnamed { statement, portal } = *previous;
                if let Some(statement) = statement {
                    self.statements.entry(Arc::clone(&unnamed)).or_insert(statement);
                }
                if let Some(portal) = portal {
                    self.portals.entry(unnamed).or_insert(portal);
                }
            }
            Kind::Parse { name, previous, .. } => {
                let own = self.statements.get(&name).is_some_and(|now| now.order == entry.order);
                match previous.filter(|_| keep) {
                    Some(previous) if own => drop(self.statements.insert(name, previous)),
                    None if own => drop(self.statements.remove(&name)),
                    _ => {}
                }
            }
            Kind::Bind { portal, previous, .. } => {
                let own = self.portals.get(&portal).is_some_and(|now| now.order == entry.order);
                match previous {
                    Some(previous) if own => drop(self.portals.insert(portal, previous)),
                    None if own => drop(self.portals.remove(&portal)),
                    _ => {}
                }
            }
            Kind::CloseStatement { name, previous: Some(previous) } => {
                self.statements.entry(name).or_insert(previous);
            }
            Kind::ClosePortal { name, previous: Some(previous) } => {
                self.portals.entry(name).or_insert(previous);
            }
            _ => {}
        }
    }

    /// `ParseComplete`, `BindComplete`, `CloseComplete`, `NoData`.
    fn answered(&mut self, kind: u8, now: Instant) -> Result<(), Desync> {
        let entry = self.take_front(kind, |front| {
            matches!(
                (kind, front),
                (b'1', Kind::Parse { .. })
                    | (b'2', Kind::Bind { .. })
                    | (b'3', Kind::CloseStatement { .. } | Kind::ClosePortal { .. })
                    | (b'n', Kind::Describe)
            )
        })?;
        if let Kind::Parse { event, .. } | Kind::Bind { event, .. } = entry.kind {
            self.book.answered(event, now);
        }
        Ok(())
    }

    /// `ParameterDescription`: the Describe's second message is still to come.
    fn describing(&mut self, kind: u8) -> Result<(), Desync> {
        self.drop_strays(kind);
        match self.queue.front() {
            Some(Entry { kind: Kind::Describe, .. }) => Ok(()),
            _ => Err(Desync(kind)),
        }
    }

    /// `RowDescription` answers a Describe, or heads a Query's rows.
    fn row_description(&mut self, bytes: u64) -> Result<(), Desync> {
        self.drop_strays(b'T');
        if let Some(Entry { kind: Kind::Describe, .. }) = self.queue.front() {
            self.queue.pop_front();
            return Ok(());
        }
        self.progress(b'T', |progress| progress.bytes_out = progress.bytes_out.saturating_add(bytes))
    }

    /// `CommandComplete` or `EmptyQueryResponse`.
    fn completed(
        &mut self,
        (command, rows): (Option<String>, Option<u64>),
        bytes: u64,
        now: Instant,
    ) -> Result<(), Desync> {
        let mut front = self.take_front(b'C', |front| matches!(front, Kind::Query { .. } | Kind::Execute { .. }))?;
        self.leave_copy(&mut front, false);
        if let Some(command) = &command {
            self.names_changed(command, now);
        }
        if let Kind::Query { progress, .. } | Kind::Execute { progress, .. } = &mut front.kind {
            progress.rows = rows.unwrap_or(progress.rows);
            progress.bytes_out = progress.bytes_out.saturating_add(bytes);
        }
        match &front.kind {
            Kind::Query { event, progress, .. } => {
                let end = self.book.part(*event, progress, now).map(|end| End { command, ..end });
                self.hold(front, end);
            }
            Kind::Execute { event, progress } => self.book.complete(*event, progress, command, now),
            _ => {}
        }
        Ok(())
    }

    /// Keeps a Query's newest end line back, gives out the one before it, and starts the next part.
    fn hold(&mut self, mut front: Entry, end: Option<End>) {
        if let Kind::Query { progress, .. } = &mut front.kind {
            let failed = progress.failed.take();
            let part = progress.part.saturating_add(1);
            if let Some(before) = progress.held.take() {
                self.book.release(before);
            }
            *progress = Progress { part, held: end, failed, ..Progress::default() };
        }
        self.queue.push_front(front);
    }

    /// `PortalSuspended`.
    fn suspended(&mut self, now: Instant) -> Result<(), Desync> {
        let front = self.take_front(b's', |front| matches!(front, Kind::Execute { .. }))?;
        if let Kind::Execute { event, progress } = &front.kind {
            self.book.close(*event, Outcome::Suspended, progress, now);
        }
        Ok(())
    }

    /// `ReadyForQuery` ends a Sync, a Query or a FunctionCall.
    fn ready(&mut self, status: Option<u8>, now: Instant) -> Result<(), Desync> {
        self.status = status;
        self.rounds = self.rounds.saturating_add(1);
        let front = self
            .take_front(b'Z', |front| matches!(front, Kind::Sync | Kind::Query { .. } | Kind::FunctionCall { .. }))?;
        if self.queue.is_empty() {
            self.uncertain_syncs = 0;
        }
        match front.kind {
            Kind::Query { event, mut progress, .. } => match progress.held.take() {
                Some(held) => self.book.finish_query(event, held),
                None => self.book.close(event, Outcome::Unknown, &progress, now),
            },
            Kind::FunctionCall { event, progress } => {
                let outcome = if progress.failed.is_some() { Outcome::Error } else { Outcome::Ok };
                self.book.close(event, outcome, &progress, now);
            }
            _ => {}
        }
        if status == Some(b'I') {
            self.close_portals(front.order, now);
        }
        Ok(())
    }

    /// A transaction's end closes its portals; those bound after it stay.
    fn close_portals(&mut self, before: u64, now: Instant) {
        let book = &mut self.book;
        self.portals.retain(|_, portal| {
            if portal.order > before {
                return true;
            }
            if let Some(event) = portal.event.take() {
                book.abandon(event, now);
            }
            false
        });
    }

    /// `CopyInResponse`: what the client sent behind the statement, up to its CopyDone, is read as COPY data.
    fn copy_in_begins(&mut self) -> Result<(), Desync> {
        self.progress(b'G', |progress| progress.copying = true)?;
        let mut ended = false;
        for entry in self.queue.iter_mut().skip(1) {
            if matches!(entry.kind, Kind::CopyEnd) {
                ended = true;
                break;
            }
            entry.in_copy = true;
        }
        self.copy_in = !ended;
        Ok(())
    }

    /// The COPY of the front entry is over: what the server read as part of it has no answer. After a failure
    /// nobody can tell which Syncs it had read by then: they stay, and may turn out to be answered or not.
    fn leave_copy(&mut self, front: &mut Entry, failed: bool) {
        let (Kind::Query { event, progress, .. } | Kind::Execute { event, progress }) = &mut front.kind else { return };
        if !std::mem::take(&mut progress.copying) {
            return;
        }
        self.book.add_input(*event, std::mem::take(&mut self.copy_bytes));
        self.copy_in = false;
        let syncs = self.queue.iter().take_while(|next| next.in_copy && matches!(next.kind, Kind::Sync)).count();
        if failed {
            self.uncertain_syncs = self.uncertain_syncs.saturating_add(syncs);
            return;
        }
        self.queue.drain(..syncs);
        if let Some(Entry { kind: Kind::CopyEnd, .. }) = self.queue.front() {
            self.queue.pop_front();
        }
    }

    /// SQL can give and take names too: what they mean is doubtful then, and no Parse's or Bind's event goes on.
    fn names_changed(&mut self, command: &str, now: Instant) {
        let mut abandoned = Vec::new();
        if matches!(command, "PREPARE" | "DEALLOCATE" | "DEALLOCATE ALL" | "DISCARD ALL") {
            for (_, known) in self.statements.iter_mut().filter(|(name, _)| !name.is_empty()) {
                known.doubtful = true;
                abandoned.extend(known.event.take());
            }
        }
        if matches!(command, "DECLARE CURSOR" | "CLOSE CURSOR" | "CLOSE CURSOR ALL" | "DISCARD ALL") {
            for (_, known) in self.portals.iter_mut().filter(|(name, _)| !name.is_empty()) {
                known.doubtful = true;
                abandoned.extend(known.event.take());
            }
        }
        for event in abandoned {
            self.book.abandon(event, now);
        }
        if matches!(command, "DEALLOCATE ALL" | "DISCARD ALL") {
            // Those whose Parse is still on its way to the server stay.
            let first = self.queue.front().map_or(self.next_order, |entry| entry.order);
            self.statements.retain(|name, known| name.is_empty() || known.order >= first);
        }
    }

    fn progress(&mut self, kind: u8, change: impl FnOnce(&mut Progress)) -> Result<(), Desync> {
        self.drop_strays(kind);
        match self.queue.front_mut().map(|front| &mut front.kind) {
            Some(
                Kind::Query { progress, .. } | Kind::Execute { progress, .. } | Kind::FunctionCall { progress, .. },
            ) => {
                change(progress);
                Ok(())
            }
            _ => Err(Desync(kind)),
        }
    }

    fn take_front(&mut self, kind: u8, fits: impl FnOnce(&Kind) -> bool) -> Result<Entry, Desync> {
        self.drop_strays(kind);
        match self.queue.front() {
            Some(front) if fits(&front.kind) => self.queue.pop_front().ok_or(Desync(kind)),
            _ => Err(Desync(kind)),
        }
    }

    /// Outside COPY the server ignores CopyDone and CopyFail; and a Sync that a failed COPY had read is answered by
    /// no `ReadyForQuery`, which shows when another answer comes in its place.
    fn drop_strays(&mut self, answer: u8) {
        while let Some(front) = self.queue.front() {
            match front.kind {
                Kind::CopyEnd => {}
                Kind::Sync if self.uncertain_syncs > 0 && answer != b'Z' && answer != b'E' => {
                    self.uncertain_syncs = self.uncertain_syncs.saturating_sub(1);
                }
                _ => break,
            }
            self.queue.pop_front();
        }
    }
}

/// `CommandComplete`'s tag: the command's words and the number at its end (`SELECT 5`, `INSERT 0 5`, `COPY 5`).
fn command(body: &[u8]) -> (Option<String>, Option<u64>) {
    let tag = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned();
    let rows = tag.rsplit(' ').next().and_then(|last| last.parse().ok());
    let words = tag.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ');
    (Some(words.to_owned()), rows)
}

//! What the server answers: each reply settles the queue's front.

use super::book::Done;
use super::{Desync, Entry, Kind, Progress, Tracker};
use crate::audit::End;
use crate::audit::event::Outcome;
use std::borrow::Cow;
use std::time::Instant;

/// SQLSTATE of a cancelled statement (`query_canceled`, `errcodes.txt`).
const QUERY_CANCELED: &str = "57014";

/// How many messages' room is kept when none is outstanding.
const KEPT_QUEUE: usize = 1024;

/// `CommandComplete`'s tag: the command's words, and the number at its end.
type Command = (Option<Cow<'static, str>>, Option<u64>);

/// The words of most commands.
const COMMON: [&str; 7] = ["SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT", "ROLLBACK"];

impl Tracker {
    /// A message from the server other than `ErrorResponse`: its type, its body as far as it is needed (whole for
    /// `CommandComplete` and `ReadyForQuery`), and its bytes on the wire.
    pub fn server(&mut self, kind: u8, body: &[u8], bytes: u64, now: Instant) -> Result<(), Desync> {
        self.must_fail(kind)?;
        match kind {
            _ if self.lost => Err(Desync(kind)),
            // Notices, parameters and notifications answer nothing.
            b'N' | b'S' | b'A' => Ok(()),
            b'D' | b'd' => self.rows(kind, 1, bytes, now),
            b'c' | b'H' | b'V' => self.progress(kind, |progress| {
                progress.bytes_out = progress.bytes_out.saturating_add(bytes);
            }),
            b'T' => self.row_description(bytes),
            b'1' | b'2' | b'3' | b'n' => self.answered(kind, now),
            b't' => self.describing(kind),
            b'C' => self.completed(command(body), bytes, now),
            b'I' => self.completed((None, None), bytes, now),
            b's' => self.suspended(bytes, now),
            // In copy-both mode the client's data is read as in COPY FROM STDIN (`ProcessRepliesIfAny`, `walsender.c`).
            b'G' | b'W' => self.copy_in_begins(kind, bytes),
            b'Z' => self.ready(body.first().copied(), now),
            _ => Err(Desync(kind)),
        }
    }

    /// So many `DataRow`s or `CopyData` in a row, of so many bytes on the wire together.
    pub fn server_rows(&mut self, kind: u8, count: u64, bytes: u64, now: Instant) -> Result<(), Desync> {
        self.must_fail(kind)?;
        if self.lost { Err(Desync(kind)) } else { self.rows(kind, count, bytes, now) }
    }

    fn rows(&mut self, kind: u8, count: u64, bytes: u64, now: Instant) -> Result<(), Desync> {
        self.progress(kind, |progress| {
            progress.rows = progress.rows.saturating_add(if kind == b'D' { count } else { 0 });
            progress.first_row.get_or_insert(now);
            progress.bytes_out = progress.bytes_out.saturating_add(bytes);
        })
    }

    /// `ErrorResponse` with this SQLSTATE.
    pub fn server_error(&mut self, sqlstate: &str, now: Instant) {
        let outcome = if sqlstate == QUERY_CANCELED { Outcome::Canceled } else { Outcome::Error };
        self.failed(sqlstate, outcome, now);
    }

    /// `ErrorResponse` to a substitute ([`Tracker::refusal`]); the client is told this SQLSTATE instead.
    pub fn server_refused(&mut self, sqlstate: &str, now: Instant) {
        self.failed(sqlstate, Outcome::Refused, now);
    }

    /// The server's last word, with this SQLSTATE. Where a Query or FunctionCall has failed already, it is not about that:
    /// the server works on nothing.
    pub fn server_fatal(&mut self, sqlstate: &str, now: Instant) {
        self.drop_strays(b'E');
        let over = match self.queue.front().map(|front| &front.kind) {
            Some(Kind::Query { progress, .. } | Kind::FunctionCall { progress, .. }) => progress.failed.is_some(),
            _ => false,
        };
        if !over {
            self.server_error(sqlstate, now);
        }
    }

    fn failed(&mut self, sqlstate: &str, outcome: Outcome, now: Instant) {
        self.drop_strays(b'E');
        let Some(mut front) = self.queue.pop_front() else { return };
        self.leave_copy(&mut front, true);
        self.settle_text(&front);
        match front.kind {
            Kind::Sync => {
                self.book.sync_error(sqlstate);
                self.queue.push_front(front);
                return;
            }
            Kind::Query { event, ref mut progress, .. } => {
                progress.failed = Some(sqlstate.to_owned());
                let end = self.book.part(event, progress, now);
                let failed = end.map(|end| End { outcome, sqlstate: progress.failed.clone(), ..end });
                self.unnamed_portal_in_doubt(sqlstate, now);
                self.hold(front, failed);
                return;
            }
            Kind::FunctionCall { ref mut progress, .. } => {
                progress.failed = Some(sqlstate.to_owned());
                self.queue.push_front(front);
                return;
            }
            Kind::Execute { event, ref mut progress, .. } => {
                progress.failed = Some(sqlstate.to_owned());
                self.book.close(event, outcome, progress, now);
            }
            Kind::Parse { event, .. } | Kind::Bind { event, .. } => {
                let progress = Progress { failed: Some(sqlstate.to_owned()), ..Progress::default() };
                self.book.close(event, outcome, &progress, now);
            }
            // It has no event, but what ran before it in the same implicit transaction does not commit.
            Kind::Describe | Kind::MalformedFlush | Kind::CloseStatement { .. } | Kind::ClosePortal { .. } => {
                self.book.sync_error(sqlstate);
            }
            Kind::MaybeSync | Kind::CopyData { .. } | Kind::CopyEnd => {}
        }
        self.cancel(&front);
        if matches!(&front.kind, Kind::Bind { portal, .. } if portal.is_empty()) {
            self.unnamed_portal_in_doubt(sqlstate, now);
        }
        self.skip_to_sync(now);
    }

    /// Everything up to the next Sync is skipped, and what it would have named is as it was before.
    fn skip_to_sync(&mut self, now: Instant) {
        while let Some(entry) = self.queue.pop_front() {
            match entry.kind {
                Kind::Sync | Kind::MaybeSync => {
                    self.queue.push_front(entry);
                    return;
                }
                Kind::Query { event, .. }
                | Kind::Parse { event, .. }
                | Kind::Bind { event, .. }
                | Kind::Execute { event, .. }
                | Kind::FunctionCall { event, .. } => {
                    self.book.close(event, Outcome::Skipped, &Progress::default(), now);
                }
                _ => {}
            }
            self.cancel(&entry);
        }
        self.skipping = true;
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
        self.settle_text(&entry);
        self.confirm(&entry, now);
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
    fn completed(&mut self, (command, rows): Command, bytes: u64, now: Instant) -> Result<(), Desync> {
        let mut front = self.take_front(b'C', |front| matches!(front, Kind::Query { .. } | Kind::Execute { .. }))?;
        self.leave_copy(&mut front, false);
        self.settle_text(&front);
        self.succeeded = self.succeeded.saturating_add(u64::from(command.is_some()));
        if let Kind::Query { .. } = front.kind {
            self.unnamed_ended(command.is_some(), now);
        }
        let (text, first) = match &front.kind {
            Kind::Query { text, progress, .. } => (text.clone(), progress.part == 0),
            Kind::Execute { portal, .. } => (self.text_of_portal(portal), true),
            _ => (None, false),
        };
        let contradicted = match (&front.kind, command.as_deref()) {
            (Kind::Execute { .. }, Some(tag)) => text.as_ref().is_some_and(|text| !text.may_end_as(tag)),
            // Of a portal whose Bind failed nothing runs (`exec_execute_message`: it has no command tag yet).
            (Kind::Execute { .. }, None) => text.as_ref().is_none_or(|text| text.says_something()),
            _ => false,
        };
        if contradicted && command.is_some() {
            // SQL that nobody sees has changed what names mean.
            self.statements.doubt();
            self.portals.doubt();
        }
        let executes = self.names_changed(command.as_deref(), text.filter(|_| first && !contradicted), now);
        if let Kind::Query { progress, .. } | Kind::Execute { progress, .. } = &mut front.kind {
            progress.rows = rows.unwrap_or(progress.rows);
            progress.bytes_out = progress.bytes_out.saturating_add(bytes);
        }
        match &front.kind {
            Kind::Query { event, progress, .. } => {
                self.further = self.further.saturating_add(u64::from(progress.part > 0));
                let end = self.book.part(*event, progress, now).map(|end| End { executes, command, ..end });
                self.hold(front, end);
            }
            Kind::Execute { event, progress, .. } => {
                self.book.complete(*event, progress, Done { command, executes, contradicted }, now);
            }
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
    fn suspended(&mut self, bytes: u64, now: Instant) -> Result<(), Desync> {
        let mut front = self.take_front(b's', |front| matches!(front, Kind::Execute { .. }))?;
        self.settle_text(&front);
        if let Kind::Execute { event, progress, .. } = &mut front.kind {
            progress.bytes_out = progress.bytes_out.saturating_add(bytes);
            self.book.close(*event, Outcome::Suspended, progress, now);
        }
        Ok(())
    }

    /// `ReadyForQuery` ends a Sync, a Query or a FunctionCall.
    fn ready(&mut self, status: Option<u8>, now: Instant) -> Result<(), Desync> {
        let fits = |front: &Kind| {
            matches!(front, Kind::Sync | Kind::MaybeSync | Kind::Query { .. } | Kind::FunctionCall { .. })
        };
        let front = self.take_front(b'Z', fits)?;
        self.status = status;
        self.succeeded = 0;
        self.rounds = self.rounds.saturating_add(1);
        self.synced = front.order.saturating_add(1);
        self.spread_doubt(&front.kind);
        if !self.is_busy() {
            self.refused_copies.clear();
        }
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT_QUEUE);
        }
        match front.kind {
            Kind::Query { event, mut progress, .. } => match progress.held.take() {
                Some(held) => self.book.finish_query(event, held),
                None => self.book.close(event, Outcome::Unknown, &progress, now),
            },
            Kind::FunctionCall { event, progress } => {
                let outcome = match progress.failed.as_deref() {
                    Some(_) if front.refused.is_some() => Outcome::Refused,
                    Some(QUERY_CANCELED) => Outcome::Canceled,
                    Some(_) => Outcome::Error,
                    None => Outcome::Ok,
                };
                self.book.close(event, outcome, &progress, now);
            }
            _ => {}
        }
        if status == Some(b'I') {
            self.transaction_ended(now);
        }
        Ok(())
    }

    pub(super) fn progress(&mut self, kind: u8, change: impl FnOnce(&mut Progress)) -> Result<(), Desync> {
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
}

/// `CommandComplete`'s tag: the command's words and the number at its end (`SELECT 5`, `INSERT 0 5`, `COPY 5`).
fn command(body: &[u8]) -> Command {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    let last = tag.rsplit(|byte| *byte == b' ').next().and_then(|last| std::str::from_utf8(last).ok());
    let end = tag.iter().rposition(|byte| !byte.is_ascii_digit() && *byte != b' ');
    let words = end.and_then(|end| tag.get(..=end)).unwrap_or_default();
    let common = COMMON.iter().find(|common| common.as_bytes() == words);
    let words =
        common.map_or_else(|| String::from_utf8_lossy(words).into_owned().into(), |common| Cow::Borrowed(*common));
    (Some(words), last.and_then(|last| last.parse().ok()))
}

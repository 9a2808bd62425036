//! Which execution does each answer belong to: the messages a client sent, matched with the server's replies.
//!
//! Pure: bytes are judged elsewhere, time is an argument. The client's messages are queued in the order they are
//! forwarded; each reply of the server settles the queue's front, as `PostgresMain` (`src/backend/tcop/postgres.c`)
//! works through them: after an error in the extended protocol everything up to the next Sync is skipped; during
//! COPY FROM STDIN, Sync and Flush are ignored (`CopyGetData`, `copyfromparse.c`).
//!
//! One event is one execution: a Parse opens an event, the first Bind of it continues the event, the first Execute
//! of that portal too. A further Bind or Execute opens a new one. What is never executed ends as `bound` or `parsed`.
//!
//! Invariant: no execution is attributed to a text that did not run, as far as names change by the client's own messages
//! and statements. A begin line is written before the answers to what was sent ahead of it are known; where a name could
//! mean one of several texts by then, or none that is known, the line says that its text is doubtful, nothing is
//! continued, and the end line names the text that it was. SQL within a function can give and take names that nobody
//! sees from outside: what such a name runs has no text here, or shows by a command tag that the text cannot end with
//! (then the end line says that the text is doubtful), or, where both are of a kind, passes for the earlier text.

mod acting;
mod book;
mod changes;
mod client;
mod copy;
mod names;
mod refuse;
mod server;
mod sql;

use crate::audit::event::{Event, Outcome, RoleChange, Stage};
use crate::audit::{End, Recorder, TextDigest};
use crate::relay::substitute::Ends;
use crate::relay::substitute::Refused;
pub use acting::role_changes;
use book::Book;
use names::{Hashing, Names};
pub use refuse::Mark;
use sql::Effect;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

/// Messages that wait for an answer, at most; past it the client is not read until the server has caught up.
pub const MAX_OUTSTANDING: usize = 65_536;
/// Prepared statements and portals of one session, at most.
pub const MAX_REMEMBERED: usize = 250_000;
/// Text of prepared statements kept in memory for one session, in bytes; past it their SHA-256 and lengths are.
pub const MAX_REMEMBERED_TEXT: usize = 4 * 1024 * 1024;

/// What a remembered [`RoleChange`] counts there, in bytes: its members and the longest name.
const CHANGE_BYTES: usize = 128;

/// What the log is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// An event ended, or a statement of it.
    End(End),
    /// SQLSTATE of an error that the server raised at what is no event: at Sync itself, at a Describe or a Close. What ran
    /// before it in the same implicit transaction does not commit.
    SyncError(String),
}

/// The server's answer fits nothing that the client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's message {:?} answers nothing the client sent", char::from(*.0))]
pub struct Desync(pub u8);

/// Where PostgreSQL cuts the names of prepared statements and portals, in bytes: its hash tables compare that much
/// (`NAMEDATALEN - 1`; `InitQueryHashTable`, `src/backend/commands/prepare.c`).
const MAX_NAME: usize = crate::names::MAX_IDENTIFIER_BYTES;
/// A prepared statement's text as far as it is remembered.
#[derive(Debug)]
pub struct StatementText {
    /// Its start; empty once the session's budget is spent.
    pub head: Box<[u8]>,
    /// Its whole length in bytes.
    pub bytes: u64,
    /// The event that brought it: its begin line has more of it.
    pub event: u64,
    /// What its first statement may do to other names.
    effect: Effect,
    /// What it says of who the session acts as.
    pub role_changes: Box<[RoleChange]>,
    /// It ends a transaction and does nothing else.
    ends: Option<Ends>,
    /// Where in `head` its first word stands.
    verb: Range<usize>,
    /// The batch of begin lines that repeated it last.
    repeated_in: AtomicU64,
    /// What it is known by, once that is worked out: where the record does not hold it whole.
    digest: OnceLock<Arc<TextDigest>>,
    budget: Arc<AtomicUsize>,
}

impl Drop for StatementText {
    fn drop(&mut self) {
        self.budget.fetch_sub(weight(&self.head, &self.role_changes), Ordering::Relaxed);
    }
}

/// What is remembered of a text, in bytes.
fn weight(head: &[u8], role_changes: &[RoleChange]) -> usize {
    head.len().saturating_add(role_changes.len().saturating_mul(CHANGE_BYTES))
}

/// A name as PostgreSQL compares it.
pub fn effective_name(name: &[u8]) -> &[u8] {
    name.get(..MAX_NAME).unwrap_or(name)
}

/// A Bind's or Execute's place: which event, and what to say when it opens one.
#[derive(Debug)]
pub struct Place {
    /// Number of the event.
    pub event: u64,
    /// The statement's text, when a new event opens on a remembered one.
    pub text: Option<Arc<StatementText>>,
    /// The statement's name, as far as known.
    pub statement: Arc<[u8]>,
    /// The name may mean another text by the time the server gets there, or no text is known that it could mean.
    pub doubtful: bool,
    /// Whether a text is known that it could mean.
    pub meaning: Meaning,
    /// The server skips it.
    pub skipped: bool,
    /// It ends a transaction and can do nothing else: of the unnamed statement and portal, which SQL cannot change, and
    /// whose text is certain.
    pub ends: Option<Ends>,
}

impl Place {
    /// No text is known that the name could mean.
    pub fn is_unknown(&self) -> bool {
        self.meaning == Meaning::Unknown
    }
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A text that it means, or may mean.
    Known,
    /// Nothing.
    Unknown,
}

impl Meaning {
    fn of(text: Option<&Arc<StatementText>>) -> Self {
        if text.is_some() { Self::Known } else { Self::Unknown }
    }
}

/// What a Close or Describe names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `S`
    Statement,
    /// `P`
    Portal,
}

/// One session's bookkeeping.
#[derive(Debug, Default)]
pub struct Tracker {
    queue: VecDeque<Entry>,
    book: Book,
    statements: Names<Statement>,
    portals: Names<Portal>,
    /// Bytes of text that are remembered; each [`StatementText`] gives its own back.
    remembered_text: Arc<AtomicUsize>,
    /// The text that was remembered last: what it is known by may be worked out later.
    newest_text: Weak<StatementText>,
    next_order: u64,
    /// Syncs that the client has sent: what stands between two of them fails together.
    segment: u64,
    /// The last message whose SQL may change what names mean.
    last_sql: Option<u64>,
    /// After an error: until the client's next Sync everything is skipped.
    skipping: bool,
    /// The server reads COPY data and the client has not ended it yet.
    copy_in: bool,
    /// Each CopyFail that left in place of COPY data, while something waits for an answer.
    refused_copies: Vec<Refused>,
    unsure: copy::Unsure,
    /// Which answer belongs to what can no longer be told.
    lost: bool,
    status: Option<u8>,
    /// Statements that succeeded since the last `ReadyForQuery`.
    succeeded: u64,
    /// `ReadyForQuery` messages so far.
    rounds: u64,
    /// The number behind the message that the last of them answered.
    synced: u64,
    /// Statements that were the second or a later one of their Query.
    further: u64,
}

#[derive(Debug)]
struct Entry {
    order: u64,
    /// It left as a substitute.
    refused: Option<Box<Refused>>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// With its text where that gives, uses or takes a name.
    Query {
        event: u64,
        progress: Progress,
        text: Option<Arc<StatementText>>,
    },
    Parse {
        event: u64,
        name: Arc<[u8]>,
    },
    Bind {
        event: u64,
        portal: Arc<[u8]>,
        statement: Arc<[u8]>,
        said: Said,
    },
    Execute {
        event: u64,
        portal: Arc<[u8]>,
        progress: Progress,
        said: Said,
    },
    FunctionCall {
        event: u64,
        progress: Progress,
    },
    Describe,
    /// A Flush with something in it, which the server refuses; a right one is answered by nothing.
    MalformedFlush,
    CloseStatement {
        name: Arc<[u8]>,
    },
    ClosePortal {
        name: Arc<[u8]>,
    },
    Sync,
    /// A Sync that a failed COPY has read, or not: it may have no answer.
    MaybeSync,
    /// COPY data in a row, in bytes on the wire.
    CopyData {
        bytes: u64,
    },
    /// `CopyDone` or `CopyFail`.
    CopyEnd,
}

/// The event of the text that a begin line was sure of.
type Said = Option<u64>;

/// What the server has answered so far to one Query, Execute or FunctionCall.
#[derive(Debug, Default)]
struct Progress {
    rows: u64,
    first_row: Option<Instant>,
    bytes_out: u64,
    part: u32,
    copying: bool,
    /// In copy-both mode.
    both_ways: bool,
    /// A Query's latest end line: held until it is known whether another one follows.
    held: Option<End>,
    failed: Option<String>,
}

#[derive(Debug)]
struct Statement {
    /// The event of its Parse, until a Bind continues it.
    event: Option<u64>,
    text: Arc<StatementText>,
    doubtful: bool,
}

#[derive(Debug)]
struct Portal {
    /// The event of its Bind, until an Execute continues it.
    event: Option<u64>,
    statement: Arc<[u8]>,
    text: Option<Arc<StatementText>>,
    doubtful: bool,
}

impl Tracker {
    /// A session that has just logged in.
    pub fn new() -> Self {
        // One message at a time is what most sessions send.
        Self { status: Some(b'I'), queue: VecDeque::with_capacity(1), ..Self::default() }
    }

    /// The same, with names hashed alike in every process: two runs of one script do the same. Not for sessions, whose
    /// clients could make their names collide.
    pub fn reproducible() -> Self {
        let by = Hashing::Fixed;
        Self { statements: Names::hashed(&by), portals: Names::hashed(&by), ..Self::new() }
    }

    /// Lines that are ready, in the order in which the server settled what they tell.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        self.book.take_settled()
    }

    /// The room of lines that were told, for the next ones.
    pub fn give_back(&mut self, settled: Vec<Settled>) {
        self.book.give_back(settled);
    }

    /// Statements that have run since it was last asked, beside the first of each Query.
    pub fn take_further(&mut self) -> u64 {
        std::mem::take(&mut self.further)
    }

    /// Whether the client must wait until the server has answered.
    pub fn is_full(&self) -> bool {
        // What COPY reads has no answer: held back, both sides would wait for each other.
        let room = if self.copy_in { copy::MAX_COPY_RUN } else { 0 };
        self.queue.len() >= MAX_OUTSTANDING.saturating_add(room)
    }

    /// Whether too many statements and portals are open.
    pub fn is_overfull(&self) -> bool {
        self.statements.len().saturating_add(self.portals.len()) >= MAX_REMEMBERED
    }

    /// Nothing is outstanding and no transaction is open: the session can end without harm.
    pub fn is_idle(&self) -> bool {
        !self.is_busy() && self.status == Some(b'I') && !self.skipping
    }

    /// Nothing is outstanding and a transaction is open: one that was begun, or what the client sent since the last
    /// `ReadyForQuery` without a Sync.
    pub fn is_idle_in_transaction(&self) -> bool {
        !self.is_busy() && (self.status != Some(b'I') || self.next_order > self.synced)
    }

    /// Whether the server owes an answer.
    pub fn is_busy(&self) -> bool {
        self.queue.iter().any(|entry| !entry.is_stray())
    }

    /// Which round the server works on, `None` when it owes nothing: all that is sent up to a Sync or a Query is
    /// one round, as the server answers it with one `ReadyForQuery`.
    pub fn outstanding(&self) -> Option<u64> {
        self.is_busy().then_some(self.rounds)
    }

    /// The session is over: what is open ends as `parsed`, `bound` or, where the server owed an answer, `unknown`.
    pub fn finish(&mut self, now: Instant) {
        for entry in std::mem::take(&mut self.queue) {
            match entry.kind {
                Kind::Query { event, mut progress, .. } => match progress.held.take() {
                    // After an error nothing of the Query follows; after a completion there may have been more.
                    Some(held) if progress.failed.is_some() => self.book.finish_query(event, held),
                    held => {
                        if let Some(held) = held {
                            self.book.release(held);
                        }
                        self.book.close(event, Outcome::Unknown, &progress, now);
                    }
                },
                Kind::FunctionCall { event, progress } | Kind::Execute { event, progress, .. } => {
                    self.book.close(event, Outcome::Unknown, &progress, now);
                }
                Kind::Parse { event, .. } | Kind::Bind { event, .. } => {
                    self.book.close(event, Outcome::Unknown, &Progress::default(), now);
                }
                _ => {}
            }
        }
        self.statements = Names::default();
        self.portals = Names::default();
        self.book.close_all(now);
    }

    /// The transaction had failed, and nothing has ended it since: user's code does not run in it.
    fn is_aborted(&self) -> bool {
        self.status == Some(b'E') && self.succeeded == 0
    }

    fn push(&mut self, kind: Kind) -> u64 {
        let order = self.next_order;
        self.next_order = order.saturating_add(1);
        let entry = Entry { order, refused: None, kind };
        self.lost |= entry.is_more_than_sync() && self.may_be_skipped();
        self.queue.push_back(entry);
        order
    }

    /// Whether SQL is on its way that may change what names mean.
    fn sql_is_outstanding(&self) -> bool {
        self.queue.front().zip(self.last_sql).is_some_and(|(front, last)| front.order <= last)
    }
}

impl Settled {
    /// Prepares its line.
    pub fn tell(&self, recorder: &mut Recorder) {
        match self {
            Self::End(end) => recorder.end(end),
            Self::SyncError(sqlstate) => recorder.prepare(&Event::SyncError { sqlstate: sqlstate.clone() }),
        }
    }
}

impl Entry {
    /// What cannot stand inside COPY, nor be taken for a Sync that has no answer.
    fn is_more_than_sync(&self) -> bool {
        !self.is_stray() && !matches!(self.kind, Kind::Sync)
    }

    /// What the server may leave without an answer.
    fn is_stray(&self) -> bool {
        self.is_of_copy() || matches!(self.kind, Kind::MaybeSync)
    }

    fn is_of_copy(&self) -> bool {
        matches!(self.kind, Kind::CopyData { .. } | Kind::CopyEnd)
    }
}

impl StatementText {
    /// Its start is not remembered.
    fn is_forgotten(&self) -> bool {
        self.head.is_empty() && self.bytes > 0
    }

    /// Whether no begin line of this batch has repeated it; one has from now on.
    pub fn is_first_in(&self, batch: u64) -> bool {
        self.repeated_in.swap(batch, Ordering::Relaxed) != batch
    }

    /// Whether a statement with this text can end with this command tag, as far as its first word tells.
    fn may_end_as(&self, command: &str) -> bool {
        sql::may_end_as(self.head.get(self.verb.clone()).unwrap_or_default(), command)
    }

    /// Whether anything is known to be in it but blanks, comments and semicolons.
    fn says_something(&self) -> bool {
        sql::says_something(&self.head)
    }

    /// Whether its first statement is known to give or take a name.
    fn changes_names(&self) -> bool {
        !matches!(self.effect, Effect::None | Effect::Execute(_))
    }
}

/// How an event that was never executed ends.
fn unexecuted(stage: Stage) -> Outcome {
    match stage {
        Stage::Parse => Outcome::Parsed,
        Stage::Bind => Outcome::Bound,
        Stage::Query | Stage::Execute | Stage::FunctionCall => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests;

//! The events, as plain data: what a line of the log says.
//!
//! One JSON object a line. Common members: `version`, `time` (RFC 3339), `session`, `event`. A statement's
//! `begin` and `end` lines share `id`; an execution that goes through Parse, Bind and Execute is one event with a
//! begin line for each. Members that do not apply are left out.

mod id;
mod session;

use super::Durability;
use super::parameters::Parameter;
use super::sealing::{Mac, Person, Sealed};
use crate::names::{IssuerName, SessionId, Tenant};
use crate::time::Timestamp;
pub use id::EventId;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
pub use session::{Exchanged, SessionEnd, SessionOpen, SessionStart};
use std::borrow::Cow;
use std::net::SocketAddr;

/// Version of the lines' shape.
pub const VERSION: u32 = 1;

/// The most of a statement's text that its begin line holds, in bytes, and each `text` line behind it; `text_bytes` has
/// the whole length.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// One JSON object.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Line<'a> {
    /// Of the lines' shape: 1.
    pub version: u32,
    /// When it was recorded (RFC 3339, UTC).
    pub time: Timestamp,
    /// The session's id (UUID version 7); what belongs to no session has one of its own.
    #[schemars(with = "String")]
    pub session: SessionId,
    #[serde(flatten)]
    pub event: &'a Event<'a>,
}

/// What happened.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A caller was verified and granted; nothing has been exchanged or dialled yet.
    SessionStart(Box<SessionStart<'a>>),
    /// The caller's token bought a login of the instance's, or had bought it before. Written before the instance is
    /// dialled.
    Exchanged(Exchanged<'a>),
    /// The instance accepted the login; statements can follow.
    SessionOpen(SessionOpen),
    /// The session is over.
    SessionEnd(SessionEnd<'a>),
    /// Somebody was refused; `correlation` is what they were told.
    Refused(Box<Refused<'a>>),
    /// Refusals before a token verified that were counted and not written.
    RefusalsSuppressed {
        /// How many.
        count: u64,
    },
    /// A message takes its place before its bytes leave.
    Begin(Begin<'a>),
    /// More of a long text, before its bytes leave. The begin record's text and those of these, in the order of their
    /// offsets, are the text as the client sent it, up to the one that says `cut`.
    Text(Text<'a>),
    /// What became of it.
    End(End<'a>),
    /// The server reported an error outside any event, at Sync (a deferred constraint, say), Describe or Close: what
    /// ran before it in the same implicit transaction did not commit.
    SyncError {
        /// SQLSTATE.
        sqlstate: String,
    },
    /// The log could not take this session's lines for a while, and takes them again. Nothing was forwarded in between
    /// that needs a record, but for what is counted here.
    Gap {
        /// When it began.
        since: Timestamp,
        /// Messages that were refused, each of which failed at the server.
        refused: u64,
        /// Messages of a whole `ROLLBACK` or `ABORT`, and of what `commits` counts, that passed unrecorded.
        passed: u64,
        /// Of those, messages of a whole `COMMIT` or `END`: only where the session's rule lets them pass.
        #[serde(skip_serializing_if = "is_default")]
        commits: u64,
        /// End lines that could not wait any longer.
        lost: u64,
    },
    /// The records of the session's caller had taken what `audit_mib_per_day` of the rule allows. Until here these messages
    /// had no record of their own.
    AuditLimit {
        /// When it began.
        since: Timestamp,
        /// Messages that were refused, each of which failed at the server.
        refused: u64,
        /// Messages of a whole `ROLLBACK` or `ABORT`, and of what `commits` counts, that passed.
        passed: u64,
        /// Of those, messages of a whole `COMMIT` or `END`: only where the session's rule lets them pass.
        #[serde(skip_serializing_if = "is_default")]
        commits: u64,
    },
    /// The process before this one did not close the log: it was killed, or the machine stopped.
    Recovery {
        /// Whole records that are there: the index of this one is at least that.
        records: u64,
        /// Of those, how many at the end no checkpoint covered yet.
        unsealed: u64,
        /// The segment behind whose last whole record something was cut off.
        #[serde(skip_serializing_if = "Option::is_none")]
        segment: Option<u64>,
        /// How much: a write that did not reach its end, and was not acknowledged.
        #[serde(skip_serializing_if = "Option::is_none")]
        cut_bytes: Option<u64>,
    },
    /// Segments whose records are all older than `audit.keep` are deleted as soon as every anchor has a checkpoint that
    /// covers this record.
    SegmentsDeleted(SegmentsDeleted<'a>),
    /// The config file was read again (SIGHUP). Written before anything of it counts.
    Reload {
        /// `applied`, or `refused`: then everything stays as it was.
        outcome: &'static str,
        /// Why it was refused, as `check-config` says it.
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        problems: &'a [String],
        /// Keys that have changed in the file and count from the next start only.
        #[serde(skip_serializing_if = "<[&str]>::is_empty")]
        unchanged: &'a [&'static str],
    },
    /// An operator asked something of the running proxy, over the admin socket. Written before it is done.
    OperatorAction(OperatorAction<'a>),
    /// Somebody with the session's key asked to cancel its statement.
    Cancel {
        /// Where the request came from.
        client: SocketAddr,
        /// The trusted balancer that told the client's address.
        #[serde(skip_serializing_if = "Option::is_none")]
        via: Option<SocketAddr>,
        /// `forwarded`, or why not: `idle`, `withdrawn`, `late`, `unknown`, `failed`, `limited`.
        outcome: &'a str,
    },
}

/// Who acts, from the verified token alone.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Caller {
    /// For people to read; never an identity.
    pub label: String,
    /// Issuer, as the config calls it.
    #[schemars(with = "String")]
    pub issuer: IssuerName,
    /// Entra tenant, or what the config calls another issuer's directory.
    #[schemars(with = "String")]
    pub tenant: Tenant,
    /// With issuer and tenant, the identity.
    pub object_id: String,
    /// `user` or `app`.
    pub kind: &'static str,
    /// Client app that asked for the token (`azp`).
    pub app: String,
    /// The token's id in its issuer's logs (Entra: `uti`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
}

/// What the client says of itself; never believed.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Claimed {
    /// `user` of the start-up packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `database` of the start-up packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// `application_name` of the start-up packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_name: Option<String>,
}

/// [`Event::SegmentsDeleted`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct SegmentsDeleted<'a> {
    /// Who deletes: `retention`, by the config's `audit.keep`.
    pub by: &'static str,
    /// `audit.keep`, in seconds.
    pub keep_s: u64,
    /// The first segment's number.
    pub first_segment: u64,
    /// The last segment's number.
    pub last_segment: u64,
    /// The first record's index.
    pub first: u64,
    /// All records with a smaller index are deleted, by this or earlier deletions.
    pub before: u64,
    /// The size of a tree that covers them all and that every anchor has a checkpoint of, or of a larger one.
    pub tree_size: u64,
    /// Its root (SHA-256, base64).
    pub tree_root: String,
    /// With them go the keys of sealed texts of all days before this one (`YYYY-MM-DD`, UTC): no record that stays names
    /// one. Left out where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_keys_before: Option<&'a str>,
    /// How many keys that are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_keys: Option<u64>,
}

/// [`Event::OperatorAction`].
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct OperatorAction<'a> {
    /// `sessions_list`, `sessions_end`, or `texts_erase`: a person's keys are deleted, and what they sealed cannot be read
    /// any more.
    pub action: &'a str,
    /// The user who asked, as the kernel says.
    pub uid: u32,
    /// Sessions of this caller only: label or object id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<&'a str>,
    /// This session only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_session: Option<&'a str>,
    /// Sessions of this database only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<&'a str>,
    /// Whether they end at once; else when they are idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<bool>,
    /// How many sessions that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<usize>,
    /// `texts_erase`: whose keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<&'a Person>,
    /// `texts_erase`: only of days before this one (`YYYY-MM-DD`, UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<&'a str>,
}

/// [`Event::Refused`].
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Refused<'a> {
    /// The id the client was told; equal to `session`.
    pub correlation: String,
    /// SQLSTATE the client was told.
    pub sqlstate: &'a str,
    /// Message the client was told.
    pub message: &'a str,
    /// What failed, in full, without secrets.
    pub reason: &'a str,
    /// Which side is to blame: `client`, `proxy`, `entra`, `google`, `database`.
    pub blame: &'a str,
    /// Who, once verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<&'a Caller>,
    /// What the client says of itself, once it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed: Option<&'a Claimed>,
    /// Client address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// The trusted balancer that told the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<SocketAddr>,
}

/// Which message opened or continued an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// `Query`.
    Query,
    /// `Parse`.
    Parse,
    /// `Bind`.
    Bind,
    /// `Execute`.
    Execute,
    /// `FunctionCall`.
    FunctionCall,
}

/// [`Event::Begin`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct Begin<'a> {
    /// Joins begin and end lines: the session's id and the event's number in it.
    #[schemars(with = "String")]
    pub id: EventId,
    /// Which message.
    pub stage: Stage,
    /// Who; the same as in the session's start line.
    #[schemars(with = "Caller")]
    pub caller: &'a RawValue,
    /// The statement's text as the client sent it, at most 64 KiB, of which `text` records have more; only where a text
    /// enters or an event opens on a remembered one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Cow<'a, str>>,
    /// The text in base64, when it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_base64: Option<String>,
    /// Where texts are sealed: what else would be `text` or `text_base64`, as `text@0`. `text` has its shape then: `?` for
    /// each literal, no comments; or is left out where that is not certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_sealed: Option<Sealed>,
    /// The whole text's length in bytes; of a Parse that is longer than what is looked at, together with its parameter
    /// types. The end line has the text's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_bytes: Option<u64>,
    /// The event whose own begin line has the text to 64 KiB: this one only repeats its start, to 4 KiB of the
    /// line, and that only if it is the first of those written at once and the server does not skip it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub text_of: Option<EventId>,
    /// The name may mean another text by the time the server gets there: what was sent ahead has no answer yet, or SQL
    /// gave and took names that could not be told. The end line's `text_of` says which it was, if that became certain.
    /// Without `text_of` here no text is known at all: what has that name, if anything has, was prepared or declared by SQL
    /// within a function, or is a cursor that outlived its transaction.
    #[serde(skip_serializing_if = "is_default")]
    pub text_doubtful: bool,
    /// What the text says of who the session acts as (`SET ROLE` and its like), as far as a text shows it.
    #[serde(skip_serializing_if = "<[RoleChange]>::is_empty")]
    pub role_changes: &'a [RoleChange],
    /// Prepared statement's name, when it has one; PostgreSQL cuts it at 63 bytes. An Execute has that of its portal, which is
    /// as doubtful as the text where the line says that this is (`text_doubtful`): then the event that the end line names
    /// (`text_of`) has the right one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<Cow<'a, str>>,
    /// Portal's name, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portal: Option<Cow<'a, str>>,
    /// `FunctionCall`: the function's OID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_oid: Option<u32>,
    /// A Bind's parameters or a `FunctionCall`'s arguments in their order, where the rule has them recorded (the session's
    /// start says how).
    #[serde(skip_serializing_if = "<[Parameter]>::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Where texts are sealed and parameters are recorded in full: what else would be `parameters`, as JSON, as
    /// `parameters`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_sealed: Option<Sealed>,
    /// How many more the message has: past its first 65 KiB, or past 4096 values.
    #[serde(skip_serializing_if = "is_default")]
    pub parameters_left_out: u32,
    /// The message's parameters cannot be told apart; the server refuses it.
    #[serde(skip_serializing_if = "is_default")]
    pub parameters_malformed: bool,
    /// Whether the statement carries the caller's tag: a Query or Parse left with it, a Bind or Execute is of a text that
    /// did, as far as the line is certain of its text (`text_doubtful`, in the end line too). False where no text is known,
    /// for all of a database with `tag = false`, and for a `FunctionCall`, which has no text.
    pub tagged: bool,
    /// What the client's own comment says of its trace (W3C Trace Context): claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<&'a str>,
    /// `strict` or `none`, where the rule says so; else `batch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
}

/// [`Event::Text`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct Text<'a> {
    /// That of the begin line.
    #[schemars(with = "String")]
    pub id: EventId,
    /// How many bytes of the text stand before this part.
    pub offset: u64,
    /// The part; a character that was cut in two is in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Cow<'a, str>>,
    /// The part in base64, when it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_base64: Option<String>,
    /// Where texts are sealed: the part, as `text@` and its offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_sealed: Option<Sealed>,
    /// Nothing of the text from this offset on is recorded, though it goes on (`audit.max_text_bytes`): the end record
    /// has its length and SHA-256.
    #[serde(skip_serializing_if = "is_default")]
    pub cut: bool,
    /// As in the begin record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
}

/// A text that makes the session act as another database user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RoleChange {
    /// Which of the two settings.
    pub setting: Acting,
    /// As whom, where the text names it; `none` is nobody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Back to what the session started with.
    #[serde(skip_serializing_if = "is_default")]
    pub reset: bool,
    /// Up to the transaction's end only.
    #[serde(skip_serializing_if = "is_default")]
    pub local: bool,
}

/// The settings that say who a session acts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Acting {
    /// `role`.
    Role,
    /// `session_authorization`.
    SessionAuthorization,
}

/// How an event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It completed.
    Ok,
    /// The server reported an error.
    Error,
    /// The server reported `query_canceled` (57014).
    Canceled,
    /// An Execute stopped at its row limit.
    Suspended,
    /// Bound, never executed.
    Bound,
    /// Parsed, never bound.
    Parsed,
    /// The proxy refused it, and it failed at the server too.
    Refused,
    /// Skipped by the server after an earlier error.
    Skipped,
    /// The session ended before the server's answer.
    Unknown,
}

/// [`Event::End`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct End<'a> {
    /// Joins begin and end lines.
    #[schemars(with = "String")]
    pub id: EventId,
    /// A Query with several statements has several end lines, from 0.
    pub part: u32,
    /// No end line of this id follows.
    #[serde(rename = "final")]
    pub last: bool,
    /// How.
    pub outcome: Outcome,
    /// Only with an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<&'a str>,
    /// The event whose begin line has this one's text: where the begin line was doubtful, and the answers to what was
    /// sent ahead have told since.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub text_of: Option<EventId>,
    /// SHA-256 of the whole text, as the client sent it, in hexadecimal: where a text is over 64 KiB, or was
    /// not remembered for its later executions. Left out where the text did not arrive whole, or its own text is not
    /// certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_sha256: Option<String>,
    /// In place of `text_sha256` where texts are sealed: nobody without the key can try texts against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_mac: Option<Mac>,
    /// With `text_sha256` or `text_mac`: the whole text's length in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_bytes: Option<u64>,
    /// The command tag cannot be that of the text which the begin line told: something else ran, to which SQL within a
    /// function gave the name. Its text is not known, and it carried no tag.
    #[serde(skip_serializing_if = "is_default")]
    pub text_doubtful: bool,
    /// SQL-level EXECUTE as a text's first statement: the event whose text gave the name its meaning, by Parse or by
    /// PREPARE, where that is certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub executes: Option<EventId>,
    /// The server's command tag, without its numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<&'a str>,
    /// Rows returned or changed.
    pub rows: u64,
    /// Bytes of the event's messages and of COPY data, from the client.
    pub bytes_in: u64,
    /// Bytes of the answer, to the client.
    pub bytes_out: u64,
    /// From the first begin record to the answer's first row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_row_us: Option<u64>,
    /// From the first begin record to here.
    pub duration_us: u64,
    /// As in the begin record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
}

/// Whether a member is left out: the ordinary is not said.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

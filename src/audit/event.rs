//! The events, as plain data: what a line of the log says.
//!
//! One JSON object a line. Common members: `version`, `time` (RFC 3339), `session`, `event`. A statement's
//! `begin` and `end` lines share `id`; an execution that goes through Parse, Bind and Execute is one event with a
//! begin line for those of them that came in one read. Members that do not apply are left out.

mod id;
mod session;
mod statement;

use super::sealing::Person;
use crate::names::{IssuerName, SessionId, Tenant};
use crate::time::Timestamp;
pub use id::EventId;
use schemars::JsonSchema;
use serde::Serialize;
pub use session::{Exchanged, SessionEnd, SessionOpen, SessionStart};
pub use statement::{Acting, Begin, End, Listed, Outcome, RoleChange, Stage, Text};
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

/// Whether a member is left out: the ordinary is not said.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

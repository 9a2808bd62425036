//! What is said of a statement: how it begins, more of its text, how it ends.

use super::{Caller, EventId, is_default};
use crate::audit::Durability;
use crate::audit::parameters::Parameter;
use crate::audit::sealing::{Mac, Sealed};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

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

/// [`super::Event::Begin`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct Begin<'a> {
    /// Joins begin and end lines: the session's id and the event's number in it.
    #[schemars(with = "String")]
    pub id: EventId,
    /// Which message; of several that this line stands for (`since`), the last.
    pub stage: Stage,
    /// The first of the messages that this line stands for, where these are several: Parse, Bind and Execute of one event
    /// that came in one read, of which none has anything to say of its own but its portal and its parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Stage>,
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
    /// Its parameters or arguments.
    #[serde(flatten)]
    pub values: Listed,
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

/// A message's values, as a begin line has them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Listed {
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
}

/// [`super::Event::Text`].
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

/// [`super::Event::End`].
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

//! What a session itself says: how it starts, what it is given, how it ends.

use super::{Caller, Claimed, is_default};
use crate::audit::sealing::Texts;
use crate::audit::{Durability, Parameters};
use crate::names::{DatabaseAlias, DatabaseName, InstanceName, RoleName, RuleName};
use crate::time::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::SocketAddr;

/// [`super::Event::SessionStart`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionStart<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// What the client says of itself.
    pub claimed: &'a Claimed,
    /// The rule that decided.
    #[schemars(with = "String")]
    pub rule: &'a RuleName,
    /// `workforce` or `service_account`.
    pub grant: &'static str,
    /// The database as the config calls it.
    #[schemars(with = "String")]
    pub database: &'a DatabaseAlias,
    /// The database as the instance calls it.
    #[schemars(with = "String")]
    pub database_name: &'a DatabaseName,
    /// The instance.
    #[schemars(with = "String")]
    pub instance: &'a InstanceName,
    /// What the instance sees as the user.
    #[schemars(with = "String")]
    pub database_user: &'a RoleName,
    /// What `role` starts with, where the client's start-up or the rule says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'a str>,
    /// What `session_authorization` starts with, where the client's start-up or the rule says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_authorization: Option<&'a str>,
    /// Client address.
    pub client: SocketAddr,
    /// The trusted balancer that told the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<SocketAddr>,
    /// Whether statements carry the caller's tag.
    pub tag: bool,
    /// Whether it is a replication session.
    #[serde(skip_serializing_if = "is_default")]
    pub replication: bool,
    /// What the session's records outlive before its bytes leave.
    pub durability: Durability,
    /// What is recorded of parameters, where the rule asks for any of it: `hmac` or `full`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,
    /// With `hmac`: which key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_key: Option<String>,
    /// `sealed`, where the rule says so: texts and parameters can be read with the caller's key of the day only.
    #[serde(skip_serializing_if = "is_default")]
    pub texts: Texts,
    /// Whether a whole `COMMIT` or `END` passes where not even the log's reserve takes its record.
    #[serde(skip_serializing_if = "is_default")]
    pub commit_unrecorded: bool,
    /// When the token ends.
    pub token_expires: Timestamp,
}

/// [`super::Event::Exchanged`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct Exchanged<'a> {
    /// The pool's provider that took the caller's token.
    pub provider: &'a str,
    /// The service account that was impersonated; none where the person arrives as themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<&'a str>,
    /// When what was bought ends.
    pub expires: Timestamp,
    /// How long it took.
    pub duration_us: u64,
}

/// [`super::Event::SessionOpen`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionOpen {
    /// The server's process.
    pub backend_pid: u32,
    /// Where the instance was reached.
    pub instance_address: SocketAddr,
    /// From accept to here.
    pub login_us: u64,
}

/// [`super::Event::SessionEnd`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionEnd<'a> {
    /// Why: `client`, `server`, `drain` (the proxy is leaving), `idle_in_transaction`, `grant_expired`, `session_length`, `policy`, `operator`,
    /// `refused`, `server_misbehaved`, `unrecorded`, `cancel_unanswered`.
    pub reason: &'a str,
    /// SQLSTATE of the last word to the client, if the server or the proxy had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<&'a str>,
    /// From accept to here.
    pub duration_us: u64,
    /// Begin lines written; one may stand for several messages of an execution.
    pub statements: u64,
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
}

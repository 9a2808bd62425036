//! The one table that decides what a refused client is told: SQLSTATE, message, detail, hint with the next step.
//!
//! SQLSTATEs: PostgreSQL documentation, appendix A (`src/backend/utils/errcodes.txt`). No text holds a token.

mod exchange;
mod in_session;

pub(super) use in_session::{farewell, refusal};

use super::{Error, Over, TooMany};
use crate::backend;
use crate::cloudsql;
use crate::federation;
use crate::frontend::{self, Full};
use crate::identity::{self, DirectoryError};
use crate::names::SessionId;
use crate::policy::{Denied, Overreach};
use crate::telemetry::Blame;
use crate::wire::ErrorFields;
use std::time::Duration;

/// `admin_shutdown`: what drivers and pools take for "this connection is over, open another".
const ADMIN_SHUTDOWN: &str = "57P01";
const INVALID_AUTHORIZATION: &str = "28000";
const INVALID_PASSWORD: &str = "28P01";
const INVALID_NAME: &str = "42602";
const INVALID_CATALOG: &str = "3D000";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const TOO_MANY_CONNECTIONS: &str = "53300";
const DISK_FULL: &str = "53100";
const CANNOT_CONNECT_NOW: &str = "57P03";
const CONNECTION_FAILURE: &str = "08006";
const PROTOCOL_VIOLATION: &str = "08P01";
const FEATURE_NOT_SUPPORTED: &str = "0A000";
const PROGRAM_LIMIT: &str = "54000";
const LIMIT_EXCEEDED: &str = "53400";
const IDLE_IN_TRANSACTION: &str = "25P03";
const QUERY_CANCELED: &str = "57014";

const NEW_TOKEN: &str = "Get a new access token for the proxy's own app registration (az account get-access-token \
                         --scope api://PROXY-APP-ID/.default) and connect with it as the password.";
const ASK_OPERATOR: &str = "Tell the operator of pgpassport the correlation id; the proxy's log has the cause.";
const LATER: &str = "Try again in a moment; if it lasts, tell the operator of pgpassport the correlation id.";

const CROWDED: &str = "Try again in a moment; if it lasts, use a connection pool, or run more of pgpassport.";

/// When to come again to a service that takes no more calls.
fn in_a_while(left: Option<Duration>) -> String {
    let when =
        left.map_or_else(|| "later".to_owned(), |left| format!("in {} seconds", left.as_secs().saturating_add(1)));
    format!("Try again {when}; if it lasts, ask the operator to have the quota raised.")
}

/// What a refused client is told, and whose side it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// SQLSTATE.
    pub sqlstate: String,
    /// One line.
    pub message: String,
    /// The next step for this person.
    pub hint: String,
    /// Whose side.
    pub blame: Blame,
}

impl Rejection {
    fn new(blame: Blame, sqlstate: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { sqlstate: sqlstate.to_owned(), message: message.into(), hint: hint.into(), blame }
    }

    /// The FATAL error a client gets. The detail has the correlation id, which the records have too.
    pub fn fields(&self, correlation: SessionId) -> ErrorFields {
        ErrorFields::new("FATAL", &self.sqlstate, &self.message)
            .detail(&format!("pgpassport refused the connection; correlation id {correlation}"))
            .hint(&self.hint)
    }

    /// The FATAL error a client gets at the end of its session.
    pub fn last_word(&self, correlation: SessionId) -> ErrorFields {
        ErrorFields::new("FATAL", &self.sqlstate, &self.message)
            .detail(&format!("pgpassport ended the session; correlation id {correlation}"))
            .hint(&self.hint)
    }

    /// The error a client gets in a session that lives on.
    pub fn in_session(&self, correlation: SessionId) -> ErrorFields {
        ErrorFields::new("ERROR", &self.sqlstate, &self.message)
            .detail(&format!("pgpassport refused the message; correlation id {correlation}"))
            .hint(&self.hint)
    }

    /// The SQLSTATE as a metric label: ours by name, a server's own as `server`.
    pub fn metric(&self) -> &'static str {
        const OURS: [&str; 17] = [
            ADMIN_SHUTDOWN,
            INVALID_AUTHORIZATION,
            INVALID_PASSWORD,
            INVALID_NAME,
            INVALID_CATALOG,
            INSUFFICIENT_PRIVILEGE,
            TOO_MANY_CONNECTIONS,
            DISK_FULL,
            CANNOT_CONNECT_NOW,
            CONNECTION_FAILURE,
            PROTOCOL_VIOLATION,
            FEATURE_NOT_SUPPORTED,
            PROGRAM_LIMIT,
            QUERY_CANCELED,
            LIMIT_EXCEEDED,
            IDLE_IN_TRANSACTION,
            "XX000",
        ];
        OURS.into_iter().find(|ours| *ours == self.sqlstate).unwrap_or("server")
    }

    /// The table.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Frontend(error) => frontend(error),
            Error::Identity(error) => identity(error),
            Error::User { claimed, label, role } => Self::new(
                Blame::Client,
                INVALID_AUTHORIZATION,
                format!("user \"{claimed}\" contradicts the token: it is \"{label}\", who logs in as \"{role}\""),
                format!("Connect with user={label} or user={role}."),
            ),
            Error::Denied(denied) => denied_by_policy(denied),
            Error::TooMany(limit) => too_many(*limit),
            Error::OverLimit(over) => over_limit(over),
            Error::Unrecorded(_) => unrecorded(),
            Error::NoKey(error) => Self::new(Blame::Proxy, TOO_MANY_CONNECTIONS, error.to_string(), LATER),
            Error::Exchange(error) => exchange::rejection(error),
            Error::Connect(error) => connect(error),
            Error::Login(error) => login(error),
            Error::LoginDeadline(_) => {
                Self::new(Blame::Database, CANNOT_CONNECT_NOW, "the instance did not answer the login in time", LATER)
            }
            Error::Ended(cause) => in_session::ended(*cause),
            Error::Gone => Self::new(
                Blame::Client,
                CONNECTION_FAILURE,
                error.to_string(),
                "Give the login more time (connect_timeout), and keep the connection open until it is answered.",
            ),
        }
    }
}

fn too_many(limit: TooMany) -> Rejection {
    let (blame, hint) = match limit {
        TooMany::Caller(_) => (
            Blame::Client,
            "Close some, use a connection pool, or ask the operator to raise limits.sessions_per_caller.",
        ),
        TooMany::All => (Blame::Proxy, "Try again later, or ask the operator to raise limits.sessions."),
    };
    Rejection::new(blame, TOO_MANY_CONNECTIONS, format!("too many connections: {limit}"), hint)
}

/// All are 53300, as PostgreSQL answers its own `CONNECTION LIMIT`.
fn over_limit(over: &Over) -> Rejection {
    let (blame, hint) = match over {
        Over::Sessions(rule, _) => {
            (Blame::Client, format!("Try again later, or ask the operator to raise sessions of rule {rule}."))
        }
        Over::SessionsPerCaller(rule, _) => (
            Blame::Client,
            format!(
                "Close some, use a connection pool, or ask the operator to raise sessions_per_caller of rule {rule}."
            ),
        ),
        Over::Connects(rule, _) => (
            Blame::Client,
            format!(
                "Wait a minute, keep connections open between statements (a connection pool), or ask the operator to \
                 raise connects_per_minute of rule {rule}."
            ),
        ),
        Over::Address(_) => (
            Blame::Client,
            format!(
                "{NEW_TOKEN} A token is good for the address that it was used from first. If it is not you who used \
                 it there, tell the operator the correlation id: it may be stolen."
            ),
        ),
        Over::NoAddress(_) => (
            Blame::Proxy,
            "Ask the operator to set listen.proxy_protocol = \"required\" and the balancer's.".to_owned(),
        ),
        Over::Callers(_) | Over::Tokens(_) => (Blame::Proxy, LATER.to_owned()),
    };
    Rejection::new(blame, TOO_MANY_CONNECTIONS, over.to_string(), hint)
}

fn frontend(error: &frontend::Error) -> Rejection {
    use frontend::Error as E;
    let client = |sqlstate, message: String, hint: &str| Rejection::new(Blame::Client, sqlstate, message, hint);
    match error {
        E::NoTls => client(
            INVALID_AUTHORIZATION,
            "connections without TLS are refused".to_owned(),
            "Connect with sslmode=verify-full and sslrootcert set to the CA of the proxy's certificate.",
        ),
        E::NoUser => client(
            INVALID_AUTHORIZATION,
            error.to_string(),
            "Connect with user= your own name or the database user that your grant gives.",
        ),
        E::Name { .. } => client(
            INVALID_NAME,
            error.to_string(),
            "Names are valid UTF-8 without control characters, at most 63 bytes; check the connection string.",
        ),
        E::NoToken => client(INVALID_PASSWORD, "the password is empty".to_owned(), NEW_TOKEN),
        E::Version(..) => client(
            FEATURE_NOT_SUPPORTED,
            error.to_string(),
            "Use a client that speaks protocol version 3 (any since PostgreSQL 7.4).",
        ),
        E::Deadline => client(QUERY_CANCELED, error.to_string(), "Have the token ready before connecting."),
        E::Full(full) => Rejection::new(
            Blame::Proxy,
            TOO_MANY_CONNECTIONS,
            format!("too many connections: {full}"),
            match full {
                Full::Logins => "Try again in a moment; if it lasts, ask the operator to raise limits.logins.",
                Full::Cancels => "Cancel again in a moment.",
                Full::Address => "Try again later, or ask the operator to raise limits.logins_per_address.",
            },
        ),
        E::ProxyHeader(_) => Rejection::new(
            Blame::Proxy,
            PROTOCOL_VIOLATION,
            error.to_string(),
            "Ask the operator to compare the balancer's settings with listen.proxy_protocol.",
        ),
        E::Gone(_) | E::Handshake(_) | E::Malformed(_) => client(
            PROTOCOL_VIOLATION,
            error.to_string(),
            "The client does not speak PostgreSQL's protocol as documented; check what connects here.",
        ),
    }
}

fn identity(error: &identity::Error) -> Rejection {
    use identity::Error as E;
    let message = format!("the token was refused: {error}");
    let client = |sqlstate, hint: &str| Rejection::new(Blame::Client, sqlstate, message.clone(), hint);
    match error {
        E::GraphToken => client(
            INVALID_PASSWORD,
            "Request the token for the proxy: scope api://PROXY-APP-ID/.default, not https://graph.microsoft.com.",
        ),
        E::Audience => client(
            INVALID_PASSWORD,
            "Request the token for the proxy's app registration: scope api://PROXY-APP-ID/.default.",
        ),
        E::Version(_) => client(
            INVALID_PASSWORD,
            "Ask the operator: api.requestedAccessTokenVersion in the manifest of the proxy's app registration (2 for \
             v2.0) and the issuer's section of the config must agree.",
        ),
        E::TooManyBad => client(
            TOO_MANY_CONNECTIONS,
            "Wait a minute and connect with one right token, or ask the operator to raise limits.bad_tokens_per_address.",
        ),
        E::Permission(_) => client(
            INVALID_AUTHORIZATION,
            "Ask the operator which scope (people) or app role (software) of the proxy's app registration is needed.",
        ),
        E::NotYetValid => client(INVALID_PASSWORD, "Check the clocks of this machine and of the proxy."),
        E::Tenant(_) => client(
            INVALID_AUTHORIZATION,
            "Sign in to a tenant that the proxy accepts (az login --tenant TENANT), or ask its operator to add yours.",
        ),
        E::App(_) => client(
            INVALID_AUTHORIZATION,
            "Get the token with a client app that the proxy accepts, or ask its operator to add yours.",
        ),
        E::Kind(_) => client(
            INVALID_AUTHORIZATION,
            "Sign in as the kind of caller that the issuer's section of the config accepts, or ask the operator.",
        ),
        E::Groups(error) => groups(error),
        E::Keys { .. } => Rejection::new(
            Blame::Entra,
            CANNOT_CONNECT_NOW,
            "the token cannot be checked now: its issuer's keys cannot be fetched",
            LATER,
        ),
        _ => client(INVALID_PASSWORD, NEW_TOKEN),
    }
}

/// Groups that did not fit into the token, and why Microsoft Graph does not say them.
fn groups(error: &DirectoryError) -> Rejection {
    use DirectoryError as E;
    let refused = |blame, what: &str, hint: &str| {
        Rejection::new(blame, CANNOT_CONNECT_NOW, format!("your groups are too many for the token, and {what}"), hint)
    };
    match error {
        E::Forbidden { .. } => refused(
            Blame::Proxy,
            "Microsoft Graph does not tell them to the proxy",
            "Ask the operator to give the proxy's identity the permissions on Microsoft Graph: User.ReadBasic.All and \
             GroupMember.Read.All for people, Application.Read.All for software.",
        ),
        E::Unknown { .. } => refused(
            Blame::Client,
            "Microsoft Graph does not know you",
            "Sign in again with an account of the tenant; one that was made a moment ago takes a while to be known.",
        ),
        E::TooMany => refused(
            Blame::Client,
            "too many for Microsoft Graph to list",
            "Ask the operator for an app role in place of groups, or leave some groups.",
        ),
        E::Refused { .. } => refused(Blame::Proxy, "Microsoft Graph does not tell them to the proxy", ASK_OPERATOR),
        E::Busy => Rejection::new(
            Blame::Proxy,
            TOO_MANY_CONNECTIONS,
            "too many logins wait for Microsoft Graph to tell groups",
            CROWDED,
        ),
        E::Throttled { left } => {
            refused(Blame::Entra, "Microsoft Graph takes no more questions for now", &in_a_while(*left))
        }
        E::Credential(_) | E::Unavailable(_) | E::Malformed => {
            refused(Blame::Entra, "Microsoft Graph cannot be asked for them now", LATER)
        }
    }
}

fn denied_by_policy(denied: &Denied) -> Rejection {
    let client = |sqlstate, hint: &str| Rejection::new(Blame::Client, sqlstate, denied.to_string(), hint);
    match denied {
        Denied::UnknownDatabase(_) => client(
            INVALID_CATALOG,
            "Check dbname: it is a name of the proxy's config; ask its operator which ones there are. A replication \
             session names one too; pg_basebackup and pg_receivewal ask for [database.replication].",
        ),
        Denied::NoRule { overage: true, .. } => client(
            INSUFFICIENT_PRIVILEGE,
            "Your groups are too many for the token, so that rules for groups cannot hold. Ask the operator for an app \
             role, for the assigned groups only, or for groups_overage = \"graph\" in the issuer's section.",
        ),
        Denied::NoRule { .. } => client(
            INSUFFICIENT_PRIVILEGE,
            "Ask the operator which group, role or app gives this database; after a change get a new token.",
        ),
        Denied::Address { .. } => client(
            INVALID_AUTHORIZATION,
            "Connect from a network that the rule names (VPN, jump host), or ask the operator to add yours to networks.",
        ),
        Denied::Startup { overreach, .. } => client(INSUFFICIENT_PRIVILEGE, &start_otherwise(overreach)),
        Denied::Replication { .. } => client(
            INSUFFICIENT_PRIVILEGE,
            "Connect without replication=, or ask the operator for replication = true in that rule.",
        ),
        Denied::Guest => client(
            INVALID_AUTHORIZATION,
            "Use an account of the tenant itself, or ask the operator for a rule that names your object id in object_ids, or \
             for one that grants a service account.",
        ),
        Denied::Subject { .. } => client(INVALID_AUTHORIZATION, ASK_OPERATOR),
    }
}

/// Where a client says what it starts with: connection strings, PGOPTIONS, drivers' own settings.
fn start_otherwise(overreach: &Overreach) -> String {
    let ask = "or ask the operator for [rule.startup] of that rule.";
    match (overreach.setting.as_str(), overreach.allowed.join(", ")) {
        ("" | "options", _) => format!("Connect without options= and PGOPTIONS, {ask}"),
        (setting, allowed) if allowed.is_empty() => {
            format!("Connect without {setting}, in options= and PGOPTIONS too, {ask}")
        }
        (setting, allowed) => format!("Connect without {setting} or with one of: {allowed}; {ask}"),
    }
}

fn unrecorded() -> Rejection {
    Rejection::new(
        Blame::Proxy,
        DISK_FULL,
        "the audit log cannot take the record, so nothing is let through",
        "Ask the operator to make room for the audit log.",
    )
}

fn connect(error: &cloudsql::Error) -> Rejection {
    use cloudsql::Error as E;
    let proxy = |sqlstate, message: &str, hint: &str| Rejection::new(Blame::Proxy, sqlstate, message, hint);
    match error {
        E::Unknown(_) | E::Mismatch(_) | E::SetUp(_) => {
            proxy(CANNOT_CONNECT_NOW, "the instance does not fit the proxy's config", ASK_OPERATOR)
        }
        E::OwnIdentity(error) if matches!(**error, federation::Error::Broken { .. }) => {
            proxy(CONNECTION_FAILURE, "the proxy's own identity gave an answer that cannot be used", ASK_OPERATOR)
        }
        E::OwnIdentity(_) => proxy(CANNOT_CONNECT_NOW, "the proxy has no identity of its own now", ASK_OPERATOR),
        E::AdminRefused { .. } => proxy(
            CANNOT_CONNECT_NOW,
            "the SQL Admin API refused the proxy",
            "Ask the operator to check roles/cloudsql.client of the proxy's service account and the instance's name.",
        ),
        E::AdminUnavailable(_) => {
            Rejection::new(Blame::Google, CANNOT_CONNECT_NOW, "the SQL Admin API is unavailable", LATER)
        }
        E::AdminBusy => proxy(TOO_MANY_CONNECTIONS, "too many logins wait for the SQL Admin API", CROWDED),
        E::AdminThrottled { left } => Rejection::new(
            Blame::Google,
            CANNOT_CONNECT_NOW,
            "the SQL Admin API takes no more calls for now",
            in_a_while(*left),
        ),
        E::AdminBroken(_) => Rejection::new(
            Blame::Google,
            CONNECTION_FAILURE,
            "the SQL Admin API gave an answer that cannot be used",
            LATER,
        ),
        E::Dial { .. } | E::HandshakeDeadline { .. } => {
            Rejection::new(Blame::Database, CANNOT_CONNECT_NOW, "the instance cannot be reached", LATER)
        }
        E::Tls { .. } => Rejection::new(
            Blame::Database,
            CONNECTION_FAILURE,
            "the instance's TLS failed or is not the instance's own",
            ASK_OPERATOR,
        ),
    }
}

fn login(error: &backend::Error) -> Rejection {
    use backend::Error as E;
    match error {
        E::Refused(fields) => Rejection::new(
            Blame::Database,
            &fields.sqlstate(),
            format!("the instance refused the login: {}", fields.message()),
            match fields.sqlstate().as_str() {
                INVALID_AUTHORIZATION | INVALID_PASSWORD => {
                    "Ask the operator whether the database user exists on the instance with its IAM type, and whether \
                     its principal has roles/cloudsql.instanceUser."
                }
                INVALID_CATALOG => {
                    "Ask the operator to compare the database's section of the config with the instance."
                }
                _ => LATER,
            },
        ),
        E::Method(_) => Rejection::new(
            Blame::Database,
            CONNECTION_FAILURE,
            format!("{error}; the token was not sent"),
            "Ask the operator whether the instance has cloudsql.iam_authentication on and the user is an IAM user.",
        ),
        E::Unsendable(what) => Rejection::new(
            Blame::Client,
            PROGRAM_LIMIT,
            format!("the login cannot be passed on: {what}"),
            "Send fewer or shorter start-up parameters (options, application_name).",
        ),
        E::PasswordAsked => Rejection::new(
            Blame::Database,
            INVALID_AUTHORIZATION,
            format!("{error}; the token was not sent"),
            "Ask the operator whether the database user exists on the instance with its IAM type, and whether the \
             instance takes automatic IAM authentication; login = \"token-as-password\" does without.",
        ),
        E::Broken(_) | E::Unexpected(_) => {
            Rejection::new(Blame::Database, CONNECTION_FAILURE, "the instance broke off the login", LATER)
        }
    }
}

//! The table's part for sessions: how they end, and what is refused in one that lives on.

use super::{
    ADMIN_SHUTDOWN, ASK_OPERATOR, CONNECTION_FAILURE, DISK_FULL, IDLE_IN_TRANSACTION, LATER, LIMIT_EXCEEDED, NEW_TOKEN,
    PROGRAM_LIMIT, PROTOCOL_VIOLATION, QUERY_CANCELED, Rejection, unrecorded,
};
use crate::relay::{Cause, Ending, Refusal};
use crate::telemetry::Blame;

/// The last word to a client whose session the proxy ends; `None` where the client or its server ended it.
pub(in crate::session) fn farewell(ending: &Ending) -> Option<Rejection> {
    let client = |sqlstate, message: String, hint: &str| Some(Rejection::new(Blame::Client, sqlstate, message, hint));
    match ending {
        Ending::Client | Ending::Server { fatal: Some(_) } => None,
        Ending::Wished(cause) => Some(ended(*cause)),
        Ending::Server { fatal: None } => {
            Some(Rejection::new(Blame::Database, CONNECTION_FAILURE, "the instance closed the connection", LATER))
        }
        Ending::CancelUnanswered => Some(Rejection::new(
            Blame::Database,
            CONNECTION_FAILURE,
            "the instance did not finish a cancel in time; the session was ended",
            LATER,
        )),
        Ending::Misbehaved(_) => Some(Rejection::new(
            Blame::Database,
            CONNECTION_FAILURE,
            "the instance answered out of order; the session was ended",
            ASK_OPERATOR,
        )),
        // PostgreSQL's own words for its own timeout (`ProcessInterrupts`, `src/backend/tcop/postgres.c`).
        Ending::IdleInTransaction => client(
            IDLE_IN_TRANSACTION,
            "terminating connection due to idle-in-transaction timeout".to_owned(),
            "Commit or roll back when the work is done; idle_in_transaction in the proxy's config says how long it waits.",
        ),
        Ending::Unrecorded => Some(unrecorded()),
        Ending::Violated(violation) => client(
            PROTOCOL_VIOLATION,
            violation.to_string(),
            "The client does not speak PostgreSQL's protocol as documented; check what connects here.",
        ),
    }
}

/// A session that the process ends, or does not let begin. All are 57P01: the connection is over, another one may do;
/// text and hint say what must change before.
pub(super) fn ended(cause: Cause) -> Rejection {
    let (blame, why, hint) = match cause {
        Cause::Shutdown => (
            Blame::Proxy,
            "pgpassport is shutting down".to_owned(),
            "Connect again; another pgpassport may serve you.".to_owned(),
        ),
        Cause::GrantExpired(at) => (
            Blame::Client,
            format!("the access token of this session expired at {at}"),
            format!("{NEW_TOKEN} With pgpassport psql, run it again: it signs in anew."),
        ),
        Cause::SessionLength(length) => (
            Blame::Client,
            format!("the session has lasted {} s, the most that its rule allows", length.as_secs()),
            "Connect again; pools should close connections before that (max_session in the proxy's config).".to_owned(),
        ),
        Cause::Policy => (
            Blame::Proxy,
            "the proxy's policy has changed, and does not give you this session any more".to_owned(),
            "Connect again; if that is refused, ask the operator which group, role or app gives this database."
                .to_owned(),
        ),
        Cause::Operator => (
            Blame::Proxy,
            "an operator of pgpassport ended this session".to_owned(),
            "Ask the operator before you connect again; they can find the session by its correlation id.".to_owned(),
        ),
    };
    Rejection::new(blame, ADMIN_SHUTDOWN, format!("terminating connection: {why}"), hint)
}

/// What a client is told of a message that was refused, in a session that lives on.
pub(in crate::session) fn refusal(refusal: Refusal) -> Rejection {
    let client = |hint: &str| Rejection::new(Blame::Client, PROGRAM_LIMIT, refusal.to_string(), hint);
    // Class 53 says that it may do later. 53300 is about connections, of which this one is none too many; 53400 is what
    // PostgreSQL says of its own configured limits, such as temp_file_limit.
    let over = |hint: &str| Rejection::new(Blame::Client, LIMIT_EXCEEDED, refusal.to_string(), hint);
    match refusal {
        Refusal::Unrecorded => Rejection::new(
            Blame::Proxy,
            DISK_FULL,
            "the audit log cannot take the record, so the message was refused",
            "Ask the operator to make room for the audit log. ROLLBACK passes meanwhile; a transaction with a refused \
             message cannot be committed.",
        ),
        Refusal::TooLong => client("Send less in one statement."),
        Refusal::Overfull => client("Close prepared statements and portals that are not needed any more."),
        Refusal::Statements => over(
            "Run fewer statements a second, or ask the operator to raise statements_per_second of the rule, or to let them \
             wait (statements_over).",
        ),
        Refusal::Bytes => over(
            "Move less at once, or ask the operator to raise bytes_per_second of the rule, or to let statements wait \
             (bytes_over).",
        ),
        Refusal::Records => over(
            "Run less until tomorrow, or ask the operator to raise audit_mib_per_day of the rule. ROLLBACK passes meanwhile; \
             a transaction with a refused message cannot be committed.",
        ),
        Refusal::Withdrawn => {
            Rejection::new(Blame::Client, QUERY_CANCELED, refusal.to_string(), "It waited for a limit and did not run.")
        }
        Refusal::EndlessName => client("Use names of at most 63 bytes: PostgreSQL compares no more."),
    }
}

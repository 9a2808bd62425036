//! What a rule's callers may use up: `[rule.limits]`. Data only; who counts is `session::limits` and `relay`.
//!
//! "Of one caller" means: of one identity under one rule, in all of its sessions together.

use std::time::Duration;

/// Bounds of a rule; by default none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of all the rule's callers together.
    pub sessions: Option<usize>,
    /// Sessions of one caller.
    pub sessions_per_caller: Option<usize>,
    /// Connects of one caller: so many at once, and as many a minute after.
    pub connects_per_minute: Option<u32>,
    /// Logins over one of these wait in this line; without one they are refused.
    pub line: Option<Line>,
    /// A token is good for the client address (IPv6: the /64) that first came with it, as long as it lives.
    pub one_address_per_token: bool,
    /// Statements of one caller: executions (Query, Execute, FunctionCall), of a Query each of its statements.
    pub statements: Option<Rate>,
    /// Bytes of one caller, from the client and to the client together.
    pub bytes: Option<Rate>,
    /// What statements of one caller may take of the audit log, in MiB: so much at once, and as much a day after.
    pub audit_mib_per_day: Option<u32>,
    /// How long a session may leave a transaction open with nothing to do in it.
    pub idle_in_transaction: Option<Duration>,
}

impl Limits {
    /// Whether what a caller uses up must be remembered after its last session.
    pub fn are_metered(&self) -> bool {
        self.connects_per_minute.is_some()
            || self.statements.is_some()
            || self.bytes.is_some()
            || self.audit_mib_per_day.is_some()
    }
}

/// Where logins wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Logins of one caller that wait at once; all who wait have places beside `limits.logins`, as many.
    pub places: usize,
    /// The longest wait.
    pub patience: Duration,
}

/// So much at once, and so much a second after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// A second.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
    /// What becomes of more.
    pub over: Over,
}

/// What becomes of a statement over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It waits until it is its turn.
    Wait,
    /// It fails, and with it its transaction.
    Refuse,
}

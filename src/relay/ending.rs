//! How a session ends, and what the relay asks of whoever runs it.

use super::client_side::Violation;
use super::server_side::Misbehaved;
use super::substitute::Refusal;
use crate::audit::Recorder;
use crate::telemetry::Limit;
use crate::time::Timestamp;
use crate::wire::ErrorFields;
use std::time::Duration;

/// What the process wants of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// Go on.
    #[default]
    Run,
    /// End when nothing is outstanding and no transaction is open.
    WhenIdle(Cause),
    /// End now: cancel what runs, then say why at a frame's edge.
    Now(Cause),
}

/// Why the process ends a session; [`Host::farewell`] has the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The process is leaving.
    Shutdown,
    /// What the session rests on has expired, at this time.
    GrantExpired(Timestamp),
    /// The session has lasted as long as its rule allows.
    SessionLength(Duration),
    /// The policy that was loaded since does not give the caller this session.
    Policy,
    /// An operator ended it.
    Operator,
}

impl Wish {
    /// Takes over `other` if that is more urgent: who is to end at once is not told to wait, and of two like wishes
    /// the first stays. Whether it did.
    pub fn hasten(&mut self, other: Self) -> bool {
        let hastened = other.urgency() > self.urgency();
        if hastened {
            *self = other;
        }
        hastened
    }

    /// Why the session is to end, if it is.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Run => None,
            Self::WhenIdle(cause) | Self::Now(cause) => Some(cause),
        }
    }

    fn urgency(self) -> u8 {
        match self {
            Self::Run => 0,
            Self::WhenIdle(_) => 1,
            Self::Now(_) => 2,
        }
    }
}

impl Cause {
    /// As records have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "drain",
            Self::GrantExpired(_) => "grant_expired",
            Self::SessionLength(_) => "session_length",
            Self::Policy => "policy",
            Self::Operator => "operator",
        }
    }
}

/// Why a relay ended.
#[derive(Debug)]
pub enum Ending {
    /// The client said goodbye or went away.
    Client,
    /// The server closed; `fatal` is the SQLSTATE of its last word, if it had one.
    Server {
        /// SQLSTATE.
        fatal: Option<String>,
    },
    /// The process wanted it.
    Wished(Cause),
    /// The client left a transaction open for longer than its rule allows, with nothing to do in it.
    IdleInTransaction,
    /// The client broke the protocol.
    Violated(Violation),
    /// The server's bytes could not go further.
    Misbehaved(Misbehaved),
    /// The log does not take what the session owes it.
    Unrecorded,
    /// The server has taken a cancel and not said that it is through: it could hit what the client sends next.
    CancelUnanswered,
}

/// What is left to do and to say.
#[derive(Debug)]
pub struct Summary {
    /// Why it ended.
    pub ending: Ending,
    /// SQLSTATE of the server's last word, whoever had ended the session by then.
    pub fatal: Option<String>,
    /// The server was still working for this client when it was let go.
    pub busy: bool,
    /// From the client, in bytes.
    pub bytes_in: u64,
    /// To the client, in bytes.
    pub bytes_out: u64,
    /// The session's log, to write its end into.
    pub recorder: Recorder,
}

/// What the relay does not know itself: words, counters, and where cancels go.
pub trait Host: Sync {
    /// What a client is told in place of the server's error, when a message of its was refused.
    fn refusal(&self, refusal: Refusal) -> ErrorFields;

    /// The error frame that a client is told for an ending of ours.
    fn farewell(&self, ending: &Ending) -> Option<Vec<u8>>;

    /// Cancels what the server runs for this session; returns when the server has heard it, or cannot.
    fn cancel(&self) -> impl Future<Output = ()> + Send;

    /// Messages that were refused.
    fn refused(&self, refusal: Refusal, count: u64);

    /// A message of the client, or an answer, waits for a limit of the session's rule.
    fn waits(&self, limit: Limit);

    /// Messages that passed though the log could not take their record.
    fn passed_unrecorded(&self, count: u64);

    /// The log did not take lines of this session.
    fn unrecorded(&self);

    /// It did before now, and has taken them.
    fn recorded_again(&self);
}

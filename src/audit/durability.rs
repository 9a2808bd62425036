//! What a session's records outlive before its bytes leave, and what may leave without: choices of its rule.

use schemars::JsonSchema;
use serde::Serialize;

/// When a begin record counts as taken, and when an end record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When it is on the disk (`fdatasync(2)`, one for all who wait): it outlives a loss of power. Ends are written at once.
    Strict,
    /// When it is written (`write(2)`): it outlives the proxy's process. Synced within a second. Ends are written with the
    /// log's next record, within a second.
    #[default]
    Batch,
    /// When it waits in memory: it is written within a second, and lost with the process until then. Said in every
    /// record of the session.
    None,
}

/// What becomes of a whole `COMMIT` or `END` whose record not even the log's reserve takes: a choice of its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnrecordedCommit {
    /// It is refused, and its transaction is taken back.
    #[default]
    Refused,
    /// It passes, and is counted.
    Passes,
}

impl Durability {
    /// As the config says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Batch => "batch",
            Self::None => "none",
        }
    }

    /// What every record says of it: the ordinary is not said.
    pub(super) fn told(self) -> Option<Self> {
        (self != Self::Batch).then_some(self)
    }
}

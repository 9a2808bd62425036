//! What operators see: logs on stderr without secrets, and metrics without identities.
//!
//! Promises: no log line carries a token, an assertion or a private key, whatever the level; no metric has a label
//! that a caller chooses. Nothing here is a global of ours: the registry is handed down, and the one subscriber of
//! the process is `tracing`'s own.

mod audit;
mod logging;
mod metrics;
mod redact;

pub use audit::{AnchorGauge, AuditGauge};
pub use logging::{Error, Format, init};
pub use metrics::{Blame, CancelOutcome, Direction, Hop, Limit, LimitOutcome, Metrics, ReloadOutcome, SessionGauge};
pub use redact::{MAX_EVENT_BYTES, redact};

//! The hot path: what runs between a client and its server once both are logged in.
//!
//! Promises: every Query, Parse, Bind, Execute and FunctionCall has its begin line in the log before a byte of it
//! leaves, or is refused: it fails at the server too, and the session lives; every Query and Parse carries the tag at
//! byte 0; everything else passes byte for byte; no message is held whole unless it must be looked at whole.

mod bounds;
mod client_side;
mod ending;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod meter;
mod output;
#[doc(hidden)]
pub mod parts;
mod pump;
mod server_side;
mod substitute;
pub mod tag;
#[cfg(any(test, fuzzing))]
mod testing;
mod tracker;
mod walsender;

pub use bounds::Bounds;
pub use client_side::Violation;
pub use ending::{Cause, Ending, Host, Summary, Wish};
pub use gate::{CancelGate, Hold};
pub use meter::{Meter, Pace};
pub use pump::{LAST_WORDS, Relay};
pub use server_side::Misbehaved;
pub use substitute::Refusal;

#[cfg(test)]
mod joined_tests;
#[cfg(test)]
mod refusal_tests;

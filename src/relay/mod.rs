//! The hot path: what runs between a client and its server once both are logged in.
//!
//! Promises: every Query, Parse, Bind, Execute and FunctionCall has its begin line in the log before a byte of it
//! leaves; every Query and Parse carries the tag at byte 0; everything else passes byte for byte; no message is held
//! whole unless it must be looked at whole.

mod client_side;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod output;
mod pump;
mod server_side;
pub mod tag;
#[cfg(any(test, fuzzing))]
mod testing;
mod tracker;

pub use client_side::Refusal;
pub use gate::{CancelGate, Hold};
pub use pump::{Ending, Relay, Summary, Wish};
pub use server_side::Misbehaved;

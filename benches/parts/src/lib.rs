//! What the parts of the hot path cost, one by one, without sockets and without a server.
//!
//! [`session`] drives the relay's parts as the pump does; [`script`] makes what both sides say, the same in every run;
//! [`replay`] goes through it. The program `parts-replay` does that and nothing else, so that callgrind can count it; the
//! program `parts` has it counted, compares ([`counts`]), and times the parts one by one.

pub mod callgrind;
pub mod counts;
pub mod replay;
pub mod script;
pub mod session;

pub use sample::Result;

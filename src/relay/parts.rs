//! The parts that do no I/O, for `benches/parts`, which measures them one by one and replays a fixed script through them.
//! Not an interface: nothing else may use it.

pub use super::client_side::{ClientSide, Stop};
pub use super::output::Output;
pub use super::server_side::ServerSide;
pub use super::tracker::{Settled, Target, Tracker};

//! pgpassport: Entra ID in, Cloud SQL IAM out, and every query carries who asked.
//!
//! Modules stand bottom up; an arrow only points down (`tests/module_direction.rs` keeps it so).
//! `ARCHITECTURE.md` tells the path of a connection and of a statement through them.

// L0: vocabulary, without I/O.
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod names;
pub mod secret;
pub mod time;
pub mod wire;
// L1: services that know nothing of callers.
pub mod audit;
pub mod http;
pub mod telemetry;
// L2: who is it, what may they, how do they arrive.
pub mod federation;
pub mod identity;
pub mod policy;
// L3: the two sides and what runs between them.
pub mod backend;
pub mod cloudsql;
pub mod frontend;
pub mod relay;
// L4: one connection's life.
pub mod session;
// L5: the process around it.
pub mod admin;
pub mod agent;
pub mod config;
pub mod server;
// L6: what people run.
pub mod cli;
#[cfg(feature = "demo")]
pub mod sim;

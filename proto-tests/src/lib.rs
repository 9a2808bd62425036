//! Drives the built proxy from outside: the simulated cloud in this process, the proxy as a child process, and
//! clients on the wire (psql, tokio-postgres, one that sends what it likes, and real drivers); the [`judge`] compares
//! what PostgreSQL logged with what the proxy recorded.
//!
//! A test starts with a [`chain::Chain`]: everything a caller needs, joined and ready, gone when it is dropped.

pub mod answers;
pub mod audit;
pub mod balancer;
pub mod chain;
pub mod client;
pub mod drivers;
pub mod http;
pub mod intruder;
pub mod judge;
pub mod pipelines;
pub mod ports;
pub mod proxy;
pub mod psql;
pub mod raw;
pub mod records;
pub mod refusal;
pub mod script;
pub mod servers;
pub mod stand_in;
pub mod stranger;
pub mod suites;
pub mod wire;

/// The correlation id that a refusal names in its DETAIL.
pub fn correlation(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("correlation id ")?;
    let id: String = rest.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '-').collect();
    uuid::Uuid::try_parse(&id).ok().map(|_| id)
}

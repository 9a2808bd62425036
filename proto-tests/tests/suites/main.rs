//! PostgreSQL's own suites and programs through the proxy. Slow, so `make suites` runs them.

mod pipeline;
mod regression;
mod tools;

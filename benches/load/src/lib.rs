//! What a bench orders from `load drive`, and what it answers: one line of JSON each, on its standard input and output.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// How clients reach a server.
// No `Debug`: it has passwords.
#[derive(Clone, Serialize, Deserialize)]
pub struct Target {
    /// Where it listens; it must offer TLS.
    pub address: SocketAddr,
    /// Who signed its certificate (PEM).
    pub ca: PathBuf,
    /// `database` of the start-up packet.
    pub database: String,
    /// `user` and password. The first log-in is the first one's, and so on; after the last one comes the first again.
    pub callers: Vec<(String, String)>,
}

/// What clients shall do.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Log in, each with a TLS handshake of its own (nothing is resumed).
    LogIn {
        /// Where.
        target: Target,
        /// How many log-ins.
        count: usize,
        /// How many of them at once.
        at_once: usize,
        /// Whether the sessions stay for what is ordered next; else each ends as soon as it is there.
        keep: bool,
    },
    /// Ask an HTTPS server for something, one call after another on one connection.
    Call {
        /// Where it listens.
        address: SocketAddr,
        /// Who signed its certificate (PEM).
        ca: PathBuf,
        /// What is asked for.
        path: String,
        /// How many calls.
        count: usize,
    },
    /// Have the first session remember the statements `s{from}` to `s{to - 1}`.
    Prepare {
        /// The first.
        from: usize,
        /// Behind the last.
        to: usize,
    },
    /// Run statements, in turn over all sessions.
    Run {
        /// How many at once, of different sessions.
        in_flight: usize,
        /// Seconds; what is under way then is finished, and counts.
        seconds: f64,
        /// Which.
        work: Work,
    },
    /// End all sessions.
    End,
}

/// A statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A Query whose text has this many bytes; 10 are the least.
    Query {
        /// Bytes.
        bytes: usize,
    },
    /// Bind, Execute and Sync of one of the first so many remembered statements, each time another.
    Execute {
        /// How many are remembered.
        remembered: usize,
    },
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Of [`Order::LogIn`].
    LoggedIn(LogIns),
    /// Of [`Order::Run`].
    Ran(Ran),
    /// Of [`Order::Call`].
    Called {
        /// Milliseconds of the first call, from connect to the answer's end.
        first_ms: f64,
        /// Of the others: median.
        next_ms: f64,
    },
    /// Of the others.
    Done,
    /// The order was not carried out.
    Failed {
        /// Why.
        why: String,
    },
}

/// Log-ins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogIns {
    /// As far as `ReadyForQuery`.
    pub served: usize,
    /// The others.
    pub failed: usize,
    /// Why, of one of them.
    pub failure: Option<String>,
    /// From the first connect to the last end.
    pub seconds: f64,
    /// Milliseconds from connect to `ReadyForQuery`, of those that were served: median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// Statements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// How many.
    pub statements: usize,
    /// How long that took.
    pub seconds: f64,
    /// Microseconds from sending to `ReadyForQuery`: median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

/// The value that this part (0 to 1) of all values is not above; 0 without values. Sorts them.
pub fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    // A place among measurements: far below 2^52.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "as said")]
    let place = (last as f64 * part).round() as usize;
    values.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        for (part, expected) in [(0.5, 51.0), (0.99, 100.0), (0.0, 1.0), (1.0, 101.0)] {
            assert!((percentile(&mut values, part) - expected).abs() < f64::EPSILON, "{part}");
        }
        assert!(percentile(&mut [], 0.5).abs() < f64::EPSILON);
        assert!((percentile(&mut [7.0], 0.99) - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn an_order_is_what_it_was_on_the_other_side() {
        let order = Order::Run { in_flight: 64, seconds: 0.5, work: Work::Query { bytes: 10 } };
        let line = serde_json::to_string(&order).unwrap();
        let Order::Run { in_flight: 64, work: Work::Query { bytes: 10 }, .. } = serde_json::from_str(&line).unwrap()
        else {
            panic!("{line}");
        };
        let answer = Answer::Failed { why: "so".to_owned() };
        assert_eq!(serde_json::from_str::<Answer>(&serde_json::to_string(&answer).unwrap()).unwrap(), answer);
    }
}

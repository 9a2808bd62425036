//! The clients of `load drive`, a process of its own.

use crate::Result;
use crate::cloud::Service;
use load::{Answer, LogIns, Order, Ran, Target, Work};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running `load drive`: ends when its standard input does.
#[derive(Debug)]
pub(crate) struct Driver {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Driver {
    pub(crate) fn start(program: &str) -> Result<Self> {
        let mut process = Command::new(program).arg("drive").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(process.stdout.take().ok_or("clients without an output")?);
        Ok(Self { process, output })
    }

    /// Log-ins whose sessions end at once, one after another.
    pub(crate) fn log_in(&mut self, target: Target, count: usize) -> Result<LogIns> {
        all_served(self.try_to_log_in(Order::LogIn { target, count, at_once: 1, keep: false })?)
    }

    /// Further sessions, which stay.
    pub(crate) fn open(&mut self, target: Target, count: usize) -> Result<LogIns> {
        all_served(self.try_to_log_in(Order::LogIn { target, count, at_once: AT_ONCE, keep: true })?)
    }

    /// Log-ins that all begin at once, and whose sessions stay; some may fail.
    pub(crate) fn storm(&mut self, target: Target, count: usize) -> Result<LogIns> {
        self.try_to_log_in(Order::LogIn { target, count, at_once: count, keep: true })
    }

    /// Statements, in turn over all sessions.
    pub(crate) fn run(&mut self, in_flight: usize, seconds: f64, work: Work) -> Result<Ran> {
        match self.order(&Order::Run { in_flight, seconds, work })? {
            Answer::Ran(ran) => Ok(ran),
            other => Err(format!("the clients answered {other:?}").into()),
        }
    }

    /// Calls of an HTTPS service on one connection: milliseconds of the first, with the connection, and of the others.
    pub(crate) fn call(&mut self, service: &Service, ca: &Path, count: usize) -> Result<(f64, f64)> {
        let Service { address, path } = service.clone();
        match self.order(&Order::Call { address, ca: ca.to_owned(), path, count })? {
            Answer::Called { first_ms, next_ms } => Ok((first_ms, next_ms)),
            other => Err(format!("the clients answered {other:?}").into()),
        }
    }

    /// Has one session remember further statements.
    pub(crate) fn prepare(&mut self, from: usize, to: usize) -> Result<()> {
        self.order(&Order::Prepare { from, to }).map(drop)
    }

    /// Ends all sessions.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.order(&Order::End).map(drop)
    }

    fn try_to_log_in(&mut self, order: Order) -> Result<LogIns> {
        match self.order(&order)? {
            Answer::LoggedIn(log_ins) => Ok(log_ins),
            other => Err(format!("the clients answered {other:?}").into()),
        }
    }

    fn order(&mut self, order: &Order) -> Result<Answer> {
        let input = self.process.stdin.as_mut().ok_or("clients without an input")?;
        writeln!(input, "{}", serde_json::to_string(order)?)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match serde_json::from_str(&line).map_err(|_| "the clients are gone")? {
            Answer::Failed { why } => Err(format!("the clients: {why}").into()),
            answer => Ok(answer),
        }
    }
}

/// Log-ins that are under way at once where it does not matter how long they take.
const AT_ONCE: usize = 32;

fn all_served(log_ins: LogIns) -> Result<LogIns> {
    match &log_ins.failure {
        Some(why) => Err(format!("{} log-ins failed: {why}", log_ins.failed).into()),
        None => Ok(log_ins),
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

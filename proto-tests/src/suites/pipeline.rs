//! `libpq_pipeline`, the test module of PostgreSQL's own pipeline mode, of versions 15 and 18.

use super::{Postgres15, Printed, made, run};
use crate::chain::Chain;
use crate::psql::Login;
use tokio::process::Command;

/// Which version's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 11 tests, protocol 3.0.
    Fifteen,
    /// 13 tests, protocols up to 3.2.
    Eighteen,
}

/// Every test of version 15, and those that 18 adds.
pub const FIFTEEN: [&str; 11] = [
    "disallowed_in_pipeline",
    "multi_pipelines",
    "nosync",
    "pipeline_abort",
    "pipeline_idle",
    "pipelined_insert",
    "prepared",
    "simple_pipeline",
    "singlerow",
    "transaction",
    "uniqviol",
];
/// Those that 18 adds.
pub const MORE_IN_EIGHTEEN: [&str; 2] = ["cancel", "protocol_version"];

/// The program of a version.
#[derive(Debug)]
pub struct Pipeline<'a> {
    version: Version,
    postgres: &'a Postgres15,
}

impl<'a> Pipeline<'a> {
    /// The program; version 15 runs with that version's libpq.
    pub fn new(version: Version, postgres: &'a Postgres15) -> Self {
        Self { version, postgres }
    }

    fn command(&self) -> Command {
        let program = |name: &str| made(name).join("libpq_pipeline");
        match self.version {
            Version::Fifteen => self.postgres.with_libpq(program("postgresql-15")),
            Version::Eighteen => {
                let mut command = Command::new(program("postgresql-18"));
                command.env_clear();
                command
            }
        }
    }

    /// What the program says that its tests are.
    pub async fn tests(&self) -> Vec<String> {
        let listed = self.command().arg("tests").output().await.expect("libpq_pipeline runs");
        String::from_utf8_lossy(&listed.stdout).split_whitespace().map(str::to_owned).collect()
    }

    /// Runs one test and returns what libpq saw of the protocol, too.
    pub async fn test(&self, name: &str, options: &str, login: &Login, chain: &Chain) -> (Printed, String) {
        let trace = chain.folder().join(format!("{name}.trace"));
        let mut command = self.command();
        command.arg("-t").arg(&trace).args([name, options]);
        let printed = run(command, login, chain).await;
        (printed, std::fs::read_to_string(&trace).expect("libpq wrote a trace"))
    }
}

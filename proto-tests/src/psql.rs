//! Debian's psql as a child process, as a person would run it.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// How long one psql may run.
const DEADLINE: Duration = Duration::from_secs(60);

/// What one run printed.
#[derive(Debug)]
pub struct Printed {
    /// Exit code: 0 well, 1 a fatal error of its own, 2 no connection, 3 a script's error (psql's manual page).
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Where and as whom psql connects.
#[derive(Debug, Clone)]
pub struct Login {
    /// `host`, as the listener's certificate has it.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `user`.
    pub user: String,
    /// `dbname`.
    pub database: String,
    /// `PGPASSWORD`.
    pub password: String,
    /// `sslmode`.
    pub sslmode: &'static str,
}

impl Login {
    /// What libpq's programs find in their environment, with nothing of the person who runs the tests.
    pub fn environment(&self, ca: &Path) -> [(&'static str, OsString); 10] {
        [
            ("LC_ALL", "C.UTF-8".into()),
            // No `~/.postgresql`.
            ("HOME", "/nonexistent".into()),
            ("PGHOST", self.host.clone().into()),
            ("PGPORT", self.port.to_string().into()),
            ("PGUSER", self.user.clone().into()),
            ("PGDATABASE", self.database.clone().into()),
            ("PGPASSWORD", self.password.clone().into()),
            ("PGSSLMODE", self.sslmode.into()),
            ("PGSSLROOTCERT", ca.into()),
            ("PGCONNECT_TIMEOUT", "50".into()),
        ]
    }

    /// Runs psql with these arguments, tuples only and unaligned (`-At`), stopping at the first error.
    pub async fn psql(&self, ca: &Path, arguments: &[&str]) -> Printed {
        let run = self.command(ca, arguments).output();
        let done = tokio::time::timeout(DEADLINE, run).await.expect("psql ends in time").expect("psql is installed");
        Printed::of(done)
    }

    /// The same, to be started by the caller.
    pub fn command(&self, ca: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("psql");
        command
            .args(["--no-psqlrc", "--no-password", "-At", "-v", "ON_ERROR_STOP=1"])
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment(ca))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

impl Printed {
    /// What a psql that has ended printed.
    pub fn of(done: Output) -> Self {
        Self {
            code: done.status.code().expect("psql ends by itself"),
            out: String::from_utf8(done.stdout).expect("psql prints UTF-8"),
            err: String::from_utf8(done.stderr).expect("psql prints UTF-8"),
        }
    }

    /// Standard output of a run that went well.
    #[track_caller]
    pub fn well(&self) -> &str {
        assert_eq!(self.code, 0, "psql failed: {}", self.err);
        self.out.trim_end()
    }

    /// Standard error of a run that could not connect.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert_eq!(self.code, 2, "psql was to be refused; it printed {:?} and {:?}", self.out, self.err);
        assert_eq!(self.out, "", "a refused psql printed a result");
        &self.err
    }

    /// The correlation id that the refusal names.
    #[track_caller]
    pub fn correlation(&self) -> String {
        crate::correlation(&self.err).unwrap_or_else(|| panic!("no correlation id in {:?}", self.err))
    }
}

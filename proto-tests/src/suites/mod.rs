//! PostgreSQL's own suites through the chain: its programs, a server with a superuser, and what they print.
//!
//! `.ci/postgres-sources.sh` fetches and builds what is used here, `make suites` runs it.

pub mod padding;
pub mod pipeline;
pub mod regress;
pub mod tools;

use crate::chain::{Chain, Setup};
use crate::judge::{Mode, Verdict, judge};
use crate::psql::Login;
use crate::records::Records;
use pgpassport::sim::{CloudOptions, PostgresOptions, world};
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::Command;

/// The database that the suites run in, and its name in the config.
pub const DATABASE: &str = "regression";
/// The isolation suite's, under the name that one of its tests expects.
pub const ISOLATED: &str = "isolation_regression";
/// Another one, which a dump is restored into.
pub const RESTORED: &str = "restored";
/// The simulator's own superuser; sessions as it are not the suites'.
const OWNER: &str = "cloudsqladmin";
/// How long PostgreSQL may take to offer TLS.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one program may run.
const DEADLINE: Duration = Duration::from_secs(900);

/// PostgreSQL 15's programs and suites where an unprivileged server can read them; gone when dropped.
#[derive(Debug)]
pub struct Postgres15(TempDir);

/// A chain whose caller is superuser of the server.
#[derive(Debug)]
pub struct Suited {
    /// The chain.
    pub chain: Chain,
    /// Where PostgreSQL itself listens, past the instance.
    address: Ipv4Addr,
    /// With which password; nobody does when there is none.
    password: Option<String>,
}

/// What a program printed.
#[derive(Debug)]
pub struct Printed {
    /// Whether its exit code was 0.
    pub well: bool,
    /// Standard output, then standard error.
    pub output: String,
}

/// `.cache/suites/NAME`, which `.ci/postgres-sources.sh` makes.
fn made(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/suites").join(name);
    assert!(folder.join("made-by").is_file(), "no {name}: run `bash .ci/postgres-sources.sh`");
    folder
}

impl Postgres15 {
    /// Copies them out of a folder that may be anywhere, below one that others cannot enter.
    pub fn unpack() -> Self {
        let to = tempfile::Builder::new().prefix("pgpassport-suites-").tempdir().expect("a folder");
        std::fs::set_permissions(to.path(), Permissions::from_mode(0o755)).expect("its mode");
        let made = made("postgresql-15");
        let suites = made.join("source/src/test");
        let parts = ["root/usr", "libraries"].map(|part| made.join(part));
        for from in parts.into_iter().chain(["regress", "isolation"].map(|suite| suites.join(suite))) {
            copy(&from, to.path());
        }
        Self(to)
    }

    /// The folder of all that follows.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The folder of `postgres`, `psql` and the other programs.
    pub fn bin(&self) -> PathBuf {
        self.path().join("usr/lib/postgresql/15/bin")
    }

    /// The folder of this version's libpq.
    fn libraries(&self) -> PathBuf {
        let folders = std::fs::read_dir(self.path().join("usr/lib")).expect("it has libraries");
        let mut folders = folders.flatten().map(|entry| entry.path());
        folders.find(|folder| folder.join("libpq.so.5").exists()).expect("libpq5 is unpacked")
    }

    /// One of this version's programs.
    pub fn program(&self, name: &str) -> Command {
        self.with_libpq(self.bin().join(name))
    }

    /// A program that runs with this version's libpq.
    pub fn with_libpq(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LD_LIBRARY_PATH", self.libraries());
        command
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Blocking::new("cp").arg("-r").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "{} is copied", from.display());
}

/// A chain in front of this server, whose caller is superuser of it and has a database of its own.
pub async fn chain(postgres: PostgresOptions, tagged: bool) -> Suited {
    // PostgreSQL's own port at an address of its own; the simulated instance goes on using the socket.
    let [high, low, ..] = uuid::Uuid::new_v4().into_bytes();
    let address = Ipv4Addr::new(127, 88, high, low.clamp(1, 254));
    let tls = "ssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";
    let settings = format!("listen_addresses = '{address}'\n{tls}{}", postgres.settings);
    let postgres = PostgresOptions { settings, ..postgres };
    let sections = [DATABASE, ISOLATED, RESTORED]
        .map(|name| format!("\n[database.{name}]\ninstance = \"{}\"\ntag = {tagged}\n", world::INSTANCE))
        .concat();
    let rules = (format!("[\"{}\"]", world::DATABASE), format!("[\"{DATABASE}\", \"{ISOLATED}\", \"{RESTORED}\"]"));
    let options = CloudOptions { postgres, ..CloudOptions::default() };
    let chain = Setup::default().extra(&sections).replace(&rules.0, &rules.1).options(options).start().await;
    let suited = Suited { chain, address, password: None };
    suited.own_the_cluster().await;
    for database in [DATABASE, ISOLATED] {
        // What `pg_regress` does to a database that it makes itself (`create_database`, `pg_regress.c`).
        let settings =
            ["lc_messages", "lc_monetary", "lc_numeric", "lc_time", "bytea_output", "timezone_abbreviations"]
                .into_iter()
                .zip(["C", "C", "C", "C", "hex", "Default"])
                .map(|(name, value)| format!("ALTER DATABASE {database} SET {name} TO '{value}'"));
        let create = format!("CREATE DATABASE {database} TEMPLATE template0");
        for statement in [create].into_iter().chain(settings) {
            suited.as_user(world::ORDERS_APP.database_user, &statement).await;
        }
    }
    suited
}

impl Suited {
    /// The caller, through the proxy.
    pub fn through(&self, database: &str) -> Login {
        Login { database: database.to_owned(), ..self.chain.app() }
    }

    /// The same database user of the same server, past the proxy and the instance.
    pub fn direct(&self, database: &str) -> Login {
        let login = Login { port: 5432, ..self.through(database) };
        if let Some(password) = &self.password {
            Login { host: self.address.to_string(), sslmode: "verify-ca", password: password.clone(), ..login }
        } else {
            let host = self.folder().join("s").display().to_string();
            Login { host, sslmode: "disable", password: String::new(), ..login }
        }
    }

    /// Another superuser, past the proxy: who looks at what was done.
    pub fn onlooker(&self, database: &str) -> Login {
        Login { user: OWNER.to_owned(), ..self.direct(database) }
    }

    /// Makes the caller's database user the one that `initdb` made: the regression suite expects to own the catalogs.
    /// The simulator's superuser is renamed, for which another superuser is needed.
    async fn own_the_cluster(&self) {
        let name = world::ORDERS_APP.database_user;
        self.as_user(OWNER, "CREATE ROLE spare SUPERUSER LOGIN").await;
        self.as_user("spare", &format!("DROP ROLE \"{name}\"")).await;
        self.as_user("spare", &format!("ALTER ROLE {OWNER} RENAME TO \"{name}\"")).await;
        self.as_user(name, "DROP ROLE spare").await;
        self.as_user(name, &format!("CREATE ROLE {OWNER} SUPERUSER LOGIN")).await;
    }

    /// Lets the server take TLS on its own port, with the certificate that the proxy's listener shows: libpq has other
    /// words for some errors then.
    pub async fn with_tls(mut self) -> Self {
        let data = self.folder().join("data");
        let owner = std::fs::metadata(&data).expect("the cluster");
        let (certificate, key) = self.chain.cloud.listener_certificate();
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = data.join(to);
            std::fs::copy(from, &to).expect("it is copied");
            std::fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("its mode");
            chown(&to, Some(owner.uid()), Some(owner.gid())).expect("its owner");
        }
        let access = data.join("pg_hba.conf");
        let more =
            std::fs::read_to_string(&access).expect("access rules") + "hostssl all all 127.0.0.0/8 scram-sha-256\n";
        std::fs::write(&access, more).expect("access rules");
        let password = uuid::Uuid::new_v4().to_string();
        for user in [OWNER, world::ORDERS_APP.database_user] {
            self.as_user(OWNER, &format!("ALTER ROLE \"{user}\" PASSWORD '{password}'")).await;
        }
        self.as_user(OWNER, "ALTER SYSTEM SET ssl = on").await;
        self.as_user(OWNER, "SELECT pg_reload_conf()").await;
        self.password = Some(password);
        let deadline = Instant::now() + PATIENCE;
        let direct = self.onlooker("postgres");
        while direct.psql(self.chain.cloud.ca_path(), &["-c", "SELECT 1"]).await.code != 0 {
            assert!(Instant::now() < deadline, "PostgreSQL takes no TLS: {}", self.chain.database_log());
        }
        self
    }

    async fn as_user(&self, user: &str, statement: &str) {
        let login = Login { user: user.to_owned(), ..self.direct("postgres") };
        login.psql(self.chain.cloud.ca_path(), &["-c", statement]).await.well();
    }

    /// The cluster's.
    fn folder(&self) -> &Path {
        self.chain.cloud.postgres_log().parent().expect("the log stands in the cluster's folder")
    }

    /// The database's log from this byte on against the records, once every session has ended.
    pub async fn judged(&self, from: usize, mode: Mode) -> Verdict {
        let ended = |records: &Records| {
            let (started, ended) = (records.of("session_open").len(), records.of("session_end").len());
            started > 0 && started == ended
        };
        let records = self.chain.records_when("the end of every session", ended).await;
        let log = self.chain.database_log();
        judge(mode, log.get(from..).expect("a line's start"), &records)
    }
}

/// Runs a program as this caller, to its end.
pub async fn run(mut command: Command, login: &Login, chain: &Chain) -> Printed {
    command.envs(login.environment(chain.cloud.ca_path())).stdin(Stdio::null()).kill_on_drop(true);
    let done = tokio::time::timeout(DEADLINE, command.output()).await;
    let done = done
        .unwrap_or_else(|_| panic!("{} did not end in {DEADLINE:?}", command.as_std().get_program().display()))
        .expect("it runs");
    let output = [done.stdout.as_slice(), done.stderr.as_slice()].concat();
    Printed { well: done.status.success(), output: String::from_utf8_lossy(&output).into_owned() }
}

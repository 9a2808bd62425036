//! The PostgreSQL that every peer reaches: its own cluster, its own TLS listener, `password` for whoever comes by TLS.

use crate::Result;
use crate::child::{Child, Start, Unprivileged, output_of};
use crate::cloud::Facts;
use proto_tests::ports::Port;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where it listens.
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The database of every cell.
pub(crate) const DATABASE: &str = "orders";
/// Hundreds of thousands of rows that `pgbench -i` makes.
const SCALE: &str = "5";
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
const SUPERUSER: &str = "postgres";

/// Nothing here measures the database: no fsync, no autovacuum in the middle of a round.
const SETTINGS: &str = "unix_socket_permissions = 0700\nmax_connections = 600\nshared_buffers = '128MB'\n\
    fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nmax_wal_size = '1GB'\nautovacuum = off\n\
    password_encryption = 'md5'\nssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";

/// Clients come by TLS and say their password as it is: what an instance does for IAM logins. Who comes without TLS is the
/// simulated instance, which has taken its clients' off.
const ACCESS: &str = "local all all trust\nhost all all 127.0.0.1/32 password\n";

/// A running server.
#[derive(Debug)]
pub(crate) struct Database {
    _server: Child,
    port: Port,
    socket: PathBuf,
    bin: PathBuf,
}

impl Database {
    /// Makes a cluster in `folder`, starts it, and fills it for the caller of `facts`.
    pub(crate) fn start(folder: &Path, facts: &Facts, user: Option<&Unprivileged>) -> Result<Self> {
        let bin = bin_folder()?;
        let port = Port::reserve()?;
        let (home, data) = (folder.join("postgres"), folder.join("postgres/data"));
        std::fs::create_dir(&home)?;
        own(&home, user)?;
        let mut initdb = Command::new(bin.join("initdb"));
        as_user(&mut initdb, user);
        initdb.args(["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=reject"]);
        output_of(initdb.args(["--username", SUPERUSER, "--pgdata"]).arg(&data))?;
        let address = format!("listen_addresses = '{SERVER}'\nport = {}\n", port.address().port());
        let settings = format!("{address}unix_socket_directories = '{}'\n{SETTINGS}", home.display());
        for (name, content) in [
            ("postgresql.auto.conf", settings.as_str()),
            ("pg_hba.conf", ACCESS),
            ("server.crt", &facts.server_certificate),
            ("server.key", &facts.server_key),
        ] {
            let file = data.join(name);
            std::fs::write(&file, content)?;
            std::fs::set_permissions(&file, Permissions::from_mode(0o600))?;
            own(&file, user)?;
        }
        let server = Child::start(&Start {
            command: vec![bin.join("postgres").display().to_string(), "-D".to_owned(), data.display().to_string()],
            environment: BTreeMap::new(),
            log: home.join("log"),
            user: user.cloned(),
            signal: "QUIT",
        })?;
        let database = Self { _server: server, port, socket: home, bin };
        database.fill(facts)?;
        Ok(database)
    }

    /// Its TLS listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its TLS listener's port.
    pub(crate) fn port(&self) -> u16 {
        self.port.address().port()
    }

    /// One of PostgreSQL's programs.
    pub(crate) fn program(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    /// Its version, as it says it.
    pub(crate) fn version(&self) -> Result<String> {
        Ok(output_of(self.program("postgres").arg("--version"))?.trim().to_owned())
    }

    /// Runs SQL as the superuser; the first column of the first row.
    pub(crate) fn sql(&self, sql: &str) -> Result<String> {
        let mut psql = self.local("psql");
        Ok(output_of(psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", DATABASE, "-c", sql]))?.trim().to_owned())
    }

    fn local(&self, program: &str) -> Command {
        let mut command = self.program(program);
        command.env("PGHOST", &self.socket).env("PGPORT", self.port().to_string()).env("PGUSER", SUPERUSER);
        command
    }

    fn fill(&self, facts: &Facts) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match output_of(self.local("psql").args(["-Xqd", "postgres", "-c", &format!("CREATE DATABASE {DATABASE}")]))
            {
                Ok(_) => break,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        output_of(self.local("pgbench").args(["-i", "-q", "-s", SCALE, DATABASE]))?;
        let (user, password) = (&facts.user, &facts.login_token);
        self.sql(&format!(
            "CREATE ROLE \"{user}\" LOGIN PASSWORD '{password}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO \
             \"{user}\"; CREATE UNLOGGED TABLE sink (line text); GRANT INSERT, SELECT ON sink TO \"{user}\"; CHECKPOINT"
        ))?;
        Ok(())
    }
}

/// Gives a file or folder to the user that PostgreSQL runs as.
fn own(path: &Path, user: Option<&Unprivileged>) -> Result<()> {
    if let Some(user) = user {
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

fn as_user(command: &mut Command, user: Option<&Unprivileged>) {
    use std::os::unix::process::CommandExt as _;
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid).current_dir("/");
    }
}

/// The newest PostgreSQL that Debian installed.
fn bin_folder() -> Result<PathBuf> {
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = std::fs::read_dir("/usr/lib/postgresql").map_err(|_| "PostgreSQL is not installed")?;
    let found = versions.flatten().filter_map(|entry| Some((number(&entry.path())?, entry.path().join("bin"))));
    let newest = found.filter(|(_, bin)| bin.join("pgbench").is_file() && bin.join("initdb").is_file()).max();
    Ok(newest.ok_or("no PostgreSQL server with pgbench is installed")?.1)
}

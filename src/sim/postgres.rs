//! The real PostgreSQL behind the simulated instance: own folder, Unix socket only, no superuser for anybody.
//!
//! Runs as an unprivileged user when this process is root. The socket's folder is 0700, and only the simulated
//! instance, which has checked the caller, connects there.

use super::instance::users;
use super::watchdog::{Unprivileged, Watchdog, run_as};
use super::{Error, PostgresOptions, world};
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

/// How long PostgreSQL may take to answer after its start.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Longest path of a Unix socket, in bytes (`sun_path` without its NUL).
const MAX_SOCKET_PATH: usize = 107;
/// The only superuser; the instance lets nobody log in as it.
const SUPERUSER: &str = "cloudsqladmin";
/// Bytes of PostgreSQL's log quoted when it does not start.
const LOG_TAIL: usize = 2000;

/// Starts PostgreSQL, waits for its end, removes its folder. `$1` bin, `$2` data, `$3` log, `$4` folder.
const SCRIPT: &str = r#"
"$1/postgres" -D "$2" >>"$3" 2>&1 </dev/null & postgres=$!
cat >/dev/null
kill -QUIT "$postgres"
wait "$postgres"
rm -rf "$4"
"#;

/// A running server.
#[derive(Debug)]
pub(super) struct Postgres {
    log: PathBuf,
    socket: PathBuf,
    _watchdog: Watchdog,
}

impl Postgres {
    /// Makes a cluster, starts it and creates users, database and rows.
    pub(super) async fn start(options: PostgresOptions) -> Result<Self, Error> {
        let PostgresOptions { bin, settings } = options;
        let bin = bin.map_or_else(bin_folder, with_initdb)?;
        let user = unprivileged()?;
        let folder = folder(user)?;
        let layout = Layout::of(&folder)?;
        let made = {
            let (bin, layout) = (bin.clone(), layout.clone());
            tokio::task::spawn_blocking(move || layout.initialise(&bin, user, &settings)).await
        };
        if let Err(error) = made.unwrap_or_else(|error| Err(Error::Postgres(error.to_string()))) {
            let _ = std::fs::remove_dir_all(&folder);
            return Err(error);
        }
        let watchdog = Watchdog::start(SCRIPT, &[&bin, &layout.data, &layout.log, &folder], user)
            .map_err(|source| Error::io("start PostgreSQL's watchdog", source))?;
        let postgres =
            Self { log: layout.log.clone(), socket: layout.socket.join(".s.PGSQL.5432"), _watchdog: watchdog };
        postgres.populate(&layout.socket).await?;
        Ok(postgres)
    }

    /// Its log.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Its Unix socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    async fn populate(&self, socket: &Path) -> Result<(), Error> {
        let admin = self.connect(socket, "postgres").await?;
        admin.batch_execute(&roles()).await.map_err(|error| self.failed(&error))?;
        admin
            .batch_execute("CREATE DATABASE orders OWNER cloudsqlsuperuser")
            .await
            .map_err(|error| self.failed(&error))?;
        let orders = self.connect(socket, "orders").await?;
        orders.batch_execute(&tables()).await.map_err(|error| self.failed(&error))
    }

    async fn connect(&self, socket: &Path, database: &str) -> Result<tokio_postgres::Client, Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(socket).user(SUPERUSER).dbname(database).application_name("simulator");
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return Ok(client);
                }
                Err(error) if Instant::now() >= deadline => return Err(self.failed(&error)),
                Err(_) => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }

    fn failed(&self, error: &dyn std::error::Error) -> Error {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = log.get(log.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
        let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Error::Postgres(format!("{error}{cause}; its log ends with:\n{}", String::from_utf8_lossy(tail)))
    }
}

/// Where things are in PostgreSQL's folder.
#[derive(Debug, Clone)]
struct Layout {
    data: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

impl Layout {
    fn of(folder: &Path) -> Result<Self, Error> {
        let layout = Self { data: folder.join("data"), socket: folder.join("s"), log: folder.join("postgres.log") };
        let length = layout.socket.join(".s.PGSQL.5432").as_os_str().len();
        if length > MAX_SOCKET_PATH {
            let _ = std::fs::remove_dir_all(folder);
            return Err(Error::Postgres(format!(
                "its socket's path has {length} bytes; {MAX_SOCKET_PATH} are possible"
            )));
        }
        Ok(layout)
    }

    fn initialise(&self, bin: &Path, user: Option<Unprivileged>, more: &str) -> Result<(), Error> {
        make_folder(&self.socket, user)?;
        let mut initdb = Command::new(bin.join("initdb"));
        run_as(&mut initdb, user);
        initdb
            .args(["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=reject"])
            .args(["--username", SUPERUSER, "--pgdata"])
            .arg(&self.data)
            .stdin(Stdio::null());
        let output = initdb.output().map_err(|source| Error::io("run initdb", source))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::Postgres(format!("initdb: {stderr}")));
        }
        let file = self.data.join("pg_hba.conf");
        std::fs::write(&file, access()).map_err(|source| Error::io("write PostgreSQL's access rules", source))?;
        let settings = format!("{}{more}\n", settings(&self.socket));
        let file = self.data.join("postgresql.auto.conf");
        std::fs::write(&file, settings).map_err(|source| Error::io("write PostgreSQL's settings", source))
    }
}

/// Durability is of no use here; the log is: it is what the demo shows.
fn settings(socket: &Path) -> String {
    let socket = socket.display();
    format!(
        "listen_addresses = ''\nunix_socket_directories = '{socket}'\nunix_socket_permissions = 0700\n\
         fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nmax_connections = 200\n\
         shared_buffers = '32MB'\nmax_wal_size = '256MB'\nautovacuum = off\nlogging_collector = off\n\
         log_destination = 'stderr'\nlog_statement = 'all'\nlog_line_prefix = '%m [%p] %u %d %e '\n\
         log_min_messages = 'warning'\nlog_timezone = 'UTC'\ntimezone = 'UTC'\nlog_error_verbosity = 'default'\n"
    )
}

/// Built-in users prove their password; for all others the simulated instance has asked IAM. `md5` means SCRAM
/// where the password is kept so (PostgreSQL, "Password Authentication").
fn access() -> String {
    let built_in: Vec<&str> =
        users::USERS.iter().filter(|user| user.kind == users::Kind::BuiltIn).map(|user| user.name).collect();
    format!("local all {} md5\nlocal all all trust\nlocal replication all trust\n", built_in.join(","))
}

/// Cloud SQL's roles and the instance's users; none is a superuser.
fn roles() -> String {
    let mut sql = "CREATE ROLE cloudsqlsuperuser NOLOGIN CREATEDB CREATEROLE;\n\
                   CREATE ROLE cloudsqliamuser NOLOGIN;\nCREATE ROLE cloudsqliamserviceaccount NOLOGIN;\n"
        .to_owned();
    for user in users::USERS {
        let group = match user.kind {
            users::Kind::BuiltIn => "cloudsqlsuperuser",
            users::Kind::ServiceAccount => "cloudsqliamserviceaccount",
            users::Kind::Workforce => "cloudsqliamuser",
        };
        // `ALTER USER … REPLICATION` is the operator's to say; here only the app has it.
        let attributes = match user.kind {
            users::Kind::BuiltIn => "CREATEDB CREATEROLE",
            _ if user.name == world::ORDERS_APP.database_user => "REPLICATION",
            _ => "",
        };
        let name = user.name;
        let _ = writeln!(sql, "CREATE ROLE \"{name}\" LOGIN NOSUPERUSER {attributes} IN ROLE {group};");
    }
    for user in [world::SCRAM_USER, world::MD5_USER] {
        let _ = writeln!(
            sql,
            "SET password_encryption = '{}'; ALTER ROLE \"{}\" PASSWORD '{}';",
            user.encryption, user.name, user.password
        );
    }
    sql
}

/// A small table that callers may read and change, and a schema where they may create.
fn tables() -> String {
    let callers = "cloudsqliamuser, cloudsqliamserviceaccount";
    format!(
        "CREATE TABLE orders (id integer PRIMARY KEY, customer text NOT NULL, amount numeric(10,2) NOT NULL, \
         placed date NOT NULL);\n\
         INSERT INTO orders VALUES (1, 'Northwind', 120.50, '2026-11-02'), (2, 'Tailspin', 75.00, '2026-11-09'), \
         (3, 'Wingtip', 310.25, '2026-11-16');\n\
         ALTER TABLE orders OWNER TO cloudsqlsuperuser;\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO {callers};\n\
         CREATE SCHEMA scratch AUTHORIZATION cloudsqlsuperuser;\nGRANT USAGE, CREATE ON SCHEMA scratch TO {callers};\n"
    )
}

/// The server's programs: what the environment names, else the newest that Debian installed.
fn bin_folder() -> Result<PathBuf, Error> {
    if let Some(folder) = std::env::var_os("PGPASSPORT_POSTGRES_BIN") {
        return with_initdb(PathBuf::from(folder));
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").map_err(|_| Error::NoPostgres)?;
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions
        .flatten()
        .filter_map(|entry| Some((number(&entry.path())?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .max()
        .map(|(_, bin)| bin)
        .ok_or(Error::NoPostgres)
}

fn with_initdb(folder: PathBuf) -> Result<PathBuf, Error> {
    if folder.join("initdb").is_file() { Ok(folder) } else { Err(Error::NoPostgres) }
}

/// The user PostgreSQL runs as: `None` is this process's own; it refuses to run as root.
fn unprivileged() -> Result<Option<Unprivileged>, Error> {
    let process = std::fs::metadata("/proc/self").map_err(|source| Error::io("read /proc/self", source))?;
    if process.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(|source| Error::io("read /etc/passwd", source))?;
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Unprivileged { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    find("postgres").or_else(|| find("nobody")).map(Some).ok_or_else(|| Error::Postgres("no unprivileged user".into()))
}

/// A new folder (0700) in the system's temporary folder, owned by that user.
fn folder(user: Option<Unprivileged>) -> Result<PathBuf, Error> {
    let mut base = std::env::temp_dir();
    if base.as_os_str().len() > MAX_SOCKET_PATH / 2 {
        base = PathBuf::from("/tmp");
    }
    let folder = base.join(format!("pgpassport-pg-{}", uuid::Uuid::new_v4().simple()));
    make_folder(&folder, user)?;
    Ok(folder)
}

fn make_folder(folder: &Path, user: Option<Unprivileged>) -> Result<(), Error> {
    let failed = |source: io::Error| Error::io("make PostgreSQL's folder", source);
    std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(failed)?;
    match user {
        Some(user) => chown(folder, Some(user.uid), Some(user.gid)).map_err(failed),
        None => Ok(()),
    }
}

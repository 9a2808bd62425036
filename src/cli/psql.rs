//! `pgpassport psql`: looks at the proxy, signs in, and becomes psql with the token as its password.
//!
//! What could fail without the person is tried first: psql is there, the CA is there, the proxy is up and is who it
//! says it is. The token is in psql's environment alone, never on a command line, and is used once.

use super::Outcome;
use super::client::{self, Flags, ProxyFlags};
use crate::agent::{self, Proxy, Settings, Token};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long psql waits for the proxy's answer, in seconds; the proxy may have to call Entra, Google and the instance.
const CONNECT_TIMEOUT: u32 = 60;

/// Arguments of `psql`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The database: one of the settings file, or as the proxy calls it
    #[arg(value_parser = crate::config::client::database)]
    name: String,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    proxy: ProxyFlags,
    /// Passed on to psql
    #[arg(last = true, value_name = "ARGS")]
    passed_on: Vec<OsString>,
}

/// Ends with psql's own exit code: psql replaces this process.
pub(super) fn run(arguments: Arguments) -> Outcome {
    match ready(arguments) {
        Ok(mut psql) => {
            let error = std::io::Error::other(format!("psql could not be started: {}", psql.exec()));
            client::failed(&error, "run `psql --version`: the first psql in PATH must be a program that you may run")
        }
        Err(outcome) => outcome,
    }
}

fn ready(arguments: Arguments) -> Result<Command, Outcome> {
    let Arguments { name, flags, proxy, passed_on } = arguments;
    if passed_on.iter().any(|argument| argument == "--") {
        eprintln!("pgpassport: psql's own arguments must not have another --");
        eprintln!("  next: give psql's options after the one --");
        return Err(Outcome::BadUsage);
    }
    let settings = flags.settings(Some(&name), Some(proxy))?;
    let address = client::needed(settings.address())?;
    let how = client::needed(settings.sign_in())?;
    let psql = psql()?;
    let proxy = Proxy { host: address.0, port: address.1, ca: roots(&settings)? };
    client::block_on(proxy.verify())?.map_err(|error| client::failed(&error, error.next_step()))?;
    let token = client::sign_in(&how, &settings)?;
    let database = settings.database.clone().unwrap_or(name);
    let user = user(&settings, &token)?;
    Ok(command(&psql, &conninfo(&proxy, &database, &user), passed_on, &token))
}

fn psql() -> Result<PathBuf, Outcome> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = std::io::Error::other("psql is not installed, or not in PATH");
    let step = "install PostgreSQL's client (Debian: postgresql-client; macOS: libpq)";
    agent::find_program("psql", &path).ok_or_else(|| client::failed(&missing, step))
}

fn roots(settings: &Settings) -> Result<PathBuf, Outcome> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let missing = std::io::Error::other("no CA certificates were found on this system");
    let step = "name the PEM of the CA that signed the proxy's certificate in `ca_certificate` (--ca-certificate)";
    let found = settings.ca_certificate.clone().or_else(|| agent::system_roots(named));
    found.ok_or_else(|| client::failed(&missing, step))
}

fn user(settings: &Settings, token: &Token) -> Result<String, Outcome> {
    let unnamed = std::io::Error::other("the token has no name that PostgreSQL can take as a user");
    settings
        .user
        .clone()
        .or_else(|| token.user())
        .ok_or_else(|| client::failed(&unnamed, "name one in `user` (--user)"))
}

/// Ours comes first, for arguments that name no database, and last, for those that do: of several connection strings
/// psql takes the last, and what one has goes before `-h`, `-p` and `-U` (libpq, `PQconnectdbParams`). So no option
/// sends the token elsewhere, or to a server that is not verified. What psql is told to do can: `\connect` to another host,
/// or `\setenv` and `\!`, since the token is in its environment.
fn command(psql: &Path, conninfo: &str, arguments: Vec<OsString>, token: &Token) -> Command {
    let mut command = Command::new(psql);
    let ours = format!("--dbname={conninfo}");
    command.arg(&ours).args(arguments).arg(&ours);
    command.env("PGPASSWORD", token.secret().expose());
    command
}

fn conninfo(proxy: &Proxy, database: &str, user: &str) -> String {
    let (port, timeout) = (proxy.port.to_string(), CONNECT_TIMEOUT.to_string());
    let ca = proxy.ca.to_string_lossy();
    [
        ("host", proxy.host.as_str()),
        ("port", &port),
        ("dbname", database),
        ("user", user),
        ("gssencmode", "disable"),
        ("sslmode", "verify-full"),
        ("sslrootcert", &ca),
        ("connect_timeout", &timeout),
    ]
    .map(|(key, value)| format!("{key}={}", quoted(value)))
    .join(" ")
}

/// A value of a connection string (libpq, "Keyword/Value Connection Strings").
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let proxy = Proxy { host: "db".to_owned(), port: 5432, ca: PathBuf::from("/a b/c") };
        assert_eq!(
            conninfo(&proxy, "orders", r"o'\ host='evil"),
            r"host='db' port='5432' dbname='orders' user='o\'\\ host=\'evil' gssencmode='disable' sslmode='verify-full' sslrootcert='/a b/c' connect_timeout='60'"
        );
    }
}

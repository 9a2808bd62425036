//! What `token` and `psql` share: the client's settings from flags and file, signing in, and errors in words.
//!
//! Everything for the person goes to standard error; standard output is for what was asked for.

use super::Outcome;
use crate::agent::{self, Error, Settings, SignIn, Token, Via};
use crate::config::client::{self, ClientFile};
use crate::http;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where to find the file from the person's configuration folder.
const FILE: &str = "pgpassport/client.toml";

/// Every key of the client's settings file as a flag; a flag is stronger than the file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Settings (each is also a key of the settings file)")]
pub(super) struct Flags {
    /// The settings file [default: ~/.config/pgpassport/client.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "PGPASSPORT_CLIENT_CONFIG")]
    client_config: Option<PathBuf>,
    /// How to sign in
    #[arg(long, value_enum)]
    via: Option<Via>,
    /// The Entra tenant
    #[arg(long, value_name = "GUID", value_parser = client::guid)]
    tenant: Option<String>,
    /// The app to sign in with (device), or a user-assigned identity (managed-identity)
    #[arg(long, value_name = "GUID", value_parser = client::guid)]
    client_id: Option<String>,
    #[arg(long, value_parser = client::scope, help = "The proxy's scope, such as api://pgpassport/.default")]
    scope: Option<String>,
    #[arg(long, value_name = "URL", value_parser = client::authority,
          help = format!("Entra's login host [default: {}]", agent::DEFAULT_AUTHORITY))]
    authority: Option<String>,
    /// Trust only these PEM certificates towards Entra
    #[arg(long, value_name = "FILE", value_parser = client::certificates)]
    https_ca_certificate: Option<PathBuf>,
}

/// Keys about the proxy.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Settings (each is also a key of the settings file)")]
pub(super) struct ProxyFlags {
    /// Where the proxy is, as its certificate has it
    #[arg(long, value_parser = client::host)]
    host: Option<String>,
    /// Its port [default: 5432]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Trust only these PEM certificates towards the proxy
    #[arg(long, value_name = "FILE", value_parser = client::certificates)]
    ca_certificate: Option<PathBuf>,
    /// What the proxy calls the database [default: NAME]
    #[arg(long, value_parser = client::database)]
    database: Option<String>,
    /// The database user [default: the name in the token]
    #[arg(long, value_parser = client::user)]
    user: Option<String>,
}

impl Flags {
    /// Flags, then the file's entry for `name`, then what the file says for all. Has said what is wrong.
    pub(super) fn settings(self, name: Option<&str>, proxy: Option<ProxyFlags>) -> Result<Settings, Outcome> {
        let file = settings_file(self.client_config, |name| std::env::var_os(name));
        let loaded = match &file {
            Some(path) => ClientFile::load(path).map_err(|problems| {
                for problem in &problems {
                    eprintln!("{problem}");
                }
                bad(&format!("{} has {} problem(s)", path.display(), problems.len()))
            })?,
            None => ClientFile::default(),
        };
        let from_file = loaded
            .settings(name)
            .map_err(|reason| bad(&format!("{} {reason}", file.as_deref().unwrap_or(Path::new(FILE)).display())))?;
        let flags = Settings {
            via: self.via,
            tenant: self.tenant,
            client_id: self.client_id,
            scope: self.scope,
            authority: self.authority,
            https_ca_certificate: self.https_ca_certificate,
            ..Settings::default()
        };
        Ok(with_proxy(flags, proxy).or(from_file))
    }
}

fn with_proxy(flags: Settings, proxy: Option<ProxyFlags>) -> Settings {
    let Some(ProxyFlags { host, port, ca_certificate, database, user }) = proxy else { return flags };
    Settings { host, port, ca_certificate, database, user, ..flags }
}

/// The file that was named, or the usual one if it is there (XDG Base Directory Specification: a relative
/// `XDG_CONFIG_HOME` counts as unset).
fn settings_file(named: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named.filter(|path| !path.as_os_str().is_empty()).or_else(|| {
        let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
        Some(folder.join(FILE)).filter(|path| path.exists())
    })
}

/// What is still needed, all at once. Says so.
pub(super) fn needed<T>(result: Result<T, Vec<&'static str>>) -> Result<T, Outcome> {
    result.map_err(|keys| {
        let keys: Vec<String> = keys.iter().map(|key| format!("{key} (--{})", key.replace('_', "-"))).collect();
        bad(&format!("needs {}, in the settings file or as a flag; see --help", keys.join(", ")))
    })
}

/// Signs in. Says why not.
pub(super) fn sign_in(how: &SignIn, settings: &Settings) -> Result<Token, Outcome> {
    let ca = settings.https_ca_certificate.as_deref();
    block_on(agent::sign_in(how, ca, |text| eprintln!("{text}")))?.map_err(|error: Error| {
        let step = error.next_step();
        failed(&error, &step)
    })
}

/// Runs something on a small runtime of its own.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Outcome> {
    // Libraries that build TLS clients of their own look for a process-wide provider; ours are told theirs.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error, "try again"))?;
    let done = runtime.block_on(future);
    // A name that is still being looked up would hold the end.
    runtime.shutdown_background();
    Ok(done)
}

/// Tells a failure and what can be done about it.
pub(super) fn failed(error: &(dyn std::error::Error + 'static), next_step: &str) -> Outcome {
    eprintln!("pgpassport: {}", crate::telemetry::redact(&http::chain(error)));
    eprintln!("  next: {next_step}");
    Outcome::Failed
}

fn bad(text: &str) -> Outcome {
    eprintln!("pgpassport: {text}");
    Outcome::BadConfig
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command};

    #[test]
    fn the_file_is_the_named_one_or_the_one_of_the_configuration_folder() {
        let folder = tempfile::tempdir().unwrap();
        let usual = folder.path().join("xdg").join(FILE);
        let at_home = folder.path().join("home/.config").join(FILE);
        let find = |named: Option<&str>, xdg: &Path| {
            let variable = |name: &str| match name {
                "XDG_CONFIG_HOME" => Some(xdg.into()),
                "HOME" => Some(folder.path().join("home").into()),
                _ => None,
            };
            settings_file(named.map(PathBuf::from), variable)
        };
        let xdg = folder.path().join("xdg");
        assert_eq!(find(None, &xdg), None);
        for path in [&usual, &at_home] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(find(None, &xdg), Some(usual));
        assert_eq!(find(None, Path::new("relative")), Some(at_home));
        // A named file that is not there is an error of its own, not another file.
        assert_eq!(find(Some("/none"), &xdg), Some(PathBuf::from("/none")));
    }

    #[test]
    fn every_key_is_a_flag() {
        let command = ProxyFlags::augment_args(Flags::augment_args(Command::new("test")));
        let flags: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        for key in [
            "via",
            "tenant",
            "client_id",
            "scope",
            "authority",
            "https_ca_certificate",
            "host",
            "port",
            "ca_certificate",
            "database",
            "user",
        ] {
            assert!(flags.contains(&key.replace('_', "-").as_str()), "{key}: {flags:?}");
        }
        assert_eq!(flags.len(), 12, "a flag that is no key: {flags:?}");
    }
}

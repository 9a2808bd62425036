//! `audit key`: a new private key, or a private key's public one.

use super::Error;
use crate::audit::key_file::new_secret;
use crate::audit::ledger::checkpoint::{Signer, new_private_key};
use crate::cli::Outcome;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Arguments of `audit key`.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Arguments {
    /// Write a new private key there (mode 0600; nothing is replaced), and print its public key
    #[arg(long, value_name = "FILE", requires = "name", conflicts_with = "of")]
    new: Option<PathBuf>,
    /// What the log is called in its checkpoints: one name a log, such as audit.contoso.example
    #[arg(long, value_name = "NAME", requires = "new")]
    name: Option<String>,
    /// Print the public key of this private key
    #[arg(long, value_name = "FILE")]
    of: Option<PathBuf>,
    /// Write 32 random bytes there (mode 0600; nothing is replaced), for `audit.sealing.key` or `audit.parameters_key`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new", "of"])]
    new_secret: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<Outcome, Error> {
    if let Some(path) = &arguments.new_secret {
        let key = new_secret().map_err(|source| Error::Io { act: "make", path: path.clone(), source })?;
        write(path, key.expose())?;
        return Ok(Outcome::Done);
    }
    let signer = match (&arguments.new, &arguments.name, &arguments.of) {
        (Some(path), Some(name), _) => {
            let line = new_private_key(name).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidInput => Error::Name,
                _ => Error::Io { act: "make", path: path.clone(), source: error },
            })?;
            write(path, &line)?;
            Signer::parse(&line).map_err(|source| Error::Key { of: path.clone(), source })?
        }
        (_, _, Some(path)) => Signer::read(path).map_err(|source| Error::Key { of: path.clone(), source })?,
        // clap asks for one of them.
        _ => return Ok(Outcome::BadUsage),
    };
    writeln!(out, "{}", signer.public())?;
    Ok(Outcome::Done)
}

/// A new file of one line, for its owner alone.
fn write(path: &Path, line: &str) -> Result<(), Error> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(line.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().map_err(|source| Error::Io { act: "write", path: path.to_owned(), source })
}

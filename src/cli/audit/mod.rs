//! `pgpassport audit`: the log's key, whether the log is what was signed, and a record's proof. Offline.

mod key;
mod prove;
mod verify;

use super::Outcome;
use crate::audit::ledger::checkpoint::{KeyError, PublicKey};
use crate::http::chain;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The most that is read of a public key's file, in bytes.
const MAX_PUBLIC_KEY_BYTES: u64 = 4096;

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the private key that signs checkpoints, or print the public one that checks them
    Key(key::Arguments),
    /// Say whether a log is what was signed and anchored
    Verify(verify::Arguments),
    /// Write a proof that the log has a record, which others can check (C2SP tlog-proof)
    Prove(prove::Arguments),
}

/// A log, and what its checkpoints are checked with.
#[derive(Debug, clap::Args)]
struct Log {
    /// The log's folder, or a copy of it
    folder: PathBuf,
    /// The public key: a file with it, or the key itself (`NAME+HASH+DATA`)
    #[arg(long, value_name = "FILE-or-KEY")]
    public: String,
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A file.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// `read`, `write`.
        act: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A private or public key.
    #[error("{}", of.display())]
    Key {
        /// Which.
        of: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The name of a new key.
    #[error("a log's name has neither blanks nor \"+\": use a host name, such as audit.contoso.example")]
    Name,
    /// The log.
    #[error(transparent)]
    Read(#[from] crate::audit::ledger::read::Error),
    /// What `verify` says of its own.
    #[error(transparent)]
    Verify(#[from] crate::audit::ledger::verify::Error),
    /// No record fits.
    #[error("the log has no record of {0}")]
    NoRecord(String),
    /// No checkpoint covers the record.
    #[error("no checkpoint covers record {0} yet: try again in a few seconds, or once the proxy has room to sign")]
    NotSigned(u64),
    /// Standard output.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
}

/// `out` takes the answer, `err` what is wrong.
pub(super) fn run(arguments: &Arguments, out: &mut impl Write, err: &mut impl Write) -> Outcome {
    let done = match &arguments.command {
        Command::Key(arguments) => key::run(arguments, out),
        Command::Verify(arguments) => verify::run(arguments, out),
        Command::Prove(arguments) => prove::run(arguments, out),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(err, "pgpassport audit: {}", chain(&error));
        Outcome::Failed
    })
}

impl Log {
    fn key(&self) -> Result<PublicKey, Error> {
        if let Ok(key) = PublicKey::parse(self.public.trim()) {
            return Ok(key);
        }
        let path = Path::new(&self.public);
        let text = read(path)?;
        PublicKey::parse(text.trim()).map_err(|source| Error::Key { of: path.to_owned(), source })
    }
}

/// A small text file.
fn read(path: &Path) -> Result<String, Error> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_PUBLIC_KEY_BYTES).read_to_string(&mut text));
    read.map_err(|source| Error::Io { act: "read", path: path.to_owned(), source })?;
    Ok(text)
}

#[cfg(test)]
mod tests;

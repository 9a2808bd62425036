//! `pgpassport audit`: the log's key, whether the log is what was signed, a record's proof, and reading it. Offline.

mod bounded;
mod erase;
mod fields;
mod filter;
mod join;
mod key;
mod parts;
mod prove;
mod reading;
mod reference;
mod search;
mod session;
mod shown;
mod tail;
mod unseal;
mod verify;

use super::Outcome;
use crate::audit::ledger::checkpoint::{KeyError, PublicKey};
use crate::audit::sealing::{SealingConfig, VaultError};
use crate::config::{self, AuditConfig};
use crate::http::chain;
use join::Lost;
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
    /// Find executions and other records by who, where, what and when
    #[command(after_help = SEARCH_HELP)]
    Search(search::Arguments),
    /// Tell one session: who, from where, by which rule, what it ran, and how it ended
    #[command(after_help = SESSION_HELP)]
    Session(session::Arguments),
    /// Show the last executions, and with --follow those that come
    #[command(after_help = TAIL_HELP)]
    Tail(tail::Arguments),
    /// Explain every member of a record, as Markdown or as JSON Schema
    Fields(reference::Arguments),
    /// Delete the keys of a person's sealed texts, so that nobody can read them any more; the running proxy does it
    #[command(after_help = ERASE_HELP)]
    Erase(erase::Arguments),
}

const ERASE_HELP: &str = "\
The log stays as it is, and proved: what is deleted is not in it. What has been copied of the keys' folder stays readable
there, as is what a database's own log says.

Example:
  pgpassport audit erase --config /etc/pgpassport/pgpassport.toml --object-id OID --before 2026-11-01
";

const SEARCH_HELP: &str = "\
An execution is one line, joined of its begin and end records, in the order of the ends; what has none (up to --until) is
`open` and comes last. Shown is what a begin record has of a text (64 KiB); `text_parts` says that there is more, which
--text searches too and `audit session --json` shows. Nothing here says that the log is what was signed: that is `audit verify`.

Examples:
  pgpassport audit search /var/lib/pgpassport/audit --who analyst@contoso.example --since 2h
  pgpassport audit search --config /etc/pgpassport/pgpassport.toml --text 'delete from' --rows-over 1000
  pgpassport audit search /var/lib/pgpassport/audit --outcome 42501 --since 2026-11-01 --csv > denied.csv
  pgpassport audit search /var/lib/pgpassport/audit --event refused --since 7d --json
";

const SESSION_HELP: &str = "\
Examples:
  pgpassport audit session /var/lib/pgpassport/audit 01938b2c-5f6e-7a10-8b9c-0d1e2f3a4b5c
  pgpassport audit session --config /etc/pgpassport/pgpassport.toml 01938b2c-5f6e-7a10-8b9c-0d1e2f3a4b5c --json
";

const TAIL_HELP: &str = "\
An execution is shown when it has ended; without --follow those that are open come last. One whose begin record is further
back than what was read is shown without its text.

Examples:
  pgpassport audit tail /var/lib/pgpassport/audit -n 50
  pgpassport audit tail /var/lib/pgpassport/audit --follow --database orders --json
  pgpassport audit tail --config /etc/pgpassport/pgpassport.toml -f --event refused
";

/// A log's folder, or the config that names it.
#[derive(Debug, clap::Args)]
struct Place {
    /// The log's folder, or a copy of it; without it, audit.folder of --config
    #[arg(required_unless_present = "config")]
    folder: Option<PathBuf>,
    /// The proxy's config file, whose audit.folder is read where no folder is given
    #[arg(long, value_name = "FILE", env = "PGPASSPORT_CONFIG")]
    config: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> Result<PathBuf, Error> {
        match &self.folder {
            Some(folder) => Ok(folder.clone()),
            None => Ok(self.audit()?.log.folder),
        }
    }

    /// Where the keys of sealed texts are.
    fn sealing(&self) -> Result<SealingConfig, Error> {
        self.config.as_ref().ok_or(Error::NoSealing)?;
        self.audit()?.sealing.ok_or(Error::NoSealing)
    }

    fn audit(&self) -> Result<AuditConfig, Error> {
        let loaded = config::load(self.config.as_deref().unwrap_or(Path::new("")));
        match loaded {
            Ok(loaded) => Ok(loaded.config.audit),
            Err(problems) => {
                Err(Error::Config(problems.len(), problems.first().map(ToString::to_string).unwrap_or_default()))
            }
        }
    }
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
    /// The config that is to name the folder.
    #[error("{0} problem(s) in the config, the first: {1}")]
    Config(usize, String),
    /// Nothing says where the keys are.
    #[error("--unseal needs --config with audit.sealing; or give --sealing-folder and --sealing-key")]
    NoSealing,
    /// The keys of sealed texts.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// No segment.
    #[error("{} holds no log", .0.display())]
    Empty(PathBuf),
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
        Command::Search(arguments) => search::run(arguments, out, err),
        Command::Session(arguments) => session::run(arguments, out, err),
        Command::Tail(arguments) => tail::run(arguments, out, err),
        Command::Fields(arguments) => reference::run(arguments, out),
        Command::Erase(arguments) => erase::run(arguments, out, err),
    };
    done.unwrap_or_else(|error| {
        // Whoever read the answer has had enough (`| head`).
        if matches!(&error, Error::Output(gone) if gone.kind() == io::ErrorKind::BrokenPipe) {
            return Outcome::Done;
        }
        let _ = writeln!(err, "pgpassport audit: {}", chain(&error));
        if matches!(error, Error::Config(..)) { Outcome::BadConfig } else { Outcome::Failed }
    })
}

/// Says what an answer lacks.
fn say_lost(lost: Lost, err: &mut impl Write) {
    let Lost { evicted, textless, strange, sealed, erased, damaged } = lost;
    for (count, what) in [
        (evicted, "execution(s) of too many at once are told twice: begun, without an end, and ended, without a text"),
        (textless, "execution(s) are of a text whose record was not found: --text does not find them"),
        (sealed, "text(s) are sealed: their shapes are shown and searched; --unseal opens them for who has the keys"),
        (erased, "sealed text(s) have no key any more: they were erased, and their shapes are shown"),
        (damaged, "sealed text(s) cannot be opened: they or their keys are damaged, or --sealing-key is another one"),
        (strange, "record(s) are no JSON objects, and were passed over"),
    ] {
        if count > 0 {
            let _ = writeln!(err, "pgpassport audit: {count} {what}");
        }
    }
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
mod reading_tests;
#[cfg(test)]
mod tests;

//! `audit prove`: a record and its proof, for somebody who has neither the log nor this program.

use super::{Error, Log};
use crate::audit::ledger::checkpoint::{FILE, PublicKey, notes};
use crate::audit::ledger::prove;
use crate::cli::Outcome;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use tlog_tiles::Checkpoint;

/// Arguments of `audit prove`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    which: Which,
    /// Where the proof goes; the record's own bytes go to FILE.record
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Which record.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The event of this id: its first begin record
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// The record of this number in the log
    #[arg(long, value_name = "NUMBER")]
    record: Option<u64>,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<Outcome, Error> {
    let Arguments { log, which, out: path } = arguments;
    let key = log.key()?;
    let (index, record) = find(&log.folder, which)?;
    let newest = newest(&log.folder, &key)?;
    let proof = newest.and_then(|(note, head)| prove::prove(&log.folder, index, &note, &head));
    let proof = proof.ok_or(Error::NotSigned(index))?;
    let mut beside = path.clone().into_os_string();
    beside.push(".record");
    let beside = PathBuf::from(beside);
    for (path, bytes) in [(path, proof.as_bytes()), (&beside, record.as_slice())] {
        std::fs::write(path, bytes).map_err(|source| Error::Io { act: "write", path: path.clone(), source })?;
    }
    writeln!(out, "record {index}: the proof is in {}, the record in {}", path.display(), beside.display())?;
    Ok(Outcome::Done)
}

fn find(folder: &Path, which: &Which) -> Result<(u64, Vec<u8>), Error> {
    let found = match which {
        Which { record: Some(wanted), .. } => {
            let mut next = crate::audit::ledger::read::first(folder)?;
            prove::find(folder, |_| {
                let own = next == *wanted;
                next = next.saturating_add(1);
                own
            })?
        }
        Which { event, .. } => prove::find(folder, |record| is_of(record, event.as_deref().unwrap_or_default()))?,
    };
    let wanted = || which.event.clone().or_else(|| which.record.map(|record| format!("number {record}")));
    found.ok_or_else(|| Error::NoRecord(wanted().unwrap_or_default()))
}

fn is_of(record: &[u8], id: &str) -> bool {
    // Most records do not have the id's bytes, and are not parsed.
    let may = memchr::memmem::find(record, id.as_bytes()).is_some();
    may && serde_json::from_slice::<Value>(record).is_ok_and(|record| record.get("id").is_some_and(|own| own == id))
}

/// The last checkpoint in the folder that the key has signed.
fn newest(folder: &Path, key: &PublicKey) -> Result<Option<(String, Checkpoint)>, Error> {
    let path = folder.join(FILE);
    let text = std::fs::read(&path).map_err(|source| Error::Io { act: "read", path, source })?;
    let text = String::from_utf8_lossy(&text);
    let signed = notes(&text).filter_map(|note| key.open(note.as_bytes()).map(|head| (note, head)));
    Ok(signed.max_by_key(|(_, head)| head.size()))
}

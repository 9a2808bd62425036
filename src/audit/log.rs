//! The log as the config has it: its folder, its key, and where copies of records and checkpoints go.

use super::event::{Event, SegmentsDeleted};
use super::ledger::anchor::{Anchor, FileAnchor, WriterAnchor};
use super::ledger::checkpoint::{KeyError, Signer};
use super::ledger::medium::Disk;
use super::ledger::retention::{DayKeys, Deletion, Retention};
use super::ledger::sink::{Lines, LinesFile, Sink, Target};
use super::ledger::witness::{WitnessAnchor, WitnessConfig};
use super::ledger::{self, Behind, Ledger, Opening, Settings, frame, read};
use super::line::{self, Heads};
use super::sealing::Vault;
use crate::http::Client;
use crate::names::SessionId;
use crate::time::Clock;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What the cursor of the JSON Lines is called.
const JSON_LINES: &str = "jsonl";

/// Where the log is, what signs it, and who gets what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Segments, hashes and checkpoints; nobody else writes there. Made where it is missing.
    pub folder: PathBuf,
    /// The private key that signs checkpoints.
    pub key: PathBuf,
    /// A segment's size, in bytes.
    pub segment_bytes: u64,
    /// Where records go as JSON Lines.
    pub jsonl: Option<Output>,
    /// Where checkpoints go.
    pub anchors: Vec<Anchoring>,
    /// How long records are kept; for ever where it is not said.
    pub keep: Option<Duration>,
}

/// Where something goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// For whoever collects the process's output.
    StandardOutput,
    /// Appended to a file.
    File(PathBuf),
}

/// Where checkpoints go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchoring {
    /// Appended there.
    Output(Output),
    /// Cosigned by somebody who has seen the earlier ones.
    Witness(Box<WitnessConfig>),
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("cannot make the folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key.
    #[error("cannot use the key {path}")]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A copy's place.
    #[error("cannot write to {path}")]
    Output {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The HTTPS client that calls a witness.
    #[error("cannot set up what calls the witness {url}")]
    Witness {
        /// Which.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log itself.
    #[error(transparent)]
    Ledger(#[from] ledger::open::Error),
}

/// Opens the log, and begins one where there is none. Witnesses are called with the trust roots in `ca`, or the platform's.
/// Retention deletes the keys of `vault` that only deleted records needed.
pub fn open(
    config: &LogConfig,
    ca: Option<&Path>,
    vault: Option<Arc<Vault>>,
    clock: Clock,
) -> Result<(Ledger, Opening), OpenError> {
    let LogConfig { folder, key, segment_bytes, jsonl, anchors, keep } = config;
    make_folder(folder).map_err(|source| OpenError::Folder { path: folder.clone(), source })?;
    let signer = Signer::read(key).map_err(|source| OpenError::Key { path: key.clone(), source })?;
    let settings = Settings::new(folder.clone()).with_segments_of(*segment_bytes);
    let anchors = anchors.iter().map(|anchoring| anchor(anchoring, folder, ca)).collect::<Result<_, _>>()?;
    let sinks = jsonl.iter().map(|output| sink(folder, output)).collect::<Result<_, _>>()?;
    let retention = keep.map(|keep| retention(keep, vault, clock.clone()));
    Ok(Ledger::open(settings, Arc::new(Disk), clock, signer, Behind { anchors, sinks, retention })?)
}

fn retention(keep: Duration, vault: Option<Arc<Vault>>, clock: Clock) -> Retention {
    let keys = vault.map(|vault| vault as Arc<dyn DayKeys>);
    Retention { keep, tell: Arc::new(move |deletion| deleted(deletion, keep, &clock)), keys }
}

/// The record of a deletion, in its frame.
fn deleted(deletion: &Deletion, keep: Duration, clock: &Clock) -> io::Result<Vec<u8>> {
    let Deletion { first_segment, last_segment, first, before, tree_size, ref tree_root, ref keys, .. } = *deletion;
    let event = Event::SegmentsDeleted(SegmentsDeleted {
        by: "retention",
        keep_s: keep.as_secs(),
        first_segment,
        last_segment,
        first,
        before,
        tree_size,
        tree_root: STANDARD.encode(tree_root.0),
        text_keys_before: keys.as_ref().map(|keys| keys.before.as_str()),
        text_keys: keys.as_ref().map(|keys| keys.count),
    });
    let mut out = Vec::new();
    frame::append(&mut out, |out| line::write(out, clock.now(), &mut Heads::of(SessionId::generate()), &event))?;
    Ok(out)
}

/// For its owner alone.
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

fn anchor(anchoring: &Anchoring, folder: &Path, ca: Option<&Path>) -> Result<Box<dyn Anchor>, OpenError> {
    let output = match anchoring {
        Anchoring::Output(output) => output,
        Anchoring::Witness(config) => return witness(config, folder, ca),
    };
    match output {
        Output::StandardOutput => Ok(Box::new(WriterAnchor::new("standard output", io::stdout()))),
        Output::File(path) => match FileAnchor::open(path) {
            Ok(anchor) => Ok(Box::new(anchor)),
            Err(source) => Err(OpenError::Output { path: path.clone(), source }),
        },
    }
}

fn witness(config: &WitnessConfig, folder: &Path, ca: Option<&Path>) -> Result<Box<dyn Anchor>, OpenError> {
    let failed = |source| OpenError::Witness { url: config.url.clone(), source };
    let client = Client::new(ca).map_err(|error| failed(error.into()))?;
    let anchor = WitnessAnchor::new(config.clone(), folder, client).map_err(|error| failed(error.into()))?;
    Ok(Box::new(anchor))
}

fn sink(folder: &Path, output: &Output) -> Result<Sink, OpenError> {
    let (path, target): (_, io::Result<Box<dyn Target>>) = match output {
        Output::StandardOutput => (folder, Ok(Box::new(Lines(io::stdout())))),
        Output::File(path) => (path.as_path(), LinesFile::open(path).map(|file| Box::new(file) as _)),
    };
    let opened = target.and_then(|target| {
        let first = read::first(folder).map_err(io::Error::other)?;
        Sink::open(folder, JSON_LINES, target, first)
    });
    opened.map_err(|source| OpenError::Output { path: path.to_owned(), source })
}

//! Behind the data path: makes the tree of what is durable, signs its head, hands it to the anchors.
//!
//! Records come as hashes of what was written ([`Leaves`]), and where those are lost out of the files. A checkpoint covers
//! synced records only. Where the log's disk takes no hashes or checkpoints for a while, they are
//! made when it does; meanwhile records are kept and are not proved.

use super::checkpoint::{self, Signer};
use super::follow::{self, Follower};
use super::hashes::Hashes;
use super::leaves::Leaves;
use super::medium::{LogFile, Medium};
use super::tree::Tree;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Hashes that wait to be written are written when they are this many bytes.
const WRITE_AT: usize = 256 * 1024;
/// After so many records whoever serves sessions may have the processor first, if all are busy: they take a tenth of a
/// millisecond, half of one where they are read.
const YIELD_AT: u64 = 512;
/// How much of the checkpoints' end is looked through for the last whole one, in bytes.
const END_BYTES: u64 = 64 * 1024;

/// Why there is no new checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error("cannot write the log's hashes and checkpoints")]
    Io(#[from] io::Error),
    /// Its own records.
    #[error("cannot read the log's own records")]
    Records(#[from] follow::Error),
    /// The key does not sign; a bug.
    #[error("the checkpoint cannot be signed")]
    Sign,
}

/// Makes one log's tree and signs it.
#[derive(Debug)]
pub struct Sealer {
    signer: Signer,
    folder: PathBuf,
    hashes: Hashes,
    /// The tree whose hashes are on the disk.
    confirmed: Tree,
    /// The last sync of the hashes failed: those behind that are to be written again.
    doubtful: bool,
    checkpoints: Box<dyn LogFile>,
    /// Where the next checkpoint goes.
    position: u64,
    /// A checkpoint that failed may be there, whole or a part; here, or only on the disk.
    soiled: bool,
    leaves: Leaves,
    /// For records whose hashes are lost.
    records: Option<Follower>,
    sealed: u64,
}

impl Sealer {
    /// Goes on from `hashes`, whose tree has the records that the last checkpoint covers.
    pub fn new(folder: &Path, medium: &dyn Medium, signer: Signer, hashes: Hashes) -> io::Result<Self> {
        let path = folder.join(checkpoint::FILE);
        let checkpoints = medium.open(&path)?;
        let position = whole(&path)?;
        let sealed = hashes.tree().size();
        let (confirmed, doubtful, soiled) = (hashes.tree().clone(), false, true);
        let mut new = Self {
            signer,
            folder: folder.to_owned(),
            hashes,
            confirmed,
            doubtful,
            checkpoints,
            position,
            soiled,
            leaves: Leaves::default(),
            records: None,
            sealed,
        };
        new.clean()?;
        Ok(new)
    }

    /// Records that the last checkpoint covers.
    pub fn sealed(&self) -> u64 {
        self.sealed
    }

    /// The root of everything that was hashed.
    #[cfg(test)]
    pub fn root(&self) -> tlog_tiles::Hash {
        self.hashes.tree().root()
    }

    /// Covers the records before index `until`, all of which are synced; the new checkpoint, if there is one. `new` are
    /// hashes of what was written since the last call.
    pub fn seal(&mut self, until: u64, new: Leaves) -> Result<Option<Vec<u8>>, Error> {
        self.leaves.join(new);
        if self.doubtful {
            self.begin_again()?;
        }
        while self.hashes.tree().size() < until {
            self.push_next()?;
            if self.hashes.tree().size().is_multiple_of(YIELD_AT) {
                std::thread::yield_now();
            }
            if self.hashes.pending_bytes() >= WRITE_AT {
                self.hashes.write()?;
            }
        }
        if let Some(records) = &mut self.records {
            // What was read ahead may change before it is durable.
            records.forget_ahead();
        }
        self.hashes.write()?;
        let (size, root) = (self.hashes.tree().size(), self.hashes.tree().root());
        if size == self.sealed {
            return Ok(None);
        }
        self.doubtful = true;
        self.hashes.sync()?;
        (self.doubtful, self.confirmed) = (false, self.hashes.tree().clone());
        self.leaves.forget_before(size);
        let note = self.signer.sign(size, root).ok_or(Error::Sign)?;
        let entry = [&note[..], b"\n"].concat();
        self.clean()?;
        self.soiled = true;
        let written = self.checkpoints.write_at(&entry, self.position)?;
        if written != entry.len() {
            return Err(Error::Io(io::Error::from(io::ErrorKind::StorageFull)));
        }
        self.checkpoints.sync()?;
        self.soiled = false;
        self.position = self.position.saturating_add(written as u64);
        self.sealed = size;
        Ok(Some(note))
    }

    /// Adds the next record to the tree.
    fn push_next(&mut self) -> Result<(), Error> {
        let next = self.hashes.tree().size();
        if let Some(leaf) = self.leaves.get(next) {
            self.hashes.push_leaf(leaf);
            self.records = None;
            return Ok(());
        }
        let records = match self.records.take() {
            Some(records) if records.next_index() == next => records,
            _ => Follower::new(&self.folder, next),
        };
        self.hashes.push(self.records.insert(records).next_record()?);
        Ok(())
    }

    /// Goes back to the hashes that are on the disk: what a failed sync has left to be forgotten, no later one brings there
    /// unless it is written again.
    fn begin_again(&mut self) -> io::Result<()> {
        self.hashes.go_back(self.confirmed.clone())?;
        self.doubtful = false;
        Ok(())
    }

    /// Cuts off what a checkpoint that failed has left, on the disk too. Behind a part of one the next would not be
    /// found; the start of one before the end of another looks whole at the next start, and no key opens it.
    fn clean(&mut self) -> io::Result<()> {
        if self.soiled {
            self.checkpoints.truncate(self.position)?;
            self.checkpoints.sync()?;
            self.soiled = false;
        }
        Ok(())
    }
}

/// Where the last whole checkpoint of a file ends.
fn whole(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(END_BYTES);
    let mut end = vec![0; usize::try_from(length.saturating_sub(start)).unwrap_or_default()];
    file.read_exact_at(&mut end, start)?;
    match checkpoint::whole_bytes(&end) {
        // No checkpoint is that long: it is left to `verify`.
        0 if start > 0 => Ok(length),
        whole => Ok(start.saturating_add(whole as u64)),
    }
}

//! The tree's hashes on disk: `hashes` in the log's folder, 32 bytes each, in the order of [`super::tree`].
//!
//! Derived from the records and made again from them where it is missing or does not fit; it stays when old segments
//! are deleted, so that later proofs still work.

use super::medium::{LogFile, Medium};
use super::tree::{HASH_BYTES, Tree};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tlog_tiles::{Error, Hash, HashReader, stored_hash_count, sub_tree_index, tree_hash};

/// The file in the log's folder.
pub const FILE: &str = "hashes";

/// Hashes to read.
#[derive(Debug)]
pub struct Stored(File);

impl Stored {
    /// Opens a folder's hashes.
    pub fn open(folder: &Path) -> io::Result<Self> {
        File::open(folder.join(FILE)).map(Self)
    }

    /// How many records' hashes are there.
    pub fn records(&self) -> io::Result<u64> {
        let hashes = self.0.metadata()?.len() / HASH_BYTES as u64;
        // A tree of n records has fewer than 2n hashes, and at least n.
        let (mut least, mut most) = (hashes / 2, hashes);
        while least < most {
            let middle = least.midpoint(most).saturating_add((most - least) % 2).min(most);
            if stored_hash_count(middle) <= hashes {
                least = middle;
            } else {
                most = middle.saturating_sub(1);
            }
        }
        Ok(least)
    }

    /// The root that the hashes give a tree of this size.
    pub fn root(&self, size: u64) -> Option<Hash> {
        tree_hash(size, self).ok()
    }

    /// The tree of this size, to go on from.
    pub fn tree(&self, size: u64) -> Option<Tree> {
        let edge = self.read_hashes(&sub_tree_index(0, size, Vec::new())).ok()?;
        Tree::resume(size, edge)
    }
}

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let read = |&index: &u64| {
            let mut hash = [0; HASH_BYTES];
            let at = index.checked_mul(HASH_BYTES as u64);
            let read = at.map(|at| self.0.read_exact_at(&mut hash, at));
            read.and_then(Result::ok).map(|()| Hash(hash)).ok_or(Error::IndexesNotInTree)
        };
        indexes.iter().map(read).collect()
    }
}

/// The tree that grows, and its file.
#[derive(Debug)]
pub struct Hashes {
    file: Box<dyn LogFile>,
    path: PathBuf,
    tree: Tree,
    position: u64,
    /// Made, and not written yet.
    pending: Vec<u8>,
}

impl Hashes {
    /// Goes on from `tree`, whose hashes are in the file; what the file has behind them is cut off.
    pub fn resume(folder: &Path, medium: &dyn Medium, tree: Tree) -> io::Result<Self> {
        let path = folder.join(FILE);
        let file = medium.open(&path)?;
        let mut resumed = Self { file, path, tree: Tree::default(), position: 0, pending: Vec::new() };
        resumed.go_back(tree)?;
        Ok(resumed)
    }

    /// The same of a file that is open. After an error everything is as it was.
    pub fn go_back(&mut self, tree: Tree) -> io::Result<()> {
        let position = stored_hash_count(tree.size()).saturating_mul(HASH_BYTES as u64);
        self.file.truncate(position)?;
        self.pending.clear();
        (self.tree, self.position) = (tree, position);
        Ok(())
    }

    /// The tree with everything that was pushed.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Adds a record.
    pub fn push(&mut self, record: &[u8]) {
        self.tree.push(record, &mut self.pending);
    }

    /// Adds a record by its hash.
    pub fn push_leaf(&mut self, leaf: Hash) {
        self.tree.push_leaf(leaf, &mut self.pending);
    }

    /// Bytes that wait to be written.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Brings what was written to the disk: records that are deleted one day are proved by it alone.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// Writes what was made. After an error it is tried again with the next call.
    pub fn write(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            let written = self.file.write_at(&self.pending, self.position)?;
            if written == 0 {
                return Err(io::Error::other(format!("{} takes no more", self.path.display())));
            }
            self.position = self.position.saturating_add(written as u64);
            self.pending.drain(..written);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::medium::Disk;
    use super::*;

    #[test]
    fn hashes_are_found_again_and_the_tree_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut hashes = Hashes::resume(folder.path(), &Disk, Tree::default()).unwrap();
        let mut roots = vec![hashes.tree().root()];
        for n in 0..70_u32 {
            hashes.push(&n.to_le_bytes());
            roots.push(hashes.tree().root());
            hashes.write().unwrap();
            assert_eq!(Stored::open(folder.path()).unwrap().records().unwrap(), u64::from(n) + 1);
        }
        for size in [0_u64, 1, 2, 3, 31, 64, 70] {
            let stored = Stored::open(folder.path()).unwrap();
            assert_eq!(stored.root(size), Some(roots[usize::try_from(size).unwrap()]));
            assert_eq!(stored.tree(size).unwrap().root(), roots[usize::try_from(size).unwrap()]);
        }
        let tree = Stored::open(folder.path()).unwrap().tree(33).unwrap();
        let mut hashes = Hashes::resume(folder.path(), &Disk, tree).unwrap();
        assert_eq!(Stored::open(folder.path()).unwrap().records().unwrap(), 33);
        hashes.push(&33_u32.to_le_bytes());
        hashes.write().unwrap();
        assert_eq!(Stored::open(folder.path()).unwrap().root(34), Some(roots[34]));
        assert_eq!(Stored::open(folder.path()).unwrap().root(35), None);
    }
}

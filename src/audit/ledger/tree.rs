//! The Merkle tree over the records (RFC 6962 §2.1): leaves in, roots and stored hashes out. Pure.
//!
//! A leaf is the record's own bytes; SHA-256, `0x00` before a leaf, `0x01` before two children. Hashes are stored in
//! the order of Crosby and Wallach ("Efficient Data Structures for Tamper-Evident Logging", §3.3), the order that Go's
//! `sumdb/tlog` and [`tlog_tiles`] read: each leaf's hash, then those of the subtrees that it completes.

use tlog_tiles::{EMPTY_HASH, Hash, node_hash, record_hash};

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// A tree that grows: its size, and the roots of the perfect subtrees that it is made of, largest first.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    size: u64,
    edge: Vec<Hash>,
}

impl Tree {
    /// A tree of `size` records from the roots of its perfect subtrees, largest first; `None` where there are not as
    /// many as `size` has binary ones.
    pub fn resume(size: u64, edge: Vec<Hash>) -> Option<Self> {
        (edge.len() == size.count_ones() as usize).then_some(Self { size, edge })
    }

    /// Records so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a record; its stored hashes are appended to `stored`.
    pub fn push(&mut self, record: &[u8], stored: &mut Vec<u8>) {
        self.push_leaf(record_hash(record), stored);
    }

    /// The same by the record's hash.
    pub fn push_leaf(&mut self, leaf: Hash, stored: &mut Vec<u8>) {
        let mut hash = leaf;
        stored.extend_from_slice(&hash.0);
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.edge.pop() else { break };
            hash = node_hash(left, hash);
            stored.extend_from_slice(&hash.0);
        }
        self.edge.push(hash);
        self.size = self.size.saturating_add(1);
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let from_the_right = self.edge.iter().rev().copied();
        from_the_right.reduce(|right, left| node_hash(left, right)).unwrap_or(EMPTY_HASH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlog_tiles::{Error, HashReader, stored_hash_count, stored_hashes, sub_tree_index, tree_hash};

    struct Stored(Vec<u8>);

    impl HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
            let hash = |&index: &u64| Hash(self.0[usize::try_from(index).unwrap() * 32..][..32].try_into().unwrap());
            Ok(indexes.iter().map(hash).collect())
        }
    }

    #[test]
    fn roots_and_stored_hashes_are_those_of_the_library() {
        let (mut tree, mut ours, mut theirs) = (Tree::default(), Vec::new(), Stored(Vec::new()));
        assert_eq!(tree.root(), EMPTY_HASH);
        for n in 0..300_u64 {
            let record = format!("record {n}");
            tree.push(record.as_bytes(), &mut ours);
            for hash in stored_hashes(n, record.as_bytes(), &theirs).unwrap() {
                theirs.0.extend_from_slice(&hash.0);
            }
            assert_eq!(ours, theirs.0);
            assert_eq!(ours.len() as u64, stored_hash_count(n + 1) * 32);
            assert_eq!(tree.root(), tree_hash(n + 1, &theirs).unwrap());
            let edge = theirs.read_hashes(&sub_tree_index(0, n + 1, Vec::new())).unwrap();
            assert_eq!(Tree::resume(n + 1, edge).unwrap().root(), tree.root());
        }
        assert!(Tree::resume(3, vec![EMPTY_HASH]).is_none());
    }
}

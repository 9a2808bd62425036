//! Hashes of records that were written, from the moment they were until the tree takes them.
//!
//! They are made of the bytes that were written, not of what a file says later, and while those are in the processor's
//! caches. They can be lost: then the records are read and hashed again.

use super::frame;
use tlog_tiles::{Hash, record_hash};

/// More than so many are not kept: 2 MiB of them.
const MAX_LEAVES: usize = 65_536;

/// Hashes of records that follow one another.
#[derive(Debug, Default)]
pub struct Leaves {
    /// The first one's index.
    first: u64,
    hashes: Vec<Hash>,
}

impl Leaves {
    /// None yet; the first will be that of record `first`.
    pub fn from(first: u64) -> Self {
        Self { first, hashes: Vec::new() }
    }

    /// The index behind the last one.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.hashes.len() as u64)
    }

    /// That of a record.
    pub fn get(&self, index: u64) -> Option<Hash> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.hashes.get(at).copied()
    }

    /// Adds those of the records in whole frames. Where there are too many, all so far are forgotten.
    pub fn push_all(&mut self, frames: &[u8]) {
        if self.hashes.len() >= MAX_LEAVES {
            *self = Self::from(self.end());
        }
        self.hashes.extend(frame::whole(frames).map(record_hash));
    }

    /// Adds those that follow. Where they do not, or there are too many, those so far are forgotten.
    pub fn join(&mut self, later: Self) {
        let fits = self.hashes.len().saturating_add(later.hashes.len()) <= MAX_LEAVES;
        if self.end() == later.first && fits {
            self.hashes.extend(later.hashes);
        } else {
            *self = later;
        }
    }

    /// All; the next will be that of the record behind them.
    pub fn take(&mut self) -> Self {
        let next = Self::from(self.end());
        std::mem::replace(self, next)
    }

    /// Forgets those of records before this index.
    pub fn forget_before(&mut self, index: u64) {
        let count = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.hashes.len());
        if count == self.hashes.len() {
            *self = Self::from(self.end());
        } else {
            self.hashes.drain(..count);
            self.first = self.first.saturating_add(count as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(records: std::ops::Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        for n in records {
            assert!(frame::push(&mut out, format!("record {n}").as_bytes()));
        }
        out
    }

    fn of(records: std::ops::Range<u64>) -> Leaves {
        let mut leaves = Leaves::from(records.start);
        leaves.push_all(&frames(records));
        leaves
    }

    fn check(leaves: &Leaves, has: std::ops::Range<u64>) {
        assert_eq!(leaves.end(), has.end);
        for index in 0..has.end + 2 {
            let expected = has.contains(&index).then(|| record_hash(format!("record {index}").as_bytes()));
            assert_eq!(leaves.get(index), expected, "{index} of {has:?}");
        }
    }

    #[test]
    fn each_record_has_the_hash_of_its_bytes_whatever_is_taken_and_forgotten() {
        let mut leaves = of(5..9);
        check(&leaves, 5..9);
        leaves.push_all(&frames(9..10));
        let mut taken = leaves.take();
        check(&taken, 5..10);
        check(&leaves, 10..10);
        leaves.push_all(&frames(10..12));
        taken.join(leaves.take());
        check(&taken, 5..12);
        taken.forget_before(7);
        check(&taken, 7..12);
        taken.forget_before(3);
        check(&taken, 7..12);
        taken.join(of(14..16));
        check(&taken, 14..16);
        taken.forget_before(20);
        check(&taken, 16..16);
    }

    #[test]
    fn too_many_are_not_kept() {
        let most = MAX_LEAVES as u64;
        let mut leaves = of(0..most);
        leaves.push_all(&frames(most..most + 2));
        check(&leaves, most..most + 2);
        let mut waiting = of(0..most - 1);
        waiting.join(of(most - 1..most + 2));
        check(&waiting, most - 1..most + 2);
    }
}

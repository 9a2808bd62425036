//! One record, and the proof that the log has it: C2SP `tlog-proof`, a text that others can check.
//!
//! `c2sp.org/tlog-proof@v1`, `index N`, the hashes of the inclusion proof (RFC 6962 §2.1.1), an empty line, the signed
//! checkpoint. What is proved is the record's bytes; they are the leaf.

use super::checkpoint::PublicKey;
use super::hashes::Stored;
use super::read;
use std::ops::ControlFlow;
use std::path::Path;
use tlog_tiles::{Checkpoint, Hash, check_record, prove_record, record_hash};

const MAGIC: &str = "c2sp.org/tlog-proof@v1";

/// Finds the first record that `wanted` takes, and its index.
pub fn find(folder: &Path, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Option<(u64, Vec<u8>)>, read::Error> {
    read::each(folder, |index, record| {
        if wanted(record) { ControlFlow::Break((index, record.to_vec())) } else { ControlFlow::Continue(()) }
    })
}

/// The proof of record `index` under a signed checkpoint; `None` where the checkpoint does not cover it, or the stored
/// hashes do not fit it.
pub fn prove(folder: &Path, index: u64, note: &str, head: &Checkpoint) -> Option<String> {
    let stored = Stored::open(folder).ok()?;
    if stored.root(head.size())? != *head.hash() || index >= head.size() {
        return None;
    }
    let hashes = prove_record(head.size(), index, &stored).ok()?;
    let mut proof = format!("{MAGIC}\nindex {index}\n");
    for hash in hashes {
        proof.push_str(&hash.to_string());
        proof.push('\n');
    }
    proof.push('\n');
    proof.push_str(note);
    Some(proof)
}

/// Checks a proof: the index that the log of this key has the record at.
pub fn check(proof: &str, record: &[u8], key: &PublicKey) -> Option<u64> {
    let (own, note) = proof.split_once("\n\n")?;
    let mut lines = own.lines();
    if lines.next()? != MAGIC {
        return None;
    }
    let index: u64 = lines.next()?.strip_prefix("index ")?.parse().ok()?;
    let hashes: Result<Vec<Hash>, _> = lines.map(Hash::parse_hash).collect();
    let head = key.open(note.as_bytes())?;
    check_record(&hashes.ok()?, head.size(), *head.hash(), index, record_hash(record)).ok()?;
    Some(index)
}

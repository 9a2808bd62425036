//! A witness: somebody else's service that has seen this log's earlier checkpoints, and cosigns a later one only where
//! it is proved that nothing before it changed (C2SP `tlog-witness`, `tlog-cosignature`).
//!
//! What it cosigned last is kept in the log's folder, so that `verify` can check it offline with the witness's key. A log
//! that was rolled back or forked is refused by it, and that is told.

use super::anchor::{Anchor, Error};
use super::checkpoint::{self, KeyError};
use super::hashes::Stored;
use super::medium;
use crate::http::{self, Client};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tlog_tiles::prove_tree;
use tokio::runtime::{Builder, Runtime};

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a witness is left alone after it has cosigned.
const PAUSE: Duration = Duration::from_secs(5);
/// Calls for one checkpoint: the second knows what the first one's answer has told.
const CALLS: u32 = 2;
/// The algorithm byte of an Ed25519 cosigner's key (C2SP `tlog-cosignature`).
const COSIGNATURE_V1: u8 = 4;
/// Bytes of a cosignature with its key's id: the id, the time, an Ed25519 signature.
const SIGNATURE_BYTES: usize = 4 + 8 + 64;

/// A witness's public key: `NAME+HASH+DATA`, with the algorithm of cosignatures.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessKey({self})")
    }
}

/// `NAME+HASH+DATA`.
impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = STANDARD.encode([&[COSIGNATURE_V1], &self.key.to_bytes()[..]].concat());
        write!(f, "{}+{:08x}+{data}", self.name, u32::from_be_bytes(self.id))
    }
}

impl WitnessKey {
    /// Reads a verifier key (C2SP signed notes) of type 4.
    pub fn parse(line: &str) -> Result<Self, KeyError> {
        let mut parts = line.splitn(3, '+');
        let (name, hash, data) = (parts.next(), parts.next(), parts.next());
        let (Some(name), Some(hash), Some(data)) = (name, hash, data) else { return Err(KeyError::Witness) };
        let data = STANDARD.decode(data).map_err(|_| KeyError::Witness)?;
        let key = data.strip_prefix(&[COSIGNATURE_V1]).and_then(|key| <&[u8; 32]>::try_from(key).ok());
        let key = key.and_then(|key| VerifyingKey::from_bytes(key).ok()).ok_or(KeyError::Witness)?;
        let named = !name.is_empty() && !name.contains(char::is_whitespace) && name.len() < 256;
        let id = signed_note::key_id(name, &data);
        if !named || format!("{id:08x}") != hash.to_ascii_lowercase() {
            return Err(KeyError::Witness);
        }
        Ok(Self { name: name.to_owned(), id: id.to_be_bytes(), key })
    }

    /// The file in the log's folder that has what this witness cosigned last.
    pub fn file(&self) -> String {
        format!("cosigned-{:08x}", u32::from_be_bytes(self.id))
    }

    /// The line among `lines` in which this witness cosigns the note; those of other keys are not looked at.
    pub fn cosignature<'l>(&self, note: &str, lines: &'l str) -> Option<&'l str> {
        let (text, _) = note.split_once("\n\n")?;
        lines.lines().find(|line| {
            let signed = line.strip_prefix("— ").and_then(|rest| rest.split_once(' '));
            signed.is_some_and(|(name, signature)| name == self.name && self.is_over(text, signature))
        })
    }

    /// Whether a note has this witness's cosignature.
    pub fn has_cosigned(&self, note: &str) -> bool {
        note.split_once("\n\n").is_some_and(|(_, signatures)| self.cosignature(note, signatures).is_some())
    }

    /// `text` is without its last line feed.
    fn is_over(&self, text: &str, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        let Some((id, signed)) = signature.split_first_chunk::<4>() else { return false };
        let Some((time, signed)) = signed.split_first_chunk::<8>() else { return false };
        let Ok(signed) = Signature::from_slice(signed) else { return false };
        let time = u64::from_be_bytes(*time);
        let message = format!("cosignature/v1\ntime {time}\n{text}\n");
        signature.len() == SIGNATURE_BYTES
            && *id == self.id
            && i64::try_from(time).is_ok()
            && self.key.verify_strict(message.as_bytes(), &signed).is_ok()
    }
}

/// Why a witness has not cosigned.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It was not reached.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The log's hashes do not give a proof.
    #[error("the log's hashes give no proof of what was added since {0} records")]
    Proof(u64),
    /// It has seen more.
    #[error(
        "the witness has cosigned {theirs} records of this log, which has {ours}: \
         THE LOG WAS ROLLED BACK, or another process signs with its key"
    )]
    RolledBack {
        /// Cosigned.
        theirs: u64,
        /// Here.
        ours: u64,
    },
    /// It has seen others.
    #[error(
        "the witness has cosigned other records than these {0}: \
         THE LOG WAS CHANGED OR FORKED, or another process signs with its key"
    )]
    Forked(u64),
    /// 404.
    #[error("the witness does not know this log: its operator has to add the log's public key")]
    Unknown,
    /// 403.
    #[error("the witness does not take this log's key: its operator has another one")]
    Key,
    /// An answer that is none.
    #[error("the witness answered with status {0}")]
    Status(u16),
    /// No signature of the key that the config has.
    #[error("the witness's answer has no cosignature that its configured key made")]
    NotCosigned,
}

impl Refusal {
    /// What the witness has seen is not this log.
    pub fn is_another_log(&self) -> bool {
        matches!(self, Self::RolledBack { .. } | Self::Forked(_))
    }
}

/// Where a witness is, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessConfig {
    /// The submission prefix.
    pub url: String,
    /// What its cosignatures are checked with.
    pub key: WitnessKey,
}

/// Has checkpoints cosigned, from a thread of its own.
#[derive(Debug)]
pub struct WitnessAnchor {
    config: WitnessConfig,
    client: Client,
    /// Not the proxy's: a slow witness waits by itself.
    runtime: Runtime,
    folder: PathBuf,
    /// The size that it has cosigned last, as far as is known.
    seen: u64,
}

impl WitnessAnchor {
    /// For the log in this folder. Calls nobody.
    pub fn new(config: WitnessConfig, folder: &Path, client: Client) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let kept = std::fs::read(folder.join(config.key.file())).unwrap_or_default();
        let seen = checkpoint::size_of(&kept).unwrap_or_default();
        Ok(Self { config, client, runtime, folder: folder.to_owned(), seen })
    }

    /// Asks until the witness has cosigned or has said why not; the cosignature's line.
    fn cosign(&mut self, note: &str, size: u64) -> Result<String, Refusal> {
        let url = format!("{}/add-checkpoint", self.config.url);
        let mut answered = 0;
        for _ in 0..CALLS {
            let old = self.seen;
            if old > size {
                // What the log's own folder says may be older or newer than what the witness says.
                self.seen = 0;
                continue;
            }
            let request = request(&self.folder, note, size, old).ok_or(Refusal::Proof(old))?;
            let call = self.client.post_text(&url, request, DEADLINE);
            let answer = self.runtime.block_on(call)?;
            let body = String::from_utf8_lossy(&answer.body);
            answered = answer.status;
            match answer.status {
                200 => {
                    let line = self.config.key.cosignature(note, &body).ok_or(Refusal::NotCosigned)?;
                    self.seen = size;
                    return Ok(line.to_owned());
                }
                409 => match body.trim_end().parse() {
                    Ok(theirs) if theirs > size => return Err(Refusal::RolledBack { theirs, ours: size }),
                    Ok(theirs) if theirs == old => return Err(Refusal::Forked(size)),
                    Ok(theirs) => self.seen = theirs,
                    Err(_) => return Err(Refusal::Forked(size)),
                },
                403 => return Err(Refusal::Key),
                404 => return Err(Refusal::Unknown),
                422 => return Err(Refusal::Forked(size)),
                other => return Err(Refusal::Status(other)),
            }
        }
        Err(Refusal::Status(answered))
    }
}

/// The body of `add-checkpoint`; `None` where there are no hashes for the proof.
fn request(folder: &Path, note: &str, size: u64, old: u64) -> Option<String> {
    let mut body = format!("old {old}\n");
    if old > 0 {
        let proof = prove_tree(size, old, &Stored::open(folder).ok()?).ok()?;
        for hash in proof {
            let _ = writeln!(body, "{}", STANDARD.encode(hash.0));
        }
    }
    body.push('\n');
    body.push_str(note);
    Some(body)
}

impl Anchor for WitnessAnchor {
    fn name(&self) -> String {
        self.config.url.clone()
    }

    fn publish(&mut self, note: &[u8]) -> Result<(), Error> {
        let text = String::from_utf8_lossy(note);
        let size = checkpoint::size_of(note).unwrap_or_default();
        let line = self.cosign(&text, size)?;
        // Two entries of one line each are one note with two signatures.
        let cosigned = format!("{text}{line}\n\n");
        Ok(medium::replace(&self.folder.join(self.config.key.file()), cosigned.as_bytes())?)
    }

    fn pause(&self) -> Duration {
        PAUSE
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::Signer;
    use super::super::hashes::Hashes;
    use super::super::medium::Disk;
    use super::super::tests::PRIVATE;
    use super::super::tree::Tree;
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    const NAME: &str = "witness.example/w1";

    fn witness() -> (SigningKey, WitnessKey) {
        let signing = SigningKey::from_bytes(&[9; 32]);
        let data = [&[COSIGNATURE_V1], &signing.verifying_key().to_bytes()[..]].concat();
        let line = format!("{NAME}+{:08x}+{}", signed_note::key_id(NAME, &data), STANDARD.encode(&data));
        let key = WitnessKey::parse(&line).unwrap();
        assert_eq!(key.to_string(), line);
        (signing, key)
    }

    fn cosigned(signing: &SigningKey, key: &WitnessKey, note: &str, time: u64) -> String {
        let text = note.split_once("\n\n").unwrap().0;
        let signature = signing.sign(format!("cosignature/v1\ntime {time}\n{text}\n").as_bytes());
        let bytes = [&key.id[..], &time.to_be_bytes(), &signature.to_bytes()].concat();
        format!("— {NAME} {}\n", STANDARD.encode(bytes))
    }

    #[test]
    fn a_cosignature_holds_for_its_note_time_and_key_alone() {
        let (signing, key) = witness();
        let root = tlog_tiles::Hash([3; 32]);
        let note = String::from_utf8(Signer::parse(PRIVATE).unwrap().sign(7, root).unwrap()).unwrap();
        let line = cosigned(&signing, &key, &note, 1_700_000_000);
        let others = format!("— somebody.example AAAA\nno line\n{line}");
        assert_eq!(key.cosignature(&note, &others), Some(line.trim_end()));
        assert!(key.has_cosigned(&format!("{note}{line}")) && !key.has_cosigned(&note));
        assert_eq!(key.cosignature(&note.replace("\n7\n", "\n8\n"), &line), None);
        let other = SigningKey::from_bytes(&[8; 32]);
        assert_eq!(key.cosignature(&note, &cosigned(&other, &key, &note, 1)), None);
        assert_eq!(key.cosignature(&note, &cosigned(&signing, &key, &note, u64::MAX)), None);
        let bytes = STANDARD.decode(line.trim_end().rsplit(' ').next().unwrap()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let line = format!("— {NAME} {}\n", STANDARD.encode(changed));
            assert_eq!(key.cosignature(&note, &line), None, "byte {at}");
        }
    }

    #[test]
    fn what_is_no_witness_key_is_refused() {
        let (_, key) = witness();
        let line = key.to_string();
        let log = Signer::parse(PRIVATE).unwrap().public().to_string();
        let cases = ["", "witness", &line[..line.len() - 4], &line.replacen("witness", "witless", 1), &log];
        for wrong in cases {
            assert!(WitnessKey::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_has_the_proof_from_what_the_witness_has_seen() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(request(folder.path(), "note\n", 3, 0).as_deref(), Some("old 0\n\nnote\n"));
        assert_eq!(request(folder.path(), "note\n", 3, 1), None, "no hashes");
        let mut hashes = Hashes::resume(folder.path(), &Disk, Tree::default()).unwrap();
        let mut roots = vec![hashes.tree().root()];
        for n in 0..20_u8 {
            hashes.push(&[n]);
            roots.push(hashes.tree().root());
        }
        hashes.write().unwrap();
        for (old, new) in [(1_usize, 20_usize), (7, 8), (8, 13), (19, 20), (20, 20)] {
            let body = request(folder.path(), "note\n", new as u64, old as u64).unwrap();
            let (head, note) = body.split_once("\n\n").unwrap();
            let mut lines = head.lines();
            assert_eq!((lines.next(), note), (Some(format!("old {old}").as_str()), "note\n"));
            let hash = |line: &str| tlog_tiles::Hash(STANDARD.decode(line).unwrap().try_into().unwrap());
            let proof: Vec<_> = lines.map(hash).collect();
            tlog_tiles::check_tree(&proof, new as u64, roots[new], old as u64, roots[old]).unwrap();
        }
    }
}

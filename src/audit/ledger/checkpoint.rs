//! Signed tree heads: C2SP `tlog-checkpoint` as C2SP signed notes, Ed25519.
//!
//! A checkpoint says: the log of this name has this many records, and this is their root. The log's name is its key's:
//! one key a log. `checkpoints` in the log's folder has all of them, an empty line after each.

use crate::audit::key_file::{self, Unreadable};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signed_note::{Note, StandardSigner, StandardVerifier, Verifier as _, VerifierList};
use std::io;
use std::path::Path;
use tlog_tiles::{Checkpoint, Hash};
use zeroize::Zeroizing;

/// The file in the log's folder.
pub const FILE: &str = "checkpoints";

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] Unreadable),
    /// It is no key of this form.
    #[error("is not one line PRIVATE+KEY+NAME+HASH+DATA; `pgpassport audit key` makes one")]
    Private,
    /// It is no witness's public key of this form.
    #[error("is not a witness's public key NAME+HASH+DATA for Ed25519 cosignatures (C2SP tlog-cosignature)")]
    Witness,
    /// It is no public key of this form.
    #[error("is not a public key NAME+HASH+DATA, as `pgpassport audit key` prints it")]
    Public,
}

/// The log's own key.
pub struct Signer {
    name: String,
    key: StandardSigner,
    public: PublicKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads a private key, in the form of Go's `sumdb/note`.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        Self::parse(&key_file::line(path)?)
    }

    /// A private key's one line.
    pub fn parse(line: &str) -> Result<Self, KeyError> {
        let key = StandardSigner::new(line).map_err(|_| KeyError::Private)?;
        let mut parts = line.splitn(5, '+').skip(2);
        let (name, data) = (parts.next().unwrap_or_default().to_owned(), parts.nth(1).unwrap_or_default());
        let data = Zeroizing::new(STANDARD.decode(data).map_err(|_| KeyError::Private)?);
        let seed: &[u8; 32] = data.get(1..).and_then(|seed| seed.try_into().ok()).ok_or(KeyError::Private)?;
        let verifying = ed25519_dalek::SigningKey::from_bytes(seed).verifying_key();
        let public = PublicKey(signed_note::new_ed25519_verifier_key(&name, &verifying));
        Ok(Self { name, key, public })
    }

    /// The log's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What others check this log's checkpoints with.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The checkpoint of a tree, signed.
    pub fn sign(&self, size: u64, root: Hash) -> Option<Vec<u8>> {
        let text = Checkpoint::new(&self.name, size, root, "").ok()?.to_bytes();
        let mut note = Note::new(&text, &[]).ok()?;
        note.add_sigs(&[&self.key]).ok()?;
        Some(note.to_bytes())
    }
}

/// A new private key's one line. A name has neither blanks nor `+` (C2SP signed notes).
pub fn new_private_key(name: &str) -> io::Result<Zeroizing<String>> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *seed).map_err(|_| io::Error::other("no random numbers"))?;
    let line = Zeroizing::new(private_key(name, &seed));
    Signer::parse(&line).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the name cannot be a log's"))?;
    Ok(line)
}

/// A private key's one line, of a seed from a random number generator.
pub fn private_key(name: &str, seed: &[u8; 32]) -> String {
    const ED25519: u8 = 1;
    let public = ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes();
    let id = signed_note::key_id(name, &[&[ED25519], &public[..]].concat());
    let data = Zeroizing::new([&[ED25519], &seed[..]].concat());
    format!("PRIVATE+KEY+{name}+{id:08x}+{}", STANDARD.encode(&*data))
}

/// Checks checkpoints of one log.
#[derive(Debug)]
pub struct PublicKey(String);

/// `NAME+HASH+DATA`.
impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl PublicKey {
    /// A public key in the form of Go's `sumdb/note`: `NAME+HASH+DATA`.
    pub fn parse(line: &str) -> Result<Self, KeyError> {
        StandardVerifier::new(line).map_err(|_| KeyError::Public)?;
        Ok(Self(line.to_owned()))
    }

    /// The log's name.
    pub fn name(&self) -> &str {
        self.0.split('+').next().unwrap_or_default()
    }

    /// The checkpoint that a signed note holds; `None` where the signature or the name is another's.
    pub fn open(&self, note: &[u8]) -> Option<Checkpoint> {
        let key = StandardVerifier::new(&self.0).ok()?;
        let name = key.name().to_owned();
        let note = Note::from_bytes(note).ok()?;
        note.verify(&VerifierList::new(vec![Box::new(key)])).ok()?;
        let checkpoint = Checkpoint::from_bytes(note.text()).ok()?;
        (checkpoint.origin() == name).then_some(checkpoint)
    }
}

/// Stands in a file of notes behind one that was not written to its end.
pub const UNFINISHED: &str = "(the checkpoint above was not written to its end)";
/// What a line of signatures starts with (C2SP signed notes).
const SIGNATURE: &str = "— ";

/// Where in the end of a file of notes the last whole entry ends, a note with its empty line; 0 where none does. What
/// follows was not written to its end.
pub fn whole_bytes(end: &[u8]) -> usize {
    let (mut whole, mut start) = (0, 0);
    for at in memchr::memmem::find_iter(end, b"\n\n") {
        let next = at.saturating_add(2);
        // A block of signatures: the first, which may be cut, begins otherwise.
        let block = end.get(start..at).unwrap_or_default();
        if block.starts_with(SIGNATURE.as_bytes()) || block == UNFINISHED.as_bytes() {
            whole = next;
        }
        start = next;
    }
    whole
}

/// The notes in a file of them; what is none is a note that does not open. What is marked as unfinished is left out.
pub fn notes(file: &str) -> impl Iterator<Item = String> {
    let blocks = file.split("\n\n").map(|block| block.trim_start_matches('\n')).filter(|block| !block.is_empty());
    let mut found: Vec<(&str, &str)> = Vec::new();
    for block in blocks {
        match found.last_mut() {
            _ if block == UNFINISHED => drop(found.pop()),
            // The first of its signature alone, where it breaks off.
            Some((_, signatures)) if signatures.is_empty() && block.starts_with(SIGNATURE.trim_end()) => {
                *signatures = block;
            }
            _ => found.push((block, "")),
        }
    }
    found.into_iter().map(|(text, signatures)| {
        let end = if signatures.ends_with('\n') { "" } else { "\n" };
        format!("{text}\n\n{signatures}{end}")
    })
}

/// How many records a checkpoint covers, by its second line.
pub fn size_of(note: &[u8]) -> Option<u64> {
    std::str::from_utf8(note).ok()?.lines().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example keys of Go's `sumdb/note` documentation.
    const PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn a_checkpoint_opens_with_its_own_key_alone_and_unchanged() {
        let signer = Signer::parse(PRIVATE).unwrap();
        let note = signer.sign(7, Hash([3; 32])).unwrap();
        let text = String::from_utf8(note.clone()).unwrap();
        assert!(text.starts_with("PeterNeumann\n7\nAwMD"), "{text}");
        let key = PublicKey::parse(PUBLIC).unwrap();
        assert_eq!(signer.public().0, PUBLIC);
        let checkpoint = key.open(&note).unwrap();
        assert_eq!((checkpoint.size(), checkpoint.hash()), (7, &Hash([3; 32])));
        assert!(key.open(text.replace("\n7\n", "\n8\n").as_bytes()).is_none());
        assert!(key.open(b"").is_none() && key.open(b"x\n\n").is_none());
        assert!(Signer::parse(PUBLIC).is_err() && PublicKey::parse(PRIVATE).is_err());
        assert!(!format!("{signer:?}").contains("AYEK"), "the key is no diagnostic");
    }

    #[test]
    fn a_file_of_notes_is_taken_apart_again() {
        let signer = Signer::parse(PRIVATE).unwrap();
        let notes_in: Vec<_> =
            (1..4).map(|size| String::from_utf8(signer.sign(size, Hash([1; 32])).unwrap()).unwrap()).collect();
        let file: String = notes_in.iter().flat_map(|note| [note.as_str(), "\n"]).collect();
        assert_eq!(notes(&file).collect::<Vec<_>>(), notes_in);
        assert_eq!(whole_bytes(file.as_bytes()), file.len());
        let (two, zeros) = (file.len() - notes_in[2].len() - 1, [file.as_bytes(), &[0; 9]].concat());
        assert_eq!(whole_bytes(&zeros), file.len());
        assert_eq!((whole_bytes(b""), whole_bytes(&file.as_bytes()[two + 9..])), (0, file.len() - two - 9));
        for cut in two..file.len() {
            assert_eq!(whole_bytes(&file.as_bytes()[..cut]), two, "{cut}");
        }
        let torn: Vec<_> = notes(&file[..file.len() - 30]).collect();
        let key = PublicKey::parse(PUBLIC).unwrap();
        assert_eq!(torn.iter().filter(|note| key.open(note.as_bytes()).is_some()).count(), 2);
        assert_eq!(size_of(notes_in[1].as_bytes()), Some(2));
        for cut in (1..notes_in[0].len()).filter(|cut| notes_in[0].is_char_boundary(*cut)) {
            let gone_on = [&notes_in[0][..cut], "\n\n", UNFINISHED, "\n\n", &notes_in[1], "\n", &notes_in[2], "\n"];
            assert_eq!(notes(&gone_on.concat()).collect::<Vec<_>>(), notes_in[1..], "cut at {cut}");
            let unmarked = [&notes_in[0][..cut], "\n\n", &notes_in[1], "\n"].concat();
            assert_eq!(notes(&unmarked).last().as_ref(), Some(&notes_in[1]), "cut at {cut}");
        }
    }
}

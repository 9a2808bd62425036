//! Keys in files of one line: the one that signs a log (`ledger::checkpoint`), and secrets of 32 random bytes, which
//! wrap the keys of sealed texts (`sealing`) or make the HMACs of parameters (`parameters`).
//!
//! Promises: no error says anything of what a file has.

use crate::secret::Secret;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The most that is read of a file, in bytes; what is longer is no key.
const MAX_FILE_BYTES: u64 = 4096;
/// Room for that, so that no part of a key is left behind where a text grew.
const ROOM_BYTES: usize = 4096;
/// A secret, in bytes.
pub const SECRET_BYTES: usize = 32;

/// A key's file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the key {path}")]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Why a file gives no secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] Unreadable),
    /// It is no secret of this form.
    #[error("is not base64 of 32 bytes on one line; `pgpassport audit key --new-secret FILE` makes one")]
    Form,
}

/// The start of a text file: all of it, if it is a key's.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(ROOM_BYTES));
    File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// A key's line, without its end.
pub(super) fn line(path: &Path) -> Result<Zeroizing<String>, Unreadable> {
    let mut text = read(path).map_err(|source| Unreadable { path: path.to_owned(), source })?;
    let end = text.trim_end_matches('\n').len();
    text.truncate(end);
    Ok(text)
}

/// The secret in a file.
pub(super) fn secret(path: &Path) -> Result<Zeroizing<[u8; SECRET_BYTES]>, Error> {
    let bytes = Zeroizing::new(STANDARD.decode(line(path)?.trim_end()).map_err(|_| Error::Form)?);
    bytes.as_slice().try_into().map(Zeroizing::new).map_err(|_| Error::Form)
}

/// A new secret's one line.
pub fn new_secret() -> io::Result<Secret<String>> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    rand::fill(secret.as_mut_slice()).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(Secret::new(STANDARD.encode(secret.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line_of_base64_of_32_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (made, more) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(made.expose(), more.expose());
        for end in ["", "\n", "\r\n"] {
            std::fs::write(&path, format!("{}{end}", made.expose())).unwrap();
            assert_eq!(STANDARD.encode(secret(&path).unwrap().as_slice()), *made.expose());
        }
        let long = format!("{}{}", made.expose(), "\n".repeat(ROOM_BYTES));
        let two = format!("{}\n{}\n", made.expose(), made.expose());
        let wrong = ["", "x", "AAAA", "PRIVATE+KEY+a+b+c", &STANDARD.encode([0; 31]), &STANDARD.encode([0; 33]), &two];
        for wrong in wrong {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(secret(&path), Err(Error::Form)), "{wrong}");
        }
        std::fs::write(&path, long).unwrap();
        assert!(secret(&path).is_ok(), "blank lines are no part of it");
        std::fs::write(&path, [0xff; 44]).unwrap();
        assert!(matches!(secret(&path), Err(Error::File(_))), "no text");
        let missing = secret(&folder.path().join("no"));
        assert!(
            matches!(missing, Err(Error::File(Unreadable { source, .. })) if source.kind() == io::ErrorKind::NotFound)
        );
    }
}

//! Texts and parameters apart from the rest of their records: encrypted per caller and day, so that one caller's can be
//! erased, and no proof breaks.
//!
//! A sealed text stands in its record as ciphertext (AES-256-GCM-SIV, RFC 8452), and that is what the log's hashes
//! cover. What opens it is the caller's key of that day, which is not in the log: the [`Vault`] has it, wrapped by a key
//! of the operator's. Without the day's key a text is gone, whoever has copies of the log; everybody else's stay. In the
//! clear stay the text's [`shape`](shape::shape) and its length.
//!
//! Not erased: what a database's own logs say, copies of the vault's folder with the key that wraps, and what somebody
//! has read before.

mod shape;
mod vault;

pub use shape::shape;
pub use vault::{Person, Vault, VaultError, WrappingKey};

use super::digest::{TextDigest, hex};
use crate::time::Clock;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use vault::DayKey;

/// AES-256-GCM-SIV's nonce, in bytes; it stands in front of the ciphertext.
const NONCE_BYTES: usize = 12;

/// What a session's records say of its texts: a choice of its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Texts {
    /// The texts themselves.
    #[default]
    Clear,
    /// Their shapes, and the texts encrypted.
    Sealed,
}

/// Where the keys of sealed texts are, and what wraps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingConfig {
    /// The vault's folder.
    pub folder: PathBuf,
    /// The wrapping key's file.
    pub key: PathBuf,
}

impl SealingConfig {
    /// The vault as it is for reading; nothing is made.
    pub fn vault(&self) -> Result<Vault, VaultError> {
        Ok(Vault::at(&self.folder, WrappingKey::read(&self.key)?))
    }

    /// The vault for sealing; its folder is made where it is missing.
    pub fn open(&self) -> Result<Vault, VaultError> {
        Vault::open(&self.folder, WrappingKey::read(&self.key)?)
    }
}

/// Something that only the caller's key of a day opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sealed {
    /// The key, by its place in the vault: `PERSON/DAY.ID`.
    pub key: String,
    /// Nonce (12 bytes), ciphertext and tag (16 bytes) of AES-256-GCM-SIV, in base64. What is authenticated with it is
    /// the event's id, a blank, and what it is of (`text@0`: from the text's first byte on).
    pub data: String,
}

/// What only who has the caller's key of a day can compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mac {
    /// The key, by its place in the vault: `PERSON/DAY.ID`.
    pub key: String,
    /// HMAC-SHA-256 of the text's SHA-256 (its 32 bytes), in lower-case hexadecimal.
    pub hmac: String,
}

/// Seals one session's texts.
#[derive(Debug)]
pub struct Sealer {
    vault: Arc<Vault>,
    person: Person,
    key: Arc<DayKey>,
    clock: Clock,
}

impl Sealer {
    /// For a caller, whose key of today there is then.
    pub fn new(vault: Arc<Vault>, person: Person, clock: Clock) -> Result<Self, VaultError> {
        let key = vault.key(&person, clock.now())?;
        Ok(Self { vault, person, key, clock })
    }

    /// Seals `plain` as `what` of the event `id`.
    pub fn seal(&mut self, id: &str, what: &str, plain: &[u8]) -> Result<Sealed, VaultError> {
        let key = self.key_of_today()?;
        let data = key.encrypt(&about(id, what), plain)?;
        Ok(Sealed { key: key.name().to_owned(), data: STANDARD.encode(data) })
    }

    /// What stands for a text's digest: whoever has no key cannot try texts against it.
    pub fn mac(&mut self, digest: &TextDigest) -> Result<Mac, VaultError> {
        let key = self.key_of_today()?;
        Ok(Mac { key: key.name().to_owned(), hmac: key.mac(digest) })
    }

    /// A session may outlive the day, and its caller's key.
    fn key_of_today(&mut self) -> Result<&DayKey, VaultError> {
        let now = self.clock.now();
        if !self.key.is_for(now) {
            self.key = self.vault.key(&self.person, now)?;
        }
        Ok(&self.key)
    }
}

/// What is authenticated with a ciphertext.
fn about(id: &str, what: &str) -> String {
    format!("{id} {what}")
}

impl Sealed {
    /// Opens it with the vault's key. `Ok(None)`: that key is not there, and nobody can read this any more.
    pub fn open(&self, vault: &Vault, id: &str, what: &str) -> Result<Option<Vec<u8>>, VaultError> {
        let Some(key) = vault.find(&self.key)? else { return Ok(None) };
        let data = STANDARD.decode(&self.data).map_err(|_| VaultError::Sealed)?;
        key.decrypt(&about(id, what), data).map(Some)
    }
}

/// Nonce, ciphertext and tag.
fn encrypt(key: &RandomizedNonceKey, about: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
    let mut sealed = plain.to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::from(about), &mut sealed).map_err(|_| VaultError::Crypto)?;
    Ok([nonce.as_ref().as_slice(), &sealed].concat())
}

fn decrypt(key: &RandomizedNonceKey, about: &str, mut data: Vec<u8>) -> Result<Vec<u8>, VaultError> {
    let (nonce, sealed) = data.split_at_mut_checked(NONCE_BYTES).ok_or(VaultError::Sealed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Sealed)?;
    let plain = key.open_in_place(nonce, Aad::from(about), sealed).map_err(|_| VaultError::Sealed)?;
    Ok(plain.to_vec())
}

fn cipher(key: &[u8]) -> Result<RandomizedNonceKey, VaultError> {
    RandomizedNonceKey::new(&AES_256_GCM_SIV, key).map_err(|_| VaultError::Crypto)
}

fn mac(key: &hmac::Key, bytes: &[u8]) -> String {
    hex(hmac::sign(key, bytes).as_ref())
}

#[cfg(test)]
mod tests;

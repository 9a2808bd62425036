//! Where the keys of sealed texts are: a folder for each person, in it a wrapped key for each day.
//!
//! `FOLDER/PERSON/who` says whose they are; `FOLDER/PERSON/DAY.ID` is a key: one line, `pgpassport-text-key/v1`, a
//! blank, and base64 of the wrapped 64 bytes (nonce, ciphertext and tag of AES-256-GCM-SIV under the operator's wrapping
//! key, its name authenticated with it). Half of them encrypt, half of them authenticate digests. A key is on the disk
//! before anything is sealed with it. To erase is to unlink: what has the file's blocks afterwards still has them.
//!
//! Promises: a name from a record never leads out of the folder; nothing here is printed.

use super::{cipher, decrypt, encrypt, mac};
use crate::audit::digest::{TextDigest, hex};
use crate::audit::key_file;
use crate::audit::ledger::medium::{Disk, Medium};
use crate::audit::ledger::retention::DayKeys;
use crate::time::{Timestamp, day};
use aws_lc_rs::aead::RandomizedNonceKey;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// What a key's file starts with.
const HEAD: &str = "pgpassport-text-key/v1";
/// Half of a day's key, in bytes.
const HALF_BYTES: usize = 32;
/// What of an identity's digest names its folder, and of random bytes a key, in bytes.
const NAME_BYTES: usize = 12;
/// Persons whose key is kept in memory though no session seals with it; past it they are forgotten and read again.
const MAX_KEPT: usize = 10_000;
/// The file that says whose a folder is.
const WHO: &str = "who";
/// How a record names a key: the member of [`super::Sealed`] and [`super::Mac`].
const KEY_MEMBER: &[u8] = b"\"key\":\"";

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A file or folder.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The wrapping key's file.
    #[error(transparent)]
    WrappingKey(#[from] key_file::Error),
    /// A key's file.
    #[error("{0} is no key of this vault, or another key has wrapped it")]
    Key(PathBuf),
    /// A record.
    #[error("what is sealed is damaged, or stands in a record that is not its own")]
    Sealed,
    /// The provider of cryptography.
    #[error("the cryptographic provider has failed")]
    Crypto,
}

/// What wraps the keys of days.
pub struct WrappingKey(RandomizedNonceKey);

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappingKey(redacted)")
    }
}

impl WrappingKey {
    /// Reads the key's file.
    pub fn read(path: &Path) -> Result<Self, VaultError> {
        Ok(Self(cipher(key_file::secret(path)?.as_slice())?))
    }
}

/// Whose texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Person {
    /// As the config calls the issuer.
    pub issuer: String,
    /// Entra tenant, or what the config calls another issuer's directory.
    pub tenant: String,
    /// With issuer and tenant, the identity.
    pub object_id: String,
}

impl Person {
    /// What the folder is called.
    fn folder(&self) -> String {
        let Self { issuer, tenant, object_id } = self;
        let whole = digest(&SHA256, format!("{issuer}\n{tenant}\n{object_id}").as_bytes());
        hex(whole.as_ref().get(..NAME_BYTES).unwrap_or_default())
    }
}

/// A caller's key of one day.
pub(super) struct DayKey {
    name: String,
    day: String,
    texts: RandomizedNonceKey,
    digests: hmac::Key,
    erased: AtomicBool,
}

impl std::fmt::Debug for DayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DayKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DayKey {
    fn new(name: &str, bytes: &[u8]) -> Result<Self, VaultError> {
        let (texts, digests) = bytes.split_at_checked(HALF_BYTES).ok_or(VaultError::Crypto)?;
        let day = name.split(['/', '.']).nth(1).unwrap_or_default().to_owned();
        let (texts, digests) = (cipher(texts)?, hmac::Key::new(hmac::HMAC_SHA256, digests));
        Ok(Self { name: name.to_owned(), day, texts, digests, erased: AtomicBool::new(false) })
    }

    /// `PERSON/DAY.ID`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is in this person's folder.
    fn is_of(&self, folder: &str) -> bool {
        self.name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether it is what seals at this time.
    pub fn is_for(&self, now: Timestamp) -> bool {
        !self.erased.load(Ordering::Relaxed) && self.day == day(now)
    }

    pub fn encrypt(&self, about: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        encrypt(&self.texts, about, plain)
    }

    pub fn decrypt(&self, about: &str, data: Vec<u8>) -> Result<Vec<u8>, VaultError> {
        decrypt(&self.texts, about, data)
    }

    pub fn mac(&self, digest: &TextDigest) -> String {
        mac(&self.digests, digest.as_bytes())
    }
}

/// The keys of all callers.
#[derive(Debug)]
pub struct Vault {
    folder: PathBuf,
    wrapping: WrappingKey,
    medium: Arc<dyn Medium>,
    kept: Mutex<Kept>,
}

/// The keys that sessions seal with, and have sealed with lately.
#[derive(Debug, Default)]
struct Kept(HashMap<Person, Arc<DayKey>>);

impl Kept {
    /// A key that a session has stays: when it is erased, the session must hear of it.
    fn put(&mut self, person: &Person, key: &Arc<DayKey>) {
        if self.0.len() >= MAX_KEPT {
            self.0.retain(|_, key| Arc::strong_count(key) > 1);
        }
        self.0.insert(person.clone(), Arc::clone(key));
    }

    fn of(&self, person: &Person, now: Timestamp) -> Option<Arc<DayKey>> {
        self.0.get(person).filter(|key| key.is_for(now)).cloned()
    }

    /// Nobody seals any more with a key that this is true of.
    fn erase(&mut self, goes: impl Fn(&Person, &DayKey) -> bool) {
        self.0.retain(|person, key| {
            let goes = goes(person, key);
            key.erased.fetch_or(goes, Ordering::Relaxed);
            !goes
        });
    }
}

impl Vault {
    /// Opens the folder, and makes it where it is missing.
    pub fn open(folder: &Path, wrapping: WrappingKey) -> Result<Self, VaultError> {
        make_folder(folder)?;
        Ok(Self::at(folder, wrapping))
    }

    /// The folder as it is.
    pub fn at(folder: &Path, wrapping: WrappingKey) -> Self {
        Self { folder: folder.to_owned(), wrapping, medium: Arc::new(Disk), kept: Mutex::default() }
    }

    /// A caller's key of the day that `now` is in (UTC): the one that is there, else a new one.
    pub(super) fn key(&self, person: &Person, now: Timestamp) -> Result<Arc<DayKey>, VaultError> {
        let mut kept = self.kept();
        if let Some(key) = kept.of(person, now) {
            return Ok(key);
        }
        let key = Arc::new(match self.key_on_disk(person, &day(now))? {
            Some(key) => key,
            None => self.new_key(person, &day(now))?,
        });
        kept.put(person, &key);
        Ok(key)
    }

    /// The key of this name, if it is there.
    pub(super) fn find(&self, name: &str) -> Result<Option<Arc<DayKey>>, VaultError> {
        if !is_name(name) {
            return Err(VaultError::Sealed);
        }
        match self.unwrap(name) {
            Ok(key) => Ok(Some(Arc::new(key))),
            Err(VaultError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Those of this object id who have keys; `issuer` and `tenant` where they are known.
    pub fn persons(
        &self,
        object_id: &str,
        issuer: Option<&str>,
        tenant: Option<&str>,
    ) -> Result<Vec<Person>, VaultError> {
        let mut persons = Vec::new();
        for entry in entries(&self.folder)? {
            let Ok(text) = key_file::read(&self.folder.join(&entry).join(WHO)) else { continue };
            let Ok(person) = serde_json::from_str::<Person>(&text) else { continue };
            let is = |own: &str, asked: Option<&str>| asked.is_none_or(|asked| asked.eq_ignore_ascii_case(own));
            if person.object_id.eq_ignore_ascii_case(object_id)
                && is(&person.issuer, issuer)
                && is(&person.tenant, tenant)
            {
                persons.push(person);
            }
        }
        Ok(persons)
    }

    /// Unlinks a person's keys of the days before this one (`YYYY-MM-DD`), or all; how many. Sessions that are there seal
    /// with a new key from then on.
    pub fn erase(&self, person: &Person, before: Option<&str>) -> Result<usize, VaultError> {
        let mut kept = self.kept();
        let count = self.unlink(&person.folder(), before)?;
        // The next key of today's is another one.
        kept.erase(|other, key| other == person && before.is_none_or(|before| key.day.as_str() < before));
        // Under the lock: without it, retention may find nothing but whose the folder is, and remove it.
        sync(&self.folder.join(person.folder()))?;
        Ok(count)
    }

    /// Unlinks everybody's keys of the days before this one. Of whom none is left, nothing is left.
    fn delete_before(&self, before: &str) -> Result<(), VaultError> {
        for folder in self.folders()? {
            // Persons can be thousands, and sessions begin meanwhile: one at a time, and the disk without the lock.
            if self.delete_of(&folder, before)? == Left::Folder {
                sync(&self.folder.join(&folder))?;
            }
        }
        sync(&self.folder)
    }

    fn delete_of(&self, person: &str, before: &str) -> Result<Left, VaultError> {
        let mut kept = self.kept();
        self.unlink(person, Some(before))?;
        // Nobody seals with a day that is over, unless a clock is put back.
        kept.erase(|_, key| key.day.as_str() < before && key.is_of(person));
        let path = self.folder.join(person);
        if !entries(&path)?.iter().all(|entry| entry == WHO) {
            return Ok(Left::Folder);
        }
        unlink(&path.join(WHO))?;
        fs::remove_dir(&path).map_err(|source| VaultError::Io { path, source })?;
        Ok(Left::Nothing)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unlinks the keys in a person's folder, of the days before this one or all; how many. The disk is not waited for.
    fn unlink(&self, person: &str, before: Option<&str>) -> Result<usize, VaultError> {
        let folder = self.folder.join(person);
        let mut count = 0_usize;
        for entry in entries(&folder)? {
            let is_old = |before| is_day(day_of(&entry)) && day_of(&entry) < before;
            if entry != WHO && before.is_none_or(is_old) {
                unlink(&folder.join(&entry))?;
                // What was not written to its end is no key.
                count = count.saturating_add(usize::from(is_name(&format!("{person}/{entry}"))));
            }
        }
        Ok(count)
    }

    /// The persons' folders.
    fn folders(&self) -> Result<Vec<String>, VaultError> {
        let mut folders = entries(&self.folder)?;
        folders.retain(|name| is_hexadecimal(name) && self.folder.join(name).is_dir());
        Ok(folders)
    }

    /// One of this day that can be unwrapped.
    fn key_on_disk(&self, person: &Person, day: &str) -> Result<Option<DayKey>, VaultError> {
        let folder = person.folder();
        let path = self.folder.join(&folder);
        if !path.is_dir() {
            return Ok(None);
        }
        let mut names = entries(&path)?;
        names.retain(|name| name != WHO && day_of(name) == day);
        names.sort();
        // One that another wrapping key has wrapped is in nobody's way.
        Ok(names.iter().find_map(|name| self.unwrap(&format!("{folder}/{name}")).ok()))
    }

    fn new_key(&self, person: &Person, day: &str) -> Result<DayKey, VaultError> {
        let folder = person.folder();
        let path = self.folder.join(&folder);
        make_folder(&path)?;
        if !path.join(WHO).exists() {
            let who = serde_json::to_vec(person).map_err(io::Error::from);
            let who = who.and_then(|who| self.medium.create(&path.join(WHO), &who, 0));
            who.map_err(|source| VaultError::Io { path: path.clone(), source })?;
        }
        let (mut id, mut bytes) = ([0; NAME_BYTES], Zeroizing::new([0; 2 * HALF_BYTES]));
        rand::fill(&mut id).and_then(|()| rand::fill(bytes.as_mut_slice())).map_err(|_| VaultError::Crypto)?;
        let name = format!("{folder}/{day}.{}", hex(&id));
        let wrapped = encrypt(&self.wrapping.0, &format!("{HEAD} {name}"), bytes.as_slice())?;
        let line = format!("{HEAD} {}\n", STANDARD.encode(wrapped));
        let path = self.folder.join(&name);
        self.medium.create(&path, line.as_bytes(), 0).map_err(|source| VaultError::Io { path, source })?;
        DayKey::new(&name, bytes.as_slice())
    }

    fn unwrap(&self, name: &str) -> Result<DayKey, VaultError> {
        let path = self.folder.join(name);
        let line = key_file::read(&path).map_err(|source| VaultError::Io { path: path.clone(), source })?;
        let wrapped = line.trim_end().strip_prefix(HEAD).and_then(|rest| STANDARD.decode(rest.trim_start()).ok());
        let wrapped = wrapped.ok_or_else(|| VaultError::Key(path.clone()))?;
        let bytes = decrypt(&self.wrapping.0, &format!("{HEAD} {name}"), wrapped);
        let bytes = Zeroizing::new(bytes.map_err(|_| VaultError::Key(path))?);
        DayKey::new(name, &bytes)
    }
}

/// What is left of a person whose old keys are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Other keys.
    Folder,
}

/// What retention asks, which deletes records.
impl DayKeys for Vault {
    fn named(&self, record: &[u8]) -> Option<String> {
        // Within a JSON string its quotes would be escaped: this is a member, of whatever kind of sealed thing.
        let names = memchr::memmem::find_iter(record, KEY_MEMBER).filter_map(|at| {
            let name = record.get(at.checked_add(KEY_MEMBER.len())?..)?.split(|byte| *byte == b'"').next()?;
            std::str::from_utf8(name).ok().filter(|name| is_name(name))
        });
        names.filter_map(|name| name.split_once('/')).map(|(_, file)| day_of(file)).min().map(str::to_owned)
    }

    fn count(&self, before: &str) -> io::Result<u64> {
        let mut count = 0_u64;
        for folder in self.folders().map_err(io::Error::other)? {
            let names = entries(&self.folder.join(&folder)).map_err(io::Error::other)?;
            let old = names.iter().filter(|name| is_name(&format!("{folder}/{name}")) && day_of(name) < before);
            count = count.saturating_add(old.count() as u64);
        }
        Ok(count)
    }

    fn delete(&self, before: &str) -> io::Result<()> {
        self.delete_before(before).map_err(io::Error::other)
    }
}

/// A folder for its owner alone, and its own place on the disk.
fn make_folder(path: &Path) -> Result<(), VaultError> {
    let made = match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Ok(()) => path.parent().map_or(Ok(()), |parent| fs::File::open(parent).and_then(|parent| parent.sync_all())),
        made => made,
    };
    made.map_err(|source| VaultError::Io { path: path.to_owned(), source })
}

/// Makes what was unlinked in a folder durable.
fn sync(folder: &Path) -> Result<(), VaultError> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| VaultError::Io { path: folder.to_owned(), source })
}

/// Unlinks a file; one that is not there is none.
fn unlink(path: &Path) -> Result<(), VaultError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        unlinked => unlinked.map_err(|source| VaultError::Io { path: path.to_owned(), source }),
    }
}

/// The names in a folder.
fn entries(folder: &Path) -> Result<Vec<String>, VaultError> {
    let names = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name().into_string().unwrap_or_default())).collect()
    });
    names.map_err(|source| VaultError::Io { path: folder.to_owned(), source })
}

/// The day in a key's file name.
fn day_of(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// Whether a record's word for a key has the form that [`Vault::new_key`] gives.
fn is_name(name: &str) -> bool {
    let parts = name.split_once('/').and_then(|(person, rest)| Some((person, rest.split_once('.')?)));
    parts.is_some_and(|(person, (day, id))| is_hexadecimal(person) && is_day(day) && is_hexadecimal(id))
}

fn is_hexadecimal(part: &str) -> bool {
    part.len() == 2 * NAME_BYTES && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_day(part: &str) -> bool {
    part.len() == 10 && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_hears_of_its_keys_end_however_many_others_there_are() {
        let now = Timestamp::UNIX_EPOCH;
        let person = |number: usize| Person {
            issuer: "contoso".to_owned(),
            tenant: "t".to_owned(),
            object_id: number.to_string(),
        };
        let mut kept = Kept::default();
        let new = |kept: &mut Kept, number: usize| {
            let name = format!("{number:024x}/{}.0", day(now));
            let key = Arc::new(DayKey::new(&name, &[0; 2 * HALF_BYTES]).unwrap());
            kept.put(&person(number), &key);
            key
        };
        let of_session = new(&mut kept, 0);
        for number in 1..=MAX_KEPT {
            drop(new(&mut kept, number));
        }
        assert!(kept.0.len() <= MAX_KEPT && kept.of(&person(1), now).is_none(), "what no session has is forgotten");
        assert!(of_session.is_for(now));
        kept.erase(|other, _| *other == person(0));
        assert!(!of_session.is_for(now) && kept.of(&person(0), now).is_none());
    }
}

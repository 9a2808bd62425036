//! Paths in the file, and whether what they name can be used. Nothing is written, no private key is kept.

use super::values;
use crate::audit::key_file::{self, Unreadable};
use crate::audit::ledger::checkpoint::{KeyError, Signer};
use crate::audit::parameters;
use crate::audit::sealing::{VaultError, WrappingKey};
use crate::federation::{self, MAX_KEY_FILE_BYTES};
use crate::names::ServiceAccount;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// The longest path of a Unix socket, in bytes.
const MAX_SOCKET_BYTES: usize = crate::admin::MAX_PATH_BYTES;
/// The largest PEM file, in bytes: a bundle of public roots is about 250 KiB.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// A PEM file with at least one certificate, and the certificates.
pub(super) fn certificates(
    value: &DeValue<'_>,
    folder: &Path,
) -> Result<(PathBuf, Vec<CertificateDer<'static>>), String> {
    let path = resolve(value, folder)?;
    let pem = read(&path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok((path, chain)),
        Ok(_) => Err(format!("{} has no -----BEGIN CERTIFICATE-----", path.display())),
        Err(_) => Err(format!("{} is not well-formed PEM", path.display())),
    }
}

/// A PEM file with a private key, and the key.
pub(super) fn private_key(value: &DeValue<'_>, folder: &Path) -> Result<(PathBuf, PrivateKeyDer<'static>), String> {
    let path = resolve(value, folder)?;
    let pem = zeroize::Zeroizing::new(read(&path)?);
    // The parser's own reason could quote the file.
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        format!("{} has no usable -----BEGIN … PRIVATE KEY----- (encrypted keys are not)", path.display())
    })?;
    Ok((path, key))
}

/// Whether a key can sign, and belongs to the first certificate.
/// `of` names the certificate's key in the file.
pub(super) fn pair(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>, of: &str) -> Result<(), String> {
    CertifiedKey::from_der(chain, key, &default_provider()).map(drop).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("does not belong to the first certificate of {of}")
        }
        other => format!("cannot serve {of}: {other}"),
    })
}

/// The members of a service account's key file that are used.
#[derive(serde::Deserialize)]
struct ServiceAccountKey {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    token_uri: String,
    private_key: String,
}

/// A service account's key file (JSON, as Google's console gives it out). Its assertions go to `token_uri`, which must
/// be https or on this machine.
pub(super) fn service_account_key(value: &DeValue<'_>, folder: &Path) -> Result<PathBuf, String> {
    let path = resolve(value, folder)?;
    let shown = path.display();
    let bytes = zeroize::Zeroizing::new(read(&path)?);
    // The parser's own reason could quote the file.
    let key = serde_json::from_slice::<ServiceAccountKey>(&bytes)
        .ok()
        .filter(|key| key.kind == "service_account" && bytes.len() as u64 <= MAX_KEY_FILE_BYTES)
        .ok_or_else(|| format!("{shown} is no service account's key: JSON with \"type\": \"service_account\""))?;
    ServiceAccount::parse(&key.client_email).map_err(|error| format!("{shown}: client_email {error}"))?;
    values::service_address(&key.token_uri).map_err(|reason| format!("{shown}: token_uri {reason}"))?;
    let private = zeroize::Zeroizing::new(key.private_key);
    PrivatePkcs8KeyDer::from_pem_slice(private.as_bytes())
        .map_err(|_| format!("{shown}: private_key is no -----BEGIN PRIVATE KEY-----"))?;
    Ok(path)
}

/// A file with a client secret of Entra's.
pub(super) fn client_secret(value: &DeValue<'_>, folder: &Path) -> Result<PathBuf, String> {
    let path = resolve(value, folder)?;
    federation::client_secret(&path).map(|_| path)
}

/// A PEM file with an RSA key.
pub(super) fn rsa_key(value: &DeValue<'_>, folder: &Path) -> Result<PathBuf, String> {
    let path = resolve(value, folder)?;
    federation::rsa_key(&path).map(|_| path)
}

/// A log file: it or at least its folder exists. A device would lose what is written, a pipe hold up every session.
pub(super) fn log_file(value: &DeValue<'_>, folder: &Path) -> Result<PathBuf, String> {
    let path = in_a_folder(value, folder)?;
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Err(format!("{} is a folder, not a file", path.display())),
        Ok(metadata) if !metadata.is_file() => Err(format!("{} is not a regular file", path.display())),
        _ => Ok(path),
    }
}

/// The audit log's folder: it or at least the one that it is to be in exists.
pub(super) fn log_folder(value: &DeValue<'_>, folder: &Path) -> Result<PathBuf, String> {
    let path = in_a_folder(value, folder)?;
    match fs::metadata(&path) {
        Ok(metadata) if !metadata.is_dir() => Err(format!("{} is not a folder", path.display())),
        _ => Ok(path),
    }
}

/// A file with the key that signs the audit log's checkpoints.
pub(super) fn signing_key(path: &Path) -> Result<(), String> {
    let shown = path.display();
    Signer::read(path).map(drop).map_err(|error| match error {
        KeyError::File(error) => unreadable(&error, &format!("--new {shown} --name NAME")),
        other => format!("{shown} {other}"),
    })
}

/// A file with the key that wraps the keys of sealed texts.
pub(super) fn wrapping_key(path: &Path) -> Result<(), String> {
    WrappingKey::read(path).map(drop).map_err(|error| match error {
        VaultError::WrappingKey(error) => no_secret(path, error),
        other => format!("{} {other}", path.display()),
    })
}

/// A file with the key of parameters' HMACs.
pub(super) fn parameters_key(path: &Path) -> Result<parameters::Key, String> {
    parameters::Key::read(path).map_err(|error| no_secret(path, error))
}

fn no_secret(path: &Path, error: key_file::Error) -> String {
    let shown = path.display();
    match error {
        key_file::Error::File(error) => unreadable(&error, &format!("--new-secret {shown}")),
        other @ key_file::Error::Form => format!("{shown} {other}"),
    }
}

/// What is wrong with a key's file, and which arguments of `audit key` make one.
fn unreadable(Unreadable { path, source }: &Unreadable, arguments: &str) -> String {
    let shown = path.display();
    if source.kind() == std::io::ErrorKind::NotFound {
        return format!("{shown} is not there; make it with: pgpassport audit key {arguments}");
    }
    format!("{shown} cannot be read: {source}")
}

/// A path whose folder exists.
fn in_a_folder(value: &DeValue<'_>, folder: &Path) -> Result<PathBuf, String> {
    let path = resolve(value, folder)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(format!(
            "the folder {} does not exist; create it for the proxy's user, mode 0750",
            parent.display()
        ));
    }
    Ok(path)
}

/// Where a Unix socket is to be.
pub(super) fn socket(value: &DeValue<'_>, folder: &Path) -> Result<PathBuf, String> {
    let path = in_a_folder(value, folder)?;
    if path.as_os_str().len() > MAX_SOCKET_BYTES {
        return Err(format!("has more than {MAX_SOCKET_BYTES} bytes, which a socket's address cannot hold"));
    }
    match fs::symlink_metadata(&path) {
        Ok(file) if !file.file_type().is_socket() => Err(format!("{} is there and is no socket", path.display())),
        _ => Ok(path),
    }
}

/// Whether a file's mode lets every user read it.
pub(super) fn everyone_reads(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// A path, from the config's folder unless it is absolute.
pub(super) fn resolve(value: &DeValue<'_>, folder: &Path) -> Result<PathBuf, String> {
    values::text(value).map(|text| folder.join(text))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    regular(path, MAX_PEM_BYTES).map_err(|reason| format!("{} {reason}", path.display()))
}

/// The bytes of a regular file of at most so many, or a reason that says no path.
pub(super) fn regular(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err("is a folder, not a file".to_owned());
    }
    // A FIFO would hold the start-up for good.
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(format!("is larger than {most} bytes"));
    }
    Ok(bytes)
}

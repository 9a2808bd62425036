//! The cloud's own folder: the CA, the proxy's listener certificate, and what a demo or test puts there.

use super::Error;
use super::certs::{Authority, Identity};
use super::watchdog::Watchdog;
use crate::audit::ledger::checkpoint::new_private_key;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The key that signs a proxy's audit log, and the log's name.
const AUDIT_KEY: &str = "audit.key";
const LOG_NAME: &str = "audit.contoso.example";
/// Waits for the end of this process, then removes the folder `$1`.
const SCRIPT: &str = r#"cat >/dev/null; rm -rf "$1""#;

/// A folder with mode 0700 that goes when this value goes, or when the process is killed.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    ca: PathBuf,
    _watchdog: Watchdog,
}

impl StateDir {
    /// Makes the folder and writes the certificates.
    pub(super) fn create(ca: &Authority, listener: &Identity) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("pgpassport-")
            .tempdir()
            .map_err(|source| Error::io("make a temporary folder", source))?;
        let watchdog =
            Watchdog::start(SCRIPT, &[folder.path()], None).map_err(|source| Error::io("start a watchdog", source))?;
        // From here on the watchdog removes it.
        let path = folder.keep();
        let state = Self { ca: path.join("ca.pem"), path, _watchdog: watchdog };
        state.write("ca.pem", ca.pem.as_bytes())?;
        state.write("listener.crt", listener.chain_pem.as_bytes())?;
        state.write("listener.key", listener.key_pem.as_bytes())?;
        let key = new_private_key(LOG_NAME).map_err(|source| Error::io("make a signing key", source))?;
        state.write(AUDIT_KEY, key.as_bytes())?;
        Ok(state)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn ca(&self) -> &Path {
        &self.ca
    }

    pub(super) fn listener(&self) -> (PathBuf, PathBuf) {
        (self.path.join("listener.crt"), self.path.join("listener.key"))
    }

    pub(super) fn audit_key(&self) -> PathBuf {
        self.path.join(AUDIT_KEY)
    }

    /// Writes a file, in place of one of the same name.
    pub(super) fn write_new(&self, name: &str, content: &[u8]) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let _ = std::fs::remove_file(&path);
        self.write(name, content)?;
        Ok(path)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let write = || {
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path.join(name))?;
            file.write_all(content)
        };
        write().map_err(|source| Error::io("write a certificate", source))
    }
}

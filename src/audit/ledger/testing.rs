//! A disk that fails when it is told to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "for tests only")]

use super::checkpoint::Signer;
use super::medium::{Disk, LogFile, Medium};
use super::{Behind, Ledger, Opening, Settings};
use crate::time::Clock;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A signer's key.
pub const PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

/// A log with that key on this disk.
pub fn open(settings: Settings, medium: impl Medium + 'static) -> Result<(Ledger, Opening), super::open::Error> {
    let signer = Signer::parse(PRIVATE).unwrap();
    Ledger::open(settings, Arc::new(medium), Clock::system(), signer, Behind::default())
}

/// The disk.
#[derive(Debug, Default, Clone)]
pub struct Flaky(Arc<Mutex<Faults>>);

#[derive(Debug, Default)]
struct Faults {
    creates: bool,
    write: Option<&'static str>,
    sync: bool,
    /// Of segments, so far.
    syncs: usize,
}

impl Flaky {
    /// From now on no file can be made, or again.
    pub fn fail_creates(&self, failing: bool) {
        self.0.lock().unwrap().creates = failing;
    }

    /// The next write fails: `short`, `io` or `full`; or, with `no zeros`, ends behind the records.
    pub fn fail_write(&self, how: &'static str) {
        self.0.lock().unwrap().write = Some(how);
    }

    /// The next sync of a segment fails.
    pub fn fail_sync(&self) {
        self.0.lock().unwrap().sync = true;
    }

    /// How often segments were synced.
    pub fn syncs(&self) -> usize {
        self.0.lock().unwrap().syncs
    }
}

/// What a short write leaves: a part of what is not zeros at the end.
pub fn short(bytes: &[u8]) -> &[u8] {
    &bytes[..told(bytes).len() * 3 / 4]
}

fn told(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)]
}

#[derive(Debug)]
struct FlakyFile(Box<dyn LogFile>, Flaky, Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Segment,
    Other,
}

impl Medium for Flaky {
    fn create(&self, path: &Path, start: &[u8], room: u64) -> io::Result<Box<dyn LogFile>> {
        if self.0.lock().unwrap().creates {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(Box::new(FlakyFile(Disk.create(path, start, room)?, self.clone(), Kind::Segment)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(FlakyFile(Disk.open(path)?, self.clone(), Kind::Other)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
}

impl LogFile for FlakyFile {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let fault = self.1.0.lock().unwrap().write.take();
        match fault {
            Some("short") => self.0.write_at(short(bytes), at),
            Some("no zeros") => self.0.write_at(told(bytes), at),
            Some("full") => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(_) => Err(io::Error::from_raw_os_error(5)),
            None => self.0.write_at(bytes, at),
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.2 == Kind::Segment {
            let mut faults = self.1.0.lock().unwrap();
            faults.syncs += 1;
            if std::mem::take(&mut faults.sync) {
                return Err(io::Error::from_raw_os_error(5));
            }
        }
        self.0.sync()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}

//! A disk that fails when a schedule says so, and forgets with the power what was not synced.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "for tests only")]

use super::checkpoint;
use super::medium::{Disk, LogFile, Medium};
use super::testing::short;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a call does in place of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Writes a part. Of what is no write: `NoRoom`.
    Short,
    /// No room.
    NoRoom,
    /// An error of the device. What a sync was to bring to the disk is forgotten with the power.
    Io,
    /// Does its work, and reports an error. A new file is there all the same.
    Late,
}

pub(super) const FAULTS: [Fault; 4] = [Fault::Short, Fault::NoRoom, Fault::Io, Fault::Late];

/// The disk. Knows what of each file was synced.
#[derive(Debug, Default, Clone)]
pub(super) struct Faulty(Arc<Mutex<Faults>>);

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) calls: usize,
    /// By call.
    pub(super) schedule: BTreeMap<usize, Fault>,
    synced: HashMap<PathBuf, Vec<u8>>,
    /// How far each file may reach on the disk: as far as it has since its last sync, though it was cut in between.
    reaches: HashMap<PathBuf, u64>,
    /// A segment's sync has failed: its records may go with the power though later ones stay.
    pub(super) segment_in_doubt: bool,
    /// A segment was left that could not be begun.
    pub(super) left_behind: bool,
}

impl Faulty {
    fn next(&self) -> Option<Fault> {
        let mut faults = self.0.lock().unwrap();
        faults.calls += 1;
        let call = faults.calls;
        faults.schedule.remove(&call)
    }

    fn keep(&self, path: &Path) {
        let bytes = std::fs::read(path).unwrap();
        self.0.lock().unwrap().synced.insert(path.to_owned(), bytes);
    }

    /// Files are what was synced of them.
    pub(super) fn lose_power(&self, folder: &Path) {
        let mut faults = self.0.lock().unwrap();
        faults.reaches.clear();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match faults.synced.get(&path) {
                Some(bytes) => std::fs::write(path, bytes).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
        }
    }

    /// Somebody else has removed the file.
    pub(super) fn removed_by_others(&self, path: &Path) {
        self.faults().synced.remove(path);
    }

    /// How often it was called.
    pub(super) fn calls(&self) -> usize {
        self.faults().calls
    }

    /// From the `nth` call from now on each fails; the first of them does its work where the fault is `Late`.
    pub(super) fn stop_after(&self, nth: usize, first: Fault) {
        let mut faults = self.faults();
        let from = faults.calls + nth;
        faults.schedule =
            (from..from + 1000).map(|call| (call, if call == from { first } else { Fault::Io })).collect();
    }

    /// No call fails any more.
    pub(super) fn whole_again(&self) {
        self.faults().schedule.clear();
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap()
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Short | Fault::NoRoom => io::Error::from(io::ErrorKind::StorageFull),
        Fault::Io | Fault::Late => io::Error::from_raw_os_error(5),
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn LogFile>,
    disk: Faulty,
    path: PathBuf,
    /// Pages that the kernel has forgotten to be dirty.
    forgotten: Mutex<bool>,
}

impl FaultyFile {
    fn boxed(file: Box<dyn LogFile>, disk: &Faulty, path: &Path) -> Box<dyn LogFile> {
        let forgotten = Mutex::new(false);
        Box::new(Self { file, disk: disk.clone(), path: path.to_owned(), forgotten })
    }

    fn length(&self) -> u64 {
        std::fs::metadata(&self.path).unwrap().len()
    }

    /// A power loss in the midst of a write over other bytes leaves some of each. Records have checksums, and hashes are
    /// made again; a checkpoint of two that failed would stay.
    fn check_place(&self, at: u64) {
        if self.path.ends_with(checkpoint::FILE) {
            let reaches = self.disk.faults().reaches.get(&self.path).copied().unwrap_or_default();
            assert!(at >= reaches, "a checkpoint is written at {at} over what may be on the disk up to {reaches}");
        }
    }
}

impl Medium for Faulty {
    fn create(&self, path: &Path, start: &[u8], room: u64) -> io::Result<Box<dyn LogFile>> {
        let fault = self.next();
        if let Some(fault @ (Fault::Short | Fault::NoRoom | Fault::Io)) = fault {
            std::fs::write(path.with_extension("tmp"), &start[..start.len() / 2]).unwrap();
            return Err(error(fault));
        }
        let file = Disk.create(path, start, room)?;
        self.keep(path);
        if let Some(fault) = fault {
            self.faults().left_behind = true;
            return Err(error(fault));
        }
        Ok(FaultyFile::boxed(file, self, path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        if let Some(fault) = self.next() {
            return Err(error(fault));
        }
        let file = Disk.open(path)?;
        self.faults().synced.entry(path.to_owned()).or_default();
        Ok(FaultyFile::boxed(file, self, path))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let fault = self.next();
        if fault.is_none_or(|fault| fault == Fault::Late) {
            Disk.remove(path)?;
            self.faults().synced.remove(path);
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }
}

impl LogFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.check_place(at);
        let written = match self.disk.next() {
            Some(Fault::Short) => self.file.write_at(short(bytes), at),
            Some(fault) => {
                if fault == Fault::Late {
                    self.file.write_at(bytes, at)?;
                }
                Err(error(fault))
            }
            None => self.file.write_at(bytes, at),
        };
        let (length, mut faults) = (self.length(), self.disk.faults());
        let reaches = faults.reaches.entry(self.path.clone()).or_default();
        *reaches = length.max(*reaches);
        written
    }

    fn sync(&self) -> io::Result<()> {
        let fault = self.disk.next();
        let mut forgotten = self.forgotten.lock().unwrap();
        if let Some(fault) = fault {
            *forgotten = true;
            self.disk.faults().segment_in_doubt |= self.path.extension().is_some_and(|suffix| suffix == "segment");
            return Err(error(fault));
        }
        if !*forgotten {
            self.disk.keep(&self.path);
        }
        self.disk.faults().reaches.insert(self.path.clone(), self.length());
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let fault = self.disk.next();
        if fault.is_none_or(|fault| fault == Fault::Late) {
            self.file.truncate(length)?;
        }
        if let Some(fault) = fault {
            return Err(error(fault));
        }
        let synced = self.disk.faults().synced.get(&self.path).map_or(0, |bytes| bytes.len() as u64);
        // Whatever stands behind that is to be written again.
        *self.forgotten.lock().unwrap() &= length > synced;
        Ok(())
    }
}

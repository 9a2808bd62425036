//! What the log is written to: the seam at which tests let disks fail.

use rustix::fs::{CWD, FallocateFlags, RenameFlags};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Makes files. The one production medium is [`Disk`].
pub trait Medium: Send + Sync + fmt::Debug {
    /// Makes a new file, readable by its owner only, with `room` bytes set aside where the file system can, its
    /// contents `start`; all of it durable, the folder's entry too. A file of that name must not be there yet, and is
    /// not there after an error, unless the disk refuses even that.
    fn create(&self, path: &Path, start: &[u8], room: u64) -> io::Result<Box<dyn LogFile>>;
    /// Opens a file for writing, and makes it (empty) where it is missing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// Removes a file, and makes that durable before anything else is removed. One that is not there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// A file of the log that is being written.
pub trait LogFile: Send + Sync + fmt::Debug {
    /// One `pwrite(2)`; may write less.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// `fdatasync(2)`. After an error nobody knows what is on the disk (Linux forgets which pages were dirty): what was
    /// written since the last sync must be written again, all of it, or the file must not be written any more.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// Files on a file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Medium for Disk {
    fn create(&self, path: &Path, start: &[u8], room: u64) -> io::Result<Box<dyn LogFile>> {
        let unfinished = path.with_extension("tmp");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        set_aside(&file, room)?;
        file.write_all_at(start, 0)?;
        file.sync_all()?;
        rustix::fs::renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE)?;
        if let Err(error) = sync_folder(path) {
            // Left there it would stand in the way of the next try.
            std::fs::remove_file(path)?;
            return Err(error);
        }
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        sync_folder(path)?;
        Ok(Box::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        sync_folder(path)
    }
}

impl LogFile for File {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        loop {
            match FileExt::write_at(self, bytes, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Blocks for the whole file, its length unchanged, so that a full disk is found when a segment is begun and not in
/// the midst of it. File systems that cannot are taken as they are.
fn set_aside(file: &File, room: u64) -> io::Result<()> {
    if room == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, room) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        result => Ok(result?),
    }
}

/// Puts a small file in the place of another, or of none: a stop leaves the one or the other, whole.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    std::fs::rename(unfinished, path)?;
    sync_folder(path)
}

/// Makes a new or renamed entry durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_new_file_is_private_has_its_room_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.segment");
        let file = Disk.create(&path, b"start", 1 << 20).unwrap();
        assert_eq!(file.write_at(b"more", 5).unwrap(), 4);
        file.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"startmore");
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        assert!(meta.blocks() * 512 >= 1 << 20, "set aside: {}", meta.blocks());
        assert_eq!(Disk.create(&path, b"", 0).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"startmore");
    }
}

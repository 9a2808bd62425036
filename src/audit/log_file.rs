//! The file under the log: one call, one `write(2)`.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Where lines go. One of the seams that tests replace.
pub trait LogFile: Send + fmt::Debug {
    /// Appends whole lines in one write, or reports that they are not there.
    fn append(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// A file opened for appending, locked against other writers while it is open.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    /// The file ends in mid-line; the next write starts on a new line.
    torn: bool,
}

impl AppendFile {
    /// Opens the file, or creates it readable by its owner only; a file that is there keeps its mode. A second
    /// writer is refused: two could cut each other's lines. What is no regular file is refused too: a device forgets.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process writes to it"),
            TryLockError::Error(error) => error,
        })?;
        let torn = ends_in_mid_line(&file)?;
        Ok(Self { file, torn })
    }

    /// Takes a partly written batch back, so that no half line is ever read as a record. Where the file's end is not
    /// known for certain, nothing is cut.
    fn take_back(&mut self, written: usize) {
        let start = self.file.metadata().ok().and_then(|meta| meta.len().checked_sub(written as u64));
        let cut = start.map(|start| self.file.set_len(start));
        self.torn = !matches!(cut, Some(Ok(())));
    }
}

/// Whether a process before this one stopped in mid-write.
fn ends_in_mid_line(file: &File) -> io::Result<bool> {
    let meta = file.metadata()?;
    let Some(last) = meta.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

impl LogFile for AppendFile {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let written = loop {
            match self.file.write(lines) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if written == lines.len() {
            return Ok(());
        }
        self.take_back(written);
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn lines_are_appended_to_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        AppendFile::open(&path).unwrap().append(b"{}\n").unwrap();
        AppendFile::open(&path).unwrap().append(b"{}\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n{}\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_half_line_of_the_last_process_does_not_swallow_the_first_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        std::fs::write(&path, b"{\"event\":\"end\",\"id").unwrap();
        AppendFile::open(&path).unwrap().append(b"{\"event\":\"begin\"}\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().last(), Some("{\"event\":\"begin\"}"), "{text}");
    }

    #[test]
    fn a_second_writer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let first = AppendFile::open(&path).unwrap();
        assert!(AppendFile::open(&path).unwrap_err().to_string().contains("another process"));
        drop(first);
        assert!(AppendFile::open(&path).is_ok());
    }

    #[test]
    fn what_would_forget_or_hold_up_records_is_no_log() {
        for device in ["/dev/null", "/dev/full"] {
            let refused = AppendFile::open(Path::new(device)).unwrap_err();
            assert!(refused.to_string().contains("not a regular file"), "{device}: {refused}");
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut full = AppendFile { file, torn: false };
        assert_eq!(full.append(b"{}\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}

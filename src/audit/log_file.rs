//! The file under the log: one call, one `write(2)`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Where lines go. One of the seams that tests replace.
pub trait LogFile: Send + fmt::Debug {
    /// Appends whole lines in one write, or reports that they are not there.
    fn append(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// A file opened for appending.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    /// A write stopped in mid-line and could not be taken back; the next one starts on a new line.
    torn: bool,
}

impl AppendFile {
    /// Opens or creates the file, readable by its owner only.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file, torn: false })
    }

    /// Takes a partly written batch back, so that no half line is ever read as a record.
    fn take_back(&mut self, written: usize) {
        let end = self.file.metadata().map(|meta| meta.len()).unwrap_or_default();
        let start = end.saturating_sub(written as u64);
        if self.file.set_len(start).is_err() {
            self.torn = true;
        }
    }
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
    fn a_full_disk_is_an_error() {
        let mut full = AppendFile::open(Path::new("/dev/full")).unwrap();
        assert_eq!(full.append(b"{}\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}

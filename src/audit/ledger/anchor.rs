//! Where checkpoints go besides the log's own folder, so that whoever owns it cannot rewrite what they cover.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Takes checkpoints; called from a thread of its own, each time with the newest one.
pub trait Anchor: Send + fmt::Debug {
    /// What people call it.
    fn name(&self) -> String;
    /// Hands over a signed note. An error means that it is not anchored; the next one is tried in its place.
    fn publish(&mut self, note: &[u8]) -> io::Result<()>;
}

/// A file, on another machine's mount for instance: notes with an empty line after each.
#[derive(Debug)]
pub struct FileAnchor {
    name: String,
    file: File,
}

impl FileAnchor {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
        Ok(Self { name: path.display().to_string(), file })
    }
}

impl Anchor for FileAnchor {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn publish(&mut self, note: &[u8]) -> io::Result<()> {
        self.file.write_all(&[note, b"\n"].concat())?;
        self.file.sync_data()
    }
}

/// Anything that takes bytes: standard output, for whoever collects it.
#[derive(Debug)]
pub struct WriterAnchor<W> {
    name: &'static str,
    writer: W,
}

impl<W> WriterAnchor<W> {
    /// Writes notes there, an empty line after each.
    pub fn new(name: &'static str, writer: W) -> Self {
        Self { name, writer }
    }
}

impl<W: Write + Send + fmt::Debug> Anchor for WriterAnchor<W> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn publish(&mut self, note: &[u8]) -> io::Result<()> {
        self.writer.write_all(&[note, b"\n"].concat())?;
        self.writer.flush()
    }
}

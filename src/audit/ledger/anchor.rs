//! Where checkpoints go besides the log's own folder, so that whoever owns it cannot rewrite what they cover.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use super::checkpoint::{self, UNFINISHED};

/// How much of a file's end is looked at for a checkpoint that was not written to its end, in bytes.
const END_BYTES: u64 = 64 * 1024;

/// Why a checkpoint is not anchored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place takes nothing.
    #[error("the anchor takes no checkpoint")]
    Io(#[from] io::Error),
    /// Who looks after it says no.
    #[error(transparent)]
    Witness(#[from] super::witness::Refusal),
}

impl Error {
    /// The anchor has another log's checkpoints under this one's name.
    pub fn is_another_log(&self) -> bool {
        matches!(self, Self::Witness(refusal) if refusal.is_another_log())
    }
}

/// Takes checkpoints; called from a thread of its own, each time with the newest one.
pub trait Anchor: Send + fmt::Debug {
    /// What people call it.
    fn name(&self) -> String;
    /// Hands over a signed note. An error means that it is not anchored; the next one is tried in its place.
    fn publish(&mut self, note: &[u8]) -> Result<(), Error>;
    /// How long it is left alone after one.
    fn pause(&self) -> Duration {
        Duration::ZERO
    }
}

/// A file, on another machine's mount for instance: notes with an empty line after each.
#[derive(Debug)]
pub struct FileAnchor {
    name: String,
    file: File,
    /// It ends in mid-note.
    torn: bool,
}

impl FileAnchor {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o644).open(path)?;
        let torn = ends_in_mid_note(&file)?;
        Ok(Self { name: path.display().to_string(), file, torn })
    }
}

impl Anchor for FileAnchor {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn publish(&mut self, note: &[u8]) -> Result<(), Error> {
        let entry = [note, b"\n"].concat();
        // Nothing of it may have been written.
        let torn = self.torn && ends_in_mid_note(&self.file)?;
        let entry = if torn { [b"\n\n", UNFINISHED.as_bytes(), b"\n\n", &entry].concat() } else { entry };
        self.torn = true;
        self.file.write_all(&entry)?;
        self.torn = false;
        Ok(self.file.sync_data()?)
    }
}

/// Whether a write before this one did not reach its end.
fn ends_in_mid_note(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(END_BYTES);
    let mut end = vec![0; usize::try_from(length.saturating_sub(start)).unwrap_or_default()];
    file.read_exact_at(&mut end, start)?;
    Ok(checkpoint::whole_bytes(&end) < end.len())
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

    fn publish(&mut self, note: &[u8]) -> Result<(), Error> {
        self.writer.write_all(&[note, b"\n"].concat())?;
        Ok(self.writer.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::Signer;
    use super::super::tests::PRIVATE;
    use super::*;
    use tlog_tiles::Hash;

    #[test]
    fn what_a_full_mount_left_half_is_marked_and_the_next_is_found() {
        let signer = Signer::parse(PRIVATE).unwrap();
        let note = |size| signer.sign(size, Hash([1; 32])).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("anchor");
        for cut in [1, 20, 60, note(2).len() - 1, note(2).len()] {
            std::fs::write(&path, [&note(1)[..], b"\n", &note(2)[..cut]].concat()).unwrap();
            let mut anchor = FileAnchor::open(&path).unwrap();
            anchor.publish(&note(3)).unwrap();
            anchor.publish(&note(4)).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let sizes: Vec<_> = checkpoint::notes(&text).map(|note| signer.public().open(note.as_bytes())).collect();
            let sizes: Vec<_> = sizes.iter().map(|head| head.as_ref().map(tlog_tiles::Checkpoint::size)).collect();
            assert_eq!(sizes, [Some(1), Some(3), Some(4)], "cut at {cut}: {text}");
            anchor.torn = true;
            anchor.publish(&note(5)).unwrap();
            let more = std::fs::read_to_string(&path).unwrap();
            let more = more.strip_prefix(&text).unwrap();
            assert!(!more.contains(UNFINISHED), "nothing was half written: {more}");
        }
    }
}

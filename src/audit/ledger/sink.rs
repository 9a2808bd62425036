//! The log's records as JSON Lines somewhere else, at least once, never holding up the data path.
//!
//! The disk is the queue: a sink reads the log behind its writer, and keeps in `cursor-NAME`, in the log's folder, up
//! to which record it has delivered. After a crash it delivers again what it had not noted; a record's place in the
//! log is in no line, its `id` or `session` and `time` tell repeats.

use super::follow::{self, Follower};
use super::medium;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The most that is delivered at once, in bytes; after it whoever serves sessions may have the processor first.
const BATCH_BYTES: usize = 256 * 1024;
/// The most that is delivered before the cursor is noted, in bytes.
const NOTE_BYTES: usize = 16 * 1024 * 1024;

/// Takes lines.
pub trait Target: Send + fmt::Debug {
    /// Whole lines, each with its line feed. An error means that they come again.
    fn deliver(&mut self, lines: &[u8]) -> io::Result<()>;
    /// What was delivered outlives a loss of power from now on, where that is the target's own doing.
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why lines are late.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target, or the cursor's file.
    #[error("the sink does not take lines")]
    Io(#[from] io::Error),
    /// The log.
    #[error("the sink cannot read the log")]
    Records(#[from] follow::Error),
}

/// One sink.
#[derive(Debug)]
pub struct Sink {
    name: String,
    target: Box<dyn Target>,
    cursor: PathBuf,
    /// Records before this index were handed to the target.
    reached: u64,
    /// What the cursor says.
    delivered: u64,
    /// Delivered since then, in bytes.
    unnoted: usize,
    records: Follower,
}

impl Sink {
    /// Goes on where the cursor is; a sink without one, or whose cursor cannot be read, starts with the first record that is
    /// there, `first`.
    pub fn open(folder: &Path, name: &str, target: Box<dyn Target>, first: u64) -> io::Result<Self> {
        let cursor = folder.join(format!("cursor-{name}"));
        let delivered = match fs::read_to_string(&cursor) {
            Ok(text) => text.trim_end().parse().unwrap_or_else(|_| {
                tracing::warn!(sink = name, first, "the sink's cursor is no number; it gets all records again");
                first
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => first,
            Err(error) => return Err(error),
        };
        let delivered = first.max(delivered);
        let records = Follower::new(folder, delivered);
        Ok(Self { name: name.to_owned(), target, cursor, reached: delivered, delivered, unnoted: 0, records })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Records before this index were delivered, and will not come again.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Delivers the records before index `until`, which were written.
    pub fn deliver(&mut self, until: u64) -> Result<(), Error> {
        let mut lines = Vec::new();
        while self.reached < until {
            let delivered = self.batch(&mut lines, until);
            if let Err(error) = delivered {
                // What was read and not delivered is read again.
                self.records = Follower::new(self.cursor.parent().unwrap_or(Path::new(".")), self.reached);
                return Err(error);
            }
            if self.unnoted >= NOTE_BYTES {
                self.note()?;
            }
            std::thread::yield_now();
        }
        self.records.forget_ahead();
        Ok(self.note()?)
    }

    /// Notes what was delivered, once that is durable: what comes after a stop can be a repeat, and is never a gap.
    fn note(&mut self) -> io::Result<()> {
        if self.delivered < self.reached {
            self.target.sync()?;
            medium::replace(&self.cursor, format!("{}\n", self.reached).as_bytes())?;
            (self.delivered, self.unnoted) = (self.reached, 0);
        }
        Ok(())
    }

    fn batch(&mut self, lines: &mut Vec<u8>, until: u64) -> Result<(), Error> {
        lines.clear();
        while self.records.next_index() < until && lines.len() < BATCH_BYTES {
            lines.extend_from_slice(self.records.next_record()?);
            lines.push(b'\n');
        }
        self.target.deliver(lines)?;
        self.reached = self.records.next_index();
        self.unnoted = self.unnoted.saturating_add(lines.len());
        Ok(())
    }
}

/// Standard output, and whatever else takes bytes.
#[derive(Debug)]
pub struct Lines<W>(pub W);

impl<W: Write + Send + fmt::Debug> Target for Lines<W> {
    fn deliver(&mut self, lines: &[u8]) -> io::Result<()> {
        self.0.write_all(lines)?;
        self.0.flush()
    }
}

/// A file that is appended to. Where another has its name since (`logrotate`), the new one is gone on with.
#[derive(Debug)]
pub struct LinesFile {
    path: PathBuf,
    file: File,
    /// It ends in mid-line; the next line starts on a new one.
    torn: bool,
}

impl LinesFile {
    /// Opens the file, or creates it readable by its owner only; a file that is there keeps its mode. What is no regular
    /// file is refused: a device forgets, a pipe can wait for ever.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let torn = ends_in_mid_line(&file)?;
        Ok(Self { path: path.to_owned(), file, torn })
    }

    fn is_there(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        Ok(fs::metadata(&self.path).is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())))
    }
}

impl Target for LinesFile {
    fn deliver(&mut self, lines: &[u8]) -> io::Result<()> {
        if !self.is_there()? {
            *self = Self::open(&self.path)?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
        }
        self.torn = true;
        self.file.write_all(lines)?;
        self.torn = false;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Whether a write before this one did not reach its end.
fn ends_in_mid_line(file: &File) -> io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::Signer;
    use super::super::medium::Disk;
    use super::super::writer::{Settings, Urgency};
    use super::super::{Behind, Ledger, frame, tests};
    use super::*;
    use crate::time::Clock;
    use std::sync::{Arc, Mutex};

    #[derive(Debug, Clone, Default)]
    struct Collected(Arc<Mutex<(Vec<u8>, bool)>>);

    impl Target for Collected {
        fn deliver(&mut self, lines: &[u8]) -> io::Result<()> {
            let mut inner = self.0.lock().unwrap();
            if inner.1 {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
            inner.0.extend_from_slice(lines);
            Ok(())
        }
    }

    #[test]
    fn every_record_is_delivered_once_over_restarts_and_again_after_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { folder: folder.path().to_owned(), segment_bytes: 500, reserve_bytes: 100 };
        let signer = Signer::parse(tests::PRIVATE).unwrap();
        let (ledger, _) = Ledger::open(settings, Arc::new(Disk), Clock::system(), signer, Behind::default()).unwrap();
        let collected = Collected::default();
        let mut expected = String::new();
        for round in 0..4_u64 {
            for n in 0..10 {
                let mut frames = Vec::new();
                let text = format!("{{\"round\":{round},\"n\":{n}}}");
                assert!(frame::push(&mut frames, text.as_bytes()));
                ledger.append(&frames, Urgency::Normal).unwrap();
                expected.push_str(&text);
                expected.push('\n');
            }
            let mut sink = Sink::open(folder.path(), "test", Box::new(collected.clone()), 0).unwrap();
            collected.0.lock().unwrap().1 = true;
            assert!(sink.deliver(10 * round + 10).is_err());
            collected.0.lock().unwrap().1 = false;
            sink.deliver(10 * round + 10).unwrap();
            assert_eq!(sink.delivered(), 10 * round + 10);
            assert_eq!(String::from_utf8(collected.0.lock().unwrap().0.clone()).unwrap(), expected);
        }
        // A cursor that a power loss has emptied repeats, and skips nothing.
        for cursor in ["", "\0\0\0", "4x\n"] {
            fs::write(folder.path().join("cursor-test"), cursor).unwrap();
            let mut sink = Sink::open(folder.path(), "test", Box::new(collected.clone()), 0).unwrap();
            collected.0.lock().unwrap().0.clear();
            sink.deliver(40).unwrap();
            assert_eq!(String::from_utf8(collected.0.lock().unwrap().0.clone()).unwrap(), expected, "{cursor:?}");
            assert_eq!(fs::read_to_string(folder.path().join("cursor-test")).unwrap(), "40\n");
        }
    }
}

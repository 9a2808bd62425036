//! Records out of a folder for people: what can be read is handed over, and what cannot is said.

use super::Error;
use crate::audit::ledger::read::{self, Segment, Tail};
use crate::audit::ledger::segment;
use crate::time::Timestamp;
use jiff::SignedDuration;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How far a record's time may be from where it stands: clocks are set, and records wait to be written.
pub(super) const SLACK: SignedDuration = SignedDuration::from_mins(15);
/// How often, and after how long, a record is looked at again that is being written just now.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Enough,
}

/// One segment, by its header.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub path: PathBuf,
    pub number: u64,
    pub created: Timestamp,
    first: u64,
}

/// A log's folder, as it was when it was looked at.
#[derive(Debug)]
pub(super) struct Folder {
    pub segments: Vec<Placed>,
}

impl Folder {
    /// Reads the headers. A file that is no segment is named and left out.
    pub(super) fn open(path: &Path, err: &mut impl Write) -> Result<Self, Error> {
        let mut segments = Vec::new();
        for path in read::segments(path)? {
            match placed(&path) {
                Ok(placed) => segments.extend(placed),
                Err(error @ read::Error::Header(_)) => warn(err, &error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        if segments.is_empty() { Err(Error::Empty(path.to_owned())) } else { Ok(Self { segments }) }
    }

    /// The segments that can have records of this time.
    pub(super) fn span(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Range<usize> {
        let before = |at: Timestamp, limit: Option<Timestamp>, slack: SignedDuration| {
            limit.is_some_and(|limit| at < limit.saturating_add(slack).unwrap_or(limit))
        };
        // A segment ends where its successor begins.
        let successors = self.segments.iter().skip(1);
        let start = successors.take_while(|next| before(next.created, since, -SLACK)).count();
        let within = |placed: &&Placed| until.is_none() || before(placed.created, until, SLACK);
        start..self.segments.iter().take_while(within).count().max(start)
    }

    /// Hands over the records of some segments, in order. What cannot be read is said, and passed over.
    pub(super) fn read(
        &self,
        which: Range<usize>,
        err: &mut impl Write,
        mut take: impl FnMut(&Placed, &[u8]) -> Result<Flow, Error>,
    ) -> Result<(), Error> {
        let end = which.end;
        for (at, placed) in self.segments.iter().enumerate().take(end).skip(which.start) {
            let Some(mut segment) = open(&placed.path)? else { continue };
            let newest = at.saturating_add(1) == self.segments.len();
            loop {
                if let Some(record) = segment.next_record()? {
                    if take(placed, record)? == Flow::Enough {
                        return Ok(());
                    }
                } else if !newest || !settles(&mut segment)? {
                    break;
                }
            }
            self.say_damage(at, &mut segment, err)?;
        }
        Ok(())
    }

    /// What stands behind a segment's last record, and what is missing before the next one's first.
    fn say_damage(&self, at: usize, segment: &mut Segment, err: &mut impl Write) -> Result<(), Error> {
        let (next, file) = (segment.next_index(), segment.header().number);
        let place = self.segments.get(at).map_or_else(String::new, |placed| placed.path.display().to_string());
        if let Tail::Torn { bytes, .. } = segment.tail()? {
            warn(err, &format!("{place}: {bytes} bytes from record {next} on cannot be read"));
        }
        let after = self.segments.get(at.saturating_add(1));
        if let Some(after) = after.filter(|after| after.first != next) {
            warn(err, &format!("records {next} to {} of segment {file} are missing", after.first.saturating_sub(1)));
        }
        Ok(())
    }
}

/// A segment and what comes after it, as the log grows.
#[derive(Debug)]
pub(super) struct Growing {
    folder: PathBuf,
    segment: Segment,
}

impl Growing {
    /// Begins behind what was read: at this place of the newest segment.
    pub(super) fn new(folder: &Path, segment: &Placed, read: u64) -> Result<Option<Self>, Error> {
        let Some(mut segment) = open(&segment.path)? else { return Ok(None) };
        for _ in 0..read {
            segment.next_record()?;
        }
        Ok(Some(Self { folder: folder.to_owned(), segment }))
    }

    /// Hands over what has been written since the last call, over as many segments as there are.
    pub(super) fn read(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        loop {
            // Looked for first: once there is a next segment, this one is whole.
            let next = self.next()?;
            while let Some(record) = self.segment.next_record()? {
                take(record)?;
            }
            match next {
                Some(next) => self.segment = next,
                None => return Ok(()),
            }
        }
    }

    fn next(&self) -> Result<Option<Segment>, Error> {
        let own = self.segment.header().number;
        let numbers = segment::numbers(&self.folder);
        let numbers = numbers.map_err(|source| read::Error::Io { path: self.folder.clone(), source })?;
        let next = numbers.into_iter().find(|number| *number > own);
        Ok(next.map(|number| open(&segment::path(&self.folder, number))).transpose()?.flatten())
    }
}

/// Whether the record that cannot be read yet can be a little later: somebody is writing it.
fn settles(segment: &mut Segment) -> Result<bool, Error> {
    for _ in 0..LOOKS {
        if segment.peek()?.is_some() {
            return Ok(true);
        }
        if segment.tail()? == Tail::Clean {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(segment.peek()?.is_some())
}

/// `None` where it was deleted since the folder was listed.
fn open(path: &Path) -> Result<Option<Segment>, read::Error> {
    match Segment::open(path) {
        Err(read::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn placed(path: &Path) -> Result<Option<Placed>, read::Error> {
    let Some(segment) = open(path)? else { return Ok(None) };
    let header = segment.header();
    let (number, created, first) = (header.number, header.created, header.first);
    Ok(Some(Placed { path: path.to_owned(), number, created, first }))
}

/// The answer stands without it.
pub(super) fn warn(err: &mut impl Write, what: &str) {
    let _ = writeln!(err, "pgpassport audit: {what}; `pgpassport audit verify` says what that means");
}

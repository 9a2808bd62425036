//! Records out of a folder, one after another, in bounded memory.

use super::frame::{self, HEAD_BYTES, Scan};
use super::segment::{self, HEADER_BYTES, Header};
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The least that is read at once, in bytes; a longer record grows the buffer to its own length.
const READ_BYTES: usize = 256 * 1024;

/// Why a segment cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its first bytes are no segment's.
    #[error("{0} does not start as a segment of this version")]
    Header(PathBuf),
}

/// One segment, being read.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    header: Header,
    file: File,
    buffer: Vec<u8>,
    /// What of the buffer has been handed out.
    taken: usize,
    /// Where in the buffer the next record is, once that is known.
    located: Option<(usize, usize)>,
    /// Bytes of whole records, with the header.
    whole: u64,
    count: u64,
}

impl Segment {
    /// Opens the file and reads its header.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let mut start = [0; HEADER_BYTES];
        match file.read_exact(&mut start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Error::Header(path.to_owned())),
            result => result.map_err(io)?,
        }
        let header = Header::decode(&start).ok_or_else(|| Error::Header(path.to_owned()))?;
        let (buffer, whole) = (Vec::new(), HEADER_BYTES as u64);
        Ok(Self { path: path.to_owned(), header, file, buffer, taken: 0, located: None, whole, count: 0 })
    }

    /// Where the segment belongs.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file's bytes up to the end of the last record that was handed out.
    pub fn whole_bytes(&self) -> u64 {
        self.whole
    }

    /// The log's index of the record that comes next.
    pub fn next_index(&self) -> u64 {
        self.header.first.saturating_add(self.count)
    }

    /// The next record, which stays the next.
    pub fn peek(&mut self) -> Result<Option<&[u8]>, Error> {
        let Some((start, end)) = self.locate()? else { return Ok(None) };
        Ok(self.buffer.get(start..end))
    }

    /// The next record; `None` at the segment's end, or where its bytes are no record ([`Segment::tail`] says which).
    /// After more was written to the file, it goes on.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, Error> {
        let Some((start, end)) = self.locate()? else { return Ok(None) };
        self.whole = self.whole.saturating_add(end.saturating_sub(self.taken) as u64);
        (self.taken, self.located) = (end, None);
        self.count = self.count.saturating_add(1);
        Ok(self.buffer.get(start..end))
    }

    /// Reads again what is behind the last record that was handed out.
    pub fn forget_ahead(&mut self) {
        self.buffer.truncate(self.taken);
        self.located = None;
    }

    /// Where in the buffer the next record is: its checksum is looked at once. Where there is none, what is behind is read
    /// again the next time: it may be written by then, or may have been looked at half written.
    fn locate(&mut self) -> Result<Option<(usize, usize)>, Error> {
        while self.located.is_none() {
            let rest = self.buffer.get(self.taken..).unwrap_or_default();
            match frame::scan(rest) {
                Scan::Record(record, taken) => {
                    let end = self.taken.saturating_add(taken);
                    self.located = Some((end.saturating_sub(record.len()), end));
                    break;
                }
                Scan::End if rest.len() < HEAD_BYTES => {}
                Scan::Partial => {}
                Scan::End | Scan::Bad => {
                    self.forget_ahead();
                    return Ok(None);
                }
            }
            if self.fill()? == 0 {
                self.forget_ahead();
                return Ok(None);
            }
        }
        Ok(self.located)
    }

    /// What stands behind the last record: nothing, a record that was not written to its end, or damage.
    pub fn tail(&mut self) -> Result<Tail, Error> {
        self.forget_ahead();
        self.fill()?;
        let bad = frame::scan(&self.buffer) == Scan::Bad;
        let (mut bytes, mut at) = (0_u64, 0_u64);
        while !self.buffer.is_empty() {
            if let Some(last) = self.buffer.iter().rposition(|&byte| byte != 0) {
                bytes = at.saturating_add(last as u64).saturating_add(1);
            }
            at = at.saturating_add(self.buffer.len() as u64);
            self.buffer.clear();
            self.read_more(self.whole.saturating_add(at), READ_BYTES)?;
        }
        Ok(if bytes == 0 { Tail::Clean } else { Tail::Torn { bytes, bad } })
    }

    /// Reads more, and forgets what was handed out.
    fn fill(&mut self) -> Result<usize, Error> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let announced = frame::announced(&self.buffer).unwrap_or_default();
        let want = announced.saturating_sub(self.buffer.len()).max(READ_BYTES);
        self.read_more(self.whole.saturating_add(self.buffer.len() as u64), want)
    }

    fn read_more(&mut self, at: u64, want: usize) -> Result<usize, Error> {
        let start = self.buffer.len();
        self.buffer.resize(start.saturating_add(want), 0);
        let free = self.buffer.get_mut(start..).unwrap_or_default();
        let read = self.file.read_at(free, at);
        self.buffer.truncate(start.saturating_add(*read.as_ref().unwrap_or(&0)));
        read.map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}

/// What stands behind a segment's last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing, or the zeros of room that was set aside.
    Clean,
    /// Something else.
    Torn {
        /// How much, in bytes, without the zeros at the end.
        bytes: u64,
        /// It begins with a frame that is whole by its length, zeros at the end among it, and no record by its checksum.
        bad: bool,
    },
}

/// The segments of a folder, in order.
pub fn segments(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let numbers = segment::numbers(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    Ok(numbers.into_iter().map(|number| segment::path(folder, number)).collect())
}

/// Hands over every whole record that is there, with its index, in order, until told to stop. A segment's end that is no
/// record is passed over: `verify` speaks of those.
pub fn each<B>(folder: &Path, mut take: impl FnMut(u64, &[u8]) -> ControlFlow<B>) -> Result<Option<B>, Error> {
    for path in segments(folder)? {
        let mut segment = match Segment::open(&path) {
            // Deleted since the folder was listed.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        loop {
            let index = segment.next_index();
            let Some(record) = segment.next_record()? else { break };
            if let ControlFlow::Break(found) = take(index, record) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

/// The index of the first record that is still in a folder, or will be.
pub fn first(folder: &Path) -> Result<u64, Error> {
    let oldest = segments(folder)?.into_iter().next();
    oldest.map_or(Ok(0), |path| Ok(Segment::open(&path)?.header().first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use std::io::Write;
    use uuid::Uuid;

    fn segment(records: &[&[u8]], tail: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = segment::path(folder.path(), 1);
        let header = Header { log: Uuid::nil(), number: 1, first: 10, created: Timestamp::UNIX_EPOCH };
        let mut bytes = header.encode().to_vec();
        for record in records {
            assert!(frame::push(&mut bytes, record));
        }
        bytes.extend_from_slice(tail);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn records_are_read_and_the_reader_goes_on_when_more_are_written() {
        let long = vec![b'x'; frame::MAX_RECORD_BYTES];
        let (_folder, path) = segment(&[b"one", &long, b"three"], b"");
        let mut reader = Segment::open(&path).unwrap();
        assert_eq!(reader.next_record().unwrap(), Some(&b"one"[..]));
        assert_eq!(reader.next_record().unwrap().map(<[u8]>::len), Some(long.len()));
        assert_eq!(reader.next_record().unwrap(), Some(&b"three"[..]));
        assert_eq!(reader.next_record().unwrap(), None);
        assert_eq!(reader.next_index(), 13);
        let mut more = Vec::new();
        assert!(frame::push(&mut more, b"four"));
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&more[..7]).unwrap();
        assert_eq!(reader.next_record().unwrap(), None);
        file.write_all(&more[7..]).unwrap();
        assert_eq!(reader.next_record().unwrap(), Some(&b"four"[..]));
        assert_eq!(reader.tail().unwrap(), Tail::Clean);
        assert_eq!(reader.whole_bytes(), std::fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn a_record_is_read_wherever_in_it_the_buffer_ends() {
        // What the buffer has of the last record begins with a zero: its length's low bytes.
        for (length, has) in [(256, 1), (65_536, 2), (256, 8), (256, 9)] {
            let first = vec![b'x'; READ_BYTES - has - HEAD_BYTES];
            let last = vec![b'y'; length];
            let (_folder, path) = segment(&[&first, &last], b"");
            let mut reader = Segment::open(&path).unwrap();
            assert_eq!(reader.next_record().unwrap().map(<[u8]>::len), Some(first.len()));
            assert_eq!(reader.next_record().unwrap(), Some(&last[..]), "{length}, {has} in the buffer");
            assert_eq!(reader.tail().unwrap(), Tail::Clean);
        }
    }

    #[test]
    fn a_record_that_was_looked_at_half_written_is_read_later() {
        let mut record = Vec::new();
        assert!(frame::push(&mut record, b"0123456789"));
        for there in 1..record.len() {
            let (_folder, path) = segment(&[b"one"], &[&record[..there], &[0; 5000]].concat());
            let mut reader = Segment::open(&path).unwrap();
            assert!(reader.next_record().unwrap().is_some());
            assert_eq!(reader.next_record().unwrap(), None, "{there}");
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&record, reader.whole_bytes()).unwrap();
            assert_eq!(reader.next_record().unwrap(), Some(&b"0123456789"[..]), "{there}");
        }
    }

    #[test]
    fn a_tail_is_told_from_the_end() {
        let mut half = Vec::new();
        assert!(frame::push(&mut half, b"0123456789"));
        let mut bad = half.clone();
        bad[12] ^= 1;
        for (tail, expected) in [
            (&b""[..], Tail::Clean),
            (&[0; 5000], Tail::Clean),
            (&half[..9], Tail::Torn { bytes: 9, bad: false }),
            (&half[..3], Tail::Torn { bytes: 1, bad: false }),
            (&[&half[..9], &[0; 5000]].concat(), Tail::Torn { bytes: 9, bad: true }),
            (&bad, Tail::Torn { bytes: 18, bad: true }),
            (&[&[0; 8][..], b"later"].concat(), Tail::Torn { bytes: 13, bad: false }),
        ] {
            let (_folder, path) = segment(&[b"one"], tail);
            let mut reader = Segment::open(&path).unwrap();
            assert!(reader.next_record().unwrap().is_some());
            assert!(reader.next_record().unwrap().is_none());
            assert_eq!(reader.tail().unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_segment_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = segment::path(folder.path(), 1);
        std::fs::write(&path, b"PGPLOG01").unwrap();
        assert!(Segment::open(&path).unwrap_err().to_string().contains("does not start as a segment"));
        assert_eq!(segments(folder.path()).unwrap(), [path]);
    }
}

//! One session's relay without its pump: what came from either side is looked at, recorded, and written, in the pump's
//! order (`relay/pump.rs`), with the tag and the audit on.
//!
//! Time and hashes are fixed: every answer comes a second after its question, so that two runs do exactly the same. Each
//! stage is a function of its own that is never inlined, so that a profiler can tell them apart.

use crate::Result;
use async_trait::async_trait;
use pgpassport::audit::ledger::{NotDurable, frame};
use pgpassport::audit::{Auditor, Durability, RecordLog, Recorder, Urgency};
use pgpassport::relay::Refusal;
use pgpassport::relay::parts::{ClientSide, Output, ServerSide, Stop, Tracker};
use pgpassport::time::{Clock, from_unix};
use pgpassport::wire::ErrorFields;
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::AsyncWrite;

/// What all records of a run say of the time.
const TIME: i64 = 1_795_000_000;
/// Room of a memory log, set aside before anything is measured, in bytes.
const LOG_BYTES: usize = 64 * 1024 * 1024;

/// A session that has just logged in.
#[derive(Debug)]
pub struct Session {
    client: ClientSide,
    server: ServerSide,
    tracker: Tracker,
    recorder: Recorder,
    output: Output,
    to_server: Wire,
    to_client: Wire,
    now: Instant,
}

impl Session {
    /// A session that is recorded there.
    pub fn recorded_in(log: Arc<dyn RecordLog>) -> Result<Self> {
        let clock = Clock::fixed(from_unix(TIME).ok_or("no such time")?);
        let tag = sample::tag()?;
        Ok(Self {
            client: ClientSide::new(tag.clone()),
            server: ServerSide::new(tag),
            tracker: Tracker::reproducible(),
            recorder: sample::recorder(Auditor::new(log, 60, clock), Durability::Batch)?,
            output: Output::default(),
            to_server: Wire::default(),
            to_client: Wire::default(),
            now: Instant::now(),
        })
    }

    /// One read of the client's, which holds whole messages.
    pub fn client_sends(&mut self, mut read: &[u8]) -> Result<()> {
        loop {
            let (taken, stop) = self.client_is_inspected(read);
            self.begins_are_recorded()?;
            self.client_is_forwarded(read)?;
            read = read.get(taken..).unwrap_or_default();
            match stop {
                Stop::Commit => {}
                Stop::Input if read.is_empty() => return Ok(()),
                other => return Err(format!("the client's bytes stop: {other:?}").into()),
            }
        }
    }

    /// One read of the server's, which holds whole messages.
    pub fn server_sends(&mut self, read: &[u8]) -> Result<()> {
        self.now += Duration::from_secs(1);
        let taken = self.server_is_inspected(read)?;
        self.ends_are_recorded()?;
        self.server_is_forwarded(read)?;
        if taken == read.len() { Ok(()) } else { Err("the server's bytes stop".into()) }
    }

    /// Frames, the tag, the tracker, and the begin records as bytes.
    #[inline(never)]
    fn client_is_inspected(&mut self, read: &[u8]) -> (usize, Stop) {
        self.client.process_at(self.now, read, &mut self.tracker, &mut self.recorder, &mut self.output)
    }

    /// Frames and the tracker.
    #[inline(never)]
    fn server_is_inspected(&mut self, read: &[u8]) -> Result<usize> {
        Ok(self.server.process_at(self.now, read, &mut self.tracker, &told, &mut self.output)?)
    }

    /// The commit of the begin records.
    #[inline(never)]
    fn begins_are_recorded(&mut self) -> Result<()> {
        black_box("begins");
        self.record()
    }

    /// The end records as bytes, and their commit.
    #[inline(never)]
    fn ends_are_recorded(&mut self) -> Result<()> {
        black_box("ends");
        self.record()
    }

    /// The write to the server.
    #[inline(never)]
    fn client_is_forwarded(&mut self, read: &[u8]) -> Result<()> {
        black_box("up");
        Ok(at_once(self.output.write_to(read, &mut self.to_server))??)
    }

    /// The write to the client.
    #[inline(never)]
    fn server_is_forwarded(&mut self, read: &[u8]) -> Result<()> {
        black_box("down");
        Ok(at_once(self.output.write_to(read, &mut self.to_client))??)
    }

    fn record(&mut self) -> Result<()> {
        for line in self.tracker.take_settled() {
            line.tell(&mut self.recorder);
        }
        Ok(self.recorder.commit(Urgency::Normal)?)
    }

    /// Bytes that have left for the server, and for the client.
    pub fn forwarded(&self) -> (u64, u64) {
        (self.to_server.bytes, self.to_client.bytes)
    }

    /// Whether nothing is outstanding.
    pub fn is_idle(&self) -> bool {
        self.tracker.is_idle()
    }
}

/// Nothing is refused here.
pub fn told(refusal: Refusal) -> ErrorFields {
    ErrorFields::new("ERROR", "53100", &refusal.to_string())
}

/// A future that waits for nothing.
pub fn at_once<T>(future: impl Future<Output = T>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err("a write that waits".into()),
    }
}

/// Takes everything and keeps nothing: what encrypts and sends is not measured.
#[derive(Debug, Default)]
pub struct Wire {
    bytes: u64,
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.bytes += black_box(bytes).len() as u64;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = black_box(pieces).iter().map(|piece| piece.len()).sum();
        self.bytes += bytes as u64;
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Keeps no record.
#[derive(Debug, Default)]
pub struct NoLog(AtomicU64);

impl NoLog {
    /// Bytes of records so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl RecordLog for NoLog {
    fn append(&self, frames: &[u8], _: Urgency) -> io::Result<u64> {
        Ok(self.0.fetch_add(black_box(frames).len() as u64, Ordering::Relaxed))
    }

    fn append_later(&self, frames: &[u8]) -> io::Result<()> {
        self.append(frames, Urgency::Normal).map(drop)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    async fn durable(&self, _: u64) -> std::result::Result<(), NotDurable> {
        Ok(())
    }

    fn close(&self) {}
}

/// Keeps every record; its room is there before the first one comes.
#[derive(Debug, Clone)]
pub struct MemoryLog(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    frames: Vec<u8>,
    records: u64,
}

impl MemoryLog {
    /// An empty one.
    pub fn new() -> Self {
        let mut frames = vec![1; LOG_BYTES];
        frames.clear();
        Self(Arc::new(Mutex::new(Kept { frames, records: 0 })))
    }

    /// The records so far.
    pub fn records(&self) -> Vec<serde_json::Value> {
        frame::records(&self.lock().frames).filter_map(|record| serde_json::from_slice(record).ok()).collect()
    }

    /// Bytes of the records with their frames' heads.
    pub fn bytes(&self) -> u64 {
        self.lock().frames.len() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl RecordLog for MemoryLog {
    fn append(&self, frames: &[u8], _: Urgency) -> io::Result<u64> {
        let mut kept = self.lock();
        kept.frames.extend_from_slice(frames);
        kept.records += frame::count(frames);
        Ok(kept.records)
    }

    fn append_later(&self, frames: &[u8]) -> io::Result<()> {
        self.append(frames, Urgency::Normal).map(drop)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    async fn durable(&self, _: u64) -> std::result::Result<(), NotDurable> {
        Ok(())
    }

    fn close(&self) {}
}

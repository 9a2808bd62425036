//! Two directions, one task: reads, writes, and the end of a session.
//!
//! Both directions run at once, so that a server which waits for us to read never waits for ever. Nothing is read
//! from a side while what it sent before has not been written: back-pressure is the absence of a read.

use super::client_side::{ClientSide, INSPECTED_BYTES, Refusal, Stop};
use super::gate::CancelGate;
use super::output::Output;
use super::server_side::{MAX_ERROR_BYTES, Misbehaved, ServerSide};
use super::tag::Tag;
use super::tracker::Tracker;
use crate::audit::event::Event;
use crate::audit::{Recorder, Unrecorded};
use bytes::{Buf, BytesMut};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// A read buffer's first size, in bytes.
const FIRST_BUFFER: usize = 8 * 1024;
/// The least free space that is read into, in bytes.
const LEAST_SPACE: usize = 4 * 1024;
/// How much of a client's bytes is held at most: one inspected start and one read.
const CLIENT_BUFFER: usize = INSPECTED_BYTES + 64 * 1024;
/// How much of a server's bytes is held at most: one long error and one read.
const SERVER_BUFFER: usize = MAX_ERROR_BYTES + 64 * 1024;
/// How long the server may take to close after the client has left.
const LINGER: Duration = Duration::from_secs(5);
/// How long what a client still sends is read away after the last message to it.
const READ_AWAY: Duration = Duration::from_secs(1);
/// How long the last message to a client may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the process wants of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wish {
    /// Go on.
    #[default]
    Run,
    /// End when nothing is outstanding, with this error frame.
    WhenIdle(Vec<u8>),
    /// End at the next frame's edge, with this error frame.
    Now(Vec<u8>),
}

/// Why a relay ended.
#[derive(Debug)]
pub enum Ending {
    /// The client said goodbye or went away.
    Client,
    /// The server closed; `fatal` is the SQLSTATE of its last word, if it had one.
    Server {
        /// SQLSTATE.
        fatal: Option<String>,
    },
    /// The process wanted it.
    Wished,
    /// The client's bytes could not go further.
    Refused(Refusal),
    /// The server's bytes could not go further.
    Misbehaved(Misbehaved),
    /// An end line could not be written.
    Unrecorded(Unrecorded),
    /// The server has taken a cancel and not said that it is through: it could hit what the client sends next.
    CancelUnanswered,
}

/// What is left to do and to say.
#[derive(Debug)]
pub struct Summary {
    /// Why it ended.
    pub ending: Ending,
    /// The server was still working for this client: cancel it.
    pub busy: bool,
    /// From the client, in bytes.
    pub bytes_in: u64,
    /// To the client, in bytes.
    pub bytes_out: u64,
    /// The session's log, to write its end into.
    pub recorder: Recorder,
}

/// One session's relay.
#[derive(Debug)]
pub struct Relay {
    shared: Mutex<Shared>,
    progress: Notify,
    gate: Arc<CancelGate>,
    tag: Tag,
}

#[derive(Debug)]
struct Shared {
    tracker: Tracker,
    recorder: Recorder,
    /// Set when the session is being ended: no further byte of the client leaves.
    closed: bool,
    client_mid_frame: bool,
    /// A message's start has gone to the client and its rest has not come.
    server_mid_frame: bool,
    bytes_in: u64,
    bytes_out: u64,
}

impl Relay {
    /// A relay for a session that has just logged in; `gate` is what its cancels hold.
    pub fn new(tag: Tag, recorder: Recorder, gate: Arc<CancelGate>) -> Self {
        let shared = Shared {
            tracker: Tracker::new(),
            recorder,
            closed: false,
            client_mid_frame: false,
            server_mid_frame: false,
            bytes_in: 0,
            bytes_out: 0,
        };
        Self { shared: Mutex::new(shared), progress: Notify::new(), gate, tag }
    }

    /// Runs until either side closes, a message is refused, or the process wishes an end; writes every end line.
    /// `farewell` makes the error frame a client is told for an ending of ours.
    pub async fn run<C, S>(
        self,
        client: C,
        server: S,
        wish: watch::Receiver<Wish>,
        farewell: impl Fn(&Ending) -> Option<Vec<u8>>,
    ) -> Summary
    where
        C: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let (mut server_read, mut server_write) = tokio::io::split(server);
        let (inner_wish, inner) = watch::channel(Wish::Run);
        let ending = {
            let up = self.upstream_until_broken(&mut client_read, &mut server_write);
            let down = self.downstream(&mut server_read, &mut client_write, [wish, inner]);
            tokio::pin!(up, down);
            tokio::select! {
                ending = &mut down => ending,
                ending = &mut up => {
                    let limit = if let Some(frame) = farewell(&ending) {
                        inner_wish.send_replace(Wish::Now(frame));
                        FAREWELL
                    } else {
                        LINGER
                    };
                    let _ = timeout(limit, &mut down).await;
                    ending
                }
            }
        };
        // Within a message our words would be taken for the message's.
        let at_edge = !self.lock().server_mid_frame;
        if let Some(frame) = farewell(&ending).filter(|_| at_edge && speaks_last(&ending)) {
            let _ = timeout(FAREWELL, client_write.write_all(&frame)).await;
        }
        self.goodbye((&mut client_read, &mut client_write), &mut server_write).await;
        self.summary(ending)
    }

    /// A session whose cancel the server leaves open ends, whether its client waits at the gate or says nothing.
    async fn upstream_until_broken<R, W>(&self, client: &mut ReadHalf<R>, server: &mut WriteHalf<W>) -> Ending
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        tokio::select! {
            ending = self.upstream(client, server) => ending,
            () = self.gate.broken() => Ending::CancelUnanswered,
        }
    }

    async fn upstream<R, W>(&self, client: &mut ReadHalf<R>, server: &mut WriteHalf<W>) -> Ending
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut side = ClientSide::new(self.tag.clone());
        let mut buffer = BytesMut::with_capacity(FIRST_BUFFER);
        let mut output = Output::default();
        loop {
            let (taken, stop) = self.take_client(&mut side, &buffer, &mut output);
            if matches!(stop, Stop::Refused(Refusal::Unrecorded(_))) {
                output.clear();
            }
            if output.write_to(&buffer, server).await.is_err() {
                // The server's direction sees why; wait for it there.
                return std::future::pending().await;
            }
            buffer.advance(taken);
            match stop {
                Stop::Refused(refusal) => return Ending::Refused(refusal),
                _ if side.is_terminated() => return Ending::Client,
                Stop::Answers => {
                    self.progress.notified().await;
                    continue;
                }
                Stop::Held => {
                    self.gate.opened().await;
                    continue;
                }
                Stop::Commit => continue,
                Stop::Input => {}
            }
            if !matches!(read(client, &mut buffer, CLIENT_BUFFER).await, Ok(1..)) {
                let _ = server.shutdown().await;
                return Ending::Client;
            }
        }
    }

    /// Works through what the client sent and commits its begin lines, before anything is written.
    fn take_client(&self, side: &mut ClientSide, input: &[u8], output: &mut Output) -> (usize, Stop) {
        let mut guard = self.lock();
        let shared = &mut *guard;
        if shared.closed {
            return (0, Stop::Answers);
        }
        let passed = self.gate.pass(|| {
            let processed = side.process(input, &mut shared.tracker, &mut shared.recorder, output);
            (processed, shared.tracker.outstanding())
        });
        let Some((taken, stop)) = passed else { return (0, Stop::Held) };
        shared.bytes_in = shared.bytes_in.saturating_add(taken as u64);
        shared.client_mid_frame = side.is_mid_frame() || taken < input.len();
        let stop = match shared.record() {
            Ok(()) => stop,
            Err(unrecorded) => Stop::Refused(Refusal::Unrecorded(unrecorded)),
        };
        (taken, stop)
    }

    async fn downstream<R, W>(
        &self,
        server: &mut ReadHalf<R>,
        client: &mut WriteHalf<W>,
        [mut wish, mut inner]: [watch::Receiver<Wish>; 2],
    ) -> Ending
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut side = ServerSide::new(self.tag.clone());
        let mut buffer = BytesMut::with_capacity(FIRST_BUFFER);
        let mut output = Output::default();
        loop {
            let whole = !side.is_mid_frame();
            for wish in [&mut wish, &mut inner] {
                let wished = wish.borrow_and_update().clone();
                if let Some(frame) = self.granted(&wished).filter(|_| whole) {
                    let _ = timeout(FAREWELL, write(client, frame)).await;
                    return Ending::Wished;
                }
            }
            let read = tokio::select! {
                read = read(server, &mut buffer, SERVER_BUFFER) => read,
                Ok(()) = wish.changed() => continue,
                Ok(()) = inner.changed() => continue,
            };
            if !matches!(read, Ok(1..)) {
                return Ending::Server { fatal: side.fatal().map(str::to_owned) };
            }
            let taken = match self.take_server(&mut side, &buffer, &mut output) {
                Ok(taken) => taken,
                Err(ending) => {
                    // What came before the server's wrong message is the client's: our last word must not stand
                    // within a message.
                    if matches!(ending, Ending::Misbehaved(_)) {
                        let _ = deliver(&mut output, &buffer, client, [&mut wish, &mut inner]).await;
                    }
                    return ending;
                }
            };
            let wishes = [&mut wish, &mut inner];
            match deliver(&mut output, &buffer, client, wishes).await {
                Some(Ok(())) => buffer.advance(taken),
                Some(Err(_)) => return Ending::Client,
                None => return Ending::Wished,
            }
        }
    }

    /// Works through what the server sent and writes its end lines, before anything is passed on.
    fn take_server(&self, side: &mut ServerSide, input: &[u8], output: &mut Output) -> Result<usize, Ending> {
        let mut guard = self.lock();
        let shared = &mut *guard;
        let taken = side.process(input, &mut shared.tracker, output);
        self.gate.settle(shared.tracker.outstanding());
        shared.bytes_out = shared.bytes_out.saturating_add(output.len() as u64);
        shared.record().map_err(Ending::Unrecorded)?;
        shared.server_mid_frame = side.is_mid_frame();
        self.progress.notify_one();
        taken.map_err(Ending::Misbehaved)
    }

    /// Whether a wish can be fulfilled now; from then on no byte of the client leaves.
    fn granted<'a>(&self, wish: &'a Wish) -> Option<&'a [u8]> {
        let mut shared = self.lock();
        let idle = shared.tracker.is_idle() && !shared.client_mid_frame;
        let frame = match wish {
            Wish::Now(frame) => frame,
            Wish::WhenIdle(frame) if idle => frame,
            Wish::WhenIdle(_) | Wish::Run => return None,
        };
        shared.closed = true;
        Some(frame)
    }

    /// Says goodbye to both sides, as far as they still listen.
    async fn goodbye<C, S>(&self, client: (&mut ReadHalf<C>, &mut WriteHalf<C>), server: &mut WriteHalf<S>)
    where
        C: AsyncRead + AsyncWrite,
        S: AsyncWrite,
    {
        let polite = {
            let shared = self.lock();
            shared.tracker.is_idle() && !shared.client_mid_frame
        };
        let _ = timeout(FAREWELL, async {
            if polite {
                let _ = server.write_all(b"X\0\0\0\x04").await;
            }
            let _ = server.shutdown().await;
            let (read, write) = client;
            let _ = write.shutdown().await;
            // What the client still sends is read away: a close with unread bytes would reset the last word off the
            // wire.
            let mut sink = [0; 4096];
            let _ = timeout(READ_AWAY, async { while matches!(read.read(&mut sink).await, Ok(1..)) {} }).await;
        })
        .await;
    }

    fn summary(self, ending: Ending) -> Summary {
        // From here on nothing is left that a client's cancel could mean.
        self.gate.settle(None);
        let mut shared = self.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        let busy = shared.tracker.is_busy() && !matches!(ending, Ending::Server { .. });
        shared.tracker.finish(std::time::Instant::now());
        let ending = match shared.record() {
            Err(unrecorded) if !matches!(ending, Ending::Refused(_)) => Ending::Unrecorded(unrecorded),
            _ => ending,
        };
        let Shared { recorder, bytes_in, bytes_out, .. } = shared;
        Summary { ending, busy, bytes_in, bytes_out, recorder }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Writes what is ready, in one `write(2)`.
    fn record(&mut self) -> Result<(), Unrecorded> {
        for end in self.tracker.take_ends() {
            self.recorder.end(&end)?;
        }
        for sqlstate in self.tracker.take_sync_errors() {
            self.recorder.prepare(&Event::SyncError { sqlstate })?;
        }
        self.recorder.commit()
    }
}

/// Endings that come out of the server's direction: nobody has told the client yet.
fn speaks_last(ending: &Ending) -> bool {
    matches!(ending, Ending::Server { fatal: None } | Ending::Misbehaved(_) | Ending::Unrecorded(_))
}

/// Writes to a client, who may not read: once the session is to end now, that is waited for no longer than a
/// farewell. `None` when it was in vain.
async fn deliver<W: AsyncWrite + Unpin>(
    output: &mut Output,
    input: &[u8],
    client: &mut WriteHalf<W>,
    [wish, inner]: [&mut watch::Receiver<Wish>; 2],
) -> Option<io::Result<()>> {
    let now = |wish: &Wish| matches!(wish, Wish::Now(_));
    let write = output.write_to(input, client);
    tokio::pin!(write);
    tokio::select! {
        biased;
        written = &mut write => return Some(written),
        Ok(_) = wish.wait_for(now) => {}
        Ok(_) = inner.wait_for(now) => {}
    }
    timeout(FAREWELL, write).await.ok()
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut WriteHalf<W>, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Reads once into the buffer's free space, which grows up to `limit`. Cancel-safe.
async fn read<R: AsyncRead + Unpin>(
    reader: &mut ReadHalf<R>,
    buffer: &mut BytesMut,
    limit: usize,
) -> io::Result<usize> {
    let free = buffer.capacity().saturating_sub(buffer.len());
    if free < LEAST_SPACE {
        if buffer.len() >= limit {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        buffer.reserve(buffer.len().clamp(FIRST_BUFFER, 64 * 1024));
    }
    reader.read_buf(buffer).await
}

#[cfg(test)]
mod tests;

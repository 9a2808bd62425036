//! The server's direction: answers as they come, until there is a reason to stop.

use super::buffer::{consume, read};
use super::wishes::{NextWish, next_wish};
use super::{FAREWELL, Log, OFFER_AGAIN, Relay, Shared};
use crate::audit::Urgency;
use crate::relay::ending::{Cause, Ending, Host, Wish};
use crate::relay::output::Output;
use crate::relay::server_side::{MAX_ERROR_BYTES, ServerSide};
use crate::relay::tag::Tag;
use crate::telemetry::Limit;
use bytes::BytesMut;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How much of a server's bytes is held at most: what is looked at of a long error, and one read.
const SERVER_BUFFER: usize = MAX_ERROR_BYTES + 64 * 1024;
/// How long what either side still sends is read away after the last message to it.
const READ_AWAY: Duration = Duration::from_secs(1);

/// How long answers are waited for.
pub(super) struct Patience<F> {
    /// While the server is silent.
    pub quiet: Duration,
    /// In all.
    pub over: F,
}

/// The direction's state: it outlives each wait.
#[derive(Debug)]
pub(super) struct Down<S, C> {
    side: ServerSide,
    buffer: BytesMut,
    output: Output,
    server: ReadHalf<S>,
    client: WriteHalf<C>,
    server_closed: bool,
    /// What the server says cannot be followed: nothing more is read from it.
    unreadable: bool,
    /// A write to the client failed or was given up: nothing more can be said.
    client_lost: bool,
}

impl<S: AsyncRead, C: AsyncWrite> Down<S, C> {
    /// Before the first answer.
    pub fn new(tag: Tag, server: ReadHalf<S>, client: WriteHalf<C>) -> Self {
        let (side, buffer) = (ServerSide::new(tag), BytesMut::new());
        let (server_closed, unreadable, client_lost) = (false, false, false);
        Self { side, buffer, output: Output::default(), server, client, server_closed, unreadable, client_lost }
    }

    /// Whether the server has closed.
    pub fn is_server_closed(&self) -> bool {
        self.server_closed
    }

    /// SQLSTATE of the server's last word, if it has said one.
    pub fn fatal(&self) -> Option<&str> {
        self.side.fatal()
    }

    /// Whether nothing more can be said to the client.
    pub fn is_client_lost(&self) -> bool {
        self.client_lost
    }

    /// Nothing more is said to the client.
    pub fn lose_client(&mut self) {
        self.client_lost = true;
    }

    /// The server is in mid-message.
    pub fn is_mid_frame(&self) -> bool {
        self.side.is_mid_frame()
    }

    /// A cancel of ours is not told to the client, which is told why instead.
    pub fn mute_cancel(&mut self) {
        self.side.mute_cancel();
    }

    /// The last word: at a frame's edge, or not at all.
    pub async fn say(&mut self, frame: &[u8]) {
        if self.client_lost || self.side.has_left_in_part() {
            return;
        }
        let client = &mut self.client;
        let _ = timeout(FAREWELL, async {
            client.write_all(frame).await?;
            client.flush().await
        })
        .await;
    }

    /// Closes towards the client, and reads away what both sides still send: a close with unread bytes would reset
    /// the last word off the wire.
    pub async fn close(&mut self, from_client: &mut ReadHalf<C>)
    where
        C: AsyncRead,
    {
        let _ = self.client.shutdown().await;
        let server = &mut self.server;
        let (mut one, mut other) = ([0; 1024], [0; 1024]);
        let _ = tokio::join!(
            timeout(READ_AWAY, async { while matches!(from_client.read(&mut one).await, Ok(1..)) {} }),
            timeout(READ_AWAY, async { while matches!(server.read(&mut other).await, Ok(1..)) {} }),
        );
    }

    /// Writes to the client, as long as there is one. Dropped in mid-write, or failed, it leaves the client lost: a
    /// part of a message may be written.
    async fn deliver(&mut self) -> io::Result<()> {
        if self.client_lost {
            self.output.clear();
            return Ok(());
        }
        self.client_lost = true;
        self.output.write_to(&self.buffer, &mut self.client).await?;
        self.client_lost = false;
        Ok(())
    }
}

/// What is to be done after one wait.
enum Next {
    /// The same again.
    Read,
    /// There is another wish.
    Wish,
    /// The direction ends so; `None` where it is paused.
    End(Option<Ending>),
}

impl Relay {
    /// Runs until the server closes, an end is wished that can be had, or it is paused: then `None`, in the middle of
    /// a message perhaps, but never of a write.
    pub(super) async fn downstream<S, C, H>(
        &self,
        down: &mut Down<S, C>,
        wish: &mut watch::Receiver<Wish>,
        host: &H,
    ) -> Option<Ending>
    where
        S: AsyncRead,
        C: AsyncWrite,
        H: Host,
    {
        'wishes: loop {
            let mut next = next_wish(wish);
            loop {
                match self.answer(down, wish, &mut next, host).await {
                    Next::Read => {}
                    Next::Wish => continue 'wishes,
                    Next::End(ending) => return ending,
                }
            }
        }
    }

    /// One wait for what the server sends next, and what follows from it.
    async fn answer<S, C, H>(
        &self,
        down: &mut Down<S, C>,
        wish: &mut watch::Receiver<Wish>,
        next_wish: &mut NextWish,
        host: &H,
    ) -> Next
    where
        S: AsyncRead,
        C: AsyncWrite,
        H: Host,
    {
        if self.is_paused() {
            return Next::End(None);
        }
        let (owing, idle_end) = {
            let mut shared = self.lock();
            if let Some(cause) = shared.granted(*wish.borrow(), down.side.is_mid_frame()) {
                return Next::End(Some(Ending::Wished(cause)));
            }
            let idle_end = self.idle_end(&shared);
            if idle_end.is_some_and(|end| end <= Instant::now()) {
                shared.closed = true;
                return Next::End(Some(Ending::IdleInTransaction));
            }
            (shared.recorder.is_owing(), idle_end)
        };
        let held = self.held(host);
        let read = tokio::select! {
            biased;
            read = read(&mut down.server, &mut down.buffer, SERVER_BUFFER), if held.is_none() => read,
            () = self.paused() => return Next::End(None),
            () = next_wish => return Next::Wish,
            () = until(held), if held.is_some() => return Next::Read,
            () = until(idle_end), if idle_end.is_some() => return Next::Read,
            () = async { Box::pin(sleep(OFFER_AGAIN)).await }, if owing => {
                return match self.record(&mut self.lock(), u64::MAX, Urgency::Normal, host) {
                    Log::Overdue { .. } => Next::End(Some(Ending::Unrecorded)),
                    Log::Took | Log::Owed => Next::Read,
                };
            }
        };
        let (taken, ending) = self.take_server(down, read, host);
        // What came before an ending is delivered, so that the last word stands at a frame's edge.
        let delivered = self.deliver(down, wish).await;
        consume(&mut down.buffer, taken);
        match (ending, delivered) {
            (Some(ending), _) => Next::End(Some(ending)),
            (None, Some(Err(_))) => Next::End(Some(Ending::Client)),
            (None, _) => Next::Read,
        }
    }

    /// Writes to a client, who may not read: once the session is to end now, that is waited for no longer than a
    /// farewell. `None` when it was in vain.
    async fn deliver<S: AsyncRead, C: AsyncWrite>(
        &self,
        down: &mut Down<S, C>,
        wish: &mut watch::Receiver<Wish>,
    ) -> Option<io::Result<()>> {
        let done = {
            let mut write = pin!(down.deliver());
            // As a rule the socket takes it at once. What it takes to wait for a client is made where one is waited for.
            match poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await {
                Poll::Ready(written) => Some(written),
                Poll::Pending => Box::pin(self.delivered(write, wish)).await,
            }
        };
        down.output.clear();
        done
    }

    /// The rest of [`Self::deliver`].
    async fn delivered(
        &self,
        mut write: Pin<&mut impl Future<Output = io::Result<()>>>,
        wish: &mut watch::Receiver<Wish>,
    ) -> Option<io::Result<()>> {
        let waited = tokio::select! {
            biased;
            written = &mut write => Some(written),
            Ok(_) = wish.wait_for(|wish| matches!(wish, Wish::Now(_))) => None,
            () = self.paused() => None,
        };
        match waited {
            Some(written) => Some(written),
            None => timeout(FAREWELL, write).await.ok(),
        }
    }

    /// When the session ends because its transaction is idle, if nothing happens before.
    fn idle_end(&self, shared: &Shared) -> Option<Instant> {
        let limit = self.bounds.as_ref()?.idle_in_transaction?;
        shared.idle_since.map(|since| since + limit)
    }

    /// Until when no answer is read, because too many bytes have moved.
    fn held<H: Host>(&self, host: &H) -> Option<Instant> {
        let held = self.bounds.as_ref()?.held();
        if held.is_some() {
            host.waits(Limit::Bytes);
        }
        held
    }

    /// Goes on with the answers until `done`, or the server closes, or patience ends: between two messages' writes,
    /// never within one.
    pub(super) async fn answers<S, C, H>(
        &self,
        down: &mut Down<S, C>,
        patience: Patience<impl Future<Output = ()>>,
        done: impl Fn(&Shared, &Down<S, C>) -> bool,
        host: &H,
    ) where
        S: AsyncRead,
        C: AsyncWrite,
        H: Host,
    {
        let Patience { quiet, over } = patience;
        tokio::pin!(over);
        while !down.server_closed && !down.unreadable && !done(&self.lock(), down) {
            if let Some(held) = self.held(host).filter(|_| !down.side.is_muted()) {
                tokio::select! {
                    biased;
                    () = &mut over => return,
                    () = sleep_until(held) => {}
                }
            }
            let read = tokio::select! {
                biased;
                () = &mut over => return,
                read = timeout(quiet, read(&mut down.server, &mut down.buffer, SERVER_BUFFER)) => read,
            };
            let Ok(read) = read else { return };
            let (taken, _) = self.take_server(down, read, host);
            let _ = timeout(FAREWELL, down.deliver()).await;
            down.output.clear();
            consume(&mut down.buffer, taken);
        }
    }

    /// Works through what the server sent and hands its end lines to the log, before anything is passed on: how many bytes
    /// are dealt with, and why the session ends, if it does.
    fn take_server<S, C>(
        &self,
        down: &mut Down<S, C>,
        read: io::Result<usize>,
        host: &impl Host,
    ) -> (usize, Option<Ending>) {
        if !matches!(read, Ok(1..)) {
            down.server_closed = true;
            return (0, Some(Ending::Server { fatal: down.side.fatal().map(str::to_owned) }));
        }
        let mut guard = self.lock();
        let shared = &mut *guard;
        let words = |refusal| host.refusal(refusal);
        let taken = down.side.process(&down.buffer, &mut shared.tracker, &words, &mut down.output);
        self.gate.settle(shared.tracker.outstanding());
        shared.bytes_out = shared.bytes_out.saturating_add(down.output.len() as u64);
        if let Some(bounds) = &self.bounds {
            bounds.count(down.output.len());
            bounds.count_further(shared.tracker.take_further());
            shared.note_idle();
        }
        let owed = self.record(shared, u64::MAX, Urgency::Normal, host);
        self.progress.notify_one();
        match taken {
            Err(misbehaved) => {
                down.unreadable = true;
                (0, Some(Ending::Misbehaved(misbehaved)))
            }
            Ok(taken) => (taken, owed.is_overdue().then_some(Ending::Unrecorded)),
        }
    }
}

impl Shared {
    /// The cause of a wish that can be fulfilled now; from then on no byte of the client leaves.
    fn granted(&mut self, wish: Wish, server_mid_frame: bool) -> Option<Cause> {
        let granted = match wish {
            Wish::Run => None,
            Wish::WhenIdle(cause) => {
                let idle = self.tracker.is_idle() && !self.mid_frame.client && !server_mid_frame;
                idle.then_some(cause)
            }
            Wish::Now(cause) => Some(cause),
        };
        self.closed |= granted.is_some();
        granted
    }
}

/// Boxed: a session that waits for no moment has no room for one.
async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        Box::pin(sleep_until(at)).await;
    }
}

//! Two directions, one task: reads, writes, and the end of a session.
//!
//! Both directions run at once, so that a server which waits for us to read never waits for ever. Nothing is read
//! from a side while what it sent before has not been written: back-pressure is the absence of a read.
//!
//! What the session's log does not take is refused here ([`ClientSide::refuse`]); what it is owed is offered again
//! with every read and every [`OFFER_AGAIN`].

mod buffer;
mod directions;
mod down;
mod farewell;
mod record;
mod wishes;

use super::bounds::Bounds;
use super::client_side::{ClientSide, INSPECTED_BYTES, Stop};
use super::ending::{Ending, Host, Summary, Wish};
use super::gate::CancelGate;
use super::output::Output;
use super::substitute::Refusal;
use super::tag::Tag;
use super::tracker::Tracker;
use crate::audit::{Overdue, Recorder, UnrecordedCommit, Urgency};
use crate::wire::Purpose;
use buffer::{Input, consume};
use directions::{First, first};
use down::Down;
pub use farewell::LAST_WORDS;
use farewell::LINGER;
use record::Log;
use std::future::poll_fn;
use std::mem::replace;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// A read buffer's first size, in bytes.
const FIRST_BUFFER: usize = 8 * 1024;
/// How much of an empty read buffer is kept, in bytes.
const KEPT_BUFFER: usize = 64 * 1024;
/// The least free space that is read into, in bytes.
const LEAST_SPACE: usize = 4 * 1024;
/// How much of a client's bytes is held at most: one inspected start and one read.
const CLIENT_BUFFER: usize = INSPECTED_BYTES + 64 * 1024;
/// How often the log is offered again what it is owed.
const OFFER_AGAIN: Duration = Duration::from_secs(1);
/// How long a client that does not read may hold up the end of its session.
const FAREWELL: Duration = Duration::from_secs(5);

/// One session's relay.
#[derive(Debug)]
pub struct Relay {
    shared: Mutex<Shared>,
    progress: Notify,
    /// The client's bytes are being written to the server.
    writing: AtomicBool,
    /// The client's records are handed in for a group, which is not written yet: nothing else of the session goes on.
    handed_in: AtomicBool,
    /// The server's direction stops between two writes.
    paused: AtomicBool,
    /// The disk did not confirm the last records that were waited for.
    unconfirmed: AtomicBool,
    gate: Arc<CancelGate>,
    tag: Tag,
    purpose: Purpose,
    /// None where the session's rule has no limits: one branch a read, and nothing else.
    bounds: Option<Arc<Bounds>>,
    unrecorded_commit: UnrecordedCommit,
}

#[derive(Debug)]
struct Shared {
    tracker: Tracker,
    recorder: Recorder,
    /// Set when the session is being ended: no further byte of the client leaves.
    closed: bool,
    /// The client's connection has broken.
    client_gone: bool,
    mid_frame: MidFrame,
    /// Since when a transaction is open in which nothing happens.
    idle_since: Option<Instant>,
    /// A message of the client waits for its turn.
    waits: bool,
    bytes_in: u64,
    bytes_out: u64,
}

/// Where a message of the client is in two parts.
#[derive(Debug, Clone, Copy, Default)]
struct MidFrame {
    /// The client has sent a part.
    client: bool,
    /// The server has a part.
    server: bool,
}

impl Relay {
    /// A relay for a session that has just logged in; `gate` is what its cancels hold.
    pub fn new(tag: Tag, recorder: Recorder, gate: Arc<CancelGate>) -> Self {
        let shared = Shared {
            tracker: Tracker::new(),
            recorder,
            closed: false,
            client_gone: false,
            mid_frame: MidFrame::default(),
            idle_since: None,
            waits: false,
            bytes_in: 0,
            bytes_out: 0,
        };
        let flag = || AtomicBool::new(false);
        Self {
            shared: Mutex::new(shared),
            progress: Notify::new(),
            writing: flag(),
            handed_in: flag(),
            paused: flag(),
            unconfirmed: flag(),
            gate,
            tag,
            purpose: Purpose::Statements,
            bounds: None,
            unrecorded_commit: UnrecordedCommit::default(),
        }
    }

    /// The same for a session of this purpose.
    #[must_use]
    pub fn serving(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// The same within these bounds.
    #[must_use]
    pub fn within(self, bounds: Option<Bounds>) -> Self {
        Self { bounds: bounds.map(Arc::new), ..self }
    }

    /// The same under a rule that says this of a COMMIT that cannot be recorded.
    #[must_use]
    pub fn committing(self, unrecorded_commit: UnrecordedCommit) -> Self {
        Self { unrecorded_commit, ..self }
    }

    /// Runs until either side closes, breaks the protocol, or the process wishes an end. Then nothing of the session
    /// runs on the server any more, as far as a cancel reaches, and the log has every end line or is owed it.
    pub fn run<C, S, H>(
        self,
        client: C,
        server: S,
        wish: watch::Receiver<Wish>,
        host: &H,
    ) -> impl Future<Output = Summary>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
        H: Host,
    {
        // Before the future, which would keep room for what it is given beside what it makes of it, as long as it lives.
        Box::new(self).relay(tokio::io::split(client), tokio::io::split(server), wish, host)
    }

    async fn relay<C, S, H>(
        self: Box<Self>,
        (mut client_read, client_write): (ReadHalf<C>, WriteHalf<C>),
        (server_read, mut server_write): (ReadHalf<S>, WriteHalf<S>),
        mut wish: watch::Receiver<Wish>,
        host: &H,
    ) -> Summary
    where
        C: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
        H: Host,
    {
        let mut down = Down::new(self.tag.clone(), server_read, client_write);
        let ending = {
            let mut up = pin!(self.upstream_until_broken(&mut client_read, &mut server_write, host));
            let mut answers = pin!(self.downstream(&mut down, &mut wish, host));
            let behind_begins = pin!(poll_fn(|context| self.poll_answers(answers.as_mut(), context)));
            match first(behind_begins, up.as_mut()).await {
                First::One(ending) => ending.unwrap_or(Ending::Client),
                First::Other(ending) => {
                    // A write to the client must not be cut: it pauses when it is done, or has waited for too long.
                    self.paused.store(true, Ordering::Relaxed);
                    answers.await;
                    ending
                }
            }
        };
        let fatal = down.fatal().map(str::to_owned);
        Box::pin(self.wind_down(&ending, &mut down, &mut server_write, &mut wish, host)).await;
        if let Some(frame) = host.farewell(&ending) {
            Box::pin(down.say(&frame)).await;
        }
        Box::pin(self.goodbye(&mut client_read, &mut server_write, &mut down)).await;
        // Whose last word came first has ended the session.
        let ending = match (ending, fatal) {
            (Ending::Client, Some(fatal)) => Ending::Server { fatal: Some(fatal) },
            (ending, _) => ending,
        };
        let fatal = down.fatal().map(str::to_owned);
        Summary { fatal, ..self.summary(ending, down.is_server_closed(), host) }
    }

    /// A session whose cancel the server leaves open ends, whether its client waits at the gate or says nothing.
    async fn upstream_until_broken<R, W, H>(
        &self,
        client: &mut ReadHalf<R>,
        server: &mut WriteHalf<W>,
        host: &H,
    ) -> Ending
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
        H: Host,
    {
        let mut upstream = pin!(self.upstream(client, server, host));
        let mut broken = pin!(self.gate.broken());
        poll_fn(|context| match upstream.as_mut().poll(context) {
            // It has seen to it that both are polled again.
            Poll::Pending if self.is_handed_in() => Poll::Pending,
            Poll::Pending => broken.as_mut().poll(context).map(|()| Ending::CancelUnanswered),
            ended @ Poll::Ready(_) => ended,
        })
        .await
    }

    /// Polls the server's direction, unless the client's records are handed in: the log has behind them what comes of it.
    fn poll_answers<F: Future>(&self, answers: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.is_handed_in() {
            // The client's direction goes on by itself, and soon.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        answers.poll(context)
    }

    fn is_handed_in(&self) -> bool {
        self.handed_in.load(Ordering::Relaxed)
    }

    async fn upstream<R, W, H>(&self, client: &mut ReadHalf<R>, server: &mut WriteHalf<W>, host: &H) -> Ending
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
        H: Host,
    {
        let side = ClientSide::new(self.tag.clone()).serving(self.purpose).within(self.bounds.clone());
        let mut side = side.committing(self.unrecorded_commit);
        let mut input = Input::new();
        let mut output = Output::default();
        loop {
            let (taken, stop) = match self.take_client(&mut side, &input.buffer, &mut output, host).await {
                Ok(taken) => taken,
                Err(Overdue) => return Ending::Unrecorded,
            };
            if side.has_recorded() {
                let taken = input.buffer.get(..taken).unwrap_or_default();
                self.confirm(&mut side, taken, &mut output, host).await;
            }
            if side.must_end() {
                return Ending::Unrecorded;
            }
            self.writing.store(true, Ordering::Relaxed);
            if output.write_to(&input.buffer, server).await.is_err() {
                // The server's direction sees why; wait for it there.
                return std::future::pending().await;
            }
            self.writing.store(false, Ordering::Relaxed);
            consume(&mut input.buffer, taken);
            let goes_on = match stop {
                Stop::Violated(violation) => return Ending::Violated(violation),
                _ if side.is_terminated() => return Ending::Client,
                // Boxed, like all that is seldom waited for: a session would have room for the largest as long as it lives.
                Stop::Answers => Box::pin(input.until(self.progress.notified(), client, LINGER)).await,
                // It opens in time, or breaks.
                Stop::Held => Box::pin(input.until(self.gate.opened(), client, Duration::MAX)).await,
                Stop::Wait(turn) => {
                    host.waits(turn.limit);
                    let mut withdrawn = false;
                    let come = async { withdrawn = self.gate.turn(turn.at).await };
                    let goes_on = Box::pin(input.until(come, client, Duration::MAX)).await;
                    if withdrawn {
                        side.withdraw();
                    }
                    goes_on
                }
                Stop::Commit => continue,
                Stop::Input => input.more(client).await,
            };
            match goes_on {
                Ok(true) => {}
                Ok(false) => {
                    let _ = server.shutdown().await;
                    return Ending::Client;
                }
                Err(_) => {
                    self.lock().client_gone = true;
                    return Ending::Client;
                }
            }
        }
    }

    /// Works through what the client sent and commits its begin lines, before anything is written. What the log does
    /// not take is refused.
    async fn take_client(
        &self,
        side: &mut ClientSide,
        input: &[u8],
        output: &mut Output,
        host: &impl Host,
    ) -> Result<(usize, Stop), Overdue> {
        let (processed, since) = {
            let shared = &mut *self.lock();
            if shared.closed {
                return Ok((0, Stop::Answers));
            }
            let since = shared.tracker.mark().event;
            let passed = self.gate.pass(|| {
                let processed = side.process(input, &mut shared.tracker, &mut shared.recorder, output);
                (processed, shared.tracker.outstanding())
            });
            let Some(processed) = passed else {
                // Its next message is there: who waits for a cancel's end is not idle.
                (shared.waits, shared.idle_since) = (true, None);
                return Ok((0, Stop::Held));
            };
            self.handed_in.store(shared.recorder.join_group(), Ordering::Relaxed);
            (processed, since)
        };
        if self.is_handed_in() {
            others_first().await;
            self.handed_in.store(false, Ordering::Relaxed);
        }
        self.commit_client(side, (input, processed), since, output, host)
    }

    /// Commits the begin lines of what was taken, from this event on.
    fn commit_client(
        &self,
        side: &mut ClientSide,
        (input, (taken, stop)): (&[u8], (usize, Stop)),
        since: u64,
        output: &mut Output,
        host: &impl Host,
    ) -> Result<(usize, Stop), Overdue> {
        let shared = &mut *self.lock();
        let owed = self.record(shared, since, side.urgency(), host);
        if !owed.has_begins() {
            let dealt_with = input.get(..taken).unwrap_or_default();
            side.refuse(dealt_with, &mut shared.tracker, &mut shared.recorder, output);
        }
        shared.tell_missed(side, host);
        shared.bytes_in = shared.bytes_in.saturating_add(taken as u64);
        if let Some(bounds) = &self.bounds {
            bounds.count(taken);
            shared.waits = matches!(stop, Stop::Wait(_));
            shared.idle_since = shared.idle_since.filter(|_| taken == 0);
            shared.note_idle();
        }
        let client = side.is_mid_frame() || taken < input.len();
        shared.mid_frame = MidFrame { client, server: side.has_left_in_part() };
        if owed.is_overdue() || side.must_end() { Err(Overdue) } else { Ok((taken, stop)) }
    }

    /// Waits until the records of what was taken outlive what the rule says: nothing leaves before. Where the disk does not
    /// confirm them it is refused; that it was, the records say themselves, so there is no gap.
    async fn confirm(&self, side: &mut ClientSide, taken: &[u8], output: &mut Output, host: &impl Host) {
        let Some(durable) = self.lock().recorder.durable() else { return };
        let confirmed = durable.await.is_ok();
        let unconfirmed = self.unconfirmed.swap(!confirmed, Ordering::Relaxed);
        if confirmed {
            if unconfirmed {
                host.recorded_again();
            }
            return;
        }
        let mut shared = self.lock();
        side.refuse_unconfirmed(taken, &mut shared.tracker, output);
        host.unrecorded();
        shared.tell_missed(side, host);
        shared.mid_frame.server = side.has_left_in_part();
    }

    /// Says goodbye to both sides, as far as they still listen, and lets them close first.
    async fn goodbye<C, S, D>(&self, client: &mut ReadHalf<C>, server: &mut WriteHalf<S>, down: &mut Down<D, C>)
    where
        C: AsyncRead + AsyncWrite,
        S: AsyncWrite,
        D: AsyncRead,
    {
        let polite = {
            let shared = self.lock();
            !shared.tracker.is_busy() && !shared.mid_frame.server && !self.writing.load(Ordering::Relaxed)
        };
        let _ = timeout(FAREWELL, async {
            if polite {
                let _ = server.write_all(b"X\0\0\0\x04").await;
            }
            let _ = server.shutdown().await;
            down.close(client).await;
        })
        .await;
    }

    fn summary(self: Box<Self>, ending: Ending, server_closed: bool, host: &impl Host) -> Summary {
        // From here on nothing is left that a client's cancel could mean.
        self.gate.settle(None);
        let mut shared = self.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        let busy = shared.tracker.is_busy() && !server_closed;
        shared.tracker.finish(std::time::Instant::now());
        let bounds = self.bounds;
        shared.record(u64::MAX, Urgency::Normal, host);
        if let Some(bounds) = bounds {
            bounds.count_records(shared.recorder.take_written());
        }
        let Shared { recorder, bytes_in, bytes_out, .. } = shared;
        Summary { ending, fatal: None, busy, bytes_in, bytes_out, recorder }
    }

    /// Writes what is ready; what that takes is counted on the caller's meter.
    fn record(&self, shared: &mut Shared, begun: u64, urgency: Urgency, host: &impl Host) -> Log {
        let log = shared.record(begun, urgency, host);
        if let Some(bounds) = &self.bounds {
            bounds.count_records(shared.recorder.take_written());
        }
        log
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Ready once the server's direction is to stop. Nobody is woken for it: both directions are one task, and who pauses
    /// it polls it next.
    async fn paused(&self) {
        poll_fn(|_| if self.is_paused() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready when every task that is ready now has had its turn. (`tokio::task::yield_now` waits for the sockets, too: one more
/// `epoll_wait(2)` where nobody else is ready.)
async fn others_first() {
    let mut waited = false;
    poll_fn(|context| {
        if replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Shared {
    /// Counts what of the last read did not go its ordinary way.
    fn tell_missed(&mut self, side: &mut ClientSide, host: &impl Host) {
        let missed = side.take_missed();
        let over = missed.refused.get(&Refusal::Records).copied().unwrap_or_default();
        let refused = missed.refused.values().sum::<u64>().saturating_sub(over);
        self.recorder.missed(refused, missed.passed, missed.commits);
        self.recorder.limited(over, missed.over, missed.over_commits);
        for (refusal, count) in missed.refused {
            host.refused(refusal, count);
        }
        let passed = missed.passed.saturating_add(missed.over);
        if passed > 0 {
            host.passed_unrecorded(passed);
        }
    }

    /// Whether a transaction is idle, from now on if it was not before. It is not while a message of the client waits.
    fn note_idle(&mut self) {
        let idle = !self.waits && self.tracker.is_idle_in_transaction();
        self.idle_since = idle.then(|| self.idle_since.unwrap_or_else(Instant::now));
    }
}

#[cfg(test)]
mod tests;

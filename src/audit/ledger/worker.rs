//! The threads behind the data path.

use super::anchor::Anchor;
use super::checkpoint;
use super::retention::{self, Progress, Retainer};
use super::sealer::{self, Sealer};
use super::sink::Sink;
use super::{Durable, Shared};
use crate::http::chain;
use crate::time::{Clock, Timestamp};
use rustix::process::nice;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long records may wait to be synced, and synced ones to be signed.
pub const EVERY: Duration = Duration::from_secs(1);
/// By how much the priority of what works behind the path is lower (`nice(2)`). Linux gives it a third of what it gives to
/// each that serves, where the processors are busy (`sched_prio_to_weight`, `kernel/sched/core.c`: 335 to 1024).
const BEHIND: i32 = 5;
/// How long an anchor that takes nothing is left alone, at most; the first time a second, then twice as long each time.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How often it is told that an anchor still takes nothing.
const REMIND_EVERY: Duration = Duration::from_secs(600);

/// Wakes a thread: rung, or ended for good.
#[derive(Debug, Default)]
pub struct Bell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    ended: bool,
}

impl Bell {
    /// Wakes the thread, now or when it next listens.
    pub fn ring(&self) {
        let mut state = lock(&self.state);
        if !state.rung {
            state.rung = true;
            self.changed.notify_one();
        }
    }

    /// Wakes the thread for the last time.
    pub fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }

    /// Waits until it is rung, or for `most`; `false` once it has ended.
    fn listen(&self, most: Duration) -> bool {
        let waiting = |state: &mut State| !state.rung && !state.ended;
        let waited = self.changed.wait_timeout_while(lock(&self.state), most, waiting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.rung = false;
        !state.ended
    }
}

/// No holder of these locks leaves a half-made state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One anchor, as the other threads see it.
#[derive(Debug)]
pub struct Slot {
    newest: Mutex<Option<Vec<u8>>>,
    bell: Bell,
    state: Mutex<Anchored>,
}

/// How far an anchor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchored {
    /// What people call it.
    pub name: String,
    /// It has a checkpoint that covers the records before this index.
    pub before: u64,
    /// Since when it has taken nothing.
    pub failing_since: Option<Timestamp>,
    /// It has another log's checkpoints under this one's name: this one was rolled back or forked.
    pub is_another_log: bool,
}

impl Slot {
    fn of(anchor: &dyn Anchor) -> Arc<Self> {
        let state = Mutex::new(Anchored { name: anchor.name(), before: 0, failing_since: None, is_another_log: false });
        Arc::new(Self { newest: Mutex::default(), bell: Bell::default(), state })
    }

    /// How far the anchor is.
    pub fn anchored(&self) -> Anchored {
        lock(&self.state).clone()
    }
}

/// One sink, as the other threads see it.
#[derive(Debug)]
pub struct Feed {
    bell: Bell,
    /// Records before this index were delivered.
    delivered: AtomicU64,
}

/// What reads the log behind its writer.
#[derive(Debug, Default)]
pub struct Behind {
    /// Checkpoints go there.
    pub anchors: Vec<Box<dyn Anchor>>,
    /// Records go there.
    pub sinks: Vec<Sink>,
    /// Deletes old segments.
    pub retention: Option<retention::Retention>,
}

/// Everything that runs behind the data path.
#[derive(Debug)]
pub struct Running {
    /// Joined when the log is closed.
    pub threads: Vec<JoinHandle<()>>,
    /// The anchors.
    pub slots: Vec<Arc<Slot>>,
}

/// Starts the thread that syncs, the one that makes the tree and signs it, and one for each anchor and each sink, and for retention.
pub fn start(shared: &Arc<Shared>, sealer: Sealer, retainer: Option<Retainer>, behind: Behind) -> io::Result<Running> {
    let Behind { anchors, sinks, .. } = behind;
    let slots: Vec<Arc<Slot>> = anchors.iter().map(|anchor| Slot::of(&**anchor)).collect();
    let mut threads = Vec::new();
    for (anchor, slot) in anchors.into_iter().zip(slots.clone()) {
        let clock = shared.clock.clone();
        threads.push(spawn_behind("audit-anchor", move || publish(anchor, &slot, &clock))?);
    }
    let mut feeds = Vec::new();
    for sink in sinks {
        let delivered = AtomicU64::new(sink.delivered());
        let feed = Arc::new(Feed { bell: Bell::default(), delivered });
        let (own, shared) = (Arc::clone(&feed), Arc::clone(shared));
        threads.push(spawn_behind("audit-sink", move || deliver(&shared, sink, &own))?);
        feeds.push(feed);
    }
    let bell = Arc::new(Bell::default());
    if let Some(retainer) = retainer {
        let (own, slots, feeds, bell) = (Arc::clone(shared), slots.clone(), feeds.clone(), Arc::clone(&bell));
        threads.push(spawn("audit-retain", move || retain(&own, retainer, (&slots, &feeds), &bell))?);
    }
    let (own, anchors) = (Arc::clone(shared), slots.clone());
    threads.push(spawn_behind("audit-seal", move || seal(&own, sealer, &anchors))?);
    let own = Arc::clone(shared);
    threads.push(spawn("audit-sync", move || sync(&own, &feeds, &bell))?);
    Ok(Running { threads, slots })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(work)
}

/// For what no session waits for, nor for a lock that it holds over work: where the processors are busy, those who serve have
/// more of them. (A thread's own on Linux: `nice(2)`, "C library/kernel differences"; where that is refused it works as all
/// do.)
fn spawn_behind(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    spawn(name, || {
        let _ = nice(BEHIND);
        work();
    })
}

/// Syncs until the end, once more at the end, then ends the next threads.
fn sync(shared: &Shared, feeds: &[Arc<Feed>], retention: &Bell) {
    loop {
        let more = shared.sync_bell.listen(EVERY);
        let more_is_durable = sync_once(shared);
        if more_is_durable {
            shared.seal_bell.ring();
            for feed in feeds {
                feed.bell.ring();
            }
        }
        if !more {
            retention.end();
            shared.seal_bell.end();
            for feed in feeds {
                feed.bell.end();
            }
            return;
        }
    }
}

/// Delivers what is durable. A target that takes nothing is tried again every second, and told of once.
fn deliver(shared: &Shared, mut sink: Sink, feed: &Feed) {
    let mut late = false;
    loop {
        let more = feed.bell.listen(EVERY);
        let until = shared.durable.borrow().next;
        match sink.deliver(until) {
            Ok(()) if late => tracing::info!(sink = sink.name(), "takes the audit log's records again"),
            Err(error) if !late => {
                tracing::error!(sink = sink.name(), error = %chain(&error), "takes no records; the audit log keeps them");
            }
            _ => {}
        }
        feed.delivered.store(sink.delivered(), Ordering::Relaxed);
        late = sink.delivered() < until;
        if !more {
            return;
        }
    }
}

/// Whether more is durable than before.
pub(super) fn sync_once(shared: &Shared) -> bool {
    let unsynced = shared.writer().take_unsynced();
    let synced = unsynced.file.map_or(Ok(()), |file| file.sync());
    if let Err(error) = &synced {
        tracing::error!(%error, before = unsynced.next, "the audit log's disk failed; the segment is ended");
        shared.writer().sync_failed(unsynced.segment);
    }
    let failed = unsynced.doubtful || synced.is_err();
    shared.durable.send_if_modified(|durable| {
        let changed = durable.next != unsynced.next || failed;
        let doubtful = if failed { unsynced.next } else { durable.doubtful };
        *durable = Durable { next: unsynced.next, doubtful };
        changed
    })
}

fn seal(shared: &Shared, mut sealer: Sealer, slots: &[Arc<Slot>]) {
    loop {
        let more = shared.seal_bell.listen(EVERY);
        match seal_once(shared, &mut sealer) {
            Ok(None) => {}
            Ok(Some(note)) => {
                shared.sealed.send_replace(sealer.sealed());
                for slot in slots {
                    *lock(&slot.newest) = Some(note.clone());
                    slot.bell.ring();
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "no checkpoint; records are kept, and are not proved yet");
            }
        }
        if !more {
            for slot in slots {
                slot.bell.end();
            }
            return;
        }
    }
}

/// The next checkpoint, if there is more to cover.
pub(super) fn seal_once(shared: &Shared, sealer: &mut Sealer) -> Result<Option<Vec<u8>>, sealer::Error> {
    let until = signable(shared);
    // The writer is free again before anything is sealed.
    let new = shared.writer().take_leaves();
    sealer.seal(until, new)
}

/// Records before this index can be signed. None more while the last sync has failed: what the disk forgets would be
/// missed at the next start.
fn signable(shared: &Shared) -> u64 {
    let durable = *shared.durable.borrow();
    if durable.doubtful < durable.next { durable.next } else { 0 }
}

/// Hands over the newest checkpoint, at the anchor's own pace. One that was not taken is tried again, or its successor.
fn publish(mut anchor: Box<dyn Anchor>, slot: &Slot, clock: &Clock) {
    let mut next = Instant::now();
    let mut failed = Failed::default();
    loop {
        let more = slot.bell.listen(EVERY);
        let newest = if more && Instant::now() < next { None } else { lock(&slot.newest).take() };
        if let Some(note) = newest {
            let pause = match anchor.publish(&note) {
                Ok(()) => {
                    let mut state = lock(&slot.state);
                    state.before = state.before.max(checkpoint::size_of(&note).unwrap_or_default());
                    if let Some(since) = state.failing_since.take() {
                        tracing::info!(anchor = state.name, %since, "takes the audit log's checkpoints again");
                    }
                    state.is_another_log = false;
                    failed = Failed::default();
                    anchor.pause()
                }
                Err(error) => {
                    lock(&slot.newest).get_or_insert(note);
                    let mut state = lock(&slot.state);
                    state.is_another_log = error.is_another_log();
                    let since = *state.failing_since.get_or_insert_with(|| clock.now());
                    drop(state);
                    failed.tell(&anchor.name(), since, &chain(&error))
                }
            };
            next = Instant::now().checked_add(pause).unwrap_or(next);
        }
        if !more {
            return;
        }
    }
}

/// An anchor that takes nothing.
#[derive(Debug, Default)]
struct Failed {
    pause: Duration,
    told: Option<(Instant, String)>,
}

impl Failed {
    /// Says why, once and now and then; how long the anchor is left alone.
    fn tell(&mut self, anchor: &str, since: Timestamp, why: &str) -> Duration {
        let known = self.told.as_ref().is_some_and(|(at, told)| at.elapsed() < REMIND_EVERY && told == why);
        if !known {
            tracing::error!(anchor, %since, why, "takes no checkpoint: what is recorded since is not anchored there");
            self.told = Some((Instant::now(), why.to_owned()));
        }
        self.pause = self.pause.saturating_mul(2).clamp(EVERY, MAX_PAUSE);
        self.pause
    }
}

/// Deletes old segments, a step a second. What goes wrong is told once.
fn retain(shared: &Shared, mut retainer: Retainer, (slots, feeds): (&[Arc<Slot>], &[Arc<Feed>]), bell: &Bell) {
    let mut failing = false;
    while bell.listen(EVERY) {
        let anchored = slots.iter().map(|slot| lock(&slot.state).before).min().unwrap_or_default();
        let delivered = feeds.iter().map(|feed| feed.delivered.load(Ordering::Relaxed)).min();
        let progress = Progress { anchored, delivered: delivered.unwrap_or(u64::MAX) };
        let done = retainer.step(progress, |frame| retention::append(&mut shared.writer(), frame));
        if let (Err(error), false) = (&done, failing) {
            tracing::error!(error = %chain(error), "old segments of the audit log are not deleted yet");
        }
        failing = done.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::super::medium::Disk;
    use super::super::testing;
    use super::*;
    use std::fs::read_to_string;

    /// Threads of this process by name, and how nice each is (`proc_pid_stat(5)`, field 19).
    fn threads() -> Vec<(String, i32)> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let stat = |task: std::fs::DirEntry| read_to_string(task.path().join("stat")).ok();
        // One that has ended meanwhile is none.
        let stats = tasks.filter_map(|task| stat(task.ok()?));
        let thread = |stat: String| {
            let (name, fields) = stat.rsplit_once(')').unwrap();
            let (_, name) = name.split_once('(').unwrap();
            (name.to_owned(), fields.split_whitespace().nth(16).unwrap().parse().unwrap())
        };
        stats.map(thread).collect()
    }

    #[test]
    fn what_signs_comes_after_those_who_serve_and_what_syncs_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (_ledger, _) = testing::open(super::super::Settings::new(folder.path().to_owned()), Disk).unwrap();
        let serving = threads().into_iter().map(|(_, nice)| nice).min().unwrap();
        let begun = Instant::now();
        // Other tests have logs of their own, whose threads may only be beginning.
        loop {
            let of =
                |name: &str| threads().into_iter().filter(|own| own.0 == name).map(|own| own.1).collect::<Vec<_>>();
            let (seal, sync) = (of("audit-seal"), of("audit-sync"));
            assert!(sync.iter().all(|nice| *nice == serving), "{sync:?}");
            if !sync.is_empty() && !seal.is_empty() && seal.iter().all(|nice| *nice == (serving + BEHIND).min(19)) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{seal:?} {sync:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

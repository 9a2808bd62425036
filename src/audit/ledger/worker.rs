//! The threads behind the data path.

use super::anchor::Anchor;
use super::sealer::Sealer;
use super::sink::Sink;
use super::{Durable, Shared};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// How long records may wait to be synced, and synced ones to be signed.
pub const EVERY: Duration = Duration::from_secs(1);

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
        let mut state = self.lock();
        if !state.rung {
            state.rung = true;
            self.changed.notify_one();
        }
    }

    /// Wakes the thread for the last time.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until it is rung, or for `most`; `false` once it has ended.
    fn listen(&self, most: Duration) -> bool {
        let waiting = |state: &mut State| !state.rung && !state.ended;
        let waited = self.changed.wait_timeout_while(self.lock(), most, waiting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.rung = false;
        !state.ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest checkpoint for one anchor.
#[derive(Debug, Default)]
struct Slot {
    newest: Mutex<Option<Vec<u8>>>,
    bell: Bell,
}

/// What reads the log behind its writer.
#[derive(Debug, Default)]
pub struct Behind {
    /// Checkpoints go there.
    pub anchors: Vec<Box<dyn Anchor>>,
    /// Records go there.
    pub sinks: Vec<Sink>,
}

/// Starts the thread that syncs, the one that hashes and signs, and one for each anchor and each sink.
pub fn start(shared: &Arc<Shared>, sealer: Sealer, behind: Behind) -> io::Result<Vec<JoinHandle<()>>> {
    let Behind { anchors, sinks } = behind;
    let slots: Vec<Arc<Slot>> = anchors.iter().map(|_| Arc::default()).collect();
    let mut threads = Vec::new();
    for (anchor, slot) in anchors.into_iter().zip(slots.clone()) {
        threads.push(Builder::new().name("audit-anchor".to_owned()).spawn(move || publish(anchor, &slot))?);
    }
    let mut bells = Vec::new();
    for sink in sinks {
        let (own, bell) = (Arc::clone(shared), Arc::new(Bell::default()));
        bells.push(Arc::clone(&bell));
        threads.push(Builder::new().name("audit-sink".to_owned()).spawn(move || feed(&own, sink, &bell))?);
    }
    let own = Arc::clone(shared);
    threads.push(Builder::new().name("audit-seal".to_owned()).spawn(move || seal(&own, sealer, &slots))?);
    let own = Arc::clone(shared);
    threads.push(Builder::new().name("audit-sync".to_owned()).spawn(move || sync(&own, &bells))?);
    Ok(threads)
}

/// Syncs until the end, once more at the end, then ends the next threads.
fn sync(shared: &Shared, sinks: &[Arc<Bell>]) {
    loop {
        let more = shared.sync_bell.listen(EVERY);
        let more_is_durable = sync_once(shared);
        if more_is_durable {
            shared.seal_bell.ring();
            for bell in sinks {
                bell.ring();
            }
        }
        if !more {
            shared.seal_bell.end();
            for bell in sinks {
                bell.end();
            }
            return;
        }
    }
}

/// Delivers what is durable. A target that takes nothing is tried again every second, and told of once.
fn feed(shared: &Shared, mut sink: Sink, bell: &Bell) {
    let mut late = false;
    loop {
        let more = bell.listen(EVERY);
        let until = shared.durable.borrow().next;
        match sink.deliver(until) {
            Ok(()) if late => tracing::info!(sink = sink.name(), "takes the audit log's records again"),
            Err(error) if !late => {
                tracing::error!(sink = sink.name(), error = %crate::http::chain(&error), "takes no records; the audit log keeps them");
            }
            _ => {}
        }
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
        match sealer.seal(signable(shared)) {
            Ok(None) => {}
            Ok(Some(note)) => {
                shared.sealed.send_replace(sealer.sealed());
                for slot in slots {
                    *slot.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(note.clone());
                    slot.bell.ring();
                }
            }
            Err(error) => tracing::error!(%error, "no checkpoint; records are kept, and are not proved yet"),
        }
        if !more {
            for slot in slots {
                slot.bell.end();
            }
            return;
        }
    }
}

/// Records before this index can be signed. None more while the last sync has failed: what the disk forgets would be
/// missed at the next start.
pub(super) fn signable(shared: &Shared) -> u64 {
    let durable = *shared.durable.borrow();
    if durable.doubtful < durable.next { durable.next } else { 0 }
}

fn publish(mut anchor: Box<dyn Anchor>, slot: &Slot) {
    loop {
        let more = slot.bell.listen(EVERY);
        let newest = slot.newest.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(note) = newest
            && let Err(error) = anchor.publish(&note)
        {
            tracing::warn!(anchor = anchor.name(), %error, "the checkpoint was not anchored");
            let mut newest = slot.newest.lock().unwrap_or_else(PoisonError::into_inner);
            newest.get_or_insert(note);
        }
        if !more {
            return;
        }
    }
}

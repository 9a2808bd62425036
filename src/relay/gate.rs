//! Holds a client's bytes back while a cancel of its session is on its way.
//!
//! A cancel names a process, not a statement: PostgreSQL signals that process, whatever it runs by then
//! (`processCancelRequest`, `src/backend/postmaster/postmaster.c`). A statement that the client sent after its cancel
//! must not be hit, so from the instant at which a cancel arrives until the server has closed the cancel's connection
//! no byte of the client passes; what has passed leaves as soon as the log has it. By that close the signal has been
//! sent, and it is dealt with before the server reads on: what waits for a command drops it (`ProcessInterrupts` with
//! `DoingCommandRead`, called after each read and before the command runs, `src/backend/tcop/postgres.c`).
//!
//! Not for: finding the session, dialling, deadlines (`session`).

use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// One session's gate: its relay passes the client's bytes through it, its cancels hold it shut.
#[derive(Debug)]
pub struct CancelGate {
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Cancels on their way.
    holds: usize,
    /// What the server works on, by number; `None` when it owes nothing.
    outstanding: Option<u64>,
    /// Nobody can tell what a cancel may still hit.
    broken: bool,
    /// The client's next message waits for a limit.
    waiting: bool,
    /// A cancel came meanwhile, for it.
    withdrawn: bool,
}

/// A cancel on its way: no byte of the client leaves until this is dropped. Dropped between [`Hold::sending`] and
/// [`Hold::closed`], it ends the session instead: the signal may still come, and would hit what is sent then.
#[derive(Debug)]
pub struct Hold {
    gate: Arc<CancelGate>,
    work: u64,
    /// The server may have the request and has not closed yet.
    sent: bool,
}

impl Default for CancelGate {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::default()) }
    }
}

impl CancelGate {
    /// Shuts the gate for a cancel that has just arrived; `None`, and it stays as it is, when nothing runs.
    ///
    /// What counts as running is all that the server will answer before its next `ReadyForQuery`: it tells no earlier
    /// how far it is, so that of several statements before one Sync nobody can say which one runs.
    pub fn hold(self: &Arc<Self>) -> Option<Hold> {
        let mut work = None;
        self.state.send_if_modified(|state| {
            work = state.outstanding;
            state.holds = state.holds.saturating_add(usize::from(work.is_some()));
            false
        });
        work.map(|work| Hold { gate: Arc::clone(self), work, sent: false })
    }

    /// Lets the relay take bytes of the client, unless the gate is shut. `take` says what the server works on
    /// afterwards; no cancel arrives while it runs.
    pub(super) fn pass<T>(&self, take: impl FnOnce() -> (T, Option<u64>)) -> Option<T> {
        let mut taken = None;
        self.state.send_if_modified(|state| {
            if state.holds == 0 && !state.broken {
                let (result, outstanding) = take();
                state.outstanding = outstanding;
                taken = Some(result);
            }
            false
        });
        taken
    }

    /// Waits until the turn of the client's next message; whether a cancel came for it meanwhile, and ended the wait.
    pub(super) async fn turn(&self, at: Instant) -> bool {
        let waiting = |waiting: bool| {
            self.state.send_if_modified(|state| {
                (state.waiting, state.withdrawn) = (waiting, false);
                false
            });
        };
        waiting(true);
        let mut state = self.state.subscribe();
        let withdrawn = timeout_at(at, state.wait_for(|state| state.withdrawn)).await.is_ok_and(|state| state.is_ok());
        waiting(false);
        withdrawn
    }

    /// For a cancel of a session that runs nothing: whether a message of its client waits, which will be refused now.
    pub fn withdraw(&self) -> bool {
        let mut withdrawn = false;
        self.state.send_if_modified(|state| {
            withdrawn = state.waiting && state.outstanding.is_none();
            state.withdrawn |= withdrawn;
            withdrawn
        });
        withdrawn
    }

    /// The server has answered: what it works on now.
    pub(super) fn settle(&self, outstanding: Option<u64>) {
        self.state.send_if_modified(|state| {
            let changed = state.outstanding != outstanding;
            state.outstanding = outstanding;
            changed && state.holds > 0
        });
    }

    /// Waits until bytes may leave again; for ever, once the gate is broken.
    pub(super) async fn opened(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.holds == 0 && !state.broken).await;
    }

    /// Waits until the session must end, because a cancel was sent and the server has not said that it is through.
    pub(super) async fn broken(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.broken).await;
    }
}

impl Hold {
    /// Waits until what ran when the cancel arrived is over.
    pub async fn ended(&self) {
        let _ = self.gate.state.subscribe().wait_for(|state| state.outstanding != Some(self.work)).await;
    }

    /// The request is about to leave.
    pub fn sending(&mut self) {
        self.sent = true;
    }

    /// The server has closed the cancel's connection.
    pub fn closed(mut self) {
        self.sent = false;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.state.send_modify(|state| {
            state.holds = state.holds.saturating_sub(1);
            state.broken |= self.sent;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const WHILE: Duration = Duration::from_secs(3600);

    fn busy_with(work: u64) -> Arc<CancelGate> {
        let gate = Arc::new(CancelGate::default());
        assert_eq!(gate.pass(|| ((), Some(work))), Some(()));
        gate
    }

    #[test]
    fn nothing_holds_an_idle_session() {
        let gate = Arc::new(CancelGate::default());
        assert!(gate.hold().is_none());
        assert_eq!(gate.pass(|| ("taken", None)), Some("taken"));
    }

    #[tokio::test(start_paused = true)]
    async fn no_byte_passes_while_any_cancel_is_on_its_way() {
        let gate = busy_with(7);
        let (one, two) = (gate.hold().unwrap(), gate.hold().unwrap());
        for hold in [one, two] {
            assert_eq!(gate.pass(|| panic!("a byte has passed")), None::<()>);
            assert!(timeout(WHILE, gate.opened()).await.is_err());
            drop(hold);
        }
        assert!(timeout(WHILE, gate.opened()).await.is_ok());
        assert_eq!(gate.pass(|| ((), Some(8))), Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_means_what_ran_when_it_arrived_and_nothing_later() {
        let gate = busy_with(7);
        let hold = gate.hold().unwrap();
        gate.settle(Some(7));
        assert!(timeout(WHILE, hold.ended()).await.is_err());
        // The next one was sent ahead.
        gate.settle(Some(8));
        assert!(timeout(WHILE, hold.ended()).await.is_ok());
        let hold = gate.hold().unwrap();
        let (ended, ()) = tokio::join!(timeout(WHILE, hold.ended()), async { gate.settle(None) });
        assert!(ended.is_ok(), "who waits for the end is woken");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_its_turn_is_withdrawn_by_a_cancel_unless_something_runs() {
        let gate = Arc::new(CancelGate::default());
        let turn = |after| gate.turn(Instant::now() + after);
        assert!(!gate.withdraw(), "nothing waits");
        let (withdrawn, cancelled) = tokio::join!(turn(WHILE), async { gate.withdraw() });
        assert!(withdrawn && cancelled);
        let begun = Instant::now();
        assert!(!turn(WHILE).await, "a cancel is for what waits when it comes");
        assert_eq!(begun.elapsed(), WHILE);
        let busy = busy_with(7);
        let (withdrawn, cancelled) = tokio::join!(busy.turn(Instant::now() + WHILE), async { busy.withdraw() });
        assert!(!withdrawn && !cancelled, "it means what runs");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_whose_cancel_got_no_close_never_opens() {
        let gate = busy_with(7);
        assert!(timeout(WHILE, gate.broken()).await.is_err());
        let (mut sent, mut closed) = (gate.hold().unwrap(), gate.hold().unwrap());
        closed.sending();
        closed.closed();
        assert!(timeout(WHILE, gate.broken()).await.is_err());
        sent.sending();
        drop(sent);
        gate.settle(None);
        assert!(timeout(WHILE, gate.broken()).await.is_ok());
        assert!(timeout(WHILE, gate.opened()).await.is_err());
        assert_eq!(gate.pass(|| panic!("a byte has passed")), None::<()>);
    }
}

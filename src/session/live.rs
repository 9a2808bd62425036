//! The sessions that are there: whose they are, and how each is told to end.
//!
//! Every connection has an entry from its accept to its close, so that a process that leaves reaches all of them; what
//! is known of its caller is added once a rule has given the database. Each has a wish of its own, which only ever
//! becomes more urgent. A session is decided about again whenever the policy changes, and looked at every
//! [`LOOK_EVERY`]: whether what it rests on has expired, and whether it was told to end long enough ago.

mod judge;
mod keeper;

pub use judge::Judge;
pub use keeper::{LOOK_EVERY, keep_time};

use crate::frontend::Peer;
use crate::identity::{IdentityFacts, IssuerConfig};
use crate::names::SessionId;
use crate::policy::{Grant, Lifetime};
use crate::relay::{Cause, Wish};
use crate::time::{Timestamp, later};
use crate::wire::{Parameters, Purpose};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Every connection of the process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    entries: HashMap<SessionId, Entry>,
    /// What whoever comes from now on is told.
    everybody: Wish,
    /// By what a session is judged that was decided about by an earlier one.
    judge: Option<Arc<Judge>>,
}

#[derive(Debug)]
struct Entry {
    wish: watch::Sender<Wish>,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    live: Arc<Live>,
    lifetime: Lifetime,
    /// From when on it is not waited for.
    at_latest: Option<(Timestamp, Cause)>,
}

/// A session that a rule has given: what it takes to name it, and to decide about it again.
#[derive(Debug)]
pub struct Live {
    /// As records call it.
    pub session: SessionId,
    /// Who, as the token said at the login; with the groups that a directory told.
    pub caller: IdentityFacts,
    /// The issuer's section by which the token was judged.
    pub issuer: Arc<IssuerConfig>,
    /// Rule, database, database user, and when the token ends.
    pub grant: Arc<Grant>,
    /// Statements or replication.
    pub purpose: Purpose,
    /// What the client wanted to start with.
    pub parameters: Parameters,
    /// Where the client is.
    pub client: Peer,
    /// Since when.
    pub since: Timestamp,
}

/// How the sessions that are chosen are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Each when it is idle, and at the latest then.
    Drain(Timestamp),
    /// At once.
    Now,
}

/// One connection's entry; forgotten on drop.
#[derive(Debug)]
pub struct Presence {
    sessions: Sessions,
    session: SessionId,
    wish: watch::Sender<Wish>,
}

impl Sessions {
    /// One more connection, of which nothing is known yet.
    pub fn arrive(&self, session: SessionId) -> Presence {
        let mut shared = self.lock();
        let wish = watch::Sender::new(shared.everybody);
        shared.entries.insert(session, Entry { wish: wish.clone(), session: None });
        Presence { sessions: self.clone(), session, wish }
    }

    /// Every session that a rule has given, the oldest first.
    pub fn live(&self) -> Vec<Arc<Live>> {
        let shared = self.lock();
        let sessions = shared.entries.values().filter_map(|entry| entry.session.as_ref());
        let mut live: Vec<_> = sessions.map(|session| Arc::clone(&session.live)).collect();
        live.sort_by_key(|live| (live.since, live.session));
        live
    }

    /// Ends the sessions that are chosen; how many there are.
    pub fn end(&self, cause: Cause, ask: Ask, chosen: impl Fn(&Live) -> bool) -> usize {
        let mut shared = self.lock();
        let mut count = 0_usize;
        for entry in shared.entries.values_mut() {
            if entry.session.as_ref().is_some_and(|session| chosen(&session.live)) {
                entry.end(cause, ask);
                count = count.saturating_add(1);
            }
        }
        count
    }

    /// Tells every connection, those too that are only logging in or come later: the process is leaving.
    pub fn wish_everybody(&self, wish: Wish) {
        let mut shared = self.lock();
        shared.everybody.hasten(wish);
        for entry in shared.entries.values() {
            entry.hasten(wish);
        }
    }

    /// Ends whose time is up at `now`, or asks them to; how many were told something new.
    pub fn look(&self, now: Timestamp) -> usize {
        self.lock().entries.values().filter(|entry| entry.look(now)).count()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn hasten(&self, wish: Wish) -> bool {
        self.wish.send_if_modified(|current| current.hasten(wish))
    }

    fn end(&mut self, cause: Cause, ask: Ask) {
        match ask {
            Ask::Now => {
                self.hasten(Wish::Now(cause));
            }
            Ask::Drain(limit) => {
                self.hasten(Wish::WhenIdle(cause));
                let earlier = |session: &Session| session.at_latest.is_some_and(|(earlier, _)| earlier <= limit);
                if let Some(session) = self.session.as_mut().filter(|session| !earlier(session)) {
                    session.at_latest = Some((limit, cause));
                }
            }
        }
    }

    fn look(&self, now: Timestamp) -> bool {
        self.session.as_ref().and_then(|session| session.due(now)).is_some_and(|wish| self.hasten(wish))
    }
}

impl Live {
    /// Until when what the session rests on is good: the token's end, by the clock of an issuer that may be behind ours.
    pub fn good_until(&self) -> Timestamp {
        later(self.grant.expires_at(), self.issuer.leeway)
    }
}

impl Presence {
    /// Makes the session known, and judges it by what was loaded since it was granted; `granted_by` is what it was
    /// granted by. Whatever is to end it ends it from here on.
    pub fn given(&self, live: Live, granted_by: &Arc<Judge>, now: Timestamp) {
        let mut shared = self.sessions.lock();
        let judge = shared.judge.clone();
        let Some(entry) = shared.entries.get_mut(&self.session) else { return };
        let lifetime = live.grant.lifetime();
        entry.session = Some(Session { live: Arc::new(live), lifetime, at_latest: None });
        if let Some(judge) = judge.filter(|judge| !Arc::ptr_eq(judge, granted_by)) {
            entry.judge(&judge, now);
        }
        entry.look(now);
    }

    /// What is wished of this session, now and later.
    pub fn wish(&self) -> watch::Receiver<Wish> {
        self.wish.subscribe()
    }

    /// Waits until the session is to end, in whatever way. Cancel-safe.
    pub async fn to_end(&self) -> Cause {
        let mut wish = self.wish.subscribe();
        loop {
            if let Some(cause) = wish.borrow_and_update().cause() {
                return cause;
            }
            if wish.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.sessions.lock().entries.remove(&self.session);
    }
}

#[cfg(test)]
mod tests;

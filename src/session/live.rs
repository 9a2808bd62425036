//! The sessions that are there: whose they are, and how each is told to end.
//!
//! Every connection has an entry from its accept to its close, so that a process that leaves reaches all of them; what
//! is known of its caller is added once a rule has given the database. Each has a wish of its own, which only ever
//! becomes more urgent.

use crate::frontend::Peer;
use crate::identity::IdentityFacts;
use crate::names::SessionId;
use crate::policy::Grant;
use crate::relay::{Cause, Wish};
use crate::time::Timestamp;
use crate::wire::Purpose;
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
}

#[derive(Debug)]
struct Entry {
    wish: watch::Sender<Wish>,
    live: Option<Arc<Live>>,
}

/// A session that a rule has given: what it takes to name it, and to decide about it again.
#[derive(Debug)]
pub struct Live {
    /// As records call it.
    pub session: SessionId,
    /// Who, as the token said at the login; with the groups that a directory told.
    pub caller: IdentityFacts,
    /// Rule, database, database user, and when the token ends.
    pub grant: Arc<Grant>,
    /// Statements or replication.
    pub purpose: Purpose,
    /// Where the client is.
    pub client: Peer,
    /// Since when.
    pub since: Timestamp,
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
        shared.entries.insert(session, Entry { wish: wish.clone(), live: None });
        Presence { sessions: self.clone(), session, wish }
    }

    /// Every session that a rule has given, the oldest first.
    pub fn live(&self) -> Vec<Arc<Live>> {
        let mut live: Vec<_> = self.lock().entries.values().filter_map(|entry| entry.live.clone()).collect();
        live.sort_by_key(|live| (live.since, live.session));
        live
    }

    /// Tells the sessions that are chosen; how many had not been told as much before.
    pub fn wish(&self, wish: Wish, chosen: impl Fn(&Live) -> bool) -> usize {
        let shared = self.lock();
        let entries = shared.entries.values().filter(|entry| entry.live.as_deref().is_some_and(&chosen));
        entries.filter(|entry| entry.hasten(wish)).count()
    }

    /// Tells every connection, those too that are only logging in or come later: the process is leaving.
    pub fn wish_everybody(&self, wish: Wish) {
        let mut shared = self.lock();
        shared.everybody.hasten(wish);
        for entry in shared.entries.values() {
            entry.hasten(wish);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn hasten(&self, wish: Wish) -> bool {
        self.wish.send_if_modified(|current| current.hasten(wish))
    }
}

impl Presence {
    /// Makes the session known. Whatever is to end it ends it from here on.
    pub fn given(&self, live: Live) {
        if let Some(entry) = self.sessions.lock().entries.get_mut(&self.session) {
            entry.live = Some(Arc::new(live));
        }
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

//! How many sessions there are, in all and of each caller. Only callers whose token has verified are counted: a stranger
//! takes no session away.

use crate::identity::IdentityFacts;
use crate::names::{IssuerName, Tenant};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Issuer, tenant and object id.
type Key = (IssuerName, Tenant, String);

/// Counts sessions by identity. Callers without sessions are forgotten, so that there are never more entries than
/// sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Callers {
    counts: Arc<Mutex<Counts>>,
    sessions: usize,
    per_caller: usize,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    callers: HashMap<Key, usize>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// `limits.sessions`.
    #[error("all sessions are taken")]
    All,
    /// `limits.sessions_per_caller`.
    #[error("this caller has {0} sessions")]
    Caller(usize),
}

/// One session of a caller; given back on drop.
#[derive(Debug)]
pub struct Seat {
    counts: Arc<Mutex<Counts>>,
    key: Key,
}

impl Callers {
    /// At most so many sessions, in all and each.
    pub fn new(sessions: usize, per_caller: usize) -> Self {
        Self { counts: Arc::default(), sessions, per_caller }
    }

    /// The same sessions under other limits. Who is there stays.
    #[must_use]
    pub fn limited(&self, sessions: usize, per_caller: usize) -> Self {
        Self { counts: Arc::clone(&self.counts), sessions, per_caller }
    }

    /// Callers that have a session.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).callers.len()
    }

    /// One more session of this caller.
    pub fn enter(&self, caller: &IdentityFacts) -> Result<Seat, TooMany> {
        let key = (caller.issuer.clone(), caller.tenant.clone(), caller.object_id.clone());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.callers.get(&key).copied().unwrap_or_default();
        if count >= self.per_caller {
            return Err(TooMany::Caller(count));
        }
        if counts.all >= self.sessions {
            return Err(TooMany::All);
        }
        counts.all = counts.all.saturating_add(1);
        counts.callers.insert(key.clone(), count.saturating_add(1));
        Ok(Seat { counts: Arc::clone(&self.counts), key })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        if let Some(count) = counts.callers.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.callers.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::tag::testing::analyst;

    #[test]
    fn one_caller_cannot_take_another_ones_seat() {
        let callers = Callers::new(4, 1);
        let one = analyst();
        let seat = callers.enter(&one).unwrap();
        assert_eq!(callers.enter(&one).err(), Some(TooMany::Caller(1)));
        assert_eq!(
            callers.enter(&IdentityFacts { label: "another name".to_owned(), ..one.clone() }).err(),
            Some(TooMany::Caller(1))
        );
        // Object ids mean something within their issuer and tenant only.
        let others = [
            IdentityFacts { object_id: "b".to_owned(), ..one.clone() },
            IdentityFacts { tenant: Tenant::parse("other").unwrap(), ..one.clone() },
            IdentityFacts { issuer: IssuerName::parse("other").unwrap(), ..one.clone() },
        ];
        let seats: Vec<Seat> = others.iter().map(|other| callers.enter(other).unwrap()).collect();
        let fifth = IdentityFacts { object_id: "c".to_owned(), ..one.clone() };
        assert_eq!(callers.enter(&fifth).err(), Some(TooMany::All));
        let raised = callers.limited(5, 1).enter(&fifth).expect("one more is allowed, and counts with the others");
        assert_eq!(callers.limited(5, 2).enter(&fifth).err(), Some(TooMany::All));
        drop(raised);
        drop(seat);
        assert!(callers.enter(&one).is_ok());
        drop(seats);
        let counts = callers.counts.lock().unwrap();
        assert!(counts.all == 0 && counts.callers.is_empty());
    }
}

//! How many sessions each caller has.

use crate::identity::IdentityFacts;
use crate::names::{IssuerName, Tenant};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Issuer, tenant and object id.
type Key = (IssuerName, Tenant, String);

/// Counts sessions by identity. Callers without sessions are forgotten.
#[derive(Debug)]
pub struct Callers {
    counts: Arc<Mutex<HashMap<Key, usize>>>,
    limit: usize,
}

/// One session of a caller; given back on drop.
#[derive(Debug)]
pub struct Seat {
    counts: Arc<Mutex<HashMap<Key, usize>>>,
    key: Key,
}

impl Callers {
    /// At most `limit` sessions each.
    pub fn new(limit: usize) -> Self {
        Self { counts: Arc::default(), limit }
    }

    /// One more session of this caller, or how many it has already.
    pub fn enter(&self, caller: &IdentityFacts) -> Result<Seat, usize> {
        let key = (caller.issuer.clone(), caller.tenant.clone(), caller.object_id.clone());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&key).copied().unwrap_or_default();
        if count >= self.limit {
            return Err(count);
        }
        counts.insert(key.clone(), count.saturating_add(1));
        Ok(Seat { counts: Arc::clone(&self.counts), key })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.key);
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
        let callers = Callers::new(1);
        let one = analyst();
        let seat = callers.enter(&one).unwrap();
        assert_eq!(callers.enter(&one).err(), Some(1));
        assert_eq!(callers.enter(&IdentityFacts { label: "another name".to_owned(), ..one.clone() }).err(), Some(1));
        // Object ids mean something within their issuer and tenant only.
        let others = [
            IdentityFacts { object_id: "b".to_owned(), ..one.clone() },
            IdentityFacts { tenant: Tenant::parse("other").unwrap(), ..one.clone() },
            IdentityFacts { issuer: IssuerName::parse("other").unwrap(), ..one.clone() },
        ];
        let seats: Vec<Seat> = others.iter().map(|other| callers.enter(other).unwrap()).collect();
        drop(seat);
        assert!(callers.enter(&one).is_ok());
        drop(seats);
        assert!(callers.counts.lock().unwrap().is_empty());
    }
}

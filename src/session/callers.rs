//! How many sessions each caller has.

use crate::names::TenantId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

type Key = (TenantId, String);

/// Counts sessions by tenant and object id. Callers without sessions are forgotten.
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
    pub fn enter(&self, tenant: TenantId, object_id: &str) -> Result<Seat, usize> {
        let key = (tenant, object_id.to_owned());
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

    #[test]
    fn one_caller_cannot_take_another_ones_seat() {
        let callers = Callers::new(1);
        let tenant = TenantId::parse("6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91").unwrap();
        let seat = callers.enter(tenant, "a").unwrap();
        assert_eq!(callers.enter(tenant, "a").err(), Some(1));
        let other = callers.enter(tenant, "b");
        assert!(other.is_ok());
        drop(seat);
        assert!(callers.enter(tenant, "a").is_ok());
        drop(other);
        assert!(callers.counts.lock().unwrap().is_empty());
    }
}

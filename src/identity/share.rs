//! Whose something is: a caller as tables know one, and how much of a table one caller may have.
//!
//! Tokens are cheap for who may ask for them: without a share, one caller with thousands of different ones would push
//! everybody else's out of every table of tokens.

use super::IdentityFacts;
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// The most entries of a table of tokens that are one caller's. Software that runs in hundreds of places is one caller,
/// each place with a token of its own: past the share it costs a check or a call more, and nobody else anything.
pub const MAX_PER_CALLER: usize = 256;

/// Issuer, tenant and object id, as a digest: names and e-mail addresses are labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId([u8; 32]);

impl CallerId {
    /// Whose token it is.
    pub fn of(facts: &IdentityFacts) -> Self {
        let mut hash = Context::new(&SHA256);
        for part in [facts.issuer.as_str(), facts.tenant.as_str(), &facts.object_id] {
            // Each with its length, so that no two callers are one text.
            hash.update(&part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut id = [0; 32];
        id.copy_from_slice(hash.finish().as_ref());
        Self(id)
    }

    /// Some caller.
    #[cfg(test)]
    pub(crate) fn number(number: usize) -> Self {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Self(id)
    }
}

/// Which entries of a table are whose. The table says what comes and goes; there are never more callers than entries.
#[derive(Debug)]
pub struct Shares<Key>(HashMap<CallerId, HashSet<Key>>);

impl<Key> Default for Shares<Key> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<Key: Copy + Eq + Hash> Shares<Key> {
    /// One more entry of this caller's.
    pub fn add(&mut self, caller: CallerId, key: Key) {
        self.0.entry(caller).or_default().insert(key);
    }

    /// One less.
    pub fn remove(&mut self, caller: CallerId, key: &Key) {
        if let Some(keys) = self.0.get_mut(&caller) {
            keys.remove(key);
            if keys.is_empty() {
                self.0.remove(&caller);
            }
        }
    }

    /// This caller's entries.
    pub fn of(&self, caller: CallerId) -> impl Iterator<Item = Key> {
        self.0.get(&caller).into_iter().flatten().copied()
    }

    /// Whether this caller has all that one may have.
    pub fn is_full(&self, caller: CallerId) -> bool {
        self.0.get(&caller).is_some_and(|keys| keys.len() >= MAX_PER_CALLER)
    }
}

#[cfg(test)]
mod tests {
    use super::super::claims;
    use super::super::testing::{contoso, now, person};
    use super::*;
    use crate::names::{IssuerName, Tenant};

    fn analyst() -> IdentityFacts {
        let issuer = contoso("https://login.example");
        claims::check(person(&issuer.url()).as_object().unwrap(), &issuer, now()).unwrap()
    }

    #[test]
    fn a_caller_is_issuer_tenant_and_object_id() {
        let one = analyst();
        let same =
            IdentityFacts { label: "another name".to_owned(), token_id: Some("another".to_owned()), ..one.clone() };
        assert_eq!(CallerId::of(&one), CallerId::of(&same));
        for other in [
            IdentityFacts { object_id: "b".to_owned(), ..one.clone() },
            IdentityFacts { tenant: Tenant::parse("other").unwrap(), ..one.clone() },
            IdentityFacts { issuer: IssuerName::parse("other").unwrap(), ..one.clone() },
        ] {
            assert_ne!(CallerId::of(&one), CallerId::of(&other));
        }
    }

    #[test]
    fn who_has_nothing_is_forgotten() {
        let mut shares = Shares::default();
        let caller = CallerId::number(1);
        for key in 0..MAX_PER_CALLER {
            assert!(!shares.is_full(caller));
            shares.add(caller, key);
        }
        assert!(shares.is_full(caller) && !shares.is_full(CallerId::number(2)));
        for key in 0..MAX_PER_CALLER {
            shares.remove(caller, &key);
        }
        assert!(shares.0.is_empty());
    }
}

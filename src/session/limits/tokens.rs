//! One address per token: where each token was first seen, for as long as it lives.
//!
//! A token is known by SHA-256 of what its issuer signed, so that writing the signature in another way makes no other
//! token of it. Nobody is forgotten before the token's end: where there is no room, a new token is refused, and no
//! caller can take more than a share of the room, so that nobody makes room, or fills it, for anybody else.

use super::Over;
use crate::identity::{MAX_LEEWAY, VerifiedIdentity};
use crate::names::{Network, RuleName};
use crate::time::{Timestamp, later};
use aws_lc_rs::digest;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens that are remembered, at most …
pub const MAX_TOKENS: usize = 65_536;
/// … and those of one caller among them.
pub const MAX_TOKENS_PER_CALLER: usize = 1024;

type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// Every token that a rule with `one_address_per_token` has let in. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TokenAddresses {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Digest, Seen>,
    by_end: BTreeSet<(Timestamp, Digest)>,
    callers: HashMap<Digest, usize>,
}

#[derive(Debug)]
struct Seen {
    from: Network,
    caller: Digest,
}

impl TokenAddresses {
    /// Whether this token may be used from here; the first address is kept until the token's end. `from` is the client's
    /// own address, as far as it is known.
    pub fn check(
        &self,
        identity: &VerifiedIdentity,
        from: Option<IpAddr>,
        rule: &RuleName,
        now: Timestamp,
    ) -> Result<(), Over> {
        let from = Network::from(from.ok_or_else(|| Over::NoAddress(rule.clone()))?);
        let facts = identity.facts();
        let token = identity.token().expose();
        let signed = token.rsplit_once('.').map_or(token.as_str(), |(signed, _)| signed);
        let caller = sha256(&[facts.issuer.as_str(), facts.tenant.as_str(), &facts.object_id]);
        // No issuer's tokens are accepted for longer.
        let until = later(facts.expires_at, MAX_LEEWAY);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget_ended(now);
        match state.see(sha256(&[signed]), Seen { from, caller }, until) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Over::Address(rule.clone())),
            Err(Full) => Err(Over::Tokens(rule.clone())),
        }
    }

    /// Forgets tokens that have ended; to be called every minute or so.
    pub fn sweep(&self, now: Timestamp) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).forget_ended(now);
    }

    /// How many tokens are remembered.
    pub fn remembered(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).known.len()
    }
}

/// There is no room for one more token.
#[derive(Debug, PartialEq, Eq)]
struct Full;

impl State {
    /// Whether it is a token's first address, or the same again.
    fn see(&mut self, token: Digest, seen: Seen, until: Timestamp) -> Result<bool, Full> {
        if let Some(known) = self.known.get(&token) {
            return Ok(known.from == seen.from);
        }
        let of_caller = self.callers.get(&seen.caller).copied().unwrap_or_default();
        if self.known.len() >= MAX_TOKENS || of_caller >= MAX_TOKENS_PER_CALLER {
            return Err(Full);
        }
        self.callers.insert(seen.caller, of_caller.saturating_add(1));
        self.by_end.insert((until, token));
        self.known.insert(token, seen);
        Ok(true)
    }

    fn forget_ended(&mut self, now: Timestamp) {
        while let Some((until, token)) = self.by_end.first().copied().filter(|(until, _)| *until <= now) {
            self.by_end.remove(&(until, token));
            let Some(seen) = self.known.remove(&token) else { continue };
            let left = self.callers.get(&seen.caller).copied().unwrap_or_default().saturating_sub(1);
            if left == 0 {
                self.callers.remove(&seen.caller);
            } else {
                self.callers.insert(seen.caller, left);
            }
        }
    }
}

/// Of parts that are told apart by their lengths.
fn sha256(parts: &[&str]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut out = Digest::default();
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityFacts;
    use crate::relay::tag::testing::analyst;
    use crate::secret::Secret;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn identity(object_id: &str, token: &str) -> VerifiedIdentity {
        let expires_at = later(NOW, Duration::from_secs(3600));
        let facts = IdentityFacts { object_id: object_id.to_owned(), expires_at, ..analyst() };
        VerifiedIdentity { facts, token: Secret::new(token.to_owned()) }
    }

    fn check(table: &TokenAddresses, who: &VerifiedIdentity, from: &str, now: Timestamp) -> Result<(), Over> {
        table.check(who, from.parse().ok(), &rule(), now)
    }

    fn rule() -> RuleName {
        RuleName::parse("people").unwrap()
    }

    #[test]
    fn a_token_is_good_for_the_address_it_came_from_first() {
        let table = TokenAddresses::default();
        let one = identity("a", "header.claims.signature");
        assert_eq!(check(&table, &one, "2001:db8:1:2::7", NOW), Ok(()));
        assert_eq!(check(&table, &one, "2001:db8:1:2:ffff::8", NOW), Ok(()), "one /64 is one customer");
        assert_eq!(check(&table, &one, "2001:db8:1:3::7", NOW), Err(Over::Address(rule())));
        let rewritten = identity("a", "header.claims.another-signature-of-the-same");
        assert_eq!(check(&table, &rewritten, "192.0.2.1", NOW), Err(Over::Address(rule())));
        assert_eq!(check(&table, &identity("a", "header.new.signature"), "192.0.2.1", NOW), Ok(()), "a new token");
        assert_eq!(table.check(&one, None, &rule(), NOW), Err(Over::NoAddress(rule())));
        // The leeway of its last acceptance counts.
        let ended = later(one.facts().expires_at, MAX_LEEWAY);
        let almost = ended.checked_sub(jiff::SignedDuration::from_secs(1)).unwrap();
        assert_eq!(check(&table, &one, "192.0.2.1", almost), Err(Over::Address(rule())));
        assert_eq!(check(&table, &one, "192.0.2.1", ended), Ok(()), "it was forgotten, and is refused elsewhere");
        assert_eq!(table.remembered(), 1);
    }

    #[test]
    fn no_caller_fills_the_table_or_frees_a_place_in_it() {
        let table = TokenAddresses::default();
        let stolen = identity("a", "stolen.1.s");
        assert_eq!(check(&table, &stolen, "192.0.2.1", NOW), Ok(()));
        for n in 1..MAX_TOKENS_PER_CALLER {
            assert_eq!(check(&table, &identity("a", &format!("h.{n}.s")), "192.0.2.2", NOW), Ok(()));
        }
        assert_eq!(check(&table, &identity("a", "h.more.s"), "192.0.2.2", NOW), Err(Over::Tokens(rule())));
        assert_eq!(check(&table, &stolen, "192.0.2.2", NOW), Err(Over::Address(rule())), "nothing was forgotten");
        assert_eq!(check(&table, &identity("b", "h.other.s"), "192.0.2.2", NOW), Ok(()), "others are not hit");
        for n in 0..MAX_TOKENS {
            let _ = check(&table, &identity(&format!("c{n}"), &format!("h.c{n}.s")), "192.0.2.3", NOW);
        }
        assert_eq!(table.remembered(), MAX_TOKENS);
        assert_eq!(check(&table, &stolen, "192.0.2.2", NOW), Err(Over::Address(rule())), "nor for others' sake");
        let later = later(NOW, Duration::from_secs(2 * 3600));
        assert_eq!(check(&table, &identity("d", "h.d.s"), "192.0.2.4", later), Ok(()));
        let state = table.state.lock().unwrap();
        assert_eq!((state.known.len(), state.by_end.len(), state.callers.len()), (1, 1, 1));
    }
}

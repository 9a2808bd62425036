//! Which tokens' signatures were checked already, so that a storm of reconnects costs no RSA: neither for good tokens
//! nor for the repetition of bad ones; and how many different bad ones an address may have checked.
//!
//! What is remembered is only that a token, as a whole, was or was not signed by a key: SHA-256 of both, no byte of the
//! token and nothing that it says. Issuer, audience, times and policy are judged anew at every login, from the token in
//! hand. A verdict ends with the token or after [`FAILURE_MEMORY`], holds for the key that is published now and for no
//! other, and goes with this object at a reload. Pure: the time is handed in.

use super::jws::{Digest, Jws, Proven, PublicKey};
use super::{CallerId, Error, IdentityFacts, Shares};
use crate::names::Network;
use crate::time::{Timestamp, later};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most good tokens that are remembered, of one caller [`super::MAX_PER_CALLER`]; of more, those that end first are
/// forgotten first.
pub const MAX_GOOD: usize = 8192;
/// The most tokens that failed that are remembered.
pub const MAX_FAILED: usize = 4096;
/// How long a failed token is remembered.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(60);
/// The most addresses whose failures are counted, and the most networks of each width around them.
pub const MAX_ADDRESSES: usize = 8192;
/// Failures of an address are counted for so long, then anew.
pub const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// What is remembered.
#[derive(Debug)]
pub(super) struct Signatures {
    state: Mutex<State>,
    /// Different bad tokens of one address within [`FAILURE_WINDOW`].
    failures_per_address: u32,
}

#[derive(Debug)]
struct State {
    /// Tokens that let somebody in.
    good: Verdicts,
    /// Tokens that did not; apart, so that strangers cannot push out the good ones.
    failed: Verdicts,
    /// By width: a flood of narrow networks pushes out no wider one.
    addresses: [HashMap<Network, Failures>; Network::WIDTHS],
    /// Signatures that were checked.
    checks: u64,
}

/// Whether a key signed a token, each by its digest.
#[derive(Debug)]
struct Verdicts {
    known: HashMap<Digest, Verdict>,
    by_end: BTreeSet<(Timestamp, Digest)>,
    /// Of good ones: whose they are.
    shares: Shares<Digest>,
    most: usize,
}

#[derive(Debug, Clone, Copy)]
struct Verdict {
    key: Digest,
    /// Nobody's, where nobody is let in by it.
    of: Option<CallerId>,
    signed: bool,
    until: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    since: Timestamp,
}

impl Signatures {
    pub(super) fn new(failures_per_address: u32) -> Self {
        let state = State {
            good: Verdicts::new(MAX_GOOD),
            failed: Verdicts::new(MAX_FAILED),
            addresses: Default::default(),
            checks: 0,
        };
        Self { state: Mutex::new(state), failures_per_address }
    }

    /// Checks the signature, or remembers having done so; then lets `judge` read the claims. What it says decides how
    /// long the token is remembered: to its end, or briefly.
    pub(super) fn check(
        &self,
        jws: Jws<'_>,
        key: &PublicKey,
        seen: Seen,
        judge: impl FnOnce(Jws<'_>, Proven) -> Result<IdentityFacts, Error>,
    ) -> Result<IdentityFacts, Error> {
        let digest = *jws.digest();
        if let Some(signed) = self.lock().recall(&digest, key, seen.at) {
            return if signed { judge(jws, Proven(())) } else { Err(Error::Signature) };
        }
        if !self.lock().may_try(seen, self.failures_per_address) {
            return Err(Error::TooManyBad);
        }
        let outcome = match jws.verify(key) {
            Ok(proven) => judge(jws, proven),
            Err(error) => Err(error),
        };
        self.lock().learn(digest, key, seen, &outcome);
        outcome
    }

    /// How many signatures were checked so far.
    #[cfg(test)]
    pub(super) fn checks(&self) -> u64 {
        self.lock().checks
    }

    /// Good tokens, failed ones, and addresses that are remembered.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        let state = self.lock();
        let addresses = state.addresses.iter().map(HashMap::len).max().unwrap_or_default();
        [state.good.known.len(), state.failed.known.len(), addresses]
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left verdicts that are each whole; a missing one is checked again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a token came from, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// `None`: no limit of one address is for it.
    pub(super) from: Option<IpAddr>,
    pub(super) at: Timestamp,
    /// How long after its `exp` the token is still accepted.
    pub(super) leeway: Duration,
}

impl State {
    fn recall(&self, digest: &Digest, key: &PublicKey, now: Timestamp) -> Option<bool> {
        self.good.get(digest, key, now).or_else(|| self.failed.get(digest, key, now))
    }

    /// Whether this address may have one more unknown token checked, for its own sake and for each network's around it.
    fn may_try(&mut self, seen: Seen, most: u32) -> bool {
        let mut networks = self.addresses.iter().zip(seen.from.into_iter().flat_map(Network::around));
        let tried = networks.all(|(addresses, (network, times))| {
            let failures = addresses.get(&network).filter(|failures| !failures.over(seen.at));
            failures.is_none_or(|failures| failures.count < most.saturating_mul(times))
        });
        self.checks = self.checks.saturating_add(u64::from(tried));
        tried
    }

    fn learn(&mut self, digest: Digest, key: &PublicKey, seen: Seen, outcome: &Result<IdentityFacts, Error>) {
        let key = *key.fingerprint();
        match outcome {
            Ok(facts) => {
                let until = later(facts.expires_at, seen.leeway);
                self.good.insert(digest, Verdict { key, of: Some(CallerId::of(facts)), signed: true, until }, seen.at);
            }
            Err(error) => {
                let signed = !matches!(error, Error::Signature | Error::Algorithm);
                let until = later(seen.at, FAILURE_MEMORY);
                self.failed.insert(digest, Verdict { key, of: None, signed, until }, seen.at);
                self.count(seen);
            }
        }
    }

    fn count(&mut self, seen: Seen) {
        let networks = seen.from.into_iter().flat_map(Network::around);
        self.addresses
            .iter_mut()
            .zip(networks)
            .for_each(|(addresses, (network, _))| count(addresses, network, seen.at));
    }
}

fn count(addresses: &mut HashMap<Network, Failures>, network: Network, now: Timestamp) {
    if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&network) {
        addresses.retain(|_, failures| !failures.over(now));
    }
    if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&network) {
        // Many addresses fail at once: the one that began first has the least left to lose.
        let oldest = addresses.iter().min_by_key(|(_, failures)| failures.since).map(|(address, _)| *address);
        oldest.map(|address| addresses.remove(&address));
    }
    let failures = addresses.entry(network).or_insert(Failures { count: 0, since: now });
    if failures.over(now) {
        *failures = Failures { count: 0, since: now };
    }
    failures.count = failures.count.saturating_add(1);
}

impl Failures {
    /// Whether its window is over, or lies ahead because the clock was set back.
    fn over(&self, now: Timestamp) -> bool {
        now >= later(self.since, FAILURE_WINDOW) || now < self.since
    }
}

impl Verdicts {
    fn new(most: usize) -> Self {
        Self { known: HashMap::new(), by_end: BTreeSet::new(), shares: Shares::default(), most }
    }

    /// A verdict that holds now, for this key.
    fn get(&self, digest: &Digest, key: &PublicKey, now: Timestamp) -> Option<bool> {
        let verdict = self.known.get(digest)?;
        (verdict.key == *key.fingerprint() && now < verdict.until).then_some(verdict.signed)
    }

    fn insert(&mut self, digest: Digest, verdict: Verdict, now: Timestamp) {
        self.remove(&digest);
        if let Some(caller) = verdict.of {
            if self.shares.is_full(caller) {
                let until = |digest: &Digest| self.known.get(digest).map(|verdict| verdict.until);
                let first = self.shares.of(caller).min_by_key(until);
                first.inspect(|first| self.remove(first));
            }
            self.shares.add(caller, digest);
        }
        while let Some((until, first)) = self.by_end.first().copied()
            && (until <= now || self.known.len() >= self.most)
        {
            self.remove(&first);
        }
        self.by_end.insert((verdict.until, digest));
        self.known.insert(digest, verdict);
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some(verdict) = self.known.remove(digest) {
            self.by_end.remove(&(verdict.until, *digest));
            verdict.of.inspect(|caller| self.shares.remove(*caller, digest));
        }
    }
}

#[cfg(test)]
#[path = "signatures_tests.rs"]
mod tests;

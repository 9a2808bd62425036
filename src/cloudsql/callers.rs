//! Certificates that carry a caller's login token: one for each caller and instance, kept while it is good.
//!
//! Invariant: a certificate is found again only by the same database user with the very same token of the caller's
//! own, and only until the earlier of its own end and its login token's end.
//!
//! Single flight: of those with one caller's one token one asks, the others wait and share what comes of it.

use super::Error;
use super::certificate::Ephemeral;
use crate::federation::AccessToken;
use crate::identity::{CallerId, MAX_PER_CALLER};
use crate::names::RoleName;
use crate::secret::Secret;
use crate::time::{Clock, Timestamp, until};
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The most certificates of one instance's callers that are kept, of one caller [`MAX_PER_CALLER`]; beyond it the one
/// that ends first goes.
pub const MAX_CALLERS: usize = 2000;
/// A kept certificate with less life than this is not used for another login.
pub const LEAST_LIFE: Duration = Duration::from_secs(30);

/// A failure stands for this long: those who waited for it share it, the next one asks again.
pub const FAILURE_HOLD: Duration = Duration::from_secs(1);

/// Whom a session is for.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Who it is, whatever the database user.
    pub id: CallerId,
    /// The database user of the grant.
    pub role: &'a RoleName,
    /// The caller's own token, which bought the login: by it a kept certificate is found again. It goes nowhere.
    pub own: &'a Secret<String>,
    /// The login token that a certificate is to carry.
    pub login: &'a AccessToken,
}

/// One instance's certificates with tokens inside.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    cells: Mutex<Cells>,
}

/// A digest: no token is kept as a key.
type Key = [u8; SHA256_OUTPUT_LEN];
type Cells = HashMap<Key, Arc<Cell>>;

/// One certificate, or who is asking for it.
#[derive(Debug)]
struct Cell {
    caller: CallerId,
    issued: OnceLock<Ephemeral>,
    /// Held while asking; the last failure and when it was.
    flight: tokio::sync::Mutex<Option<(Error, Instant)>>,
}

impl Certificates {
    /// The caller's certificate, or what `issue` brings; those who come at once for one caller share it. May be
    /// dropped: then the next one asks.
    pub async fn get<Issue>(
        &self,
        caller: Caller<'_>,
        clock: &Clock,
        issue: impl FnOnce() -> Issue,
    ) -> Result<Arc<CertifiedKey>, Error>
    where
        Issue: Future<Output = Result<Ephemeral, Error>>,
    {
        let cell = self.cell(caller, clock.now());
        let ephemeral = cell.get(issue).await?;
        if ephemeral.expires_at <= clock.now() {
            return Err(Error::AdminBroken("the ephemeral certificate or its token has already expired".to_owned()));
        }
        Ok(Arc::clone(&ephemeral.certified))
    }

    /// Drops the caller's certificate: the instance did not take it.
    pub fn forget(&self, caller: Caller<'_>) {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(caller));
    }

    /// The caller's place. Whoever comes new clears away what has ended.
    fn cell(&self, caller: Caller<'_>, now: Timestamp) -> Arc<Cell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let good =
            |cell: &&Arc<Cell>| cell.issued.get().is_none_or(|ephemeral| until(ephemeral.expires_at, now) > LEAST_LIFE);
        let key = key(caller);
        if let Some(cell) = cells.get(&key).filter(good) {
            return Arc::clone(cell);
        }
        cells.remove(&key);
        make_room(&mut cells, caller.id, now);
        let cell = Arc::new(Cell { caller: caller.id, issued: OnceLock::new(), flight: tokio::sync::Mutex::default() });
        cells.insert(key, Arc::clone(&cell));
        cell
    }
}

impl Cell {
    async fn get<Issue>(&self, issue: impl FnOnce() -> Issue) -> Result<&Ephemeral, Error>
    where
        Issue: Future<Output = Result<Ephemeral, Error>>,
    {
        if let Some(ephemeral) = self.issued.get() {
            return Ok(ephemeral);
        }
        let mut failed = self.flight.lock().await;
        if let Some(ephemeral) = self.issued.get() {
            return Ok(ephemeral);
        }
        if let Some((failure, _)) = failed.as_ref().filter(|(_, at)| at.elapsed() < FAILURE_HOLD) {
            return Err(failure.clone());
        }
        match issue().await {
            Ok(ephemeral) => Ok(self.issued.get_or_init(|| ephemeral)),
            Err(failure) => {
                *failed = Some((failure.clone(), Instant::now()));
                Err(failure)
            }
        }
    }

    fn ends(&self) -> Timestamp {
        self.issued.get().map_or(Timestamp::MAX, |ephemeral| ephemeral.expires_at)
    }
}

/// Drops what has ended or was given up; if that is not enough, the certificate that ends first: the caller's own, where
/// the caller has their share.
fn make_room(cells: &mut Cells, caller: CallerId, now: Timestamp) {
    // Where there is no certificate yet, somebody asks for it, or has given up.
    cells.retain(|_, cell| cell.ends() > now && (cell.issued.get().is_some() || Arc::strong_count(cell) > 1));
    let own = cells.values().filter(|cell| cell.caller == caller).count();
    let of = (own >= MAX_PER_CALLER).then_some(caller);
    if of.is_some() || cells.len() >= MAX_CALLERS {
        let candidates = cells.iter().filter(|(_, cell)| of.is_none_or(|caller| cell.caller == caller));
        if let Some(first) = candidates.min_by_key(|(_, cell)| cell.ends()).map(|(key, _)| *key) {
            cells.remove(&first);
        }
    }
}

/// Database user and own token; the user's length keeps the two apart.
fn key(caller: Caller<'_>) -> Key {
    let mut context = Context::new(&SHA256);
    let role = caller.role.as_str().as_bytes();
    context.update(&u64::try_from(role.len()).unwrap_or(u64::MAX).to_be_bytes());
    context.update(role);
    context.update(caller.own.expose().as_bytes());
    let mut key = [0; SHA256_OUTPUT_LEN];
    key.copy_from_slice(context.finish().as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudsql::certificate::ClientKey;
    use crate::cloudsql::testing::Authority;
    use crate::time::later;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    const HOUR: Duration = Duration::from_secs(3600);
    const ME: usize = 1;

    struct Bench {
        certificates: Certificates,
        key: ClientKey,
        pem: String,
        clock: Clock,
        offset: Arc<AtomicI64>,
        issued: AtomicUsize,
        login: AccessToken,
    }

    impl Bench {
        fn new() -> Self {
            let key = ClientKey::generate().unwrap();
            let pem = Authority::new("Google Cloud SQL Signing CA demo").ephemeral(key.public_pem(), HOUR);
            let offset = Arc::new(AtomicI64::new(0));
            let clock = Clock::shifted(Arc::clone(&offset));
            let login =
                AccessToken { token: Secret::new("ya29.login".to_owned()), expires_at: later(clock.now(), HOUR) };
            Self { certificates: Certificates::default(), key, pem, clock, offset, issued: AtomicUsize::new(0), login }
        }

        async fn get(&self, role: &str, own: &str, lasts: Duration) -> Result<Arc<CertifiedKey>, Error> {
            self.issue(ME, role, own, lasts).await
        }

        async fn issue(&self, id: usize, role: &str, own: &str, lasts: Duration) -> Result<Arc<CertifiedKey>, Error> {
            let (id, role, own) = (CallerId::number(id), RoleName::parse(role).unwrap(), Secret::new(own.to_owned()));
            let caller = Caller { id, role: &role, own: &own, login: &self.login };
            let issue = || async {
                tokio::task::yield_now().await;
                self.issued.fetch_add(1, Ordering::Relaxed);
                let ephemeral = self.key.certify(&self.pem).unwrap();
                Ok(ephemeral.at_most_until(later(self.clock.now(), lasts)))
            };
            self.certificates.get(caller, &self.clock, issue).await
        }

        fn issued(&self) -> usize {
            self.issued.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_caller_has_one_certificate_and_shares_it_with_nobody() {
        let bench = Bench::new();
        let (a, b) = tokio::join!(bench.get("a@x", "token-a", HOUR), bench.get("a@x", "token-a", HOUR));
        assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()), "who come at once share one");
        assert_eq!(bench.issued(), 1);
        for (role, own) in [("b@x", "token-a"), ("a@x", "token-b"), ("a@", "xtoken-a")] {
            let before = bench.issued();
            bench.get(role, own, HOUR).await.unwrap();
            assert_eq!(bench.issued(), before + 1, "{role} {own}");
        }
    }

    #[tokio::test]
    async fn it_is_dropped_before_the_earlier_end_and_when_refused() {
        let bench = Bench::new();
        bench.get("a@x", "token", Duration::from_secs(100)).await.unwrap();
        bench.offset.store(60, Ordering::Relaxed);
        bench.get("a@x", "token", HOUR).await.unwrap();
        assert_eq!(bench.issued(), 1);
        bench.offset.store(75, Ordering::Relaxed);
        bench.get("a@x", "token", HOUR).await.unwrap();
        assert_eq!(bench.issued(), 2, "less than LEAST_LIFE is left");
        let (role, own) = (RoleName::parse("a@x").unwrap(), Secret::new("token".to_owned()));
        bench.certificates.forget(Caller { id: CallerId::number(ME), role: &role, own: &own, login: &bench.login });
        bench.get("a@x", "token", HOUR).await.unwrap();
        assert_eq!(bench.issued(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_issued_dead_is_no_certificate_and_a_failure_stands_for_a_moment() {
        let bench = Bench::new();
        assert!(matches!(bench.get("a@x", "token", Duration::ZERO).await, Err(Error::AdminBroken(_))));
        let (role, own) = (RoleName::parse("a@x").unwrap(), Secret::new("other".to_owned()));
        let caller = Caller { id: CallerId::number(ME), role: &role, own: &own, login: &bench.login };
        let asked = AtomicUsize::new(0);
        let fails = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(20)).await;
            Err(Error::AdminUnavailable("503".to_owned()))
        };
        let get = || bench.certificates.get(caller, &bench.clock, fails);
        let begin = Instant::now();
        let (one, two, three) = tokio::join!(get(), get(), get());
        assert!(one.is_err() && two.is_err() && three.is_err() && bench.get("a@x", "other", HOUR).await.is_err());
        assert_eq!(
            (asked.load(Ordering::Relaxed), begin.elapsed().as_secs()),
            (1, 20),
            "one asks, nobody asks after them"
        );
        tokio::time::advance(FAILURE_HOLD).await;
        assert!(bench.get("a@x", "other", HOUR).await.is_ok());
    }

    #[tokio::test]
    async fn the_number_is_bounded_and_the_first_to_end_goes_first() {
        let bench = Bench::new();
        for n in 0..MAX_CALLERS {
            let lasts = HOUR.checked_sub(Duration::from_secs(u64::from(n == 7))).unwrap();
            bench.issue(n, "a@x", &format!("token-{n}"), lasts).await.unwrap();
        }
        bench.get("a@x", "one more", HOUR).await.unwrap();
        assert_eq!(bench.certificates.cells.lock().unwrap().len(), MAX_CALLERS);
        let before = bench.issued();
        bench.get("a@x", "token-8", HOUR).await.unwrap();
        assert_eq!(bench.issued(), before);
        bench.get("a@x", "token-7", HOUR).await.unwrap();
        assert_eq!(bench.issued(), before + 1, "the seventh ended first");
        // An hour later all have ended; the next newcomer clears them away.
        bench.offset.store(3700, Ordering::Relaxed);
        assert!(bench.get("a@x", "late", HOUR).await.is_err(), "what is issued has ended too");
        assert_eq!(bench.certificates.cells.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn one_callers_many_tokens_push_out_no_others() {
        let bench = Bench::new();
        let other = |n: usize| (n + 10, format!("token-{n}"));
        for (id, token) in (0..10).map(other) {
            bench.issue(id, "a@x", &token, HOUR / 2).await.unwrap();
        }
        for n in 0..MAX_PER_CALLER + 20 {
            bench.get("a@x", &format!("mine-{n}"), HOUR).await.unwrap();
            assert!(bench.certificates.cells.lock().unwrap().len() <= 10 + MAX_PER_CALLER);
        }
        let before = bench.issued();
        for (id, token) in (0..10).map(other) {
            bench.issue(id, "a@x", &token, HOUR).await.unwrap();
        }
        assert_eq!(bench.issued(), before);
    }
}

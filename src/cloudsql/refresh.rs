//! One instance's settings and certificate, kept fresh while its [`Connector`](super::Connector) lives.
//!
//! Refresh-ahead as in Google's connectors (`cloud-sql-go-connector`, `internal/cloudsql/instance.go`): a valid
//! certificate is served at once, whatever the API is doing; the next one is fetched well before its end, by one
//! task per instance, so that there is one refresh at a time. Who finds no valid one waits for that task.
//!
//! Invariant: expiry is compared on the wall clock at every dial, because timers stand still while a machine sleeps.

use super::Error;
use super::admin::Admin;
use super::callers::{Caller, Certificates};
use super::certificate::{ClientKey, Ephemeral};
use super::settings::{Destination, Settings};
use super::verify::{ExpectedName, InstanceVerifier};
use super::{Credential, InstanceConfig};
use crate::federation::AccessToken;
use crate::time::{Clock, Timestamp, later, until};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{DnsName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// A certificate is renewed at the latest this long before its end.
const REFRESH_BUFFER: Duration = Duration::from_secs(4 * 60);
/// A certificate that lasts at least this long is renewed at half of its life.
const LONG_LIFE: Duration = Duration::from_secs(3600);
/// Settings without a certificate last this long, as a certificate does.
const SETTINGS_LIFE: Duration = Duration::from_secs(3600);
/// One refresh, its token and both of its calls; also the longest that a dial waits for one.
const REFRESH_DEADLINE: Duration = Duration::from_secs(60);
/// Refreshes of one instance that may follow each other at once …
const REFRESH_BURST: u32 = 2;
/// … and the time in which one more is allowed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// After a first failure, no refresh follows for this long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// All that a dial needs. Immutable; replaced as a whole.
#[derive(Debug)]
pub(super) struct Material {
    /// Where to.
    pub destination: Destination,
    /// SNI, when the instance has a DNS name.
    pub server_name: Option<DnsName<'static>>,
    /// The instance's own client certificate, if it is shown one, and the server check.
    pub tls: Arc<rustls::ClientConfig>,
    verifier: Arc<InstanceVerifier>,
    expires_at: Timestamp,
    refresh_at: Timestamp,
    /// Whether a handshake was completed with it: only then can it be the one that an instance refused.
    used: AtomicBool,
}

/// What makes [`Material`] of an instance's name; shared by all instances of a connector.
#[derive(Debug)]
pub(super) struct Source {
    pub admin: Admin,
    pub credential: Credential,
    pub key: ClientKey,
    pub provider: Arc<CryptoProvider>,
    pub clock: Clock,
}

/// One configured instance.
#[derive(Debug)]
pub(super) struct Instance {
    shared: Arc<Shared>,
    /// Certificates with callers' login tokens inside.
    callers: Certificates,
    /// Started by the first dial, ended with the instance.
    task: OnceLock<AbortOnDrop>,
}

#[derive(Debug)]
struct Shared {
    config: InstanceConfig,
    source: Arc<Source>,
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct State {
    current: Option<Arc<Material>>,
    /// Why the latest refresh failed; `None` after one that did not.
    failure: Option<Error>,
    /// Refreshes that ended.
    refreshes: u64,
    /// When the limiter allows the next refresh.
    not_before: Instant,
    /// Someone needs a new one now.
    wanted: bool,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Instance {
    /// Calls nothing yet.
    pub fn new(config: InstanceConfig, source: Arc<Source>) -> Self {
        let state = State { current: None, failure: None, refreshes: 0, not_before: Instant::now(), wanted: false };
        let state = watch::Sender::new(state);
        let shared = Arc::new(Shared { config, source, state });
        Self { shared, callers: Certificates::default(), task: OnceLock::new() }
    }

    /// Its section of the config.
    pub fn config(&self) -> &InstanceConfig {
        &self.shared.config
    }

    /// The material's server check with a certificate that carries this caller's login token. Cancel-safe.
    pub async fn tls_for(&self, material: &Material, caller: Caller<'_>) -> Result<Arc<rustls::ClientConfig>, Error> {
        let Shared { config, source, .. } = &*self.shared;
        let issue = || source.certify(config, caller.login);
        let certified = self.callers.get(caller, &source.clock, issue).await?;
        Ok(Arc::new(source.tls(Arc::clone(&material.verifier), Some(certified))?))
    }

    /// Drops the caller's certificate.
    pub fn forget_caller(&self, caller: Caller<'_>) {
        self.callers.forget(caller);
    }

    /// Valid settings and certificate: the cached ones, or those of the refresh that is on its way or due.
    /// While the limiter holds the next refresh back, that or the latest failure is told at once. Cancel-safe.
    pub async fn material(&self) -> Result<Arc<Material>, Error> {
        let shared = &self.shared;
        self.task.get_or_init(|| AbortOnDrop(tokio::spawn(keep_fresh(Arc::clone(shared)))));
        let mut state = shared.state.subscribe();
        let seen = {
            let state = state.borrow_and_update();
            if let Some(current) = shared.valid(&state) {
                drop(state);
                if shared.source.clock.now() >= current.refresh_at {
                    self.refresh();
                }
                return Ok(current);
            }
            if Instant::now() < state.not_before {
                return Err(state.failure.clone().unwrap_or_else(refused_too_often));
            }
            state.refreshes
        };
        self.refresh();
        let fresh = state.wait_for(|state| state.refreshes > seen);
        let Ok(Ok(state)) = timeout(REFRESH_DEADLINE, fresh).await else {
            return Err(Error::AdminUnavailable(format!("no certificate within {REFRESH_DEADLINE:?}")));
        };
        match (shared.valid(&state), &state.failure) {
            (Some(current), _) => Ok(current),
            (None, Some(failure)) => Err(failure.clone()),
            (None, None) => Err(Error::AdminBroken("the ephemeral certificate has already expired".to_owned())),
        }
    }

    /// Asks for a new certificate soon; the current one is served until it is there. A refresh that is on its way
    /// answers the call.
    pub fn refresh(&self) {
        self.shared.state.send_if_modified(|state| !std::mem::replace(&mut state.wanted, true));
    }

    /// Drops the current certificate, if it has been used, and asks for a new one.
    pub fn forget(&self) {
        self.shared.state.send_if_modified(|state| {
            let refused = state.current.as_ref().is_some_and(|current| current.used.load(Ordering::Relaxed));
            if refused {
                state.current = None;
                state.wanted = true;
            }
            refused
        });
    }
}

impl Material {
    /// A handshake was completed with it.
    pub fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// The current material while its certificate lasts.
    fn valid(&self, state: &State) -> Option<Arc<Material>> {
        let now = self.source.clock.now();
        state.current.as_ref().filter(|current| now < current.expires_at).map(Arc::clone)
    }

    /// Tells everyone who waits how a refresh ended. A failure is logged here when nobody will be told of it.
    fn publish(&self, outcome: Result<Material, Error>, not_before: Instant) {
        if let Err(error) = &outcome
            && self.valid(&self.state.borrow()).is_some()
        {
            let error = error as &dyn std::error::Error;
            tracing::warn!(instance = %self.config.name, error, "certificate not renewed; the current one serves on");
        }
        self.state.send_modify(|state| {
            state.refreshes = state.refreshes.saturating_add(1);
            state.not_before = not_before;
            state.wanted = false;
            state.failure = None;
            match outcome {
                Ok(material) => state.current = Some(Arc::new(material)),
                Err(error) => state.failure = Some(error),
            }
        });
    }
}

/// The instance's one task: refreshes when asked or due, for ever.
async fn keep_fresh(shared: Arc<Shared>) {
    let mut limiter = Limiter::new(Instant::now());
    let mut failures = 0;
    let mut not_before = Instant::now();
    loop {
        due(&shared).await;
        sleep_until(not_before).await;
        limiter.take(Instant::now());
        let outcome = timeout(REFRESH_DEADLINE, shared.source.fetch(&shared.config)).await;
        let outcome = outcome
            .unwrap_or_else(|_| Err(Error::AdminUnavailable(format!("no certificate within {REFRESH_DEADLINE:?}"))));
        if outcome.is_ok() {
            failures = 0;
            not_before = limiter.next(Instant::now());
        } else {
            // A failure gave no certificate: it counts against its own, shorter wait, so that callers are let in
            // soon after an outage.
            limiter.put_back();
            failures += 1;
            not_before = Instant::now() + failure_pause(failures);
        }
        shared.publish(outcome, not_before);
    }
}

/// Waits until a new certificate is asked for, or the current one's time for renewal comes. An expired one is not
/// renewed before someone asks.
async fn due(shared: &Shared) {
    let mut state = shared.state.subscribe();
    loop {
        let renewal = {
            let state = state.borrow_and_update();
            if state.wanted {
                return;
            }
            shared.valid(&state).map(|current| until(current.refresh_at, shared.source.clock.now()))
        };
        let changed = state.changed();
        match renewal {
            Some(Duration::ZERO) => return,
            Some(wait) => _ = timeout(wait, changed).await,
            None => _ = changed.await,
        }
    }
}

impl Source {
    /// One refresh: the proxy's own token, then both calls at once, or one where no certificate is shown.
    async fn fetch(&self, config: &InstanceConfig) -> Result<Material, Error> {
        let own = self.own_token().await?;
        let (settings, ephemeral) = tokio::try_join!(self.admin.connect_settings(&config.name, &own.token), async {
            if !config.shows_certificate() {
                return Ok(None);
            }
            let pem = self.admin.generate_ephemeral_cert(&config.name, self.key.public_pem(), None, &own.token).await?;
            self.key.certify(&pem).map(Some)
        })?;
        let now = self.clock.now();
        let settings = Settings::read(&settings, config, now)?;
        let expires_at = ephemeral.as_ref().map_or_else(|| later(now, SETTINGS_LIFE), |known| known.expires_at);
        let expected = ExpectedName { dns: settings.server_name.clone(), common: config.name.certificate_name() };
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier = Arc::new(InstanceVerifier::new(settings.anchors, algorithms, expected));
        Ok(Material {
            destination: settings.destination,
            server_name: settings.server_name,
            tls: Arc::new(self.tls(Arc::clone(&verifier), ephemeral.map(|known| known.certified))?),
            verifier,
            expires_at,
            refresh_at: later(now, refresh_after(until(expires_at, now))),
            used: AtomicBool::new(false),
        })
    }

    /// A certificate that carries a login token, good until the first of the two ends.
    async fn certify(&self, config: &InstanceConfig, login: &AccessToken) -> Result<Ephemeral, Error> {
        let own = self.own_token().await?;
        let key = self.key.public_pem();
        let pem = self.admin.generate_ephemeral_cert(&config.name, key, Some(&login.token), &own.token).await?;
        Ok(self.key.certify(&pem)?.at_most_until(login.expires_at))
    }

    async fn own_token(&self) -> Result<Arc<AccessToken>, Error> {
        self.credential.token().await.map_err(|error| Error::OwnIdentity(Arc::new(error)))
    }

    /// TLS 1.3 alone, no ALPN, on either path. Sessions are not resumed: a resumed one would skip the server check and go on with
    /// the client certificate of its first handshake.
    fn tls(
        &self,
        verifier: Arc<InstanceVerifier>,
        client: Option<Arc<CertifiedKey>>,
    ) -> Result<rustls::ClientConfig, Error> {
        let clock = Arc::new(WallClock(self.clock.clone()));
        let builder = rustls::ClientConfig::builder_with_details(Arc::clone(&self.provider), clock)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Error::SetUp(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match client {
            Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// The instance refused certificates faster than new ones may be asked for.
fn refused_too_often() -> Error {
    Error::AdminUnavailable(format!("the next certificate is asked for within {REFRESH_INTERVAL:?}"))
}

/// Our clock, for certificate checks.
#[derive(Debug)]
struct WallClock(Clock);

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// How long from now a certificate that lasts another `left` is renewed.
fn refresh_after(left: Duration) -> Duration {
    if left >= LONG_LIFE { left / 2 } else { left.saturating_sub(REFRESH_BUFFER) }
}

/// How long no refresh follows the `failures`th failure in a row: doubling from [`FIRST_PAUSE`] to
/// [`REFRESH_INTERVAL`].
fn failure_pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(REFRESH_INTERVAL)
}

/// A token bucket: [`REFRESH_BURST`] at once, then one each [`REFRESH_INTERVAL`].
#[derive(Debug)]
struct Limiter {
    tokens: u32,
    /// When the bucket was last full or got a token.
    filled: Instant,
}

impl Limiter {
    fn new(now: Instant) -> Self {
        Self { tokens: REFRESH_BURST, filled: now }
    }

    /// When the next refresh may begin: now or later.
    fn next(&mut self, now: Instant) -> Instant {
        while self.tokens < REFRESH_BURST && now >= self.filled + REFRESH_INTERVAL {
            self.tokens += 1;
            self.filled += REFRESH_INTERVAL;
        }
        if self.tokens > 0 { now } else { self.filled + REFRESH_INTERVAL }
    }

    fn put_back(&mut self) {
        self.tokens = (self.tokens + 1).min(REFRESH_BURST);
    }

    fn take(&mut self, now: Instant) {
        self.next(now);
        if self.tokens == REFRESH_BURST {
            self.filled = now;
        }
        self.tokens = self.tokens.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudsql::{IpType, LoginMethod, Route};
    use crate::names::InstanceName;
    use crate::secret::Secret;

    #[tokio::test]
    async fn the_task_ends_with_its_instance() {
        let token = AccessToken { token: Secret::new("ya29.own".to_owned()), expires_at: Timestamp::MAX };
        let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let source = Source {
            admin: Admin::new(format!("http://{nowhere}"), crate::http::testing::client(), Duration::from_secs(5)),
            credential: Credential::Fixed(Arc::new(token)),
            key: ClientKey::generate().unwrap(),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            clock: Clock::system(),
        };
        let name = InstanceName::parse("demo-project:europe-west1:orders").unwrap();
        let config =
            InstanceConfig { name, ip_type: IpType::Public, route: Route::default(), login: LoginMethod::default() };
        let instance = Instance::new(config, Arc::new(source));
        let shared = Arc::downgrade(&instance.shared);
        assert!(matches!(instance.material().await, Err(Error::AdminUnavailable(_))));
        assert!(shared.upgrade().is_some_and(|shared| Arc::strong_count(&shared) == 3), "the task holds one");
        drop(instance);
        timeout(Duration::from_secs(5), async {
            while shared.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the task has ended");
    }

    #[test]
    fn renewal_comes_at_googles_times() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        for (left, wait) in [(240, 120), (60, 30), (59, 55), (5, 1), (4, 0), (3, 0), (0, 0)] {
            assert_eq!(refresh_after(minutes(left)), minutes(wait), "{left} minutes left");
        }
    }

    #[test]
    fn two_refreshes_at_once_then_one_each_half_minute() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for seconds in [100, 101] {
            assert_eq!(limiter.next(at(seconds)), at(seconds));
            limiter.take(at(seconds));
        }
        assert_eq!(limiter.next(at(102)), at(130), "the bucket began to fill when it was first tapped");
        assert_eq!(limiter.next(at(129)), at(130));
        limiter.take(at(130));
        assert_eq!(limiter.next(at(131)), at(160));
        for seconds in [1000, 1000] {
            assert_eq!(limiter.next(at(seconds)), at(seconds));
            limiter.take(at(seconds));
        }
        assert_eq!(limiter.next(at(1000)), at(1030));
    }
}

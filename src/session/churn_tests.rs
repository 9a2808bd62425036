//! Ten thousand callers who come and go: whatever remembers something of callers stays within its bound all the time,
//! and remembers nothing of them an hour later. A new cache of callers gets a line in [`World::tables`].

use super::limits::{MAX_RECENT, MAX_TOKENS};
use super::*;
use crate::federation::{AccessToken, Google, GoogleEndpoints, MAX_CALLER_TOKENS};
use crate::http::testing::client;
use crate::identity::testing::{Entra, NOW};
use crate::identity::{MAX_ADDRESSES, MAX_FAILED, MAX_GOOD, MAX_PER_CALLER};
use crate::policy::{Limits as Bounds, Rate};
use crate::secret::Secret;
use crate::time::{Timestamp, later};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicI64, Ordering};

const CALLERS: u32 = 10_000;
/// Sessions that are open at once.
const AT_ONCE: usize = 500;
/// Between two logins.
const PACE: Duration = Duration::from_millis(10);

struct World {
    entra: Entra,
    verifier: Verifier,
    /// Seconds that have passed.
    passed: i64,
    offset: Arc<AtomicI64>,
    exchanger: Exchanger,
    callers: Callers,
    limits: Limits,
    tokens: TokenAddresses,
    sessions: Sessions,
    cancel_keys: CancelKeys,
    connector: Arc<Connector>,
    grant: Grant,
}

/// What a session holds while it lives.
struct Held {
    _presence: Presence,
    _of_rule: limits::Seat,
    _of_all: callers::Seat,
    _key: cancel::Registered,
}

impl World {
    async fn new() -> Self {
        let entra = Entra::start().await;
        let verifier = entra.verifier();
        verifier.warm_up().await;
        // From here on nothing is fetched.
        tokio::time::pause();
        let offset = Arc::new(AtomicI64::new(0));
        let nowhere = "http://127.0.0.1:9".to_owned();
        let endpoints = GoogleEndpoints { sts: nowhere.clone(), iam_credentials: nowhere.clone(), sql_admin: nowhere };
        let (deadline, clock) = (Duration::from_secs(1), Clock::shifted(Arc::clone(&offset)));
        let deadlines = federation::Deadlines { sts: deadline, iam_credentials: deadline };
        let services = federation::Services::default();
        let google = Google { endpoints, http: client(), clock, deadlines, services };
        let exchanger = Exchanger::new(google, BTreeMap::new());
        let rate = Some(Rate { per_second: 5, burst: 5, over: policy::Over::Wait });
        let bounds = Bounds {
            sessions: Some(AT_ONCE),
            sessions_per_caller: Some(1),
            connects_per_minute: Some(1),
            one_address_per_token: true,
            statements: rate,
            ..Bounds::default()
        };
        Self {
            entra,
            verifier,
            passed: 0,
            offset,
            exchanger,
            callers: Callers::new(AT_ONCE, 1),
            limits: Limits::default(),
            tokens: TokenAddresses::default(),
            sessions: Sessions::default(),
            cancel_keys: CancelKeys::default(),
            connector: Arc::new(Connector::nowhere()),
            grant: Grant { limits: bounds, ..policy::testing::grant() },
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(NOW + self.passed).unwrap()
    }

    /// A caller with one of their tokens.
    async fn verified(&self, caller: u32, token: u32) -> VerifiedIdentity {
        let mut claims = self.entra.person();
        claims["oid"] = json!(format!("00000000-0000-4000-8000-{caller:012}"));
        claims["uti"] = json!(format!("token-{token}"));
        let token = Secret::new(self.entra.signer.sign(&claims));
        self.verifier.verify(token, address(caller), self.now()).await.unwrap()
    }

    async fn buy(&self, identity: &VerifiedIdentity) {
        let expires_at = later(self.now(), Duration::from_secs(3600));
        let bought = AccessToken { token: Secret::new("bought".to_owned()), expires_at };
        self.exchanger.buys(&self.grant, identity, bought).await;
    }

    async fn log_in(&self, number: u32) -> Held {
        let presence = self.sessions.arrive(SessionId::generate());
        let identity = self.verified(number, number).await;
        self.tokens.check(&identity, Some(address(number)), self.grant.rule(), self.now()).unwrap();
        let of_rule = self.limits.enter(identity.facts(), &self.grant, |_| true).await.unwrap();
        let of_all = self.callers.enter(identity.facts()).unwrap();
        self.buy(&identity).await;
        let key = backend::ServerKey { pid: number, secret: vec![1, 2, 3, 4] };
        let (instance, address) = (self.grant.target().instance.clone(), "127.0.0.1:3307".parse().unwrap());
        let (session, connector) = (SessionId::generate(), Arc::clone(&self.connector));
        let target = cancel::Target { session, instance, address, key, gate: Arc::default(), connector };
        let key = self.cancel_keys.register(target, 4).unwrap();
        Held { _presence: presence, _of_rule: of_rule, _of_all: of_all, _key: key }
    }

    /// Whatever remembers callers: how much it does, and how much it may.
    fn tables(&self) -> Vec<(&'static str, usize, usize)> {
        let [good, failed, addresses] = self.verifier.remembered();
        let (of_rules, recent) = self.limits.remembered();
        vec![
            ("tokens that were verified", good, MAX_GOOD),
            ("tokens that were refused", failed, MAX_FAILED),
            ("addresses of refused tokens", addresses, MAX_ADDRESSES),
            ("callers with a session", self.callers.remembered(), AT_ONCE),
            ("callers of rules", of_rules, AT_ONCE + MAX_RECENT),
            ("callers of rules without a session", recent, MAX_RECENT),
            ("addresses of tokens", self.tokens.remembered(), MAX_TOKENS),
            ("tokens that were bought", self.exchanger.remembered(), MAX_CALLER_TOKENS),
            ("keys for cancels", self.cancel_keys.remembered(), AT_ONCE),
        ]
    }

    async fn pass(&mut self, time: Duration) {
        tokio::time::advance(time).await;
        self.passed += i64::try_from(time.as_secs()).unwrap();
    }
}

fn address(caller: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + caller))
}

#[tokio::test]
async fn one_caller_with_many_tokens_has_a_share_of_each_table_and_no_more() {
    const OTHERS: u32 = 20;
    let world = World::new().await;
    for number in 1..=OTHERS {
        drop(world.log_in(number).await);
    }
    let most = OTHERS as usize + MAX_PER_CALLER;
    for token in 0..u32::try_from(MAX_PER_CALLER).unwrap() + 50 {
        let identity = world.verified(0, token).await;
        world.buy(&identity).await;
        let (verified, bought) = (world.verifier.remembered()[0], world.exchanger.remembered());
        assert!(verified <= most && bought <= most, "{verified} and {bought} after {token}");
    }
    assert_eq!(world.verifier.remembered()[0], most, "the share is met at its bound, and the others' are there");
}

#[tokio::test]
async fn ten_thousand_callers_come_and_go_and_every_table_stays_within_its_bound() {
    let mut world = World::new().await;
    let mut open = VecDeque::new();
    let mut most = 0;
    for number in 0..CALLERS {
        if open.len() == AT_ONCE {
            open.pop_front();
        }
        open.push_back(world.log_in(number).await);
        world.pass(PACE).await;
        for (table, remembered, bound) in world.tables() {
            assert!(remembered <= bound, "{table}: {remembered} after {number} callers");
        }
        most = most.max(world.limits.remembered().1);
    }
    let remembered: Vec<usize> = world.tables().into_iter().map(|(_, remembered, _)| remembered).collect();
    let recent = usize::try_from(CALLERS).unwrap() - AT_ONCE;
    assert_eq!(remembered[..1], [MAX_GOOD], "the table is met at its bound");
    assert_eq!(most, recent, "who has left is remembered while the connect is");
    assert_eq!(world.tokens.remembered(), CALLERS as usize);
    open.clear();
    // Nothing is remembered of who has left, once it cannot matter.
    world.pass(Duration::from_secs(2 * 3600)).await;
    world.offset.store(NOW + 2 * 3600 - Timestamp::now().as_second() + 24 * 3600, Ordering::Relaxed);
    world.limits.sweep();
    world.tokens.sweep(world.now());
    world.exchanger.sweep();
    let left: Vec<_> = world.tables().into_iter().filter(|(_, remembered, _)| *remembered > 0).collect();
    assert_eq!(left.len(), 1, "only that their signatures were good: {left:?}");
}

//! What is remembered, for how long, and how much of it.

use super::super::MAX_PER_CALLER;
use super::super::testing::{Entra, NOW, Signer, contoso, now, person, verifier};
use super::super::{IssuerConfig, VerifiedIdentity, Verifier, claims};
use super::*;
use crate::secret::Secret;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

/// One key, its tokens, and what is remembered of them.
struct Desk {
    signer: Signer,
    key: PublicKey,
    issuer: IssuerConfig,
    seen: Signatures,
}

impl Desk {
    fn new(failures: u32) -> Self {
        let signer = Signer::generate("k");
        let key = signer.public_key();
        Self { signer, key, issuer: contoso("https://login.example"), seen: Signatures::new(failures) }
    }

    fn claims(&self, id: usize) -> Value {
        let mut claims = person(&self.issuer.url());
        claims["uti"] = json!(format!("token-{id}"));
        claims
    }

    fn good(&self, id: usize) -> String {
        self.signer.sign(&self.claims(id))
    }

    /// A token with some other signature; made without any RSA.
    fn forged(&self, id: usize) -> String {
        let good = self.good(0);
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        format!("{header}.{}.{signature}", super::super::testing::encode(self.claims(id).to_string().as_bytes()))
    }

    fn show(&self, token: &str, from: impl Into<Option<IpAddr>>, time: Timestamp) -> Result<(), Error> {
        let seen = Seen { from: from.into(), at: time, leeway: self.issuer.leeway };
        let judge = |jws: Jws<'_>, proven| claims::check(&jws.claims(proven), &self.issuer, time);
        self.seen.check(Jws::parse(token).unwrap(), &self.key, seen, judge).map(|_| ())
    }
}

#[test]
fn a_storm_of_reconnects_costs_one_check() {
    let desk = Desk::new(10);
    let token = desk.good(1);
    for _ in 0..1000 {
        desk.show(&token, HERE, now()).unwrap();
    }
    assert_eq!((desk.seen.checks(), desk.seen.sizes()), (1, [1, 0, 0]));
}

#[test]
fn the_repetition_of_a_bad_token_costs_no_check_and_is_told_the_same() {
    let desk = Desk::new(10);
    let forged = desk.forged(1);
    let expired = desk.signer.sign(&{
        let mut claims = desk.claims(2);
        claims["exp"] = json!(NOW - 3600);
        claims
    });
    for _ in 0..100 {
        assert!(matches!(desk.show(&forged, HERE, now()), Err(Error::Signature)));
        assert!(matches!(desk.show(&expired, HERE, now()), Err(Error::Expired(_))));
    }
    assert_eq!((desk.seen.checks(), desk.seen.sizes()), (2, [0, 2, 1]));
    // Later it is looked at again, in case the key was not there yet, say.
    assert!(desk.show(&forged, HERE, at(60)).is_err());
    assert_eq!(desk.seen.checks(), 3);
}

#[test]
fn every_hit_judges_the_claims_anew() {
    let desk = Desk::new(10);
    let token = desk.good(1);
    desk.show(&token, HERE, now()).unwrap();
    // It ends at NOW + 3600, and the leeway is 60 seconds.
    desk.show(&token, HERE, at(3659)).unwrap();
    assert_eq!(desk.seen.checks(), 1);
    assert!(matches!(desk.show(&token, HERE, at(3660)), Err(Error::Expired(_))), "known, and judged");
    let judged = desk.seen.check(
        Jws::parse(&token).unwrap(),
        &desk.key,
        Seen { from: Some(HERE), at: now(), leeway: desk.issuer.leeway },
        |_, _| Err(Error::Audience),
    );
    assert!(matches!(judged, Err(Error::Audience)), "a stricter judge is heard");
}

#[test]
fn a_token_that_is_not_valid_yet_is_let_in_when_it_is() {
    let desk = Desk::new(10);
    let mut claims = desk.claims(1);
    claims["nbf"] = json!(NOW + 90);
    let token = desk.signer.sign(&claims);
    assert!(matches!(desk.show(&token, HERE, now()), Err(Error::NotYetValid)));
    desk.show(&token, HERE, at(30)).unwrap();
    assert_eq!(desk.seen.checks(), 1, "its signature is known to be right");
}

#[test]
fn a_verdict_ends_with_its_token() {
    let desk = Desk::new(10);
    for id in 0..10 {
        desk.show(&desk.good(id), HERE, now()).unwrap();
    }
    assert_eq!(desk.seen.sizes()[0], 10);
    let mut later = desk.claims(10);
    later["exp"] = json!(NOW + 7200);
    desk.show(&desk.signer.sign(&later), HERE, at(3660)).unwrap();
    assert_eq!(desk.seen.sizes()[0], 1, "what has ended makes room");
}

#[test]
fn a_verdict_holds_for_its_key_only() {
    let mut desk = Desk::new(10);
    let (good, forged) = (desk.good(1), desk.forged(2));
    desk.show(&good, HERE, now()).unwrap();
    assert!(desk.show(&forged, HERE, now()).is_err());
    // The same key, fetched again.
    desk.key = desk.signer.public_key();
    desk.show(&good, HERE, now()).unwrap();
    assert_eq!(desk.seen.checks(), 2);
    // Another key under the same id.
    desk.key = Signer::generate("k").public_key();
    assert!(matches!(desk.show(&good, HERE, now()), Err(Error::Signature)));
    assert!(matches!(desk.show(&forged, HERE, now()), Err(Error::Signature)));
    assert_eq!(desk.seen.checks(), 4);
}

#[test]
fn different_bad_tokens_of_one_address_are_limited_and_good_ones_that_are_known_are_not() {
    let desk = Desk::new(3);
    let known = desk.good(0);
    desk.show(&known, HERE, now()).unwrap();
    for id in 1..=3 {
        assert!(matches!(desk.show(&desk.forged(id), HERE, now()), Err(Error::Signature)));
    }
    let checks = desk.seen.checks();
    for id in 4..=20 {
        assert!(matches!(desk.show(&desk.forged(id), HERE, now()), Err(Error::TooManyBad)));
    }
    assert!(matches!(desk.show(&desk.good(21), HERE, now()), Err(Error::TooManyBad)), "nobody knows that it is good");
    assert_eq!(desk.seen.checks(), checks, "no signature was checked");
    desk.show(&known, HERE, now()).unwrap();
    desk.show(&desk.good(22), THERE, now()).unwrap();
    assert!(matches!(desk.show(&desk.forged(4), HERE, at(60)), Err(Error::Signature)), "a new minute");
}

#[test]
fn nobody_is_limited_for_what_others_send_through_the_same_balancer() {
    let desk = Desk::new(3);
    for id in 1..=20 {
        assert!(matches!(desk.show(&desk.forged(id), None, now()), Err(Error::Signature)));
    }
    desk.show(&desk.good(21), None, now()).unwrap();
    assert_eq!(desk.seen.sizes()[2], 0, "no address is remembered");
}

#[test]
fn one_ipv6_network_is_one_address() {
    let desk = Desk::new(1);
    let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(matches!(desk.show(&desk.forged(1), v6("2001:db8::1"), now()), Err(Error::Signature)));
    assert!(matches!(desk.show(&desk.forged(2), v6("2001:db8::ffff:2"), now()), Err(Error::TooManyBad)));
    assert!(matches!(desk.show(&desk.forged(3), v6("2001:db8:0:1::1"), now()), Err(Error::Signature)));
    assert!(matches!(desk.show(&desk.forged(4), v6("::ffff:192.0.2.1"), now()), Err(Error::Signature)));
    assert!(matches!(desk.show(&desk.forged(5), HERE, now()), Err(Error::TooManyBad)), "the same IPv4 address");
}

#[test]
fn who_has_many_ipv6_networks_has_no_more_than_four_times_as_many_tokens_checked() {
    let desk = Desk::new(3);
    let show = |id: usize, from: String| desk.show(&desk.forged(id), from.parse::<IpAddr>().unwrap(), now());
    let checked = |ids: std::ops::Range<usize>, from: &dyn Fn(usize) -> String| {
        ids.filter(|id| matches!(show(*id, from(*id)), Err(Error::Signature))).count()
    };
    assert_eq!(checked(0..50, &|id| format!("2001:db8:1:{id:x}::1")), 6, "of one /56, each time from another /64");
    assert_eq!(checked(100..200, &|id| format!("2001:db8:1:{id:x}00::1")), 6, "of one /48 twelve in all");
    assert_eq!(checked(200..300, &|id| format!("2001:db8:2:{:x}00::1", id - 200)), 12, "another site");
    assert_eq!(checked(300..310, &|_| "192.0.2.9".to_owned()), 3);
}

#[test]
fn a_clock_that_is_set_back_locks_nobody_out() {
    let desk = Desk::new(1);
    assert!(desk.show(&desk.forged(1), HERE, at(1000)).is_err());
    assert!(matches!(desk.show(&desk.forged(2), HERE, now()), Err(Error::Signature)));
}

/// Ten thousand and more of everything: callers, forgers, addresses.
#[test]
fn what_is_remembered_stays_within_its_bounds() {
    let mut state = State {
        good: Verdicts::new(MAX_GOOD),
        failed: Verdicts::new(MAX_FAILED),
        addresses: Default::default(),
        checks: 0,
    };
    let key = Signer::generate("k").public_key();
    let issuer = contoso("https://login.example");
    let facts = claims::check(person(&issuer.url()).as_object().unwrap(), &issuer, now()).unwrap();
    let digest = |n: u32| {
        let mut digest = Digest::default();
        digest[..4].copy_from_slice(&n.to_be_bytes());
        digest
    };
    for n in 0..10_000 {
        let from = IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 + n));
        let seen = Seen { from: Some(from), at: now(), leeway: Duration::ZERO };
        let expires_at = at(3600 + i64::from(n));
        state.learn(
            digest(n),
            &key,
            seen,
            &Ok(IdentityFacts { expires_at, object_id: n.to_string(), ..facts.clone() }),
        );
        state.learn(digest(!n), &key, seen, &Err(Error::Signature));
        assert!(state.good.known.len() <= MAX_GOOD && state.good.by_end.len() == state.good.known.len());
        assert!(state.failed.known.len() <= MAX_FAILED && state.failed.by_end.len() == state.failed.known.len());
        let subnet =
            IpAddr::V6(std::net::Ipv6Addr::from_bits((0x2001_0db8_0000_0000 + u128::from(n) * 0x1_0001) << 64));
        state.count(Seen { from: Some(subnet), ..seen });
        assert!(state.addresses.iter().all(|width| width.len() <= MAX_ADDRESSES));
    }
    assert_eq!(state.recall(&digest(9_999), &key, now()), Some(true), "the newest are there");
    assert_eq!(state.recall(&digest(!9_999), &key, now()), Some(false));
    assert_eq!(state.recall(&digest(0), &key, now()), None, "those that end first have gone");
    // All have ended: one more insertion finds them and makes room.
    let seen = Seen { from: Some(HERE), at: at(100_000), leeway: Duration::ZERO };
    let expires_at = at(200_000);
    state.learn(digest(20_000), &key, seen, &Ok(IdentityFacts { expires_at, ..facts }));
    state.learn(digest(20_001), &key, seen, &Err(Error::Signature));
    assert_eq!([state.good.known.len(), state.failed.known.len()], [1, 1]);
}

#[test]
fn one_callers_many_tokens_push_out_no_others() {
    let mut good = Verdicts::new(MAX_GOOD);
    let key = *Signer::generate("k").public_key().fingerprint();
    let digest = |n: usize| {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&n.to_be_bytes());
        digest
    };
    let verdict = |of: usize, seconds: usize| Verdict {
        key,
        of: Some(CallerId::number(of)),
        signed: true,
        until: at(i64::try_from(seconds).unwrap()),
    };
    // The others' end first: they would be the first to go.
    for n in 0..1000 {
        good.insert(digest(n), verdict(n, 60), now());
    }
    for n in 1000..1000 + MAX_GOOD * 2 {
        good.insert(digest(n), verdict(7, n), now());
    }
    assert_eq!(good.known.len(), 999 + MAX_PER_CALLER, "the seventh's own first token was the first to go");
    assert!((0..1000).filter(|n| *n != 7).all(|n| good.known.contains_key(&digest(n))));
    assert!(good.known.contains_key(&digest(999 + MAX_GOOD * 2)) && good.by_end.len() == good.known.len());
    good.insert(digest(1), verdict(1, 100_001), at(100_000));
    assert_eq!((good.known.len(), good.shares.of(CallerId::number(7)).count()), (1, 0));
}

async fn verified(verifier: &Verifier, token: &str) -> Result<VerifiedIdentity, Error> {
    verifier.verify(Secret::new(token.to_owned()), HERE, now()).await
}

/// The whole verifier, with a key that is withdrawn, and another verifier, as after a reload.
#[tokio::test]
async fn a_known_token_dies_with_its_key_and_with_its_verifier() {
    let entra = Entra::start().await;
    let (before, token) = (verifier(vec![entra.config()]), entra.signer.sign(&entra.person()));
    for _ in 0..50 {
        verified(&before, &token).await.unwrap();
    }
    assert_eq!(before.signatures.checks(), 1);
    let rolled = Signer::generate("key-2");
    *entra.keys.lock().unwrap() = Some(json!({"keys": [rolled.jwk()]}));
    verified(&before, &rolled.sign(&entra.person())).await.unwrap();
    assert!(matches!(verified(&before, &token).await, Err(Error::UnknownKey)), "known, but its key is gone");
    let reloaded = verifier(vec![IssuerConfig { allowed_apps: vec!["x".to_owned()], ..entra.config() }]);
    let outcome = verified(&reloaded, &rolled.sign(&entra.person())).await;
    assert!(matches!(outcome, Err(Error::App(_))), "{outcome:?}");
}

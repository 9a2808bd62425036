//! Keys over time: rollover, an issuer that is away, strangers' key ids. Time is moved by hand.

use super::super::testing::{self, CALLER, Entra, Signer, now, with_entra};
use super::super::{Error, KEYS_EVERY, Verifier};
use super::{FAILURE_HOLD, KEEP_FOR, REFRESH_AFTER, REFRESH_INTERVAL};
use crate::secret::Secret;
use serde_json::json;
use std::time::Duration;

async fn verify(verifier: &Verifier, entra: &Entra, signer: &Signer) -> Result<(), Error> {
    verifier.verify(Secret::new(signer.sign(&entra.person())), CALLER, now()).await.map(|_| ())
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn publish(entra: &Entra, signers: &[&Signer]) {
    *entra.keys.lock().unwrap() = Some(json!({"keys": signers.iter().map(|s| s.jwk()).collect::<Vec<_>>()}));
}

#[tokio::test]
async fn a_new_key_is_fetched_once_and_unknown_ids_are_no_hammer() {
    let entra = Entra::start().await;
    let verifier = entra.verifier();
    verify(&verifier, &entra, &entra.signer).await.unwrap();
    pass(REFRESH_INTERVAL).await;

    let strangers: Vec<Signer> = (0..3).map(|n| Signer::generate(&format!("../../stranger-{n}"))).collect();
    for stranger in &strangers {
        assert!(matches!(verify(&verifier, &entra, stranger).await, Err(Error::UnknownKey)));
    }
    assert_eq!(entra.key_fetches(), 2, "the first stranger's id was looked up, the others' were not");

    let rolled = Signer::generate("key-2");
    publish(&entra, &[&entra.signer, &rolled]);
    assert!(matches!(verify(&verifier, &entra, &rolled).await, Err(Error::UnknownKey)));
    pass(REFRESH_INTERVAL).await;
    verify(&verifier, &entra, &rolled).await.unwrap();
    verify(&verifier, &entra, &entra.signer).await.unwrap();
    assert_eq!(entra.key_fetches(), 3);
}

#[tokio::test]
async fn a_roll_right_after_the_start_is_followed_for_all_who_come_at_once() {
    let entra = Entra::start().await;
    let verifier = std::sync::Arc::new(entra.verifier());
    verify(&verifier, &entra, &entra.signer).await.unwrap();
    let rolled = Signer::generate("key-2");
    publish(&entra, &[&rolled]);
    let token = rolled.sign(&entra.person());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (verifier, token) = (std::sync::Arc::clone(&verifier), Secret::new(token.clone()));
        callers.spawn(async move { verifier.verify(token, CALLER, now()).await.map(|_| ()) });
    }
    assert!(callers.join_all().await.iter().all(Result::is_ok));
    assert_eq!(entra.key_fetches(), 2);
}

#[tokio::test]
async fn many_first_callers_share_one_fetch() {
    let entra = Entra::start().await;
    let verifier = std::sync::Arc::new(entra.verifier());
    let token = entra.signer.sign(&entra.person());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (verifier, token) = (std::sync::Arc::clone(&verifier), Secret::new(token.clone()));
        callers.spawn(async move { verifier.verify(token, CALLER, now()).await.map(|_| ()) });
    }
    assert!(callers.join_all().await.iter().all(Result::is_ok));
    assert_eq!(entra.key_fetches(), 1);
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_stop_the_fetch() {
    let entra = Entra::start().await;
    let verifier = entra.verifier();
    let given_up = tokio::time::timeout(Duration::ZERO, verify(&verifier, &entra, &entra.signer)).await;
    assert!(given_up.is_err());
    verify(&verifier, &entra, &entra.signer).await.unwrap();
    assert_eq!(entra.key_fetches(), 1);
}

#[tokio::test]
async fn old_keys_serve_while_the_issuer_is_away_but_not_for_ever() {
    let entra = Entra::start().await;
    let verifier = entra.verifier();
    verify(&verifier, &entra, &entra.signer).await.unwrap();
    *entra.keys.lock().unwrap() = None;
    pass(REFRESH_AFTER).await;
    verify(&verifier, &entra, &entra.signer).await.unwrap();
    while entra.key_fetches() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let unknown = verify(&verifier, &entra, &Signer::generate("key-2")).await;
    assert!(matches!(unknown, Err(Error::Keys { .. } | Error::UnknownKey)), "{unknown:?}");
    verify(&verifier, &entra, &entra.signer).await.unwrap();

    pass(KEEP_FOR).await;
    let outcome = verify(&verifier, &entra, &entra.signer).await;
    assert!(matches!(outcome, Err(Error::Keys { .. })), "{outcome:?}");
    publish(&entra, &[&entra.signer]);
    assert!(verify(&verifier, &entra, &entra.signer).await.is_err(), "the failure is held for a moment");
    pass(FAILURE_HOLD).await;
    verify(&verifier, &entra, &entra.signer).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_withdrawn_stops_working_after_the_next_refresh() {
    let entra = Entra::start().await;
    let verifier = entra.verifier();
    verify(&verifier, &entra, &entra.signer).await.unwrap();
    let rolled = Signer::generate("key-2");
    publish(&entra, &[&rolled]);
    pass(REFRESH_AFTER).await;
    verify(&verifier, &entra, &rolled).await.unwrap();
    assert!(matches!(verify(&verifier, &entra, &entra.signer).await, Err(Error::UnknownKey)));
}

#[tokio::test]
async fn warm_up_says_whose_keys_cannot_be_had() {
    let entra = Entra::start().await;
    let mut gone = with_entra(entra.config(), |entra| entra.authority = "http://127.0.0.1:1".to_owned());
    gone.name = crate::names::IssuerName::parse("gone").unwrap();
    let verifier = testing::verifier(vec![entra.config(), gone]);
    let failed = verifier.warm_up().await;
    assert_eq!(failed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["gone"]);
    assert!(
        verifier.warm_up().await.len() == 1 && entra.key_fetches() == 1,
        "keys that are there are not fetched again"
    );
}

#[tokio::test]
async fn answers_that_are_no_keys_are_named() {
    let entra = Entra::start().await;
    *entra.keys.lock().unwrap() = Some(json!({"keys": [{"kty": "oct", "kid": "key-1", "k": "AAAA"}]}));
    let outcome = verify(&entra.verifier(), &entra, &entra.signer).await;
    let Err(Error::Keys { source, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(source.to_string().ends_with("answered 200 with something that is not a key set"), "{source}");
}

/// Waits, by the wall clock, until the keys were fetched so often.
async fn fetched(entra: &Entra, times: usize) {
    let wait = async {
        while entra.key_fetches() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("the keys are fetched");
    // The answer of the last one arrives.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_timer_keeps_keys_fresh_while_nobody_comes_and_follows_a_reload() {
    let entra = Entra::start().await;
    let serving = std::sync::Arc::new(std::sync::Mutex::new(std::sync::Arc::new(entra.verifier())));
    let current = std::sync::Arc::clone(&serving);
    let timer = tokio::spawn(super::super::keep_keys(move || std::sync::Arc::clone(&current.lock().unwrap())));
    fetched(&entra, 1).await;
    pass(REFRESH_AFTER.checked_sub(KEYS_EVERY).unwrap()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(entra.key_fetches(), 1, "they are not old yet");
    let rolled = Signer::generate("key-2");
    publish(&entra, &[&entra.signer, &rolled]);
    pass(KEYS_EVERY).await;
    fetched(&entra, 2).await;
    let verifier = std::sync::Arc::clone(&serving.lock().unwrap());
    verify(&verifier, &entra, &rolled).await.unwrap();
    assert_eq!(entra.key_fetches(), 2, "the new key was there before anybody came with it");
    *serving.lock().unwrap() = std::sync::Arc::new(entra.verifier());
    pass(KEYS_EVERY).await;
    fetched(&entra, 3).await;
    timer.abort();
}

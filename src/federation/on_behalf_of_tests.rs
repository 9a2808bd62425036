//! The trade against an Entra on loopback: what is sent, what is believed, what is told.

use super::*;
use crate::federation::tests::{caller, google, workforce};
use crate::federation::{Exchanger, Remedy};
use crate::http::testing::{Seen, Server, client};
use crate::names::IssuerName;
use crate::time::{Timestamp, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const APP: &str = "3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10";
const SECOND: &str = "c4d5e6f7-0819-4a2b-8c3d-4e5f60718291";
const TENANT: &str = "6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91";
const SECRET: &str = "Q~SECRET-OF-THE-APP";

fn token(claims: &Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The claims of a right answer, with these in place of their own; null takes one out.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({ "aud": SECOND, "azp": APP, "oid": "analyst", "tid": TENANT });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn answer(changes: &Value, expires_in: u32) -> String {
    json!({ "token_type": "Bearer", "expires_in": expires_in, "scope": "x", "access_token": token(&claims(changes)) })
        .to_string()
}

/// The trade, and the folder of its secret.
fn trade(url: &str) -> (OnBehalfOf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    let config = OnBehalfOfConfig {
        token_endpoint: format!("{url}/{TENANT}/oauth2/v2.0/token"),
        client_id: APP.to_owned(),
        scope: "api://second/.default".to_owned(),
        audience: SECOND.to_owned(),
        credential: CredentialConfig::SecretFile(file),
    };
    let second = Duration::from_secs(5);
    (OnBehalfOf::new(config, client(), Clock::system(), (second, second)).unwrap(), folder)
}

fn person() -> VerifiedIdentity {
    let mut person = caller("CALLERS-TOKEN");
    person.facts.object_id = "analyst".to_owned();
    person
}

#[tokio::test]
async fn the_callers_token_goes_with_the_apps_proof_and_the_answer_is_the_same_persons() {
    let server = Server::start(|_: &Seen| (200, answer(&json!({}), 4500))).await;
    let (trade, _folder) = trade(&server.url);
    let begin = Timestamp::now();
    let traded = trade.trade(&person()).await.unwrap();
    assert_eq!(*traded.token.expose(), token(&claims(&json!({}))));
    assert!((4499..=4505).contains(&until(traded.expires_at, begin).as_secs()));
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].method.as_str(), seen[0].header("authorization")), ("POST", None));
    for (field, value) in [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("requested_token_use", "on_behalf_of"),
        ("assertion", "CALLERS-TOKEN"),
        ("scope", "api://second/.default"),
        ("client_id", APP),
        ("client_secret", SECRET),
    ] {
        assert_eq!(seen[0].field(field).as_deref(), Some(value), "{field}");
    }
}

#[tokio::test]
async fn anybody_elses_token_is_not_taken_on() {
    for changes in [
        json!({ "oid": "somebody-else" }),
        json!({ "tid": "b1e7a3c4-52d6-4f8b-9a0e-7c6d5e4f3a2b" }),
        json!({ "aud": APP }),
        json!({ "azp": "another-app" }),
        json!({ "oid": null }),
        json!({ "aud": [SECOND] }),
    ] {
        let reply = answer(&changes, 4500);
        let server = Server::start(move |_: &Seen| (200, reply.clone())).await;
        let error = trade(&server.url).0.trade(&person()).await.unwrap_err();
        assert!(matches!(error, Error::Broken { hop: Hop::OnBehalfOf, .. }), "{changes}: {error:?}");
        assert!(!format!("{error:?}").contains("e30."), "{error:?}");
    }
    let server = Server::start(|_: &Seen| (200, answer(&json!({ "azp": null, "appid": APP }), 60))).await;
    assert!(trade(&server.url).0.trade(&person()).await.is_ok(), "v1.0 tokens say appid");
    for (token_type, expires_in) in [("mac", 60), ("Bearer", 0), ("Bearer", MAX_LIFE_SECONDS + 1)] {
        let token = token(&claims(&json!({})));
        let reply = json!({ "token_type": token_type, "expires_in": expires_in, "access_token": token }).to_string();
        let server = Server::start(move |_: &Seen| (200, reply.clone())).await;
        assert!(matches!(trade(&server.url).0.trade(&person()).await, Err(Error::Broken { .. })), "{token_type}");
    }
}

#[tokio::test]
async fn a_refusal_has_entras_numbers_and_no_secret_and_is_not_asked_again() {
    let reply = json!({
        "error": "invalid_grant", "error_codes": [50076, 1],
        "error_description": format!("AADSTS50076: you {SECRET} must CALLERS-TOKEN use multifactor\r\nTrace ID: x"),
    });
    let reply = reply.to_string();
    let server = Server::start(move |_: &Seen| (400, reply.clone())).await;
    let error = trade(&server.url).0.trade(&person()).await.unwrap_err();
    assert_eq!(error.remedy(), Some(Remedy::SignIn));
    let Error::Refused { code, description, .. } = error else { panic!("{error:?}") };
    assert_eq!(code, "invalid_grant AADSTS50076 AADSTS1");
    assert_eq!(description, "AADSTS50076: you … must … use multifactorTrace ID: x");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn what_was_bought_does_not_outlive_what_it_was_bought_with_and_goes_by_that() {
    let entra = Server::start(|_: &Seen| (200, answer(&json!({}), 120))).await;
    let sts = Server::start(|_: &Seen| {
        let granted = json!({ "access_token": "ya29.d.x", "token_type": "Bearer", "expires_in": 3599,
                              "issued_token_type": "urn:ietf:params:oauth:token-type:access_token" });
        (200, granted.to_string())
    })
    .await;
    let (trade, _folder) = trade(&entra.url);
    let trades = BTreeMap::from([(IssuerName::parse("contoso").unwrap(), trade)]);
    let exchanger = Exchanger::new(google(&sts.url, client(), Clock::system()), trades);
    let begin = Timestamp::now();
    let token = exchanger.exchange(&workforce(None), &person()).await.unwrap();
    assert!(until(token.expires_at, begin).as_secs() <= 125);
    assert_ne!(sts.seen()[0].field("subject_token").as_deref(), Some("CALLERS-TOKEN"));
    exchanger.exchange(&workforce(None), &person()).await.unwrap();
    assert_eq!((entra.seen().len(), sts.seen().len()), (1, 1), "kept");
    // Software's token goes as it is.
    let mut app = caller("APPS-TOKEN");
    app.facts.kind = CallerKind::App;
    exchanger.exchange(&workforce(None), &app).await.unwrap();
    assert_eq!(entra.seen().len(), 1);
    assert_eq!(sts.seen()[1].field("subject_token").as_deref(), Some("APPS-TOKEN"));
}

//! Entra: documents, grants and their refusals.

use super::driver::{Driver, text};
use crate::sim::entra::read;
use crate::sim::world::{ANALYST, CONTOSO, FABRIKAM, ORDERS_APP, OWN_IDENTITY, PROXY_API, SIGN_IN_CLIENT};
use crate::sim::{Endpoint, Fault, Hop, Signing, TokenSpec, Version};
use serde_json::Value;

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

#[tokio::test]
async fn documents_name_the_issuer_and_keys_that_tokens_use() {
    let driver = Driver::start().await;
    let base = driver.cloud.entra_authority();
    let token = driver.mint(&TokenSpec::person(&ANALYST));
    let (header, claims) = read(&token).unwrap();
    let url = format!("{base}/{}/v2.0/.well-known/openid-configuration", CONTOSO.id);
    let (_, discovery) = driver.get(&url).await;
    assert_eq!(discovery["issuer"], claims["iss"]);
    let (_, keys) = driver.get(discovery["jwks_uri"].as_str().unwrap()).await;
    let keys = keys["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    assert_eq!((&key["issuer"], &key["x5t"]), (&claims["iss"], &key["kid"]));
    assert!(keys.len() > 1, "there are always several keys");
    // A stranger's check of the signature, with another library.
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.clone()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_audience(&[PROXY_API]);
    let decoding = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    jsonwebtoken::decode::<Value>(&token, &decoding, &validation).unwrap();
    for signing in
        [Signing::WrongKey, Signing::UnknownKey, Signing::None, Signing::Hs256WithPublicKey, Signing::KeyOf(FABRIKAM)]
    {
        let wrong = driver.mint(&TokenSpec::person(&ANALYST).signing(signing));
        assert!(jsonwebtoken::decode::<Value>(&wrong, &decoding, &validation).is_err(), "{signing:?}");
    }
    let (status, unknown) = driver.get(&format!("{base}/nobody.example/v2.0/.well-known/openid-configuration")).await;
    assert_eq!((status, &unknown["error_codes"][0]), (400, &90_002.into()));
    driver.cloud.faults().set(Hop::EntraDiscovery, Fault::Status(503));
    assert_eq!(driver.http.get(&url).send().await.unwrap().status(), 503);
    assert_eq!(driver.cloud.calls().count(Endpoint::EntraDiscovery), 3);
}

#[tokio::test]
async fn apps_sign_in_with_their_secret_and_nothing_else() {
    let driver = Driver::start().await;
    let url = format!("{}/{}/oauth2/v2.0/token", driver.cloud.entra_authority(), CONTOSO.id);
    let form = |secret: &'static str, scope: &'static str| {
        [
            ("grant_type", "client_credentials"),
            ("client_id", ORDERS_APP.client_id),
            ("client_secret", secret),
            ("scope", scope),
        ]
    };
    let token = text(&driver.post(&url, &form(ORDERS_APP.secret, "api://pgpassport/.default")).await, "access_token");
    let (_, claims) = read(&token).unwrap();
    assert_eq!(
        (&claims["oid"], &claims["aud"], &claims["ver"]),
        (&ORDERS_APP.object_id.into(), &PROXY_API.into(), &"2.0".into())
    );
    let graph = text(
        &driver.post(&url, &form(ORDERS_APP.secret, "https://graph.microsoft.com/.default")).await,
        "access_token",
    );
    assert!(read(&graph).unwrap().0.contains_key("nonce"));
    for (secret, scope, status, code) in [
        ("wrong", "api://pgpassport/.default", 401, 7_000_215),
        (ORDERS_APP.secret, "api://another/.default", 400, 500_011),
        (ORDERS_APP.secret, "api://pgpassport/access_as_user", 400, 1_002_012),
    ] {
        let (got, body) = driver.post(&url, &form(secret, scope)).await;
        assert_eq!((got, &body["error_codes"][0]), (status, &code.into()), "{body}");
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")));
    }
    let elsewhere = format!("{}/{}/oauth2/v2.0/token", driver.cloud.entra_authority(), FABRIKAM.domain);
    let (got, body) = driver.post(&elsewhere, &form(ORDERS_APP.secret, "api://pgpassport/.default")).await;
    assert_eq!((got, &body["error_codes"][0]), (400, &700_016.into()));
    assert_eq!(driver.post(&url, &[("grant_type", "password")]).await.1["error"], "unsupported_grant_type");
}

#[tokio::test]
async fn people_sign_in_by_device_code_once_the_browser_says_so() {
    let driver = Driver::start().await;
    let base = format!("{}/{}", driver.cloud.entra_authority(), CONTOSO.id);
    let scope = "api://pgpassport/.default offline_access openid profile";
    let begin = async || {
        let form = [("client_id", SIGN_IN_CLIENT), ("scope", scope)];
        driver.post(&format!("{base}/oauth2/v2.0/devicecode"), &form).await.1
    };
    let poll = async |code: &Value| {
        let form = [
            ("grant_type", DEVICE_GRANT),
            ("client_id", SIGN_IN_CLIENT),
            ("device_code", code["device_code"].as_str().unwrap()),
        ];
        driver.post(&format!("{base}/oauth2/v2.0/token"), &form).await
    };
    let decide = async |code: &Value, login: &str, decision: &str| {
        let form = [("otc", code["user_code"].as_str().unwrap()), ("login", login), ("decision", decision)];
        driver.http.post(code["verification_uri"].as_str().unwrap()).form(&form).send().await.unwrap().status().as_u16()
    };
    for (scope, expected) in [("api://pgpassport/anything", 650_053), ("api://another/.default", 500_011)] {
        let form = [("client_id", SIGN_IN_CLIENT), ("scope", scope)];
        let (status, body) = driver.post(&format!("{base}/oauth2/v2.0/devicecode"), &form).await;
        assert_eq!((status, &body["error_codes"][0]), (400, &expected.into()), "{body}");
    }
    let code = begin().await;
    let (status, pending) = poll(&code).await;
    assert_eq!(
        (status, &pending["error"], &pending["error_codes"][0]),
        (400, &"authorization_pending".into(), &70_016.into())
    );
    assert_eq!(decide(&code, "outsider@fabrikam.example", "approve").await, 400, "another tenant's person");
    assert_eq!(decide(&code, ANALYST.upn, "approve").await, 200);
    let answer = poll(&code).await;
    let (_, claims) = read(&text(&answer, "access_token")).unwrap();
    assert_eq!((&claims["upn"], &claims["tid"]), (&ANALYST.upn.into(), &CONTOSO.id.into()));
    assert_eq!(read(&text(&answer, "id_token")).unwrap().1["aud"], SIGN_IN_CLIENT);
    assert_eq!(poll(&code).await.1["error"], "bad_verification_code", "a code is good for one token");
    let declined = begin().await;
    decide(&declined, ANALYST.upn, "decline").await;
    assert_eq!(poll(&declined).await.1["error"], "authorization_declined");
    let late = begin().await;
    driver.cloud.shift_clock(901);
    assert_eq!(poll(&late).await.1["error"], "expired_token");
}

#[tokio::test]
async fn the_managed_identity_endpoint_wants_its_header_and_keeps_its_token() {
    let driver = Driver::start().await;
    let url =
        format!("{}?api-version=2019-08-01&resource=api://AzureADTokenExchange", driver.cloud.identity_endpoint());
    let ask = async |url: &str, header: &str| {
        let response = driver.http.get(url).header("x-identity-header", header).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let header = driver.cloud.identity_header();
    let first = ask(&url, header).await;
    let token = text(&first, "access_token");
    assert!(first.1["expires_on"].as_str().unwrap().parse::<i64>().is_ok(), "a string of digits");
    assert_eq!(text(&ask(&url, header).await, "access_token"), token, "the platform caches");
    let (_, claims) = read(&token).unwrap();
    assert_eq!((&claims["ver"], &claims["aud"]), (&"2.0".into(), &"fb60f99c-7a34-4190-8149-302f77469936".into()));
    assert_eq!(ask(&url, "wrong").await.0, 401);
    assert_eq!(ask(&format!("{url}x"), header).await.0, 400, "unknown resource");
    assert_eq!(ask(&format!("{url}&client_id=nobody"), header).await.0, 400);
    driver.cloud.shift_clock(86_401);
    assert_ne!(text(&ask(&url, header).await, "access_token"), token);
}

#[tokio::test]
async fn graph_wants_other_permissions_for_software_than_for_people() {
    let driver = Driver::start().await;
    let graph = driver.cloud.graph_url();
    let status = async |roles: &[&str], member: &str| {
        let spec = TokenSpec::managed_identity(&OWN_IDENTITY).version(Version::V1).audience(graph);
        let token = driver.mint(&spec.header("nonce", "n").claim("roles", roles));
        let url = format!("{graph}/v1.0/{member}/getMemberGroups");
        let body = serde_json::json!({ "securityEnabledOnly": true });
        driver.post_json(&url, &token, &body).await.0
    };
    let (person, app) = (format!("users/{}", ANALYST.object_id), format!("servicePrincipals/{}", ORDERS_APP.object_id));
    let (people, software) = (["User.ReadBasic.All", "GroupMember.Read.All"], ["Application.Read.All"]);
    assert_eq!((status(&people, &person).await, status(&people, &app).await), (200, 403));
    assert_eq!((status(&software, &person).await, status(&software, &app).await), (403, 200));
    assert_eq!(status(&software, "servicePrincipals/nobody").await, 404);
}

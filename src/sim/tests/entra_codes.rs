//! Entra: authorization codes, PKCE, refresh tokens, and the page that a browser sees.

use super::driver::{Driver, text};
use crate::sim::entra::read;
use crate::sim::world::{ANALYST, CONTOSO, PROXY_API, SIGN_IN_CLIENT};
use serde_json::Value;

/// Query parameters of a sign-in that is right, with the RFC 7636 example's challenge.
const SIGN_IN: [(&str, &str); 9] = [
    ("client_id", SIGN_IN_CLIENT),
    ("response_type", "code"),
    ("redirect_uri", "http://localhost:8400"),
    ("scope", "api://pgpassport/.default offline_access openid"),
    ("state", "a&b"),
    ("nonce", "n-1"),
    ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
    ("code_challenge_method", "S256"),
    ("login_hint", "analyst@contoso.example"),
];
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// `SIGN_IN` with other values, as the browser sends it; status, `Location` and page.
async fn browse(driver: &Driver, others: &[(&str, &str)]) -> (u16, String, String) {
    let value = |name: &str, value: &'static str| {
        let other = others.iter().find(|(other, _)| *other == name);
        other.map_or(value, |(_, value)| value).to_owned()
    };
    let mut query: Vec<_> = SIGN_IN.iter().map(|(name, is)| (*name, value(name, is))).collect();
    query.extend(
        others
            .iter()
            .filter(|(name, _)| !SIGN_IN.iter().any(|(known, _)| known == name))
            .map(|(n, v)| (*n, (*v).to_owned())),
    );
    query.retain(|(_, value)| !value.is_empty());
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", value.replace('&', "%26").replace(' ', "+"))).collect();
    let url = format!("{}/{}/oauth2/v2.0/authorize?{}", driver.cloud.entra_authority(), CONTOSO.id, pairs.join("&"));
    let response = driver.http.get(&url).send().await.unwrap();
    let location = response.headers().get("location").map_or("", |value| value.to_str().unwrap()).to_owned();
    (response.status().as_u16(), location, response.text().await.unwrap())
}

async fn redeem(driver: &Driver, location: &str, others: &[(&str, &str)]) -> (u16, Value) {
    let code = location.split(['?', '&']).find_map(|part| part.strip_prefix("code=")).expect("a code");
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("client_id", SIGN_IN_CLIENT),
        ("code", code),
        ("redirect_uri", "http://localhost:8400"),
        ("code_verifier", VERIFIER),
    ];
    for (name, value) in others {
        form.retain(|(known, _)| known != name);
        form.push((name, value));
    }
    form.retain(|(_, value)| !value.is_empty());
    driver.post(&format!("{}/{}/oauth2/v2.0/token", driver.cloud.entra_authority(), CONTOSO.id), &form).await
}

#[tokio::test]
async fn people_sign_in_by_code_and_stay_signed_in_by_refresh_tokens() {
    let driver = Driver::start().await;
    let (status, location, _) = browse(&driver, &[]).await;
    assert_eq!(status, 302);
    assert!(location.starts_with("http://localhost:8400?code=") && location.ends_with("&state=a%26b"), "{location}");
    let answer = redeem(&driver, &location, &[]).await;
    assert_eq!(read(&text(&answer, "access_token")).unwrap().1["oid"], ANALYST.object_id);
    let (_, id_token) = read(&text(&answer, "id_token")).unwrap();
    assert_eq!((&id_token["nonce"], &id_token["aud"]), (&"n-1".into(), &SIGN_IN_CLIENT.into()));
    let url = format!("{}/{}/oauth2/v2.0/token", driver.cloud.entra_authority(), CONTOSO.id);
    let refresh_token = text(&answer, "refresh_token");
    let refresh = [("grant_type", "refresh_token"), ("client_id", SIGN_IN_CLIENT), ("refresh_token", &refresh_token)];
    let again = driver.post(&url, &refresh).await;
    assert_ne!(text(&again, "access_token"), text(&answer, "access_token"));
    assert_eq!(driver.post(&url, &refresh).await.0, 200, "an old refresh token stays good");
    let later = text(&again, "refresh_token");
    driver.cloud.shift_clock(91 * 86_400);
    let late = [("grant_type", "refresh_token"), ("client_id", SIGN_IN_CLIENT), ("refresh_token", &later)];
    assert_eq!(driver.post(&url, &late).await.1["error_codes"][0], 700_082);
}

#[tokio::test]
async fn codes_are_for_whom_and_what_they_were_given() {
    let driver = Driver::start().await;
    for (others, status, code) in [
        (&[("code_verifier", "x")][..], 400, 501_481),
        (&[("code_verifier", "")], 400, 501_481),
        (&[("redirect_uri", "http://localhost:8401")], 400, 500_112),
        (&[("code", "1.unknown")], 400, 9_002_313),
        (&[("client_id", PROXY_API)], 400, 700_016),
        (&[("scope", "api://another/.default")], 400, 500_011),
        (&[("scope", "https://graph.microsoft.com/.default")], 400, 70_000),
    ] {
        let (_, location, _) = browse(&driver, &[]).await;
        let (got, body) = redeem(&driver, &location, others).await;
        assert_eq!((got, &body["error_codes"][0]), (status, &code.into()), "{body}");
    }
    let (_, location, _) = browse(&driver, &[]).await;
    assert_eq!(redeem(&driver, &location, &[]).await.0, 200);
    assert_eq!(redeem(&driver, &location, &[]).await.1["error_codes"][0], 54_005, "twice");
    let (_, location, _) = browse(&driver, &[]).await;
    driver.cloud.shift_clock(601);
    assert_eq!(redeem(&driver, &location, &[]).await.1["error_codes"][0], 70_008, "late");
}

#[tokio::test]
async fn the_sign_in_page_asks_refuses_and_never_redirects_to_elsewhere() {
    let driver = Driver::start().await;
    for (others, text) in [
        (("redirect_uri", "https://evil.example"), "AADSTS50011"),
        (("client_id", PROXY_API), "AADSTS700016"),
        (("scope", "api://another/.default"), "AADSTS500011"),
        (("response_type", "token"), "AADSTS700054"),
        (("login_hint", "outsider@fabrikam.example"), "This username may be incorrect"),
    ] {
        let (status, location, page) = browse(&driver, &[others]).await;
        assert_eq!((status, location.as_str()), (400, ""), "{others:?}");
        assert!(page.contains(text), "{page}");
    }
    let (status, _, page) = browse(&driver, &[("login_hint", "")]).await;
    assert!(status == 200 && page.contains("name=login_hint"), "{page}");
    let (_, location, _) = browse(&driver, &[("decision", "decline")]).await;
    assert!(location.contains("error=access_denied") && !location.contains("code="), "{location}");
    let (status, _, page) = browse(&driver, &[("response_mode", "form_post")]).await;
    assert!(
        status == 200 && page.contains("action=\"http://localhost:8400\"") && page.contains("name=\"code\""),
        "{page}"
    );
    let (_, location, _) = browse(&driver, &[("response_mode", "fragment")]).await;
    assert!(location.starts_with("http://localhost:8400#code="), "{location}");
}

//! Whole tokens against a tenant on loopback: the checklist of what token checks get wrong.

use super::testing::{
    AUDIENCE, CALLER, EcSigner, Entra, PERSON, Signer, TENANT, app, encode, now, okta, okta_person, verifier,
    with_entra,
};
use super::*;
use serde_json::json;

async fn refusal(entra: &Entra, token: String) -> Error {
    entra.verifier().verify(Secret::new(token), CALLER, now()).await.unwrap_err()
}

#[tokio::test]
async fn a_valid_token_proves_its_identity_and_is_kept_for_the_exchange() {
    let entra = Entra::start().await;
    let (verifier, token) = (entra.verifier(), entra.signer.sign(&entra.person()));
    let identity = verifier.verify(Secret::new(token.clone()), CALLER, now()).await.unwrap();
    assert_eq!((identity.facts().object_id.as_str(), identity.facts().kind), (PERSON, CallerKind::User));
    assert_eq!(identity.token().expose(), &token);
    assert!(!format!("{identity:?}").contains(&token));
    let machine =
        verifier.verify(Secret::new(entra.signer.sign(&app(&entra.issuer_url()))), CALLER, now()).await.unwrap();
    assert_eq!(machine.facts().kind, CallerKind::App);
    assert_eq!(entra.key_fetches(), 1, "keys are fetched once");
}

#[tokio::test]
async fn alg_none_and_hs256_with_the_public_key_are_refused_before_any_fetch() {
    let entra = Entra::start().await;
    let claims = encode(entra.person().to_string().as_bytes());
    let none = format!("{}.{claims}.", encode(br#"{"alg":"none","kid":"key-1"}"#));
    assert!(matches!(refusal(&entra, none).await, Error::Algorithm));
    let signed = format!("{}.{claims}", encode(br#"{"alg":"HS256","kid":"key-1","typ":"JWT"}"#));
    let modulus = entra.signer.jwk()["n"].as_str().unwrap().to_owned();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, modulus.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    assert!(matches!(refusal(&entra, format!("{signed}.{}", encode(tag.as_ref()))).await, Error::Algorithm));
    assert!(entra.server.seen().is_empty(), "nothing was fetched");
}

#[tokio::test]
async fn keys_and_addresses_in_the_token_are_ignored() {
    let entra = Entra::start().await;
    let attacker = Signer::generate("key-1");
    let claims = encode(entra.person().to_string().as_bytes());
    let header = json!({"alg": "RS256", "kid": "key-1", "jwk": attacker.jwk(), "x5c": ["AAAA"],
                        "jku": format!("{}/attacker", entra.server.url), "x5u": format!("{}/attacker", entra.server.url)});
    let own = attacker.sign(&entra.person());
    let forged = format!("{}.{claims}.{}", encode(header.to_string().as_bytes()), own.rsplit('.').next().unwrap());
    assert!(matches!(refusal(&entra, forged).await, Error::Signature));
    assert!(matches!(refusal(&entra, own).await, Error::Signature));
    assert!(entra.server.seen().iter().all(|request| !request.target.contains("attacker")));
}

#[tokio::test]
async fn a_graph_token_is_named_as_one() {
    let entra = Entra::start().await;
    let header = encode(br#"{"alg":"RS256","kid":"key-1","nonce":"n"}"#);
    let token = format!("{header}.{}.{}", encode(entra.person().to_string().as_bytes()), encode(b"s"));
    assert!(matches!(refusal(&entra, token).await, Error::GraphToken));
}

#[tokio::test]
async fn strangers_are_refused_without_a_fetch() {
    let entra = Entra::start().await;
    let other = "11111111-1111-4111-8111-111111111111";
    let v1 = format!("https://sts.windows.net/{TENANT}/");
    for (changes, expected) in [
        (
            json!({"iss": format!("{}/{other}/v2.0", entra.server.url), "tid": other}),
            format!("tenant {other} is not accepted"),
        ),
        (json!({"iss": v1, "ver": "1.0"}), "the token is an Entra v1.0 token".to_owned()),
        (
            json!({"iss": format!("{}.attacker.example/{TENANT}/v2.0", entra.server.url)}),
            "the token's issuer is not accepted".to_owned(),
        ),
        (json!({"iss": [entra.issuer_url()]}), "the token has no usable claim \"iss\"".to_owned()),
        (json!({"iss": 7}), "the token has no usable claim \"iss\"".to_owned()),
        (json!({"iss": "x", "tid": "not a\u{1b}[31m guid"}), "the token's issuer is not accepted".to_owned()),
    ] {
        let mut claims = entra.person();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        assert_eq!(refusal(&entra, entra.signer.sign(&claims)).await.to_string(), expected);
    }
    assert!(entra.server.seen().is_empty(), "nothing was fetched");
}

#[tokio::test]
async fn signed_claims_are_still_checked() {
    let entra = Entra::start().await;
    let verifier = entra.verifier();
    for (claim, value, expected) in [
        ("aud", json!("00000003-0000-0000-c000-000000000000"), "another audience"),
        ("exp", json!(1_700_000_000), "expired"),
        ("nbf", json!(1_900_000_000), "not valid yet"),
        ("tid", json!("11111111-1111-4111-8111-111111111111"), "issuer"),
    ] {
        let mut claims = entra.person();
        claims[claim] = value;
        let error = verifier.verify(Secret::new(entra.signer.sign(&claims)), CALLER, now()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{claim}: {error}");
    }
}

#[tokio::test]
async fn an_id_token_is_refused_where_access_tokens_say_their_type() {
    let entra = Entra::start().await;
    let (url, signer) = (entra.issuer_url(), EcSigner::generate("ec-1"));
    *entra.keys.lock().unwrap() = Some(json!({"keys": [entra.signer.jwk(), signer.jwk()]}));
    let mut issuer = okta(&url, &[Algorithm::Rs256, Algorithm::Es256]);
    let claims = okta_person(&url);
    let (untyped, typed) = (entra.signer.sign(&claims), signer.sign(&claims));
    let any = verifier(vec![issuer.clone()]);
    for token in [&untyped, &typed] {
        assert!(any.verify(Secret::new(token.clone()), CALLER, now()).await.is_ok());
    }
    if let Dialect::Oidc(oidc) = &mut issuer.dialect {
        oidc.token_type = TokenType::AccessToken;
    }
    let strict = verifier(vec![issuer]);
    assert!(strict.verify(Secret::new(typed), CALLER, now()).await.is_ok());
    assert!(matches!(strict.verify(Secret::new(untyped), CALLER, now()).await, Err(Error::TokenType)));
}

#[tokio::test]
async fn two_registrations_of_another_provider_are_told_apart_by_an_audience_in_a_list() {
    let entra = Entra::start().await;
    // The stand-in publishes its keys under the tenant's address, whoever asks.
    let url = entra.issuer_url();
    let first = okta(&url, &[Algorithm::Rs256]);
    let second = IssuerConfig {
        name: IssuerName::parse("second").unwrap(),
        audiences: vec!["second".to_owned()],
        ..okta(&url, &[Algorithm::Rs256])
    };
    let verifier = verifier(vec![first, second]);
    let mut claims = okta_person(&url);
    for (audience, issuer) in [("pgpassport", "okta"), ("second", "second")] {
        claims["aud"] = json!([audience]);
        let identity = verifier.verify(Secret::new(entra.signer.sign(&claims)), CALLER, now()).await.unwrap();
        assert_eq!(identity.facts().issuer.as_str(), issuer);
    }
}

#[tokio::test]
async fn two_registrations_of_one_tenant_are_told_apart_by_audience() {
    let entra = Entra::start().await;
    let second = IssuerConfig {
        name: IssuerName::parse("second").unwrap(),
        audiences: vec!["second".to_owned()],
        ..entra.config()
    };
    let verifier = verifier(vec![entra.config(), second]);
    let mut claims = entra.person();
    for (audience, issuer) in [(AUDIENCE, "contoso"), ("second", "second")] {
        claims["aud"] = json!(audience);
        let identity = verifier.verify(Secret::new(entra.signer.sign(&claims)), CALLER, now()).await.unwrap();
        assert_eq!(identity.facts().issuer.as_str(), issuer);
    }
    claims["aud"] = json!("third");
    let outcome = verifier.verify(Secret::new(entra.signer.sign(&claims)), CALLER, now()).await;
    assert!(matches!(outcome, Err(Error::Audience)));
}

#[tokio::test]
async fn a_key_that_signs_for_other_tenants_is_refused() {
    let entra = Entra::start().await;
    let mut foreign = entra.signer.jwk();
    foreign["issuer"] = json!("https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0");
    *entra.keys.lock().unwrap() = Some(json!({"keys": [foreign]}));
    assert!(matches!(refusal(&entra, entra.signer.sign(&entra.person())).await, Error::Issuer));
}

#[tokio::test]
async fn errors_never_quote_the_token() {
    let entra = Entra::start().await;
    let mut claims = entra.person();
    claims["aud"] = json!("SECRET-AUDIENCE");
    claims["oid"] = json!("SECRET-OID");
    let token = entra.signer.sign(&claims);
    for text in [token.clone(), token.replace('.', "!"), format!("{token}SECRET")] {
        let error = refusal(&entra, text).await;
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("SECRET") && !shown.contains(&token[..20]), "{shown}");
    }
}

/// Two tenants, each with its own key, both configured.
async fn two_tenants() -> (Entra, Entra, Verifier) {
    let (contoso, fabrikam) = (Entra::start().await, Entra::start().await);
    let mut second = with_entra(fabrikam.config(), |entra| entra.tenant = TenantId::parse(OTHER).unwrap());
    second.name = IssuerName::parse("fabrikam").unwrap();
    let verifier = verifier(vec![contoso.config(), second]);
    (contoso, fabrikam, verifier)
}

const OTHER: &str = "b1e7a3c4-52d6-4f8b-9a0e-7c6d5e4f3a2b";

/// The second tenant's own person, with the ids of the first one's.
fn of_fabrikam(fabrikam: &Entra) -> Value {
    let mut claims = fabrikam.person();
    claims["iss"] = json!(fabrikam.issuer_url().replace(TENANT, OTHER));
    claims["tid"] = json!(OTHER);
    claims
}

#[tokio::test]
async fn each_of_several_tenants_speaks_for_itself_alone() {
    let (contoso, fabrikam, verifier) = two_tenants().await;
    let verify = async |token: String| verifier.verify(Secret::new(token), CALLER, now()).await;
    assert_eq!(verify(contoso.signer.sign(&contoso.person())).await.unwrap().facts().issuer.as_str(), "contoso");
    let own = of_fabrikam(&fabrikam);
    assert_eq!(verify(fabrikam.signer.sign(&own)).await.unwrap().facts().issuer.as_str(), "fabrikam");
    // One tenant's administrators can neither sign for the other nor claim to be it.
    assert!(matches!(verify(fabrikam.signer.sign(&contoso.person())).await, Err(Error::Signature)));
    for (claim, value) in [("tid", json!(TENANT)), ("iss", contoso.person()["iss"].clone())] {
        let mut claims = own.clone();
        claims[claim] = value;
        let outcome = verify(fabrikam.signer.sign(&claims)).await;
        assert!(matches!(outcome, Err(Error::Issuer | Error::Signature)), "{claim}: {outcome:?}");
    }
}

#[tokio::test]
async fn the_same_ids_in_another_tenant_are_somebody_else() {
    let (contoso, fabrikam, verifier) = two_tenants().await;
    let verify = async |token: String| verifier.verify(Secret::new(token), CALLER, now()).await.unwrap();
    let ours = verify(contoso.signer.sign(&contoso.person())).await;
    let theirs = verify(fabrikam.signer.sign(&of_fabrikam(&fabrikam))).await;
    let identity = |facts: &IdentityFacts| (facts.issuer.clone(), facts.tenant.clone(), facts.object_id.clone());
    assert_eq!(ours.facts().object_id, theirs.facts().object_id);
    assert_eq!(ours.facts().claims.get("sub"), theirs.facts().claims.get("sub"));
    assert_ne!(identity(ours.facts()), identity(theirs.facts()));
}

#[tokio::test]
async fn names_and_addresses_say_nothing_of_who_it_is() {
    let entra = Entra::start().await;
    let verifier = entra.verifier();
    let mut claims = entra.person();
    for name in ["email", "name", "preferred_username", "upn", "unique_name", "given_name"] {
        claims[name] = json!("ceo@contoso.example");
    }
    let identity = verifier.verify(Secret::new(entra.signer.sign(&claims)), CALLER, now()).await.unwrap();
    assert_eq!((identity.facts().object_id.as_str(), identity.facts().tenant.as_str()), (PERSON, TENANT));
    let borrowed: Vec<&str> = identity
        .facts()
        .claims
        .iter()
        .filter(|(_, value)| value.contains('@'))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(borrowed, ["upn"], "the tenant gives user names out; whether they may name a database user is a rule's");
}

/// Ten thousand different callers, of whom each comes twice.
#[tokio::test]
async fn ten_thousand_callers_stay_within_the_bounds() {
    let signer = EcSigner::generate("e");
    let keys = json!({"keys": [signer.jwk()]}).to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let issuer = url.clone();
    let _server = crate::http::testing::Server::bind(listener, move |request: &crate::http::testing::Seen| {
        let document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}).to_string();
        (200, if request.target == "/keys" { keys.clone() } else { document })
    });
    let verifier = verifier(vec![okta(&url, &[Algorithm::Es256])]);
    for caller in 0..10_000_u32 {
        let mut claims = okta_person(&url);
        claims["sub"] = json!(format!("00u{caller}"));
        let token = signer.sign(&claims);
        for _ in 0..2 {
            let identity = verifier.verify(Secret::new(token.clone()), CALLER, now()).await.unwrap();
            assert_eq!(identity.facts().object_id, format!("00u{caller}"));
        }
        claims["aud"] = json!("other");
        if caller % 10 == 0 {
            let from = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0A00_0000 + caller));
            assert!(verifier.verify(Secret::new(signer.sign(&claims)), from, now()).await.is_err());
        }
    }
    let [good, failed, addresses] = verifier.signatures.sizes();
    assert_eq!((good, failed, addresses), (MAX_GOOD, 1000, 1000));
    assert_eq!(verifier.signatures.checks(), 11_000, "each token once");
}

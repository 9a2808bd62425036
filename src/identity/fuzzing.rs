//! Fuzz targets: tokens, their claims, and the keys that issuers publish.

#![allow(clippy::missing_panics_doc, clippy::panic, reason = "a target's panic is its finding")]

use super::claims::{NO_SUBJECTS, check};
use super::jwks::{KeySet, Lookup, keys_url};
use super::jws::{Jws, PublicKey};
use super::{
    Algorithm, CallerKind, Dialect, Entra, IssuerConfig, KindRule, LEEWAY, MAX_KEYS, MAX_TOKEN_BYTES, Oidc, Overage,
    TokenType, Version, json,
};
use crate::fuzzing::Choices;
use crate::http::Response;
use crate::names::{IssuerName, Tenant, TenantId};
use crate::time::{Timestamp, later};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The time at which claims are judged.
const NOW: i64 = 1_790_000_000;
/// One token, signed with a key that was thrown away, behind the byte that says "a token".
const GENUINE: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/proto-tests/fuzz/corpus/jws/genuine"));
/// That key's public half, as a key set.
const KEY: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/proto-tests/fuzz/corpus/jwks/genuine"));

/// Byte 0: any text is tried as a token. Byte 1: header, payload and signature stand between NULs and are encoded first.
/// A token is three segments of base64url without padding that decode and encode to themselves; its header says RS256
/// or ES256, names a key and has no member that changes the rules, however it is spaced. No token but the genuine one verifies.
pub fn jws(data: &[u8]) {
    let mut choices = Choices::new(data);
    let encoded = choices.byte() % 2 == 1;
    let token = if encoded {
        let mut parts = choices.rest().splitn(3, |byte| *byte == 0).map(|part| URL_SAFE_NO_PAD.encode(part));
        let mut part = || parts.next().unwrap_or_default();
        format!("{}.{}.{}", part(), part(), part())
    } else {
        match std::str::from_utf8(choices.rest()) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        }
    };
    let Ok(parsed) = Jws::parse(&token) else { return };
    assert!(token.len() <= MAX_TOKEN_BYTES);
    let segments: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = segments.as_slice() else { panic!("{} segments", segments.len()) };
    for segment in [header, payload, signature] {
        let bytes = URL_SAFE_NO_PAD.decode(segment).unwrap_or_default();
        assert!(!bytes.is_empty() && URL_SAFE_NO_PAD.encode(bytes) == **segment, "{segment}");
    }
    for spaced in
        [format!("{token}\n"), format!(" {token}"), format!("{token}="), format!("{header}=.{payload}.{signature}")]
    {
        assert!(Jws::parse(&spaced).is_err(), "{spaced:?}");
    }
    let decoded = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    let members: Map<String, Value> = serde_json::from_slice(&decoded).unwrap_or_default();
    assert!(matches!(parsed.algorithm().as_str(), "RS256" | "ES256"));
    assert_eq!(members.get("alg").and_then(Value::as_str), Some(parsed.algorithm().as_str()));
    assert!(!members.contains_key("crit") && !members.contains_key("nonce"));
    assert_eq!(members.get("kid").and_then(Value::as_str), Some(parsed.kid()));
    let spaced = serde_json::to_string_pretty(&members).unwrap_or_default();
    let again = format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(spaced));
    assert!(again.len() > MAX_TOKEN_BYTES || Jws::parse(&again).is_ok_and(|again| again.kid() == parsed.kid()));
    let genuine = GENUINE.get(1..) == Some(token.as_bytes());
    assert_eq!(genuine_key().is_some_and(|key| parsed.verify(&key).is_ok()), genuine, "{token}");
}

fn genuine_key() -> Option<Arc<PublicKey>> {
    match KeySet::parse(KEY, &entra())?.find("fuzz", Algorithm::Rs256) {
        Lookup::Found(key) => Some(key),
        Lookup::Foreign | Lookup::Unknown => None,
    }
}

/// Claims that are accepted say, exactly, the configured issuer and audience, are of their time, and have what the issuer's
/// kind demands; what becomes of them can be shown, compared and bounded.
pub fn token_claims(data: &[u8]) {
    let now = Timestamp::from_second(NOW).unwrap_or(Timestamp::MAX);
    let Some(claims) = json::object(data) else { return };
    let says = |name: &str| claims.get(name).and_then(Value::as_str);
    for issuer in [entra(), oidc()] {
        let Ok(facts) = check(&claims, &issuer, now) else { continue };
        assert_eq!(says("iss"), Some(issuer.url().as_str()));
        assert!(issuer.audiences.iter().any(|audience| says("aud") == Some(audience)));
        let seconds = |name: &str| claims.get(name).and_then(Value::as_i64).unwrap_or(NOW);
        let leeway = i64::try_from(LEEWAY.as_secs()).unwrap_or(0);
        assert!(NOW - leeway < seconds("exp") && seconds("nbf") <= NOW + leeway && seconds("iat") <= NOW + leeway);
        assert!(now < later(facts.expires_at, LEEWAY));
        let shown = facts.claims.values().chain([&facts.label, &facts.object_id]).chain(facts.groups.iter().flatten());
        for text in shown.chain(facts.roles.iter().flatten()) {
            assert!(!text.is_empty() && text.len() <= super::MAX_CLAIM_BYTES && !text.chars().any(char::is_control));
        }
        assert!(!NO_SUBJECTS.iter().any(|name| facts.claims.contains_key(*name)));
        match &issuer.dialect {
            Dialect::Entra(entra) => {
                assert_eq!(says("ver"), Some("2.0"));
                assert_eq!(says("tid").and_then(|tid| TenantId::parse(tid).ok()), Some(entra.tenant));
                for id in [&facts.object_id, &facts.app] {
                    assert!(id.len() == 36 && !id.bytes().any(|byte| byte.is_ascii_uppercase()), "{id}");
                }
                assert!(!claims.contains_key("hasgroups") || facts.groups.is_none(), "an overage is not a list");
                let marked = says("upn").is_some_and(|upn| upn.contains("#EXT#")) && facts.claims.contains_key("upn");
                assert!(facts.kind == CallerKind::App || !marked || facts.guest);
            }
            Dialect::Oidc(oidc) => {
                assert_eq!((says("sub"), &facts.tenant), (Some(facts.object_id.as_str()), &oidc.tenant));
                assert!(oidc.required_claims.iter().all(|(name, value)| says(name) == Some(value)));
                assert_eq!(facts.kind == CallerKind::User, claims.contains_key("uid"));
            }
        }
    }
}

/// Only keys for signatures, of the kinds and sizes that are accepted and of this issuer, are found, each for its own
/// algorithm; spaces between a key set's members change nothing. A discovery document leads to https or to the
/// authority itself.
pub fn jwks(data: &[u8]) {
    let answer = Response { status: 200, body: data.to_vec(), ..Response::default() };
    for issuer in [entra(), oidc()] {
        if let Some(url) = keys_url(&answer, &issuer) {
            assert!(url.starts_with("https://"), "{url}");
            let says = json::object(data).and_then(|members| members.get("issuer").cloned());
            assert_eq!(says, Some(Value::String(issuer.url())));
        }
        keys(data, &issuer);
    }
}

fn keys(data: &[u8], issuer: &IssuerConfig) {
    let Some(set) = KeySet::parse(data, issuer) else { return };
    let document: Value = serde_json::from_slice(data).unwrap_or_default();
    let entries = document.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
    assert!((1..=MAX_KEYS).contains(&entries.len()));
    let spaced = serde_json::to_vec_pretty(&document).unwrap_or_default();
    let again = KeySet::parse(&spaced, issuer);
    let mut usable = 0;
    for kid in entries.iter().filter_map(|entry| entry.get("kid")?.as_str()) {
        for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
            let found = matches!(set.find(kid, algorithm), Lookup::Found(_));
            let same = |again: &KeySet| matches!(again.find(kid, algorithm), Lookup::Found(_)) == found;
            assert!(again.as_ref().is_some_and(same), "spaces decide about {kid:?}");
            let named = entries.iter().filter(|entry| entry.get("kid") == Some(&kid.into()));
            let good = named.clone().any(|entry| signs_for(entry, issuer, algorithm));
            assert_eq!(found, good, "{kid:?}");
        }
        usable += usize::from(!matches!(set.find(kid, Algorithm::Rs256), Lookup::Unknown));
    }
    assert!(usable > 0, "a set without a key");
}

/// A second, plainer reading of a key.
fn signs_for(entry: &Value, issuer: &IssuerConfig, algorithm: Algorithm) -> bool {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let bytes =
        |name: &str| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).map_or(0, |bytes| bytes.len());
    let whose = match &issuer.dialect {
        Dialect::Entra(side) => {
            let named = text("issuer").map(|issuer| issuer.replace("{tenantid}", &side.tenant.to_string()));
            named == Some(issuer.url())
        }
        Dialect::Oidc(oidc) => text("issuer") == Some(&oidc.url),
    };
    let shape = match algorithm {
        Algorithm::Rs256 => {
            text("kty") == Some("RSA") && (256..=1024).contains(&bytes("n")) && (1..=8).contains(&bytes("e"))
        }
        Algorithm::Es256 => {
            let allowed = matches!(issuer.dialect, Dialect::Oidc(_));
            let point = bytes("x") == 32 && bytes("y") == 32;
            allowed && text("kty") == Some("EC") && text("crv") == Some("P-256") && point
        }
    };
    shape
        && text("use") == Some("sig")
        && (entry.get("alg").is_none() || text("alg") == Some(algorithm.as_str()))
        && (entry.get("issuer").is_none() || whose)
}

fn entra() -> IssuerConfig {
    let Ok(tenant) = TenantId::parse("6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91") else { panic!("this is an id") };
    issuer(
        "contoso",
        "3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10",
        Dialect::Entra(Entra {
            tenant,
            version: Version::V2,
            authority: "https://login.microsoftonline.com".to_owned(),
            v1_authority: "https://sts.windows.net".to_owned(),
            required_scopes: Vec::new(),
            required_roles: Vec::new(),
            overage: Overage::Deny,
        }),
    )
}

fn oidc() -> IssuerConfig {
    let Ok(tenant) = Tenant::parse("okta") else { panic!("this is a tenant") };
    issuer(
        "okta",
        "pgpassport",
        Dialect::Oidc(Oidc {
            url: "https://contoso.okta.example/oauth2/default".to_owned(),
            tenant,
            algorithms: vec![Algorithm::Rs256, Algorithm::Es256],
            token_type: TokenType::Any,
            kind: KindRule::UserClaim("uid".to_owned()),
            subject_claim: "sub".to_owned(),
            label_claim: Some("email".to_owned()),
            groups_claim: Some("groups".to_owned()),
            roles_claim: None,
            app_claim: Some("cid".to_owned()),
            token_id_claim: "jti".to_owned(),
            required_claims: BTreeMap::from([("org".to_owned(), "contoso".to_owned())]),
        }),
    )
}

fn issuer(name: &str, audience: &str, dialect: Dialect) -> IssuerConfig {
    let Ok(name) = IssuerName::parse(name) else { panic!("this is a name") };
    IssuerConfig {
        name,
        audiences: vec![audience.to_owned()],
        allowed_apps: Vec::new(),
        allowed_kinds: Vec::new(),
        leeway: LEEWAY,
        max_token_age: None,
        dialect,
    }
}

#[cfg(test)]
mod tests {
    use crate::fuzzing::corpus::replay;

    #[test]
    fn jws() {
        replay("jws", super::jws);
    }

    #[test]
    fn token_claims() {
        replay("token_claims", super::token_claims);
    }

    #[test]
    fn jwks() {
        replay("jwks", super::jwks);
    }
}

//! An issuer's keys: from its discovery document, by way of `jwks_uri`, to signing keys by id.
//!
//! `OpenID` Connect Discovery 1.0 §4.3 (the issuer must be exactly the expected one), RFC 7517, and Microsoft's
//! per-key `issuer` member, which keeps the keys of other kinds of accounts from signing for a tenant.

use super::jws::{Algorithm, PublicKey};
use super::{IssuerConfig, KeyFetchError, json};
use crate::http::{Client, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// The most keys that are kept of one set; Entra publishes about ten.
pub const MAX_KEYS: usize = 100;
/// RSA moduli in bytes, least and most: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// The longest public exponent in bytes; 65537 has three.
const MAX_EXPONENT_BYTES: usize = 8;

/// One published key.
struct Key {
    kid: String,
    public: Arc<PublicKey>,
    /// Whether the key's own `issuer` member, if it has one, names the issuer it was fetched for.
    ours: bool,
}

/// The usable keys of an issuer at one time.
pub(super) struct KeySet(Vec<Key>);

/// What a key id stands for.
pub(super) enum Lookup {
    /// The key.
    Found(Arc<PublicKey>),
    /// The key exists and signs for other issuers, or with another algorithm.
    Foreign,
    /// No such key.
    Unknown,
}

impl KeySet {
    /// Looks a key up by its exact id and algorithm.
    pub(super) fn find(&self, kid: &str, algorithm: Algorithm) -> Lookup {
        let mut named = self.0.iter().filter(|key| key.kid == kid).peekable();
        if named.peek().is_none() {
            return Lookup::Unknown;
        }
        let fits = |key: &&Key| key.ours && key.public.algorithm() == algorithm;
        named.find(fits).map_or(Lookup::Foreign, |key| Lookup::Found(Arc::clone(&key.public)))
    }

    /// Reads a key set; keys of other kinds and uses are left out, and a set without any usable key is none.
    pub(super) fn parse(body: &[u8], issuer: &IssuerConfig) -> Option<Self> {
        let document = json::object(body)?;
        let entries = document.get("keys")?.as_array()?;
        if entries.len() > MAX_KEYS {
            return None;
        }
        let keys: Vec<Key> = entries.iter().filter_map(|entry| Key::parse(entry.as_object()?, issuer)).collect();
        if keys.is_empty() { None } else { Some(Self(keys)) }
    }
}

impl Key {
    fn parse(entry: &Map<String, Value>, issuer: &IssuerConfig) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        if text("use") != Some("sig") {
            return None;
        }
        let public = match text("kty")? {
            "RSA" => rsa(entry)?,
            "EC" => p256(entry)?,
            _ => return None,
        };
        let algorithm = public.algorithm();
        let agrees = entry.get("alg").is_none_or(|alg| alg.as_str() == Some(algorithm.as_str()));
        if !agrees || !issuer.signs_with(algorithm) {
            return None;
        }
        let ours = match entry.get("issuer") {
            None => true,
            Some(member) => issuer.owns_key(member.as_str()?),
        };
        Some(Self { kid: text("kid")?.to_owned(), public: Arc::new(public), ours })
    }
}

/// RFC 7518 §6.3.1.
fn rsa(entry: &Map<String, Value>) -> Option<PublicKey> {
    let (modulus, exponent) = (bytes(entry, "n")?, bytes(entry, "e")?);
    let fits = MODULUS_BYTES.contains(&modulus.len()) && (1..=MAX_EXPONENT_BYTES).contains(&exponent.len());
    fits.then(|| PublicKey::rsa(&modulus, &exponent))
}

/// RFC 7518 §6.2.1.
fn p256(entry: &Map<String, Value>) -> Option<PublicKey> {
    if entry.get("crv")?.as_str()? != "P-256" {
        return None;
    }
    let coordinate = |name| <[u8; 32]>::try_from(bytes(entry, name)?).ok();
    Some(PublicKey::p256(&coordinate("x")?, &coordinate("y")?))
}

fn bytes(entry: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(entry.get(name)?.as_str()?).ok()
}

/// Fetches an issuer's keys: two GETs, each within `deadline`. Nothing but the config names the first address,
/// and the second is HTTPS or beside the first.
pub(super) async fn fetch(issuer: &IssuerConfig, http: &Client, deadline: Duration) -> Result<KeySet, KeyFetchError> {
    let url = issuer.discovery_url();
    let document = http.get(&url, None, deadline).await?;
    let keys_url = keys_url(&document, issuer).ok_or_else(|| malformed(&url, &document, "a discovery document"))?;
    let keys = http.get(&keys_url, None, deadline).await?;
    let set = if keys.status == 200 { KeySet::parse(&keys.body, issuer) } else { None };
    set.ok_or_else(|| malformed(&keys_url, &keys, "a key set"))
}

pub(super) fn keys_url(document: &Response, issuer: &IssuerConfig) -> Option<String> {
    if document.status != 200 {
        return None;
    }
    let members = json::object(&document.body)?;
    if members.get("issuer")?.as_str()? != issuer.url() {
        return None;
    }
    let url = Url::parse(members.get("jwks_uri")?.as_str()?).ok()?;
    let first = Url::parse(&issuer.discovery_url()).ok()?;
    let trusted = url.scheme() == "https" || url.origin() == first.origin();
    trusted.then(|| url.to_string())
}

fn malformed(url: &str, response: &Response, expected: &'static str) -> KeyFetchError {
    KeyFetchError::Malformed { url: url.to_owned(), status: response.status, expected }
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::super::testing::{EcSigner, Signer, contoso, okta, with_entra};
    use super::*;
    use serde_json::json;

    const ISSUER: &str = "https://login.microsoftonline.com/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/v2.0";

    fn parse(keys: &Value) -> Option<KeySet> {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), &contoso("https://login.microsoftonline.com"))
    }

    fn find(set: &KeySet, kid: &str) -> Lookup {
        set.find(kid, Algorithm::Rs256)
    }

    fn jwk_with(changes: &Value) -> Value {
        let mut jwk = Signer::generate("k").jwk();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                jwk.as_object_mut().unwrap().remove(name);
            } else {
                jwk[name] = value.clone();
            }
        }
        jwk
    }

    #[test]
    fn only_rsa_signing_keys_are_keys() {
        assert!(parse(&json!([jwk_with(&json!({}))])).is_some());
        assert!(parse(&json!([jwk_with(&json!({"alg": "RS256", "x5c": ["AAAA"], "x5t": "k"}))])).is_some());
        for changes in [
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "EC"}),
            json!({"kty": null}),
            json!({"use": "enc"}),
            json!({"use": null}),
            json!({"alg": "HS256"}),
            json!({"alg": 1}),
            json!({"kid": null}),
            json!({"kid": 1}),
            json!({"n": null}),
            json!({"n": "AQAB"}),
            json!({"n": "A".repeat(1368)}),
            json!({"n": "not+base64url"}),
            json!({"e": ""}),
            json!({"e": "A".repeat(12)}),
            json!({"issuer": 1}),
        ] {
            assert!(parse(&json!([jwk_with(&changes)])).is_none(), "{changes}");
        }
        assert!(parse(&json!([])).is_none() && parse(&json!({})).is_none());
        assert!(parse(&json!(vec![json!({}); MAX_KEYS + 1])).is_none());
        let mixed = parse(&json!([{"kty": "oct", "kid": "k"}, 7, jwk_with(&json!({}))])).unwrap();
        assert!(matches!(find(&mixed, "k"), Lookup::Found(_)));
    }

    /// An issuer that is not Entra, and what it may sign with.
    fn other(algorithms: &[Algorithm]) -> IssuerConfig {
        okta("https://login.example", algorithms)
    }

    #[test]
    fn a_key_is_for_the_algorithms_that_its_issuer_may_use() {
        let (rsa, ec) = (Signer::generate("r").jwk(), EcSigner::generate("e").jwk());
        let body = json!({"keys": [rsa, ec]}).to_string();
        let found = |issuer: &IssuerConfig| {
            let set = KeySet::parse(body.as_bytes(), issuer).unwrap();
            let is = |kid, algorithm| matches!(set.find(kid, algorithm), Lookup::Found(_));
            assert!(!is("r", Algorithm::Es256) && !is("e", Algorithm::Rs256), "a key has one algorithm");
            [is("r", Algorithm::Rs256), is("e", Algorithm::Es256)]
        };
        assert_eq!(found(&contoso("https://login.microsoftonline.com")), [true, false]);
        assert_eq!(found(&other(&[Algorithm::Es256])), [false, true]);
        assert_eq!(found(&other(&[Algorithm::Rs256, Algorithm::Es256])), [true, true]);
        for (name, wrong) in
            [("crv", json!("P-384")), ("x", json!("AAAA")), ("y", json!(null)), ("alg", json!("RS256"))]
        {
            let mut bad = EcSigner::generate("e").jwk();
            bad[name] = wrong;
            let body = json!({"keys": [bad]}).to_string();
            assert!(KeySet::parse(body.as_bytes(), &other(&[Algorithm::Es256])).is_none(), "{name}");
        }
    }

    #[test]
    fn a_v1_issuers_keys_are_its_tenants() {
        let v1 = with_entra(contoso("https://login.microsoftonline.com"), |entra| entra.version = Version::V1);
        let tenant = v1.url().replace("https://sts.windows.net/", "").replace('/', "");
        assert_eq!(
            v1.discovery_url(),
            format!("https://login.microsoftonline.com/{tenant}/.well-known/openid-configuration")
        );
        for (member, ours) in [
            (v1.url(), true),
            (ISSUER.to_owned(), true),
            ("https://login.microsoftonline.com/{tenantid}/v2.0".to_owned(), true),
            ("https://sts.windows.net/{tenantid}/".to_owned(), true),
            ("https://sts.windows.net/9188040d-6c67-4c5b-b112-36a304b66dad/".to_owned(), false),
        ] {
            assert_eq!(v1.owns_key(&member), ours, "{member}");
        }
        let okta = other(&[Algorithm::Rs256]);
        assert!(okta.owns_key("https://login.example") && !okta.owns_key("https://login.{tenantid}"));
    }

    #[test]
    fn a_key_of_another_issuer_does_not_speak_for_ours() {
        let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
        let consumers = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0";
        for (issuer, ours) in [(template, true), (ISSUER, true), (consumers, false), ("{tenantid}", false), ("", false)]
        {
            let set = parse(&json!([jwk_with(&json!({"issuer": issuer}))])).unwrap();
            assert_eq!(matches!(find(&set, "k"), Lookup::Found(_)), ours, "{issuer}");
            assert_eq!(matches!(find(&set, "k"), Lookup::Foreign), !ours, "{issuer}");
            assert!(matches!(find(&set, "K"), Lookup::Unknown));
        }
        let both = json!([jwk_with(&json!({"issuer": consumers})), jwk_with(&json!({"issuer": template}))]);
        assert!(matches!(find(&parse(&both).unwrap(), "k"), Lookup::Found(_)));
    }

    #[test]
    fn discovery_must_name_the_issuer_and_a_trusted_address() {
        let microsoft = contoso("https://login.microsoftonline.com");
        let answer =
            |status: u16, body: Value| Response { status, body: body.to_string().into_bytes(), ..Response::default() };
        let good = json!({"issuer": ISSUER, "jwks_uri": "https://keys.example/k"});
        assert_eq!(keys_url(&answer(200, good.clone()), &microsoft).unwrap(), "https://keys.example/k");
        for (status, body) in [
            (500, good),
            (200, json!({"issuer": format!("{ISSUER}/"), "jwks_uri": "https://keys.example/k"})),
            (
                200,
                json!({"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0", "jwks_uri": "https://keys.example/k"}),
            ),
            (200, json!({"jwks_uri": "https://keys.example/k"})),
            (200, json!({"issuer": ISSUER})),
            (200, json!({"issuer": ISSUER, "jwks_uri": "http://keys.example/k"})),
            (200, json!({"issuer": ISSUER, "jwks_uri": "http://login.microsoftonline.com/k"})),
            (200, json!({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"})),
            (200, json!({"issuer": ISSUER, "jwks_uri": "/keys"})),
            (200, json!([])),
        ] {
            assert_eq!(keys_url(&answer(status, body.clone()), &microsoft), None, "{body}");
        }
        let local = contoso("http://127.0.0.1:9");
        let on_authority = json!({"issuer": local.url(), "jwks_uri": "http://127.0.0.1:9/keys"});
        assert!(keys_url(&answer(200, on_authority), &local).is_some());
        let elsewhere = json!({"issuer": local.url(), "jwks_uri": "http://127.0.0.1:10/keys"});
        assert!(keys_url(&answer(200, elsewhere), &local).is_none());
    }
}

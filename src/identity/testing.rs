//! Tokens and keys made on the spot, for tests.

use super::{IssuerConfig, Verifier};
use crate::http::testing::{Seen, Server, client};
use crate::names::{IssuerName, TenantId};
use crate::time::Timestamp;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) const TENANT: &str = "6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91";
pub(super) const AUDIENCE: &str = "3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10";
pub(super) const PERSON: &str = "0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b";
pub(super) const APP: &str = "8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6";
/// The time at which test tokens are judged; they live from a minute before to an hour after.
pub(super) const NOW: i64 = 1_790_000_000;

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A signing key with its id.
pub(super) struct Signer {
    kid: String,
    key: RsaKeyPair,
}

impl Signer {
    pub(super) fn generate(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    /// A token with an ordinary header.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            encode(json!({"alg": "RS256", "typ": "JWT", "kid": self.kid}).to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", encode(&signature))
    }

    /// The key as Entra publishes it.
    pub(super) fn jwk(&self) -> Value {
        let public = self.key.public_key();
        json!({
            "kty": "RSA", "use": "sig", "kid": self.kid, "e": encode(public.exponent().big_endian_without_leading_zero()),
            "n": encode(public.modulus().big_endian_without_leading_zero()),
        })
    }

    pub(super) fn decoding_key(&self) -> DecodingKey {
        let jwk = self.jwk();
        DecodingKey::from_rsa_components(jwk["n"].as_str().unwrap(), jwk["e"].as_str().unwrap()).unwrap()
    }
}

/// A tenant's discovery document and keys on loopback, and a verifier that trusts them.
pub(super) struct Entra {
    pub(super) signer: Signer,
    pub(super) server: Server,
    /// What the keys endpoint answers now; `None` is a 503.
    pub(super) keys: Arc<Mutex<Option<Value>>>,
}

impl Entra {
    pub(super) async fn start() -> Self {
        let signer = Signer::generate("key-1");
        let keys = Arc::new(Mutex::new(Some(json!({"keys": [signer.jwk()]}))));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = format!("http://{}", listener.local_addr().unwrap());
        let published = Arc::clone(&keys);
        let server = Server::bind(listener, move |request: &Seen| match request.target.split_once("/v2.0/") {
            Some((tenant, ".well-known/openid-configuration")) => (200, discovery(&authority, tenant).to_string()),
            _ => published.lock().unwrap().as_ref().map_or((503, String::new()), |keys| (200, keys.to_string())),
        });
        Self { signer, server, keys }
    }

    pub(super) fn issuer_url(&self) -> String {
        format!("{}/{TENANT}/v2.0", self.server.url)
    }

    pub(super) fn config(&self) -> IssuerConfig {
        IssuerConfig {
            name: IssuerName::parse("contoso").unwrap(),
            tenant: TenantId::parse(TENANT).unwrap(),
            audience: AUDIENCE.to_owned(),
            authority: self.server.url.clone(),
            allowed_apps: Vec::new(),
            allowed_kinds: Vec::new(),
        }
    }

    pub(super) fn verifier(&self) -> Verifier {
        Verifier::new(vec![self.config()], client(), Duration::from_secs(5))
    }

    /// A person's claims, complete and current.
    pub(super) fn person(&self) -> Value {
        person(&self.issuer_url())
    }

    /// How often the keys were asked for.
    pub(super) fn key_fetches(&self) -> usize {
        self.server.seen().iter().filter(|r| r.target.contains("/discovery/")).count()
    }
}

fn discovery(authority: &str, tenant: &str) -> Value {
    json!({
        "issuer": format!("{authority}{tenant}/v2.0"),
        "jwks_uri": format!("{authority}{tenant}/discovery/v2.0/keys"),
        "id_token_signing_alg_values_supported": ["RS256"],
    })
}

/// A person's v2.0 access token, as Entra fills it in.
pub(super) fn person(issuer_url: &str) -> Value {
    json!({
        "aud": AUDIENCE, "iss": issuer_url, "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3600,
        "azp": APP, "azpacr": "0", "name": "Analyst", "oid": PERSON, "tid": TENANT, "ver": "2.0",
        "preferred_username": "analyst@contoso.example", "upn": "analyst@contoso.example",
        "email": "ceo@contoso.example", "scp": "db.login", "idtyp": "user", "sub": "pairwise-subject",
        "uti": "Zm9vYmFy", "rh": "0.x", "groups": ["11111111-1111-4111-8111-111111111111"], "roles": ["reader"],
    })
}

/// An app's v2.0 access token.
pub(super) fn app(issuer_url: &str) -> Value {
    json!({
        "aud": AUDIENCE, "iss": issuer_url, "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3600,
        "azp": APP, "azpacr": "1", "oid": PERSON, "tid": TENANT, "ver": "2.0", "sub": PERSON, "idtyp": "app",
        "roles": ["db.login"], "uti": "Zm9vYmFy",
    })
}

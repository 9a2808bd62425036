//! Tokens and keys made on the spot, for tests.

use super::jws::{Algorithm, PublicKey};
use super::{
    Dialect, Entra as EntraConfig, IssuerConfig, KindRule, LEEWAY, Oidc, Overage, Settings, TokenType, Verifier,
    Version,
};
use crate::http::testing::{Seen, Server, client};
use crate::names::{IssuerName, Tenant, TenantId};
use crate::time::Timestamp;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) const TENANT: &str = "6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91";
pub(super) const AUDIENCE: &str = "3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10";
pub(super) const PERSON: &str = "0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b";
pub(super) const APP: &str = "8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6";
/// The time at which test tokens are judged; they live from a minute before to an hour after.
pub(crate) const NOW: i64 = 1_790_000_000;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A signing key with its id.
pub(crate) struct Signer {
    kid: String,
    key: RsaKeyPair,
}

impl Signer {
    pub(super) fn generate(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    /// A token with an ordinary header.
    pub(crate) fn sign(&self, claims: &Value) -> String {
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

    pub(super) fn public_key(&self) -> PublicKey {
        let public = self.key.public_key();
        PublicKey::rsa(
            public.modulus().big_endian_without_leading_zero(),
            public.exponent().big_endian_without_leading_zero(),
        )
    }
}

/// A P-256 key with its id.
pub(super) struct EcSigner {
    kid: String,
    key: EcdsaKeyPair,
}

impl EcSigner {
    pub(super) fn generate(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    /// A token as RFC 9068 has it.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": self.kid});
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    pub(super) fn jwk(&self) -> Value {
        let (x, y) = self.point();
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": encode(&x), "y": encode(&y)})
    }

    pub(super) fn public_key(&self) -> PublicKey {
        let (x, y) = self.point();
        PublicKey::p256(&x, &y)
    }

    fn point(&self) -> ([u8; 32], [u8; 32]) {
        let point = self.key.public_key().as_ref();
        (point[1..33].try_into().unwrap(), point[33..].try_into().unwrap())
    }
}

/// The tenant's v2.0 tokens, by the login host.
pub(super) fn contoso(authority: &str) -> IssuerConfig {
    IssuerConfig {
        name: IssuerName::parse("contoso").unwrap(),
        audiences: vec![AUDIENCE.to_owned()],
        allowed_apps: Vec::new(),
        allowed_kinds: Vec::new(),
        leeway: LEEWAY,
        max_token_age: None,
        dialect: Dialect::Entra(EntraConfig {
            tenant: TenantId::parse(TENANT).unwrap(),
            version: Version::V2,
            authority: authority.to_owned(),
            v1_authority: "https://sts.windows.net".to_owned(),
            required_scopes: Vec::new(),
            required_roles: Vec::new(),
            overage: Overage::Deny,
        }),
    }
}

/// The same issuer with another Entra side.
pub(super) fn with_entra(mut issuer: IssuerConfig, change: impl FnOnce(&mut EntraConfig)) -> IssuerConfig {
    if let Dialect::Entra(entra) = &mut issuer.dialect {
        change(entra);
    }
    issuer
}

/// An issuer that is not Entra: people by `uid`, who it says they are.
pub(super) fn okta(url: &str, algorithms: &[Algorithm]) -> IssuerConfig {
    IssuerConfig {
        name: IssuerName::parse("okta").unwrap(),
        audiences: vec!["pgpassport".to_owned()],
        dialect: Dialect::Oidc(Oidc {
            url: url.to_owned(),
            tenant: Tenant::parse("okta").unwrap(),
            algorithms: algorithms.to_vec(),
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
        ..contoso("")
    }
}

/// A person's access token of that issuer.
pub(super) fn okta_person(url: &str) -> Value {
    json!({
        "iss": url, "aud": "pgpassport", "iat": NOW - 60, "exp": NOW + 3600, "sub": "00u1", "uid": "00u1",
        "cid": "orders-ui", "org": "contoso", "email": "analyst@contoso.example", "groups": ["analysts"],
        "jti": "AT.1",
    })
}

/// A tenant's discovery document and keys on loopback, and a verifier that trusts them.
pub(crate) struct Entra {
    pub(crate) signer: Signer,
    pub(super) server: Server,
    /// What the keys endpoint answers now; `None` is a 503.
    pub(super) keys: Arc<Mutex<Option<Value>>>,
}

impl Entra {
    pub(crate) async fn start() -> Self {
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
        contoso(&self.server.url)
    }

    pub(crate) fn verifier(&self) -> Verifier {
        verifier(vec![self.config()])
    }

    /// A person's claims, complete and current.
    pub(crate) fn person(&self) -> Value {
        person(&self.issuer_url())
    }

    /// How often the keys were asked for.
    pub(super) fn key_fetches(&self) -> usize {
        self.server.seen().iter().filter(|r| r.target.contains("/discovery/")).count()
    }
}

/// A verifier of these issuers, without a limit on bad tokens that a test would meet.
pub(super) fn verifier(issuers: Vec<IssuerConfig>) -> Verifier {
    Verifier::new(issuers, client(), Settings { keys: Duration::from_secs(5), bad_tokens_per_address: 1000 })
}

/// Where tests' callers are.
pub(super) const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

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

//! A token's check by the real verifier: signed by a key of the bench's own, which a server on loopback publishes.
//!
//! Cold: the key is known, the token is not. Cached: its signature was checked before; what it claims is judged anew.

use super::{Bench, Part};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parts::Result;
use parts::session::at_once;
use pgpassport::http::Client;
use pgpassport::identity::{Dialect, Entra, IssuerConfig, LEEWAY, Overage, Settings, Verifier, Version};
use pgpassport::names::{IssuerName, TenantId};
use pgpassport::secret::Secret;
use pgpassport::time::{Timestamp, from_unix};
use sample::TENANT;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// When the token is judged; it lives from a minute before to an hour after.
const NOW: i64 = 1_790_000_000;
/// Of the API that the token is for.
const AUDIENCE: &str = "3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10";
/// Where the caller is.
const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Fetching the key may take so long.
const DEADLINE: Duration = Duration::from_secs(5);
const SETTINGS: Settings = Settings { keys: DEADLINE, bad_tokens_per_address: 1000 };

pub fn measure(bench: &mut Bench) -> Result<()> {
    let part = |name, budget| Part { name, per: "token", count: 1, budget, allocations: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (warm, http, token) = runtime.block_on(set_up())?;
    let config = warm.issuer(&IssuerName::parse("contoso")?).ok_or("no issuer")?.as_ref().clone();
    let now = from_unix(NOW).ok_or("no such time")?;
    // Each with the key, and nothing else of what others have seen.
    let fresh = || Verifier::new(vec![config.clone()], http.clone(), SETTINGS).succeeding(&warm, &http, DEADLINE);
    let _in_runtime = runtime.enter();
    bench.time_of(
        part("token, cold (RS256, 2048 bits)", 60_000.0),
        || (fresh(), Secret::new(token.clone())),
        |(verifier, token)| check(&verifier, token, now),
    )?;
    let known = fresh();
    check(&known, Secret::new(token.clone()), now);
    bench.time_of(
        part("token, seen before", 20_000.0),
        || Secret::new(token.clone()),
        |token| check(&known, token, now),
    )
}

fn check(verifier: &Verifier, token: Secret<String>, now: Timestamp) {
    let outcome = at_once(verifier.verify(token, CALLER, now));
    assert!(matches!(&outcome, Ok(Ok(identity)) if identity.facts().label == "analyst@contoso.example"), "{outcome:?}");
}

/// A verifier that has fetched the key, and a token that the key has signed.
async fn set_up() -> Result<(Verifier, Client, String)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let authority = format!("http://{}", listener.local_addr()?);
    let key = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| "no key")?;
    let publishing = tokio::spawn(publish(listener, authority.clone(), jwk(&key)));
    let http = Client::new(None)?;
    let verifier = Verifier::new(vec![issuer(&authority)?], http.clone(), SETTINGS);
    if let Some((issuer, error)) = verifier.warm_up().await.pop() {
        return Err(format!("{issuer}: {error}").into());
    }
    publishing.abort();
    let token = sign(&key, &claims(&authority)?)?;
    Ok((verifier, http, token))
}

/// Answers whoever asks with the discovery document or the key set.
async fn publish(listener: TcpListener, authority: String, jwk: Value) -> std::io::Result<()> {
    let discovery = json!({
        "issuer": format!("{authority}/{TENANT}/v2.0"),
        "jwks_uri": format!("{authority}/{TENANT}/discovery/v2.0/keys"),
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut request = [0; 4096];
        let length = stream.read(&mut request).await?;
        let asked = String::from_utf8_lossy(request.get(..length).unwrap_or_default()).into_owned();
        let body = if asked.contains("openid-configuration") { discovery.clone() } else { json!({"keys": [jwk]}) };
        let body = body.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
        stream.shutdown().await?;
    }
}

fn issuer(authority: &str) -> Result<IssuerConfig> {
    let entra = Entra {
        tenant: TenantId::parse(TENANT)?,
        version: Version::V2,
        authority: authority.to_owned(),
        v1_authority: "https://sts.windows.net".to_owned(),
        required_scopes: Vec::new(),
        required_roles: Vec::new(),
        overage: Overage::Deny,
    };
    Ok(IssuerConfig {
        name: IssuerName::parse("contoso")?,
        audiences: vec![AUDIENCE.to_owned()],
        allowed_apps: Vec::new(),
        allowed_kinds: Vec::new(),
        leeway: LEEWAY,
        max_token_age: None,
        dialect: Dialect::Entra(entra),
    })
}

/// A person's, as Entra fills them in, with groups.
fn claims(authority: &str) -> Result<Value> {
    let facts = sample::facts()?;
    let groups: Vec<String> = (0..12).map(|group| format!("11111111-1111-4111-8111-{group:012}")).collect();
    Ok(json!({
        "aud": AUDIENCE, "iss": format!("{authority}/{TENANT}/v2.0"), "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3600,
        "azp": facts.app, "azpacr": "0", "name": "Analyst", "oid": facts.object_id, "tid": TENANT, "ver": "2.0",
        "preferred_username": facts.label, "upn": facts.label, "scp": "db.login", "idtyp": "user",
        "sub": "pairwise-subject", "uti": facts.token_id, "rh": "0.x", "groups": groups, "roles": ["reader"],
    }))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn jwk(key: &RsaKeyPair) -> Value {
    let public = key.public_key();
    json!({
        "kty": "RSA", "use": "sig", "kid": "bench",
        "e": encode(public.exponent().big_endian_without_leading_zero()),
        "n": encode(public.modulus().big_endian_without_leading_zero()),
    })
}

fn sign(key: &RsaKeyPair, claims: &Value) -> Result<String> {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "bench"});
    let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let mut signature = vec![0; key.public_modulus_len()];
    let random = SystemRandom::new();
    key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).map_err(|_| "no signature")?;
    Ok(format!("{signed}.{}", encode(&signature)))
}

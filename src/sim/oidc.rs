//! An `OpenID` provider that is not Entra: discovery, keys (ES256), and tokens that are minted on demand.
//!
//! Shapes: `OpenID` Connect Discovery 1.0, RFC 7517, RFC 7518 §6.2, RFC 9068 (`typ` is `at+jwt`).

use super::Error;
use super::calls::{Calls, Endpoint};
use super::certs::failed;
use super::entra::read;
use super::faults::Faults;
use super::https::{Service, status};
use super::world::{CONSULTANT, PARTNER_API};
use crate::secret::Secret;
use crate::time::Clock;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use axum::body::Body;
use axum::http::Response;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;

/// The key's id.
const KID: &str = "partner-1";
/// Lifetime of a token, in seconds.
const LIFETIME: i64 = 3600;

/// The provider's state, shared with Google's STS, which trusts its key.
#[derive(Debug)]
pub(super) struct Oidc {
    /// `https://127.0.0.1:PORT`, its `iss`.
    issuer: String,
    clock: Clock,
    key: EcdsaKeyPair,
}

impl Oidc {
    pub(super) fn new(issuer: String, clock: Clock) -> Result<Self, Error> {
        let key =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|error| failed("a signing key", error))?;
        Ok(Self { issuer, clock, key })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The consultant's token with some claims replaced; null takes one out.
    pub(super) fn mint(&self, changes: &Value) -> Result<Secret<String>, Error> {
        let issued = self.clock.now().as_second();
        let mut claims = json!({
            "iss": self.issuer, "aud": PARTNER_API, "iat": issued, "exp": issued + LIFETIME, "sub": CONSULTANT.name,
            "uid": CONSULTANT.subject, "email": CONSULTANT.name, "cid": "orders-ui", "org": "northwind",
            "groups": ["consultants"], "jti": uuid::Uuid::new_v4().to_string(),
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            if let Some(members) = claims.as_object_mut() {
                members.insert(name.clone(), value.clone());
                members.retain(|_, value| !value.is_null());
            }
        }
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": KID});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature =
            self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|error| failed("a signature", error))?;
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))))
    }

    /// Whether its key signed the token with ES256.
    pub(super) fn signed(&self, token: &str) -> bool {
        let Some((header, _)) = read(token) else { return false };
        let names = |member: &str, value: &str| header.get(member).and_then(Value::as_str) == Some(value);
        let Some((input, signature)) = token.rsplit_once('.') else { return false };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        names("alg", "ES256") && names("kid", KID) && public.verify(input.as_bytes(), &signature).is_ok()
    }

    fn discovery(&self) -> Value {
        let issuer = &self.issuer;
        json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/oauth2/v1/keys"),
            "token_endpoint": format!("{issuer}/oauth2/v1/token"), "response_types_supported": ["code"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    fn keys(&self) -> Value {
        // SEC 1 §2.3.3, uncompressed: 4, x, y.
        let point = self.key.public_key().as_ref();
        let coordinate = |range| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KID,
            "x": coordinate(1..33), "y": coordinate(33..65),
        }] })
    }
}

/// The provider's host (HTTPS).
pub(super) fn service(oidc: &Arc<Oidc>, calls: Calls, faults: Faults) -> Service {
    let (documents, keys) = (Arc::clone(oidc), Arc::clone(oidc));
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(async move || Json(documents.discovery())))
        .route("/oauth2/v1/keys", get(async move || Json(keys.keys())));
    Service { router, endpoint, error: outage, calls, faults }
}

fn endpoint(path: &str) -> Option<Endpoint> {
    path.ends_with("/keys").then_some(Endpoint::PartnerKeys)
}

fn outage(code: u16) -> Response<Body> {
    (status(code), Json(json!({ "errorCode": "E0000009", "errorSummary": "Internal Server Error" }))).into_response()
}

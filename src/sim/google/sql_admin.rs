//! The SQL Admin API: `connectSettings` and `generateEphemeralCert`.
//!
//! Source: Cloud SQL Admin API v1beta4, `SqlConnectService`. Whatever a principal may not see answers 403
//! `notAuthorized`, a wrong instance and a missing role alike.

use super::errors::{Refusal, bearer, insufficient_scopes, invalid_argument, unauthenticated};
use super::iam::Permission;
use super::{CLOUD_PLATFORM, Google};
use crate::federation::ADMIN_SCOPE;
use crate::sim::world;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

const SERVICE: &str = "sqladmin.googleapis.com";
/// The only key size that Google's connectors use, in bits.
const KEY_BITS: usize = 2048;

/// `GET /sql/v1beta4/projects/{project}/instances/{instance}/connectSettings`
pub(super) async fn connect_settings(
    State(google): State<Arc<Google>>,
    Path(names): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    authorize(&google, &headers, &names, Permission::InstancesGet)?;
    Ok(Json(google.instance.connect_settings()))
}

/// `POST /sql/v1beta4/projects/{project}/instances/{instance}:generateEphemeralCert`
pub(super) async fn call(
    State(google): State<Arc<Google>>,
    Path((project, call)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let Some((instance, "generateEphemeralCert")) = call.rsplit_once(':') else {
        return Err(Refusal::new(404, "NOT_FOUND", "Method not found."));
    };
    authorize(&google, &headers, &(project, instance.to_owned()), Permission::InstancesConnect)?;
    let request =
        serde_json::from_slice::<Value>(&body).map_err(|_| invalid_argument("Invalid JSON payload received."))?;
    let key = request.get("public_key").and_then(Value::as_str).and_then(public_key).ok_or_else(|| {
        invalid_argument("Invalid request: The public key is missing or is not an RSA key of 2048 bits.")
            .reason("invalid")
    })?;
    let login_token = request.get("access_token").and_then(Value::as_str).map(str::to_owned);
    let certificate = google
        .instance
        .issue_client_certificate(&key, login_token, google.clock.now())
        .map_err(|error| Refusal::new(500, "INTERNAL", &error.to_string()).reason("internalError"))?;
    Ok(Json(json!({ "ephemeralCert": certificate })))
}

fn authorize(
    google: &Google,
    headers: &HeaderMap,
    (project, instance): &(String, String),
    permission: Permission<'_>,
) -> Result<(), Refusal> {
    let bearer = bearer(headers);
    let caller = bearer.and_then(|token| google.inspect(token)).ok_or_else(|| unauthenticated(bearer, SERVICE))?;
    if !caller.has_scope(&[CLOUD_PLATFORM, ADMIN_SCOPE]) {
        return Err(insufficient_scopes(SERVICE));
    }
    let names_ours = project == world::PROJECT && instance == google.instance.name().instance();
    if !names_ours || !google.allows(&caller.principal, permission) {
        let message = "The client is not authorized to make this request.";
        return Err(Refusal::new(403, "PERMISSION_DENIED", message).reason("notAuthorized"));
    }
    Ok(())
}

/// SPKI in PEM, labelled `PUBLIC KEY` or (by Google's Go connector) `RSA PUBLIC KEY`; RSA-2048 with e = 65537.
fn public_key(pem: &str) -> Option<rcgen::SubjectPublicKeyInfo> {
    let spki = spki(pem)?;
    let (rest, parsed) = SubjectPublicKeyInfo::from_der(&spki).ok()?;
    let Ok(PublicKey::RSA(rsa)) = parsed.parsed() else { return None };
    let fits = rest.is_empty() && rsa.key_size() == KEY_BITS && rsa.try_exponent().ok()? == 65537;
    if fits { rcgen::SubjectPublicKeyInfo::from_der(&spki).ok() } else { None }
}

/// The bytes of the only PEM block, whichever of the two labels it has.
fn spki(pem: &str) -> Option<Vec<u8>> {
    let mut lines = pem.lines().map(str::trim).filter(|line| !line.is_empty());
    let label = lines.next()?.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
    let base64: Vec<&str> = lines.collect();
    let (end, base64) = base64.split_last()?;
    let fits = ["PUBLIC KEY", "RSA PUBLIC KEY"].contains(&label) && *end == format!("-----END {label}-----");
    if fits { STANDARD.decode(base64.concat()).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn both_labels_with_spki_bytes_are_accepted_and_only_rsa_2048() {
        use rcgen::PublicKeyData as _;
        let rsa =
            |size| rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap().subject_public_key_info();
        let right = rsa(rcgen::RsaKeySize::_2048);
        for label in ["PUBLIC KEY", "RSA PUBLIC KEY"] {
            assert!(public_key(&pem(label, &right)).is_some(), "{label}");
        }
        let elliptic = rcgen::KeyPair::generate().unwrap().subject_public_key_info();
        let long = rsa(rcgen::RsaKeySize::_3072);
        for (wrong, why) in [
            (pem("PUBLIC KEY", &elliptic), "P-256"),
            (pem("PUBLIC KEY", &long), "3072 bits"),
            (pem("CERTIFICATE", &right), "label"),
            (pem("PUBLIC KEY", &right[24..]), "PKCS#1"),
            (String::new(), "nothing"),
        ] {
            assert!(public_key(&wrong).is_none(), "{why}");
        }
    }
}

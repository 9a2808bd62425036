//! Entra's signing keys: RSA-2048, published as a key set; JWTs are signed and checked with them.

use crate::sim::Error;
use crate::sim::certs::failed;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

/// JSON claims or header of a token.
pub(in crate::sim) type Members = Map<String, Value>;

/// One signing key with its self-signed certificate.
#[derive(Debug)]
pub(in crate::sim) struct SigningKey {
    pair: RsaKeyPair,
    certificate: Vec<u8>,
    /// SHA-1 thumbprint of the certificate, base64url: `kid` and `x5t`.
    pub(in crate::sim) kid: String,
}

impl SigningKey {
    /// A new key. Takes some hundred milliseconds: call it off the runtime.
    pub(in crate::sim) fn generate() -> Result<Self, Error> {
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            .map_err(|error| failed("a signing key", error))?;
        let pair = RsaKeyPair::from_pkcs8(key.serialized_der()).map_err(|error| failed("a signing key", error))?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "accounts.accesscontrol.windows.net");
        let certificate = params.self_signed(&key).map_err(|error| failed("a signing certificate", error))?;
        let certificate = certificate.der().to_vec();
        let thumbprint = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &certificate);
        Ok(Self { pair, kid: URL_SAFE_NO_PAD.encode(thumbprint), certificate })
    }

    /// The key as a JWK; `issuer` stands in version 2.0 key sets.
    pub(super) fn jwk(&self, issuer: Option<&str>) -> Value {
        let public = self.pair.public_key();
        let mut jwk = json!({
            "kty": "RSA", "use": "sig", "kid": self.kid, "x5t": self.kid,
            "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
            "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
            "x5c": [STANDARD.encode(&self.certificate)],
        });
        if let (Some(issuer), Some(members)) = (issuer, jwk.as_object_mut()) {
            members.insert("issuer".to_owned(), issuer.into());
        }
        jwk
    }

    /// RS256 over `input`, base64url.
    pub(super) fn sign(&self, input: &[u8]) -> Result<String, Error> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &rand::SystemRandom::new(), input, &mut signature)
            .map_err(|_| failed("a signature", "RSA"))?;
        Ok(URL_SAFE_NO_PAD.encode(signature))
    }

    /// HS256 over `input` with the public key's PEM as the secret, base64url.
    pub(super) fn confuse(&self, input: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.public_pem().as_bytes());
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, input))
    }

    fn public_pem(&self) -> String {
        let der = self.public_der().unwrap_or_default();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    fn public_der(&self) -> Option<Vec<u8>> {
        let public: PublicKeyX509Der<'static> = self.pair.public_key().as_der().ok()?;
        Some(public.as_ref().to_vec())
    }

    fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
        let public = self.pair.public_key();
        let components = RsaPublicKeyComponents {
            n: public.modulus().big_endian_without_leading_zero(),
            e: public.exponent().big_endian_without_leading_zero(),
        };
        components.verify(&RSA_PKCS1_2048_8192_SHA256, input, signature).is_ok()
    }
}

/// `header.claims`, base64url.
pub(super) fn signing_input(header: &Members, claims: &Members) -> String {
    let part = |members: &Members| URL_SAFE_NO_PAD.encode(Value::Object(members.clone()).to_string());
    format!("{}.{}", part(header), part(claims))
}

/// Header and claims of a token, unchecked.
pub(in crate::sim) fn read(token: &str) -> Option<(Members, Members)> {
    let mut parts = token.split('.');
    let mut part = || serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
    let (header, claims) = (part()?, part()?);
    Some((header, claims))
}

/// Whether one of `keys` signed the token with RS256 under the `kid` that it names.
pub(in crate::sim) fn signed_by<'a>(token: &str, keys: impl IntoIterator<Item = &'a SigningKey>) -> bool {
    let Some((header, _)) = read(token) else { return false };
    let Some((input, signature)) = token.rsplit_once('.') else { return false };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    if header.get("alg").and_then(Value::as_str) != Some("RS256") || input.matches('.').count() != 1 {
        return false;
    }
    let kid = header.get("kid").and_then(Value::as_str);
    keys.into_iter().any(|key| kid == Some(&key.kid) && key.verifies(input.as_bytes(), &signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprints_have_20_bytes_and_signatures_hold_only_for_their_bytes() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        assert_eq!(URL_SAFE_NO_PAD.decode(&key.kid).unwrap().len(), 20);
        let header = json!({"alg": "RS256", "kid": key.kid}).as_object().unwrap().clone();
        let input = signing_input(&header, &Members::new());
        let token = format!("{input}.{}", key.sign(input.as_bytes()).unwrap());
        assert!(signed_by(&token, [&other, &key]));
        assert!(!signed_by(&token, [&other]));
        let forged = format!("{}.{}", signing_input(&header, json!({"a": 1}).as_object().unwrap()), "AAAA");
        assert!(!signed_by(&forged, [&key]));
        assert!(key.public_pem().len() > 300);
    }
}

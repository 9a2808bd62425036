//! The token as a signed envelope: three segments in, claims out once the signature holds.
//!
//! RFC 7515, compact serialisation, RS256 and nothing else. The header is parsed here, strictly; `jsonwebtoken`
//! contributes the RSA check alone, through its aws-lc-rs provider by name, so that neither its lenient claim
//! checks nor its process-wide provider choice is involved. `jku`, `x5u`, `x5c` and `jwk` are never looked at.

use super::{Error, json};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto::aws_lc};
use serde_json::{Map, Value};

/// The longest token that is looked at, in bytes: what fits a password message of 64 KiB.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024 - 1;
/// The longest key id, in bytes; Entra's are 27.
const MAX_KID_BYTES: usize = 256;

/// The members of a token's payload.
pub(super) type Claims = Map<String, Value>;

/// A well-formed token whose signature is not checked yet.
pub(super) struct Jws<'t> {
    kid: String,
    claims: Claims,
    signed: &'t str,
    signature: Vec<u8>,
}

impl<'t> Jws<'t> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'t str) -> Result<Self, Error> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::NotAToken);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::NotAToken)?;
        let (header, payload) = signed.split_once('.').ok_or(Error::NotAToken)?;
        if payload.contains('.') {
            return Err(Error::NotAToken);
        }
        let kid = check_header(&json::object(&decode(header)?).ok_or(Error::NotAToken)?)?;
        let claims = json::object(&decode(payload)?).ok_or(Error::NotAToken)?;
        Ok(Self { kid, claims, signed, signature: decode(signature)? })
    }

    /// The key that the token says it is signed with.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// A claim that nobody vouches for yet: only to choose what to check against, and to refuse.
    pub(super) fn unverified(&self, claim: &str) -> Option<&Value> {
        self.claims.get(claim)
    }

    /// The claims, once `key` turns out to have signed them.
    pub(super) fn verify(self, key: &DecodingKey) -> Result<Claims, Error> {
        let check =
            (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&Algorithm::RS256, key).map_err(|_| Error::Signature)?;
        check.verify(self.signed.as_bytes(), &self.signature).map_err(|_| Error::Signature)?;
        Ok(self.claims)
    }
}

fn check_header(header: &Map<String, Value>) -> Result<String, Error> {
    // Microsoft Graph's tokens say `nonce` in clear and sign its digest: nobody else can verify them.
    if header.contains_key("nonce") {
        return Err(Error::GraphToken);
    }
    if header.get("alg").and_then(Value::as_str) != Some("RS256") {
        return Err(Error::Algorithm);
    }
    if header.contains_key("crit") {
        return Err(Error::CriticalHeader);
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(typ)) if typ.eq_ignore_ascii_case("JWT") => {}
        Some(_) => return Err(Error::NotAToken),
    }
    match header.get("kid") {
        Some(Value::String(kid)) if !kid.is_empty() && kid.len() <= MAX_KID_BYTES => Ok(kid.clone()),
        _ => Err(Error::UnknownKey),
    }
}

/// Strict base64url: no padding, no white space, no trailing bits; never empty here.
fn decode(segment: &str) -> Result<Vec<u8>, Error> {
    match URL_SAFE_NO_PAD.decode(segment) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(Error::NotAToken),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Signer, encode};
    use super::*;
    use proptest::prelude::*;

    fn outcome(token: &str) -> Result<(), Error> {
        Jws::parse(token).map(|_| ())
    }

    fn with_header(header: &str) -> Result<(), Error> {
        outcome(&format!("{}.{}.{}", encode(header.as_bytes()), encode(b"{}"), encode(b"s")))
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = encode(br#"{"alg":"RS256","kid":"k"}"#);
        let (claims, signature) = (encode(b"{}"), encode(b"s"));
        assert!(outcome(&format!("{good}.{claims}.{signature}")).is_ok());
        let huge = format!("{good}.{}.{signature}", "A".repeat(MAX_TOKEN_BYTES));
        for bad in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "hunter2".to_owned(),
            format!("{good}.{claims}"),
            format!("{good}.{claims}."),
            format!("{good}..{signature}"),
            format!(".{claims}.{signature}"),
            format!("{good}.{claims}.{signature}.{signature}"),
            format!("{good}.{claims}.{signature}.{signature}.{signature}"),
            format!("{good}=.{claims}.{signature}"),
            format!(" {good}.{claims}.{signature}"),
            format!("{good}.{claims}.{signature}\n"),
            format!("{good}.{claims}.ab+/"),
            format!("{good}.{}.{signature}", encode(b"[]")),
            format!("{good}.{}.{signature}", encode(br#"{"aud":1,"aud":2}"#)),
            format!("{}.{claims}.{signature}", encode(br#"{"alg":"RS256","alg":"none","kid":"k"}"#)),
            huge,
        ] {
            assert!(matches!(outcome(&bad), Err(Error::NotAToken)), "{bad:.80}");
        }
    }

    #[test]
    fn alg_none_and_hs256_and_every_other_algorithm_are_refused() {
        for alg in [
            r#""none""#,
            r#""None""#,
            r#""HS256""#,
            r#""RS512""#,
            r#""PS256""#,
            r#""ES256""#,
            r#""rs256""#,
            r#"["RS256"]"#,
            "null",
        ] {
            let header = format!(r#"{{"alg":{alg},"kid":"k"}}"#);
            assert!(matches!(with_header(&header), Err(Error::Algorithm)), "{header}");
        }
        assert!(matches!(with_header(r#"{"kid":"k"}"#), Err(Error::Algorithm)));
    }

    #[test]
    fn header_members_that_change_the_rules_are_refused() {
        assert!(matches!(with_header(r#"{"alg":"RS256","kid":"k","nonce":"n"}"#), Err(Error::GraphToken)));
        assert!(matches!(
            with_header(r#"{"alg":"RS256","kid":"k","crit":["b64"],"b64":false}"#),
            Err(Error::CriticalHeader)
        ));
        assert!(matches!(with_header(r#"{"alg":"RS256","kid":"k","crit":[]}"#), Err(Error::CriticalHeader)));
        assert!(matches!(with_header(r#"{"alg":"RS256","kid":"k","typ":"secevent+jwt"}"#), Err(Error::NotAToken)));
        assert!(matches!(with_header(r#"{"alg":"RS256"}"#), Err(Error::UnknownKey)));
        assert!(matches!(with_header(r#"{"alg":"RS256","kid":7}"#), Err(Error::UnknownKey)));
        let long = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(MAX_KID_BYTES + 1));
        assert!(matches!(with_header(&long), Err(Error::UnknownKey)));
    }

    #[test]
    fn only_the_key_that_signed_verifies_and_only_what_it_signed() {
        let (signer, other) = (Signer::generate("k"), Signer::generate("k"));
        let token = signer.sign(&serde_json::json!({"a": 1}));
        assert!(Jws::parse(&token).unwrap().verify(&signer.decoding_key()).is_ok());
        assert!(matches!(Jws::parse(&token).unwrap().verify(&other.decoding_key()), Err(Error::Signature)));

        let parts: Vec<&str> = token.split('.').collect();
        let forged_claims = format!("{}.{}.{}", parts[0], encode(br#"{"a":2}"#), parts[2]);
        assert!(matches!(Jws::parse(&forged_claims).unwrap().verify(&signer.decoding_key()), Err(Error::Signature)));
        let forged_header = format!("{}.{}.{}", encode(br#"{"alg":"RS256","kid":"k2"}"#), parts[1], parts[2]);
        assert!(matches!(Jws::parse(&forged_header).unwrap().verify(&signer.decoding_key()), Err(Error::Signature)));
        let cut = format!("{}.{}.{}", parts[0], parts[1], encode(&decode(parts[2]).unwrap()[1..]));
        assert!(matches!(Jws::parse(&cut).unwrap().verify(&signer.decoding_key()), Err(Error::Signature)));
    }

    #[test]
    fn a_symmetric_key_never_verifies() {
        let token = Signer::generate("k").sign(&serde_json::json!({}));
        let key = DecodingKey::from_secret(b"public modulus");
        assert!(matches!(Jws::parse(&token).unwrap().verify(&key), Err(Error::Signature)));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(token in "\\PC{0,200}") {
            let _ = outcome(&token);
        }

        #[test]
        fn arbitrary_segments_never_panic(header in proptest::collection::vec(any::<u8>(), 0..200),
                                          payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let good = encode(br#"{"alg":"RS256","kid":"k"}"#);
            let _ = outcome(&format!("{}.{}.{}", encode(&header), encode(&payload), encode(b"s")));
            let _ = outcome(&format!("{good}.{}.{}", encode(&payload), encode(&header)));
        }
    }
}

//! The token as a signed envelope: three segments in, claims out once the signature holds.
//!
//! RFC 7515, compact serialisation, RS256 and ES256 (RFC 7518 §3) and nothing else: what Google takes too. The header
//! is parsed here, strictly; `jsonwebtoken` contributes the signature check alone, through its aws-lc-rs provider by
//! name, so that neither its lenient claim checks nor its process-wide provider choice is involved. `jku`, `x5u`, `x5c`
//! and `jwk` are never looked at.

use super::{Error, json};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, crypto::aws_lc};
use serde_json::{Map, Value};

/// The longest token that is looked at, in bytes: what fits a password message of 64 KiB.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024 - 1;
/// The longest key id, in bytes; Entra's are 27.
const MAX_KID_BYTES: usize = 256;

/// The members of a token's payload.
pub(super) type Claims = Map<String, Value>;

/// SHA-256.
pub(super) type Digest = [u8; 32];

/// How a token may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// As `alg` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    fn parse(alg: &str) -> Option<Self> {
        [Self::Rs256, Self::Es256].into_iter().find(|known| known.as_str() == alg)
    }
}

/// A published key: good for one algorithm.
pub(super) struct PublicKey {
    algorithm: Algorithm,
    decoding: DecodingKey,
    fingerprint: Digest,
}

impl PublicKey {
    /// An RSA key from its raw modulus and exponent.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        Self {
            algorithm: Algorithm::Rs256,
            decoding: DecodingKey::from_rsa_raw_components(modulus, exponent),
            fingerprint: sha256(&[modulus, exponent]),
        }
    }

    /// A P-256 key from its raw coordinates.
    pub(super) fn p256(x: &[u8; 32], y: &[u8; 32]) -> Self {
        let point = [&[4], x.as_slice(), y].concat();
        Self { algorithm: Algorithm::Es256, decoding: DecodingKey::from_ec_der(&point), fingerprint: sha256(&[x, y]) }
    }

    /// The algorithm that it checks.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// SHA-256 of the key: the same key fetched again has the same.
    pub(super) fn fingerprint(&self) -> &Digest {
        &self.fingerprint
    }
}

/// Proof that a token's signature holds: its key made it, or was seen to have made it before.
pub(super) struct Proven(pub(super) ());

/// A well-formed token whose signature is not checked yet.
pub(super) struct Jws<'t> {
    algorithm: Algorithm,
    kid: String,
    /// Whether `typ` says that it is an access token (RFC 9068).
    access_token: bool,
    claims: Claims,
    signed: &'t str,
    signature: Vec<u8>,
    digest: Digest,
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
        let header = json::object(&decode(header)?).ok_or(Error::NotAToken)?;
        let (algorithm, kid) = check_header(&header)?;
        let access_token = check_type(&header)?;
        let claims = json::object(&decode(payload)?).ok_or(Error::NotAToken)?;
        let digest = sha256(&[token.as_bytes()]);
        Ok(Self { algorithm, kid, access_token, claims, signed, signature: decode(signature)?, digest })
    }

    /// The algorithm that the token says it is signed with.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether its `typ` is that of RFC 9068.
    pub(super) fn is_access_token(&self) -> bool {
        self.access_token
    }

    /// SHA-256 of the whole token, signature included.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The key that the token says it is signed with.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// A claim that nobody vouches for yet: only to choose what to check against, and to refuse.
    pub(super) fn unverified(&self, claim: &str) -> Option<&Value> {
        self.claims.get(claim)
    }

    /// Whether `key` made the signature.
    pub(super) fn verify(&self, key: &PublicKey) -> Result<Proven, Error> {
        if key.algorithm != self.algorithm {
            return Err(Error::Algorithm);
        }
        let algorithm = match key.algorithm {
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        };
        let verifier = aws_lc::DEFAULT_PROVIDER.verifier_factory;
        let check = verifier(&algorithm, &key.decoding).map_err(|_| Error::Signature)?;
        check.verify(self.signed.as_bytes(), &self.signature).map_err(|_| Error::Signature)?;
        Ok(Proven(()))
    }

    /// The claims of a token whose signature holds.
    pub(super) fn claims(self, _: Proven) -> Claims {
        self.claims
    }
}

fn sha256(parts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = Digest::default();
    // SHA-256 has 32 bytes: nothing is left over.
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    out
}

fn check_header(header: &Map<String, Value>) -> Result<(Algorithm, String), Error> {
    // Microsoft Graph's tokens say `nonce` in clear and sign its digest: nobody else can verify them.
    if header.contains_key("nonce") {
        return Err(Error::GraphToken);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse).ok_or(Error::Algorithm)?;
    if header.contains_key("crit") {
        return Err(Error::CriticalHeader);
    }
    match header.get("kid") {
        Some(Value::String(kid)) if !kid.is_empty() && kid.len() <= MAX_KID_BYTES => Ok((algorithm, kid.clone())),
        _ => Err(Error::UnknownKey),
    }
}

/// `typ` is absent, `JWT`, or RFC 9068's `at+jwt`.
fn check_type(header: &Map<String, Value>) -> Result<bool, Error> {
    let Some(typ) = header.get("typ") else { return Ok(false) };
    let typ = typ.as_str().ok_or(Error::NotAToken)?;
    let is = |name: &str| typ.eq_ignore_ascii_case(name);
    if is("at+jwt") || is("application/at+jwt") {
        Ok(true)
    } else if is("JWT") {
        Ok(false)
    } else {
        Err(Error::NotAToken)
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
    use super::super::testing::{EcSigner, Signer, encode};
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
            r#""ES384""#,
            r#""es256""#,
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
        for typ in [r#""secevent+jwt""#, r#""logout+jwt""#, "7", r#"["JWT"]"#] {
            let header = format!(r#"{{"alg":"RS256","kid":"k","typ":{typ}}}"#);
            assert!(matches!(with_header(&header), Err(Error::NotAToken)), "{header}");
        }
        assert!(matches!(with_header(r#"{"alg":"RS256"}"#), Err(Error::UnknownKey)));
        assert!(matches!(with_header(r#"{"alg":"RS256","kid":7}"#), Err(Error::UnknownKey)));
        let long = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(MAX_KID_BYTES + 1));
        assert!(matches!(with_header(&long), Err(Error::UnknownKey)));
    }

    #[test]
    fn only_the_key_that_signed_verifies_and_only_what_it_signed() {
        let (signer, other) = (Signer::generate("k"), Signer::generate("k"));
        let token = signer.sign(&serde_json::json!({"a": 1}));
        assert!(Jws::parse(&token).unwrap().verify(&signer.public_key()).is_ok());
        assert!(matches!(Jws::parse(&token).unwrap().verify(&other.public_key()), Err(Error::Signature)));

        let parts: Vec<&str> = token.split('.').collect();
        let forged_claims = format!("{}.{}.{}", parts[0], encode(br#"{"a":2}"#), parts[2]);
        assert!(matches!(Jws::parse(&forged_claims).unwrap().verify(&signer.public_key()), Err(Error::Signature)));
        let forged_header = format!("{}.{}.{}", encode(br#"{"alg":"RS256","kid":"k2"}"#), parts[1], parts[2]);
        assert!(matches!(Jws::parse(&forged_header).unwrap().verify(&signer.public_key()), Err(Error::Signature)));
        let cut = format!("{}.{}.{}", parts[0], parts[1], encode(&decode(parts[2]).unwrap()[1..]));
        assert!(matches!(Jws::parse(&cut).unwrap().verify(&signer.public_key()), Err(Error::Signature)));
    }

    #[test]
    fn a_symmetric_key_never_verifies() {
        let token = Signer::generate("k").sign(&serde_json::json!({}));
        let key = PublicKey {
            algorithm: Algorithm::Rs256,
            decoding: DecodingKey::from_secret(b"public modulus"),
            fingerprint: Digest::default(),
        };
        assert!(matches!(Jws::parse(&token).unwrap().verify(&key), Err(Error::Signature)));
    }

    #[test]
    fn a_key_checks_its_own_algorithm_only() {
        let (rsa, ec) = (Signer::generate("k"), EcSigner::generate("k"));
        let (by_rsa, by_ec) = (rsa.sign(&serde_json::json!({})), ec.sign(&serde_json::json!({})));
        assert!(Jws::parse(&by_ec).unwrap().verify(&ec.public_key()).is_ok());
        assert!(matches!(Jws::parse(&by_ec).unwrap().verify(&rsa.public_key()), Err(Error::Algorithm)));
        assert!(matches!(Jws::parse(&by_rsa).unwrap().verify(&ec.public_key()), Err(Error::Algorithm)));
        let mut renamed = Jws::parse(&by_ec).unwrap();
        renamed.algorithm = Algorithm::Rs256;
        assert!(matches!(renamed.verify(&rsa.public_key()), Err(Error::Signature)));
        assert_ne!(rsa.public_key().fingerprint(), ec.public_key().fingerprint());
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

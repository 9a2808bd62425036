//! The client's half of the connector's TLS: one RSA key for the process, and the short-lived certificates that the
//! Admin API signs for it.
//!
//! RSA-2048 because that is what every Google connector sends; whether the Admin API takes ECDSA is not documented.

use super::Error;
use crate::time::{Timestamp, from_unix};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroize;

/// Characters of base64 on each line of a PEM file (RFC 7468 §2).
const PEM_LINE: usize = 64;

/// The process's key for ephemeral certificates. Lives in memory only.
pub(super) struct ClientKey {
    signing: Arc<dyn SigningKey>,
    public_pem: String,
}

/// A certificate for the [`ClientKey`], ready to be presented. It may have a login token inside.
pub(super) struct Ephemeral {
    /// Certificate and key.
    pub certified: Arc<CertifiedKey>,
    /// The certificate's own `NotAfter` (the API's answer names no time to rely on), or an earlier end.
    pub expires_at: Timestamp,
}

impl Ephemeral {
    /// The same with an end that is no later than this.
    pub fn at_most_until(self, end: Timestamp) -> Self {
        Self { expires_at: self.expires_at.min(end), ..self }
    }
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ephemeral").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl ClientKey {
    /// Generates the key: some hundred milliseconds of one core.
    pub fn generate() -> Result<Self, Error> {
        let failed = |what: &str| Error::SetUp(format!("cannot {what} an RSA key"));
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| failed("generate"))?;
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| failed("encode"))?;
        let private: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| failed("encode"))?;
        let mut private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(private.as_ref().to_vec()));
        let signing = any_supported_type(&private);
        private.zeroize();
        Ok(Self { signing: signing.map_err(|_| failed("load"))?, public_pem: pem("PUBLIC KEY", public.as_ref()) })
    }

    /// The public key as PEM, label `PUBLIC KEY` (`SubjectPublicKeyInfo`, RFC 7468 §13).
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// Takes the certificate that the Admin API issued (PEM, a single leaf), if it is one for this key.
    pub fn certify(&self, certificate: &str) -> Result<Ephemeral, Error> {
        let broken = |what: &str| Error::AdminBroken(format!("the ephemeral certificate {what}"));
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| broken("is not PEM"))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| broken("is not X.509"))?;
        let expires_at = from_unix(parsed.validity().not_after.timestamp()).ok_or_else(|| broken("has no end"))?;
        let certified = CertifiedKey::new(vec![der], Arc::clone(&self.signing));
        certified.keys_match().map_err(|_| broken("is for another key"))?;
        Ok(Ephemeral { certified: Arc::new(certified), expires_at })
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(redacted)")
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at_checked(PEM_LINE).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudsql::testing::Authority;
    use crate::time::{Clock, until};
    use rcgen::PublicKeyData;
    use std::time::Duration;

    #[test]
    fn the_public_key_is_a_2048_bit_spki() {
        let key = ClientKey::generate().unwrap();
        assert!(key.public_pem().starts_with("-----BEGIN PUBLIC KEY-----\nMII"));
        assert!(key.public_pem().lines().all(|line| line.len() <= PEM_LINE));
        let spki = rcgen::SubjectPublicKeyInfo::from_pem(key.public_pem()).unwrap();
        assert_eq!(spki.der_bytes().len(), 270, "PKCS#1 RSA-2048 with e = 65537");
        assert_ne!(key.public_pem(), ClientKey::generate().unwrap().public_pem());
        assert_eq!(format!("{key:?}"), "ClientKey(redacted)");
    }

    #[test]
    fn a_certificate_for_this_key_tells_its_own_end() {
        let key = ClientKey::generate().unwrap();
        let authority = Authority::new("Google Cloud SQL Signing CA demo");
        let hour = Duration::from_secs(3600);
        let ephemeral = key.certify(&authority.ephemeral(key.public_pem(), hour)).unwrap();
        let left = until(ephemeral.expires_at, Clock::system().now());
        assert!(left <= hour && left > hour.checked_sub(Duration::from_secs(60)).unwrap(), "{left:?}");
    }

    #[test]
    fn a_certificate_for_another_key_or_none_is_refused() {
        let (key, other) = (ClientKey::generate().unwrap(), ClientKey::generate().unwrap());
        let authority = Authority::new("Google Cloud SQL Signing CA demo");
        let foreign = authority.ephemeral(other.public_pem(), Duration::from_secs(3600));
        for (pem, reason) in [
            (foreign.as_str(), "is for another key"),
            ("", "is not PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is not X.509"),
        ] {
            let Err(Error::AdminBroken(text)) = key.certify(pem) else { panic!("{pem:?} must be refused") };
            assert!(text.ends_with(reason), "{text}");
        }
    }
}

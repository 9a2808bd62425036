//! How the proxy's own app proves itself at Entra: a secret, an assertion signed with its certificate's key, or the
//! token of a managed identity that the app trusts.
//!
//! Sources: Microsoft identity platform, "application authentication certificate credentials" (PS256, `x5t#S256`);
//! "Configure an application to trust a managed identity".

use super::token_cache::TokenCache;
use super::{AccessToken, Error, Hop, ManagedIdentity};
use crate::http::Client;
use crate::secret::Secret;
use crate::time::{Clock, later};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PSS_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The longest client secret, in bytes; Entra's have 40 characters.
pub const MAX_SECRET_BYTES: u64 = 1024;
/// The largest PEM file, in bytes.
const MAX_PEM_BYTES: u64 = 64 * 1024;
/// How long an assertion is good for (Microsoft: "5-10 minutes after nbf at most").
const ASSERTION_LIFE: Duration = Duration::from_secs(300);
/// How far Entra's clock may be behind ours.
const ASSERTION_LEEWAY: i64 = 60;
/// A managed identity's token is asked for anew after this long.
const KEEP: Duration = Duration::from_secs(600);
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Where the app's credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialConfig {
    /// A file with the client secret and nothing else.
    SecretFile(PathBuf),
    /// The certificate that is registered with the app, and its RSA key (PEM).
    Certificate {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// A managed identity as federated credential of the app.
    ManagedIdentity {
        /// Client id of the user-assigned identity.
        client_id: String,
        /// What its token is asked for, such as `api://AzureADTokenExchange`.
        resource: String,
    },
}

/// The credential, ready for use. Files are read once: a new secret comes with a reload (SIGHUP).
#[derive(Debug)]
pub(super) enum ClientCredential {
    Secret(Secret<String>),
    Certificate(Signer),
    ManagedIdentity { platform: ManagedIdentity, cache: TokenCache },
}

/// Signs assertions.
#[derive(Debug)]
pub(super) struct Signer {
    key: KeyPair,
    /// Base64url of the certificate's SHA-256.
    thumbprint: String,
}

impl ClientCredential {
    /// Reads files, asks for nothing. `deadline` bounds the identity endpoint's answer.
    pub(super) fn load(config: CredentialConfig, http: Client, deadline: Duration) -> Result<Self, Error> {
        match config {
            CredentialConfig::SecretFile(path) => client_secret(&path).map(Self::Secret).map_err(|e| unusable(&e)),
            CredentialConfig::Certificate { certificate, key } => {
                Signer::load(&certificate, &key).map(Self::Certificate).map_err(|e| unusable(&e))
            }
            CredentialConfig::ManagedIdentity { client_id, resource } => Ok(Self::ManagedIdentity {
                platform: ManagedIdentity::new(http, deadline, &resource, Some(client_id))?,
                cache: TokenCache::default(),
            }),
        }
    }

    /// The form fields that prove the app at `endpoint`.
    pub(super) async fn fields(
        &self,
        clock: &Clock,
        client_id: &str,
        endpoint: &str,
    ) -> Result<Vec<(&'static str, Secret<String>)>, Error> {
        let assertion = match self {
            Self::Secret(secret) => return Ok(vec![("client_secret", secret.duplicate())]),
            Self::Certificate(signer) => signer.assertion(clock, client_id, endpoint)?,
            Self::ManagedIdentity { platform, cache } => {
                let asked_at = clock.now();
                let renew =
                    || async { Ok(AccessToken { token: platform.token().await?, expires_at: later(asked_at, KEEP) }) };
                cache.get(clock, renew).await?.token.duplicate()
            }
        };
        let kind = Secret::new(ASSERTION_TYPE.to_owned());
        Ok(vec![("client_assertion_type", kind), ("client_assertion", assertion)])
    }
}

impl Signer {
    fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let pem = read(certificate, MAX_PEM_BYTES)?;
        let certificate = CertificateDer::from_pem_slice(&pem)
            .map_err(|_| format!("{} has no -----BEGIN CERTIFICATE-----", certificate.display()))?;
        let key = rsa_key(key)?;
        Ok(Self { key, thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate)) })
    }

    fn assertion(&self, clock: &Clock, client_id: &str, endpoint: &str) -> Result<Secret<String>, Error> {
        let now = clock.now().as_second();
        let ends = later(clock.now(), ASSERTION_LIFE).as_second();
        let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint });
        let claims = json!({
            "aud": endpoint, "iss": client_id, "sub": client_id, "jti": uuid::Uuid::new_v4(),
            "iat": now, "nbf": now.saturating_sub(ASSERTION_LEEWAY), "exp": ends,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature)
            .map_err(|_| unusable("the key does not sign"))?;
        Ok(Secret::new(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

/// A secret as its file has it, but for white space around it; a reason without its content otherwise.
pub(crate) fn client_secret(path: &Path) -> Result<Secret<String>, String> {
    let bytes = read(path, MAX_SECRET_BYTES)?;
    let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{} is no client secret: one line of visible characters", path.display()));
    }
    Ok(Secret::new(text.to_owned()))
}

/// An RSA key (PEM), which is the only kind that Entra's app certificates have here.
pub(crate) fn rsa_key(path: &Path) -> Result<KeyPair, String> {
    let pem = read(path, MAX_PEM_BYTES)?;
    // The parser's own reason could quote the file.
    let key = match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(PrivateKeyDer::Pkcs8(key)) => KeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        Ok(PrivateKeyDer::Pkcs1(key)) => KeyPair::from_der(key.secret_pkcs1_der()).ok(),
        _ => None,
    };
    key.ok_or_else(|| format!("{} has no usable RSA key (-----BEGIN PRIVATE KEY-----, not encrypted)", path.display()))
}

fn read(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let file = File::open(path).map_err(unreadable)?;
    // A FIFO would hold the start-up for good.
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(format!("{} is larger than {most} bytes", path.display()));
    }
    Ok(bytes)
}

fn unusable(reason: &str) -> Error {
    Error::Refused { hop: Hop::OnBehalfOf, code: "credential".to_owned(), description: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    use rcgen::{CertificateParams, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize};

    #[test]
    fn an_assertion_is_what_entra_documents_and_its_certificate_verifies_it() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let (key_file, certificate_file) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        std::fs::write(&certificate_file, certificate.pem()).unwrap();
        let signer = Signer::load(&certificate_file, &key_file).unwrap();
        let endpoint = "https://login.microsoftonline.com/t/oauth2/v2.0/token";
        let assertion = signer.assertion(&Clock::system(), "app", endpoint).unwrap();
        let (input, signature) = assertion.expose().rsplit_once('.').unwrap();
        let (header, claims) = input.split_once('.').unwrap();
        let part = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let (header, claims) = (part(header), part(claims));
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, certificate.der()));
        assert_eq!(header, json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint }));
        assert_eq!((claims["aud"].as_str(), claims["iss"].as_str()), (Some(endpoint), Some("app")));
        assert_eq!(claims["sub"], "app");
        assert!(claims["exp"].as_i64().unwrap() - claims["nbf"].as_i64().unwrap() <= 600);
        let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.der_bytes());
        public.verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let again = signer.assertion(&Clock::system(), "app", endpoint).unwrap();
        assert_ne!(again.expose(), assertion.expose(), "each has an id of its own");
    }

    #[test]
    fn files_that_are_no_credential_say_so_without_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(client_secret(&path).unwrap_err().contains("cannot be read"));
        assert!(client_secret(folder.path()).unwrap_err().contains("not a regular file"));
        for bad in ["", "\n", "two SECRET words", &"S".repeat(2000), "\u{fc}SECRET"] {
            std::fs::write(&path, bad).unwrap();
            assert!(!client_secret(&path).unwrap_err().contains("SECRET"), "{bad}");
            assert!(!rsa_key(&path).unwrap_err().contains("SECRET"), "{bad}");
        }
        std::fs::write(&path, "Q~secret\n").unwrap();
        assert_eq!(client_secret(&path).unwrap().expose(), "Q~secret");
        let elliptic = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&path, elliptic.serialize_pem()).unwrap();
        assert!(rsa_key(&path).unwrap_err().contains("no usable RSA key"));
    }
}

//! The proxy's own identity where it needs no federation: a Google service account, by key file or by the metadata
//! server of the machine it runs on.
//!
//! `gcp_auth` signs and asks, with a TLS client of its own: it trusts the platform's roots (`SSL_CERT_FILE` changes
//! them), not `[https] ca_certificate`, and the metadata server's address is a constant of its own
//! (`metadata.google.internal`). It keeps tokens until shortly before their end and holds a lock while it asks; each
//! token is therefore asked from a new client, and our cache is the only one. It does not tell what status an endpoint
//! answered, so that a refusal counts as unavailability.

use super::answer::{bearer, harmless};
use super::{ADMIN_SCOPE, AccessToken, Error, Hop, MAX_TOKEN_BYTES};
use crate::http;
use crate::secret::Secret;
use crate::time::from_unix;
use gcp_auth::{CustomServiceAccount, MetadataServiceAccount, TokenProvider};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// The largest key file, in bytes; Google's are about 2400.
pub const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;
const HOP: Hop = Hop::OwnIdentity;

/// Where the account's tokens come from.
#[derive(Debug)]
pub(super) enum GoogleIdentity {
    /// A key file (RFC 7523 assertions to its `token_uri`), read anew for each token: a rotated key is taken up.
    KeyFile(PathBuf),
    /// The metadata server. It ignores the scope that is asked for: the machine's own scopes must include
    /// [`ADMIN_SCOPE`] or `cloud-platform`.
    Metadata,
}

impl GoogleIdentity {
    /// A fresh token, or why there is none within `deadline`. May be dropped at any time.
    pub(super) async fn token(&self, deadline: Duration) -> Result<AccessToken, Error> {
        let Ok(answer) = tokio::time::timeout(deadline, self.ask()).await else {
            return Err(Error::Unavailable { hop: HOP, reason: format!("no token within {deadline:?}") });
        };
        let token = answer?;
        let expires_at = from_unix(token.expires_at().timestamp())
            .ok_or_else(|| Error::Broken { hop: HOP, reason: "the token's end is no time".to_owned() })?;
        Ok(AccessToken { token: bearer(HOP, token.as_str().to_owned(), MAX_TOKEN_BYTES)?, expires_at })
    }

    async fn ask(&self) -> Result<Arc<gcp_auth::Token>, Error> {
        let scopes = [ADMIN_SCOPE];
        match self {
            Self::KeyFile(path) => {
                let key = read(path).await.map_err(|error| unreadable(&error.to_string()))?;
                let account = CustomServiceAccount::from_json(key.expose()).map_err(|_| unreadable("it is no key"))?;
                account.token(&scopes).await.map_err(|error| judged(&error))
            }
            Self::Metadata => {
                let account = MetadataServiceAccount::new().await.map_err(|error| judged(&error))?;
                account.token(&scopes).await.map_err(|error| judged(&error))
            }
        }
    }
}

async fn read(path: &PathBuf) -> std::io::Result<Secret<String>> {
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text).await?;
    Ok(Secret::new(text))
}

fn unreadable(reason: &str) -> Error {
    Error::Refused { hop: HOP, code: "key_file".to_owned(), description: harmless(reason, "") }
}

fn judged(error: &gcp_auth::Error) -> Error {
    match error {
        // What could not be parsed may be quoted in the error: it is not passed on.
        gcp_auth::Error::Json(..) => {
            Error::Broken { hop: HOP, reason: "the identity endpoint's answer is no token".to_owned() }
        }
        other => Error::Unavailable { hop: HOP, reason: harmless(&http::chain(other), "") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_file_that_is_none_is_refused_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let token = || async { GoogleIdentity::KeyFile(path.clone()).token(Duration::from_secs(5)).await.unwrap_err() };
        assert!(matches!(token().await, Error::Refused { code, .. } if code == "key_file"), "no file");
        for content in ["", "{}", r#"{"private_key": "SECRET", "client_email": "a", "token_uri": "b"}"#] {
            std::fs::write(&path, content).unwrap();
            let error = token().await;
            assert!(matches!(&error, Error::Refused { code, .. } if code == "key_file"), "{error:?}");
            assert!(!format!("{error:?}").contains("SECRET"));
        }
    }
}

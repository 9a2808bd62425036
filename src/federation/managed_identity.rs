//! An Entra token from the Azure platform that this process runs on: the proxy's own, or an app's that asks for itself.
//!
//! `azure_identity` finds out which endpoint there is (App Service: `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`;
//! otherwise the instance metadata service of a virtual machine) and asks it, over our transport.

use super::answer::{bearer, harmless};
use super::{Error, Hop};
use crate::http::{self, Client};
use crate::identity::MAX_TOKEN_BYTES;
use crate::secret::Secret;
use azure_core::credentials::TokenCredential;
use azure_core::error::{Error as AzureError, ErrorKind};
use azure_core::http::{ClientOptions, ExponentialRetryOptions, RetryOptions, StatusCode, Transport};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use std::sync::Arc;
use std::time::Duration;

/// How often the endpoint is asked again after a 5xx, 429 or a broken connection, all within the deadline.
const RETRIES: u32 = 2;
const HOP: Hop = Hop::OwnIdentity;

/// A managed identity and the resource it asks tokens for.
#[derive(Debug)]
pub struct ManagedIdentity {
    http: Client,
    deadline: Duration,
    scope: String,
    client_id: Option<String>,
}

impl ManagedIdentity {
    /// Checks that this platform's kind of identity is supported; asks for nothing yet.
    pub fn new(http: Client, deadline: Duration, resource: &str, client_id: Option<String>) -> Result<Self, Error> {
        let identity = Self { http, deadline, scope: format!("{resource}/.default"), client_id };
        identity.credential()?;
        Ok(identity)
    }

    /// A fresh token. Each time from a new credential: `azure_identity` keeps a token until shortly before its
    /// end, when Google may find it stale already; our cache of the token that it buys is the only one.
    pub async fn token(&self) -> Result<Secret<String>, Error> {
        let credential = self.credential()?;
        let scopes = [self.scope.as_str()];
        match tokio::time::timeout(self.deadline, credential.get_token(&scopes, None)).await {
            Ok(Ok(token)) => bearer(HOP, token.token.secret().to_owned(), MAX_TOKEN_BYTES),
            Ok(Err(error)) => Err(judged(&error)),
            Err(_) => Err(Error::Unavailable { hop: HOP, reason: format!("no token within {:?}", self.deadline) }),
        }
    }

    fn credential(&self) -> Result<Arc<ManagedIdentityCredential>, Error> {
        let retry = ExponentialRetryOptions { max_retries: RETRIES, ..ExponentialRetryOptions::default() };
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: self.client_id.clone().map(UserAssignedId::ClientId),
            client_options: ClientOptions {
                transport: Some(Transport::new(Arc::new(self.http.metadata_transport(self.deadline)))),
                retry: RetryOptions::exponential(retry),
                ..ClientOptions::default()
            },
        };
        ManagedIdentityCredential::new(Some(options)).map_err(|error| Error::Refused {
            hop: HOP,
            code: "unsupported_platform".to_owned(),
            description: harmless(&error.to_string(), ""),
        })
    }
}

/// `azure_identity` wraps what happened in its own errors; the innermost one that says something decides.
fn judged(error: &AzureError) -> Error {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        match cause.downcast_ref::<AzureError>().map(AzureError::kind) {
            Some(ErrorKind::HttpResponse { status, .. }) => return answered(*status, cause),
            Some(ErrorKind::Connection | ErrorKind::Io) => {
                return Error::Unavailable { hop: HOP, reason: harmless(&http::chain(cause), "") };
            }
            _ => next = cause.source(),
        }
    }
    // What could not be parsed may be quoted in the error: it is not passed on.
    Error::Broken { hop: HOP, reason: "the identity endpoint's answer is no token".to_owned() }
}

fn answered(status: StatusCode, cause: &(dyn std::error::Error + 'static)) -> Error {
    let code = u16::from(status);
    if code == 429 || code >= 500 {
        return Error::Unavailable { hop: HOP, reason: format!("status {code}") };
    }
    Error::Refused { hop: HOP, code: format!("http_{code}"), description: harmless(&cause.to_string(), "") }
}

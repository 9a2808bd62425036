//! How they arrive: a grant and the caller's token in, a short-lived Google token out; and the proxy's own identity.
//!
//! Two credentials that never mix: the caller's buys the database login, the proxy's own calls the SQL Admin API.
//!
//! Where the config says so a person's token is traded at Entra first, for one that no caller can get ([`OnBehalfOf`]).
//! A workforce grant is one exchange (Workforce Identity Federation: the token logs its subject in); a service
//! account's is two (Workload Identity Federation, then impersonation). What a caller's token has bought is kept in
//! memory while both live ([`Exchanger`]). Tokens are in forms, headers and [`Secret`]s, nowhere else.

mod answer;
mod caller_cache;
mod client_credential;
mod exchanger;
mod google_identity;
mod graph_identity;
mod impersonate;
mod managed_identity;
mod on_behalf_of;
mod remedy;
mod sts;
mod token_cache;

pub(crate) use answer::harmless;
pub use answer::{MAX_DESCRIPTION_BYTES, MAX_TOKEN_BYTES};
pub use caller_cache::{CALLER_FAILURE_HOLD, MARGIN, MAX_CALLER_TOKENS, REFUSAL_HOLD};
pub use client_credential::CredentialConfig;
pub(crate) use client_credential::{client_secret, rsa_key};
pub use exchanger::Exchanger;
pub use google_identity::MAX_KEY_FILE_BYTES;
pub use graph_identity::GraphIdentity;
pub use impersonate::LIFETIME;
pub use managed_identity::ManagedIdentity;
pub use on_behalf_of::{OnBehalfOf, OnBehalfOfConfig};
pub use remedy::{Documented, REMEDIES, Remedy};
pub use sts::MAX_TOKEN_SECONDS;
pub use token_cache::{FAILURE_HOLD, LEAST_LIFE, RENEW_BEFORE};

use crate::http::{Again, Service};
use crate::names::{Provider, ServiceAccount};
use crate::secret::Secret;
use crate::time::{Clock, Timestamp};
use google_identity::GoogleIdentity;
use impersonate::Impersonation;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use sts::Exchange;
use token_cache::TokenCache;

/// OAuth scope of a database login (Cloud SQL IAM database authentication).
pub const LOGIN_SCOPE: &str = "https://www.googleapis.com/auth/sqlservice.login";
/// OAuth scope of the SQL Admin API.
pub const ADMIN_SCOPE: &str = "https://www.googleapis.com/auth/sqlservice.admin";

/// OAuth scope of a federated token that is good for nothing but impersonation.
pub const IMPERSONATION_SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// Where Google's services are; a simulator or another universe domain has other addresses. No trailing slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleEndpoints {
    /// `https://sts.googleapis.com`
    pub sts: String,
    /// `https://iamcredentials.googleapis.com`
    pub iam_credentials: String,
    /// `https://sqladmin.googleapis.com`
    pub sql_admin: String,
}

/// A short-lived Google access token.
#[derive(Debug)]
pub struct AccessToken {
    /// The bearer token.
    pub token: Secret<String>,
    /// When it ends, as Google said.
    pub expires_at: Timestamp,
}

/// Which service failed, for the refusal's text and the blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// Entra ID, on behalf of a caller.
    OnBehalfOf,
    /// Google STS.
    Sts,
    /// IAM Credentials.
    IamCredentials,
    /// Where the proxy's own identity comes from: the platform's endpoint, or Google's for a key file.
    OwnIdentity,
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No answer, or 5xx/429 after the retries the source allows.
    #[error("{hop:?} is unavailable")]
    Unavailable {
        /// Which service.
        hop: Hop,
        /// What happened, as text without secrets.
        reason: String,
    },
    /// An answer that cannot be understood, or a broken connection.
    #[error("{hop:?} answered something that cannot be understood")]
    Broken {
        /// Which service.
        hop: Hop,
        /// What was wrong, without the body.
        reason: String,
    },
    /// The service said no.
    #[error("{hop:?} refused: {code}: {description}")]
    Refused {
        /// Which service.
        hop: Hop,
        /// OAuth `error` or Google `status`.
        code: String,
        /// The service's own words, control characters removed, at most 500 bytes; contains no token.
        description: String,
    },
    /// So many callers wait for the service already that this one is not let in.
    #[error("too many calls of {hop:?} are under way")]
    Busy {
        /// Which service.
        hop: Hop,
    },
    /// The service said 429, or has said so a moment ago and is left alone for longer than this login may take.
    #[error("{hop:?} takes no more calls for now")]
    Throttled {
        /// Which service.
        hop: Hop,
        /// How long still, where that is known.
        left: Option<Duration>,
    },
    /// STS said the Entra token is stale; a new token is the only cure.
    #[error("STS finds the Entra token stale")]
    Stale,
}

/// How Google is called: where, by what client, until when.
#[derive(Debug, Clone)]
pub struct Google {
    /// Where.
    pub endpoints: GoogleEndpoints,
    /// By what client.
    pub http: crate::http::Client,
    /// Wall time.
    pub clock: Clock,
    /// Until when.
    pub deadlines: Deadlines,
    /// How many calls at a time.
    pub services: Services,
}

/// Google's services as one user of them leans on them. The callers' and the proxy's own are not the same value, so
/// that a storm of callers does not take the proxy's own credential away.
#[derive(Debug, Clone)]
pub struct Services {
    sts: Service,
    iam_credentials: Service,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            sts: Service::new("Google STS", Again::ServerErrors),
            iam_credentials: Service::new("Google IAM Credentials", Again::Unavailable),
        }
    }
}

/// Bounds of the calls, each with its retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// STS.
    pub sts: Duration,
    /// `generateAccessToken`.
    pub iam_credentials: Duration,
}

impl Google {
    /// A workload pool's exchange and the impersonation it is for.
    async fn impersonate(
        &self,
        provider: &Provider,
        (account, delegates): (&ServiceAccount, &[ServiceAccount]),
        scope: &str,
        subject: &Secret<String>,
    ) -> Result<AccessToken, Error> {
        let exchange = Exchange { provider, scope: IMPERSONATION_SCOPE, user_project: None };
        let federated = sts::exchange(self, &exchange, subject).await?;
        let impersonation = Impersonation { account, delegates, scope };
        impersonate::generate_access_token(self, &impersonation, &federated.token).await
    }
}

/// `[own_identity]`: where the proxy's own credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnIdentityConfig {
    /// An Azure managed identity (IMDS or App Service), federated through a workload pool and impersonating an account.
    AzureManagedIdentity {
        /// App ID URI the managed identity asks a token for; the Google provider's allowed audience.
        resource: String,
        /// Client id of a user-assigned identity.
        client_id: Option<String>,
        /// STS audience.
        provider: Provider,
        /// The account that may call the SQL Admin API.
        service_account: ServiceAccount,
        /// Accounts on the way to it, each with the right to be the next.
        delegates: Vec<ServiceAccount>,
    },
    /// A Google service account's key file: where neither of the others is to be had, because a key is a secret that
    /// does not end by itself.
    GoogleServiceAccountFile {
        /// The JSON file that Google's console gives out.
        key_file: PathBuf,
    },
    /// The service account of the Google machine that the proxy runs on.
    GoogleMetadata,
}

/// The proxy's own Google credential for the SQL Admin API, cached until five minutes before its end.
#[derive(Debug)]
pub struct OwnIdentity {
    google: Google,
    source: Source,
    deadline: Duration,
    cache: TokenCache,
}

#[derive(Debug)]
enum Source {
    Azure { platform: ManagedIdentity, provider: Provider, account: ServiceAccount, delegates: Vec<ServiceAccount> },
    Google(GoogleIdentity),
}

impl OwnIdentity {
    /// Prepares the credential; calls nothing yet. Refuses a platform whose identities are not supported.
    /// `deadline` bounds the platform's own answer, its retries included.
    pub fn new(config: OwnIdentityConfig, google: Google, deadline: Duration) -> Result<Self, Error> {
        let source = match config {
            OwnIdentityConfig::AzureManagedIdentity { resource, client_id, provider, service_account, delegates } => {
                let platform = ManagedIdentity::new(google.http.clone(), deadline, &resource, client_id)?;
                Source::Azure { platform, provider, account: service_account, delegates }
            }
            OwnIdentityConfig::GoogleServiceAccountFile { key_file } => {
                Source::Google(GoogleIdentity::KeyFile(key_file))
            }
            OwnIdentityConfig::GoogleMetadata => Source::Google(GoogleIdentity::Metadata),
        };
        Ok(Self { google, source, deadline, cache: TokenCache::default() })
    }

    /// A token with [`ADMIN_SCOPE`]. Single flight. May be dropped at any time.
    pub async fn token(&self) -> Result<Arc<AccessToken>, Error> {
        self.cache.get(&self.google.clock, || self.renew()).await
    }

    async fn renew(&self) -> Result<AccessToken, Error> {
        let (platform, provider, account, delegates) = match &self.source {
            Source::Azure { platform, provider, account, delegates } => (platform, provider, account, delegates),
            Source::Google(identity) => return identity.token(self.deadline).await,
        };
        let subject = platform.token().await?;
        let renewed = self.google.impersonate(provider, (account, delegates), ADMIN_SCOPE, &subject).await;
        // [`Error::Stale`] asks a caller for a new token; this one is not a caller's.
        renewed.map_err(|error| match error {
            Error::Stale => Error::Refused {
                hop: Hop::OwnIdentity,
                code: "stale".to_owned(),
                description: "STS finds the managed identity's token stale".to_owned(),
            },
            other => other,
        })
    }
}

#[cfg(test)]
mod quota_tests;
#[cfg(test)]
mod tests;

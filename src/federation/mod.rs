//! How they arrive: a grant and the caller's token in, a short-lived Google token out; and the proxy's own identity.
//!
//! Two credentials that never mix: the caller's buys the database login, the proxy's own calls the SQL Admin API.

use crate::identity::VerifiedIdentity;
use crate::names::{Provider, ServiceAccount};
use crate::policy::Grant;
use crate::secret::Secret;
use crate::time::{Clock, Timestamp};
use std::time::Duration;

/// OAuth scope of a database login (facts: Cloud SQL §1.4).
pub const LOGIN_SCOPE: &str = "https://www.googleapis.com/auth/sqlservice.login";
/// OAuth scope of the SQL Admin API.
pub const ADMIN_SCOPE: &str = "https://www.googleapis.com/auth/sqlservice.admin";

/// Where Google's services are; a simulator or another universe domain has other addresses. No trailing slashes.
#[derive(Debug, Clone)]
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
    /// Google STS.
    Sts,
    /// IAM Credentials.
    IamCredentials,
    /// The platform's own identity endpoint (Azure).
    OwnIdentity,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
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
    /// STS said the Entra token is stale; a new token is the only cure.
    #[error("STS finds the Entra token stale")]
    Stale,
}

/// Buys database logins with callers' tokens.
#[derive(Debug)]
pub struct Exchanger {
    _private: (),
}

impl Exchanger {
    /// `deadline` bounds each of the two calls.
    pub fn new(endpoints: GoogleEndpoints, http: crate::http::Client, clock: Clock, deadline: Duration) -> Self {
        let _ = (endpoints, http, clock, deadline);
        todo!()
    }

    /// STS, and for a service account `generateAccessToken`.
    pub async fn exchange(&self, grant: &Grant, identity: &VerifiedIdentity) -> Result<AccessToken, Error> {
        let _ = (grant, identity);
        todo!()
    }
}

/// `[own_identity]`: where the proxy's own credential comes from.
#[derive(Debug, Clone)]
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
    },
}

/// The proxy's own Google credential for the SQL Admin API, cached until five minutes before its end.
#[derive(Debug)]
pub struct OwnIdentity {
    _private: (),
}

impl OwnIdentity {
    /// Prepares the credential; calls nothing yet.
    pub fn new(
        config: OwnIdentityConfig,
        endpoints: GoogleEndpoints,
        http: crate::http::Client,
        clock: Clock,
        deadline: Duration,
    ) -> Result<Self, Error> {
        let _ = (config, endpoints, http, clock, deadline);
        todo!()
    }

    /// A token with [`ADMIN_SCOPE`]. Single flight.
    pub async fn token(&self) -> Result<std::sync::Arc<AccessToken>, Error> {
        todo!()
    }
}

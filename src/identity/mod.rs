//! Who is this: a bearer token and a time in, a [`VerifiedIdentity`] out.
//!
//! Order of checks: form and header, then whose key it could be, the key, the signature, and only then what the
//! token claims: issuer, tenant, version, audience, times, identity (Microsoft identity platform, "Access tokens",
//! validation; "Secure applications and APIs by validating claims"). What an unverified token says is used to
//! choose what to check it against and to refuse it. Keys come only from the configured issuers' discovery
//! documents; nothing in a token names a URL that is fetched.
//!
//! The token itself is read once more by Google, which checks it again for itself.

mod claims;
mod json;
mod jwks;
mod jws;
mod key_cache;
#[cfg(test)]
mod testing;

pub use claims::{LEEWAY, MAX_CLAIM_BYTES, MAX_CLAIMS, MAX_LIST_ENTRIES, NO_SUBJECTS};
pub use jwks::MAX_KEYS;
pub use jws::MAX_TOKEN_BYTES;
pub use key_cache::{FAILURE_HOLD, KEEP_FOR, REFRESH_AFTER, REFRESH_INTERVAL};

use crate::names::{IssuerName, TenantId};
use crate::secret::Secret;
use crate::time::Timestamp;
use jws::Jws;
use key_cache::{Found, KeyCache};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// One `[issuer.NAME]` of the config: an Entra tenant whose v2.0 access tokens are accepted.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// The config's name for it.
    pub name: IssuerName,
    /// The tenant; the only one this issuer speaks for.
    pub tenant: TenantId,
    /// Accepted `aud`: the client id of the proxy's app registration.
    pub audience: String,
    /// Login host, `https://login.microsoftonline.com` unless a sovereign cloud or a simulator; no trailing slash.
    pub authority: String,
    /// Client apps (`azp`) that may present tokens; empty means any.
    pub allowed_apps: Vec<String>,
    /// Kinds of caller that are accepted; empty means both.
    pub allowed_kinds: Vec<CallerKind>,
}

impl IssuerConfig {
    /// The `iss` of its v2.0 tokens, exactly.
    pub fn url(&self) -> String {
        format!("{}/{}/v2.0", self.authority, self.tenant)
    }
}

/// Human or software: decided by `idtyp`, else by the presence of `scp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallerKind {
    /// A person signed in (delegated token).
    User,
    /// Software signed in as itself (client credentials, managed identity).
    App,
}

impl CallerKind {
    /// As the config and the records say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::App => "app",
        }
    }
}

/// Proof that a token's signature and claims were checked at a known time. Made only by [`Verifier::verify`].
#[derive(Debug)]
pub struct VerifiedIdentity {
    pub(crate) facts: IdentityFacts,
    pub(crate) token: Secret<String>,
}

/// What a verified token says. Data only; carries no authority by itself.
#[derive(Debug, Clone)]
pub struct IdentityFacts {
    /// The configured issuer that signed.
    pub issuer: IssuerName,
    /// The token's `iss`, exactly.
    pub issuer_url: String,
    /// `tid`.
    pub tenant: TenantId,
    /// `oid`: with the tenant, the identity.
    pub object_id: String,
    /// Person or software.
    pub kind: CallerKind,
    /// Whether a person is a guest in the tenant (`acct` 1 or a foreign `idp`).
    pub guest: bool,
    /// For display: `upn`, else `preferred_username`, else the app's name or id. Never an identity: only the client's `user` hint is
    /// compared with it.
    pub label: String,
    /// `azp`: the client app that asked for the token.
    pub app: String,
    /// `groups`; `None` when the token does not carry the claim (overage, or not configured).
    pub groups: Option<Vec<String>>,
    /// `roles`; `None` when absent.
    pub roles: Option<Vec<String>>,
    /// The top-level string claims that can name a workforce grant's subject, `oid`, `sub` and `upn` among them.
    /// Never `email`, `name` and its parts (people set them), protocol fields, or values with control characters
    /// or more than [`MAX_CLAIM_BYTES`].
    pub claims: BTreeMap<String, String>,
    /// `uti`: the token's own id in Entra's sign-in logs.
    pub token_id: Option<String>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
}

impl VerifiedIdentity {
    /// What the token says.
    pub fn facts(&self) -> &IdentityFacts {
        &self.facts
    }

    /// The token that was checked, to be exchanged.
    pub fn token(&self) -> &Secret<String> {
        &self.token
    }
}

/// Why a token proves nothing. `Display` names the check and never quotes token bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not three base64url segments, or over the size limit, or not JSON.
    #[error("the password is not an access token")]
    NotAToken,
    /// The JOSE header has `nonce`: a token for Microsoft Graph, whose signature nobody else can check.
    #[error("this is a token for Microsoft Graph")]
    GraphToken,
    /// `alg` is not RS256.
    #[error("the token is not signed with RS256")]
    Algorithm,
    /// `crit` is present: it demands processing that is not done here.
    #[error("the token's header demands extensions that are not supported")]
    CriticalHeader,
    /// A v1.0 token.
    #[error("the token is an Entra v1.0 token")]
    Version,
    /// `iss` is no configured issuer's, or does not belong to `tid`, or is not the key's issuer.
    #[error("the token's issuer is not accepted")]
    Issuer,
    /// `tid` is no configured tenant's. Unverified: nobody here could check such a token.
    #[error("tenant {0} is not accepted")]
    Tenant(String),
    /// No such key, even after a refresh.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// `aud` is another API.
    #[error("the token is for another audience")]
    Audience,
    /// `exp` has passed.
    #[error("the token expired at {0}")]
    Expired(Timestamp),
    /// `nbf` or `iat` lies in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim is absent or has another type.
    #[error("the token has no usable claim {0:?}")]
    Claim(&'static str),
    /// `azp` may not present tokens here.
    #[error("client app {0} is not accepted")]
    App(String),
    /// Callers of this kind are not accepted from this issuer.
    #[error("callers of kind {} are not accepted", .0.as_str())]
    Kind(CallerKind),
    /// Discovery or keys cannot be had, and none are cached.
    #[error("the keys of issuer {issuer} cannot be fetched")]
    Keys {
        /// The config's name.
        issuer: IssuerName,
        /// What happened.
        #[source]
        source: KeyFetchError,
    },
}

/// Why an issuer's keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum KeyFetchError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] crate::http::Error),
    /// An answer that is no discovery document or key set.
    #[error("{url} answered {status} with something that is not {expected}")]
    Malformed {
        /// The document's address.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it should have been.
        expected: &'static str,
    },
}

/// Checks tokens against the configured issuers; caches their keys.
pub struct Verifier {
    issuers: Vec<Arc<KeyCache>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.issuers.iter().map(|keys| keys.issuer())).finish()
    }
}

impl Verifier {
    /// A verifier for these issuers. Fetches nothing yet. `deadline` bounds each of the two GETs for keys.
    pub fn new(issuers: Vec<IssuerConfig>, http: crate::http::Client, deadline: Duration) -> Self {
        Self { issuers: issuers.into_iter().map(|issuer| KeyCache::new(issuer, http.clone(), deadline)).collect() }
    }

    /// Fetches every issuer's keys at once, so that the first caller does not wait. Says which could not be had.
    pub async fn warm_up(&self) -> Vec<(IssuerName, KeyFetchError)> {
        let mut fetches = JoinSet::new();
        for keys in &self.issuers {
            let keys = Arc::clone(keys);
            fetches.spawn(async move { (keys.issuer().name.clone(), keys.warm_up().await) });
        }
        fetches.join_all().await.into_iter().filter_map(|(name, outcome)| Some((name, outcome.err()?))).collect()
    }

    /// Checks one token at `now`. May be dropped at any time; a fetch of keys that it began goes on.
    pub async fn verify(&self, token: Secret<String>, now: Timestamp) -> Result<VerifiedIdentity, Error> {
        let jws = Jws::parse(token.expose())?;
        let keys = self.select(&jws)?;
        let issuer = keys.issuer();
        let key = match keys.find(jws.kid()).await {
            Ok(Found::Key(key)) => key,
            Ok(Found::Foreign) => return Err(Error::Issuer),
            Ok(Found::Unknown) => return Err(Error::UnknownKey),
            Err(source) => return Err(Error::Keys { issuer: issuer.name.clone(), source }),
        };
        let facts = claims::check(&jws.verify(&key)?, issuer, now)?;
        Ok(VerifiedIdentity { facts, token })
    }

    /// The issuer whose keys and rules a token is to be checked against, by its unverified `iss`; among several
    /// registrations of one tenant, by its `aud`.
    fn select(&self, jws: &Jws<'_>) -> Result<&Arc<KeyCache>, Error> {
        let says = |claim: &str| jws.unverified(claim).and_then(Value::as_str);
        let iss = says("iss").ok_or(Error::Claim("iss"))?;
        let named = || self.issuers.iter().filter(|keys| keys.issuer().url() == iss);
        let by_audience = named().find(|keys| says("aud") == Some(&keys.issuer().audience));
        by_audience.or_else(|| named().next()).ok_or_else(|| self.stranger(says("tid"), says("ver")))
    }

    /// Why nobody here answers for a token: another tenant, an older version, or another issuer altogether.
    fn stranger(&self, tid: Option<&str>, version: Option<&str>) -> Error {
        match tid.and_then(|tid| TenantId::parse(tid).ok()) {
            Some(tenant) if self.issuers.iter().all(|keys| keys.issuer().tenant != tenant) => {
                Error::Tenant(tenant.to_string())
            }
            Some(_) if version == Some("1.0") => Error::Version,
            _ => Error::Issuer,
        }
    }
}

#[cfg(test)]
mod tests;

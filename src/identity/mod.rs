//! Who is this: a bearer token and a time in, a [`VerifiedIdentity`] out.
//!
//! Order of checks: form and header, then whose key it could be, the key, the signature, and only then what the
//! token claims: issuer, tenant, version, audience, times, identity (Microsoft identity platform, "Access tokens",
//! validation; "Secure applications and APIs by validating claims"). What an unverified token says is used to
//! choose what to check it against and to refuse it. Keys come only from the configured issuers' discovery
//! documents; nothing in a token names a URL that is fetched.
//!
//! An identity is the issuer, the tenant and the object id (of other providers: the subject claim that the config
//! names). Names and e-mail addresses are labels. `checklist.rs` lists what token checks get wrong, each with its test.
//!
//! The token itself is read once more by Google, which checks it again for itself.

#[cfg(test)]
mod checklist;
mod claims;
mod clouds;
mod directory;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod issuer;
mod json;
mod jwks;
mod jws;
mod key_cache;
mod share;
mod signatures;
#[cfg(test)]
pub(crate) mod testing;

pub use claims::{MAX_CLAIM_BYTES, MAX_CLAIMS, MAX_LIST_ENTRIES, NO_SUBJECTS, managed_identity};
pub use clouds::{Cloud, alias, cloud, is_login_host};
pub use directory::{Directory, DirectoryError, DirectoryToken, MAX_MEMBERS, MEMBERSHIP_LIFE};
pub use issuer::{
    CallerKind, Dialect, Entra, IssuerConfig, KindRule, LEEWAY, MAX_LEEWAY, Oidc, Overage, TokenType, Version,
};
pub use jwks::MAX_KEYS;
pub use jws::{Algorithm, MAX_TOKEN_BYTES};
pub use key_cache::{FAILURE_HOLD, KEEP_FOR, REFRESH_AFTER, REFRESH_INTERVAL};
pub use share::{CallerId, MAX_PER_CALLER, Shares};
pub use signatures::{FAILURE_MEMORY, FAILURE_WINDOW, MAX_ADDRESSES, MAX_FAILED, MAX_GOOD};

use crate::names::{IssuerName, Tenant, TenantId};
use crate::secret::Secret;
use crate::time::Timestamp;
use jws::{Jws, PublicKey};
use key_cache::{Found, KeyCache};
use serde_json::Value;
use signatures::{Seen, Signatures};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

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
    /// `tid`, or the tenant that the config gives to another provider.
    pub tenant: Tenant,
    /// `oid`, or another provider's subject: with issuer and tenant, the identity.
    pub object_id: String,
    /// Person or software.
    pub kind: CallerKind,
    /// Whether a person is a guest in the tenant (`acct` 1 or a foreign `idp`).
    pub guest: bool,
    /// For display: `upn`, else `preferred_username`, else the app's or managed identity's name or id. Never an identity: only the client's `user` hint is
    /// compared with it.
    pub label: String,
    /// `azp` (v1.0: `appid`): the client app that asked for the token. Empty where another provider's token says none.
    pub app: String,
    /// `groups`; `None` when the token does not carry the claim (overage, or not configured).
    pub groups: Option<Vec<String>>,
    /// Whether the groups were too many for the token.
    pub overage: bool,
    /// Where a directory told the groups: those that it was asked about. Whether the caller is in another one nobody knows.
    pub asked_groups: Option<Arc<HashSet<String>>>,
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

impl IdentityFacts {
    /// Whether nobody knows if the caller is in this group: it was neither in the token nor asked of a directory.
    pub fn may_be_in(&self, group: &str) -> bool {
        match (&self.groups, &self.asked_groups) {
            (None, _) => self.overage,
            (Some(_), Some(asked)) => !asked.contains(group),
            (Some(_), None) => false,
        }
    }
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
    /// `alg` is none of the issuer's: RS256 for Entra.
    #[error("the token is not signed with RS256 or another algorithm that its issuer may use")]
    Algorithm,
    /// `typ` is `at+jwt` where the issuer's access tokens do not say it, or is not where they do.
    #[error("the token's type (`typ`) is not that of its issuer's access tokens")]
    TokenType,
    /// `crit` is present: it demands processing that is not done here.
    #[error("the token's header demands extensions that are not supported")]
    CriticalHeader,
    /// A token of the version that is not accepted of its tenant.
    #[error("the token is an Entra v{} token", .0.as_str())]
    Version(Version),
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
    /// Issued too long ago.
    #[error("the token is too old: it was issued at {0}")]
    TooOld(Timestamp),
    /// A claim is absent, has another type, or has not the value that it must have.
    #[error("the token has no usable claim {0:?}")]
    Claim(Cow<'static, str>),
    /// `scp` or `roles` has nothing that the issuer's section asks for.
    #[error("the token's claim {0:?} has none of the permissions that are asked for")]
    Permission(&'static str),
    /// This address had too many different tokens refused; no signature was checked.
    #[error("too many different tokens of this address were refused")]
    TooManyBad,
    /// `azp` may not present tokens here.
    #[error("client app {0} is not accepted")]
    App(String),
    /// Callers of this kind are not accepted from this issuer.
    #[error("callers of kind {} are not accepted", .0.as_str())]
    Kind(CallerKind),
    /// The token's groups are in the directory, and that does not say them.
    #[error("the caller's groups cannot be fetched")]
    Groups(#[source] DirectoryError),
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

/// Checks tokens against the configured issuers; caches their keys and which signatures were checked already.
pub struct Verifier {
    issuers: Vec<Arc<KeyCache>>,
    signatures: Signatures,
    directories: HashMap<IssuerName, Directory>,
}

/// How often the keys' age is looked at.
pub const KEYS_EVERY: Duration = Duration::from_secs(60);

/// Keeps the keys of whatever verifier serves fresh, without a caller's waiting for them: looks for ever.
pub async fn keep_keys(serving: impl Fn() -> Arc<Verifier>) {
    let mut ticks = interval(KEYS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        serving().refresh_ahead();
    }
}

/// Bounds of a verifier.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Each of the two GETs for keys.
    pub keys: Duration,
    /// Different tokens of one address (IPv6: one /64; of the /56 and /48 twice and four times as many) that are refused
    /// within [`FAILURE_WINDOW`].
    pub bad_tokens_per_address: u32,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.issuers.iter().map(|keys| keys.issuer())).finish()
    }
}

impl Verifier {
    /// A verifier for these issuers. Fetches nothing yet. A new one remembers nothing of an older one.
    pub fn new(issuers: Vec<IssuerConfig>, http: crate::http::Client, settings: Settings) -> Self {
        let keys = |issuer| KeyCache::new(Arc::new(issuer), http.clone(), settings.keys);
        Self {
            issuers: issuers.into_iter().map(keys).collect(),
            signatures: Signatures::new(settings.bad_tokens_per_address),
            directories: HashMap::new(),
        }
    }

    /// The same verifier with the keys that an earlier one has of issuers whose keys are published where they were. It
    /// remembers no signature and no group of that one.
    #[must_use]
    pub fn succeeding(mut self, earlier: &Self, http: &crate::http::Client, deadline: Duration) -> Self {
        for keys in &mut self.issuers {
            if let Some(earlier) = earlier.issuers.iter().find(|earlier| earlier.issuer().name == keys.issuer().name) {
                *keys = KeyCache::after(earlier, Arc::clone(keys.issuer()), http.clone(), deadline);
            }
        }
        self
    }

    /// The section of the config of this name.
    pub fn issuer(&self, name: &IssuerName) -> Option<&Arc<IssuerConfig>> {
        self.issuers.iter().map(|keys| keys.issuer()).find(|issuer| issuer.name == *name)
    }

    /// Asks this directory for the groups of an issuer's callers whose tokens cannot hold them.
    #[must_use]
    pub fn with_directory(mut self, issuer: IssuerName, directory: Directory) -> Self {
        self.directories.insert(issuer, directory);
        self
    }

    /// The same identity with the groups that its token could not hold, where its issuer's section says to ask for them;
    /// elsewhere they stay unknown, and rules that ask for groups do not hold. May be dropped at any time.
    pub async fn resolve_groups(&self, mut identity: VerifiedIdentity) -> Result<VerifiedIdentity, Error> {
        let facts = &mut identity.facts;
        if let Some(directory) = self.directories.get(&facts.issuer).filter(|_| facts.overage) {
            facts.groups = Some(directory.groups(facts).await.map_err(Error::Groups)?);
            facts.asked_groups = Some(directory.asked());
            facts.overage = false;
        }
        Ok(identity)
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

    /// Begins to fetch keys that are old or missing. Returns at once.
    fn refresh_ahead(&self) {
        self.issuers.iter().for_each(KeyCache::refresh_ahead);
    }

    /// Checks one token at `now`, which came from an address; `None`: from a balancer behind which anybody may be, so
    /// that no limit of one address is for it. May be dropped at any time; a fetch of keys that it began goes on.
    pub async fn verify(
        &self,
        token: Secret<String>,
        from: impl Into<Option<IpAddr>>,
        now: Timestamp,
    ) -> Result<VerifiedIdentity, Error> {
        let jws = Jws::parse(token.expose())?;
        let keys = self.select(&jws)?;
        let issuer = keys.issuer();
        let key = Self::key(keys, &jws).await?;
        let seen = Seen { from: from.into(), at: now, leeway: issuer.leeway };
        let judge = |jws: Jws<'_>, proven| claims::check(&jws.claims(proven), issuer, now);
        let facts = self.signatures.check(jws, &key, seen, judge)?;
        Ok(VerifiedIdentity { facts, token })
    }

    /// Good tokens, failed ones, and addresses that are remembered.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> [usize; 3] {
        self.signatures.sizes()
    }

    /// The published key that the token names, of an algorithm that the issuer uses.
    async fn key(keys: &Arc<KeyCache>, jws: &Jws<'_>) -> Result<Arc<PublicKey>, Error> {
        let issuer = keys.issuer();
        if !issuer.signs_with(jws.algorithm()) {
            return Err(Error::Algorithm);
        }
        if !issuer.takes(jws) {
            return Err(Error::TokenType);
        }
        match keys.find(jws.kid(), jws.algorithm()).await {
            Ok(Found::Key(key)) => Ok(key),
            Ok(Found::Foreign) => Err(Error::Issuer),
            Ok(Found::Unknown) => Err(Error::UnknownKey),
            Err(source) => Err(Error::Keys { issuer: issuer.name.clone(), source }),
        }
    }

    /// The issuer whose keys and rules a token is to be checked against, by its unverified `iss`; among several
    /// registrations of one tenant, by its `aud`.
    fn select(&self, jws: &Jws<'_>) -> Result<&Arc<KeyCache>, Error> {
        let says = |claim: &str| jws.unverified(claim).and_then(Value::as_str);
        let iss = says("iss").ok_or(Error::Claim("iss".into()))?;
        let named = || self.issuers.iter().filter(|keys| keys.issuer().url() == iss);
        let audience = claims::one_audience(jws.unverified("aud"));
        let by_audience =
            named().find(|keys| audience.is_some_and(|audience| keys.issuer().accepts_audience(audience)));
        by_audience.or_else(|| named().next()).ok_or_else(|| self.stranger(says("tid"), says("ver")))
    }

    /// Why nobody here answers for a token: another tenant, another version, or another issuer altogether.
    fn stranger(&self, tid: Option<&str>, version: Option<&str>) -> Error {
        let Some(tenant) = tid.and_then(|tid| TenantId::parse(tid).ok()) else { return Error::Issuer };
        let ours = || self.issuers.iter().filter_map(|keys| keys.issuer().entra()).filter(|e| e.tenant == tenant);
        let other = [Version::V1, Version::V2].into_iter().find(|other| version == Some(other.as_str()));
        match other {
            _ if ours().next().is_none() => Error::Tenant(tenant.to_string()),
            Some(other) if ours().all(|entra| entra.version != other) => Error::Version(other),
            _ => Error::Issuer,
        }
    }
}

#[cfg(test)]
mod tests;

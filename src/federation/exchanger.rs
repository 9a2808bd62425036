//! Buys database logins with callers' tokens, and remembers for whom it has just done so.

use super::caller_cache::{CallerCache, Key};
use super::sts::{self, Exchange};
use super::{AccessToken, Error, Google, LOGIN_SCOPE};
use crate::identity::VerifiedIdentity;
use crate::names::ServiceAccount;
use crate::policy::{Grant, How};
use crate::time::Timestamp;
use aws_lc_rs::digest::{Context, SHA256};
use std::sync::Arc;

/// One generation of the config has one: a reload begins with an empty cache.
#[derive(Debug)]
pub struct Exchanger {
    google: Google,
    cache: CallerCache,
}

impl Exchanger {
    /// Calls nothing yet.
    pub fn new(google: Google) -> Self {
        Self { google, cache: CallerCache::default() }
    }

    /// STS, and for a service account `generateAccessToken`; or the token that the same caller's same token has bought
    /// already. It has [`LOGIN_SCOPE`] and no other. May be dropped at any time; a token that Google issued meanwhile
    /// is lost and runs out.
    pub async fn exchange(&self, grant: &Grant, identity: &VerifiedIdentity) -> Result<Arc<AccessToken>, Error> {
        let ends = identity.facts().expires_at;
        self.cache.get(key(grant, identity), ends, &self.google.clock, || self.buy(grant, identity)).await
    }

    /// The instance did not take this token: the next login asks Google anew.
    pub fn forget(&self, grant: &Grant, identity: &VerifiedIdentity, token: &Arc<AccessToken>) {
        self.cache.forget(&key(grant, identity), token);
    }

    /// Lets go tokens that have ended.
    pub fn sweep(&self) {
        self.cache.sweep(self.google.clock.now());
    }

    /// Lets go every token that nobody is just buying: another generation serves, and sessions alone hold this one.
    pub fn retire(&self) {
        self.cache.sweep(Timestamp::MAX);
    }

    /// As [`Exchanger::exchange`], of somebody who sells this.
    #[cfg(test)]
    pub(crate) async fn exchange_for(&self, grant: &Grant, identity: &VerifiedIdentity, token: AccessToken) {
        let ends = identity.facts().expires_at;
        let bought = self.cache.get(key(grant, identity), ends, &self.google.clock, || async { Ok(token) }).await;
        assert!(bought.is_ok());
    }

    /// How many bought tokens are kept.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.cache.len()
    }

    async fn buy(&self, grant: &Grant, identity: &VerifiedIdentity) -> Result<AccessToken, Error> {
        let subject = identity.token();
        match grant.how() {
            How::Workforce { provider, user_project, .. } => {
                let exchange = Exchange { provider, scope: LOGIN_SCOPE, user_project: user_project.as_deref() };
                sts::exchange(&self.google, &exchange, subject).await
            }
            How::ServiceAccount { provider, account, delegates } => {
                self.google.impersonate(provider, (account, delegates), LOGIN_SCOPE, subject).await
            }
        }
    }
}

/// What a token is found by: the caller's own token, and all that decides what it buys.
fn key(grant: &Grant, identity: &VerifiedIdentity) -> Key {
    let mut parts = vec!["pgpassport caller token 1", identity.token().expose(), LOGIN_SCOPE];
    match grant.how() {
        How::Workforce { provider, user_project, .. } => {
            parts.extend(["workforce", provider.as_str(), user_project.as_deref().unwrap_or_default()]);
        }
        How::ServiceAccount { provider, account, delegates } => {
            parts.extend(["service_account", provider.as_str(), account.as_str()]);
            parts.extend(delegates.iter().map(ServiceAccount::as_str));
        }
    }
    let mut hash = Context::new(&SHA256);
    for part in parts {
        // Each with its length, so that no two lists of parts are one text.
        hash.update(&part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
}

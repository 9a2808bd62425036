//! Buys database logins with callers' tokens, and remembers for whom it has just done so.

use super::caller_cache::{CallerCache, Key};
use super::sts::{self, Exchange};
use super::{AccessToken, Error, Google, LOGIN_SCOPE, OnBehalfOf};
use crate::identity::{CallerId, VerifiedIdentity};
use crate::names::{IssuerName, ServiceAccount};
use crate::policy::{Grant, How};
use crate::secret::Secret;
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One generation of the config has one: a reload begins with an empty cache.
#[derive(Debug)]
pub struct Exchanger {
    google: Google,
    trades: BTreeMap<IssuerName, OnBehalfOf>,
    cache: CallerCache,
}

impl Exchanger {
    /// People's tokens of the issuers in `trades` are traded at Entra first. Calls nothing yet.
    pub fn new(google: Google, trades: BTreeMap<IssuerName, OnBehalfOf>) -> Self {
        Self { google, trades, cache: CallerCache::default() }
    }

    /// STS, and for a service account `generateAccessToken`; or the token that the same caller's same token has bought
    /// already. It has [`LOGIN_SCOPE`] and no other. May be dropped at any time; a token that Google issued meanwhile
    /// is lost and runs out.
    pub async fn exchange(&self, grant: &Grant, identity: &VerifiedIdentity) -> Result<Arc<AccessToken>, Error> {
        let ends = identity.facts().expires_at;
        let key = self.key(grant, identity);
        self.cache.get(key, ends, &self.google.clock, || self.buy(grant, identity)).await
    }

    /// The instance did not take this token: the next login asks Google anew.
    pub fn forget(&self, grant: &Grant, identity: &VerifiedIdentity, token: &Arc<AccessToken>) {
        self.cache.forget(&self.key(grant, identity), token);
    }

    /// Lets go tokens that have ended.
    pub fn sweep(&self) {
        self.cache.sweep(self.google.clock.now());
    }

    /// Lets go every token for good: another generation serves, and sessions alone hold this one. Who is just logging in
    /// with it buys for that one login.
    pub fn retire(&self) {
        self.cache.retire();
    }

    /// As [`Exchanger::exchange`], of somebody who sells this.
    #[cfg(test)]
    pub(crate) async fn buys(&self, grant: &Grant, identity: &VerifiedIdentity, token: AccessToken) {
        let ends = identity.facts().expires_at;
        let bought = self.cache.get(self.key(grant, identity), ends, &self.google.clock, || async { Ok(token) }).await;
        assert!(bought.is_ok());
    }

    /// How many bought tokens are kept.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.cache.len()
    }

    /// How this caller's token is traded, if it is.
    fn trade(&self, identity: &VerifiedIdentity) -> Option<&OnBehalfOf> {
        let caller = identity.facts();
        self.trades.get(&caller.issuer).filter(|_| OnBehalfOf::applies_to(caller))
    }

    async fn buy(&self, grant: &Grant, identity: &VerifiedIdentity) -> Result<AccessToken, Error> {
        let Some(trade) = self.trade(identity) else { return self.exchange_for(grant, identity.token()).await };
        let traded = trade.trade(identity).await?;
        let bought = self.exchange_for(grant, &traded.token).await?;
        // What was bought with it is not to outlive it.
        Ok(AccessToken { expires_at: bought.expires_at.min(traded.expires_at), ..bought })
    }

    async fn exchange_for(&self, grant: &Grant, subject: &Secret<String>) -> Result<AccessToken, Error> {
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

    /// What a token is found by: the caller's own token, and all that decides what it buys.
    fn key(&self, grant: &Grant, identity: &VerifiedIdentity) -> Key {
        let mut parts = vec!["pgpassport caller token 1", identity.token().expose(), LOGIN_SCOPE];
        if let Some(trade) = self.trade(identity) {
            parts.push("on_behalf_of");
            parts.extend(trade.parts());
        }
        parts.extend(wanted(grant));
        Key { caller: CallerId::of(identity.facts()), digest: digest(&parts) }
    }
}

fn wanted(grant: &Grant) -> Vec<&str> {
    let mut parts = Vec::new();
    match grant.how() {
        How::Workforce { provider, user_project, .. } => {
            parts.extend(["workforce", provider.as_str(), user_project.as_deref().unwrap_or_default()]);
        }
        How::ServiceAccount { provider, account, delegates } => {
            parts.extend(["service_account", provider.as_str(), account.as_str()]);
            parts.extend(delegates.iter().map(ServiceAccount::as_str));
        }
    }
    parts
}

fn digest(parts: &[&str]) -> [u8; 32] {
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

//! The proxy's own credential for Microsoft Graph: the managed identity that it runs with, and nothing of a caller's.

use super::token_cache::TokenCache;
use super::{AccessToken, Error, ManagedIdentity};
use crate::http::{self, Client};
use crate::identity::DirectoryToken;
use crate::secret::Secret;
use crate::time::{Clock, later};
use std::time::Duration;

/// A token is asked for anew after this long; the platform keeps its own for a day and hands it out again.
const KEEP: Duration = Duration::from_secs(600);

/// A managed identity that asks for tokens of Graph's. Single flight.
#[derive(Debug)]
pub struct GraphIdentity {
    platform: ManagedIdentity,
    clock: Clock,
    cache: TokenCache,
}

impl GraphIdentity {
    /// Asks for nothing yet. `graph` is Graph's address, which is its App ID URI too; `deadline` bounds the platform's
    /// answer, its retries included.
    pub fn new(
        http: Client,
        clock: Clock,
        deadline: Duration,
        graph: &str,
        client_id: Option<String>,
    ) -> Result<Self, Error> {
        Ok(Self {
            platform: ManagedIdentity::new(http, deadline, graph, client_id)?,
            clock,
            cache: TokenCache::default(),
        })
    }

    async fn renew(&self) -> Result<AccessToken, Error> {
        let asked_at = self.clock.now();
        Ok(AccessToken { token: self.platform.token().await?, expires_at: later(asked_at, KEEP) })
    }
}

#[async_trait::async_trait]
impl DirectoryToken for GraphIdentity {
    async fn token(&self) -> Result<Secret<String>, String> {
        let token = self.cache.get(&self.clock, || self.renew()).await.map_err(|error| http::chain(&error))?;
        Ok(token.token.duplicate())
    }
}

//! Google access tokens: opaque strings that only this store understands.

use super::iam::Principal;
use crate::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::HashMap;

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) struct Issued {
    /// Whose it is.
    pub(in crate::sim) principal: Principal,
    /// OAuth scopes.
    pub(in crate::sim) scopes: Vec<String>,
    /// When it ends.
    pub(in crate::sim) expires_at: Timestamp,
}

impl Issued {
    /// Whether any of `accepted` was granted.
    pub(in crate::sim) fn has_scope(&self, accepted: &[&str]) -> bool {
        self.scopes.iter().any(|scope| accepted.contains(&scope.as_str()))
    }
}

/// Tokens by their text. Expired ones leave when the next is issued.
#[derive(Debug, Default)]
pub(super) struct TokenStore(HashMap<String, Issued>);

impl TokenStore {
    /// A new token; `prefix` is `ya29.d.` for federated ones, `ya29.c.` for service accounts.
    pub(super) fn issue(&mut self, prefix: &str, issued: Issued, now: Timestamp) -> String {
        self.0.retain(|_, known| known.expires_at > now);
        // Real tokens are long: 512 random bytes keep buffers honest.
        let random: Vec<u8> = (0..32).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
        let token = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random));
        self.0.insert(token.clone(), issued);
        token
    }

    /// An unexpired token's meaning.
    pub(super) fn get(&self, token: &str, now: Timestamp) -> Option<Issued> {
        self.0.get(token).filter(|issued| issued.expires_at > now).cloned()
    }
}

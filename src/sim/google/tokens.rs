//! Google access tokens: opaque strings that only this store understands.

use super::iam::Principal;
use crate::federation::LOGIN_SCOPE;
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
pub(super) struct TokenStore {
    known: HashMap<String, Issued>,
    /// Login tokens that stay the same, by the subject of their federated principal.
    steady: HashMap<String, String>,
}

impl TokenStore {
    /// From now on this subject's federated login tokens all have the text that is returned.
    pub(super) fn steady(&mut self, subject: &str) -> String {
        self.steady.entry(subject.to_owned()).or_insert_with(|| fresh("ya29.d.")).clone()
    }

    /// A new token; `prefix` is `ya29.d.` for federated ones, `ya29.c.` for service accounts.
    pub(super) fn issue(&mut self, prefix: &str, issued: Issued, now: Timestamp) -> String {
        self.known.retain(|_, known| known.expires_at > now);
        let token = self.steady_for(&issued).cloned().unwrap_or_else(|| fresh(prefix));
        self.known.insert(token.clone(), issued);
        token
    }

    /// An unexpired token's meaning.
    pub(super) fn get(&self, token: &str, now: Timestamp) -> Option<Issued> {
        self.known.get(token).filter(|issued| issued.expires_at > now).cloned()
    }

    fn steady_for(&self, issued: &Issued) -> Option<&String> {
        match &issued.principal {
            Principal::Federated { subject, .. } if issued.scopes == [LOGIN_SCOPE] => self.steady.get(subject),
            _ => None,
        }
    }
}

/// Real tokens are long: 512 random bytes keep buffers honest.
fn fresh(prefix: &str) -> String {
    let random: Vec<u8> = (0..32).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{from_unix, later};
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn issued(subject: &str, scope: &str, now: Timestamp) -> Issued {
        let subject = subject.to_owned();
        let principal =
            Principal::Federated { pool: "pool".into(), subject, groups: Vec::new(), attributes: BTreeMap::new() };
        Issued { principal, scopes: vec![scope.to_owned()], expires_at: later(now, Duration::from_secs(60)) }
    }

    #[test]
    fn only_the_login_tokens_of_a_steady_subject_stay_the_same() {
        let now = from_unix(1_000).unwrap();
        let mut store = TokenStore::default();
        let kept = store.steady("analyst");
        assert_eq!(store.get(&kept, now), None, "good for nothing before it is issued");
        let mut issue = |subject, scope| store.issue("ya29.d.", issued(subject, scope, now), now);
        assert_eq!(issue("analyst", LOGIN_SCOPE), kept);
        assert_eq!(issue("analyst", LOGIN_SCOPE), kept);
        for (subject, scope) in [("analyst", "https://www.googleapis.com/auth/iam"), ("trainee", LOGIN_SCOPE)] {
            assert_ne!(issue(subject, scope), issue(subject, scope), "{subject} {scope}");
        }
        assert!(store.get(&kept, now).is_some());
        assert_eq!(store.get(&kept, later(now, Duration::from_secs(60))), None);
    }
}

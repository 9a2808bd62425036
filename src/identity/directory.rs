//! Microsoft Graph, which says the groups of a caller whose token could not hold them (overage).
//!
//! `POST /v1.0/{users|servicePrincipals}/{id}/getMemberGroups` (Microsoft Graph v1.0, "directoryObject: getMemberGroups":
//! transitive, at most 11,000 ids). The address that the token itself carries is not followed ("Groups overage claim").
//! Asked with a credential of the proxy's own, which needs application permissions: for people `User.ReadBasic.All` and
//! `GroupMember.Read.All`, for software `Application.Read.All`. Only the groups that rules name are kept, for [`MEMBERSHIP_LIFE`]; one question at a time for a caller.

use super::{CallerKind, IdentityFacts};
use crate::http::{self, Client};
use crate::secret::Secret;
use serde::Deserialize;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer is used again: a storm of reconnects asks once.
pub const MEMBERSHIP_LIFE: Duration = Duration::from_secs(300);
/// How long a failure stands, for those who waited for it.
pub const FAILURE_LIFE: Duration = Duration::from_secs(2);
/// Callers whose groups are remembered.
pub const MAX_MEMBERS: usize = 4096;
/// Questions at a time; callers of one lane wait for each other.
const LANES: usize = 32;

/// A credential for Microsoft Graph.
#[async_trait::async_trait]
pub trait DirectoryToken: Send + Sync + fmt::Debug {
    /// A bearer token, or why there is none, without secrets.
    async fn token(&self) -> Result<Secret<String>, String>;
}

/// Why a caller's groups are not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DirectoryError {
    /// The proxy has no credential for Graph now.
    #[error("no token for Microsoft Graph: {0}")]
    Credential(String),
    /// No answer, 429 or 5xx.
    #[error("Microsoft Graph is unavailable: {0}")]
    Unavailable(String),
    /// The credential or its permissions are not enough (401, 403).
    #[error("Microsoft Graph forbids it: status {status}, {code}")]
    Forbidden {
        /// HTTP status.
        status: u16,
        /// Graph's error code.
        code: String,
    },
    /// Graph's directory does not have the caller (404).
    #[error("Microsoft Graph does not know the caller: status 404, {code}")]
    Unknown {
        /// Graph's error code.
        code: String,
    },
    /// The caller is in more groups than Graph lists (400, 11,000).
    #[error("the caller is in more groups than Microsoft Graph lists: Directory_ResultSizeLimitExceeded")]
    TooMany,
    /// Graph said no for another reason.
    #[error("Microsoft Graph refused: status {status}, {code}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Graph's error code.
        code: String,
    },
    /// An answer that is no list of ids.
    #[error("Microsoft Graph's answer cannot be understood")]
    Malformed,
}

/// One issuer's directory.
pub struct Directory {
    endpoint: String,
    token: Arc<dyn DirectoryToken>,
    http: Client,
    deadline: Duration,
    /// The groups that rules name; no other is kept.
    asked: Arc<HashSet<String>>,
    known: Mutex<HashMap<String, Known>>,
    lanes: [tokio::sync::Mutex<()>; LANES],
}

#[derive(Clone)]
struct Known {
    outcome: Result<Vec<String>, DirectoryError>,
    at: Instant,
}

impl Known {
    fn holds(&self) -> bool {
        self.at.elapsed() < if self.outcome.is_ok() { MEMBERSHIP_LIFE } else { FAILURE_LIFE }
    }
}

#[derive(Deserialize)]
struct Answer {
    value: Vec<String>,
    #[serde(rename = "@odata.nextLink")]
    more: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Failure {
    error: FailureCode,
}

#[derive(Deserialize)]
struct FailureCode {
    code: String,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Directory {
    /// Graph at `endpoint` (no trailing slash), asked with `token`, each answer within `deadline`. `asked` are the groups
    /// that rules name.
    pub fn new(
        endpoint: &str,
        token: Arc<dyn DirectoryToken>,
        http: Client,
        deadline: Duration,
        asked: HashSet<String>,
    ) -> Self {
        let lanes = std::array::from_fn(|_| tokio::sync::Mutex::new(()));
        Self {
            endpoint: endpoint.to_owned(),
            token,
            http,
            deadline,
            asked: Arc::new(asked),
            known: Mutex::default(),
            lanes,
        }
    }

    /// The groups that it is asked about.
    pub(super) fn asked(&self) -> Arc<HashSet<String>> {
        Arc::clone(&self.asked)
    }

    /// Those of the asked groups that the caller is in. May be dropped at any time.
    pub(super) async fn groups(&self, caller: &IdentityFacts) -> Result<Vec<String>, DirectoryError> {
        let id = &caller.object_id;
        if let Some(known) = self.recall(id) {
            return known.outcome;
        }
        let lane = id.bytes().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % LANES;
        let _turn = match self.lanes.get(lane) {
            Some(lane) => lane.lock().await,
            None => return Err(DirectoryError::Malformed),
        };
        // Somebody may have asked meanwhile.
        if let Some(known) = self.recall(id) {
            return known.outcome;
        }
        let outcome = self.ask(caller).await;
        if let Err(error) = &outcome {
            tracing::warn!(issuer = %caller.issuer, %error, "a caller's groups are not known");
        }
        self.learn(id, &outcome);
        outcome
    }

    async fn ask(&self, caller: &IdentityFacts) -> Result<Vec<String>, DirectoryError> {
        let token = self.token.token().await.map_err(DirectoryError::Credential)?;
        let collection = match caller.kind {
            CallerKind::User => "users",
            CallerKind::App => "servicePrincipals",
        };
        // The object id is a GUID: nothing in it changes the path.
        let url = format!("{}/v1.0/{collection}/{}/getMemberGroups", self.endpoint, caller.object_id);
        let body = json!({ "securityEnabledOnly": true });
        let answer = self.http.post_json(&url, &token, &body, self.deadline).await;
        let answer = answer.map_err(|error| DirectoryError::Unavailable(http::chain(&error)))?;
        match answer.status {
            200 => self.read(&answer.body),
            status @ (429 | 500..) => Err(DirectoryError::Unavailable(format!("status {status}"))),
            status => Err(refusal(status, code(&answer.body))),
        }
    }

    /// A list with a next page is not the whole list: "in none of these" would be a guess.
    fn read(&self, body: &[u8]) -> Result<Vec<String>, DirectoryError> {
        let answer: Answer = serde_json::from_slice(body).map_err(|_| DirectoryError::Malformed)?;
        if answer.more.is_some() {
            return Err(DirectoryError::Malformed);
        }
        let ids = answer.value.into_iter().map(|id| id.to_ascii_lowercase());
        Ok(ids.filter(|id| self.asked.contains(id)).collect())
    }

    fn recall(&self, id: &str) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).filter(|known| known.holds()).cloned()
    }

    fn learn(&self, id: &str, outcome: &Result<Vec<String>, DirectoryError>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_MEMBERS && !known.contains_key(id) {
            known.retain(|_, known| known.holds());
        }
        if known.len() >= MAX_MEMBERS && !known.contains_key(id) {
            let oldest = known.iter().min_by_key(|(_, known)| known.at).map(|(id, _)| id.clone());
            oldest.map(|id| known.remove(&id));
        }
        known.insert(id.to_owned(), Known { outcome: outcome.clone(), at: Instant::now() });
    }

    #[cfg(test)]
    fn size(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What a refusal means (Microsoft Graph, "Error responses and resource types"; getMemberGroups).
fn refusal(status: u16, code: String) -> DirectoryError {
    match (status, code.as_str()) {
        (401 | 403, _) => DirectoryError::Forbidden { status, code },
        (404, _) => DirectoryError::Unknown { code },
        (400, "Directory_ResultSizeLimitExceeded") => DirectoryError::TooMany,
        _ => DirectoryError::Refused { status, code },
    }
}

/// Graph's error code, as far as it is one.
fn code(body: &[u8]) -> String {
    let code = serde_json::from_slice::<Failure>(body).map(|failure| failure.error.code).unwrap_or_default();
    code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect()
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;

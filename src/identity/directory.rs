//! Microsoft Graph, which says the groups of a caller whose token could not hold them (overage).
//!
//! `POST /v1.0/{users|servicePrincipals}/{id}/getMemberGroups` (Microsoft Graph v1.0, "directoryObject: getMemberGroups":
//! transitive, at most 11,000 ids). The address that the token itself carries is not followed ("Groups overage claim").
//! Asked with a credential of the proxy's own, which needs application permissions: for people `User.ReadBasic.All` and
//! `GroupMember.Read.All`, for software `Application.Read.All`. Only the groups that rules name are kept, for [`MEMBERSHIP_LIFE`].
//!
//! One question at a time for a caller, whose other logins wait for its answer; all of them together as
//! [`crate::http::Service`] has it: so many at a time, so many who wait, silence after a 429.

use super::{CallerKind, IdentityFacts};
use crate::http::{self, Again, Client, Service, Turned};
use crate::secret::Secret;
use serde::Deserialize;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long an answer is used again: a storm of reconnects asks once.
pub const MEMBERSHIP_LIFE: Duration = Duration::from_secs(300);
/// How long a failure stands, for those who waited for it.
pub const FAILURE_LIFE: Duration = Duration::from_secs(2);
/// Callers whose groups are remembered.
pub const MAX_MEMBERS: usize = 4096;
/// All that a directory asks is asked as one app of one tenant.
const QUOTA: &str = "getMemberGroups";

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
    /// No answer, or 5xx after its retries.
    #[error("Microsoft Graph is unavailable: {0}")]
    Unavailable(String),
    /// So many callers wait for it already that this one is not let in.
    #[error("too many questions to Microsoft Graph are under way")]
    Busy,
    /// It said 429, or has said so a moment ago and is left alone for longer than this login may take.
    #[error("Microsoft Graph takes no more questions for now")]
    Throttled {
        /// How long still, where that is known.
        left: Option<Duration>,
    },
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
    service: Service,
    members: Mutex<HashMap<String, Arc<Member>>>,
}

/// What is known of one caller, and who is asking.
#[derive(Default)]
struct Member {
    known: Mutex<Option<Known>>,
    flight: tokio::sync::Mutex<()>,
}

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
    /// Graph at `endpoint` (no trailing slash), asked with `token`, each answer, its retries included, within `deadline`;
    /// nobody waits longer for somebody else's. `asked` are the groups that rules name.
    pub fn new(
        endpoint: &str,
        token: Arc<dyn DirectoryToken>,
        http: Client,
        deadline: Duration,
        asked: HashSet<String>,
    ) -> Self {
        let service = Service::new("Microsoft Graph", Again::ServerErrors);
        let (endpoint, asked) = (endpoint.to_owned(), Arc::new(asked));
        Self { endpoint, token, http, deadline, asked, service, members: Mutex::default() }
    }

    /// The groups that it is asked about.
    pub(super) fn asked(&self) -> Arc<HashSet<String>> {
        Arc::clone(&self.asked)
    }

    /// Those of the asked groups that the caller is in. May be dropped at any time.
    pub(super) async fn groups(&self, caller: &IdentityFacts) -> Result<Vec<String>, DirectoryError> {
        let Some(member) = self.member(&caller.object_id) else {
            // Every place is taken by somebody who is logging in: nothing is kept of this one.
            return self.ask(caller).await;
        };
        if let Some(known) = member.recall() {
            return known;
        }
        let Ok(_asking) = timeout(self.deadline, member.flight.lock()).await else {
            return Err(DirectoryError::Unavailable(format!("no answer within {:?}", self.deadline)));
        };
        // Somebody may have asked meanwhile.
        if let Some(known) = member.recall() {
            return known;
        }
        let outcome = self.ask(caller).await;
        if let Err(error) = &outcome {
            tracing::warn!(issuer = %caller.issuer, %error, "a caller's groups are not known");
        }
        member.learn(outcome.clone());
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
        // It changes nothing, and may be asked twice.
        let call = |left| self.http.post_json(&url, &token, &body, left);
        let answer = self.service.call(QUOTA, self.deadline, call).await?;
        match answer.status {
            200 => self.read(&answer.body),
            429 => Err(DirectoryError::Throttled { left: answer.retry_after }),
            status @ (408 | 500..) => Err(DirectoryError::Unavailable(format!("status {status}"))),
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

    /// The caller's own place; `None` when all are taken by callers who are at it right now.
    fn member(&self, id: &str) -> Option<Arc<Member>> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.get(id) {
            return Some(Arc::clone(member));
        }
        if members.len() >= MAX_MEMBERS {
            make_room(&mut members);
        }
        (members.len() < MAX_MEMBERS).then(|| Arc::clone(members.entry(id.to_owned()).or_default()))
    }
}

/// Forgets what does not hold any more, and if that is nothing, what is oldest. Whoever is asking stays.
fn make_room(members: &mut HashMap<String, Arc<Member>>) {
    let asking = |member: &Arc<Member>| Arc::strong_count(member) > 1;
    members.retain(|_, member| asking(member) || member.recall().is_some());
    if members.len() >= MAX_MEMBERS {
        let idle = members.iter().filter(|(_, member)| !asking(member));
        let oldest = idle.min_by_key(|(_, member)| member.at()).map(|(id, _)| id.clone());
        oldest.map(|id| members.remove(&id));
    }
}

impl Member {
    /// What is known and still holds.
    fn recall(&self) -> Option<Result<Vec<String>, DirectoryError>> {
        self.known().as_ref().filter(|known| known.holds()).map(|known| known.outcome.clone())
    }

    fn learn(&self, outcome: Result<Vec<String>, DirectoryError>) {
        *self.known() = Some(Known { outcome, at: Instant::now() });
    }

    fn at(&self) -> Option<Instant> {
        self.known().as_ref().map(|known| known.at)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Turned> for DirectoryError {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Busy(_) => Self::Busy,
            Turned::Resting { left, .. } => Self::Throttled { left: Some(left) },
            Turned::Failed(error) => Self::Unavailable(http::chain(&error)),
        }
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

//! IAM Credentials: a federated token in, a service account's short-lived token out.
//!
//! `POST /v1/projects/-/serviceAccounts/ACCOUNT:generateAccessToken` (IAM Service Account Credentials API v1).

use super::answer::{MAX_TOKEN_BYTES, accepted, bearer};
use super::{AccessToken, Error, Google, Hop};
use crate::names::ServiceAccount;
use crate::secret::Secret;
use crate::time::{Timestamp, later};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// The life that is asked for; more needs an organisation policy.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// The latest end that is believed: the longest life an organisation policy allows, and an hour of wrong clocks.
const LATEST_END: Duration = Duration::from_secs(13 * 3600);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: String,
    expire_time: String,
}

/// One impersonation.
pub(super) struct Impersonation<'a> {
    /// Whom.
    pub(super) account: &'a ServiceAccount,
    /// By way of whom: the caller may be the first, each may be the next, the last may be `account`
    /// (`roles/iam.serviceAccountTokenCreator`). Mostly nobody.
    pub(super) delegates: &'a [ServiceAccount],
    /// What the token may be used for.
    pub(super) scope: &'a str,
}

/// A token of an account with one scope, for whoever `federated` is.
pub(super) async fn generate_access_token(
    google: &Google,
    Impersonation { account, delegates, scope }: &Impersonation<'_>,
    federated: &Secret<String>,
) -> Result<AccessToken, Error> {
    let base = &google.endpoints.iam_credentials;
    let url = format!("{base}/v1/projects/-/serviceAccounts/{account}:generateAccessToken");
    let mut request = json!({ "scope": [scope], "lifetime": format!("{}s", LIFETIME.as_secs()) });
    if let (Some(members), false) = (request.as_object_mut(), delegates.is_empty()) {
        // The wildcard stands for the account's project; a project's name there is refused.
        let chain = delegates.iter().map(|delegate| format!("projects/-/serviceAccounts/{delegate}"));
        members.insert("delegates".to_owned(), chain.collect());
    }
    let call = |left| google.http.post_json(&url, federated, &request, left);
    let (service, deadline) = (&google.services.iam_credentials, google.deadlines.iam_credentials);
    let outcome = service.call(&account.quota(), deadline, call).await;
    let body = accepted(Hop::IamCredentials, outcome, federated)?;
    read(body.expose(), google.clock.now())
}

fn read(body: &[u8], now: Timestamp) -> Result<AccessToken, Error> {
    let broken = |reason: &str| Error::Broken { hop: Hop::IamCredentials, reason: reason.to_owned() };
    let answer: Answer = serde_json::from_slice(body).map_err(|_| broken("the answer is no access token"))?;
    let token = bearer(Hop::IamCredentials, answer.access_token, MAX_TOKEN_BYTES)?;
    let expires_at: Timestamp = answer.expire_time.parse().map_err(|_| broken("expireTime is no RFC 3339 time"))?;
    if expires_at <= now || expires_at > later(now, LATEST_END) {
        return Err(broken("expireTime is out of range"));
    }
    Ok(AccessToken { token, expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_that_still_lives_is_taken() {
        let now: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
        let answer = |token: &str, time: &str| {
            read(json!({"accessToken": token, "expireTime": time}).to_string().as_bytes(), now)
        };
        for time in ["2026-11-22T02:32:25Z", "2026-11-22T02:32:25.5Z", "2026-11-22T03:32:25+01:00"] {
            assert_eq!(answer("ya29.c.x", time).unwrap().expires_at.as_second(), 1_795_314_745, "{time}");
        }
        for (token, time) in [
            ("", "2026-11-22T02:32:25Z"),
            ("a b", "2026-11-22T02:32:25Z"),
            ("t", "2026-11-22T02:00:00Z"),
            ("t", "2026-11-22T01:59:59Z"),
            ("t", "2026-11-23T02:32:25Z"),
            ("t", "2026-11-22 02:32"),
            ("t", "1795314745"),
            ("t", ""),
        ] {
            assert!(matches!(answer(token, time), Err(Error::Broken { .. })), "{token:?} {time:?}");
        }
        assert!(read(b"{}", now).is_err() && read(b"", now).is_err());
    }
}

//! The two calls to the SQL Admin API: `connectSettings` and `generateEphemeralCert` (v1beta4).
//!
//! Made with the proxy's own token, never with a caller's; a caller's login token may be what a certificate is asked to
//! carry. A server error is retried as Google's connectors do
//! (`cloud-sql-go-connector`, `internal/cloudsql/retry.go`); 4xx, 429 included, and network errors are not.
//!
//! Of certificates that carry callers' tokens there may be as many as callers: those calls are bounded, wait, rest and
//! are made again as [`crate::http::Service`] has it. An instance's own settings and certificate wait for none of them;
//! they have a pace of their own.

use super::Error;
use crate::http::{self, Again, Client, Response, Service, Turned};
use crate::names::InstanceName;
use crate::secret::Secret;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Attempts of one call, the first included.
const MAX_ATTEMPTS: u32 = 5;
/// The retry waits are this long times [`RETRY_FACTOR`] to the power of attempt + 1 + random share: 324…3588 ms.
const RETRY_BASE: Duration = Duration::from_millis(200);
/// How the waits grow.
const RETRY_FACTOR: f64 = 1.618;
/// What the API counts calls on: the account that makes them ("Queries per minute per user"), which is the proxy's own
/// for every project's instances.
const QUOTA: &str = "the proxy's own account";
/// Bytes of the API's own words that are kept of an error.
const MAX_MESSAGE: usize = 500;

/// The API at one address, asked with one deadline.
#[derive(Debug)]
pub(super) struct Admin {
    base: String,
    http: Client,
    deadline: Duration,
    /// As callers lean on it.
    callers: Service,
}

/// One request, as often as it must be sent.
enum Request<'a> {
    Get(&'a str),
    Post(&'a str, serde_json::Value),
}

/// The body of a Google API error (`google.rpc.Status` in its HTTP mapping, with the older `errors` list).
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorStatus,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorStatus {
    #[serde(default)]
    message: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(Debug, Deserialize)]
struct ErrorItem {
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GenerateEphemeralCert {
    ephemeral_cert: EphemeralCert,
}

#[derive(Debug, Deserialize)]
struct EphemeralCert {
    cert: String,
}

impl Admin {
    /// `base` without a trailing slash; `deadline` bounds each call with all its retries.
    pub fn new(base: String, http: Client, deadline: Duration) -> Self {
        Self { base, http, deadline, callers: Service::new("the SQL Admin API", Again::ServerErrors) }
    }

    /// `GET …/connectSettings`: the body, unread. Needs `cloudsql.instances.get`.
    pub async fn connect_settings(&self, instance: &InstanceName, token: &Secret<String>) -> Result<Vec<u8>, Error> {
        let url = self.url(instance, "/connectSettings");
        self.call(&Request::Get(&url), token).await
    }

    /// `POST …:generateEphemeralCert`: the certificate as PEM, with `login` inside if there is one. Needs
    /// `cloudsql.instances.connect`.
    pub async fn generate_ephemeral_cert(
        &self,
        instance: &InstanceName,
        public_key: &str,
        login: Option<&Secret<String>>,
        token: &Secret<String>,
    ) -> Result<String, Error> {
        let url = self.url(instance, ":generateEphemeralCert");
        let mut request = json!({ "public_key": public_key });
        if let (Some(members), Some(login)) = (request.as_object_mut(), login) {
            members.insert("access_token".to_owned(), login.expose().as_str().into());
        }
        let body = match login {
            None => self.call(&Request::Post(&url, request), token).await,
            Some(login) => self.call_for_caller(&url, &request, token).await.map_err(|error| without(error, login)),
        }?;
        serde_json::from_slice::<GenerateEphemeralCert>(&body).map(|answer| answer.ephemeral_cert.cert).map_err(
            |error| Error::AdminBroken(format!("generateEphemeralCert is not the JSON it should be ({error})")),
        )
    }

    fn url(&self, instance: &InstanceName, method: &str) -> String {
        let Self { base, .. } = self;
        format!("{base}/sql/v1beta4/projects/{}/instances/{}{method}", instance.project(), instance.instance())
    }

    /// Makes a certificate for one caller, when it is its turn.
    async fn call_for_caller(
        &self,
        url: &str,
        request: &serde_json::Value,
        token: &Secret<String>,
    ) -> Result<Vec<u8>, Error> {
        let call = |left| self.http.post_json(url, token, request, left);
        match self.callers.call(QUOTA, self.deadline, call).await {
            Ok(Response { status: 429, retry_after: left, .. }) => Err(Error::AdminThrottled { left }),
            Ok(answer) => judge(answer, token),
            Err(Turned::Busy(_)) => Err(Error::AdminBusy),
            Err(Turned::Resting { left, .. }) => Err(Error::AdminThrottled { left: Some(left) }),
            Err(Turned::Failed(error)) => Err(no_answer(error)),
        }
    }

    /// Sends until there is an answer below 500, the attempts are used up or no time is left for the next one.
    async fn call(&self, request: &Request<'_>, token: &Secret<String>) -> Result<Vec<u8>, Error> {
        let end = Instant::now() + self.deadline;
        let mut attempt = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = match request {
                Request::Get(url) => self.http.get(url, Some(token), left).await,
                Request::Post(url, body) => self.http.post_json(url, token, body, left).await,
            }
            .map_err(no_answer)?;
            attempt += 1;
            let wait = retry_wait(attempt, random_share());
            if answer.status < 500 || attempt >= MAX_ATTEMPTS || Instant::now() + wait >= end {
                return judge(answer, token);
            }
            sleep(wait).await;
        }
    }
}

/// The wait after the `attempt`th failure (from 1); `share` is random in 0…1.
fn retry_wait(attempt: u32, share: f64) -> Duration {
    RETRY_BASE.mul_f64(RETRY_FACTOR.powf(f64::from(attempt.min(MAX_ATTEMPTS)) + share))
}

/// A random number in 0…1; without randomness the waits only lose their spread.
fn random_share() -> f64 {
    let mut random = [0_u8; 1];
    let _ = aws_lc_rs::rand::fill(&mut random);
    let [byte] = random;
    f64::from(byte) / 255.0
}

fn judge(answer: Response, token: &Secret<String>) -> Result<Vec<u8>, Error> {
    let status = answer.status;
    if status == 200 {
        return Ok(answer.body);
    }
    let ErrorBody { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
    let reason = error.errors.into_iter().map(|item| item.reason).find(|reason| !reason.is_empty());
    let reason = printable(&reason.unwrap_or(error.status), token);
    let message = printable(&error.message, token);
    match status {
        408 | 429 | 500.. => Err(Error::AdminUnavailable(format!("{status} {reason}: {message}"))),
        400..=499 => Err(Error::AdminRefused { status, reason, message }),
        _ => Err(Error::AdminBroken(format!("HTTP status {status}"))),
    }
}

/// An error whose words do not repeat the caller's token.
fn without(error: Error, login: &Secret<String>) -> Error {
    match error {
        Error::AdminRefused { status, reason, message } => {
            Error::AdminRefused { status, reason: printable(&reason, login), message: printable(&message, login) }
        }
        Error::AdminUnavailable(text) => Error::AdminUnavailable(printable(&text, login)),
        other => other,
    }
}

fn no_answer(error: http::Error) -> Error {
    let text = http::chain(&error);
    match error {
        http::Error::Unreachable { .. } | http::Error::Deadline { .. } => Error::AdminUnavailable(text),
        http::Error::Broken { .. } | http::Error::TooLarge { .. } | http::Error::SetUp(_) => Error::AdminBroken(text),
    }
}

/// The service's words for a log line: no control characters, not endless, and never our own credential.
fn printable(text: &str, token: &Secret<String>) -> String {
    let text = if token.expose().is_empty() { text.to_owned() } else { text.replace(token.expose(), "[redacted]") };
    let mut out: String = text.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    while out.len() > MAX_MESSAGE {
        out.pop();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Seen, Server, client};
    use crate::http::{MAX_CALLS, MAX_WAITING};
    use std::sync::Arc;

    const FORBIDDEN: &str = r#"{"error":{"code":403,"message":"The client is not authorized to make this request.",
        "status":"PERMISSION_DENIED","errors":[{"message":"…","domain":"global","reason":"notAuthorized"}]}}"#;

    fn judged(status: u16, body: &str) -> Result<Vec<u8>, Error> {
        judge(
            Response { status, body: body.as_bytes().to_vec(), ..Response::default() },
            &Secret::new("ya29.own".to_owned()),
        )
    }

    #[test]
    fn the_waits_are_googles() {
        for (attempt, low, high) in [(1, 323, 524), (2, 523, 848), (3, 847, 1371), (4, 1370, 2219), (5, 2217, 3588)] {
            let (shortest, longest) = (retry_wait(attempt, 0.0).as_millis(), retry_wait(attempt, 1.0).as_millis());
            assert!(shortest >= low && longest <= high, "{attempt}: {shortest}…{longest} ms");
        }
        assert!((0.0..=1.0).contains(&random_share()));
    }

    #[test]
    fn a_refusal_keeps_googles_own_reason() {
        let Err(Error::AdminRefused { status, reason, message }) = judged(403, FORBIDDEN) else {
            panic!("is a refusal")
        };
        assert_eq!((status, reason.as_str()), (403, "notAuthorized"));
        assert_eq!(message, "The client is not authorized to make this request.");
        let bare = r#"{"error":{"code":404,"message":"gone","status":"NOT_FOUND"}}"#;
        assert!(matches!(judged(404, bare), Err(Error::AdminRefused { reason, .. }) if reason == "NOT_FOUND"));
        for body in ["", "<html>", "[]", "{\"error\":7}", "{\"error\":null}"] {
            assert!(matches!(judged(401, body), Err(Error::AdminRefused { status: 401, .. })), "{body}");
        }
    }

    #[test]
    fn throttling_and_server_errors_are_unavailability_and_the_rest_is_broken() {
        for status in [408, 429, 500, 503, 599] {
            assert!(matches!(judged(status, FORBIDDEN), Err(Error::AdminUnavailable(_))), "{status}");
        }
        for status in [100, 201, 204, 302] {
            assert!(matches!(judged(status, "{}"), Err(Error::AdminBroken(_))), "{status}");
        }
        assert_eq!(judged(200, "{}").unwrap(), b"{}");
    }

    #[test]
    fn an_error_text_never_repeats_the_login_token_that_a_certificate_was_to_carry() {
        let login = Secret::new("ya29.callers".to_owned());
        let body = json!({ "error": { "message": "bad ya29.callers", "status": "ya29.callers" } }).to_string();
        for status in [400, 403, 429, 503] {
            let error = without(judged(status, &body).unwrap_err(), &login);
            assert!(!format!("{error:?}").contains("callers"), "{error:?}");
        }
    }

    #[test]
    fn an_error_text_is_bounded_and_never_repeats_the_token() {
        let body = json!({ "error": { "message": format!("bad ya29.own\r\n{}", "é".repeat(5000)) } }).to_string();
        let Err(Error::AdminRefused { message, .. }) = judged(400, &body) else { panic!("is a refusal") };
        assert!(message.starts_with("bad [redacted]é") && message.len() <= MAX_MESSAGE, "{message}");
    }

    #[tokio::test]
    async fn a_storm_of_callers_certificates_is_held_back_and_the_instances_own_calls_are_not() {
        let server = Server::start(|_: &Seen| (429, FORBIDDEN.to_owned())).await;
        let admin = Admin::new(server.url.clone(), client(), Duration::from_millis(400));
        let instance = InstanceName::parse("demo-project:europe-west1:orders").unwrap();
        let (login, own) = (Secret::new("ya29.callers".to_owned()), Secret::new("ya29.own".to_owned()));
        for _ in 0..20 {
            let outcome = admin.generate_ephemeral_cert(&instance, "key", Some(&login), &own).await;
            assert!(matches!(outcome, Err(Error::AdminThrottled { .. })), "{outcome:?}");
        }
        assert_eq!(server.seen().len(), 1, "it is left alone");
        let outcome = admin.generate_ephemeral_cert(&instance, "key", None, &own).await;
        assert!(matches!(outcome, Err(Error::AdminUnavailable(_))), "{outcome:?}");
        assert_eq!(server.seen().len(), 2);
    }

    #[tokio::test]
    async fn no_more_callers_wait_for_certificates_than_there_are_places() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let admin = Arc::new(Admin::new(url, client(), Duration::from_secs(2)));
        let mut storm = tokio::task::JoinSet::new();
        for _ in 0..MAX_CALLS + MAX_WAITING + 20 {
            let admin = Arc::clone(&admin);
            storm.spawn(async move {
                let instance = InstanceName::parse("demo-project:europe-west1:orders").unwrap();
                let (login, own) = (Secret::new("ya29.callers".to_owned()), Secret::new("ya29.own".to_owned()));
                admin.generate_ephemeral_cert(&instance, "key", Some(&login), &own).await.unwrap_err()
            });
        }
        let begin = Instant::now();
        let errors = storm.join_all().await;
        assert!(errors.iter().filter(|error| matches!(error, Error::AdminBusy)).count() >= 20);
        assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    }
}

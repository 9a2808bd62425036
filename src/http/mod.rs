//! One HTTPS client for every service the proxy calls.
//!
//! Bodies are bounded, redirects are not followed, each call has a deadline, and the trust roots are
//! the platform's or one CA file from the config. Bodies and headers are never logged.
//!
//! An egress proxy is taken from `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as users expect of a client;
//! only [`Client::metadata_transport`] ignores them, because the platform's identity endpoint is local to the
//! host and its answers must not pass a third party.
//!
//! Every call may be dropped at any time: the request may or may not have reached the service.

mod metadata;
mod retry;
mod retry_after;
mod service;
#[cfg(test)]
pub(crate) mod testing;
mod tls;

pub use metadata::MetadataTransport;
pub use retry::{ATTEMPTS, with_retries};
pub use service::{Again, FIRST_REST, MAX_CALLS, MAX_QUOTAS, MAX_REST, MAX_WAITING, Service, Turned};

use crate::secret::Secret;
use reqwest::{RequestBuilder, Url, redirect};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The largest response body that is read, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// TCP and TLS with a service, within the call's own deadline.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept: shorter than the services' own limits, so that they rarely close first.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// Unused connections kept for each service.
const POOL_IDLE_PER_HOST: usize = 16;

/// What came back: the status and at most [`MAX_BODY_BYTES`] of body. `Debug` shows the body's length only.
#[derive(Default)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// How long the service wants to be left alone (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("retry_after", &self.retry_after)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service could not be reached (name, TCP or TLS), or the request could not be formed.
    #[error("cannot reach {host}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The client's own reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The service answered too slowly.
    #[error("{host} did not answer within {deadline:?}")]
    Deadline {
        /// Host and port.
        host: String,
        /// The limit that passed.
        deadline: Duration,
    },
    /// The connection broke in mid-answer.
    #[error("{host} broke off its answer")]
    Broken {
        /// Host and port.
        host: String,
        /// The client's own reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The body passed [`MAX_BODY_BYTES`].
    #[error("{host} answered with more than {MAX_BODY_BYTES} bytes")]
    TooLarge {
        /// Host and port.
        host: String,
    },
    /// The client could not be built (bad CA file).
    #[error("cannot set up the HTTPS client: {0}")]
    SetUp(String),
}

/// The client. Cheap to clone; one connection pool, and one for the platform's identity endpoint.
#[derive(Clone)]
pub struct Client {
    services: reqwest::Client,
    metadata: reqwest::Client,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Trusts the platform's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), or only the PEM
    /// certificates in `ca` when one is given.
    pub fn new(ca: Option<&Path>) -> Result<Self, Error> {
        let tls = tls::client_config(ca)?;
        let builder = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(redirect::Policy::none())
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(POOL_IDLE_PER_HOST)
                .user_agent(concat!("pgpassport/", env!("CARGO_PKG_VERSION")))
        };
        let build = |builder: reqwest::ClientBuilder| builder.build().map_err(|e| Error::SetUp(e.to_string()));
        Ok(Self { services: build(builder())?, metadata: build(builder().no_proxy())? })
    }

    /// `GET url`, with a bearer token if there is one.
    pub async fn get(&self, url: &str, bearer: Option<&Secret<String>>, deadline: Duration) -> Result<Response, Error> {
        let request = self.services.get(url);
        let request = if let Some(token) = bearer { request.bearer_auth(token.expose()) } else { request };
        self.call(url, request, deadline).await
    }

    /// `POST url` with an `application/x-www-form-urlencoded` body.
    pub async fn post_form(&self, url: &str, form: &[(&str, &str)], deadline: Duration) -> Result<Response, Error> {
        self.call(url, self.services.post(url).form(form), deadline).await
    }

    /// `POST url` with a JSON body and a bearer token.
    pub async fn post_json(
        &self,
        url: &str,
        bearer: &Secret<String>,
        body: &serde_json::Value,
        deadline: Duration,
    ) -> Result<Response, Error> {
        self.call(url, self.services.post(url).bearer_auth(bearer.expose()).json(body), deadline).await
    }

    /// `POST url` with a plain text body.
    pub async fn post_text(&self, url: &str, body: String, deadline: Duration) -> Result<Response, Error> {
        let request = self.services.post(url).header(reqwest::header::CONTENT_TYPE, "text/plain; charset=utf-8");
        self.call(url, request.body(body), deadline).await
    }

    /// The same trust and limits as an `azure_core` transport, without an egress proxy. `deadline` bounds each attempt.
    pub fn metadata_transport(&self, deadline: Duration) -> MetadataTransport {
        MetadataTransport::new(self.metadata.clone(), deadline)
    }

    async fn call(&self, url: &str, request: RequestBuilder, deadline: Duration) -> Result<Response, Error> {
        let request = request
            .build()
            .map_err(|e| Error::Unreachable { host: host_of(url), source: Box::new(e.without_url()) })?;
        let answer = execute(&self.services, request, deadline).await?;
        let retry_after = retry_after::read(&answer.headers);
        Ok(Response { status: answer.status, retry_after, body: answer.body })
    }
}

/// A whole response with its headers, for the transport that needs them.
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

/// Sends one request and reads its whole body, all within `deadline`.
async fn execute(client: &reqwest::Client, request: reqwest::Request, deadline: Duration) -> Result<Answer, Error> {
    let host = authority(request.url());
    match tokio::time::timeout(deadline, read(client, request, &host)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Deadline { host, deadline }),
    }
}

async fn read(client: &reqwest::Client, request: reqwest::Request, host: &str) -> Result<Answer, Error> {
    let mut response = client.execute(request).await.map_err(|e| failed(e, host))?;
    let announced = response.content_length().unwrap_or(0);
    if usize::try_from(announced).is_ok_and(|length| length > MAX_BODY_BYTES) {
        return Err(Error::TooLarge { host: host.to_owned() });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| broken(e, host))? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(Error::TooLarge { host: host.to_owned() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status().as_u16(), headers: std::mem::take(response.headers_mut()), body })
}

/// A failure before the response's headers: connecting is one thing, a connection that broke is another.
fn failed(error: reqwest::Error, host: &str) -> Error {
    if error.is_connect() || error.is_builder() {
        Error::Unreachable { host: host.to_owned(), source: Box::new(error.without_url()) }
    } else {
        broken(error, host)
    }
}

fn broken(error: reqwest::Error, host: &str) -> Error {
    Error::Broken { host: host.to_owned(), source: Box::new(error.without_url()) }
}

fn host_of(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "an address that is no URL".to_owned(), |url| authority(&url))
}

fn authority(url: &Url) -> String {
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => "an address without a host".to_owned(),
    }
}

/// An error and its causes on one line, for texts that are shown without their chain.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;

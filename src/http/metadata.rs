//! `azure_core`'s HTTP seam on our client: bounded bodies, a deadline for each attempt, no egress proxy.
//!
//! Serves `azure_identity`, which asks the platform's identity endpoint (plain HTTP on the host itself).

use super::{Error, execute};
use async_trait::async_trait;
use azure_core::error::{Error as AzureError, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::request::{Body, Request};
use azure_core::http::{AsyncRawResponse, HttpClient, StatusCode};
use reqwest::header::{HeaderName, HeaderValue};
use std::time::Duration;

/// A transport for `azure_core` pipelines.
#[derive(Clone)]
pub struct MetadataTransport {
    client: reqwest::Client,
    deadline: Duration,
}

impl std::fmt::Debug for MetadataTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataTransport").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl MetadataTransport {
    pub(super) fn new(client: reqwest::Client, deadline: Duration) -> Self {
        Self { client, deadline }
    }

    fn translate(&self, request: &Request) -> Result<reqwest::Request, AzureError> {
        let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes())
            .map_err(|e| AzureError::new(ErrorKind::Other, e))?;
        let mut builder = self.client.request(method, request.url().as_str());
        for (name, value) in request.headers().iter() {
            let header = (HeaderName::from_bytes(name.as_str().as_bytes()), HeaderValue::from_str(value.as_str()));
            let (Ok(name), Ok(mut value)) = header else {
                return Err(AzureError::with_message(ErrorKind::Other, "a header cannot be sent"));
            };
            // `x-identity-header` is a secret; the rest loses nothing by being treated as one.
            value.set_sensitive(true);
            builder = builder.header(name, value);
        }
        let Body::Bytes(body) = request.body() else {
            return Err(AzureError::with_message(ErrorKind::Other, "streamed bodies are not sent"));
        };
        builder.body(body.clone()).build().map_err(|e| AzureError::new(ErrorKind::Other, e.without_url()))
    }
}

#[async_trait]
impl HttpClient for MetadataTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = execute(&self.client, self.translate(request)?, self.deadline).await.map_err(to_azure)?;
        let mut headers = Headers::new();
        for (name, value) in &answer.headers {
            if let Ok(value) = value.to_str() {
                headers.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(answer.status), headers, answer.body))
    }
}

/// `azure_core` asks again after `Connection` and `Io` only.
fn to_azure(error: Error) -> AzureError {
    let kind = match error {
        Error::Unreachable { .. } => ErrorKind::Connection,
        Error::Deadline { .. } | Error::Broken { .. } => ErrorKind::Io,
        Error::TooLarge { .. } | Error::SetUp(_) => ErrorKind::Other,
    };
    AzureError::new(kind, error)
}

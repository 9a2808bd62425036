//! One HTTPS client for every service the proxy calls.
//!
//! Bodies are bounded, redirects are not followed, each call has a deadline, and the trust roots are
//! the platform's or one CA file from the config. Bodies and headers are never logged.

use crate::secret::Secret;
use std::path::Path;
use std::time::Duration;

/// The largest response body that is read, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// What came back: the status and at most [`MAX_BODY_BYTES`] of body.
#[derive(Debug)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service could not be reached (name, TCP or TLS).
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

/// The client. Cheap to clone; one connection pool.
#[derive(Clone, Debug)]
pub struct Client {
    _private: (),
}

impl Client {
    /// Trusts the platform's roots, or only the PEM certificates in `ca` when one is given.
    pub fn new(ca: Option<&Path>) -> Result<Self, Error> {
        let _ = ca;
        todo!()
    }

    /// `GET url`, with a bearer token if there is one.
    pub async fn get(&self, url: &str, bearer: Option<&Secret<String>>, deadline: Duration) -> Result<Response, Error> {
        let _ = (url, bearer, deadline);
        todo!()
    }

    /// `POST url` with an `application/x-www-form-urlencoded` body.
    pub async fn post_form(&self, url: &str, form: &[(&str, &str)], deadline: Duration) -> Result<Response, Error> {
        let _ = (url, form, deadline);
        todo!()
    }

    /// `POST url` with a JSON body and a bearer token.
    pub async fn post_json(
        &self,
        url: &str,
        bearer: &Secret<String>,
        body: &serde_json::Value,
        deadline: Duration,
    ) -> Result<Response, Error> {
        let _ = (url, bearer, body, deadline);
        todo!()
    }
}

//! The server's side of start-up: a verified stream in, a logged-in session out; and cancels to it.
//!
//! Reads are exact: not a byte past `ReadyForQuery` is taken from the stream. The login token is sent only in
//! answer to `AuthenticationCleartextPassword`, and not at all where the client certificate carries it; any other request
//! is an error.

mod cancel;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod login;

pub use cancel::cancel;
pub use login::login;

use crate::cloudsql::ServerStream;
use crate::names::{DatabaseName, RoleName};
use crate::secret::Secret;
use crate::wire::ErrorFields;

/// The largest message accepted from a server during start-up, in bytes (libpq accepts errors up to 30 000,
/// `fe-connect.c`).
pub const MAX_STARTUP_MESSAGE: usize = 30_000;
/// The most parameters and notices kept of a greeting, in bytes.
pub const MAX_GREETING: usize = 64 * 1024;

/// What the session asks for.
#[derive(Debug)]
pub struct LoginRequest<'a> {
    /// `user`: always the grant's.
    pub role: &'a RoleName,
    /// `database`: the instance's own name for it.
    pub database: &'a DatabaseName,
    /// The client's other start-up parameters, as they came (names and values without NUL).
    pub parameters: &'a [(Vec<u8>, Vec<u8>)],
    /// The login token; sent only where the instance's login method is
    /// [`TokenAsPassword`](crate::cloudsql::LoginMethod::TokenAsPassword).
    pub password: &'a Secret<String>,
}

/// `BackendKeyData` of the server: what a cancel must name.
#[derive(Debug, Clone)]
pub struct ServerKey {
    /// The backend's real process id.
    pub pid: u32,
    /// 4 bytes on protocol 3.0.
    pub secret: Vec<u8>,
}

/// A logged-in server session. Made only by [`login()`].
#[derive(Debug)]
pub struct Backend {
    /// The stream, positioned right after `ReadyForQuery`.
    pub server: ServerStream,
    /// `ParameterStatus` and notice messages of the greeting as complete frames, to be passed on.
    pub greeting: Vec<u8>,
    /// For cancels.
    pub key: ServerKey,
    /// Transaction status of the greeting's `ReadyForQuery` (`I`).
    pub status: u8,
}

/// Why the login failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke or closed; a TLS alert names a refused client certificate. `InvalidInput` means that
    /// the request itself cannot be sent (too long, or a parameter that is not the client's to set).
    #[error("the instance broke off during the login")]
    Broken(#[source] std::io::Error),
    /// The request itself cannot be sent; nothing was.
    #[error("the login cannot be sent: {0}")]
    Unsendable(&'static str),
    /// Bytes that are no protocol message, or one that has no place here.
    #[error("the instance sent something unexpected during the login: {0}")]
    Unexpected(String),
    /// It asked for something other than a cleartext password. The token was not sent.
    #[error("the instance asked for authentication method {0}, not for the token")]
    Method(i32),
    /// It asked for a password although the certificate carries the token: to Cloud SQL the user is no IAM user.
    /// The token was not sent.
    #[error("the instance asked for a password although the certificate carries the token")]
    PasswordAsked,
    /// The server's own `ErrorResponse`.
    #[error("the instance refused the login: {}", .0.message())]
    Refused(Box<ErrorFields>),
}

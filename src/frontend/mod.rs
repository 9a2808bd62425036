//! The client's side of start-up: a socket in, a [`Login`] out, which can only be accepted or rejected.
//!
//! Reads are exact, so that plaintext sent behind an `SSLRequest` reaches the TLS handshake and fails there
//! (CVE-2021-23214). No token is asked for outside TLS. What the client claims is decoded here and judged elsewhere.

mod door;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod login;
mod negotiate;
mod proxy_header;
mod stream;
mod tls;

pub use door::{Arrival, Door, DoorConfig, Incoming, Peer, ProxyProtocol};
pub use gate::{Full, Place};
pub use login::{Asked, Login, Session, Silent};
pub use negotiate::{CancelRequest, Negotiated, Refused, negotiate};
pub use stream::ClientStream;
pub use tls::{TlsError, server_config};

/// The longest token a client may send, in bytes (`PG_MAX_AUTH_TOKEN_LENGTH`, `src/include/libpq/auth.h`).
pub const MAX_TOKEN: usize = 65_535;

/// Why a client got no further than its start-up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket broke or closed; nobody is there to be told.
    #[error("the client left during start-up")]
    Gone(#[source] std::io::Error),
    /// The client took too long.
    #[error("the client's start-up took longer than its deadline")]
    Deadline,
    /// The TLS handshake failed.
    #[error("the TLS handshake with the client failed")]
    Handshake(#[source] std::io::Error),
    /// A balancer's header is missing or cannot be used.
    #[error("the balancer's PROXY header cannot be used: {0}")]
    ProxyHeader(&'static str),
    /// It wants a session without TLS.
    #[error("the client asked for a session without TLS")]
    NoTls,
    /// Bytes that are no start-up.
    #[error("the client's start-up is malformed: {0}")]
    Malformed(&'static str),
    /// A protocol major version other than 3.
    #[error("the client speaks protocol {0}.{1}")]
    Version(u16, u16),
    /// A name that PostgreSQL would change, or that could forge a log line.
    #[error("the start-up parameter {parameter} {reason}")]
    Name {
        /// `user`, `database` or another parameter.
        parameter: String,
        /// A clause.
        reason: crate::names::NameError,
    },
    /// `user` is missing.
    #[error("no user name in the start-up packet")]
    NoUser,
    /// A limit at the door is reached; said before a token is asked for.
    #[error(transparent)]
    Full(Full),
    /// It sent no password message, or an empty one.
    #[error("the client sent no token")]
    NoToken,
}

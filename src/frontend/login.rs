//! A client that waits for its verdict.

use super::negotiate::tell;
use super::{ClientStream, Error};
use crate::secret::Secret;
use crate::wire::{ErrorFields, Parameters, Purpose, append, cancel_secret_bytes};
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;

/// TLS is up; a claimed user and database, an unverified token. Can only be accepted or rejected; both consume it.
#[derive(Debug)]
pub struct Login {
    pub(super) stream: ClientStream,
    pub(super) asked: Asked,
}

/// What a client wants, and the token that it wants it by; none of it is verified.
#[derive(Debug)]
pub struct Asked {
    pub(super) address: SocketAddr,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) parameters: Parameters,
    pub(super) minor: u16,
    pub(super) purpose: Purpose,
    pub(super) token: Secret<String>,
}

/// How much a client may say before it is answered, in bytes; the rest waits in its socket.
const MAX_EARLY_BYTES: usize = 16 * 1024;
/// `Terminate`.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// A client that should say nothing until it is answered.
#[derive(Debug)]
pub struct Silent<'a>(&'a mut ClientStream);

/// A client that was accepted: its stream, positioned after the greeting.
#[derive(Debug)]
pub struct Session {
    /// The stream.
    pub stream: ClientStream,
}

impl Login {
    /// What the client wants.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// What the client wants, and the client itself, to be watched while that is looked at.
    pub fn parts(&mut self) -> (&mut Asked, Silent<'_>) {
        (&mut self.asked, Silent(&mut self.stream))
    }

    /// Greets the client in one write: `AuthenticationOk`, the server's own greeting, the key for cancels,
    /// `ReadyForQuery`. (Several writes would be several TLS records, which broke PgBouncer: pgbouncer #1058.)
    pub async fn accept(self, greeting: &[u8], pid: u32, secret: &[u8], status: u8) -> io::Result<Session> {
        let mut out = Vec::with_capacity(greeting.len().saturating_add(64));
        append(&mut out, b'R', &[0; 4]);
        out.extend_from_slice(greeting);
        append(&mut out, b'K', &[&pid.to_be_bytes(), secret].concat());
        append(&mut out, b'Z', &[status]);
        let mut stream = self.stream;
        stream.write_all(&out).await?;
        stream.flush().await?;
        Ok(Session { stream })
    }

    /// Tells the client why not, and closes.
    pub async fn reject(self, fields: &ErrorFields) {
        tell(self.stream, fields).await;
    }
}

impl Asked {
    /// Where the client is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `user` of the start-up packet: a hint.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// `database` of the start-up packet, or the user where it has none.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The other start-up parameters.
    pub fn parameters(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.parameters
    }

    /// `application_name`, as claimed.
    pub fn application_name(&self) -> Option<String> {
        let value = self.parameters.iter().rev().find(|(name, _)| name == b"application_name");
        value.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// What the session is for, as claimed.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Bytes of the secret that `accept` takes: what the negotiated protocol version has.
    pub fn cancel_secret_bytes(&self) -> usize {
        cancel_secret_bytes(self.minor)
    }

    /// Takes the token out, to be verified; it is nowhere else.
    pub fn take_token(&mut self) -> Secret<String> {
        std::mem::replace(&mut self.token, Secret::new(String::new()))
    }
}

impl Silent<'_> {
    /// Waits until the client leaves. What it says meanwhile, though nobody has asked ("the frontend must wait",
    /// PostgreSQL documentation, 55.2.1 Start-up), is kept as PostgreSQL keeps it: some clients send their first query
    /// right behind the password. Past [`MAX_EARLY_BYTES`] no more is read, and its end is not seen. Cancel-safe.
    pub async fn ends(&mut self) -> Error {
        loop {
            match self.0.read_ahead().await {
                // A client that says goodbye, or nothing.
                Ok((early, _)) if early == TERMINATE => return Error::Gone(io::ErrorKind::UnexpectedEof.into()),
                Ok(([], _)) => return Error::Gone(io::ErrorKind::UnexpectedEof.into()),
                Ok((early, new)) if new == 0 || early.len() >= MAX_EARLY_BYTES => return std::future::pending().await,
                Ok(_) => {}
                Err(error) => return Error::Gone(error),
            }
        }
    }
}

//! Start-up and authentication inside the instance's TLS, up to the point where PostgreSQL takes over.

use super::Instance;
use super::users;
use crate::sim::calls::{Calls, Endpoint};
use crate::sim::google::Google;
use crate::wire::{ErrorFields, HEADER_BYTES, Header, Initial, MAX_STARTUP_PACKET, append};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Encryption requests that a client may send before its start-up packet.
const MAX_ENCRYPTION_REQUESTS: usize = 3;
/// Longest password message, in bytes (`PG_MAX_AUTH_TOKEN_LENGTH`, PostgreSQL `libpq/auth.h`).
const MAX_PASSWORD: usize = 65_535;
/// `AuthenticationCleartextPassword`.
const CLEARTEXT_PASSWORD: i32 = 3;

/// What a client wants once it is let in.
#[derive(Debug)]
pub(super) enum Admitted {
    /// A session: the start-up packet as it came, length word included.
    Session(Vec<u8>),
    /// A cancel: the packet as it came, length word included.
    Cancel(Vec<u8>),
    /// Somebody else answers, from the start-up packet on.
    StandIn(SocketAddr),
}

/// Whoever asks: the instance's state and the serial number of the client's certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door<'a> {
    pub(super) instance: &'a Instance,
    pub(super) google: &'a Google,
    pub(super) calls: &'a Calls,
    pub(super) serial: &'a [u8],
    /// A fault: asks for this method in place of cleartext password.
    pub(super) method: Option<i32>,
}

/// The first packet that is no request for encryption; those are answered `N`. The packet comes with its length.
pub(super) async fn first_packet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<(Initial, Vec<u8>)> {
    for _ in 0..=MAX_ENCRYPTION_REQUESTS {
        let packet = startup_packet(stream).await?;
        let initial = Initial::decode(packet.get(4..).unwrap_or_default()).map_err(invalid)?;
        match initial {
            Initial::Ssl | Initial::GssEnc => stream.write_all(b"N").await?,
            other => return Ok((other, packet)),
        }
    }
    Err(invalid("too many requests for encryption"))
}

/// Whether a client's first packet in clear text asks for TLS.
pub(super) async fn tls_is_asked_for(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
    let packet = startup_packet(stream).await?;
    Ok(matches!(Initial::decode(packet.get(4..).unwrap_or_default()), Ok(Initial::Ssl)))
}

impl Door<'_> {
    /// Lets the client in or answers why not; `None` when it was refused.
    pub(super) async fn admit(
        self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        initial: Initial,
        packet: Vec<u8>,
    ) -> io::Result<Option<Admitted>> {
        let startup = match initial {
            Initial::Cancel { .. } => return Ok(Some(Admitted::Cancel(packet))),
            Initial::Startup(startup) => startup,
            _ => return refuse(stream, &unsupported()).await,
        };
        self.calls.add(Endpoint::InstanceStartup);
        let Some(name) = startup.get("user") else {
            let fields = ErrorFields::new("FATAL", "28000", "no PostgreSQL user name specified in startup packet");
            return refuse(stream, &fields).await;
        };
        if users::find(name).is_some_and(|user| !user.is_iam()) {
            // PostgreSQL asks for the password itself, by SCRAM or MD5.
            return Ok(Some(Admitted::Session(packet)));
        }
        match self.authenticate(stream, name).await? {
            None => Ok(Some(Admitted::Session(packet))),
            Some(refusal) => refuse(stream, &refusal).await,
        }
    }

    /// The refusal, if there is one.
    async fn authenticate(
        self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        name: &[u8],
    ) -> io::Result<Option<ErrorFields>> {
        let user = users::find(name);
        if let (Some(user), Some(token)) = (user, self.instance.embedded_token(self.serial)) {
            return Ok((!user.admits(&token, self.google)).then(|| user.refusal()));
        }
        let password = self.ask_password(stream).await?;
        let Some(user) = user else { return Ok(Some(users::wrong_password(name))) };
        // A password that is no token at all is a wrong password; IAM never sees it (an assumption).
        let admitted = std::str::from_utf8(&password).is_ok_and(|token| user.admits(token, self.google));
        Ok((!admitted).then(|| user.refusal()))
    }

    async fn ask_password(self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Vec<u8>> {
        let method = self.method.unwrap_or(CLEARTEXT_PASSWORD);
        let mut request = Vec::new();
        append(&mut request, b'R', &authentication(method));
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await?;
        let header = Header::decode(&header).map_err(invalid)?.ok_or_else(|| invalid("no header"))?;
        if header.kind != b'p' || header.body == 0 || header.body > MAX_PASSWORD {
            return Err(invalid("expected password response"));
        }
        let mut body = vec![0; header.body];
        stream.read_exact(&mut body).await?;
        self.calls.add(Endpoint::InstancePassword);
        // One NUL, at the end.
        match body.split_last() {
            Some((0, password)) if !password.contains(&0) => Ok(password.to_vec()),
            _ => Err(invalid("invalid password packet size")),
        }
    }
}

/// The body of an `AuthenticationRequest`, with what its method carries.
fn authentication(method: i32) -> Vec<u8> {
    let mut body = method.to_be_bytes().to_vec();
    match method {
        5 => body.extend_from_slice(&[1, 2, 3, 4]),
        10 => body.extend_from_slice(b"SCRAM-SHA-256\0\0"),
        _ => {}
    }
    body
}

/// Sends a refusal and ends the session in order.
pub(super) async fn refuse<T>(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    fields: &ErrorFields,
) -> io::Result<Option<T>> {
    stream.write_all(&fields.frame(b'E')).await?;
    stream.shutdown().await?;
    Ok(None)
}

fn unsupported() -> ErrorFields {
    ErrorFields::new("FATAL", "0A000", "unsupported frontend protocol: server supports 3.0 to 3.0")
}

/// A packet without type: a length that counts itself, then the rest.
async fn startup_packet(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let size = usize::try_from(length).map_err(invalid)?;
    if !(8..=MAX_STARTUP_PACKET).contains(&size) {
        return Err(invalid("invalid length of startup packet"));
    }
    let mut packet = vec![0; size];
    let (head, body) = packet.split_at_mut(4);
    head.copy_from_slice(&length.to_be_bytes());
    stream.read_exact(body).await?;
    Ok(packet)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

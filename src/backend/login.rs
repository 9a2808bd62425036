//! Start-up with an instance: start-up packet, token on request, greeting.
//!
//! Reads are exact, a header and then its body, because what follows `ReadyForQuery` belongs to the relay. The token
//! leaves in answer to `AuthenticationCleartextPassword` alone, and once. A server that lets the session in without
//! asking has not checked who the caller is, and is not believed; where the client certificate carried the token, that
//! is the right answer and a question is the wrong one.
//! Messages and their order: PostgreSQL documentation, "Message Flow", "Start-up" (protocol-flow).

use super::{Backend, Error, LoginRequest, MAX_GREETING, MAX_STARTUP_MESSAGE, ServerKey};
use crate::cloudsql::{LoginMethod, ServerStream};
use crate::wire::{ErrorFields, HEADER_BYTES, Header, MAX_STARTUP_PACKET, Malformed, PROTOCOL_3_0, Reader, append};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// `AuthenticationOk`.
const AUTHENTICATION_OK: u32 = 0;
/// `AuthenticationCleartextPassword`.
const CLEARTEXT_PASSWORD: u32 = 3;
/// The longest `PasswordMessage` that PostgreSQL reads, in bytes of its length field (`PG_MAX_AUTH_TOKEN_LENGTH`,
/// `src/include/libpq/auth.h`).
const MAX_PASSWORD_LENGTH: usize = 65_535;
/// Bytes of the length field itself.
const LENGTH_BYTES: usize = 4;

/// Logs in: start-up packet (protocol 3.0), token on request, greeting up to `ReadyForQuery`.
/// The wait is the caller's to bound. Not cancel-safe: dropping it drops the stream.
pub async fn login(mut server: ServerStream, request: LoginRequest<'_>) -> Result<Backend, Error> {
    let Greeting { frames, key, status } = converse(&mut server.stream, server.login, &request).await?;
    Ok(Backend { server, greeting: frames, key, status })
}

/// What a server said up to its first `ReadyForQuery`.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) frames: Vec<u8>,
    pub(super) key: ServerKey,
    pub(super) status: u8,
}

/// One message, whole.
struct Message {
    kind: u8,
    body: Vec<u8>,
}

/// Where the token is: who the session is for must be proved before the server lets it in.
enum Proof {
    /// In this `PasswordMessage`, to be sent when asked for.
    Due(Zeroizing<Vec<u8>>),
    /// Sent as the password.
    Sent,
    /// In the client certificate.
    InCertificate,
}

/// The conversation on any stream.
pub(super) async fn converse<S>(
    stream: &mut S,
    method: LoginMethod,
    request: &LoginRequest<'_>,
) -> Result<Greeting, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let start = startup_packet(request)?;
    let proof = match method {
        LoginMethod::TokenAsPassword => Proof::Due(password_message(request)?),
        LoginMethod::TokenInCertificate => Proof::InCertificate,
    };
    send(stream, &start).await?;
    let mut frames = Vec::new();
    authenticate(stream, proof, &mut frames).await?;
    greet(stream, frames).await
}

/// Up to `AuthenticationOk`.
async fn authenticate<S>(stream: &mut S, mut proof: Proof, frames: &mut Vec<u8>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = receive(stream).await?;
        match message.kind {
            b'R' => match (method(&message.body)?, &proof) {
                (AUTHENTICATION_OK, Proof::Sent | Proof::InCertificate) => return Ok(()),
                (AUTHENTICATION_OK, Proof::Due(_)) => return Err(unexpected("a login without the token")),
                (CLEARTEXT_PASSWORD, Proof::Due(password)) => {
                    send(stream, password).await?;
                    proof = Proof::Sent;
                }
                (CLEARTEXT_PASSWORD, Proof::InCertificate) => return Err(Error::PasswordAsked),
                (CLEARTEXT_PASSWORD, Proof::Sent) => return Err(unexpected("a second request for the password")),
                (other, _) => return Err(Error::Method(i32::from_be_bytes(other.to_be_bytes()))),
            },
            b'N' => keep(frames, &message)?,
            _ => return Err(refusal(&message)),
        }
    }
}

/// From `AuthenticationOk` to `ReadyForQuery`.
async fn greet<S>(stream: &mut S, mut frames: Vec<u8>) -> Result<Greeting, Error>
where
    S: AsyncRead + Unpin,
{
    let mut key = None;
    loop {
        let message = receive(stream).await?;
        match (message.kind, key) {
            (b'S' | b'N', same) => {
                keep(&mut frames, &message)?;
                key = same;
            }
            (b'K', None) => key = Some(server_key(&message.body).map_err(|Malformed| unexpected("a bad cancel key"))?),
            (b'Z', Some(key)) => {
                return match message.body.as_slice() {
                    [b'I'] => Ok(Greeting { frames, key, status: b'I' }),
                    _ => Err(unexpected("a transaction before the first statement")),
                };
            }
            (b'Z', None) => return Err(unexpected("no cancel key")),
            _ => return Err(refusal(&message)),
        }
    }
}

/// Exactly one message.
async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Message, Error> {
    let mut header = [0_u8; HEADER_BYTES];
    stream.read_exact(&mut header).await.map_err(Error::Broken)?;
    let header = match Header::decode(&header) {
        Ok(Some(header)) if header.body <= MAX_STARTUP_MESSAGE => header,
        Ok(Some(header)) => return Err(Error::Unexpected(format!("a message of {} bytes", header.body))),
        Ok(None) => return Err(unexpected("a cut header")),
        Err(error) => return Err(Error::Unexpected(error.to_string())),
    };
    let mut body = vec![0; header.body];
    stream.read_exact(&mut body).await.map_err(Error::Broken)?;
    Ok(Message { kind: header.kind, body })
}

/// A whole message at once: a password in pieces makes several TLS records of it.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), Error> {
    stream.write_all(bytes).await.map_err(Error::Broken)?;
    stream.flush().await.map_err(Error::Broken)
}

/// What an authentication request asks for. Only the two that are answered have a known length.
fn method(body: &[u8]) -> Result<u32, Error> {
    let malformed = |Malformed| unexpected("a bad authentication request");
    let mut reader = Reader::new(body);
    let method = reader.u32().map_err(malformed)?;
    if matches!(method, AUTHENTICATION_OK | CLEARTEXT_PASSWORD) {
        reader.finish().map_err(malformed)?;
    }
    Ok(method)
}

/// Adds a parameter or notice, checked, to what the client will be told.
fn keep(frames: &mut Vec<u8>, message: &Message) -> Result<(), Error> {
    let well_formed = if message.kind == b'S' {
        parameter_status(&message.body)
    } else {
        ErrorFields::decode(&message.body).map(|_| ())
    };
    well_formed.map_err(|Malformed| unexpected("a bad parameter or notice"))?;
    let size = Header { kind: message.kind, body: message.body.len() }.frame();
    if frames.len().saturating_add(size) > MAX_GREETING {
        return Err(unexpected("a greeting without end"));
    }
    append(frames, message.kind, &message.body);
    Ok(())
}

fn parameter_status(body: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    reader.cstr()?;
    reader.cstr()?;
    reader.finish()
}

/// Protocol 3.0 has four bytes of secret.
fn server_key(body: &[u8]) -> Result<ServerKey, Malformed> {
    let mut reader = Reader::new(body);
    let pid = reader.u32()?;
    let secret = reader.bytes(4)?.to_vec();
    reader.finish()?;
    Ok(ServerKey { pid, secret })
}

/// The server's own error, or a message that has no place here; its content is not repeated.
fn refusal(message: &Message) -> Error {
    match (message.kind, ErrorFields::decode(&message.body)) {
        (b'E', Ok(fields)) => Error::Refused(Box::new(fields)),
        (b'E', Err(Malformed)) => unexpected("a bad error message"),
        (kind, _) => Error::Unexpected(format!("a message of type {:?}", char::from(kind))),
    }
}

fn unexpected(what: &str) -> Error {
    Error::Unexpected(what.to_owned())
}

/// The start-up packet. Bytes of the client's parameters are kept as they are; `user` and `database` are the grant's,
/// and a NUL or an empty name, which would end a field or the list early, cannot be sent.
fn startup_packet(request: &LoginRequest<'_>) -> Result<Vec<u8>, Error> {
    let mut packet = vec![0; 4];
    packet.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
    let own = [("user", request.role.as_str()), ("database", request.database.as_str())];
    let own = own.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let theirs = request.parameters.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    if theirs.clone().any(|(name, _)| matches!(name, b"user" | b"database" | b"")) {
        return Err(Error::Unsendable("a start-up parameter that is not the client's to set"));
    }
    for (name, value) in own.chain(theirs) {
        if name.contains(&0) || value.contains(&0) {
            return Err(Error::Unsendable("a start-up parameter with a NUL in it"));
        }
        for text in [name, value] {
            packet.extend_from_slice(text);
            packet.push(0);
        }
    }
    packet.push(0);
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    // The limit counts what follows the length word (`ProcessStartupPacket`).
    if packet.len().saturating_sub(LENGTH_BYTES) > MAX_STARTUP_PACKET {
        return Err(Error::Unsendable("the start-up packet is longer than PostgreSQL reads"));
    }
    if let Some(head) = packet.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    Ok(packet)
}

/// `PasswordMessage` in a buffer of its final size (growing would leave copies behind) that is wiped when dropped.
fn password_message(request: &LoginRequest<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let token = request.password.expose().as_bytes();
    let body = token.len() + 1;
    if token.is_empty() || body + LENGTH_BYTES > MAX_PASSWORD_LENGTH || token.contains(&0) {
        return Err(Error::Unsendable("a login token that cannot be sent"));
    }
    let mut message = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + body));
    message.extend_from_slice(&Header { kind: b'p', body }.encode());
    message.extend_from_slice(token);
    message.push(0);
    Ok(message)
}

#[cfg(test)]
mod tests;

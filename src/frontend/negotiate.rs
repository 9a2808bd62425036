//! From the first byte to the token: encryption requests, TLS, the start-up packet, the password message.

use super::login::Asked;
use super::stream::Encrypted;
use super::tls::ALPN;
use super::{ClientStream, Error, Full, Incoming, Login, MAX_TOKEN, Place};
use crate::names::{DatabaseAlias, MAX_IDENTIFIER_BYTES, NameError, RoleName};
use crate::secret::Secret;
use crate::wire::{
    ErrorFields, HEADER_BYTES, Header, Initial, MAX_STARTUP_PACKET, NEWEST_MINOR, PROTOCOL_3_0, Parameters, Purpose,
    StartupPacket, negotiated_minor,
};
use pgwire::messages::Message;
use pgwire::messages::startup::Authentication;
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// First byte of a TLS handshake record (RFC 8446 §5.1): direct TLS.
const TLS_HANDSHAKE: u8 = 0x16;
/// Said of a header of the PROXY protocol (version 2 and 1 begin so) where none is read.
const UNASKED_HEADER: &str =
    "a PROXY header, which listen.trusted_proxies and listen.proxy_protocol do not allow from this address";
/// How long a refused client may take to read why, in all.
const TELL: Duration = Duration::from_secs(5);

/// What a client turned out to want.
#[derive(Debug)]
pub enum Negotiated {
    /// A session.
    Login(Box<Login>, Place),
    /// Another session's statement cancelled.
    Cancel(CancelRequest),
}

/// A cancel: who it means, and the connection that stays open until it is dealt with.
#[derive(Debug)]
pub struct CancelRequest {
    /// The process id the session was told.
    pub pid: u32,
    /// The secret the session was told.
    pub secret: Vec<u8>,
    /// Held open: libpq waits for the close.
    pub stream: ClientStream,
    /// One of those for cancels.
    pub place: Place,
}

/// A client that got no further.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// To be told.
    pub client: RefusedClient,
}

/// The stream of a refused client, if it still listens, and its place, which it has until it has been told.
#[derive(Debug)]
pub struct RefusedClient {
    stream: Option<ClientStream>,
    _place: Option<Place>,
}

impl RefusedClient {
    pub(super) fn new(stream: Option<ClientStream>, place: Option<Place>) -> Self {
        Self { stream, _place: place }
    }

    /// Tells the client, closes, and forgets it.
    pub async fn tell(self, fields: &ErrorFields) {
        if let Some(stream) = self.stream {
            tell(stream, fields).await;
        }
    }
}

/// Writes one FATAL error and closes, in bounded time.
pub(super) async fn tell(mut stream: ClientStream, fields: &ErrorFields) {
    let _ = timeout(TELL, async {
        stream.write_all(&fields.frame(b'E')).await?;
        stream.shutdown().await?;
        // What the client still sends is read away: a close with unread bytes would reset the error off the wire.
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

/// Leads a client from its first byte to its token, within `startup` of its having been accepted.
pub async fn negotiate(incoming: Incoming, tls: &Arc<ServerConfig>, startup: Duration) -> Result<Negotiated, Refused> {
    let deadline = incoming.deadline(startup);
    let Incoming { socket, peer, place, .. } = incoming;
    let mut stream = None;
    let result = timeout_at(deadline, steps(socket, tls, place.over(), &mut stream)).await;
    let refused = |error, stream, place| Refused { error, client: RefusedClient::new(stream, place) };
    match result.unwrap_or(Err(Error::Deadline)) {
        Ok(Steps::Login { stream, claims, minor, token }) => {
            let Claims { user, database, purpose, parameters } = claims;
            let asked = Asked { address: peer.address, user, database, parameters, minor, purpose, token };
            Ok(Negotiated::Login(Box::new(Login { stream, asked }), place))
        }
        Ok(Steps::Cancel { pid, secret, stream }) => match place.of_cancel() {
            Ok(place) => Ok(Negotiated::Cancel(CancelRequest { pid, secret, stream, place })),
            // Who cancels waits for no answer.
            Err(full) => Err(refused(Error::Full(full), None, None)),
        },
        Err(error) => Err(refused(error, stream, Some(place))),
    }
}

/// How far the steps led.
enum Steps {
    Login { stream: ClientStream, claims: Claims, minor: u16, token: Secret<String> },
    Cancel { pid: u32, secret: Vec<u8>, stream: ClientStream },
}

/// The steps; `refused` holds the stream whenever the client can be told something.
async fn steps(
    socket: TcpStream,
    tls: &Arc<ServerConfig>,
    over: Option<Full>,
    refused: &mut Option<ClientStream>,
) -> Result<Steps, Error> {
    let (socket, direct) = match encryption(socket, refused).await? {
        Plain::Tls { socket, direct } => (socket, direct),
        Plain::Cancel { pid, secret, socket } => {
            return Ok(Steps::Cancel { pid, secret, stream: ClientStream::Plain(socket) });
        }
    };
    let acceptor = TlsAcceptor::from(Arc::clone(tls));
    let stream = acceptor.accept(socket).await.map_err(Error::Handshake)?;
    // Without it another protocol's client could be led to speak to this port (ALPACA; `ProcessSSLStartup`).
    if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(Error::Handshake(io::Error::other("direct TLS without ALPN postgresql")));
    }
    let stream = refused.insert(ClientStream::Tls(Box::new(Encrypted::new(stream))));
    let startup = match packet(stream).await? {
        Initial::Startup(startup) => startup,
        Initial::Cancel { pid, secret } => {
            let stream = refused.take().ok_or(Error::Malformed("no stream"))?;
            return Ok(Steps::Cancel { pid, secret, stream });
        }
        Initial::Version(version) => return Err(wrong_version(version)),
        Initial::Ssl | Initial::GssEnc => return Err(Error::Malformed("encryption was asked for inside TLS")),
    };
    let claims = Claims::check(&startup)?;
    if let Some(full) = over {
        return Err(Error::Full(full));
    }
    ask_for_token(stream, &startup).await?;
    let token = token(stream).await?;
    let stream = refused.take().ok_or(Error::Malformed("no stream"))?;
    Ok(Steps::Login { stream, claims, minor: negotiated_minor(startup.minor), token })
}

enum Plain {
    /// The next bytes are a TLS handshake, asked for or direct.
    Tls { socket: TcpStream, direct: bool },
    /// A cancel in plaintext.
    Cancel { pid: u32, secret: Vec<u8>, socket: TcpStream },
}

/// Plaintext: direct TLS, or at most one `SSLRequest` and one `GSSENCRequest` in either order.
async fn encryption(mut socket: TcpStream, refused: &mut Option<ClientStream>) -> Result<Plain, Error> {
    let mut first = [0];
    if socket.peek(&mut first).await.map_err(Error::Gone)? == 1 && first == [TLS_HANDSHAKE] {
        return Ok(Plain::Tls { socket, direct: true });
    }
    let mut gss_asked = false;
    loop {
        let initial = match packet(&mut socket).await {
            Ok(initial) => initial,
            Err(error) => {
                *refused = Some(ClientStream::Plain(socket));
                return Err(error);
            }
        };
        match initial {
            Initial::Ssl => {
                socket.write_all(b"S").await.map_err(Error::Gone)?;
                return Ok(Plain::Tls { socket, direct: false });
            }
            Initial::GssEnc if !gss_asked => {
                gss_asked = true;
                socket.write_all(b"N").await.map_err(Error::Gone)?;
            }
            Initial::Cancel { pid, secret } => return Ok(Plain::Cancel { pid, secret, socket }),
            other => {
                *refused = Some(ClientStream::Plain(socket));
                return Err(match other {
                    Initial::Version(version) => wrong_version(version),
                    Initial::GssEnc => Error::Malformed("GSSAPI encryption was asked for twice"),
                    _ => Error::NoTls,
                });
            }
        }
    }
}

/// One packet without a type: exactly its bytes are read.
pub(super) async fn packet(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Initial, Error> {
    let length = stream.read_u32().await.map_err(Error::Gone)?;
    if matches!(length.to_be_bytes(), [b'\r', b'\n', b'\r', b'\n'] | [b'P', b'R', b'O', b'X']) {
        return Err(Error::Malformed(UNASKED_HEADER));
    }
    let body = usize::try_from(length).ok().and_then(|length| length.checked_sub(4));
    let body = body.filter(|body| (4..=MAX_STARTUP_PACKET).contains(body));
    let mut bytes = vec![0; body.ok_or(Error::Malformed("invalid length of start-up packet"))?];
    stream.read_exact(&mut bytes).await.map_err(Error::Gone)?;
    Initial::decode(&bytes).map_err(|_| Error::Malformed("invalid start-up packet layout"))
}

fn wrong_version(version: u32) -> Error {
    let half = |bits: u32| u16::try_from(bits & 0xffff).unwrap_or_default();
    Error::Version(half(version >> 16), half(version))
}

/// What the start-up packet claims, in shapes that PostgreSQL would not change.
pub(super) struct Claims {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) purpose: Purpose,
    pub(super) parameters: Parameters,
}

impl Claims {
    pub(super) fn check(startup: &StartupPacket) -> Result<Self, Error> {
        let text = |parameter: &str, value: &[u8]| {
            let refuse = |reason| Error::Name { parameter: parameter.to_owned(), reason };
            String::from_utf8(value.to_vec()).map_err(|_| refuse(NameError::NotUtf8))
        };
        let refuse = |parameter: &str| {
            let parameter = parameter.to_owned();
            move |reason| Error::Name { parameter, reason }
        };
        let twice = |name: &[u8]| startup.parameters.iter().filter(|(known, _)| known == name).count() > 1;
        if twice(b"user") || twice(b"database") || twice(b"replication") {
            return Err(Error::Malformed("user, database or replication stands twice"));
        }
        let user = text("user", startup.get("user").filter(|user| !user.is_empty()).ok_or(Error::NoUser)?)?;
        RoleName::parse(&user).map_err(refuse("user"))?;
        let database = match startup.get("database").filter(|name| !name.is_empty()) {
            Some(name) => text("database", name)?,
            None => user.clone(),
        };
        DatabaseAlias::parse(&database).map_err(refuse("database"))?;
        let purpose = match startup.get("replication") {
            Some(value) if !certainly_false(value) => Purpose::Replication,
            _ => Purpose::Statements,
        };
        Ok(Self { user, database, purpose, parameters: passed_on(startup)? })
    }
}

/// Everything else of the packet goes to the server as it came, but for protocol options and what is ours. A
/// `replication` that is certainly false goes without.
fn passed_on(startup: &StartupPacket) -> Result<Parameters, Error> {
    let mut parameters = Vec::new();
    for (name, value) in &startup.parameters {
        let replication = name == b"replication";
        let ours = matches!(name.as_slice(), b"user" | b"database") || (replication && certainly_false(value));
        if ours || name.starts_with(b"_pq_.") {
            continue;
        }
        let plain = name.iter().all(u8::is_ascii_graphic) && name.len() <= MAX_IDENTIFIER_BYTES;
        if !plain {
            let parameter = String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).take(63).collect();
            return Err(Error::Name { parameter, reason: NameError::Shape("a parameter name in ASCII") });
        }
        parameters.push((name.clone(), value.clone()));
    }
    Ok(parameters)
}

/// Whether PostgreSQL reads a `replication` value as false (`parse_bool`, `src/backend/utils/adt/bool.c`). Anything
/// else counts as a wish for replication.
fn certainly_false(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    let prefix = |word: &[u8], least: usize| value.len() >= least && word.starts_with(&value);
    prefix(b"false", 1) || prefix(b"no", 1) || prefix(b"off", 2) || value == b"0"
}

/// `NegotiateProtocolVersion` where the client asked for a newer version than there is or for protocol options, none
/// of which is known, then `AuthenticationCleartextPassword`.
async fn ask_for_token(stream: &mut ClientStream, startup: &StartupPacket) -> Result<(), Error> {
    let mut out = bytes::BytesMut::new();
    let options: Vec<&[u8]> =
        startup.parameters.iter().map(|(name, _)| name.as_slice()).filter(|name| name.starts_with(b"_pq_.")).collect();
    if startup.minor > NEWEST_MINOR || !options.is_empty() {
        // The whole version, major included, is what PostgreSQL sends (`SendNegotiateProtocolVersion`).
        let version = PROTOCOL_3_0 | u32::from(negotiated_minor(startup.minor));
        let mut body = version.to_be_bytes().to_vec();
        body.extend_from_slice(&u32::try_from(options.len()).unwrap_or(u32::MAX).to_be_bytes());
        for option in options {
            body.extend_from_slice(option);
            body.push(0);
        }
        let mut frame = Vec::new();
        crate::wire::append(&mut frame, b'v', &body);
        out.extend_from_slice(&frame);
    }
    Authentication::CleartextPassword.encode(&mut out).map_err(|_| Error::Malformed("no authentication request"))?;
    stream.write_all(&out).await.map_err(Error::Gone)?;
    stream.flush().await.map_err(Error::Gone)
}

/// The password message: exactly its bytes, at most [`MAX_TOKEN`], ended by its one NUL.
pub(super) async fn token(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Secret<String>, Error> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.map_err(Error::Gone)?;
    let header = match Header::decode(&header) {
        Ok(Some(header)) if header.kind == b'p' => header,
        Ok(Some(header)) if header.kind == b'X' => return Err(Error::Gone(io::ErrorKind::UnexpectedEof.into())),
        _ => return Err(Error::Malformed("expected a password message")),
    };
    if header.body == 0 || header.body > MAX_TOKEN + 1 {
        return Err(Error::Malformed("the password message has an invalid length"));
    }
    let mut body = Zeroizing::new(vec![0; header.body]);
    stream.read_exact(&mut body).await.map_err(Error::Gone)?;
    let password = match body.split_last() {
        Some((0, password)) if !password.contains(&0) => password,
        _ => return Err(Error::Malformed("the password message is malformed")),
    };
    match std::str::from_utf8(password) {
        Ok("") => Err(Error::NoToken),
        Ok(token) => Ok(Secret::new(token.to_owned())),
        Err(_) => Err(Error::Malformed("the password is not UTF-8")),
    }
}

#[cfg(test)]
mod tests;

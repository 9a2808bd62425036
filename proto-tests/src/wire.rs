//! A client without manners: sends any bytes, over TLS or not, and reads what comes back message by message.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

/// How long an answer may take.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// `SSLRequest`'s code (PostgreSQL, "Message Formats").
const SSL_REQUEST: u32 = 80_877_103;
/// Protocol version 3.0.
const PROTOCOL_3_0: u32 = 196_608;

/// One message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Type byte.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an `ErrorResponse` or `NoticeResponse` by its code.
    pub fn field(&self, code: u8) -> Option<String> {
        self.body
            .split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }

    /// SQLSTATE of an error.
    #[track_caller]
    pub fn sqlstate(&self) -> String {
        assert_eq!(self.tag, b'E', "an error, not {self:?}");
        self.field(b'C').expect("an error has a code")
    }
}

/// `SSLRequest`, `S`, TLS: a stream whose server has been verified against `ca` and `host`.
pub async fn tls(address: SocketAddr, ca: &Path, host: &str) -> io::Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&request(SSL_REQUEST)).await?;
    expect_consent(&mut stream).await?;
    handshake(stream, ca, host).await
}

/// Reads the `S` that answers an `SSLRequest`.
pub async fn expect_consent<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    match tokio::time::timeout(DEADLINE, stream.read_u8()).await?? {
        b'S' => Ok(()),
        answer => Err(io::Error::other(format!("SSLRequest was answered with {answer}"))),
    }
}

/// TLS at once on a connected stream.
pub async fn handshake(stream: TcpStream, ca: &Path, host: &str) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A request without a type byte: `SSLRequest`, `GSSENCRequest`.
pub fn request(code: u32) -> Vec<u8> {
    [8_u32.to_be_bytes(), code.to_be_bytes()].concat()
}

/// `SSLRequest`.
pub fn ssl_request() -> Vec<u8> {
    request(SSL_REQUEST)
}

/// A start-up packet of protocol 3.0 with raw names and values.
pub fn startup(parameters: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
    for (name, value) in parameters {
        for part in [name, value] {
            body.extend_from_slice(part);
            body.push(0);
        }
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).expect("a test's packet is small");
    [length.to_be_bytes().to_vec(), body].concat()
}

/// A message with a type byte.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a test's message is small");
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

/// A text with its terminator.
pub fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Reads one message.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Message> {
    let reading = async {
        let tag = stream.read_u8().await?;
        let length = usize::try_from(stream.read_u32().await?).map_err(io::Error::other)?;
        let mut body = vec![0; length.checked_sub(4).ok_or_else(|| io::Error::other("length below 4"))?];
        stream.read_exact(&mut body).await?;
        Ok(Message { tag, body })
    };
    tokio::time::timeout(DEADLINE, reading).await?
}

/// Reads up to and with the first message of this type; an error message on the way is a failure.
pub async fn read_until<S: AsyncRead + Unpin>(stream: &mut S, tag: u8) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = read(stream).await.expect("the server answers");
        assert!(message.tag != b'E' || tag == b'E', "an error: {:?}", message.field(b'M'));
        let last = message.tag == tag;
        messages.push(message);
        if last {
            return messages;
        }
    }
}

/// Start-up with these parameters and token: everything up to `ReadyForQuery` or the error that refuses.
pub async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    parameters: &[(&[u8], &[u8])],
    token: &str,
) -> io::Result<Vec<Message>> {
    stream.write_all(&startup(parameters)).await?;
    let mut greeting = Vec::new();
    loop {
        let message = read(stream).await?;
        if (message.tag, message.body.as_slice()) == (b'R', &[0, 0, 0, 3]) {
            stream.write_all(&self::message(b'p', &text(token))).await?;
        }
        let last = matches!(message.tag, b'Z' | b'E');
        greeting.push(message);
        if last {
            return Ok(greeting);
        }
    }
}

/// Start-up and token, up to `ReadyForQuery` or the error that refuses.
pub async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    user: &[u8],
    database: &[u8],
    token: &str,
) -> io::Result<Message> {
    let mut greeting = greet(stream, &[(b"user", user), (b"database", database)], token).await?;
    greeting.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

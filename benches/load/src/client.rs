//! A client's session: TLS, log-in, statements one after another.

use crate::messages::{SSL_REQUEST, TERMINATE, start_up, text};
use forwarder::tls;
use load::Target;
use rustls::client::Resumption;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes that are read at once.
const READ: usize = 4096;
/// The longest error that is read, in bytes.
const MAX_ERROR: usize = 16 * 1024;

/// Where clients go.
pub(crate) struct Dialer {
    address: SocketAddr,
    tls: TlsConnector,
    database: String,
}

/// A session that is ready.
pub(crate) struct Session(BufReader<TlsStream<TcpStream>>);

impl Dialer {
    pub(crate) fn new(target: &Target) -> Result<Self, Box<dyn Error>> {
        let mut config = tls::client(&target.ca)?;
        config.resumption = Resumption::disabled();
        Ok(Self {
            address: target.address,
            tls: TlsConnector::from(Arc::new(config)),
            database: target.database.clone(),
        })
    }

    /// From connect to `ReadyForQuery`.
    pub(crate) async fn log_in(&self, user: &str, password: &str) -> io::Result<Session> {
        let mut socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        socket.write_all(&SSL_REQUEST).await?;
        if socket.read_u8().await? != b'S' {
            return Err(io::Error::other("the server has no TLS"));
        }
        let stream = self.tls.connect(tls::server_name()?, socket).await?;
        let mut session = Session(BufReader::with_capacity(READ, stream));
        session.send(&start_up(user, &self.database)).await?;
        // AuthenticationCleartextPassword
        let (kind, length) = session.header().await?;
        if (kind, length) != (b'R', 4) || session.0.read_u32().await? != 3 {
            return Err(session.failure(kind, length).await);
        }
        session.send(&text(b'p', password)).await?;
        session.until_ready().await?;
        Ok(session)
    }
}

impl Session {
    /// Sends messages, and reads up to `ReadyForQuery`.
    pub(crate) async fn ask(&mut self, messages: &[u8]) -> io::Result<()> {
        self.send(messages).await?;
        self.until_ready().await
    }

    /// Says goodbye; whoever is gone already does not hear it.
    pub(crate) async fn end(mut self) {
        let _ = self.send(&TERMINATE).await;
        let _ = self.0.shutdown().await;
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    async fn until_ready(&mut self) -> io::Result<()> {
        loop {
            match self.header().await? {
                (b'E', length) => return Err(self.failure(b'E', length).await),
                (kind, length) => {
                    self.skip(length).await?;
                    if kind == b'Z' {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Type, and length of the body.
    async fn header(&mut self) -> io::Result<(u8, usize)> {
        let kind = self.0.read_u8().await?;
        let length = usize::try_from(self.0.read_u32().await?).map_err(io::Error::other)?;
        Ok((kind, length.saturating_sub(4)))
    }

    async fn skip(&mut self, mut left: usize) -> io::Result<()> {
        while left > 0 {
            let here = self.0.fill_buf().await?.len().min(left);
            if here == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.0.consume(here);
            left -= here;
        }
        Ok(())
    }

    /// The message that came in place of the expected one.
    async fn failure(&mut self, kind: u8, length: usize) -> io::Error {
        if kind != b'E' {
            return io::Error::other(format!("the server sent {:?}", char::from(kind)));
        }
        let mut body = vec![0; length.min(MAX_ERROR)];
        match self.0.read_exact(&mut body).await {
            Ok(_) => io::Error::other(fields(&body)),
            Err(error) => error,
        }
    }
}

/// SQLSTATE and message of an `ErrorResponse`.
fn fields(body: &[u8]) -> String {
    let mut said = body.split(|byte| *byte == 0).filter_map(|field| match field.split_first() {
        Some((b'C' | b'M', value)) => Some(String::from_utf8_lossy(value).into_owned()),
        _ => None,
    });
    let (code, message) = (said.next().unwrap_or_default(), said.next().unwrap_or_default());
    format!("{code} {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_named_by_its_code_and_message() {
        assert_eq!(fields(b"SFATAL\0VFATAL\0C53300\0Mtoo many\0Hwait\0\0"), "53300 too many");
        assert_eq!(fields(b""), " ");
    }
}

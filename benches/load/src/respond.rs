//! A server that has the protocol and no database: it takes every password, and gives every statement one row.

use crate::messages::{SSL_REQUEST, frame};
use forwarder::tls;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// Bytes that are read at once.
const READ: usize = 8192;
/// The longest start-up packet (PostgreSQL, `MAX_STARTUP_PACKET_LENGTH`), in bytes.
const MAX_START_UP: usize = 10_000;
/// How long to wait after a failed accept.
const PAUSE: Duration = Duration::from_millis(50);

/// What it says, made once.
struct Words {
    ask_password: Vec<u8>,
    /// From `AuthenticationOk` to `ReadyForQuery`.
    greeting: Vec<u8>,
    /// Of a Query, without `ReadyForQuery`.
    query: Vec<u8>,
    execute: Vec<u8>,
    ready: Vec<u8>,
}

type Client = BufReader<TlsStream<TcpStream>>;

/// For ever.
pub(crate) async fn serve(listen: SocketAddr, certificate: &Path, key: &Path) -> Result<(), Box<dyn Error>> {
    let tls = tls::acceptor(certificate, key)?;
    let words = Arc::new(Words::new());
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(BACKLOG)?;
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let (tls, words) = (tls.clone(), Arc::clone(&words));
                tokio::spawn(async move {
                    // A client that breaks off is its own affair.
                    let _ = session(client, tls, &words).await;
                });
            }
            Err(error) => {
                eprintln!("load: accept: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn session(mut socket: TcpStream, tls: TlsAcceptor, words: &Words) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut request = [0; SSL_REQUEST.len()];
    socket.read_exact(&mut request).await?;
    if request != SSL_REQUEST {
        return Err(io::Error::other("the client asks for no TLS"));
    }
    socket.write_all(b"S").await?;
    let mut client = BufReader::with_capacity(READ, tls.accept(socket).await?);
    let length = usize::try_from(client.read_u32().await?).map_err(io::Error::other)?;
    if !(8..=MAX_START_UP).contains(&length) {
        return Err(io::Error::other("no start-up packet"));
    }
    skip(&mut client, length - 4).await?;
    client.write_all(&words.ask_password).await?;
    client.flush().await?;
    if let (b'p', length) = header(&mut client).await? {
        skip(&mut client, length).await?;
    }
    client.write_all(&words.greeting).await?;
    client.flush().await?;
    statements(&mut client, words).await
}

async fn statements(client: &mut Client, words: &Words) -> io::Result<()> {
    let mut answer = Vec::new();
    loop {
        let (kind, length) = header(client).await?;
        skip(client, length).await?;
        match kind {
            b'Q' => answer.extend_from_slice(&words.query),
            b'P' => answer.extend_from_slice(b"1\0\0\0\x04"),
            b'B' => answer.extend_from_slice(b"2\0\0\0\x04"),
            b'C' => answer.extend_from_slice(b"3\0\0\0\x04"),
            b'D' => answer.extend_from_slice(b"n\0\0\0\x04"),
            b'E' => answer.extend_from_slice(&words.execute),
            b'X' => return client.shutdown().await,
            _ => {}
        }
        if matches!(kind, b'Q' | b'S') {
            answer.extend_from_slice(&words.ready);
        }
        if matches!(kind, b'Q' | b'S' | b'H') {
            client.write_all(&answer).await?;
            client.flush().await?;
            answer.clear();
        }
    }
}

async fn header(client: &mut Client) -> io::Result<(u8, usize)> {
    let kind = client.read_u8().await?;
    let length = usize::try_from(client.read_u32().await?).map_err(io::Error::other)?;
    Ok((kind, length.saturating_sub(4)))
}

async fn skip(client: &mut Client, mut left: usize) -> io::Result<()> {
    while left > 0 {
        let here = client.fill_buf().await?.len().min(left);
        if here == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        client.consume(here);
        left -= here;
    }
    Ok(())
}

impl Words {
    fn new() -> Self {
        let mut greeting = frame(b'R', &[0; 4]);
        for (name, value) in [
            ("server_version", "15.0"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "Etc/UTC"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
        ] {
            greeting.extend(frame(b'S', format!("{name}\0{value}\0").as_bytes()));
        }
        greeting.extend(frame(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
        let ready = frame(b'Z', b"I");
        greeting.extend_from_slice(&ready);
        // One column of type int4, without a table.
        let row = frame(b'T', b"\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
        let execute = [frame(b'D', b"\0\x01\0\0\0\x011"), frame(b'C', b"SELECT 1\0")].concat();
        Self {
            ask_password: frame(b'R', &[0, 0, 0, 3]),
            greeting,
            query: [row, execute.clone()].concat(),
            execute,
            ready,
        }
    }
}

//! Calls of an HTTPS server, with nothing else around them: what a call costs whoever makes it (HTTP/1.1, RFC 9112).

use forwarder::tls;
use load::{Answer, percentile};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// The longest line of an answer's head that is read, in bytes.
const MAX_LINE: u64 = 16 * 1024;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(20);

/// `count` calls on one connection; each must be answered with success.
pub(crate) async fn call(address: SocketAddr, ca: &Path, path: &str, count: usize) -> Result<Answer, Box<dyn Error>> {
    let connector = tls::connector(ca)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let mut took = Vec::new();
    let mut began = Instant::now();
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let mut stream = BufReader::new(connector.connect(tls::server_name()?, socket).await?);
    for _ in 0..count {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        timeout(PATIENCE, answer(&mut stream)).await??;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        began = Instant::now();
    }
    let (first, next) = took.split_first_mut().ok_or("no calls")?;
    Ok(Answer::Called { first_ms: *first, next_ms: percentile(next, 0.5) })
}

/// Reads an answer to its end: its length must be told.
async fn answer(stream: &mut BufReader<TlsStream<TcpStream>>) -> io::Result<()> {
    let mut length = None;
    let mut line = String::new();
    (&mut *stream).take(MAX_LINE).read_line(&mut line).await?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("an answer that begins with {:?}", line.trim_end())));
    }
    loop {
        line.clear();
        (&mut *stream).take(MAX_LINE).read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok(),
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let length = length.ok_or_else(|| io::Error::other("an answer without a length"))?;
    stream.read_exact(&mut vec![0; length]).await.map(drop)
}

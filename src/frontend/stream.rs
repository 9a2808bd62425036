//! A client's socket, before and after TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Plain TCP, or TLS over it.
#[derive(Debug)]
pub enum ClientStream {
    /// Before TLS: only encryption requests, cancels and refusals.
    Plain(TcpStream),
    /// After the handshake.
    Tls(Box<Encrypted>),
}

/// TLS over TCP, and what was read from it ahead of time.
#[derive(Debug)]
pub struct Encrypted {
    stream: TlsStream<TcpStream>,
    early: Vec<u8>,
}

impl Encrypted {
    /// A stream from which nothing was read.
    pub fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, early: Vec::new() }
    }
}

impl ClientStream {
    /// Reads what there is ahead of time, and keeps it to be read again: how many bytes are kept, and how many of them
    /// are new; none at the stream's end. Cancel-safe.
    pub async fn read_ahead(&mut self) -> io::Result<(&[u8], usize)> {
        let mut bytes = [0; 1024];
        match self {
            Self::Plain(_) => std::future::pending().await,
            Self::Tls(tls) => {
                let read = tls.stream.read(&mut bytes).await?;
                tls.early.extend_from_slice(bytes.get(..read).unwrap_or_default());
                Ok((&tls.early, read))
            }
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(tls) if !tls.early.is_empty() => {
                let taken = tls.early.len().min(buffer.remaining());
                buffer.put_slice(tls.early.get(..taken).unwrap_or_default());
                tls.early.drain(..taken);
                if tls.early.is_empty() {
                    tls.early = Vec::new();
                }
                Poll::Ready(Ok(()))
            }
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}

//! Read buffers: how they grow, what they give back, and a client that is read while its bytes cannot leave.

use super::{CLIENT_BUFFER, FIRST_BUFFER, KEPT_BUFFER, LEAST_SPACE};
use bytes::{Buf, BytesMut};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf, ReadHalf};
use tokio::time::timeout;

/// What a client has sent and is not dealt with.
#[derive(Debug)]
pub(super) struct Input {
    pub buffer: BytesMut,
    /// It sends no more.
    ended: bool,
}

impl Input {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), ended: false }
    }

    /// Reads once; `false` when the client sends no more. Cancel-safe.
    pub async fn more<C: AsyncRead>(&mut self, client: &mut ReadHalf<C>) -> io::Result<bool> {
        if !self.ended {
            self.ended = read(client, &mut self.buffer, CLIENT_BUFFER).await? == 0;
        }
        Ok(!self.ended)
    }

    /// Waits for `turn`, until which nothing can leave, and reads meanwhile as far as there is room, so that a client
    /// that is gone is noticed. `false` when it sends no more and its turn has not come for `patience` since.
    pub async fn until<C: AsyncRead>(
        &mut self,
        turn: impl Future<Output = ()>,
        client: &mut ReadHalf<C>,
        patience: Duration,
    ) -> io::Result<bool> {
        tokio::pin!(turn);
        while !self.ended && self.buffer.len().saturating_add(LEAST_SPACE) <= CLIENT_BUFFER {
            tokio::select! {
                biased;
                () = &mut turn => return Ok(true),
                more = self.more(client) => drop(more?),
            }
        }
        if self.ended {
            return Ok(timeout(patience, turn).await.is_ok());
        }
        turn.await;
        Ok(true)
    }
}

/// Reads once into the buffer's free space, which grows up to `limit`. Who has nothing in it has no buffer either while it
/// waits: what comes is read beside it and put there. Cancel-safe.
pub(super) async fn read<R: AsyncRead>(
    reader: &mut ReadHalf<R>,
    buffer: &mut BytesMut,
    limit: usize,
) -> io::Result<usize> {
    if buffer.capacity() == 0 {
        return poll_fn(|context| poll_first(Pin::new(&mut *reader), buffer, context)).await;
    }
    let free = buffer.capacity().saturating_sub(buffer.len());
    if free < LEAST_SPACE {
        if buffer.len() >= limit {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        buffer.reserve(buffer.len().clamp(FIRST_BUFFER, 64 * 1024));
    }
    reader.read_buf(buffer).await
}

fn poll_first<R: AsyncRead>(
    reader: Pin<&mut ReadHalf<R>>,
    buffer: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut room = [MaybeUninit::uninit(); FIRST_BUFFER];
    let mut first = ReadBuf::uninit(&mut room);
    ready!(reader.poll_read(context, &mut first))?;
    buffer.extend_from_slice(first.filled());
    Poll::Ready(Ok(first.filled().len()))
}

/// Takes what was dealt with off the buffer. Nothing is kept where the last read was short, and not all of it where one
/// long message has taken much.
pub(super) fn consume(buffer: &mut BytesMut, taken: usize) {
    let short = buffer.len() < FIRST_BUFFER;
    buffer.advance(taken);
    if !buffer.is_empty() {
        return;
    }
    if short {
        *buffer = BytesMut::new();
    } else if buffer.try_reclaim(KEPT_BUFFER.saturating_add(1)) {
        *buffer = BytesMut::with_capacity(FIRST_BUFFER);
    }
}

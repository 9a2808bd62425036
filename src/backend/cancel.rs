//! Cancelling a statement: one request on a stream of its own, answered by the server's closing it.

use super::{Error, ServerKey};
use crate::cloudsql::ServerStream;
use crate::wire::CANCEL_REQUEST;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most that is read, in bytes, while waiting for the end: PostgreSQL sends nothing.
const MAX_ANSWER: u64 = 1024;

/// Sends a `CancelRequest` on its own verified stream and waits until the server closes it: only then is the signal
/// sent, so that a client which goes on at once cannot have its next statement cancelled. The wait is the caller's
/// to bound; dropping the future closes the stream.
pub async fn cancel(mut server: ServerStream, key: &ServerKey) -> Result<(), Error> {
    request(&mut server.stream, key).await
}

async fn request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, key: &ServerKey) -> Result<(), Error> {
    stream.write_all(&packet(key)).await.map_err(Error::Broken)?;
    stream.flush().await.map_err(Error::Broken)?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(Error::Unexpected("an answer to a cancel request".to_owned())),
        Err(error) if is_close(&error) => Ok(()),
        Err(error) => Err(Error::Broken(error)),
    }
}

/// PostgreSQL exits without a TLS goodbye, and resets a connection on which it left bytes unread.
fn is_close(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// Length, request code, process id, secret (PostgreSQL documentation, "Message Formats", `CancelRequest`).
fn packet(key: &ServerKey) -> Vec<u8> {
    let mut packet = Vec::with_capacity(12 + key.secret.len());
    let length = u32::try_from(key.secret.len()).unwrap_or(u32::MAX).saturating_add(12);
    for word in [length, CANCEL_REQUEST, key.pid] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet.extend_from_slice(&key.secret);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Initial;
    use std::time::Duration;

    fn key() -> ServerKey {
        ServerKey { pid: 4711, secret: vec![1, 2, 0xff, 4] }
    }

    #[test]
    fn the_packet_names_the_process_and_its_secret() {
        let packet = packet(&key());
        assert_eq!(packet[..4], 16_u32.to_be_bytes());
        assert_eq!(Initial::decode(&packet[4..]), Ok(Initial::Cancel { pid: 4711, secret: vec![1, 2, 0xff, 4] }));
    }

    #[tokio::test(start_paused = true)]
    async fn it_returns_when_the_server_has_closed_and_not_before() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let (key, mut seen) = (key(), [0; 16]);
        let mut cancelling = std::pin::pin!(request(&mut ours, &key));
        tokio::select! {
            _ = &mut cancelling => panic!("the server has not closed"),
            () = async {
                theirs.read_exact(&mut seen).await.unwrap();
                tokio::time::sleep(Duration::from_secs(5)).await;
            } => {}
        }
        drop(theirs);
        assert!(cancelling.await.is_ok());
        assert_eq!(seen.as_slice(), packet(&key));
    }

    #[tokio::test]
    async fn a_server_that_answers_or_alerts_is_an_error() {
        let (mut ours, mut theirs) = tokio::io::duplex(8192);
        theirs.write_all(&[b'E'; 4096]).await.unwrap();
        assert!(matches!(request(&mut ours, &key()).await, Err(Error::Unexpected(_))));
        for (kind, closed) in [
            (io::ErrorKind::UnexpectedEof, true),
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::InvalidData, false),
            (io::ErrorKind::TimedOut, false),
        ] {
            assert_eq!(is_close(&io::Error::from(kind)), closed, "{kind}");
        }
    }
}

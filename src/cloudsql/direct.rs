//! The direct path's first step: asking PostgreSQL's own port for TLS.
//!
//! PostgreSQL documentation, "SSL Session Encryption" (protocol-flow). Exactly one byte of answer is read: what
//! somebody on the way stuffs behind it reaches the TLS handshake and fails there (CVE-2021-23222).

use crate::wire::SSL_REQUEST_PACKET;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Sends `SSLRequest` and reads the consent. Anything but `S` is an error: there is no fallback to clear text. The
/// wait is the caller's to bound.
pub(super) async fn request_tls<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(&SSL_REQUEST_PACKET).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        b'S' => Ok(()),
        b'N' => Err(io::Error::new(io::ErrorKind::InvalidData, "it offers no TLS")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it answers a request for TLS with something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_consent_goes_on_and_not_a_byte_more_is_read() {
        for (answer, goes_on) in [("S", true), ("Stuffed", true), ("N", false), ("E\0\0\0\x08", false), ("", false)] {
            let (mut ours, mut theirs) = tokio::io::duplex(64);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            assert_eq!(request_tls(&mut ours).await.is_ok(), goes_on, "{answer:?}");
            let (mut left, mut asked) = (String::new(), Vec::new());
            ours.read_to_string(&mut left).await.unwrap();
            assert_eq!(left, answer.get(1..).unwrap_or_default());
            drop(ours);
            theirs.read_to_end(&mut asked).await.unwrap();
            assert_eq!(asked, [0, 0, 0, 8, 4, 210, 22, 47], "80877103 and nothing else");
        }
    }
}

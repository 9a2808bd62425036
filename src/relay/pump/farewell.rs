//! The end of a session: nothing keeps running for a caller who is gone, and the last word stands at a frame's edge.

use super::down::{Down, Patience};
use super::{FAREWELL, Relay, Shared};
use crate::relay::ending::{Ending, Host, Wish};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

/// How long the server may be silent over what a client asked who has said goodbye, sends no more, or broke the
/// protocol behind it. Then it is cancelled.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// How long the answer to a cancel may take, and the close of a server's side before it.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a session may take from the wish that it ends now until its summary, besides its cancel: one write to a
/// client who does not read, the close of the server's side, the answer, and goodbye.
pub const LAST_WORDS: Duration = Duration::from_secs(2 * FAREWELL.as_secs() + 2 * ANSWER.as_secs());
/// `Flush`: the server sends what it has answered by now.
const FLUSH: &[u8] = b"H\0\0\0\x04";

impl Relay {
    /// Brings what is outstanding to an end: by waiting for it where somebody does, else by a cancel.
    pub(super) async fn wind_down<S, C, W, H>(
        &self,
        ending: &Ending,
        down: &mut Down<S, C>,
        server: &mut WriteHalf<W>,
        wish: &mut watch::Receiver<Wish>,
        host: &H,
    ) where
        S: AsyncRead,
        C: AsyncWrite,
        W: AsyncWrite,
        H: Host,
    {
        let (gone, mid_frame) = {
            let mut shared = self.lock();
            shared.closed = true;
            (shared.client_gone, shared.mid_frame.server || self.writing.load(Ordering::Relaxed))
        };
        if gone {
            down.lose_client();
        }
        let over = async {
            if wish.wait_for(|wish| matches!(wish, Wish::Now(_))).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let lingering = Patience { quiet: LINGER, over };
        match ending {
            Ending::Server { .. } => return,
            // The server has heard the goodbye: it answers what it was asked before, then closes.
            Ending::Client if !down.is_client_lost() => {
                self.answers(down, lingering, |_, down| down.is_client_lost(), host).await;
            }
            // As PostgreSQL does, what came before the violation is answered first.
            Ending::Violated(_) => {
                if !mid_frame {
                    self.flush(server).await;
                }
                self.answers(down, lingering, settled, host).await;
            }
            _ => {}
        }
        if mid_frame {
            // The server waits for the rest of a message that never comes: it is told so, and takes back.
            let _ = timeout(ANSWER, server.shutdown()).await;
        }
        self.silence(down, host).await;
    }

    /// The client has sent no Sync behind what it wants to hear of.
    async fn flush<W: AsyncWrite>(&self, server: &mut WriteHalf<W>) {
        let flushed = timeout(FAREWELL, async {
            server.write_all(FLUSH).await?;
            server.flush().await
        });
        if !matches!(flushed.await, Ok(Ok(()))) {
            self.lock().mid_frame.server = true;
        }
    }

    /// Cancels what still runs, and waits for the answer and for the end of a message that has begun.
    async fn silence<S, C, H>(&self, down: &mut Down<S, C>, host: &H)
    where
        S: AsyncRead,
        C: AsyncWrite,
        H: Host,
    {
        let busy = self.lock().tracker.is_busy() && !down.is_server_closed();
        if !busy {
            let patience = Patience { quiet: ANSWER, over: sleep(ANSWER) };
            return self.answers(down, patience, settled, host).await;
        }
        down.mute_cancel();
        let ((heard, hearing), (ended, ending)) = (oneshot::channel(), oneshot::channel());
        let cancel = async {
            // The host has a deadline of its own; what has ended meanwhile needs no cancel.
            tokio::select! {
                () = host.cancel() => {}
                Ok(()) = ending => {}
            }
            drop(heard);
        };
        let answers = async {
            let over = async {
                let _: Result<(), _> = hearing.await;
                sleep(ANSWER).await;
            };
            self.answers(down, Patience { quiet: Duration::MAX, over }, settled, host).await;
            if down.is_server_closed() || !self.lock().tracker.is_busy() {
                let _ = ended.send(());
            }
        };
        tokio::join!(cancel, answers);
    }
}

/// Nothing is outstanding, and the server is not in mid-message.
fn settled<S: AsyncRead, C: AsyncWrite>(shared: &Shared, down: &Down<S, C>) -> bool {
    !shared.tracker.is_busy() && !down.is_mid_frame()
}

//! The end of a session: nothing keeps running for a caller who is gone, and the last word stands at a frame's edge.

use super::down::Down;
use super::{Relay, Shared};
use crate::relay::ending::{Ending, Host};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::time::timeout;

/// How long the server may be silent over what a client asked who has said goodbye, sends no more, or broke the
/// protocol behind it. Then it is cancelled.
const LINGER: Duration = Duration::from_secs(5);
/// How long a cancel and its answer may take.
const CANCEL: Duration = Duration::from_secs(5);

impl Relay {
    /// Brings what is outstanding to an end: by waiting for it where somebody does, else by a cancel.
    pub(super) async fn wind_down<S, C, W, H>(
        &self,
        ending: &Ending,
        down: &mut Down<S, C>,
        server: &mut WriteHalf<W>,
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
        match ending {
            Ending::Server { .. } => return,
            // The server has heard the goodbye: it answers what it was asked before, then closes.
            Ending::Client if !down.is_client_lost() => {
                self.answers(down, LINGER, |_, down| down.is_client_lost(), host).await;
            }
            // As PostgreSQL does, what came before the violation is answered first.
            Ending::Violated(_) => self.answers(down, LINGER, settled, host).await,
            _ => {}
        }
        if mid_frame {
            // The server waits for the rest of a message that never comes: it is told so, and takes back.
            let _ = timeout(CANCEL, server.shutdown()).await;
        }
        let busy = self.lock().tracker.is_busy() && !down.is_server_closed();
        if busy {
            down.mute_cancel();
        }
        let answers = self.answers(down, CANCEL, settled, host);
        let _ = timeout(CANCEL, async {
            if busy {
                tokio::join!(host.cancel(), answers);
            } else {
                answers.await;
            }
        })
        .await;
    }
}

/// Nothing is outstanding, and the server is not in mid-message.
fn settled<S: AsyncRead, C: AsyncWrite>(shared: &Shared, down: &Down<S, C>) -> bool {
    !shared.tracker.is_busy() && !down.is_mid_frame()
}

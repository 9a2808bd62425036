//! A cancel's own connection, from its key to the close that libpq waits for.
//!
//! A cancel is forwarded only while what ran on its arrival still runs, and no byte of that session's client leaves
//! until the server has closed (see [`CancelGate`](crate::relay::CancelGate)). Nothing is answered: who does not know
//! the key learns nothing. Cancels over a limit are dropped, counted, and recorded within the strangers' budget.

use super::super::{Error, Services, chain};
use super::Known;
use crate::audit::event::Event;
use crate::backend;
use crate::cloudsql::ServerStream;
use crate::frontend::{CancelRequest, Peer};
use crate::names::SessionId;
use crate::telemetry::CancelOutcome;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

/// Serves a cancel's own connection: pass it on, record it, close.
pub async fn serve(request: CancelRequest, client: Peer, services: &Services) {
    let keys = &services.cancel_keys;
    let allowed = client.limited().is_none_or(|address| keys.allow(address));
    let known = allowed.then(|| keys.find(request.pid, &request.secret));
    let outcome = match &known {
        None => CancelOutcome::Limited,
        Some(None) => CancelOutcome::Unknown,
        Some(Some(known)) => known.cancel(services).await,
    };
    services.metrics.cancel(outcome);
    let session = known.flatten().map_or_else(SessionId::generate, |known| known.target.session);
    let event = Event::Cancel { client: client.address, via: client.via, outcome: outcome.as_str() };
    // Who knows a key is no stranger, unless there is a storm of them.
    let recorded = match outcome {
        CancelOutcome::Unknown | CancelOutcome::Limited => services.auditor.record_stranger(session, &event),
        _ => services.auditor.record(session, &event),
    };
    if recorded.is_err() {
        services.metrics.audit_failed();
        tracing::error!("a cancel could not be recorded");
    }
    let mut stream = request.stream;
    let _ = timeout(services.deadlines.cancel, stream.shutdown()).await;
}

impl Known {
    /// Cancels what this session runs now, if it runs anything.
    async fn cancel(&self, services: &Services) -> CancelOutcome {
        if !self.allow() {
            return CancelOutcome::Limited;
        }
        let Some(mut hold) = self.target.gate.hold() else {
            // What waits for a limit is refused here, and nothing needs to be told to the instance.
            let withdrawn = self.target.gate.withdraw();
            return if withdrawn { CancelOutcome::Withdrawn } else { CancelOutcome::Idle };
        };
        let deadline = Instant::now() + services.deadlines.cancel;
        let dialling = async {
            // However many there are, each session costs the instance one connection at a time.
            let turn = self.turn.lock().await;
            self.dial().await.map(|server| (server, turn))
        };
        let dialled = tokio::select! {
            biased;
            () = hold.ended() => return CancelOutcome::Late,
            dialled = timeout_at(deadline, dialling) => dialled,
        };
        let (server, _turn) = match dialled {
            Ok(Ok(dialled)) => dialled,
            Ok(Err(error)) => return self.failed(&chain(&error)),
            Err(_) => return self.failed("the instance was not reached in time"),
        };
        // From here on only the server's close opens the gate.
        hold.sending();
        match timeout_at(deadline, backend::cancel(server, &self.target.key)).await {
            Ok(Ok(())) => {
                hold.closed();
                CancelOutcome::Forwarded
            }
            Ok(Err(error)) => self.failed(&chain(&error)),
            Err(_) => self.failed("the instance did not close in time"),
        }
    }

    /// Cancels what still runs for a client that is gone, so that no gate is needed.
    pub(super) async fn cancel_for_nobody(&self, services: &Services) {
        let forwarding = async {
            let server = self.dial().await?;
            backend::cancel(server, &self.target.key).await?;
            Ok::<(), Error>(())
        };
        match timeout(services.deadlines.cancel, forwarding).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => drop(self.failed(&chain(&error))),
            Err(_) => drop(self.failed("it took too long")),
        }
    }

    async fn dial(&self) -> Result<ServerStream, Error> {
        Ok(self.target.connector.dial_address(&self.target.instance, self.target.address).await?)
    }

    fn failed(&self, reason: &str) -> CancelOutcome {
        tracing::warn!(session = %self.target.session, instance = %self.target.instance, reason, "a cancel failed");
        CancelOutcome::Failed
    }
}

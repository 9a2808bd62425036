//! Cancels: which session does a key mean, and the request passed on to that session's own server.
//!
//! A client is told the server's real process id (PostgreSQL's own tools compare it) and a secret of ours. Lookups
//! compare secrets in constant time and answer nothing: who does not know the key learns nothing (`ProcessCancelRequestPacket`,
//! `src/backend/postmaster/postmaster.c`).

use super::Services;
use crate::audit::event::Event;
use crate::backend::{self, ServerKey};
use crate::frontend::CancelRequest;
use crate::names::{InstanceName, SessionId};
use crate::telemetry::CancelOutcome;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Tries to draw a secret that no session with the same process id has.
const DRAWS: usize = 64;

/// As long as the client's protocol version has it.
type Secret = Box<[u8]>;

/// By process id; two instances can have the same one.
type Sessions = HashMap<u32, Vec<(Secret, Arc<Target>)>>;

/// Every session's key. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CancelKeys {
    sessions: Arc<Mutex<Sessions>>,
}

/// Where a session's cancels go.
#[derive(Debug)]
pub struct Target {
    /// The session.
    pub session: SessionId,
    /// Its instance …
    pub instance: InstanceName,
    /// … and the address at which it was reached.
    pub address: SocketAddr,
    /// What the server wants to hear.
    pub key: ServerKey,
}

/// One session's key; forgotten on drop.
#[derive(Debug)]
pub struct Registered {
    keys: CancelKeys,
    secret: Secret,
    target: Arc<Target>,
}

impl CancelKeys {
    /// Gives a session a key: the server's process id, and a secret of `secret_bytes` (see
    /// [`wire::cancel_secret_bytes`](crate::wire::cancel_secret_bytes)) that is unique among sessions with that id.
    pub fn register(&self, target: Target, secret_bytes: usize) -> Registered {
        let pid = target.key.pid;
        let target = Arc::new(target);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sessions.entry(pid).or_default();
        let mut secret = draw(secret_bytes);
        for _ in 0..DRAWS {
            if !known.iter().any(|(taken, _)| *taken == secret) {
                break;
            }
            secret = draw(secret_bytes);
        }
        known.push((secret.clone(), Arc::clone(&target)));
        Registered { keys: self.clone(), secret, target }
    }

    fn find(&self, pid: u32, secret: &[u8]) -> Option<Arc<Target>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sessions.get(&pid)?;
        // Every secret is compared, so that the time says nothing about which one came close.
        known.iter().fold(None, |found, (known, target)| {
            let equal = aws_lc_rs::constant_time::verify_slices_are_equal(known, secret).is_ok();
            if equal { Some(Arc::clone(target)) } else { found }
        })
    }
}

impl Registered {
    /// The process id to tell the client.
    pub fn pid(&self) -> u32 {
        self.target.key.pid
    }

    /// The secret to tell the client.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Cancels what still runs for a client that is gone.
    pub async fn cancel(&self, services: &Services) {
        forward(&self.target, services).await;
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sessions = self.keys.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sessions.get_mut(&self.target.key.pid) {
            known.retain(|(_, target)| !Arc::ptr_eq(target, &self.target));
            if known.is_empty() {
                sessions.remove(&self.target.key.pid);
            }
        }
    }
}

/// Serves a cancel's own connection: pass it on, then close, which is what libpq waits for.
pub async fn serve(request: CancelRequest, client: SocketAddr, services: &Services) {
    let target = services.cancel_keys.find(request.pid, &request.secret);
    let outcome = match &target {
        Some(target) => forward(target, services).await,
        None => CancelOutcome::Unknown,
    };
    services.metrics.cancel(outcome);
    let word = match outcome {
        CancelOutcome::Forwarded => "forwarded",
        CancelOutcome::Unknown => "unknown",
        CancelOutcome::Failed => "failed",
    };
    let event = Event::Cancel { client, outcome: word };
    // Who knows a key is no stranger: the cancel is recorded in the session that it meant.
    let recorded = match target {
        Some(target) => services.auditor.record(target.session, &event),
        None => services.auditor.record_stranger(SessionId::generate(), &event),
    };
    if recorded.is_err() {
        services.metrics.audit_failed();
        tracing::error!("a cancel could not be recorded");
    }
    let mut stream = request.stream;
    let _ = timeout(services.deadlines.cancel, stream.shutdown()).await;
}

async fn forward(target: &Target, services: &Services) -> CancelOutcome {
    let forwarding = async {
        let server = services.connector.dial_address(&target.instance, target.address).await?;
        backend::cancel(server, &target.key).await?;
        Ok::<(), super::Error>(())
    };
    match timeout(services.deadlines.cancel, forwarding).await {
        Ok(Ok(())) => CancelOutcome::Forwarded,
        Ok(Err(error)) => {
            tracing::warn!(instance = %target.instance, error = %super::chain(&error), "a cancel failed");
            CancelOutcome::Failed
        }
        Err(_) => {
            tracing::warn!(instance = %target.instance, "a cancel passed its deadline");
            CancelOutcome::Failed
        }
    }
}

/// Random bytes out of version 4 UUIDs: of each the first four, all of whose bits are random (RFC 9562 §5.4).
fn draw(bytes: usize) -> Secret {
    let fours = std::iter::repeat_with(|| uuid::Uuid::new_v4().into_bytes()).flat_map(|[a, b, c, d, ..]| [a, b, c, d]);
    fours.take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(keys: &CancelKeys, pid: u32, secret_bytes: usize) -> Registered {
        let instance = InstanceName::parse("demo-project:europe-west1:orders").unwrap();
        let key = ServerKey { pid, secret: vec![1, 2, 3, 4] };
        let address = "127.0.0.1:3307".parse().unwrap();
        keys.register(Target { session: SessionId::generate(), instance, address, key }, secret_bytes)
    }

    #[test]
    fn a_key_finds_its_own_session_only_and_is_forgotten_with_it() {
        let keys = CancelKeys::default();
        let (one, two, long) = (register(&keys, 7, 4), register(&keys, 7, 4), register(&keys, 7, 32));
        assert_ne!(one.secret(), two.secret());
        assert!(Arc::ptr_eq(&keys.find(7, long.secret()).unwrap(), &long.target));
        assert!(keys.find(7, &long.secret()[..4]).is_none(), "a long key has no short form");
        let found = keys.find(7, one.secret()).unwrap();
        assert!(Arc::ptr_eq(&found, &one.target));
        assert!(keys.find(8, one.secret()).is_none());
        assert!(keys.find(7, b"").is_none() && keys.find(7, &[one.secret(), &[0]].concat()).is_none());
        let secret = one.secret().to_vec();
        drop(one);
        assert!(keys.find(7, &secret).is_none());
        drop((two, long));
        assert!(keys.sessions.lock().unwrap().is_empty());
    }
}

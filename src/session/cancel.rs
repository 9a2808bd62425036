//! Cancels: which session does a key mean, and the request passed on to that session's own server.
//!
//! A client is told the server's real process id (PostgreSQL's own tools compare it) and a secret of ours. Lookups
//! compare secrets in constant time and answer nothing: who does not know the key learns nothing (`ProcessCancelRequestPacket`,
//! `src/backend/postmaster/postmaster.c`).

mod rate;
mod serve;

pub use serve::serve;

use super::Services;
use crate::backend::ServerKey;
use crate::cloudsql::Connector;
use crate::names::{InstanceName, SessionId};
use crate::relay::CancelGate;
use rate::{Addresses, Allowance, OF_SESSION};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Tries to draw a secret that no session with the same process id has.
const DRAWS: usize = 64;

/// As long as the client's protocol version has it.
type Secret = Box<[u8]>;

/// By process id; two instances can have the same one.
type Sessions = HashMap<u32, Vec<(Secret, Arc<Known>)>>;

/// Every session's key. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CancelKeys {
    sessions: Arc<Mutex<Sessions>>,
    addresses: Arc<Mutex<Addresses>>,
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
    /// Holds the client's bytes back meanwhile.
    pub gate: Arc<CancelGate>,
    /// What the session was dialled with: after a reload another one may take another way.
    pub connector: Arc<Connector>,
}

/// No secret could be drawn that is unique: the session must not be let in with another one's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no unique cancel key in {DRAWS} draws")]
pub struct NoKey;

/// One session's key; forgotten on drop.
#[derive(Debug)]
pub struct Registered {
    keys: CancelKeys,
    secret: Secret,
    known: Arc<Known>,
}

/// A session that has a key.
#[derive(Debug)]
struct Known {
    target: Target,
    allowance: Mutex<Allowance>,
    /// Whose turn it is to have a connection to the instance.
    turn: tokio::sync::Mutex<()>,
}

impl CancelKeys {
    /// Gives a session a key: the server's process id, and a secret of `secret_bytes` (see
    /// [`wire::cancel_secret_bytes`](crate::wire::cancel_secret_bytes)) that is unique among sessions with that id.
    pub fn register(&self, target: Target, secret_bytes: usize) -> Result<Registered, NoKey> {
        self.register_one_of(target, std::iter::repeat_with(|| draw(secret_bytes)))
    }

    fn register_one_of(&self, target: Target, secrets: impl Iterator<Item = Secret>) -> Result<Registered, NoKey> {
        let pid = target.key.pid;
        let mut sessions = lock(&self.sessions);
        let taken = sessions.get(&pid).map(Vec::as_slice).unwrap_or_default();
        let free = |secret: &Secret| !taken.iter().any(|(taken, _)| taken == secret);
        let secret = secrets.take(DRAWS).find(free).ok_or(NoKey)?;
        let known = Arc::new(Known { target, allowance: Mutex::default(), turn: tokio::sync::Mutex::default() });
        sessions.entry(pid).or_default().push((secret.clone(), Arc::clone(&known)));
        Ok(Registered { keys: self.clone(), secret, known })
    }

    /// Sessions that have a key.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        lock(&self.sessions).values().map(Vec::len).sum()
    }

    /// Whether this address may ask for one more cancel now; it counts if so.
    fn allow(&self, address: IpAddr) -> bool {
        lock(&self.addresses).take(address, Instant::now())
    }

    fn find(&self, pid: u32, secret: &[u8]) -> Option<Arc<Known>> {
        let sessions = lock(&self.sessions);
        // Every secret is compared, so that the time says nothing about which one came close.
        sessions.get(&pid)?.iter().fold(None, |found, (own, known)| {
            let equal = aws_lc_rs::constant_time::verify_slices_are_equal(own, secret).is_ok();
            if equal { Some(Arc::clone(known)) } else { found }
        })
    }
}

impl Known {
    /// Whether this session may have one more cancel now; it counts if so.
    fn allow(&self) -> bool {
        lock(&self.allowance).take(OF_SESSION, Instant::now())
    }
}

impl Registered {
    /// The process id to tell the client.
    pub fn pid(&self) -> u32 {
        self.known.target.key.pid
    }

    /// The secret to tell the client.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Cancels what still runs for a client that is gone.
    pub async fn cancel(&self, services: &Services) {
        self.known.cancel_for_nobody(services).await;
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let (pid, mut sessions) = (self.pid(), lock(&self.keys.sessions));
        if let Some(known) = sessions.get_mut(&pid) {
            known.retain(|(_, known)| !Arc::ptr_eq(known, &self.known));
            if known.is_empty() {
                sessions.remove(&pid);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Random bytes out of version 4 UUIDs: of each the first four, all of whose bits are random (RFC 9562 §5.4).
fn draw(bytes: usize) -> Secret {
    let fours = std::iter::repeat_with(|| uuid::Uuid::new_v4().into_bytes()).flat_map(|[a, b, c, d, ..]| [a, b, c, d]);
    fours.take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(pid: u32) -> Target {
        let instance = InstanceName::parse("demo-project:europe-west1:orders").unwrap();
        let key = ServerKey { pid, secret: vec![1, 2, 3, 4] };
        let (session, address) = (SessionId::generate(), "127.0.0.1:3307".parse().unwrap());
        Target { session, instance, address, key, gate: Arc::default(), connector: Arc::new(Connector::nowhere()) }
    }

    fn register(keys: &CancelKeys, pid: u32, secret_bytes: usize) -> Registered {
        keys.register(target(pid), secret_bytes).unwrap()
    }

    #[test]
    fn a_key_finds_its_own_session_only_and_is_forgotten_with_it() {
        let keys = CancelKeys::default();
        let (one, two, long) = (register(&keys, 7, 4), register(&keys, 7, 4), register(&keys, 7, 32));
        assert_ne!(one.secret(), two.secret());
        assert!(Arc::ptr_eq(&keys.find(7, long.secret()).unwrap(), &long.known));
        assert!(keys.find(7, &long.secret()[..4]).is_none(), "a long key has no short form");
        let found = keys.find(7, one.secret()).unwrap();
        assert!(Arc::ptr_eq(&found, &one.known));
        assert!(keys.find(8, one.secret()).is_none());
        assert!(keys.find(7, b"").is_none() && keys.find(7, &[one.secret(), &[0]].concat()).is_none());
        let secret = one.secret().to_vec();
        drop(one);
        assert!(keys.find(7, &secret).is_none());
        drop((two, long));
        assert!(keys.sessions.lock().unwrap().is_empty());
    }

    #[test]
    fn no_session_gets_another_ones_key_however_the_draws_fall() {
        let four = |byte: u8| Secret::from([byte; 4]);
        let keys = CancelKeys::default();
        let first = keys.register_one_of(target(7), std::iter::once(four(1))).unwrap();
        let collides = std::iter::repeat_with(move || four(1));
        assert_eq!(keys.register_one_of(target(7), collides).unwrap_err(), NoKey);
        let second = keys.register_one_of(target(7), collides.take(63).chain([four(2)])).unwrap();
        assert_eq!(second.secret(), [2; 4]);
        assert!(Arc::ptr_eq(&keys.find(7, &[1; 4]).unwrap(), &first.known));
        assert!(keys.register_one_of(target(8), collides).is_ok(), "another process id is another key");
    }
}

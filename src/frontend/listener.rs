//! Permits: how many connections there may be, in all and of one address that has not logged in.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A socket and its permit, or the limit that it met; nothing is known of who it is.
#[derive(Debug)]
pub struct Incoming {
    /// The socket.
    pub socket: TcpStream,
    /// Where it comes from.
    pub address: SocketAddr,
    /// A client over a limit is still told so, inside TLS; cancels need no permit.
    pub permit: Result<Permit, Full>,
}

/// The limits at the door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    sessions: Arc<Semaphore>,
    logins: Arc<Mutex<HashMap<IpAddr, usize>>>,
    logins_per_address: usize,
}

/// The right to one session, and, until [`Permit::logged_in`], to one login of its address. Given back on drop.
#[derive(Debug)]
pub struct Permit {
    _session: OwnedSemaphorePermit,
    login: Option<LoginCount>,
}

#[derive(Debug)]
struct LoginCount {
    logins: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// `limits.sessions`.
    #[error("all sessions are taken")]
    Sessions,
    /// `limits.logins_per_address`.
    #[error("too many logins are under way from this address")]
    Address,
}

impl Gate {
    /// A gate for this many sessions, and logins of one address.
    pub fn new(sessions: usize, logins_per_address: usize) -> Self {
        let sessions = Arc::new(Semaphore::new(sessions.min(Semaphore::MAX_PERMITS)));
        Self { sessions, logins: Arc::default(), logins_per_address }
    }

    /// Asks for a permit.
    pub fn enter(&self, address: IpAddr) -> Result<Permit, Full> {
        let session = Arc::clone(&self.sessions).try_acquire_owned().map_err(|_| Full::Sessions)?;
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let count = logins.entry(address).or_default();
        if *count >= self.logins_per_address {
            return Err(Full::Address);
        }
        *count = count.saturating_add(1);
        drop(logins);
        let login = LoginCount { logins: Arc::clone(&self.logins), address };
        Ok(Permit { _session: session, login: Some(login) })
    }
}

impl Permit {
    /// The login is over; only the session counts from here on.
    pub fn logged_in(&mut self) {
        self.login = None;
    }
}

impl Drop for LoginCount {
    fn drop(&mut self) {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = logins.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                logins.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_limited_and_given_back() {
        let gate = Gate::new(3, 2);
        let (one, two) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
        let mut first = gate.enter(one).unwrap();
        let _second = gate.enter(one).unwrap();
        assert_eq!(gate.enter(one).unwrap_err(), Full::Address);
        first.logged_in();
        let third = gate.enter(one).unwrap();
        assert_eq!(gate.enter(two).unwrap_err(), Full::Sessions);
        drop(third);
        drop(first);
        assert!(gate.enter(two).is_ok());
        assert_eq!(gate.logins.lock().unwrap().len(), 1, "an address without logins is forgotten");
    }
}

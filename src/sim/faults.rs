//! Faults that tests order, hop by hop: slow, broken, refusing services.
//!
//! A fault stays until it is replaced or cleared. It changes what the next request or connection meets,
//! pooled connections included; sessions that are already relayed go on.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// A service on the way, as a fault is ordered for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hop {
    /// Entra's discovery documents. Of this hop and the next two refused connections and black holes are the whole login
    /// host's.
    EntraDiscovery,
    /// Entra's key sets.
    EntraKeys,
    /// Entra's token endpoint.
    EntraToken,
    /// Microsoft Graph.
    Graph,
    /// The partner's discovery document and key set.
    PartnerKeys,
    /// Google STS.
    Sts,
    /// IAM Credentials.
    IamCredentials,
    /// The SQL Admin API.
    SqlAdmin,
    /// Where the proxy's own identity comes from: the managed identity endpoint, Google's token endpoint for keys, or
    /// the metadata server.
    OwnIdentity,
    /// The instance, before TLS.
    InstanceTcp,
    /// The instance, in place of its part of the TLS handshake.
    InstanceTls,
    /// The instance, in place of its answer to the start-up packet.
    InstanceLogin,
    /// The instance, before it passes a cancel on to PostgreSQL.
    InstanceCancel,
}

/// What goes wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes this much later, and is right.
    Delay(Duration),
    /// HTTP: this status with the service's error body. Instance: the login ends in FATAL 57P03, or 28000 for a 4xx,
    /// 53300 for 429.
    Status(u16),
    /// HTTP: 429 with `Retry-After: SECONDS`.
    RetryAfter(u32),
    /// HTTP: status 200 and a body of 2 MiB, which is JSON of the right shape as far as it goes.
    Huge,
    /// Bytes that are no answer (HTTP: status 200 and a body that is not JSON).
    Garbage,
    /// The connection is reset (RST).
    Reset,
    /// The connection is closed in order, without an answer.
    Close,
    /// Nobody listens: connections are refused by the kernel.
    Refuse,
    /// SYN packets are dropped: connections hang. A cancel is neither passed on nor answered.
    BlackHole,
    /// Instance login only: `AuthenticationRequest` with this method in place of cleartext password (5 MD5, 10 SASL, 0 ok).
    AskFor(i32),
    /// Instance TLS on the direct port only: `N` in answer to a request for TLS.
    NoTls,
}

/// The faults in force. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Faults {
    active: Arc<RwLock<HashMap<Hop, Fault>>>,
    changed: watch::Sender<()>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { active: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Faults {
    /// Orders a fault; replaces the one in force there.
    pub fn set(&self, hop: Hop, fault: Fault) {
        self.active.write().unwrap_or_else(PoisonError::into_inner).insert(hop, fault);
        self.changed.send_replace(());
    }

    /// Ends the fault at one hop.
    pub fn clear(&self, hop: Hop) {
        self.active.write().unwrap_or_else(PoisonError::into_inner).remove(&hop);
        self.changed.send_replace(());
    }

    /// Ends every fault.
    pub fn clear_all(&self) {
        self.active.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.changed.send_replace(());
    }

    /// The fault in force at a hop.
    pub fn get(&self, hop: Hop) -> Option<Fault> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).get(&hop).copied()
    }

    /// Wakes when any fault changes.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_holds_at_its_hop_until_cleared() {
        let faults = Faults::default();
        faults.set(Hop::Sts, Fault::Status(503));
        assert_eq!(faults.get(Hop::Sts), Some(Fault::Status(503)));
        assert_eq!(faults.get(Hop::SqlAdmin), None);
        faults.clone().clear(Hop::Sts);
        assert_eq!(faults.get(Hop::Sts), None);
    }
}

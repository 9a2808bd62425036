//! Counters: how often each endpoint was reached, so that tests can assert the path not taken.

use super::faults::Hop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Entra's discovery documents, any version.
    EntraDiscovery,
    /// Entra's key sets, any version.
    EntraKeys,
    /// Microsoft Graph.
    Graph,
    /// The partner's key set.
    PartnerKeys,
    /// Entra's device code endpoint.
    EntraDeviceCode,
    /// Entra's token endpoint.
    EntraToken,
    /// The managed identity endpoint.
    OwnIdentity,
    /// Google's token endpoint for service accounts' keys.
    ServiceAccountToken,
    /// Google's metadata server.
    Metadata,
    /// STS `/v1/token`.
    Sts,
    /// `generateAccessToken`.
    GenerateAccessToken,
    /// `connectSettings`.
    ConnectSettings,
    /// `generateEphemeralCert`.
    GenerateEphemeralCert,
    /// TCP connections that the instance accepted.
    InstanceConnection,
    /// Requests for TLS on the instance's direct port.
    InstanceTlsRequest,
    /// TLS handshakes that the instance completed, client certificate included.
    InstanceHandshake,
    /// Start-up packets that reached the instance.
    InstanceStartup,
    /// Password messages that reached the instance: tokens that left the proxy.
    InstancePassword,
    /// Logins that the instance let through to PostgreSQL.
    InstanceLogin,
    /// Cancel requests that reached the instance.
    InstanceCancel,
}

impl Endpoint {
    /// The hop whose faults an HTTP endpoint follows.
    pub(super) fn hop(self) -> Option<Hop> {
        match self {
            Self::EntraDiscovery => Some(Hop::EntraDiscovery),
            Self::EntraKeys => Some(Hop::EntraKeys),
            Self::EntraToken => Some(Hop::EntraToken),
            Self::PartnerKeys => Some(Hop::PartnerKeys),
            Self::Graph => Some(Hop::Graph),
            Self::OwnIdentity | Self::ServiceAccountToken | Self::Metadata => Some(Hop::OwnIdentity),
            Self::Sts => Some(Hop::Sts),
            Self::GenerateAccessToken => Some(Hop::IamCredentials),
            Self::ConnectSettings | Self::GenerateEphemeralCert => Some(Hop::SqlAdmin),
            _ => None,
        }
    }
}

const ENDPOINTS: usize = Endpoint::InstanceCancel as usize + 1;

/// The counters. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<[AtomicU64; ENDPOINTS]>);

impl Calls {
    /// How often it was reached since the start or the last [`Calls::reset`]; faults count too.
    pub fn count(&self, endpoint: Endpoint) -> u64 {
        self.0.get(endpoint as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Sets every counter to zero.
    pub fn reset(&self) {
        self.0.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }

    pub(super) fn add(&self, endpoint: Endpoint) {
        if let Some(counter) = self.0.get(endpoint as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_its_own_counter() {
        let calls = Calls::default();
        calls.add(Endpoint::InstanceCancel);
        calls.clone().add(Endpoint::InstanceCancel);
        assert_eq!((calls.count(Endpoint::InstanceCancel), calls.count(Endpoint::Sts)), (2, 0));
        calls.reset();
        assert_eq!(calls.count(Endpoint::InstanceCancel), 0);
    }
}

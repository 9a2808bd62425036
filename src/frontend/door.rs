//! From the socket to the client's own address: which limits a connection counts under, and, where it comes from a
//! trusted balancer, on whose behalf (the PROXY header).

use super::gate::{Full, Gate, Place};
use super::negotiate::RefusedClient;
use super::{ClientStream, Error, Refused, proxy_header};
use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The longest that a connection over a limit is kept; `deadlines.startup` may be shorter.
const OVER_DEADLINE: Duration = Duration::from_secs(10);

/// What is watched at the door: `[limits]` and `[listen]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoorConfig {
    /// Logins under way at once.
    pub logins: usize,
    /// Logins under way at once of one address (IPv6: of one /64).
    pub logins_per_address: usize,
    /// Balancers: not limited as one address, and believed as `proxy_protocol` says.
    pub trusted_proxies: Vec<IpNet>,
    /// What is read from them.
    pub proxy_protocol: ProxyProtocol,
}

/// Whether trusted balancers say who is behind them, in a PROXY protocol header of version 2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// No header is read.
    #[default]
    Off,
    /// A header is read where there is one.
    Optional,
    /// A connection of theirs without a header is refused.
    Required,
}

/// The door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    gate: Gate,
    trusted: Arc<[IpNet]>,
    proxy_protocol: ProxyProtocol,
}

/// A socket and a place; nothing has been read.
#[derive(Debug)]
pub struct Arrival {
    socket: TcpStream,
    peer: Peer,
    place: Place,
    /// What is read before anything else.
    header: ProxyProtocol,
    accepted: Instant,
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The client's own address, which counts for limits and records.
    pub address: SocketAddr,
    /// The balancer that the client came through and that told its address.
    pub via: Option<SocketAddr>,
    /// Whether the address is a trusted balancer's own, behind which anybody may be.
    pub balancer: bool,
}

/// A socket, whose it is, and a place; nothing that the client says is known.
#[derive(Debug)]
pub struct Incoming {
    /// The socket, at the client's first byte.
    pub socket: TcpStream,
    /// Where the client is.
    pub peer: Peer,
    /// A client over a limit is still told so, inside TLS.
    pub place: Place,
    accepted: Instant,
}

impl Door {
    /// Built once; its clones share their limits.
    pub fn new(config: DoorConfig) -> Self {
        let DoorConfig { logins, logins_per_address, trusted_proxies, proxy_protocol } = config;
        Self { gate: Gate::new(logins, logins_per_address), trusted: trusted_proxies.into(), proxy_protocol }
    }

    /// Finds a place for an accepted socket; `None`: there is none even to say so, and the socket is closed.
    pub fn admit(&self, socket: TcpStream, address: SocketAddr) -> Option<Arrival> {
        let address = canonical(address);
        let peer = Peer { address, via: None, balancer: self.trusts(address.ip()) };
        let place = self.gate.enter(peer.limited())?;
        let header = if peer.balancer { self.proxy_protocol } else { ProxyProtocol::Off };
        Some(Arrival { socket, peer, place, header, accepted: Instant::now() })
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

impl Arrival {
    /// Whose socket it is; the client's address is not known yet.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// When it was accepted.
    pub fn accepted(&self) -> std::time::Instant {
        self.accepted.into_std()
    }

    /// The same, served by the runtime that this is called in.
    pub fn here(self: Box<Self>) -> io::Result<Box<Self>> {
        let Self { socket, peer, place, header, accepted } = *self;
        let socket = TcpStream::from_std(socket.into_std()?)?;
        Ok(Box::new(Self { socket, peer, place, header, accepted }))
    }

    /// Finds out where the client is, within `startup` of having been accepted. Not a byte behind a header is read.
    pub async fn introduce(mut self, startup: Duration) -> Result<Incoming, Refused> {
        let read = timeout_at(self.accepted + startup, proxy_header::read(&mut self.socket, self.header)).await;
        let Self { socket, peer, place, accepted, .. } = self;
        let client = match read.unwrap_or(Err(Error::Deadline)) {
            Ok(client) => client.map(canonical),
            Err(error) => {
                return Err(Refused {
                    error,
                    client: RefusedClient::new(Some(ClientStream::Plain(socket)), Some(place)),
                });
            }
        };
        let Some(client) = client else {
            return Ok(Incoming { socket, peer, place, accepted });
        };
        let peer = Peer { address: client, via: Some(peer.address), balancer: false };
        match place.of_client(client.ip()) {
            Some(place) => Ok(Incoming { socket, peer, place, accepted }),
            None => Err(Refused { error: Error::Full(Full::Address), client: RefusedClient::new(None, None) }),
        }
    }
}

impl Peer {
    /// The address that limits of one address are for; a trusted balancer's own is not.
    pub fn limited(&self) -> Option<IpAddr> {
        (!self.balancer).then_some(self.address.ip())
    }
}

impl Incoming {
    /// When the start-up must be over.
    pub(super) fn deadline(&self, startup: Duration) -> Instant {
        self.accepted + if self.place.over().is_some() { startup.min(OVER_DEADLINE) } else { startup }
    }
}

/// An IPv4 client of a listener for both is written as one.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;

//! Ports for child processes: the proxy reads its port from a file, so it cannot be given port 0.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a reserved port.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// A port of 127.0.0.1 that no other test takes while this value lives: the same port of 127.0.0.2 is the token.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _token: TcpListener,
}

impl Port {
    /// Finds a free port.
    pub fn reserve() -> io::Result<Self> {
        // Parallel test threads start at different places; a collision only costs another try.
        let start = uuid::Uuid::new_v4().as_u128() % u128::from(LAST - FIRST);
        let start = u16::try_from(start).unwrap_or(0);
        for step in 0..(LAST - FIRST) {
            let number = FIRST + (start + step) % (LAST - FIRST);
            let Ok(token) = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _token: token });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port"))
    }

    /// Where the child listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

//! A listener that can stop listening without losing its port: faults `Refuse` and `BlackHole`.

use super::faults::{Fault, Faults, Hop};
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections waiting to be accepted.
const BACKLOG: u32 = 256;
/// Connections that fill a black hole's queue; Linux admits one more than the backlog of 0.
const FILLERS: usize = 2;

/// Accepts connections at one address while the fault in force lets it.
#[derive(Debug)]
pub(super) struct Gate {
    address: SocketAddr,
    state: State,
    hop: Hop,
    /// Other hops of the same address.
    others: Vec<Hop>,
    faults: Faults,
    changed: watch::Receiver<()>,
}

#[derive(Debug)]
enum State {
    Open(TcpListener),
    /// Bound, not listening: the port stays ours and the kernel refuses.
    Refusing {
        _socket: TcpSocket,
    },
    /// Listening with a full queue: the kernel drops SYN packets.
    Full {
        _listener: TcpListener,
        _fillers: JoinSet<()>,
    },
}

impl Gate {
    /// Listens at `address`; port 0 finds a free one.
    pub(super) fn bind(address: SocketAddr, hop: Hop, faults: Faults) -> io::Result<Self> {
        let listener = reserve(address)?.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { address, state: State::Open(listener), hop, others: Vec::new(), changed: faults.watch(), faults })
    }

    /// Follows the faults of another hop as well.
    pub(super) fn and(mut self, other: Hop) -> Self {
        self.others.push(other);
        self
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, which sends what it has at once, as the real services do. Cancel-safe.
    pub(super) async fn accept(&mut self) -> io::Result<TcpStream> {
        loop {
            self.follow_faults()?;
            match &self.state {
                State::Open(listener) => tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted?;
                        stream.set_nodelay(true)?;
                        return Ok(stream);
                    }
                    _ = self.changed.changed() => {}
                },
                State::Refusing { .. } | State::Full { .. } => {
                    let _ = self.changed.changed().await;
                }
            }
        }
    }

    fn follow_faults(&mut self) -> io::Result<()> {
        let shuts = |hop: &Hop| self.faults.get(*hop).filter(|f| matches!(f, Fault::Refuse | Fault::BlackHole));
        let wanted = std::iter::once(&self.hop).chain(&self.others).find_map(shuts);
        let right = match (&self.state, wanted) {
            (State::Refusing { .. }, Some(Fault::Refuse)) | (State::Full { .. }, Some(Fault::BlackHole)) => true,
            (State::Open(_), wanted) => !matches!(wanted, Some(Fault::Refuse | Fault::BlackHole)),
            _ => false,
        };
        if right {
            return Ok(());
        }
        // Two sockets cannot be bound to a port while one listens: let go first. Nothing is awaited in between.
        self.state = State::Refusing { _socket: TcpSocket::new_v4()? };
        let socket = reserve(self.address)?;
        self.state = match wanted {
            Some(Fault::Refuse) => State::Refusing { _socket: socket },
            Some(Fault::BlackHole) => State::Full { _listener: socket.listen(0)?, _fillers: fill(self.address) },
            _ => State::Open(socket.listen(BACKLOG)?),
        };
        Ok(())
    }
}

/// Binds without listening.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Takes the places in the queue.
fn fill(address: SocketAddr) -> JoinSet<()> {
    let mut fillers = JoinSet::new();
    for _ in 0..FILLERS {
        fillers.spawn(async move {
            if let Ok(_stream) = TcpStream::connect(address).await {
                std::future::pending::<()>().await;
            }
        });
    }
    fillers
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_shut_gate_refuses_a_black_hole_hangs_and_both_open_again() {
        let faults = Faults::default();
        let mut gate = Gate::bind("127.0.0.1:0".parse().unwrap(), Hop::InstanceTcp, faults.clone()).unwrap();
        let address = gate.address();
        let server = tokio::spawn(async move {
            loop {
                assert!(gate.accept().await.unwrap().nodelay().unwrap());
            }
        });
        TcpStream::connect(address).await.unwrap();
        faults.set(Hop::InstanceTcp, Fault::Refuse);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        faults.set(Hop::InstanceTcp, Fault::BlackHole);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let hangs = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await;
        assert!(hangs.is_err(), "a black hole must not answer");
        faults.clear_all();
        tokio::time::sleep(Duration::from_millis(50)).await;
        TcpStream::connect(address).await.unwrap();
        server.abort();
    }
}

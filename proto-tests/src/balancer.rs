//! A TCP balancer in front of the proxy: passes bytes both ways, says first who is behind it, and remembers how each
//! connection began.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes of each connection's beginning that are remembered: a request and the head of a cancel.
const BEGINNING: usize = 8;

/// A running balancer; ends when dropped.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    beginnings: Arc<Mutex<Vec<[u8; BEGINNING]>>>,
    _tasks: JoinSet<()>,
}

impl Balancer {
    /// Listens on a free loopback port, and writes `header` to the proxy in front of each client's bytes.
    pub async fn start(proxy: SocketAddr, header: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let beginnings = Arc::<Mutex<Vec<_>>>::default();
        let (seen, mut tasks) = (Arc::clone(&beginnings), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // A connection that breaks off is its client's and the proxy's to notice.
                connections.spawn(pass(client, proxy, header.clone(), Arc::clone(&seen)));
            }
        });
        Self { address, beginnings, _tasks: tasks }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first bytes of every connection since the last question.
    pub fn beginnings(&self) -> Vec<[u8; BEGINNING]> {
        std::mem::take(&mut self.beginnings.lock().expect("no test panicked here"))
    }
}

async fn pass(
    mut client: TcpStream,
    proxy: SocketAddr,
    header: Vec<u8>,
    seen: Arc<Mutex<Vec<[u8; BEGINNING]>>>,
) -> io::Result<()> {
    let mut proxy = TcpStream::connect(proxy).await?;
    proxy.write_all(&header).await?;
    let mut first = [0; BEGINNING];
    client.read_exact(&mut first).await?;
    seen.lock().expect("no test panicked here").push(first);
    proxy.write_all(&first).await?;
    copy_bidirectional(&mut client, &mut proxy).await.map(drop)
}

/// A PROXY header of version 2 (haproxy.org, `doc/proxy-protocol.txt`, section 2.2) for this client of TCP.
pub fn header(client: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    let (family, addresses): (u8, Vec<u8>) = match client.ip() {
        IpAddr::V4(ip) => (0x11, [ip.octets(), [10, 0, 0, 1]].concat()),
        IpAddr::V6(ip) => (0x21, [ip.octets(), ip.octets()].concat()),
    };
    header.push(family);
    let length = u16::try_from(addresses.len() + 4).expect("two addresses are short");
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&addresses);
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&5432_u16.to_be_bytes());
    header
}

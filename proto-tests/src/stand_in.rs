//! A program in PostgreSQL's place, behind the instance's TLS: it says what a test tells it to.

use crate::chain::Chain;
use crate::wire::{self, Message};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long it waits for the proxy.
const DEADLINE: Duration = Duration::from_secs(30);
/// `CancelRequest`'s code.
const CANCEL_REQUEST: [u8; 4] = 80_877_102_u32.to_be_bytes();
/// `AuthenticationCleartextPassword`.
pub const ASK: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
/// `AuthenticationOk`, a parameter, the key for cancels, `ReadyForQuery`.
pub const WELCOME: &[u8] =
    b"R\0\0\0\x08\0\0\0\0S\0\0\0\x11TimeZone\0UTC\0K\0\0\0\x0c\0\0\x30\x39\x01\x02\x03\x04Z\0\0\0\x05I";

/// Takes the instance's place.
#[derive(Debug)]
pub struct StandIn {
    connections: Mutex<mpsc::Receiver<Backend>>,
    /// Ends with the value.
    _accepting: JoinSet<()>,
}

/// One connection of the proxy's.
#[derive(Debug)]
pub struct Backend {
    /// What the proxy sends and hears.
    pub stream: TcpStream,
    /// The start-up packet's body.
    pub startup: Vec<u8>,
}

impl StandIn {
    /// From now on the proxy reaches this in place of PostgreSQL. Cancels are answered by a close.
    pub async fn start(chain: &Chain) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        chain.cloud.stand_in(Some(listener.local_addr().expect("an address")));
        let (sender, connections) = mpsc::channel(100);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let backend = Backend::start(stream).await;
                if let Some(backend) = backend.filter(|backend| !backend.startup.starts_with(&CANCEL_REQUEST)) {
                    // A test that does not want it drops it.
                    let _ = sender.send(backend).await;
                }
            }
        });
        Self { connections: Mutex::new(connections), _accepting: accepting }
    }

    /// The proxy's next connection, after its start-up packet.
    pub async fn connection(&self) -> Backend {
        let mut connections = self.connections.lock().await;
        timeout(DEADLINE, connections.recv()).await.expect("the proxy connects in time").expect("a connection")
    }

    /// The proxy's next connection, logged in as PostgreSQL would.
    pub async fn session(&self) -> Backend {
        let mut backend = self.connection().await;
        backend.say(ASK).await;
        assert_eq!(backend.hear().await.tag, b'p');
        backend.say(WELCOME).await;
        backend
    }
}

impl Backend {
    /// Reads the start-up packet or the cancel; `None` when the proxy leaves before that.
    async fn start(mut stream: TcpStream) -> Option<Self> {
        let length = stream.read_u32().await.ok()?;
        let mut startup = vec![0; usize::try_from(length).ok()?.checked_sub(4)?];
        stream.read_exact(&mut startup).await.ok()?;
        Some(Self { stream, startup })
    }

    /// Says something. That nobody listens any more is fine.
    pub async fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The proxy's next message.
    pub async fn hear(&mut self) -> Message {
        wire::read(&mut self.stream).await.expect("the proxy says something")
    }

    /// Everything that the proxy still says; it has to close.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = timeout(DEADLINE, self.stream.read_to_end(&mut rest)).await.expect("the proxy closes");
        rest
    }
}

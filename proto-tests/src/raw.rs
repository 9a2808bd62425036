//! A session that knows its own cancel key, one Query at a time, and cancels as libpq sends them.

use crate::chain::Chain;
use crate::psql::Login;
use crate::wire::{self, Message};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// `CancelRequest`'s code (PostgreSQL, "Message Formats").
const CANCEL_REQUEST: u32 = 80_877_102;
/// How long a statement may take to show up in `pg_stat_activity`.
const PATIENCE: Duration = Duration::from_secs(10);

/// A logged-in session.
#[derive(Debug)]
pub struct Raw {
    /// After `ReadyForQuery`.
    pub stream: TlsStream<TcpStream>,
    /// What a cancel must name.
    pub key: Key,
}

/// Process id and secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The server's process id.
    pub pid: u32,
    /// The proxy's secret.
    pub secret: Vec<u8>,
}

impl Raw {
    /// Logs in.
    pub async fn log_in(chain: &Chain, login: &Login) -> Self {
        Self::log_in_with(chain, login, &[]).await
    }

    /// Logs in with further start-up parameters.
    pub async fn log_in_with(chain: &Chain, login: &Login, more: &[(&[u8], &[u8])]) -> Self {
        let mut stream = chain.tls().await.expect("TLS");
        let own = [(b"user".as_slice(), login.user.as_bytes()), (b"database", login.database.as_bytes())];
        let greeting = wire::greet(&mut stream, &[&own, more].concat(), &login.password).await.expect("an answer");
        let key = greeting.iter().find(|message| message.tag == b'K');
        let key = key.unwrap_or_else(|| panic!("logged in, not {:?}", greeting.last()));
        let (pid, secret) = key.body.split_first_chunk().expect("a process id");
        Self { stream, key: Key { pid: u32::from_be_bytes(*pid), secret: secret.to_vec() } }
    }

    /// Sends a Query.
    pub async fn send(&mut self, statement: &str) {
        self.stream.write_all(&wire::message(b'Q', &wire::text(statement))).await.expect("sent");
    }

    /// Everything up to `ReadyForQuery`: the SQLSTATE of the error on the way, if there was one.
    pub async fn answer(&mut self) -> Result<Vec<Message>, String> {
        let (mut messages, mut failed) = (Vec::new(), None);
        loop {
            let message = wire::read(&mut self.stream).await.expect("an answer");
            match message.tag {
                b'E' => failed = Some(message.sqlstate()),
                b'Z' => return failed.map_or(Ok(messages), Err),
                _ => messages.push(message),
            }
        }
    }

    /// Sends a Query and waits for its answer.
    pub async fn query(&mut self, statement: &str) -> Result<Vec<Message>, String> {
        self.send(statement).await;
        self.answer().await
    }
}

impl Key {
    /// The request, as libpq sends it.
    pub fn request(&self) -> Vec<u8> {
        let length = u32::try_from(self.secret.len() + 12).expect("a short secret");
        let words = [length, CANCEL_REQUEST, self.pid].map(u32::to_be_bytes).concat();
        [words, self.secret.clone()].concat()
    }

    /// Cancels on this stream and waits until it is closed, as libpq does.
    pub async fn cancel(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        stream.write_all(&self.request()).await.expect("the cancel is sent");
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(wire::DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "the cancel's connection stays open");
        assert!(answer.is_empty(), "a cancel is answered with nothing but a close, not {answer:?}");
    }
}

/// Waits until the database runs this statement, tag or not, in a session of the same user.
pub async fn until_it_runs(observer: &mut Raw, statement: &str) {
    let active = format!(
        "do $$ begin if not exists (select from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() \
         and strpos(query, '{statement}') > 0) then raise 'not yet'; end if; end $$"
    );
    let deadline = Instant::now() + PATIENCE;
    while observer.query(&active).await.is_err() {
        assert!(Instant::now() < deadline, "{statement} does not run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

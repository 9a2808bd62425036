//! Fuzz target: whatever a server says during the login.

#![allow(clippy::missing_panics_doc, clippy::panic, reason = "a target's panic is its finding")]

use super::login::{Greeting, converse};
use super::{LoginRequest, MAX_GREETING, MAX_STARTUP_MESSAGE};
use crate::cloudsql::LoginMethod;
use crate::fuzzing::Choices;
use crate::names::{DatabaseName, RoleName};
use crate::secret::Secret;
use crate::wire::{HEADER_BYTES, Header, Initial, append};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const TOKEN: &str = "ya29.a-login-token";

/// The token leaves in answer to one request for a cleartext password and to nothing else, once, and never where the
/// certificate carries it. A session begins only where the server has seen proof, right behind `ReadyForQuery`; what
/// the client will be told are whole parameters and notices. What the client set stands in the start-up packet as it
/// was, and changes neither user nor database.
pub fn server_login(data: &[u8]) {
    let mut choices = Choices::new(data);
    let in_certificate = choices.byte() % 2 == 1;
    let parameters: Vec<_> =
        (0..choices.byte() % 4).map(|_| (choices.short().to_vec(), choices.short().to_vec())).collect();
    let script = choices.rest();
    let (Ok(role), Ok(database)) = (RoleName::parse("analyst"), DatabaseName::parse("orders")) else { return };
    let password = Secret::new(TOKEN.to_owned());
    let request = LoginRequest { role: &role, database: &database, parameters: &parameters, password: &password };
    let method = if in_certificate { LoginMethod::TokenInCertificate } else { LoginMethod::TokenAsPassword };
    let mut server = Server { script, sent: Vec::new() };
    let outcome = ready(converse(&mut server, method, &request));
    let Server { script: unread, sent } = server;
    let read = script.get(..script.len() - unread.len()).unwrap_or_default();

    let asked = first_question(read) == Some((b'R', &[0, 0, 0, 3]));
    let answers = check_start(&sent, &parameters);
    let mut password = Vec::new();
    append(&mut password, b'p', &[TOKEN.as_bytes(), &[0]].concat());
    assert!(answers.is_empty() || (answers == password && asked && !in_certificate), "the token left unasked");

    let Ok(Greeting { frames, key, status }) = outcome else { return };
    assert!(in_certificate != (answers == password), "a session without proof");
    assert_eq!((key.secret.len(), status), (4, b'I'));
    assert!(read.ends_with(b"Z\0\0\0\x05I"), "bytes behind the greeting were taken");
    assert!(frames.len() <= MAX_GREETING);
    let told = messages(&frames);
    assert_eq!(told.iter().map(|(_, body)| body.len() + HEADER_BYTES).sum::<usize>(), frames.len());
    let sent = messages(read).into_iter().filter(|(kind, _)| matches!(kind, b'S' | b'N')).collect::<Vec<_>>();
    assert_eq!(told, sent);
}

/// What follows the start-up packet, which must be ours.
fn check_start<'s>(sent: &'s [u8], parameters: &[(Vec<u8>, Vec<u8>)]) -> &'s [u8] {
    let Some(length) = sent.first_chunk().map(|length| u32::from_be_bytes(*length) as usize) else { return sent };
    let (packet, answers) = sent.split_at_checked(length).unwrap_or((sent, &[]));
    let start = Initial::decode(packet.get(4..).unwrap_or_default());
    let Ok(Initial::Startup(start)) = start else { panic!("what was sent is no start-up packet: {start:?}") };
    let named = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
    let ours = vec![named(b"user", b"analyst"), named(b"database", b"orders")];
    assert_eq!(start.parameters, [ours, parameters.to_vec()].concat());
    answers
}

/// The first message that is no notice: its type and body.
fn first_question(read: &[u8]) -> Option<(u8, &[u8])> {
    messages(read).into_iter().find(|(kind, _)| *kind != b'N')
}

fn messages(mut rest: &[u8]) -> Vec<(u8, &[u8])> {
    let mut messages = Vec::new();
    while let Ok(Some(header)) = Header::decode(rest) {
        let Some((frame, after)) = rest.split_at_checked(header.frame()) else { break };
        assert!(header.body <= MAX_STARTUP_MESSAGE, "a message of {} bytes was read", header.body);
        messages.push((header.kind, frame.get(HEADER_BYTES..).unwrap_or_default()));
        rest = after;
    }
    messages
}

/// A server that says what it has to say, whatever it hears, and closes.
struct Server<'a> {
    script: &'a [u8],
    sent: Vec<u8>,
}

impl AsyncRead for Server<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.script.split_at(self.script.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.script = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a future over bytes in memory comes to.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits for something that is not there"),
    }
}

#[cfg(test)]
mod tests {
    use crate::fuzzing::corpus::replay;

    #[test]
    fn server_login() {
        replay("server_login", super::server_login);
    }
}

//! A raw session as a script: what is sent, what is waited for, and everything that came back. The same script runs
//! through the proxy and directly against PostgreSQL, where no answer may differ by a byte.

use crate::chain::Chain;
use crate::psql::Login;
use crate::wire::{self, Message};
use pgpassport::sim::world;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

/// How long a whole script may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Ends every script: the server works through what came before it, and closes.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// One step.
#[derive(Debug, Clone)]
pub enum Step {
    /// These bytes, in one write.
    Send(Vec<u8>),
    /// Read up to and with a message of this type.
    Until(u8),
    /// Close the sending half, without a Terminate: the last step.
    Shut,
}

/// Bytes to send.
pub fn send(parts: &[Vec<u8>]) -> Step {
    Step::Send(parts.concat())
}

/// The answers to a script, the last ones after its Terminate.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, script: &[Step]) -> Vec<Message> {
    let answers = async {
        let mut answers = Vec::new();
        for step in script {
            match step {
                Step::Send(bytes) => {
                    // A server that has had enough closes; what it said is read below.
                    let _ = stream.write_all(bytes).await;
                    let _ = stream.flush().await;
                }
                Step::Until(tag) => loop {
                    let Ok(message) = wire::read(stream).await else {
                        panic!("no {:?}: {answers:?}", char::from(*tag))
                    };
                    let last = message.tag == *tag;
                    answers.push(message);
                    if last {
                        break;
                    }
                },
                Step::Shut => {
                    let _ = stream.shutdown().await;
                    answers.extend(to_end(stream).await);
                    return answers;
                }
            }
        }
        let _ = stream.write_all(TERMINATE).await;
        let _ = stream.flush().await;
        answers.extend(to_end(stream).await);
        answers
    };
    tokio::time::timeout(DEADLINE, answers).await.unwrap_or_else(|_| panic!("no end of {script:?}"))
}

/// Whole messages up to the end of the stream.
pub async fn to_end<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<Message> {
    let mut bytes = Vec::new();
    // Without a `close_notify` the end is an error; what came before it counts.
    let _ = stream.read_to_end(&mut bytes).await;
    let (mut rest, mut messages) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        messages.push(wire::read(&mut rest).await.expect("a stream ends between two messages"));
    }
    messages
}

/// Runs a script through the proxy, as this caller.
pub async fn through(chain: &Chain, login: &Login, script: &[Step]) -> Vec<Message> {
    run(&mut chain.session(login).await, script).await
}

/// Runs a script through the proxy and directly, both as the analyst: no answer differs. Returns the answers.
pub async fn same(chain: &Chain, script: &[Step]) -> Vec<Message> {
    let proxied = through(chain, &chain.person(), script).await;
    let mut direct = direct(chain).await;
    let direct = run(&mut direct, script).await;
    alike(&proxied, &direct);
    proxied
}

/// No answer differs by a byte.
#[track_caller]
pub fn alike(proxied: &[Message], direct: &[Message]) {
    let show = |messages: &[Message]| {
        let body = |message: &Message| message.body.escape_ascii().to_string().chars().take(300).collect::<String>();
        messages.iter().map(|message| format!("{} {}", char::from(message.tag), body(message))).collect::<Vec<_>>()
    };
    assert_eq!(show(proxied), show(direct), "through the proxy on the left, directly on the right");
    let bodies = |messages: &[Message]| messages.iter().map(|message| message.body.clone()).collect::<Vec<_>>();
    assert!(bodies(proxied) == bodies(direct), "a long answer differs past its start");
}

/// Each session has a schema of its own for what is temporary, which messages name by its number.
pub fn without_numbers(message: &Message) -> String {
    let mut parts = [&[message.tag], message.body.as_slice()].concat().escape_ascii().to_string();
    while let Some((before, after)) = parts.split_once("pg_temp_") {
        parts = format!("{before}pg_temp{}", after.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    parts
}

/// A session of the analyst at PostgreSQL itself.
pub async fn direct(chain: &Chain) -> UnixStream {
    direct_as(chain, world::ANALYST.upn).await
}

/// Somebody's session at PostgreSQL itself.
pub async fn direct_as(chain: &Chain, user: &str) -> UnixStream {
    let mut stream = UnixStream::connect(chain.cloud.postgres_socket()).await.expect("PostgreSQL's socket");
    let last = wire::log_in(&mut stream, user.as_bytes(), world::DATABASE.as_bytes(), "").await;
    let last = last.expect("PostgreSQL answers");
    assert_eq!(last.tag, b'Z', "{last:?}");
    stream
}

/// The types of messages, in a row.
pub fn types(messages: &[Message]) -> String {
    messages.iter().map(|message| char::from(message.tag)).collect()
}

/// `Query`.
pub fn query(text: &str) -> Vec<u8> {
    wire::message(b'Q', &wire::text(text))
}

/// `Parse` without parameter types.
pub fn parse(name: &str, text: &str) -> Vec<u8> {
    wire::message(b'P', &[wire::text(name), wire::text(text), vec![0, 0]].concat())
}

/// `Bind` without parameters, results as text.
pub fn bind(portal: &str, statement: &str) -> Vec<u8> {
    wire::message(b'B', &[wire::text(portal), wire::text(statement), vec![0; 6]].concat())
}

/// `Execute` without a limit of rows.
pub fn execute(portal: &str) -> Vec<u8> {
    wire::message(b'E', &[wire::text(portal), vec![0; 4]].concat())
}

/// `Describe` of a statement.
pub fn describe(statement: &str) -> Vec<u8> {
    wire::message(b'D', &[b"S".to_vec(), wire::text(statement)].concat())
}

/// `Sync`.
pub fn sync() -> Vec<u8> {
    wire::message(b'S', &[])
}

/// `Flush`.
pub fn flush() -> Vec<u8> {
    wire::message(b'H', &[])
}

//! A server's answers in short, so that a test's exchange reads as a transcript: `["1", "2", "C COMMIT", "Z I"]`.
//!
//! Each answer that is read this way is checked: what the proxy sends in place of a refused message is never seen.

use crate::wire::{self, Message};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Sends and reads up to `ReadyForQuery`.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, messages: &[Vec<u8>]) -> Vec<String> {
    ask_with(stream, messages, |_| ()).await
}

/// The same; `error` is shown each error message, to check more of it than its SQLSTATE.
pub async fn ask_with<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    messages: &[Vec<u8>],
    error: fn(&Message),
) -> Vec<String> {
    stream.write_all(&messages.concat()).await.expect("sent");
    stream.flush().await.expect("sent");
    until_with(stream, b'Z', error).await
}

/// Reads up to and with a message of this type.
pub async fn until<S: AsyncRead + Unpin>(stream: &mut S, last: u8) -> Vec<String> {
    until_with(stream, last, |_| ()).await
}

/// The same; `error` is shown each error message.
pub async fn until_with<S: AsyncRead + Unpin>(stream: &mut S, last: u8, error: fn(&Message)) -> Vec<String> {
    let mut answers = Vec::new();
    loop {
        let answer = wire::read(stream).await.expect("an answer");
        if answer.tag == b'E' {
            error(&answer);
        }
        answers.push(short(&answer));
        if answer.tag == last {
            return answers;
        }
    }
}

/// Errors as `E SQLSTATE`, completions and statuses with their text, others as their letter.
pub fn short(answer: &Message) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    assert!(!body.contains("refused by pgpassport"), "the client sees what must fail at the server: {body}");
    match answer.tag {
        b'E' => format!("E {}", answer.sqlstate()),
        b'C' | b'Z' => format!("{} {}", char::from(answer.tag), body.trim_end_matches('\0')),
        tag => char::from(tag).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tag: u8, body: &[u8]) -> Message {
        Message { tag, body: body.to_vec() }
    }

    #[test]
    fn an_answer_says_what_tests_compare_and_no_more() {
        for (tag, body, expected) in [
            (b'E', &b"SERROR\0C53100\0Mno room\0\0"[..], "E 53100"),
            (b'C', b"INSERT 0 1\0", "C INSERT 0 1"),
            (b'Z', b"T", "Z T"),
            (b'D', b"\0\0", "D"),
        ] {
            assert_eq!(short(&answer(tag, body)), expected);
        }
    }

    #[test]
    #[should_panic(expected = "must fail at the server")]
    fn what_stands_in_for_a_refused_message_is_never_an_answer() {
        short(&answer(b'E', b"SERROR\0C42601\0Msyntax error at or near \"refused by pgpassport\"\0\0"));
    }

    #[tokio::test]
    #[should_panic(expected = "shown: 42601")]
    async fn each_error_on_the_way_is_shown() {
        let bytes = [wire::message(b'E', b"C42601\0\0"), wire::message(b'Z', b"I")].concat();
        until_with(&mut bytes.as_slice(), b'Z', |error| panic!("shown: {}", error.sqlstate())).await;
    }
}

//! Fuzz targets: what a client claims before it is anybody, and the message with its token.

#![allow(clippy::missing_panics_doc, clippy::panic, reason = "a target's panic is its finding")]

use super::MAX_TOKEN;
use super::negotiate::{Claims, packet, token};
use crate::fuzzing::Choices;
use crate::names::MAX_IDENTIFIER_BYTES;
use crate::wire::{HEADER_BYTES, Initial, MAX_STARTUP_PACKET, Purpose};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// `parse_bool`'s words for false (`src/backend/utils/adt/bool.c`), every abbreviation written out.
const FALSE: [&[u8]; 10] = [b"0", b"f", b"fa", b"fal", b"fals", b"false", b"n", b"no", b"of", b"off"];

/// A packet takes exactly the bytes that its length says, at most PostgreSQL's own limit. Claims that are accepted are
/// names that PostgreSQL keeps as they are and that cannot forge a line; nothing that is the proxy's to set passes on,
/// and everything else of the packet does, in its order and byte for byte.
pub fn claims(data: &[u8]) {
    let mut stream = data;
    let decoded = ready(packet(&mut stream));
    let taken = data.len() - stream.len();
    assert!(taken <= 4 + MAX_STARTUP_PACKET);
    let Some(Ok(Initial::Startup(startup))) = decoded else { return };
    assert_eq!(data.first_chunk().map(|length| u32::from_be_bytes(*length) as usize), Some(taken));
    let Ok(Claims { user, database, purpose, parameters }) = Claims::check(&startup) else { return };
    for name in [&user, &database] {
        assert!((1..=MAX_IDENTIFIER_BYTES).contains(&name.len()) && !name.chars().any(char::is_control), "{name:?}");
    }
    assert_eq!(startup.get("user"), Some(user.as_bytes()));
    let named = startup.get("database").filter(|name| !name.is_empty());
    assert_eq!(named.unwrap_or(user.as_bytes()), database.as_bytes());
    let asks = |value: &[u8]| !FALSE.contains(&value.to_ascii_lowercase().as_slice());
    let replicates = startup.get("replication").is_some_and(asks);
    assert_eq!(purpose == Purpose::Replication, replicates, "what is not certainly false asks for replication");
    let ours = |name: &[u8]| {
        matches!(name, b"user" | b"database") || (name == b"replication" && !replicates) || name.starts_with(b"_pq_.")
    };
    let theirs = startup.parameters.into_iter().filter(|(name, _)| !ours(name)).collect::<Vec<_>>();
    assert!(theirs.iter().all(|(name, _)| name.len() <= MAX_IDENTIFIER_BYTES && name.iter().all(u8::is_ascii_graphic)));
    assert_eq!(parameters, theirs);
}

/// A token is what stands between a `p` message's header and its one NUL, no more and no less; whatever its length
/// says, no byte behind the message is taken and nothing longer than a token is waited for.
pub fn bearer(data: &[u8]) {
    let mut choices = Choices::new(data);
    // A token of a length that no input of a few bytes could reach.
    let padding = usize::from(choices.byte()) * 258;
    let message = choices.rest();
    let padded = padding > 0 && message.len() > HEADER_BYTES;
    let bytes = if padded { with_padding(message, padding) } else { message.to_vec() };
    let mut stream = bytes.as_slice();
    let outcome = ready(token(&mut stream));
    let taken = bytes.len() - stream.len();
    assert!(taken <= HEADER_BYTES + MAX_TOKEN + 1);
    let Some(Ok(accepted)) = outcome else { return };
    let accepted = accepted.expose().as_bytes();
    let mut message = vec![b'p'];
    message.extend_from_slice(&u32::try_from(accepted.len() + 5).unwrap_or_default().to_be_bytes());
    message.extend_from_slice(accepted);
    message.push(0);
    assert_eq!(bytes.get(..taken), Some(message.as_slice()));
    assert!((1..=MAX_TOKEN).contains(&accepted.len()) && !accepted.contains(&0));
    let shorter = message.split_last().map_or([].as_slice(), |(_, shorter)| shorter);
    assert!(matches!(ready(token(&mut &*shorter)), Some(Err(_))), "a token that is not all there");
}

/// The same message with `count` more letters in it, its length made right.
fn with_padding(message: &[u8], count: usize) -> Vec<u8> {
    let (kind, rest) = message.split_at(1);
    let (length, body) = rest.split_at(4);
    let length = length.iter().fold(0_u32, |length, byte| length << 8 | u32::from(*byte));
    let length = length.saturating_add(u32::try_from(count).unwrap_or_default());
    [kind, &length.to_be_bytes(), &vec![b'A'; count], body].concat()
}

/// What a future over bytes in memory comes to; `None` would be one that waits.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::fuzzing::corpus::replay;

    #[test]
    fn claims() {
        replay("claims", super::claims);
    }

    #[test]
    fn bearer() {
        replay("bearer", super::bearer);
    }
}

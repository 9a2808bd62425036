//! A session that holds as many names as it may.

use super::*;
use crate::relay::tracker::MAX_REMEMBERED;

const BIND: &[u8] = b"\0\0\0\0\0\0";

/// Statements that were parsed and answered, up to the limit.
fn full() -> Client {
    let mut client = Client::new(Tag::none());
    for n in 0..MAX_REMEMBERED {
        client.tracker.parse(format!("s{n}").as_bytes(), b"", 0, 10, Instant::now());
        client.server(b'1', b"");
    }
    client
}

impl Client {
    fn server(&mut self, kind: u8, body: &[u8]) {
        self.tracker.server(kind, body, 10, Instant::now()).unwrap();
    }

    /// Whether this message leaves as it is.
    fn passes(&mut self, kind: u8, body: &[u8]) -> bool {
        let message = frame(kind, body);
        self.send(&message).0 == message
    }
}

#[test]
fn a_name_too_many_is_refused_and_the_unnamed_one_is_not() {
    let mut client = full();
    assert!(!client.passes(b'P', b"one more\0select 1\0\0\0"), "a statement");
    assert_eq!(client.side.take_missed().refused, BTreeMap::from([(Refusal::Overfull, 1)]));
    assert!(!client.passes(b'B', &[b"one more\0s7\0", BIND].concat()), "a portal");
    client.tracker.server_refused("54000", Instant::now());
    assert!(client.passes(b'S', b""));
    client.server(b'Z', b"I");
    assert!(client.passes(b'P', b"\0deallocate all\0\0\0") && client.passes(b'B', &[b"\0\0", BIND].concat()));
    assert!(client.passes(b'E', b"\0\0\0\0\0") && client.passes(b'S', b""));
    for (kind, body) in [(b'1', b"".as_slice()), (b'2', b""), (b'C', b"DEALLOCATE ALL\0"), (b'Z', b"I")] {
        client.server(kind, body);
    }
    assert!(client.passes(b'P', b"one more\0select 1\0\0\0"), "there is room again");
}

#[test]
fn a_close_makes_room_for_one_once_it_is_answered() {
    let mut client = full();
    // The unnamed one is no name.
    assert!(client.passes(b'P', b"\0select 1\0\0\0"));
    client.server(b'1', b"");
    assert!(client.passes(b'C', b"Ss7\0"));
    client.server(b'3', b"");
    assert!(client.passes(b'P', b"s7\0select 1\0\0\0"));
    assert!(!client.passes(b'P', b"one more\0select 1\0\0\0"));
}

//! A script from bytes: most bytes are a whole message of either side, so that a random input is a conversation.

use super::{Script, Side};
use crate::fuzzing::Choices;
use crate::wire::append;

/// Messages of a client: type and body.
const CLIENT: [(u8, &[u8]); 26] = [
    (b'Q', b"SELECT 1\0"),
    (b'Q', b"SELECT 1; SELECT 2\0"),
    (b'Q', b"\0"),
    (b'Q', b"SELECT 1\0DROP TABLE orders\0"),
    (b'P', b"\0SELECT $1\0\0\0"),
    (b'P', b"a\0SELECT 2\0\0\x01\0\0\0\x17"),
    (b'P', b"b\0\0\0\0"),
    (b'P', b"a\0SELECT 2\0behind\0\0\0"),
    (b'B', b"\0\0\0\0\0\0\0\0"),
    (b'B', b"\0a\0\0\0\0\0\0\0"),
    (b'B', b"p\0a\0\0\0\0\0\0\0"),
    (b'B', b"p\0b\0\0\0\0\0\0\0"),
    (b'E', b"\0\0\0\0\0"),
    (b'E', b"p\0\0\0\0\x01"),
    (b'D', b"Sa\0"),
    (b'D', b"P\0"),
    (b'C', b"Sa\0"),
    (b'C', b"Pp\0"),
    (b'S', b""),
    (b'H', b""),
    (b'H', b"x"),
    (b'd', b"1\n"),
    (b'c', b""),
    (b'f', b"no\0"),
    (b'F', b"\0\0\0\x09\0\0\0\0\0\0"),
    (b'X', b""),
];

/// Messages of a server.
const SERVER: [(u8, &[u8]); 30] = [
    (b'1', b""),
    (b'2', b""),
    (b'3', b""),
    (b'n', b""),
    (b't', b"\0\0"),
    (b'T', b"\0\0"),
    (b'D', b"\0\0"),
    (b'C', b"SELECT 1\0"),
    (b'C', b"INSERT 0 5\0"),
    (b'C', b"COPY 2\0"),
    (b'C', b"PREPARE\0"),
    (b'C', b"DEALLOCATE ALL\0"),
    (b'C', b"DECLARE CURSOR\0"),
    (b'C', b"DISCARD ALL\0"),
    (b'I', b""),
    (b's', b""),
    (b'Z', b"I"),
    (b'Z', b"T"),
    (b'Z', b"E"),
    (b'E', b"SERROR\0VERROR\0C42601\0Msyntax error\0P240\0\0"),
    (b'E', b"SERROR\0C57014\0Mcanceling statement\0\0"),
    (b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating\0\0"),
    (b'E', b"\0"),
    (b'N', b"SNOTICE\0VNOTICE\0C00000\0Mnotice\0P250\0\0"),
    (b'S', b"TimeZone\0UTC\0"),
    (b'A', b"\0\0\0\x07channel\0payload\0"),
    (b'G', b"\0\0\0"),
    (b'H', b"\0\0\0"),
    (b'd', b"1\n"),
    (b'V', b"\xff\xff\xff\xff"),
];

/// Reads a script: 0 and 1 are any bytes of the client or the server, behind a length of two bytes; 2 is a long
/// statement; anything else is one of the messages above.
pub(super) fn script(mut choices: Choices<'_>) -> Script {
    let mut script = Script::new();
    while !choices.is_empty() {
        let number = choices.byte();
        let (side, bytes) = match number {
            0 | 1 => {
                let length = usize::from(choices.byte()) << 8 | usize::from(choices.byte());
                let side = if number == 0 { Side::Client } else { Side::Server };
                (side, choices.bytes(length).to_vec())
            }
            2 => {
                let text = vec![b'x'; usize::from(choices.byte()) * 512];
                (Side::Client, message(b'Q', &[text, vec![0]].concat()))
            }
            number => canned(usize::from(number) - 3),
        };
        match script.last_mut() {
            // What one side sends in a row may come in one read.
            Some((last, before)) if *last == side => before.extend_from_slice(&bytes),
            _ => script.push((side, bytes)),
        }
    }
    script
}

fn canned(number: usize) -> (Side, Vec<u8>) {
    let number = number % (CLIENT.len() + SERVER.len());
    let own = CLIENT.get(number).map(|message| (Side::Client, message));
    let theirs = SERVER.get(number.wrapping_sub(CLIENT.len())).map(|message| (Side::Server, message));
    let (side, (kind, body)) = own.or(theirs).unwrap_or((Side::Client, &(b'S', b"")));
    (side, message(*kind, body))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, kind, body);
    out
}

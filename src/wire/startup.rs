//! The packets before authentication: requests for encryption, cancels, and the start-up packet.
//!
//! Strict: names that PostgreSQL would truncate or that could forge a log line are refused
//! (`ProcessStartupPacket`, `src/backend/tcop/backend_startup.c` in PostgreSQL 18).

use super::{Malformed, Reader};

/// PostgreSQL's own limit of a start-up packet, in bytes (`MAX_STARTUP_PACKET_LENGTH`, `pqcomm.h`).
pub const MAX_STARTUP_PACKET: usize = 10_000;
/// Request code of `SSLRequest`.
pub const SSL_REQUEST: u32 = 80_877_103;
/// An `SSLRequest` as clients send it: its length and its code.
pub const SSL_REQUEST_PACKET: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Request code of `GSSENCRequest`.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// Request code of `CancelRequest`.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol version 3.0.
pub const PROTOCOL_3_0: u32 = 196_608;
/// The newest minor version of protocol 3 that there is: 3.2, since PostgreSQL 18 (`PG_PROTOCOL_LATEST`, `pqcomm.h`).
pub const NEWEST_MINOR: u16 = 2;
/// Bytes of a cancel key's secret, the shortest and the longest (PostgreSQL documentation, "Message Formats",
/// `BackendKeyData`).
const CANCEL_SECRET_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// What a session is for, as `replication` of its start-up packet asks (`ProcessStartupPacket`,
/// `src/backend/tcop/backend_startup.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// SQL, by either protocol.
    #[default]
    Statements,
    /// A walsender: its commands, and SQL too with `replication=database`.
    Replication,
}

/// Start-up parameters in order: names and values as bytes without NUL.
pub type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

/// What a client may send first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Initial {
    /// It wants TLS.
    Ssl,
    /// It wants GSSAPI encryption.
    GssEnc,
    /// It wants another session's statement cancelled.
    Cancel {
        /// That session's process id.
        pid: u32,
        /// That session's secret: 4 bytes, or up to 256 on protocol 3.2.
        secret: Vec<u8>,
    },
    /// It wants a session.
    Startup(StartupPacket),
    /// A protocol major version that is not 3.
    Version(u32),
}

/// A start-up packet, decoded. Names and values are bytes without NUL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StartupPacket {
    /// Minor version asked for (`0` for 3.0).
    pub minor: u16,
    /// Parameters in order, `user` and `database` included.
    pub parameters: Parameters,
}

impl Initial {
    /// Decodes the bytes after the length word.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        match reader.u32()? {
            SSL_REQUEST => reader.finish().map(|()| Self::Ssl),
            GSSENC_REQUEST => reader.finish().map(|()| Self::GssEnc),
            CANCEL_REQUEST => {
                let pid = reader.u32()?;
                let secret = reader.rest();
                if CANCEL_SECRET_BYTES.contains(&secret.len()) {
                    Ok(Self::Cancel { pid, secret: secret.to_vec() })
                } else {
                    Err(Malformed)
                }
            }
            version if version >> 16 == 3 => {
                let minor = u16::try_from(version & 0xffff).map_err(|_| Malformed)?;
                Ok(Self::Startup(StartupPacket { minor, parameters: parameters(reader)? }))
            }
            version => Ok(Self::Version(version)),
        }
    }
}

impl StartupPacket {
    /// The value of a parameter; the last one counts, as in PostgreSQL.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().rev().find(|(n, _)| n == name.as_bytes()).map(|(_, value)| value.as_slice())
    }
}

/// The version that is spoken with a client that asked for this minor one: never a newer one than it asked for.
pub fn negotiated_minor(asked: u16) -> u16 {
    asked.min(NEWEST_MINOR)
}

/// Bytes of the secret that a client of this minor version is given, as PostgreSQL 18 does: 4 up to 3.1 (which nobody
/// ever spoke), 32 on 3.2 (`MAX_CANCEL_KEY_LENGTH`, `src/include/storage/procsignal.h`).
pub fn cancel_secret_bytes(minor: u16) -> usize {
    if minor >= 2 { 32 } else { 4 }
}

/// Name and value pairs up to the terminator, which must be the packet's last byte.
fn parameters(mut reader: Reader<'_>) -> Result<Parameters, Malformed> {
    let mut parameters = Vec::new();
    loop {
        let name = reader.cstr()?;
        if name.is_empty() {
            reader.finish()?;
            return Ok(parameters);
        }
        parameters.push((name.to_vec(), reader.cstr()?.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes(), rest].concat()
    }

    #[test]
    fn each_request_is_told_from_the_others() {
        assert_eq!(Initial::decode(&packet(SSL_REQUEST, b"")), Ok(Initial::Ssl));
        assert_eq!(Initial::decode(&packet(GSSENC_REQUEST, b"")), Ok(Initial::GssEnc));
        assert_eq!(
            Initial::decode(&packet(CANCEL_REQUEST, &[0, 0, 0, 7, 1, 2, 3, 4])),
            Ok(Initial::Cancel { pid: 7, secret: vec![1, 2, 3, 4] })
        );
        assert_eq!(Initial::decode(&packet(2 << 16, b"")), Ok(Initial::Version(2 << 16)));
    }

    #[test]
    fn a_start_up_packet_ends_exactly_at_its_terminator() {
        let good = packet(PROTOCOL_3_0, b"user\0analyst\0database\0orders\0\0");
        let Ok(Initial::Startup(startup)) = Initial::decode(&good) else { panic!("is a start-up packet") };
        assert_eq!(startup.get("database"), Some(b"orders".as_slice()));
        for bad in [b"user\0analyst\0".as_slice(), b"user\0analyst\0\0x", b"user\0analyst", b"", b"user\0\0database"] {
            assert_eq!(Initial::decode(&packet(PROTOCOL_3_0, bad)), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn cancel_keys_have_four_to_256_bytes() {
        for length in [0, 3, 257] {
            let body = packet(CANCEL_REQUEST, &[&[0, 0, 0, 1], vec![9; length].as_slice()].concat());
            assert_eq!(Initial::decode(&body), Err(Malformed));
        }
    }
}

//! The PROXY protocol's header, version 2, in which a balancer says who is behind it.
//!
//! It is read from trusted balancers only: whoever writes it decides whose address is recorded. Reads are exact, so
//! that what follows the header is the client's. Specification: haproxy.org, `doc/proxy-protocol.txt`, section 2.2.

use super::{Error, ProxyProtocol};
use ::proxy_header::{ParseConfig, Protocol, ProxyHeader};
use std::net::SocketAddr;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The signature, and what no start-up of PostgreSQL begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes up to and with the length.
const HEAD_BYTES: usize = 16;
/// The most bytes of addresses and TLVs. The addresses take at most 36; TLVs are skipped.
const MAX_BODY_BYTES: usize = 4096;
/// Version 2, command LOCAL: the balancer's own connection, a health check for instance.
const LOCAL: u8 = 0x20;
/// First byte of a version 1 header (`PROXY `); as a length it is beyond every start-up packet.
const VERSION_1: u8 = b'P';

/// Reads the header, if one is to be read: the client's address; `None` where it is the balancer itself.
pub(super) async fn read(socket: &mut TcpStream, expected: ProxyProtocol) -> Result<Option<SocketAddr>, Error> {
    if expected == ProxyProtocol::Off {
        return Ok(None);
    }
    let mut first = [0];
    if socket.peek(&mut first).await.map_err(Error::Gone)? == 0 {
        return Err(Error::Gone(std::io::ErrorKind::UnexpectedEof.into()));
    }
    match (first, expected) {
        ([b'\r'], _) => header(socket).await,
        ([VERSION_1], _) => Err(Error::ProxyHeader("it has version 1 (text), and only version 2 (binary) is read")),
        (_, ProxyProtocol::Required) => Err(Error::ProxyHeader("there is none")),
        _ => Ok(None),
    }
}

async fn header(socket: &mut (impl AsyncReadExt + Unpin)) -> Result<Option<SocketAddr>, Error> {
    let mut bytes = vec![0; HEAD_BYTES];
    socket.read_exact(&mut bytes).await.map_err(Error::Gone)?;
    let (command, length) = match bytes.strip_prefix(SIGNATURE) {
        Some(&[command, _, high, low]) => (command, usize::from(u16::from_be_bytes([high, low]))),
        _ => return Err(Error::ProxyHeader("its signature is wrong")),
    };
    if length > MAX_BODY_BYTES {
        return Err(Error::ProxyHeader("it is too long"));
    }
    bytes.resize(HEAD_BYTES.saturating_add(length), 0);
    let body = bytes.get_mut(HEAD_BYTES..).unwrap_or_default();
    socket.read_exact(body).await.map_err(Error::Gone)?;
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    match ProxyHeader::parse(&bytes, config) {
        Ok((_, read)) if read != bytes.len() => Err(Error::ProxyHeader("it is malformed")),
        Ok(_) if command == LOCAL => Ok(None),
        Ok((header, _)) => match header.proxied_address() {
            Some(client) if client.protocol == Protocol::Stream => Ok(Some(client.source)),
            // Without an address nobody could be limited or recorded.
            _ => Err(Error::ProxyHeader("it names no client of TCP over IPv4 or IPv6")),
        },
        Err(_) => Err(Error::ProxyHeader("it is malformed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// A header with this command, family and body; the length is the body's.
    pub(in crate::frontend) fn bytes(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    const IPV4: &[u8] = &[203, 0, 113, 7, 10, 0, 0, 1, 0xc0, 0x01, 0x15, 0x38];

    fn ipv6() -> Vec<u8> {
        let address: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
        [address.octets().as_slice(), &address.octets(), &[0xc0, 0x01, 0x15, 0x38]].concat()
    }

    async fn read_from(sent: &[u8], expected: ProxyProtocol) -> (Result<Option<SocketAddr>, Error>, Vec<u8>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        ours.write_all(sent).await.unwrap();
        ours.shutdown().await.unwrap();
        let result = read(&mut theirs, expected).await;
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await.unwrap();
        (result, rest)
    }

    #[tokio::test]
    async fn the_clients_address_is_read_and_not_a_byte_more() {
        let tlv = [&[0x05, 0, 3], b"id1".as_slice()].concat();
        let unknown = [&[0xe0, 0x01, 0x00], [7; 256].as_slice()].concat();
        let longest = vec![0xee; MAX_BODY_BYTES - IPV4.len()];
        let client = Some("203.0.113.7:49153");
        for (name, header, expected) in [
            ("IPv4", bytes(0x21, 0x11, IPV4), client),
            ("IPv6", bytes(0x21, 0x21, &ipv6()), Some("[2001:db8::7]:49153")),
            ("with a TLV", bytes(0x21, 0x11, &[IPV4, &tlv].concat()), client),
            ("with an unknown TLV", bytes(0x21, 0x11, &[IPV4, &unknown].concat()), client),
            ("with as many TLVs as may be", bytes(0x21, 0x11, &[IPV4, &longest].concat()), client),
            ("local", bytes(0x20, 0x00, b""), None),
            ("local with an address, which does not count", bytes(0x20, 0x11, IPV4), None),
        ] {
            for mode in [ProxyProtocol::Optional, ProxyProtocol::Required] {
                let (result, rest) = read_from(&[header.as_slice(), b"\0\0\0\x08"].concat(), mode).await;
                let client = expected.map(|address| address.parse::<SocketAddr>().unwrap());
                assert_eq!(result.ok(), Some(client), "{name}");
                assert_eq!(rest, b"\0\0\0\x08", "{name}: what follows is the client's");
            }
            let (result, rest) = read_from(&header, ProxyProtocol::Off).await;
            assert_eq!((result.ok(), rest), (Some(None), header), "{name}: turned off, nothing is read");
        }
    }

    #[tokio::test]
    async fn what_is_no_such_header_is_refused() {
        let good = bytes(0x21, 0x11, IPV4);
        let mut wrong_signature = good.clone();
        wrong_signature[11] = b'\r';
        let too_long = [&good[..14], &u16::try_from(MAX_BODY_BYTES + 1).unwrap().to_be_bytes()].concat();
        for (name, header, reason) in [
            ("version 1", b"PROXY TCP4 203.0.113.7 10.0.0.1 49153 5432\r\n".to_vec(), "version 1"),
            ("another signature", wrong_signature, "signature"),
            ("version 3", bytes(0x31, 0x11, IPV4), "malformed"),
            ("another command", bytes(0x22, 0x11, IPV4), "malformed"),
            ("another family", bytes(0x21, 0x41, IPV4), "malformed"),
            ("no room for the addresses", bytes(0x21, 0x11, &IPV4[..11]), "malformed"),
            ("no room for IPv6", bytes(0x21, 0x21, IPV4), "malformed"),
            ("no client", bytes(0x21, 0x00, b""), "no client"),
            ("a client of UDP", bytes(0x21, 0x12, IPV4), "no client"),
            ("a Unix socket", bytes(0x21, 0x31, &[0; 216]), "no client"),
            ("65,535 bytes", too_long, "too long"),
        ] {
            for mode in [ProxyProtocol::Optional, ProxyProtocol::Required] {
                let (result, _) = read_from(&header, mode).await;
                assert!(result.as_ref().is_err_and(|error| error.to_string().contains(reason)), "{name}: {result:?}");
            }
        }
        for cut in 0..good.len() {
            let (result, _) = read_from(&good[..cut], ProxyProtocol::Required).await;
            assert!(matches!(result, Err(Error::Gone(_))), "cut at {cut}: {result:?}");
        }
    }

    #[tokio::test]
    async fn a_header_is_missing_only_where_it_must_be_there() {
        for start in [b"\0\0\0\x08\x04\xd2\x16\x2f".as_slice(), b"\x16\x03\x01"] {
            let (result, rest) = read_from(start, ProxyProtocol::Optional).await;
            assert_eq!((result.ok(), rest.as_slice()), (Some(None), start));
            let (result, _) = read_from(start, ProxyProtocol::Required).await;
            assert!(matches!(result, Err(Error::ProxyHeader(_))), "{result:?}");
        }
    }
}

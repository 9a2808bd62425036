//! Connections of balancers and of others, up to the client's address.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a balancer writes for 203.0.113.7:49153.
const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\x01\xc0\x01\x15\x38";

fn door(logins_per_address: usize, trusted: &str, proxy_protocol: ProxyProtocol) -> Door {
    let trusted_proxies = vec![trusted.parse().unwrap()];
    Door::new(DoorConfig { logins: 10, logins_per_address, trusted_proxies, proxy_protocol })
}

/// Connects and sends; the sockets of both sides, and the address the client has.
async fn connect(sent: &[u8]) -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (theirs, address) = listener.accept().await.unwrap();
    ours.write_all(sent).await.unwrap();
    (ours, theirs, address)
}

#[tokio::test]
async fn a_trusted_balancer_is_believed_and_nobody_else() {
    for (trusted, believed) in [("127.0.0.0/8", true), ("127.0.0.1/32", true), ("10.0.0.0/8", false), ("::/1", false)] {
        let door = door(10, trusted, ProxyProtocol::Required);
        let (_ours, theirs, address) = connect(&[HEADER, b"next"].concat()).await;
        let arrival = door.admit(theirs, address).unwrap();
        let mut incoming = arrival.introduce(Duration::from_secs(5)).await.unwrap();
        let expected = if believed {
            Peer { address: "203.0.113.7:49153".parse().unwrap(), via: Some(address), balancer: false }
        } else {
            Peer { address, via: None, balancer: false }
        };
        assert_eq!(incoming.peer, expected, "{trusted}");
        let mut next = [0; 4];
        incoming.socket.read_exact(&mut next).await.unwrap();
        assert_eq!(&next, if believed { b"next" } else { b"\r\n\r\n" }, "{trusted}");
    }
}

#[tokio::test]
async fn the_client_counts_and_not_the_balancer() {
    let door = door(1, "127.0.0.0/8", ProxyProtocol::Optional);
    let mut kept = Vec::new();
    for (sent, over) in
        [(HEADER, None), (HEADER, Some(Full::Address)), (b"\0\0\0\x08".as_slice(), None), (b"\0\0\0\x08", None)]
    {
        let (ours, theirs, address) = connect(sent).await;
        let incoming = door.admit(theirs, address).unwrap().introduce(Duration::from_secs(5)).await.unwrap();
        assert_eq!(incoming.place.over(), over, "{sent:?}");
        assert_eq!(incoming.peer.limited().is_some(), sent == HEADER, "{sent:?}");
        kept.push((ours, incoming));
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_ends_at_the_start_ups_deadline() {
    let door = door(10, "127.0.0.0/8", ProxyProtocol::Required);
    for sent in [b"".as_slice(), &HEADER[..20]] {
        let (_ours, theirs, address) = connect(sent).await;
        let refused = door.admit(theirs, address).unwrap().introduce(Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(refused.error, Error::Deadline), "{:?}", refused.error);
    }
}

#[tokio::test]
async fn a_connection_over_a_limit_is_not_kept_long() {
    let door = door(1, "10.0.0.0/8", ProxyProtocol::Off);
    let mut left = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..2 {
        let (ours, theirs, address) = connect(b"").await;
        let incoming = door.admit(theirs, address).unwrap().introduce(Duration::from_secs(60)).await.unwrap();
        left.push(incoming.deadline(Duration::from_secs(60)) - incoming.accepted);
        kept.push((ours, incoming));
    }
    assert_eq!(left, [Duration::from_secs(60), OVER_DEADLINE]);
}

//! How many may be there at once: sessions of callers, logins of anybody, and that neither hits the other.

use proto_tests::chain::{Chain, HOST, Setup};
use proto_tests::refusal::{Expected, check, refused, refused_by_psql, until_let_in};
use proto_tests::wire;
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_rustls::client::TlsStream;

#[tokio::test(flavor = "multi_thread")]
async fn sessions_in_all_are_limited() {
    let chain = Setup::default().extra("[limits]\nsessions = 1").start().await;
    let first = chain.connect(&chain.person()).await;
    refused_by_psql(&chain, &chain.app(), Expected { sqlstate: "53300", says: "sessions" }).await;
    drop(first);
    until_let_in(&chain, &chain.app()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_one_caller_are_limited_and_others_are_not_hit() {
    let chain = Setup::default().extra("[limits]\nsessions_per_caller = 1").start().await;
    let first = chain.connect(&chain.person()).await;
    refused(&chain, &chain.person(), Expected { sqlstate: "53300", says: "sessions" }).await;
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
    drop(first);
    until_let_in(&chain, &chain.person()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_do_not_log_in_are_limited_by_address() {
    let chain = Setup::default().extra("[limits]\nlogins_per_address = 2").start().await;
    let session = chain.connect(&chain.person()).await;
    let idle = [chain.tls().await.expect("TLS"), chain.tls().await.expect("TLS")];
    refused_by_psql(&chain, &chain.app(), Expected { sqlstate: "53300", says: "address" }).await;
    session.client.simple_query("select 1").await.expect("those who are logged in go on");
    drop(idle);
    until_let_in(&chain, &chain.app()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_take_no_session_away() {
    let chain = Setup::default().extra("[limits]\nsessions = 1\nlogins = 6").start().await;
    let mut strangers = Vec::new();
    for _ in 0..5 {
        strangers.push(at_the_token(&chain, "127.0.0.1").await);
    }
    // All that strangers can take are logins; the one session that there may be is the caller's.
    let session = chain.connect(&chain.person()).await;
    strangers.push(at_the_token(&chain, "127.0.0.2").await);
    session.client.simple_query("select 1").await.expect("the session lives");
    drop(strangers);
    // Only a caller whose token has verified hears of the session.
    refused_by_psql(&chain, &chain.app(), Expected { sqlstate: "53300", says: "limits.sessions" }).await;
    let mut stranger = chain.tls().await.expect("TLS");
    let answer = wire::log_in(&mut stranger, b"analyst", b"orders", "no.to.ken").await.expect("an answer");
    assert_eq!(answer.sqlstate(), "28P01");
    drop(session);
    until_let_in(&chain, &chain.app()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_of_all_addresses_together_are_limited_and_cancels_are_not() {
    let chain = Setup::default().extra("[limits]\nsessions = 2\nlogins = 3").start().await;
    let sessions = [chain.connect(&chain.person()).await, chain.connect(&chain.app()).await];
    let strangers = [
        at_the_token(&chain, "127.0.0.2").await,
        at_the_token(&chain, "127.0.0.3").await,
        at_the_token(&chain, "127.0.0.4").await,
    ];
    let login = chain.person();
    let mut one_more = chain.tls().await.expect("TLS");
    check(&chain.attempt(&mut one_more, &login).await, &login, Expected { sqlstate: "53300", says: "logins" });
    // Every place is taken, and still both sessions can be cancelled, in TLS and without.
    for (session, in_tls) in sessions.iter().zip([true, false]) {
        let token = session.client.cancel_token();
        let cancel = async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            if in_tls {
                token.cancel_query_raw(chain.tls().await.expect("TLS"), NoTls).await
            } else {
                token.cancel_query_raw(chain.tcp().await, NoTls).await
            }
        };
        let (slept, cancelled) = tokio::join!(session.client.simple_query("select pg_sleep(30)"), cancel);
        cancelled.expect("the cancel is sent");
        assert_eq!(slept.expect_err("canceled").code(), Some(&SqlState::QUERY_CANCELED));
    }
    drop((strangers, sessions));
    until_let_in(&chain, &chain.app()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_over_its_limit_does_not_keep_others_out() {
    let chain = Setup::default().extra("[limits]\nlogins_per_address = 2").start().await;
    let mut silent = Vec::new();
    // Two logins, 256 places to be told, and what is closed at once.
    for _ in 0..300 {
        silent.push(tcp_from(&chain, "127.0.0.2").await);
    }
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    drop(silent);
    let told = chain.proxy.output().lines().filter(|line| line.contains("dropped")).count();
    assert!((1..=2).contains(&told), "{told} lines for 42 connections that were closed");
}

/// A connection from another of this machine's addresses.
async fn tcp_from(chain: &Chain, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{address}:0").parse().expect("an address")).expect("a loopback address");
    socket.connect(chain.proxy.address()).await.expect("the proxy accepts")
}

/// Somebody who has been asked for a token and has none.
async fn at_the_token(chain: &Chain, address: &str) -> TlsStream<TcpStream> {
    let asked = async {
        let mut socket = tcp_from(chain, address).await;
        socket.write_all(&wire::ssl_request()).await?;
        wire::expect_consent(&mut socket).await?;
        let mut stream = wire::handshake(socket, chain.cloud.ca_path(), HOST).await?;
        stream.write_all(&wire::startup(&[(b"user", b"analyst"), (b"database", b"orders")])).await?;
        let answer = wire::read(&mut stream).await?;
        assert_eq!((answer.tag, answer.body.as_slice()), (b'R', [0, 0, 0, 3].as_slice()));
        io::Result::Ok(stream)
    };
    asked.await.expect("the proxy asks for the token")
}

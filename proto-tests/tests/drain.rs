//! SIGTERM: who is busy finishes, who is idle is told, who comes is turned away, and the process ends.

use proto_tests::chain::{Chain, Setup};
use proto_tests::wire::{self, message, text};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_session_finishes_and_an_idle_one_is_told() {
    let mut chain = Chain::start().await;
    let busy = chain.connect(&chain.app()).await;
    let mut idle = chain.session(&chain.person()).await;
    let sleeping =
        tokio::spawn(async move { busy.client.simple_query("select pg_sleep(2)").await.map(|rows| rows.len()) });
    chain.records_when("the sleep", |records| !records.began("select pg_sleep(2)").is_empty()).await;
    chain.proxy.terminate();
    let told = wire::read(&mut idle).await.expect("a last word");
    assert_eq!(told.sqlstate(), "57P01");
    assert!(matches!(chain.proxy.get("/readyz").await, Ok((503, _)) | Err(_)), "no new clients should be sent here");
    assert!(turned_away(&chain).await, "a new client was let in");
    assert!(sleeping.await.expect("joined").is_ok(), "the busy session was cut");
    let ended = chain.proxy.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    let records = chain.records();
    assert_eq!(records.of("session_end").len(), 2);
    assert!(records.of("session_end").iter().all(|end| end["reason"] == "drain"));
    assert!(records.open().is_empty(), "no event stays open: {:#?}", records.open());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stays_busy_is_ended_at_the_deadline() {
    let mut chain = Setup::default().extra("[deadlines]\ndrain = \"1s\"").start().await;
    let mut busy = chain.session(&chain.app()).await;
    busy.write_all(&message(b'Q', &text("select pg_sleep(60)"))).await.unwrap();
    chain.records_when("the sleep", |records| !records.began("select pg_sleep(60)").is_empty()).await;
    let asked = Instant::now();
    chain.proxy.terminate();
    let told = wire::read_until(&mut busy, b'E').await.pop().expect("a last word");
    assert_eq!(told.sqlstate(), "57P01");
    let ended = chain.proxy.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    let took = asked.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    let records = chain.records();
    let begin = records.began("select pg_sleep(60)");
    assert_eq!(records.end_of(begin.only())["outcome"], "canceled", "nothing goes on running");
}

/// A new connection is refused by the kernel, closed, or answered with an error.
async fn turned_away(chain: &Chain) -> bool {
    let Ok(mut stream) = TcpStream::connect(chain.proxy.address()).await else { return true };
    if stream.write_all(&wire::ssl_request()).await.is_err() {
        return true;
    }
    match wire::read(&mut stream).await {
        Ok(message) => message.tag == b'E',
        Err(_) => true,
    }
}

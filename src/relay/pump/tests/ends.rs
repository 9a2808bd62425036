//! How sessions end: who is waited for and how long, and where the last word stands.

use super::*;
use tokio::time::{Instant, sleep};

const CANCELED: &[u8] = b"SERROR\0VERROR\0C57014\0Mcanceling statement\0\0";

/// Starts a session whose server has the Query of a long statement.
async fn busy(host: FakeHost) -> Setup {
    let mut setup = start_with(Tag::none(), host);
    setup.client.write_all(&frame(b'Q', b"SELECT rows\0")).await.unwrap();
    receive(&mut setup.server).await;
    setup
}

async fn cancelled(setup: &Setup) {
    while setup.cancels.load(Ordering::Relaxed) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Whole messages, and what is left of one that broke off.
fn messages(mut bytes: &[u8]) -> (Vec<u8>, usize) {
    let mut kinds = Vec::new();
    while let Some(header) = Header::decode(bytes).unwrap() {
        let Some(rest) = bytes.get(header.frame()..) else { break };
        kinds.push(header.kind);
        bytes = rest;
    }
    (kinds, bytes.len())
}

#[tokio::test(start_paused = true)]
async fn the_last_word_does_not_stand_in_half_a_row_that_a_client_took_late() {
    for late in [1, 4, 6, 9] {
        let mut setup = busy(FakeHost::default()).await;
        setup.wish.send_replace(Wish::Now(Cause::Operator));
        cancelled(&setup).await;
        let row = frame(b'D', &[b'd'; 1000]);
        let answer = [row.repeat(6), frame(b'E', CANCELED), frame(b'Z', b"I")].concat();
        let (mut server_read, mut server_write) = tokio::io::split(setup.server);
        tokio::spawn(async move {
            let _ = server_write.write_all(&answer).await;
            let _ = server_read.read_to_end(&mut Vec::new()).await;
        });
        sleep(Duration::from_secs(late)).await;
        let mut told = Vec::new();
        setup.client.read_to_end(&mut told).await.unwrap();
        let (kinds, left) = messages(&told);
        assert!(memchr::memchr_iter(b'D', &kinds).count() >= 4, "{late} s: {kinds:?}");
        assert!(
            told[told.len() - left..].iter().all(|byte| b"D\0\x03\xec\x04d".contains(byte)),
            "{late} s: a word in a row"
        );
        assert!(kinds.last() == Some(&b'D') || (kinds.ends_with(b"DE") && left == 0), "{late} s: {kinds:?}");
        assert!(late > 4 || kinds.ends_with(b"DE"), "{late} s: who takes all in time is told why");
        timeout(Duration::from_secs(60), setup.relay).await.expect("it ends").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_a_session_that_lingers_behind_an_endless_answer() {
    let mut setup = busy(FakeHost::default()).await;
    setup.client.shutdown().await.unwrap();
    let (client_read, mut server) = (setup.client, setup.server);
    let reader = tokio::spawn(async move {
        let mut client = client_read;
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.map(|_| told)
    });
    let cancels = Arc::clone(&setup.cancels);
    tokio::spawn(async move {
        while cancels.load(Ordering::Relaxed) == 0 {
            server.write_all(&frame(b'D', &[7; 10])).await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
        server.write_all(&[frame(b'E', CANCELED), frame(b'Z', b"I")].concat()).await.unwrap();
        server.read_to_end(&mut Vec::new()).await
    });
    sleep(Duration::from_secs(20)).await;
    assert_eq!(setup.cancels.load(Ordering::Relaxed), 0, "who reads gets the answer");
    setup.wish.send_replace(Wish::Now(Cause::Shutdown));
    let ended = timeout(Duration::from_secs(10), setup.relay).await;
    assert!(!ended.expect("the wish is heard").unwrap().busy);
    assert_eq!(setup.cancels.load(Ordering::Relaxed), 1);
    assert_eq!(story(&setup.log).last().map(String::as_str), Some("end canceled"));
    assert_eq!(messages(&reader.await.unwrap().unwrap()).1, 0);
}

/// PostgreSQL's own FATAL flushes what came before it.
#[tokio::test(start_paused = true)]
async fn what_came_before_a_violation_is_answered_at_once_without_a_sync() {
    let mut setup = start(Tag::none());
    let batch = [frame(b'P', b"\0SELECT 1\0\0\0"), frame(b'B', &[0; 8]), frame(b'E', &[0; 5]), frame(b'~', b"")];
    let began = Instant::now();
    setup.client.write_all(&batch.concat()).await.unwrap();
    for kind in *b"PBE" {
        assert_eq!(receive(&mut setup.server).await.0, kind);
    }
    let flush = timeout(Duration::from_secs(1), receive(&mut setup.server)).await;
    assert_eq!(flush.expect("a Flush"), (b'H', Vec::new()));
    setup.server.write_all(&[frame(b'1', b""), frame(b'2', b""), frame(b'C', b"SELECT 1\0")].concat()).await.unwrap();
    for kind in *b"12C" {
        assert_eq!(receive(&mut setup.client).await.0, kind);
    }
    assert!(String::from_utf8(receive(&mut setup.client).await.1).unwrap().contains("Violated"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(setup.cancels.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_has_left_in_part_is_followed_by_no_flush() {
    let mut setup = start(Tag::none());
    let long = frame(b'd', &[7; 3000]);
    setup.client.write_all(&long[..2000]).await.unwrap();
    setup.server.read_exact(&mut [0; 2000]).await.unwrap();
    setup.client.write_all(&[&long[2000..], b"~\0\0\0\x04"].concat()).await.unwrap();
    let mut rest = vec![0; long.len() - 2000];
    setup.server.read_exact(&mut rest).await.unwrap();
    assert!(rest.iter().all(|byte| *byte == 7));
    assert_eq!(receive(&mut setup.server).await.0, b'H', "at the frame's edge it may");
}

/// The host's deadline for a cancel is its own; the answer has as long as ever behind it.
#[tokio::test(start_paused = true)]
async fn a_slow_cancel_is_waited_for_and_so_is_its_answer() {
    let mut setup = busy(FakeHost { cancel_takes: Duration::from_secs(9), ..FakeHost::default() }).await;
    setup.wish.send_replace(Wish::Now(Cause::Operator));
    cancelled(&setup).await;
    sleep(Duration::from_secs(3)).await;
    setup.server.write_all(&[frame(b'E', CANCELED), frame(b'Z', b"I")].concat()).await.unwrap();
    assert_eq!(receive(&mut setup.client).await, (b'E', b"operator".to_vec()));
    assert_eq!(receive(&mut setup.server).await.0, b'X');
    drop(setup.server);
    assert!(!setup.relay.await.unwrap().busy);
    assert_eq!(story(&setup.log).last().map(String::as_str), Some("end canceled"));
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_its_cancel_is_on_its_way_is_not_waited_for_longer() {
    let mut setup = busy(FakeHost { cancel_takes: Duration::from_secs(3600), ..FakeHost::default() }).await;
    setup.wish.send_replace(Wish::Now(Cause::Operator));
    sleep(Duration::from_secs(1)).await;
    setup.server.write_all(&[frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    drop(setup.server);
    let ended = timeout(Duration::from_secs(20), setup.relay).await;
    assert!(!ended.expect("it ends").unwrap().busy);
}

/// The server reads Syncs as part of a COPY and answers none of them.
#[tokio::test(start_paused = true)]
async fn syncs_in_front_of_a_copys_data_do_not_keep_it_away() {
    let mut setup = start(Tag::none());
    let (mut client_read, mut client_write) = tokio::io::split(setup.client);
    let data = frame(b'd', b"1\n");
    let all = [
        frame(b'Q', b"copy t from stdin\0"),
        frame(b'S', b"").repeat(crate::relay::tracker::MAX_OUTSTANDING - 1),
        data.clone(),
        frame(b'c', b""),
    ]
    .concat();
    let writer = tokio::spawn(async move { client_write.write_all(&all).await.map(|()| client_write) });
    receive(&mut setup.server).await;
    setup.server.write_all(&frame(b'G', &[0; 3])).await.unwrap();
    let reading = async { while receive(&mut setup.server).await.0 != b'c' {} };
    timeout(Duration::from_secs(3600), reading).await.expect("the data has arrived");
    setup.server.write_all(&[frame(b'C', b"COPY 1\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    let mut told = [0; 8 + 12 + 6];
    client_read.read_exact(&mut told).await.unwrap();
    assert_eq!(messages(&told), (b"GCZ".to_vec(), 0));
    let end = setup.log.lines().pop().unwrap();
    assert_eq!((&end["outcome"], &end["bytes_in"]), (&"ok".into(), &(5 + 18 + data.len()).into()));
    drop(writer.await.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_left_is_noticed_while_the_server_owes_too_many_answers() {
    let setup = start(Tag::none());
    let (mut client, mut server) = (setup.client, setup.server);
    let reader = tokio::spawn(async move {
        let mut sink = [0; 4096];
        while server.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        // It works on.
        std::future::pending::<()>().await;
    });
    let syncs = frame(b'S', b"").repeat(crate::relay::tracker::MAX_OUTSTANDING + 10_000);
    let sent = timeout(Duration::from_secs(5), client.write_all(&syncs)).await;
    assert!(sent.is_ok(), "what cannot leave yet is read as far as there is room");
    drop(client);
    let ended = timeout(Duration::from_secs(3600), setup.relay).await;
    reader.abort();
    assert!(matches!(ended.expect("an hour later the session is still there").unwrap().ending, Ending::Client));
    assert_eq!(setup.cancels.load(Ordering::Relaxed), 1, "and what runs for it is cancelled");
}

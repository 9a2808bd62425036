//! What a rule's `durability` promises before bytes leave.

use super::*;
use crate::audit::Durability;
use crate::audit::event::Event;
use crate::relay::testing::recorder_with;
use tokio::time::timeout;

fn start_at(durability: Durability) -> Setup {
    let log = MemoryLog::default();
    let recorder = recorder_with(&log, durability);
    start_over(log, |gate| Relay::new(Tag::none(), recorder, gate), FakeHost::default())
}

const A_WHILE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn strict_holds_the_bytes_until_the_disk_has_the_record() {
    let mut setup = start_at(Durability::Strict);
    setup.log.confirm(Some(false));
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    assert!(timeout(A_WHILE, receive(&mut setup.server)).await.is_err(), "it left before the disk said so");
    let begin = &setup.log.lines()[1];
    assert_eq!((begin["text"].as_str(), begin["durability"].as_str()), (Some("select 1"), Some("strict")));
    setup.log.confirm(None);
    assert_eq!(receive(&mut setup.server).await.0, b'Q');
}

#[tokio::test]
async fn a_disk_that_does_not_confirm_ends_a_strict_session_and_nothing_leaves() {
    let mut setup = start_at(Durability::Strict);
    setup.log.confirm(Some(true));
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    let (kind, body) = receive(&mut setup.client).await;
    assert_eq!((kind, body.as_slice()), (b'E', b"Unrecorded".as_slice()));
    drop(setup.client);
    assert!(matches!(setup.relay.await.unwrap().ending, Ending::Unrecorded));
    let mut left = Vec::new();
    setup.server.read_to_end(&mut left).await.unwrap();
    assert!(!left.contains(&b'Q'), "{left:?}");
}

#[tokio::test]
async fn batch_waits_for_no_disk() {
    let mut setup = start_at(Durability::Batch);
    setup.log.confirm(Some(false));
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.0, b'Q');
    assert!(setup.log.lines()[1]["durability"].is_null(), "the ordinary is not said");
}

#[tokio::test]
async fn none_writes_later_and_says_so_in_every_record() {
    let mut setup = start_at(Durability::None);
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.0, b'Q');
    assert_eq!(setup.log.lines().len(), 1, "the session's start alone is written");
    setup.server.write_all(&[frame(b'C', b"SELECT 0\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    assert_eq!(receive(&mut setup.client).await.0, b'C');
    drop(setup.client);
    let mut summary = setup.relay.await.unwrap();
    summary.recorder.close(&Event::RefusalsSuppressed { count: 0 });
    let lines = setup.log.lines();
    let told: Vec<_> =
        lines.iter().map(|line| (line["event"].as_str().unwrap(), line["durability"].as_str())).collect();
    let none = Some("none");
    assert_eq!(
        told,
        [("session_start", none), ("begin", none), ("end", none), ("refusals_suppressed", None)],
        "in their order"
    );
}

/// What waits has a bound, and a log that takes nothing refuses once it is reached.
#[tokio::test]
async fn none_is_refused_when_the_log_has_taken_nothing_for_long() {
    let mut setup = start_at(Durability::None);
    setup.log.fail(true);
    let text = format!("select '{}'\0", "x".repeat(60_000)).into_bytes();
    let mut refused = false;
    for _ in 0..8 {
        setup.client.write_all(&frame(b'Q', &text)).await.unwrap();
        let (_, body) = receive(&mut setup.server).await;
        refused = body.starts_with(b"\"refused by pgpassport");
        if refused {
            break;
        }
        setup.server.write_all(&[frame(b'C', b"SELECT 0\0"), frame(b'Z', b"I")].concat()).await.unwrap();
        while receive(&mut setup.client).await.0 != b'Z' {}
    }
    assert!(refused, "memory has no bound");
}

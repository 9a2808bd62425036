//! One answer that ends very many events: its records go out in parts, in their order, and none is lost unseen.

use super::*;
use crate::audit::COMMIT_AT;

/// Their end records are three times [`COMMIT_AT`].
const NAMES: usize = 10_000;

/// A session that has parsed so many statements, and deallocates them all; `before` is what becomes of the log by then.
async fn deallocate_all(before: impl FnOnce(&MemoryLog)) -> Setup {
    let mut setup = start(Tag::none());
    for first in (0..NAMES).step_by(100) {
        let parses: Vec<u8> =
            (first..first + 100).flat_map(|n| frame(b'P', format!("s{n}\0\0\0\0").as_bytes())).collect();
        setup.client.write_all(&parses).await.unwrap();
        for _ in 0..100 {
            receive(&mut setup.server).await;
        }
        setup.server.write_all(&frame(b'1', b"").repeat(100)).await.unwrap();
        for _ in 0..100 {
            receive(&mut setup.client).await;
        }
    }
    setup.client.write_all(&frame(b'Q', b"deallocate all\0")).await.unwrap();
    receive(&mut setup.server).await;
    before(&setup.log);
    setup.server.write_all(&[frame(b'C', b"DEALLOCATE ALL\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    setup
}

/// The numbers of the events that have ended, as the log has them.
fn ended(log: &MemoryLog) -> Vec<usize> {
    let number = |line: serde_json::Value| {
        let id = line["id"].as_str().unwrap().to_owned();
        id.rsplit('.').next().unwrap().parse().unwrap()
    };
    log.lines().into_iter().filter(|line| line["event"] == "end").map(number).collect()
}

#[tokio::test]
async fn many_ends_are_written_in_parts_and_in_their_order() {
    let mut setup = deallocate_all(|_| {}).await;
    assert_eq!(receive(&mut setup.client).await.0, b'C');
    assert_eq!(receive(&mut setup.client).await.0, b'Z');
    assert_eq!(ended(&setup.log), (0..=NAMES).collect::<Vec<_>>());
    let writes = setup.log.writes();
    let largest = writes.iter().max().unwrap();
    assert!((COMMIT_AT..COMMIT_AT + 1024).contains(largest), "{largest} bytes at once");
}

#[tokio::test]
async fn what_neither_the_log_nor_memory_can_take_of_many_ends_is_counted_and_ends_the_session() {
    let mut setup = deallocate_all(|log| log.fail_after(1)).await;
    assert_eq!(receive(&mut setup.client).await.0, b'C', "it has happened");
    assert_eq!(receive(&mut setup.client).await.0, b'Z');
    assert_eq!(receive(&mut setup.client).await, (b'E', b"Unrecorded".to_vec()));
    setup.log.fail_after(usize::MAX);
    drop(setup.client);
    drop(setup.server);
    let mut recorder = setup.relay.await.unwrap().recorder;
    recorder.close(&crate::audit::event::Event::RefusalsSuppressed { count: 0 });
    let (ended, lines) = (ended(&setup.log), setup.log.lines());
    let gap = lines.iter().find(|line| line["event"] == "gap").unwrap();
    let lost = usize::try_from(gap["lost"].as_u64().unwrap()).unwrap();
    assert_eq!(ended.len() + lost, NAMES + 1, "each is there or counted");
    assert!(lost > 1000 && ended == (0..ended.len()).collect::<Vec<_>>(), "{lost} lost, the first ones kept in order");
    assert!(setup.log.writes().iter().all(|bytes| *bytes < 2 * COMMIT_AT + 1024), "what was owed goes first, in one");
}

//! What a rule's `durability` promises before bytes leave.

use super::*;
use crate::audit::Recording;
use crate::audit::event::Event;
use crate::relay::testing::{Says, recorder_for};
use tokio::time::timeout;

pub(super) fn start_at(durability: Durability) -> Setup {
    start_recording(durability, Recording::default())
}

fn start_recording(durability: Durability, recording: Recording) -> Setup {
    let log = MemoryLog::default();
    let recorder = recorder_for(log.auditor(10), Says { durability, ..Says::default() }).recording(recording);
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

/// Reads the substitute that has left in place of a message.
pub(super) async fn substitute(setup: &mut Setup) -> String {
    let (kind, body) = receive(&mut setup.server).await;
    let text = String::from_utf8(body).unwrap();
    assert!(kind == b'Q' && text.starts_with("\"refused by pgpassport "), "{text}");
    text.trim_end_matches('\0').to_owned()
}

/// The server refuses it, and the client is told why.
pub(super) async fn fail(setup: &mut Setup, text: &str) {
    let error = format!("SERROR\0VERROR\0C42601\0Msyntax error at or near {text}\0\0");
    setup.server.write_all(&[frame(b'E', error.as_bytes()), frame(b'Z', b"I")].concat()).await.unwrap();
    let ours = ErrorFields::new("ERROR", "53100", &Refusal::Unrecorded.to_string());
    assert_eq!(receive(&mut setup.client).await, (b'E', ours.encode()));
    assert_eq!(receive(&mut setup.client).await.0, b'Z');
}

#[tokio::test]
async fn what_the_disk_does_not_confirm_is_refused_at_strict_and_the_session_lives() {
    let mut setup = start_at(Durability::Strict);
    setup.log.confirm(Some(true));
    let both = [frame(b'Q', b"insert\0"), frame(b'Q', b"rollback\0"), frame(b'Q', b"commit\0")].concat();
    setup.client.write_all(&both).await.unwrap();
    let insert = substitute(&mut setup).await;
    assert_eq!(receive(&mut setup.server).await, (b'Q', b"rollback\0".to_vec()), "it takes back");
    let commit = substitute(&mut setup).await;
    fail(&mut setup, &insert).await;
    setup.server.write_all(&[frame(b'C', b"ROLLBACK\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    assert_eq!(receive(&mut setup.client).await.0, b'C');
    assert_eq!(receive(&mut setup.client).await.0, b'Z');
    fail(&mut setup, &commit).await;
    setup.log.confirm(None);
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await, (b'Q', b"select 1\0".to_vec()));
    // The records are there: each begin has its end.
    let begins = ["session_start", "begin", "begin", "begin"].map(str::to_owned);
    let ends = ["end refused", "end ok", "end refused", "begin"].map(str::to_owned);
    assert_eq!(story(&setup.log), [begins, ends].concat());
    assert_eq!(setup.log.lines()[4]["sqlstate"], "53100");
    assert_eq!(*setup.told.lock().unwrap(), ["unrecorded", "recorded again"]);
}

/// What was confirmed before goes on: the rest of a message past what is recorded of it, and the data of a COPY.
#[tokio::test]
async fn what_left_before_the_disk_failed_is_not_cut() {
    let mut setup = start_recording(Durability::Strict, Recording { max_text_bytes: 64 << 10, ..Recording::default() });
    let long = frame(b'Q', &[vec![b'x'; 100_000], vec![0]].concat());
    let (mut client_read, mut client_write) = tokio::io::split(setup.client);
    let mut start = vec![0; 90_000];
    let (sent, got) = tokio::join!(client_write.write_all(&long[..95_000]), setup.server.read_exact(&mut start));
    assert!(sent.is_ok() && got.is_ok());
    setup.log.confirm(Some(true));
    let rest = [&long[95_000..], &frame(b'Q', b"insert\0")].concat();
    let mut end = vec![0; long.len() - 90_000];
    let (sent, got) = tokio::join!(client_write.write_all(&rest), setup.server.read_exact(&mut end));
    assert!(sent.is_ok() && got.is_ok());
    assert_eq!([start, end].concat(), long);
    let (_, body) = receive(&mut setup.server).await;
    assert!(body.starts_with(b"\"refused by pgpassport "), "{body:?}");
    drop((client_write, setup.server));
    client_read.read_to_end(&mut Vec::new()).await.unwrap();

    let mut setup = start_at(Durability::Strict);
    setup.client.write_all(&frame(b'Q', b"copy t from stdin\0")).await.unwrap();
    receive(&mut setup.server).await;
    setup.server.write_all(&frame(b'G', &[0; 3])).await.unwrap();
    assert_eq!(receive(&mut setup.client).await.0, b'G');
    setup.log.confirm(Some(true));
    let more = [frame(b'd', b"1\n"), frame(b'c', b""), frame(b'Q', b"insert\0")].concat();
    setup.client.write_all(&more).await.unwrap();
    assert_eq!(receive(&mut setup.server).await, (b'd', b"1\n".to_vec()));
    assert_eq!(receive(&mut setup.server).await.0, b'c');
    substitute(&mut setup).await;
}

/// A log that is full and a disk that confirms nothing: what the reserve took of the read is refused too.
#[tokio::test]
async fn a_commit_from_the_reserve_waits_for_the_disk_as_well() {
    let mut setup = start_at(Durability::Strict);
    setup.log.fill(true);
    setup.log.confirm(Some(true));
    let both = [frame(b'Q', b"insert\0"), frame(b'Q', b"commit\0")].concat();
    setup.client.write_all(&both).await.unwrap();
    let (insert, commit) = (substitute(&mut setup).await, substitute(&mut setup).await);
    fail(&mut setup, &insert).await;
    fail(&mut setup, &commit).await;
    assert_eq!(story(&setup.log), ["session_start", "begin", "end refused"], "the COMMIT's alone");
    setup.log.fill(false);
    setup.log.confirm(None);
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    receive(&mut setup.server).await;
    let gap = &setup.log.lines()[3];
    assert_eq!((gap["event"].as_str(), gap["refused"].as_u64()), (Some("gap"), Some(2)), "both were refused");
}

/// A real log: the failed sync ends its segment, and what comes next is confirmed in another.
#[tokio::test]
async fn a_sync_that_fails_refuses_one_message_and_the_next_is_confirmed() {
    use crate::audit::Auditor;
    use crate::audit::ledger::testing::{Flaky, open};
    use crate::audit::ledger::{Settings, read};
    let (folder, disk) = (tempfile::tempdir().unwrap(), Flaky::default());
    let (ledger, _) = open(Settings::new(folder.path().to_owned()), disk.clone()).unwrap();
    let auditor = Auditor::new(Arc::new(ledger), 10, crate::time::Clock::system());
    let recorder = recorder_for(auditor.clone(), Says { durability: Durability::Strict, ..Says::default() });
    let relay = |gate| Relay::new(Tag::none(), recorder, gate);
    let mut setup = start_over(MemoryLog::default(), relay, FakeHost::default());
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await, (b'Q', b"select 1\0".to_vec()));
    setup.server.write_all(&[frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    while receive(&mut setup.client).await.0 != b'Z' {}
    disk.fail_sync();
    setup.client.write_all(&frame(b'Q', b"select 2\0")).await.unwrap();
    let refused = substitute(&mut setup).await;
    fail(&mut setup, &refused).await;
    setup.client.write_all(&frame(b'Q', b"select 3\0")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await, (b'Q', b"select 3\0".to_vec()));
    assert_eq!(read::segments(folder.path()).unwrap().len(), 2);
    auditor.close();
}

#[tokio::test]
async fn batch_waits_for_no_disk() {
    let mut setup = start_at(Durability::Batch);
    setup.log.confirm(Some(false));
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.0, b'Q');
    assert!(setup.log.lines()[1]["durability"].is_null(), "the ordinary is not said");
}

/// How a statement ended waits for the log's next write, whosever that is, and goes first; then it is written with what
/// must be there before bytes leave.
#[tokio::test]
async fn batch_writes_ends_with_the_next_begin_and_strict_at_once() {
    for (durability, written) in [(Durability::Batch, 2), (Durability::Strict, 3)] {
        let mut setup = start_at(durability);
        setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
        receive(&mut setup.server).await;
        assert_eq!(setup.log.written(), 2);
        setup.server.write_all(&[frame(b'C', b"SELECT 0\0"), frame(b'Z', b"I")].concat()).await.unwrap();
        assert_eq!(receive(&mut setup.client).await.0, b'C');
        assert_eq!(setup.log.written(), written, "{durability:?}");
        setup.client.write_all(&frame(b'Q', b"select 2\0")).await.unwrap();
        receive(&mut setup.server).await;
        assert_eq!(setup.log.written(), 4, "{durability:?}");
        assert_eq!(story(&setup.log), ["session_start", "begin", "end ok", "begin"], "{durability:?}");
    }
}

/// An end that waits does not let the next message pass a log that takes nothing.
#[tokio::test]
async fn an_end_that_waits_makes_no_room_for_a_begin() {
    let mut setup = start_at(Durability::Batch);
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    receive(&mut setup.server).await;
    setup.log.fail(true);
    setup.server.write_all(&[frame(b'C', b"SELECT 0\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    while receive(&mut setup.client).await.0 != b'Z' {}
    setup.client.write_all(&frame(b'Q', b"select 2\0")).await.unwrap();
    let refused = substitute(&mut setup).await;
    fail(&mut setup, &refused).await;
    setup.log.fail(false);
    setup.client.write_all(&frame(b'Q', b"select 3\0")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await, (b'Q', b"select 3\0".to_vec()));
    assert_eq!(story(&setup.log), ["session_start", "begin", "end ok", "gap", "begin"]);
}

#[tokio::test]
async fn none_writes_later_and_says_so_in_every_record() {
    let mut setup = start_at(Durability::None);
    setup.client.write_all(&frame(b'Q', b"select 1\0")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.0, b'Q');
    assert_eq!(setup.log.written(), 1, "the session's start alone is written");
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

/// More of a text waits for the disk as its start does, and never leaves where the disk does not confirm it.
#[tokio::test]
async fn strict_holds_more_of_a_text_too() {
    let Setup { mut client, mut server, log, relay, .. } = start_at(Durability::Strict);
    let long = frame(b'Q', &[vec![b'x'; 200_000], vec![0]].concat());
    let sending = tokio::spawn(async move {
        client.write_all(&long).await.unwrap();
        client
    });
    let mut left = vec![0; 80_000];
    server.read_exact(&mut left).await.unwrap();
    log.confirm(Some(false));
    let mut more = vec![0; 200_000];
    let mut held = 0;
    while let Ok(read) = timeout(A_WHILE, server.read(&mut more)).await {
        held += read.unwrap();
    }
    let recorded = |log: &MemoryLog| -> usize {
        let text = |line: &serde_json::Value| line["text"].as_str().map_or(0, str::len);
        log.lines().iter().map(text).sum()
    };
    let left = left.len() + held - HEADER_BYTES;
    assert!(left < recorded(&log) && recorded(&log) <= 200_000, "{left} of {}", recorded(&log));
    log.confirm(Some(true));
    let (mut client, rest) = tokio::join!(async { sending.await.unwrap() }, async {
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        rest
    });
    assert!(rest.is_empty(), "nothing leaves, not even a goodbye within the message");
    assert_eq!(receive(&mut client).await, (b'E', b"Unrecorded".to_vec()));
    drop(client);
    assert!(matches!(relay.await.unwrap().ending, Ending::Unrecorded));
}

//! Whole relays over in-memory streams: who gets which bytes, what is in the log by then, and how it ends.

mod bounds;
mod durable;
mod ends;
mod parts;
mod together;

use super::buffer::read;
use super::*;
use crate::audit::Durability;
use crate::audit::testing::MemoryLog;
use crate::relay::Cause;
use crate::relay::tag::testing::{analyst, tag};
use crate::relay::testing::recorder;
use crate::telemetry::Limit;
use crate::wire::{ErrorFields, HEADER_BYTES, Header, append};
use bytes::BytesMut;
use std::sync::atomic::AtomicUsize;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

/// A relay under test with both of its peers.
struct Setup {
    client: DuplexStream,
    server: DuplexStream,
    wish: watch::Sender<Wish>,
    log: MemoryLog,
    gate: Arc<CancelGate>,
    cancels: Arc<AtomicUsize>,
    told: Told,
    relay: JoinHandle<Summary>,
}

fn start(tag: Tag) -> Setup {
    start_with(tag, FakeHost::default())
}

fn start_with(tag: Tag, host: FakeHost) -> Setup {
    start_among(tag, host, None)
}

fn start_within(tag: Tag, bounds: Option<Bounds>) -> Setup {
    start_among(tag, FakeHost::default(), bounds)
}

fn start_among(tag: Tag, host: FakeHost, bounds: Option<Bounds>) -> Setup {
    let log = MemoryLog::default();
    let recorder = recorder(&log);
    start_over(log, |gate| Relay::new(tag, recorder, gate).within(bounds), host)
}

fn start_over(log: MemoryLog, relay: impl FnOnce(Arc<CancelGate>) -> Relay, host: FakeHost) -> Setup {
    let gate = Arc::new(CancelGate::default());
    let relay = relay(Arc::clone(&gate));
    let (client, client_side) = duplex(4096);
    let (server, server_side) = duplex(4096);
    let (wish, wished) = watch::channel(Wish::Run);
    let (cancels, told) = (Arc::clone(&host.cancels), Arc::clone(&host.told));
    let relay = tokio::spawn(async move { relay.run(client_side, server_side, wished, &host).await });
    Setup { client, server, wish, log, gate, cancels, told, relay }
}

/// A host that says how a session ended, counts cancels, and keeps what it is told of the log.
#[derive(Default)]
struct FakeHost {
    cancels: Arc<AtomicUsize>,
    cancel_takes: Duration,
    told: Told,
}

/// What the host was told of the log.
type Told = Arc<Mutex<Vec<&'static str>>>;

impl Host for FakeHost {
    fn refusal(&self, refusal: Refusal) -> ErrorFields {
        ErrorFields::new("ERROR", "53100", &refusal.to_string())
    }

    fn farewell(&self, ending: &Ending) -> Option<Vec<u8>> {
        match ending {
            Ending::Client | Ending::Server { fatal: Some(_) } => None,
            Ending::Wished(cause) => Some(frame(b'E', cause.as_str().as_bytes())),
            other => Some(frame(b'E', format!("{other:?}").as_bytes())),
        }
    }

    async fn cancel(&self) {
        tokio::time::sleep(self.cancel_takes).await;
        self.cancels.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self, _: Refusal, _: u64) {}

    fn waits(&self, _: Limit) {}

    fn passed_unrecorded(&self, _: u64) {}

    fn unrecorded(&self) {
        self.told.lock().unwrap().push("unrecorded");
    }

    fn recorded_again(&self) {
        self.told.lock().unwrap().push("recorded again");
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, kind, body);
    out
}

async fn receive(stream: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.unwrap();
    let header = Header::decode(&header).unwrap().unwrap();
    let mut body = vec![0; header.body];
    stream.read_exact(&mut body).await.unwrap();
    (header.kind, body)
}

/// Names of the log's events, with outcomes.
fn story(log: &MemoryLog) -> Vec<String> {
    let show = |line: serde_json::Value| {
        let outcome = line["outcome"].as_str().map(|outcome| format!(" {outcome}")).unwrap_or_default();
        format!("{}{outcome}", line["event"].as_str().unwrap())
    };
    log.lines().into_iter().map(show).collect()
}

#[tokio::test]
async fn a_statement_is_in_the_log_before_the_server_has_it() {
    let mut setup = start(tag(&analyst()));
    setup.client.write_all(&frame(b'Q', b"SELECT 1\0")).await.unwrap();
    let (kind, body) = receive(&mut setup.server).await;
    assert_eq!((kind, body), (b'Q', [tag(&analyst()).bytes(), b"SELECT 1\0"].concat()));
    assert_eq!(story(&setup.log), ["session_start", "begin"]);
    setup.server.write_all(&[frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    assert_eq!(receive(&mut setup.client).await, (b'C', b"SELECT 1\0".to_vec()));
    assert_eq!(receive(&mut setup.client).await, (b'Z', b"I".to_vec()));
    assert_eq!(story(&setup.log), ["session_start", "begin", "end ok"]);
    setup.client.write_all(&frame(b'X', b"")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.0, b'X');
    drop(setup.server);
    let summary = setup.relay.await.unwrap();
    assert!(matches!(summary.ending, Ending::Client) && !summary.busy);
}

#[tokio::test]
async fn what_the_log_cannot_take_fails_at_the_server_and_the_session_lives() {
    let mut setup = start(Tag::none());
    setup.log.fail(true);
    setup.client.write_all(&frame(b'Q', b"DELETE FROM orders\0")).await.unwrap();
    let (kind, body) = receive(&mut setup.server).await;
    let name = String::from_utf8(body).unwrap();
    assert!(kind == b'Q' && name.starts_with("\"refused by pgpassport "), "{name}");
    let notice = format!("SDEBUG\0Mparse {name}\0\0");
    let error = format!("SERROR\0VERROR\0C42601\0Msyntax error at or near \"{name}\"\0P1\0\0");
    let answers = [frame(b'N', notice.as_bytes()), frame(b'E', error.as_bytes()), frame(b'Z', b"E")].concat();
    setup.server.write_all(&answers).await.unwrap();
    let (kind, body) = receive(&mut setup.client).await;
    let ours = ErrorFields::new("ERROR", "53100", &Refusal::Unrecorded.to_string());
    assert_eq!((kind, body), (b'E', ours.encode()), "nothing of the server's error is left");
    assert_eq!(receive(&mut setup.client).await, (b'Z', b"E".to_vec()));
    setup.log.fail(false);
    setup.client.write_all(&frame(b'Q', b"COMMIT\0")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await, (b'Q', b"COMMIT\0".to_vec()));
    assert_eq!(setup.told.lock().unwrap().last(), Some(&"recorded again"));
    assert_eq!(setup.told.lock().unwrap().iter().filter(|told| **told == "recorded again").count(), 1);
    assert_eq!(story(&setup.log), ["session_start", "gap", "begin"]);
    assert_eq!(setup.log.lines()[1]["refused"], 1);
}

#[tokio::test(start_paused = true)]
async fn end_lines_wait_in_order_until_the_log_takes_them_and_no_begin_line_passes_them() {
    let mut setup = durable::start_at(Durability::Strict);
    let ask = [frame(b'Q', b"SELECT 1\0"), frame(b'Q', b"SELECT 2\0")].concat();
    setup.client.write_all(&ask).await.unwrap();
    receive(&mut setup.server).await;
    receive(&mut setup.server).await;
    setup.log.fail(true);
    for row in [b"SELECT 1\0", b"SELECT 2\0"] {
        setup.server.write_all(&[frame(b'C', row), frame(b'Z', b"I")].concat()).await.unwrap();
        assert_eq!(receive(&mut setup.client).await.0, b'C', "what happened is told");
        assert_eq!(receive(&mut setup.client).await.0, b'Z');
    }
    assert_eq!(story(&setup.log), ["session_start", "begin", "begin"]);
    setup.log.fail(false);
    // Nobody says anything: the log is offered what it is owed all the same.
    tokio::time::sleep(2 * OFFER_AGAIN).await;
    assert_eq!(story(&setup.log), ["session_start", "begin", "begin", "end ok", "end ok", "gap"]);
    let lines = setup.log.lines();
    assert_eq!((&lines[1]["id"], &lines[2]["id"]), (&lines[3]["id"], &lines[4]["id"]));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_owes_the_log_for_too_long_ends_in_mid_message_even() {
    let mut setup = start(Tag::none());
    let long = frame(b'Q', &vec![b'x'; 100_000]);
    setup.client.write_all(&frame(b'Q', b"SELECT 1\0")).await.unwrap();
    receive(&mut setup.server).await;
    let (mut client_read, mut client_write) = tokio::io::split(setup.client);
    tokio::spawn(async move {
        // The rest never comes.
        client_write.write_all(&long[..90_000]).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut start = vec![0; 80_000];
    setup.server.read_exact(&mut start).await.unwrap();
    setup.log.fail(true);
    setup.server.write_all(&[frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    let mut rest = Vec::new();
    setup.server.read_to_end(&mut rest).await.unwrap();
    assert!(rest.iter().all(|byte| *byte == b'x'), "the server sees a message that breaks off, and no goodbye");
    let mut told = Vec::new();
    drop(setup.server);
    client_read.read_to_end(&mut told).await.unwrap();
    assert!(told.ends_with(&frame(b'E', b"Unrecorded")), "{told:?}");
    let summary = setup.relay.await.unwrap();
    assert!(matches!(summary.ending, Ending::Unrecorded));
}

#[tokio::test]
async fn draining_waits_for_the_statement_and_then_says_goodbye_to_both() {
    let mut setup = start(Tag::none());
    setup.client.write_all(&frame(b'Q', b"SELECT 1\0")).await.unwrap();
    receive(&mut setup.server).await;
    setup.wish.send_replace(Wish::WhenIdle(Cause::Shutdown));
    setup.server.write_all(&[frame(b'C', b"BEGIN\0"), frame(b'Z', b"T")].concat()).await.unwrap();
    receive(&mut setup.client).await;
    receive(&mut setup.client).await;
    setup.client.write_all(&frame(b'Q', b"COMMIT\0")).await.unwrap();
    receive(&mut setup.server).await;
    setup.server.write_all(&[frame(b'C', b"COMMIT\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    receive(&mut setup.client).await;
    receive(&mut setup.client).await;
    assert_eq!(receive(&mut setup.client).await, (b'E', b"drain".to_vec()));
    assert_eq!(receive(&mut setup.server).await.0, b'X');
    let summary = setup.relay.await.unwrap();
    assert!(matches!(summary.ending, Ending::Wished(_)) && !summary.busy);
}

#[tokio::test(start_paused = true)]
async fn a_hard_end_cancels_and_speaks_at_the_frames_edge() {
    let mut setup = start(Tag::none());
    setup.client.write_all(&frame(b'Q', b"SELECT pg_sleep(60)\0")).await.unwrap();
    receive(&mut setup.server).await;
    let row = frame(b'D', &[7; 100]);
    setup.server.write_all(&row[..50]).await.unwrap();
    let mut half = [0; 50];
    setup.client.read_exact(&mut half).await.unwrap();
    setup.wish.send_replace(Wish::Now(Cause::Operator));
    while setup.cancels.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let canceled = frame(b'E', b"SERROR\0VERROR\0C57014\0Mcanceling statement\0\0");
    setup.server.write_all(&[&row[50..], &row, &canceled, &frame(b'Z', b"I")].concat()).await.unwrap();
    let mut rest = [0; 55];
    setup.client.read_exact(&mut rest).await.unwrap();
    assert_eq!(receive(&mut setup.client).await.0, b'D');
    assert_eq!(receive(&mut setup.client).await, (b'E', b"operator".to_vec()), "and nothing of our own cancel");
    assert_eq!(receive(&mut setup.server).await.0, b'X');
    drop(setup.server);
    let summary = setup.relay.await.unwrap();
    assert!(matches!(summary.ending, Ending::Wished(_)) && !summary.busy);
    assert_eq!(story(&setup.log).last().map(String::as_str), Some("end canceled"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_in_mid_frame_leaves_no_word_in_the_middle() {
    let mut setup = start(Tag::none());
    setup.client.write_all(&frame(b'Q', b"SELECT 1\0")).await.unwrap();
    receive(&mut setup.server).await;
    let row = frame(b'D', &[7; 100]);
    setup.server.write_all(&row[..50]).await.unwrap();
    setup.wish.send_replace(Wish::Now(Cause::Operator));
    let mut told = Vec::new();
    timeout(Duration::from_secs(60), setup.client.read_to_end(&mut told)).await.expect("it ends").unwrap();
    assert_eq!(told, &row[..50]);
    assert!(setup.relay.await.unwrap().busy);
    assert_eq!(story(&setup.log).last().map(String::as_str), Some("end unknown"));
}

#[tokio::test(start_paused = true)]
async fn an_open_transaction_is_no_idle_session_and_is_rolled_back_at_the_end() {
    let mut setup = start(Tag::none());
    setup.client.write_all(&frame(b'Q', b"BEGIN\0")).await.unwrap();
    receive(&mut setup.server).await;
    setup.server.write_all(&[frame(b'C', b"BEGIN\0"), frame(b'Z', b"T")].concat()).await.unwrap();
    receive(&mut setup.client).await;
    receive(&mut setup.client).await;
    setup.wish.send_replace(Wish::WhenIdle(Cause::Shutdown));
    assert!(timeout(Duration::from_secs(3600), receive(&mut setup.client)).await.is_err(), "a transaction was cut");
    setup.wish.send_replace(Wish::Now(Cause::Operator));
    assert_eq!(receive(&mut setup.client).await, (b'E', b"operator".to_vec()));
    assert_eq!(receive(&mut setup.server).await.0, b'X');
    assert_eq!(setup.cancels.load(Ordering::Relaxed), 0, "nothing ran");
}

#[tokio::test(start_paused = true)]
async fn half_a_message_of_the_client_keeps_its_session_from_being_idle() {
    let mut setup = start(Tag::none());
    setup.client.write_all(&frame(b'Q', b"SELECT 1\0")[..7]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    setup.wish.send_replace(Wish::WhenIdle(Cause::Shutdown));
    assert!(timeout(Duration::from_secs(3600), receive(&mut setup.client)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_sends_no_more_gets_the_answers_and_who_is_gone_is_cancelled_at_once() {
    let mut setup = start(Tag::none());
    setup.client.write_all(&frame(b'Q', b"SELECT 1\0")).await.unwrap();
    setup.client.shutdown().await.unwrap();
    receive(&mut setup.server).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        setup.server.write_all(&frame(b'D', &[7; 10])).await.unwrap();
        assert_eq!(receive(&mut setup.client).await.0, b'D');
    }
    assert_eq!(setup.cancels.load(Ordering::Relaxed), 0);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(setup.cancels.load(Ordering::Relaxed), 1, "a server that is silent for longer is cancelled");
    drop(setup.client);
    drop(setup.server);
    assert!(matches!(setup.relay.await.unwrap().ending, Ending::Client));
}

#[tokio::test]
async fn a_server_that_vanishes_or_misbehaves_leaves_no_client_guessing() {
    let mut setup = start(Tag::none());
    drop(setup.server);
    let (kind, body) = receive(&mut setup.client).await;
    assert!(kind == b'E' && String::from_utf8(body).unwrap().contains("Server"));

    let mut setup = start(Tag::none());
    setup.server.write_all(&frame(b'2', b"")).await.unwrap();
    let (kind, body) = receive(&mut setup.client).await;
    assert!(kind == b'E' && String::from_utf8(body).unwrap().contains("Misbehaved"));
}

#[tokio::test]
async fn both_directions_run_at_once() {
    let mut setup = start(Tag::none());
    setup.client.write_all(&frame(b'P', b"\0SELECT 1\0\0\0")).await.unwrap();
    receive(&mut setup.server).await;
    // More than both pipes hold goes each way before either side reads.
    let data = frame(b'N', format!("SNOTICE\0M{}\0\0", "x".repeat(100_000)).as_bytes());
    let copy = frame(b'd', &vec![1; 100_000]);
    let (mut client_read, mut client_write) = tokio::io::split(setup.client);
    let (mut server_read, mut server_write) = tokio::io::split(setup.server);
    let (mut down, mut up) = (vec![0; data.len()], vec![0; copy.len()]);
    let (sent, told, got, heard) = tokio::join!(
        client_write.write_all(&copy),
        server_write.write_all(&data),
        server_read.read_exact(&mut up),
        client_read.read_exact(&mut down),
    );
    assert!(sent.is_ok() && told.is_ok() && got.is_ok() && heard.is_ok());
    assert_eq!((up, down), (copy, data));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_left_is_noticed_however_many_copy_ends_it_sent() {
    let mut setup = start(Tag::none());
    let ends = frame(b'c', b"").repeat(65_536 + 10);
    let mut server = setup.server;
    let reader = tokio::spawn(async move {
        let mut sink = [0; 4096];
        while server.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        server
    });
    let _ = timeout(Duration::from_secs(5), setup.client.write_all(&ends)).await;
    drop(setup.client);
    let ended = timeout(Duration::from_secs(24 * 3600), &mut setup.relay).await;
    reader.abort();
    assert!(ended.is_ok(), "a day later the session is still there");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_cannot_keep_a_drain_from_ending_its_session() {
    let mut setup = start(Tag::none());
    setup.client.write_all(&frame(b'Q', b"SELECT 1\0")).await.unwrap();
    receive(&mut setup.server).await;
    let mut server = setup.server;
    tokio::spawn(async move {
        let row = frame(b'D', &[7; 1000]);
        while server.write_all(&row).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    setup.wish.send_replace(Wish::Now(Cause::Operator));
    let ended = timeout(Duration::from_secs(3600), &mut setup.relay).await;
    assert!(ended.is_ok(), "an hour later it still writes; server::drain aborts it without its end lines");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_on_its_way_holds_the_clients_bytes_back_and_not_the_servers() {
    let mut setup = start(Tag::none());
    assert!(setup.gate.hold().is_none(), "nothing runs");
    // Half of a long message has left when the cancel comes.
    let long = frame(b'Q', &[&[b'x'; 9_000], b"\0".as_slice()].concat());
    setup.client.write_all(&[&frame(b'Q', b"SELECT 1\0"), &long[..4_000]].concat()).await.unwrap();
    receive(&mut setup.server).await;
    let hold = setup.gate.hold().expect("a statement runs");
    setup.client.write_all(&long[4_000..7_000]).await.unwrap();
    setup.server.write_all(&[frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat()).await.unwrap();
    assert_eq!(receive(&mut setup.client).await.0, b'C');
    assert_eq!(receive(&mut setup.client).await.0, b'Z');
    timeout(Duration::from_secs(1), hold.ended()).await.expect("the statement is over");
    let mut early = [0];
    let nothing = timeout(Duration::from_secs(3600), setup.server.read(&mut early)).await;
    assert!(nothing.is_err(), "bytes that came after the cancel have left: {nothing:?}");
    drop(hold);
    setup.client.write_all(&long[7_000..]).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.1.len(), 9_001);
    assert!(setup.gate.hold().is_some(), "the next statement can be cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_without_an_end_ends_the_session_whether_its_client_speaks_or_not() {
    for says_something in [false, true] {
        let mut setup = start(Tag::none());
        setup.client.write_all(&frame(b'Q', b"SELECT 1\0")).await.unwrap();
        receive(&mut setup.server).await;
        let mut hold = setup.gate.hold().expect("a statement runs");
        if says_something {
            setup.client.write_all(&frame(b'Q', b"SELECT 2\0")).await.unwrap();
        }
        hold.sending();
        drop(hold);
        let (kind, body) = receive(&mut setup.client).await;
        assert!(kind == b'E' && String::from_utf8(body).unwrap().contains("CancelUnanswered"));
        let mut leaked = Vec::new();
        setup.server.read_to_end(&mut leaked).await.unwrap();
        assert!(leaked.is_empty(), "{leaked:?} reached the server");
        let summary = setup.relay.await.unwrap();
        assert!(matches!(summary.ending, Ending::CancelUnanswered));
        assert!(setup.gate.hold().is_none(), "nothing is left to cancel");
    }
}

/// The client says goodbye to a server that has said its last word and not closed yet.
#[tokio::test]
async fn the_servers_fatal_word_ends_the_session_whatever_the_client_says_to_it() {
    let mut setup = start(Tag::none());
    let fatal = frame(b'E', b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0");
    setup.server.write_all(&fatal).await.unwrap();
    assert_eq!(receive(&mut setup.client).await.0, b'E');
    setup.client.write_all(&frame(b'X', b"")).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.0, b'X');
    drop(setup.server);
    let summary = setup.relay.await.unwrap();
    assert!(matches!(&summary.ending, Ending::Server { fatal: Some(sqlstate) } if sqlstate == "57P01"), "{summary:?}");
}

/// The server has had enough of what came before the goodbye, which it never reads.
#[tokio::test]
async fn the_servers_fatal_word_after_the_goodbye_is_told_and_remembered() {
    let mut setup = start(Tag::none());
    let query = frame(b'Q', b"copy t from stdin\0");
    setup.client.write_all(&[query, frame(b'X', b"")].concat()).await.unwrap();
    assert_eq!(receive(&mut setup.server).await.0, b'Q');
    assert_eq!(receive(&mut setup.server).await.0, b'X');
    let fatal = frame(b'E', b"SFATAL\0VFATAL\0C08P01\0Mlost\0\0");
    setup.server.write_all(&fatal).await.unwrap();
    assert_eq!(receive(&mut setup.client).await.0, b'E');
    drop(setup.server);
    let summary = setup.relay.await.unwrap();
    assert!(matches!(&summary.ending, Ending::Client), "{summary:?}");
    assert_eq!(summary.fatal.as_deref(), Some("08P01"));
}

#[tokio::test]
async fn what_one_long_message_has_taken_is_given_back() {
    let (mut writer, reader) = duplex(8 * CLIENT_BUFFER);
    let (mut reader, _) = tokio::io::split(reader);
    let mut buffer = BytesMut::with_capacity(FIRST_BUFFER);
    for piece in [INSPECTED_BYTES, 1] {
        writer.write_all(&vec![7; INSPECTED_BYTES + 10]).await.unwrap();
        while buffer.len() < INSPECTED_BYTES + 10 {
            read(&mut reader, &mut buffer, CLIENT_BUFFER).await.unwrap();
        }
        assert!(buffer.capacity() > KEPT_BUFFER);
        consume(&mut buffer, piece);
        consume(&mut buffer, INSPECTED_BYTES + 10 - piece);
        buffer.reserve(1);
        assert!(buffer.capacity() <= KEPT_BUFFER, "{} bytes are kept", buffer.capacity());
    }
}

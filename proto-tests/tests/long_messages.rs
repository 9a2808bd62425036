//! Long messages at a real PostgreSQL, while the audit log takes nothing: what is recorded goes on, what is refused is
//! dropped to its end, and a session that owes too much breaks off in mid-message, so that PostgreSQL takes back.

use proto_tests::answers;
use proto_tests::chain::{Chain, Setup};
use proto_tests::proxy::Limited;
use proto_tests::records::Records;
use proto_tests::script::{bind, execute, parse, query, sync, to_end};
use proto_tests::servers::{At, each};
use proto_tests::wire::{self, message};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

/// What is looked at of a message, and what buffers hold, are far below it.
const LONG: usize = 4 * 1024 * 1024;
/// How much of a long message is sent at first.
const HALF: usize = LONG / 2;
const COUNT: &str = "select count(*) from orders where id >= 9000";

fn limited() -> Setup {
    Setup::default().limited(Limited::Later)
}

fn insert(id: u32) -> String {
    format!("insert into orders values ({id}, 'refused', 1, '2026-11-22')")
}

/// The same in a text of this many bytes and some.
fn long_insert(id: u32) -> String {
    format!("insert into orders values ({id}, '{}', 1, '2026-11-22')", "x".repeat(LONG))
}

/// Sends and reads up to `ReadyForQuery`: SQLSTATEs, command tags, and what of transactions is told.
async fn ask(stream: &mut Raw, bytes: &[u8]) -> Vec<String> {
    stream.write_all(bytes).await.expect("sent");
    stream.flush().await.expect("sent");
    let mut told = answers::until(stream, b'Z').await;
    told.retain(|answer| answer.len() > 1);
    told
}

/// Texts of which as much is recorded as is to be: what follows does not need the log.
fn told_whole(records: &Records) -> usize {
    records.of("text").iter().filter(|record| record["cut"] == true).count()
}

/// In a transaction that has written a row.
async fn in_transaction(chain: &Chain, prepared: &[Vec<u8>]) -> Raw {
    let mut session = chain.session(&chain.app()).await;
    assert_eq!(ask(&mut session, &query("begin")).await, ["C BEGIN", "Z T"]);
    assert_eq!(ask(&mut session, &query(&insert(9000))).await, ["C INSERT 0 1", "Z T"]);
    for prepared in prepared {
        assert_eq!(ask(&mut session, &[prepared.clone(), sync()].concat()).await, ["Z T"]);
    }
    session
}

async fn send(session: &mut Raw, bytes: &[u8]) {
    session.write_all(bytes).await.expect("sent");
    session.flush().await.expect("sent");
}

/// The log fills while a recorded message is half sent: it runs, its end is told later, and what follows is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_recorded_goes_on_while_the_log_fills_and_the_next_one_is_refused() {
    for At { name, chain, .. } in each(limited, "").await {
        for (kind, bytes) in [
            ("Q", query(&long_insert(9001))),
            ("P", [parse("", &long_insert(9001)), bind("", ""), execute(""), sync()].concat()),
        ] {
            let mut session = in_transaction(&chain, &[]).await;
            let before = told_whole(&chain.records());
            send(&mut session, &bytes[..HALF]).await;
            chain.records_when("all that is recorded of it", |records| told_whole(records) == before + 1).await;
            chain.proxy.fill_disk(&chain.segment_path());
            let answers = ask(&mut session, &bytes[HALF..]).await;
            // A Bind and an Execute have begin lines of their own.
            let expected = if kind == "Q" { ["C INSERT 0 1", "Z T"] } else { ["E 53100", "Z E"] };
            assert_eq!(answers, expected, "{name}, {kind}");
            assert_eq!(ask(&mut session, &query("commit")).await, ["E 53100", "Z E"], "{name}, {kind}");
            chain.proxy.free_disk();
            assert_eq!(ask(&mut session, &query("commit")).await, ["C ROLLBACK", "Z I"], "{name}, {kind}");
            assert_eq!(ask(&mut session, &query("select 1")).await, ["C SELECT 1", "Z I"], "{name}, {kind}");
            assert_eq!(chain.query(&chain.app(), COUNT).await, "0", "{name}, {kind}");
        }
        let records = chain.records();
        let long = records
            .iter()
            .find(|record| record["event"] == "begin" && record["text_bytes"].as_u64() > Some(HALF as u64));
        let end = records.end_of(long.expect("the long Query"));
        assert_eq!((end["outcome"].as_str(), end["rows"].as_u64()), (Some("ok"), Some(1)), "{name}: {end}");
        assert!(end["text_sha256"].is_string(), "{name}: what was measured while the log was full: {end}");
    }
}

/// There is room again while a refused message is half sent: its rest stays refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_long_message_that_was_refused_is_dropped_when_there_is_room_again() {
    for At { name, chain, .. } in each(limited, "").await {
        let data = "y".repeat(LONG);
        let bound = {
            let mut body = b"\0b\0\0\0\0\x01".to_vec();
            body.extend(u32::try_from(LONG).expect("it fits").to_be_bytes());
            body.extend([data.as_bytes(), &[0, 0]].concat());
            message(b'B', &body)
        };
        let prepared = [parse("b", "insert into orders values (9002, $1, 1, '2026-11-22')")];
        let call = message(
            b'F',
            &[957_u32.to_be_bytes().as_slice(), &[0, 0, 0, 1], &(1_u32 << 22).to_be_bytes(), data.as_bytes(), &[0, 0]]
                .concat(),
        );
        for (kind, bytes) in [
            ("Q", query(&long_insert(9001))),
            ("P", [parse("", &long_insert(9001)), bind("", ""), execute(""), sync()].concat()),
            ("B", [bound, execute(""), sync()].concat()),
            ("F", call),
        ] {
            let mut session = in_transaction(&chain, &prepared).await;
            chain.proxy.fill_disk(&chain.segment_path());
            send(&mut session, &bytes[..HALF]).await;
            let error = wire::read(&mut session).await.expect("an error while the rest is still to come");
            assert_eq!(
                (error.sqlstate().as_str(), error.field(b'S').as_deref()),
                ("53100", Some("ERROR")),
                "{name}, {kind}"
            );
            chain.proxy.free_disk();
            assert_eq!(ask(&mut session, &bytes[HALF..]).await, ["Z E"], "{name}, {kind}: nothing of it is left");
            assert_eq!(ask(&mut session, &query("commit")).await, ["C ROLLBACK", "Z I"], "{name}, {kind}");
            assert_eq!(ask(&mut session, &query("select 1")).await, ["C SELECT 1", "Z I"], "{name}, {kind}");
            assert_eq!(chain.query(&chain.app(), COUNT).await, "0", "{name}, {kind}");
        }
        let log = chain.database_log();
        assert!(!log.contains("xxxxxxxx") && !log.contains("yyyyyyyy"), "{name}: refused bytes reached the database");
    }
}

/// The log takes nothing for so long that the session owes it too much, while the server has half a message.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_owes_the_log_too_much_breaks_off_in_mid_message_and_nothing_commits() {
    /// Ends of so many statements are more than may be owed.
    const MANY: usize = 8_000;
    for At { name, chain, .. } in each(limited, "").await {
        let mut session = in_transaction(&chain, &[]).await;
        let ahead = [query("select pg_sleep(2)"), query("select 7").repeat(MANY)].concat();
        send(&mut session, &[ahead.as_slice(), &query(&long_insert(9001))[..HALF]].concat()).await;
        chain.records_when("all that is recorded of the long Query", |records| told_whole(records) == 1).await;
        chain.proxy.fill_disk(&chain.segment_path());
        let answers = to_end(&mut session).await;
        let last = answers.last().expect("a last word");
        assert_eq!(
            (last.sqlstate().as_str(), last.field(b'S').as_deref()),
            ("53100", Some("FATAL")),
            "{name}: {last:?}"
        );
        assert!(
            answers.iter().filter(|answer| answer.tag == b'C').count() > MANY / 4,
            "{name}: it went on for a while"
        );
        chain.proxy.free_disk();
        assert_eq!(chain.query(&chain.app(), COUNT).await, "0", "{name}");
        let idle = "select count(*) from pg_stat_activity where state like '%transaction%' and pid <> pg_backend_pid()";
        assert_eq!(chain.query(&chain.app(), idle).await, "0", "{name}: nothing of it is left at the server");
        let records = chain.records_when("its end", |records| records.of("session_end").len() >= 3).await;
        assert_eq!(records.of("session_end").with("reason", "unrecorded").len(), 1, "{name}");
    }
}

/// `PQ_LARGE_MESSAGE_LIMIT` (`libpq.h`): the longest length word of a Query.
const LONGEST: u32 = 0x3fff_ffff - 1;

/// A Query of this length word: so many blanks, and its NUL. Sent in pieces; nothing holds it whole.
async fn send_blanks(session: &mut Raw, length: u32) -> std::io::Result<()> {
    let piece = vec![b' '; 1 << 20];
    let mut rest = usize::try_from(length).expect("it fits") - 5;
    session.write_all(&[b"Q".as_slice(), &length.to_be_bytes()].concat()).await?;
    while rest > 0 {
        let now = rest.min(piece.len());
        session.write_all(&piece[..now]).await?;
        rest -= now;
    }
    session.write_all(&[0]).await?;
    session.flush().await
}

/// The longest message that PostgreSQL takes has no room for the tag; one byte more is no message.
#[tokio::test(flavor = "multi_thread")]
async fn the_longest_query_is_refused_as_it_streams_and_a_longer_one_ends_the_session() {
    for At { name, chain, .. } in each(Setup::default, "").await {
        let mut session = chain.session(&chain.app()).await;
        send_blanks(&mut session, LONGEST).await.expect("all of it is read");
        assert_eq!(answers::until(&mut session, b'Z').await, ["E 54000", "Z I"], "{name}");
        assert_eq!(ask(&mut session, &query("select 1")).await, ["C SELECT 1", "Z I"], "{name}: the session lives");
        let _ = send_blanks(&mut session, LONGEST + 1).await;
        let answers = to_end(&mut session).await;
        let last = answers.last().expect("a last word");
        assert_eq!((last.sqlstate().as_str(), last.field(b'S').as_deref()), ("08P01", Some("FATAL")), "{name}");
        let held = chain.proxy.peak_memory();
        assert!(held < 256 << 20, "{name}: {held} bytes were held");
        println!("{name}: {} MiB at most", held >> 20);
    }
}

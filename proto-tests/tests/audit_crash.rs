//! `kill -9` at random moments under load: what PostgreSQL was given is on record, in the right name, and the log goes
//! on.
//!
//! Moments, sizes and tears come of one seed, which a failure prints; `PGPASSPORT_SEED` gives it again.

use pgpassport::audit::ledger::read;
use proto_tests::audit::{stop, verify};
use proto_tests::chain::Chain;
use proto_tests::judge::{Mode, judge};
use proto_tests::records::{Records, recorded_bytes};
use proto_tests::script::{bind, execute, parse, query, sync};
use proto_tests::wire;
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Kills of one log; so many records can be held in memory and compared.
const KILLS_A_LOG: u64 = 10;
/// Sessions at once.
const SESSIONS: u64 = 6;
/// One statement in so many is [`LONG`].
const LONG_EVERY: u64 = 12;
/// Past the 64 KiB of a begin record.
const LONG: usize = 100 * 1024;
/// The longest that a killed proxy has lived, from the moment its sessions are there.
const LIVES_MILLIS: u64 = 400;
/// What a server process may still have to do once its client is gone.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_under_load_lose_no_begin() {
    kill_often(KILLS_A_LOG).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `make suites` runs it"]
async fn a_hundred_kills_under_load_lose_no_begin() {
    kill_often(100).await;
}

async fn kill_often(kills: u64) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = std::env::var("PGPASSPORT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(since.as_secs() * 1_000_000 + u64::from(since.subsec_micros()));
    println!("PGPASSPORT_SEED={seed}");
    let random = Arc::new(Random(AtomicU64::new(seed)));
    let (mut lines, mut open, mut torn) = (0, 0, 0);
    for _ in 0..kills / KILLS_A_LOG {
        let mut chain = Chain::start().await;
        for _ in 0..KILLS_A_LOG {
            torn += u64::from(kill_once(&mut chain, &random).await);
        }
        let mut compared = judged(&mut chain).await;
        lines += std::mem::take(&mut compared.0);
        open += compared.1;
    }
    println!("{kills} kills: {lines} statements compared, {open} begun and not ended, {torn} logs torn");
    assert!(lines as u64 > kills * 20, "{lines} lines are no load");
    assert!(open as u64 > kills / 2, "hardly a kill came in the midst of something: {open}");
}

/// Whether its end was torn, too.
async fn kill_once(chain: &mut Chain, random: &Arc<Random>) -> bool {
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        let login = if n % 2 == 0 { chain.app() } else { chain.person() };
        let stream = chain.session(&login).await;
        sessions.push(tokio::spawn(work(stream, Arc::clone(random))));
    }
    tokio::time::sleep(Duration::from_micros(random.below(LIVES_MILLIS * 1000))).await;
    chain.proxy.kill();
    chain.proxy.ended().await;
    for session in sessions {
        session.await.expect("no client fails otherwise than by the end of its session");
    }
    let (before, torn) = (count(chain), random.below(2) == 0);
    let tear = if torn { tear(chain, random) } else { 0 };
    let (code, verdict) = verify(chain);
    assert!(code != 1 && !verdict.contains("NOT SOUND"), "after a kill: {verdict}");
    chain.start_again();
    chain.proxy.ready().await;
    let records = chain.records();
    let recoveries: Vec<_> = records.of("recovery").iter().filter(|told| told["records"] == before).cloned().collect();
    if torn || !recoveries.is_empty() {
        let [told] = recoveries.as_slice() else { panic!("one recovery of {before} records: {recoveries:?}") };
        assert!(!torn || told["cut_bytes"].as_u64() >= Some(tear), "{tear} bytes were torn: {told}");
    }
    torn
}

/// A write that did not reach its end: the first bytes of a frame, behind the last record. How many, without zeros at the
/// end.
fn tear(chain: &Chain, random: &Random) -> u64 {
    // Its length does not begin with a zero: that alone would be nothing.
    let record = vec![b'x'; usize::try_from(random.below(9000) | 1).expect("small")];
    let mut frame = Vec::new();
    assert!(pgpassport::audit::ledger::frame::push(&mut frame, &record));
    frame.truncate(usize::try_from(1 + random.below(frame.len() as u64 - 1)).expect("small"));
    let path = chain.segment_path();
    let segment = OpenOptions::new().write(true).open(&path).expect("the segment");
    segment.write_all_at(&frame, recorded_bytes(&path)).expect("torn");
    frame.iter().rposition(|byte| *byte != 0).expect("a length") as u64 + 1
}

/// Statements without a pause, until the session is gone.
async fn work(mut stream: TlsStream<TcpStream>, random: Arc<Random>) {
    loop {
        let mark = random.next();
        let length = if random.below(LONG_EVERY) == 0 { LONG } else { usize::try_from(mark % 50).expect("small") };
        let text = format!("select '{mark}' as mark, length('{}')", "x".repeat(length));
        let (message, answers) = match random.below(3) {
            0 => (query(&text), 1),
            1 => ([parse("", &text), bind("", ""), execute(""), sync()].concat(), 1),
            _ => ([query(&text), query("select 'the second of one write'")].concat(), 2),
        };
        if stream.write_all(&message).await.is_err() {
            return;
        }
        for _ in 0..answers {
            loop {
                let Ok(answer) = wire::read(&mut stream).await else { return };
                assert_ne!(answer.tag, b'E', "{:?}", answer.field(b'M'));
                if answer.tag == b'Z' {
                    break;
                }
            }
        }
    }
}

/// Stops the proxy, and compares: how many statements PostgreSQL had, and how many begin records have no end.
async fn judged(chain: &mut Chain) -> (usize, usize) {
    tokio::time::sleep(SERVER_PATIENCE).await;
    stop(chain).await;
    let (code, verdict) = verify(chain);
    let records = chain.records();
    assert_eq!((code, verdict), (0, format!("proved: records 0 to {}\n", records.len() - 1)));
    let mut verdict = judge(Mode::Statements, &chain.database_log(), &records);
    // What the server says of a client that is gone in the midst of an answer.
    verdict.faults.retain(|fault| !fault.contains("connection to client lost"));
    verdict.holds(usize::try_from(KILLS_A_LOG).expect("small"));
    let (copy, broken) = Records::lines_of_the_killed(&chain.jsonl_path());
    assert!(broken <= usize::try_from(KILLS_A_LOG).expect("small"), "{broken} lines of the copy broke off");
    let copy: HashSet<String> = copy.iter().map(ToString::to_string).collect();
    for record in &records {
        assert!(copy.contains(&record.to_string()), "the copy never got {record}");
    }
    (verdict.agreed.lines(), records.open().len())
}

fn count(chain: &Chain) -> u64 {
    let mut count = 0;
    let counted = read::each(&chain.audit_folder(), |_, _| {
        count += 1;
        ControlFlow::<()>::Continue(())
    });
    counted.expect("the log can be read");
    count
}

/// `SplitMix64` (Steele, Lea and Flood 2014): good enough, and the same everywhere.
struct Random(AtomicU64);

impl Random {
    fn next(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let mut mixed = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&self, most: u64) -> u64 {
        self.next() % most
    }
}

//! Random pipelines at a real PostgreSQL: through the proxy as directly, byte for byte, and each execution in
//! PostgreSQL's own log has its record.

use proto_tests::chain::{Chain, Setup};
use proto_tests::judge::{Mode, judge};
use proto_tests::pipelines::{Seed, pipeline};
use proto_tests::records::{Records, Tail};
use proto_tests::script::{direct_as, to_end, types, without_numbers};
use proto_tests::servers::{At, each};
use proto_tests::wire::Message;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// As whom the same runs directly: the judge passes over its lines.
const OWNER: &str = "cloudsqladmin";
/// Seeds of `make test`.
const MAKE_TEST: u64 = 24;
/// Steps of one pipeline.
const STEPS: usize = 60;
/// How long one pipeline may take, and its records.
const DEADLINE: Duration = Duration::from_secs(60);
/// How PostgreSQL's log begins what it says of a process of its own that crashed.
const CRASHED: &str = "server process (PID ";
/// How long it may take to say so.
const CRASH_PATIENCE: Duration = Duration::from_secs(2);

/// Sends it in pieces of any size while answers are read, then says goodbye.
async fn answers<S: AsyncRead + AsyncWrite + Unpin>(stream: S, bytes: &[u8], mut pieces: Seed) -> Vec<Message> {
    let (mut read, mut write) = tokio::io::split(stream);
    let send = async {
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = [1, 5, 40, 400, 4_000][pieces.below(5)];
            let (piece, more) = rest.split_at(rest.len().min(1 + pieces.below(size)));
            // A server that has had enough closes; what it said is read.
            if write.write_all(piece).await.is_err() || write.flush().await.is_err() {
                return;
            }
            rest = more;
        }
        let _ = write.write_all(b"X\0\0\0\x04").await;
        let _ = write.flush().await;
    };
    let both = async { tokio::join!(send, to_end(&mut read)).1 };
    let answers = tokio::time::timeout(DEADLINE, both).await.expect("an end");
    let last = answers.last().expect("an answer");
    let fatal = last.tag == b'E' && last.field(b'V').as_deref() == Some("FATAL");
    assert!(fatal || last.tag == b'Z', "the server is gone: {}", types(&answers));
    answers
}

/// What both sides answer; they must not differ.
async fn compare(chain: &Chain, seed: u64) -> Vec<Message> {
    let bytes = pipeline(&mut Seed::new(seed), STEPS);
    let proxied = answers(chain.session(&chain.person()).await, &bytes, Seed::new(!seed)).await;
    let direct = answers(direct_as(chain, OWNER).await, &bytes, Seed::new(seed)).await;
    let comparable = |messages: &[Message]| messages.iter().map(without_numbers).collect::<Vec<_>>();
    let (left, right) = (comparable(&proxied), comparable(&direct));
    let differs = left.iter().zip(&right).position(|(left, right)| left != right);
    let at = differs.unwrap_or(left.len().min(right.len()));
    if left != right {
        eprintln!("how sessions ended: {:#?}", chain.records().of("session_end"));
    }
    assert!(
        left == right,
        "answer {at} is {:?} through the proxy and {:?} directly; {} and {}; sent: {}",
        left.get(at),
        right.get(at),
        types(&proxied),
        types(&direct),
        bytes.escape_ascii()
    );
    proxied
}

/// PostgreSQL's log, from where it was last read.
struct Log {
    path: PathBuf,
    read: u64,
}

impl Log {
    /// What is new, up to the last whole line, without taking it.
    fn rest(&self) -> String {
        let mut file = std::fs::File::open(&self.path).expect("the file is there");
        file.seek(SeekFrom::Start(self.read)).expect("it only grows");
        let mut new = Vec::new();
        file.read_to_end(&mut new).expect("it can be read");
        new.truncate(new.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
        String::from_utf8(new).expect("UTF-8")
    }

    fn take(&mut self) {
        self.read += u64::try_from(self.rest().len()).expect("short");
    }
}

/// The records of one session, to its end.
async fn session(audit: &mut Tail) -> Records {
    let deadline = Instant::now() + DEADLINE;
    let mut records = Records::default();
    loop {
        audit.read(&mut records);
        if !records.of("session_end").is_empty() {
            return records;
        }
        assert!(Instant::now() < deadline, "no record of the session's end");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The seed that is being tried: who panics meanwhile says which it was, and whether PostgreSQL itself has crashed.
struct Trying<'a> {
    name: &'a str,
    seed: u64,
    log: &'a Log,
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("this was {}, seed {}", self.name, self.seed);
        let deadline = Instant::now() + CRASH_PATIENCE;
        while Instant::now() < deadline {
            let log = self.log.rest();
            if let Some(at) = log.find(CRASHED) {
                let said: Vec<&str> = log[at..].lines().take(2).collect();
                return eprintln!("PostgreSQL itself crashed: {}", said.join("\n"));
            }
            std::thread::sleep(CRASH_PATIENCE / 20);
        }
    }
}

/// One seed after the other, so that two sessions never meet.
async fn pipelines(At { name, chain, .. }: &At, seeds: Range<u64>) {
    let mut log = Log { path: chain.cloud.postgres_log().to_owned(), read: 0 };
    let mut audit = Tail::of(&chain.audit_folder());
    let (mut errors, mut lines, mut uncertain, mut faults) = (0, 0, 0, Vec::new());
    for seed in seeds.clone() {
        let trying = Trying { name, seed, log: &log };
        let answers = compare(chain, seed).await;
        errors += answers.iter().filter(|answer| answer.tag == b'E').count();
        let records = session(&mut audit).await;
        assert!(records.open().is_empty(), "{:#?}", records.open());
        let verdict = judge(Mode::Statements, &log.rest(), &records);
        lines += verdict.agreed.lines();
        uncertain += verdict.agreed.uncertain;
        faults.extend(verdict.faults.iter().map(|fault| format!("seed {seed}: {fault}")));
        drop(trying);
        log.take();
    }
    let count = usize::try_from(seeds.end - seeds.start).expect("few");
    println!(
        "{name}: {count} pipelines from {}, {errors} errors, {lines} lines that agree, {uncertain} in doubt",
        seeds.start
    );
    let first = &faults[..faults.len().min(20)];
    assert!(faults.is_empty(), "{name}: {} faults, the first of them: {first:#?}", faults.len());
    assert!(errors > count, "{name}: {errors} errors; the pipelines are too tame");
    assert!(uncertain * 100 < lines, "{name}: of {lines} lines {uncertain} are in doubt");
    assert!(lines > 20 * count, "{name}: {lines} lines; the pipelines are too short");
}

/// Each in a task of its own: one that panics does not stop the other, nor speak for it.
async fn at_both(seeds: Range<u64>) {
    let try_all = |at: At| {
        tokio::spawn({
            let seeds = seeds.clone();
            async move { pipelines(&at, seeds).await }
        })
    };
    for tried in each(Setup::default, "").await.map(try_all) {
        tried.await.expect("its panic is above");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_pipelines_are_answered_as_directly_and_recorded_as_they_ran() {
    at_both(0..MAKE_TEST).await;
}

/// `PGPASSPORT_PIPELINES` of them, from `PGPASSPORT_PIPELINES_FROM`: by default the first that `make test` does not run.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: `make suites`"]
async fn many_more_random_pipelines() {
    let number = |name, default| std::env::var(name).map_or(default, |number| number.parse().expect("a number"));
    let from = number("PGPASSPORT_PIPELINES_FROM", MAKE_TEST);
    at_both(from..from + number("PGPASSPORT_PIPELINES", 1_000)).await;
}

//! Random pipelines at a real PostgreSQL: through the proxy as directly, byte for byte, and each execution in
//! PostgreSQL's own log has its record.

use proto_tests::chain::{Chain, Setup};
use proto_tests::judge::{Mode, judge};
use proto_tests::pipelines::{Seed, pipeline};
use proto_tests::script::{direct_as, to_end, types, without_numbers};
use proto_tests::servers::{At, each};
use proto_tests::wire::Message;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// As whom the same runs directly: the judge passes over its lines.
const OWNER: &str = "cloudsqladmin";
/// Seeds of `make test`.
const MAKE_TEST: u64 = 24;
/// Steps of one pipeline.
const STEPS: usize = 60;
/// How long one pipeline may take.
const DEADLINE: Duration = Duration::from_secs(60);

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
    tokio::time::timeout(DEADLINE, both).await.expect("an end")
}

/// One after the other, so that two sessions never meet.
async fn compare(chain: &Chain, name: &str, number: u64) -> usize {
    let bytes = pipeline(&mut Seed::new(number), STEPS);
    let proxied = answers(chain.session(&chain.person()).await, &bytes, Seed::new(!number)).await;
    let direct = answers(direct_as(chain, OWNER).await, &bytes, Seed::new(number)).await;
    let comparable = |messages: &[Message]| messages.iter().map(without_numbers).collect::<Vec<_>>();
    let (left, right) = (comparable(&proxied), comparable(&direct));
    let differs = left.iter().zip(&right).position(|(left, right)| left != right);
    let at = differs.unwrap_or(left.len().min(right.len()));
    assert!(
        left == right,
        "{name}, seed {number}: answer {at} is {:?} through the proxy and {:?} directly; {} and {}; sent: {}",
        left.get(at),
        right.get(at),
        types(&proxied),
        types(&direct),
        bytes.escape_ascii()
    );
    proxied.iter().filter(|answer| answer.tag == b'E').count()
}

async fn pipelines(seeds: std::ops::Range<u64>) {
    for At { name, chain, .. } in each(Setup::default, "").await {
        let mut errors = 0;
        for seed in seeds.clone() {
            errors += compare(&chain, name, seed).await;
        }
        let count = usize::try_from(seeds.end - seeds.start).expect("few");
        assert!(errors > count, "{name}: {errors} errors; the pipelines are too tame");
        let over = |records: &proto_tests::records::Records| records.of("session_end").len() == count;
        let records = chain.records_when("every end", over).await;
        assert!(records.open().is_empty(), "{name}: {:#?}", records.open());
        let verdict = judge(Mode::Statements, &chain.database_log(), &records);
        println!("{name}: {count} pipelines, {errors} errors, {:?}", verdict.agreed);
        verdict.holds(10 * count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_pipelines_are_answered_as_directly_and_recorded_as_they_ran() {
    pipelines(0..MAKE_TEST).await;
}

/// As many as `PGPASSPORT_PIPELINES` says, from the first that `make test` does not run.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: by hand"]
async fn many_more_random_pipelines() {
    let count = std::env::var("PGPASSPORT_PIPELINES").map_or(1_000, |count| count.parse().expect("a number"));
    pipelines(MAKE_TEST..MAKE_TEST + count).await;
}

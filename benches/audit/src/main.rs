//! `audit-cost`: what the audit log costs, by the same `Recorder`, `Auditor` and `Ledger` that the proxy uses.
//!
//! An event is a begin and an end record of a statement of 200 bytes; each begin record is a `write(2)` of its own, as at
//! one statement a read, and so is each end record, as at one answer a read. Hashing and checkpoints are on, and the CPU
//! time is that of all threads. Nothing else is measured: no socket, no database.

mod report;

use clap::Parser;
use pgpassport::audit::ledger::checkpoint::{Signer, private_key};
use pgpassport::audit::ledger::medium::Disk;
use pgpassport::audit::ledger::{Behind, Ledger, Settings};
use pgpassport::audit::{Auditor, Durability, Recorder, Urgency};
use pgpassport::time::Clock;
use report::{Latency, Report, Throughput};
use sample::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of each statement's text.
const TEXT_BYTES: usize = 200;
/// How many clients at once.
const CLIENTS: [usize; 3] = [1, 8, 64];
/// Ticks of `/proc/self/stat` a second (`sysconf(_SC_CLK_TCK)` is 100 on every Linux that this runs on).
const TICKS: f64 = 100.0;

/// What the audit log costs: events a CPU second, bytes an event, and the latency of each durability.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the logs are written; each is removed again
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Events of the throughput
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// Seconds of each cell of the latencies; 0 leaves them out
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// One JSON object in place of the tables
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let throughput = throughput(&arguments.folder, arguments.events)?;
    let mut latencies = Vec::new();
    if arguments.seconds > 0 {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        for durability in [Durability::Strict, Durability::Batch, Durability::None] {
            for clients in CLIENTS {
                let lasting = Duration::from_secs(arguments.seconds);
                latencies.push(runtime.block_on(latency(&arguments.folder, durability, clients, lasting))?);
            }
        }
    }
    let report = Report { throughput, latencies };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// A log of its own.
struct Log {
    folder: tempfile::TempDir,
    ledger: Arc<Ledger>,
    auditor: Auditor,
}

impl Log {
    fn open(under: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(under)?;
        let signer = Signer::parse(&private_key("audit.contoso.example", &[7; 32]))?;
        let settings = Settings::new(folder.path().to_owned());
        let (ledger, _) = Ledger::open(settings, Arc::new(Disk), Clock::system(), signer, Behind::default())?;
        let ledger = Arc::new(ledger);
        let auditor = Auditor::new(Arc::clone(&ledger) as _, 60, Clock::system());
        Ok(Self { folder, ledger, auditor })
    }

    fn session(&self, durability: Durability) -> Result<Recorder> {
        sample::recorder(self.auditor.clone(), durability)
    }

    /// Bytes of all files, and of those that are segments.
    fn bytes(&self) -> Result<(u64, u64)> {
        let (mut all, mut segments) = (0, 0);
        for entry in std::fs::read_dir(self.folder.path())? {
            let entry = entry?;
            let length = entry.metadata()?.len();
            all += length;
            if entry.path().extension().is_some_and(|suffix| suffix == "segment") {
                segments += length;
            }
        }
        Ok((all, segments))
    }
}

/// A text of [`TEXT_BYTES`], as ORMs write them.
fn text() -> String {
    let start =
        "SELECT o.id, o.customer, o.total FROM \"orders\" o WHERE o.customer = 'c-4711' AND o.placed_at > now()";
    format!("{start:-<TEXT_BYTES$}")
}

/// One session, as fast as it goes; until all of it is signed.
fn throughput(under: &Path, events: u64) -> Result<Throughput> {
    let log = Log::open(under)?;
    let mut recorder = log.session(Durability::Batch)?;
    let text = text();
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    for event in 0..events {
        recorder.begin(&sample::begin(event, text.as_bytes()));
        recorder.commit(Urgency::Normal)?;
        recorder.end(&sample::end(event));
        recorder.commit(Urgency::Normal)?;
    }
    let appended = began.elapsed();
    log.ledger.close();
    let (wall, cpu) = (began.elapsed(), cpu_seconds()? - cpu);
    if log.ledger.sealed() <= events * 2 {
        return Err("not everything was signed".into());
    }
    let (bytes, segment_bytes) = log.bytes()?;
    Ok(Throughput::new(events, (appended, wall, cpu), (bytes, segment_bytes)))
}

/// User and system time of all threads of this process, those that have ended too.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).map(str::parse).collect::<std::result::Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS)
}

/// So many sessions, each with one statement at a time: how long a statement waits for its begin record.
async fn latency(under: &Path, durability: Durability, clients: usize, lasting: Duration) -> Result<Latency> {
    let log = Log::open(under)?;
    let flushing = tokio::spawn(flush(log.auditor.clone()));
    let mut running = Vec::new();
    for _ in 0..clients {
        let recorder = log.session(durability)?;
        running.push(tokio::spawn(client(recorder, Instant::now() + lasting)));
    }
    let mut waits = Vec::new();
    for client in running {
        waits.extend(client.await??);
    }
    flushing.abort();
    let ledger = Arc::clone(&log.ledger);
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    Ok(Latency::new(durability.as_str(), clients, lasting, waits))
}

/// As the proxy does once a second.
async fn flush(auditor: Auditor) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = auditor.flush();
    }
}

async fn client(mut recorder: Recorder, until: Instant) -> Result<Vec<Duration>> {
    let text = text();
    let mut waits = Vec::new();
    for event in 0.. {
        let began = Instant::now();
        if began > until {
            break;
        }
        recorder.begin(&sample::begin(event, text.as_bytes()));
        recorder.commit(Urgency::Normal)?;
        if let Some(durable) = recorder.durable() {
            durable.await?;
        }
        waits.push(began.elapsed());
        recorder.end(&sample::end(event));
        recorder.commit(Urgency::Normal)?;
        tokio::task::yield_now().await;
    }
    Ok(waits)
}

//! What was measured, for people and as JSON.

use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One session, as fast as it goes.
    pub throughput: Throughput,
    /// What a statement waits.
    pub latencies: Vec<Latency>,
}

/// One session at `batch`, as fast as it goes, until everything is signed.
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// A begin and an end record each.
    pub events: u64,
    /// Until the last record was written.
    pub appended_seconds: f64,
    /// Until the last record was signed.
    pub wall_seconds: f64,
    /// Of all threads.
    pub cpu_seconds: f64,
    /// The figure of record: what one core does.
    pub events_per_cpu_second: f64,
    /// The segments' share.
    pub segment_bytes_per_event: f64,
    /// With hashes and checkpoints.
    pub bytes_per_event: f64,
}

/// What a statement waits for its begin record.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// `strict`, `batch` or `none`.
    pub durability: &'static str,
    /// Sessions at once, one statement at a time each.
    pub clients: usize,
    /// Events a second.
    pub events_per_second: f64,
    /// Half of them waited no longer, in microseconds.
    pub p50_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

#[allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Throughput {
    /// Times are until written, until signed, and CPU seconds; bytes are of all files, and of segments.
    pub fn new(events: u64, times: (Duration, Duration, f64), bytes: (u64, u64)) -> Self {
        let (appended, wall, cpu_seconds) = times;
        let count = float(events.max(1));
        Self {
            events,
            appended_seconds: appended.as_secs_f64(),
            wall_seconds: wall.as_secs_f64(),
            cpu_seconds,
            events_per_cpu_second: count / cpu_seconds.max(0.01),
            segment_bytes_per_event: float(bytes.1) / count,
            bytes_per_event: float(bytes.0) / count,
        }
    }
}

impl Latency {
    /// Of what each statement waited.
    pub fn new(durability: &'static str, clients: usize, lasting: Duration, mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        let at = |share: usize| {
            let place = waits.len().saturating_sub(1).saturating_mul(share) / 1000;
            waits.get(place).map_or(0.0, |wait| wait.as_secs_f64() * 1e6)
        };
        let events_per_second = float(waits.len() as u64) / lasting.as_secs_f64().max(0.001);
        Self { durability, clients, events_per_second, p50_us: at(500), p99_us: at(990), max_us: at(1000) }
    }
}

/// Two tables.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Throughput { events, events_per_cpu_second, cpu_seconds, wall_seconds, .. } = self.throughput;
        let Throughput { appended_seconds, segment_bytes_per_event, bytes_per_event, .. } = self.throughput;
        writeln!(
            f,
            "one session at batch, {events} events (begin and end, 200-byte texts, a write(2) for each record):"
        )?;
        writeln!(f, "  events a CPU second (all threads)  {events_per_cpu_second:>10.0}")?;
        writeln!(f, "  CPU seconds                        {cpu_seconds:>10.2}")?;
        writeln!(f, "  seconds until written              {appended_seconds:>10.2}")?;
        writeln!(f, "  seconds until signed               {wall_seconds:>10.2}")?;
        writeln!(f, "  bytes an event, segments           {segment_bytes_per_event:>10.0}")?;
        writeln!(f, "  bytes an event, with hashes        {bytes_per_event:>10.0}")?;
        if self.latencies.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nwhat a statement waits for its begin record:")?;
        writeln!(f, "  durability  clients  events/s   p50 us   p99 us    max us")?;
        for Latency { durability, clients, events_per_second, p50_us, p99_us, max_us } in &self.latencies {
            writeln!(
                f,
                "  {durability:<10}  {clients:>7}  {events_per_second:>8.0}  {p50_us:>7.0}  {p99_us:>7.0}  {max_us:>8.0}"
            )?;
        }
        Ok(())
    }
}

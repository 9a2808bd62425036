//! One run of pgbench, and the window in the middle of it that counts.
//!
//! The peer's CPU is sampled while pgbench runs and logs each transaction with the time of its end. Counted is what
//! lies between two samples in steady state: log-ins before and goodbyes after are in no figure.

use crate::Result;
use crate::accounting::Cpu;
use crate::peers::Peer;
use crate::rounds::Values;
use crate::stage::Stage;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

/// How often the CPU is sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// What is left out after the first and before the last transaction.
const MARGIN: Duration = Duration::from_millis(100);
/// How often a run may be repeated with twice the time: pgbench counts the log-ins before its first transaction in.
const LENGTHENED: u32 = 4;
/// Threads of pgbench, at most.
const THREADS: u32 = 2;
/// What a log-in does with its connection.
const ONE: &str = "SELECT 1;\n";

/// `pgbench --protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Query.
    Simple,
    /// Parse, Bind, Describe, Execute, Sync, each time.
    Extended,
    /// Parsed once.
    Prepared,
}

/// What pgbench shall do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) mode: Mode,
    pub(crate) clients: u32,
    pub(crate) seconds: u32,
    /// A new connection for each transaction.
    pub(crate) reconnect: bool,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// Time since the epoch.
type Moment = Duration;

/// The end of a transaction and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Transaction {
    end: Moment,
    took: Duration,
}

/// Runs the load through the peer (`None`: PostgreSQL itself).
pub(crate) fn measure(stage: &Stage, peer: Option<&Peer>, load: &Load) -> Result<Values> {
    let mut longer = *load;
    for _ in 0..LENGTHENED {
        if let Some(values) = run(stage, peer, &longer)? {
            return Ok(values);
        }
        longer.seconds = longer.seconds.saturating_mul(2);
    }
    Err(format!("pgbench was not at work for long enough in {} s", longer.seconds).into())
}

/// One run; `None` if too little of it was steady: on a busy machine log-ins eat up the time.
fn run(stage: &Stage, peer: Option<&Peer>, load: &Load) -> Result<Option<Values>> {
    let folder = stage.scratch().join("pgbench");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder)?;
    let mut pgbench = stage.database.program("pgbench");
    pgbench.args(["-n", "--log", "--random-seed=1", "-M", load.mode.name()]);
    pgbench.args(["-c", &load.clients.to_string(), "-j", &load.clients.min(THREADS).to_string()]);
    pgbench.args(["-T", &load.seconds.to_string()]).arg("--log-prefix").arg(folder.join("log"));
    if load.reconnect {
        std::fs::write(folder.join("one.sql"), ONE)?;
        pgbench.arg("-C").arg("-f").arg(folder.join("one.sql"));
    } else {
        pgbench.arg("-S");
    }
    peer.map_or_else(|| stage.direct(), |peer| stage.address(peer)).tell(&mut pgbench);
    let running = pgbench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let samples = sample(running, peer)?;
    let transactions = logged(&folder)?;
    let least = Duration::from_secs(load.seconds.into()) / 2;
    Ok(count(&transactions, &samples, load.reconnect).filter(|(window, _)| *window >= least).map(|(_, values)| values))
}

/// Samples the peer's CPU until pgbench ends; an error if it ended badly.
fn sample(mut pgbench: Child, peer: Option<&Peer>) -> Result<Vec<(Moment, Option<Cpu>)>> {
    let mut samples = Vec::new();
    while pgbench.try_wait()?.is_none() {
        samples.push((now()?, peer.map(Peer::cpu).transpose()?));
        std::thread::sleep(SAMPLE_EVERY);
    }
    let done = pgbench.wait_with_output()?;
    if done.status.success() {
        return Ok(samples);
    }
    let (said, log) = (String::from_utf8_lossy(&done.stderr), peer.map(Peer::last_words).unwrap_or_default());
    Err(format!("pgbench: {}\n{said}\nthe peer said:\n{log}", done.status).into())
}

fn now() -> Result<Moment> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}

/// The logs of all threads, in order of time.
fn logged(folder: &Path) -> Result<Vec<Transaction>> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        for line in text.lines() {
            all.push(transaction(line).ok_or_else(|| format!("pgbench logged {line:?}"))?);
        }
    }
    all.sort_unstable_by_key(|transaction| transaction.end);
    Ok(all)
}

/// `client_id transaction_no time script_no time_epoch time_us`, the first time in microseconds (pgbench,
/// "Per-Transaction Logging").
fn transaction(line: &str) -> Option<Transaction> {
    let fields: Vec<u64> = line.split(' ').map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let &[_, _, took, _, second, micros] = fields.as_slice() else { return None };
    let end = Duration::from_secs(second).checked_add(Duration::from_micros(micros))?;
    Some(Transaction { end, took: Duration::from_micros(took) })
}

/// What happened between two samples in steady state, and how long that was.
fn count(
    transactions: &[Transaction],
    samples: &[(Moment, Option<Cpu>)],
    reconnect: bool,
) -> Option<(Duration, Values)> {
    // Where every transaction is a log-in, there are none before that could be counted by mistake.
    let margin = if reconnect { Duration::ZERO } else { MARGIN };
    let from = transactions.first()?.end.checked_add(margin)?;
    let until = transactions.last()?.end.checked_sub(margin)?;
    let mut inside = samples.iter().filter(|(at, _)| (from..=until).contains(at));
    let (start, before) = inside.next()?;
    let (end, after) = inside.next_back()?;
    let counted = transactions.iter().filter(|transaction| transaction.end > *start && transaction.end <= *end);
    let mut took: Vec<Duration> = counted.map(|transaction| transaction.took).collect();
    took.sort_unstable();
    let number = f64::from(u32::try_from(took.len()).ok().filter(|number| *number > 0)?);
    let window = end.checked_sub(*start)?;
    let rate = number / window.as_secs_f64();
    let used = before.as_ref().zip(after.as_ref()).map(|(before, after)| after.since(before));
    let mut values = Values::new();
    if reconnect {
        values.insert("log_ins_s", rate);
        values.extend(used.map(|used| ("cpu_ms_log_in", used.counted().as_secs_f64() * 1e3 / number)));
        return Some((window, values));
    }
    values.insert("tps", rate);
    if let Some(used) = used {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / number;
        values.insert("cpu_us", each(used.counted()));
        // Where something runs beside the data path, that too, and the sum.
        let beside = used.beside.map(|beside| [("beside_us", each(beside)), ("whole_us", each(used.whole))]);
        values.extend(beside.into_iter().flatten());
    }
    for (name, part) in [("p50_us", 50), ("p99_us", 99)] {
        let place = (took.len() * part / 100).min(took.len() - 1);
        values.extend(took.get(place).map(|took| (name, took.as_secs_f64() * 1e6)));
    }
    Some((window, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_read() {
        let expected =
            Transaction { end: Duration::from_micros(1_412_881_037_912_698), took: Duration::from_micros(2241) };
        assert_eq!(transaction("0 199 2241 0 1412881037 912698"), Some(expected));
        for wrong in ["0 84 skipped 0 1412881037 912698", "0 84 5 0 1412881037", ""] {
            assert_eq!(transaction(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_what_lies_between_two_samples_counts() {
        let ms = Duration::from_millis;
        // One transaction a millisecond for a second, each of its own number of microseconds.
        let transactions: Vec<Transaction> =
            (0..1000).map(|n| Transaction { end: ms(5000 + n), took: Duration::from_micros(n) }).collect();
        let samples: Vec<(Moment, Option<Cpu>)> = (0..80).map(|n| (ms(4990 + n * 20), None)).collect();
        let (window, values) = count(&transactions, &samples, false).unwrap();
        assert_eq!(window, ms(780));
        assert!((values["tps"] - 1000.0).abs() < 2.0, "{values:?}");
        // From 5110 to 5890 ms.
        assert!((values["p50_us"] - 501.0).abs() < 2.0 && (values["p99_us"] - 883.0).abs() < 2.0, "{values:?}");
        assert!(!values.contains_key("cpu_us"));
        assert_eq!(count(&transactions[..150], &samples, false), None, "too short");
    }
}

//! What a process has used: CPU of its threads, and memory. From `/proc` (proc(5)).

use crate::Result;
use std::collections::BTreeMap;
use std::time::Duration;

/// Length of the kernel's accounting ticks in `/proc/PID/stat`: `USER_HZ` is 100 on every Linux that Debian runs on.
const TICK: Duration = Duration::from_millis(10);

/// Names of the threads that run beside the data path, for other systems and in their own time: sinks of the audit log.
/// Those that write, sync, hash, sign and anchor it are a part of what a statement costs.
const BESIDE: [&str; 1] = ["audit-sink"];

/// CPU used up to one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// User and system time of the whole process, threads that have ended included.
    whole: Duration,
    /// Each thread that lives.
    threads: BTreeMap<u32, Thread>,
}

/// One thread, up to one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thread {
    /// Time on CPU, to the nanosecond (`schedstat`).
    time: Duration,
    /// Whether it runs beside the data path.
    beside: bool,
}

/// CPU that was used between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// By every thread.
    pub(crate) whole: Duration,
    /// By those of them that run beside the data path; `None` where there are none.
    pub(crate) beside: Option<Duration>,
}

impl Used {
    /// What counts as the peer's cost: by all threads but those that run beside the data path.
    pub(crate) fn counted(self) -> Duration {
        self.whole.saturating_sub(self.beside.unwrap_or_default())
    }
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let mut threads = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            // A thread may end while we look.
            let Ok(line) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
            let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else { continue };
            let time = line.split_whitespace().next().and_then(|time| time.parse().ok());
            let number = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(time), Some(number)) = (time, number) {
                let thread = Thread { time: Duration::from_nanos(time), beside: BESIDE.contains(&name.trim_end()) };
                threads.insert(number, thread);
            }
        }
        Ok(Self { whole: whole(&stat).ok_or("/proc/PID/stat cannot be read")?, threads })
    }

    /// Used since `before`: exact unless a thread ended meanwhile, then to the tick.
    pub(crate) fn since(&self, before: &Self) -> Used {
        let sum = |cpu: &Self, beside: bool| -> Duration {
            cpu.threads.values().filter(|thread| thread.beside || !beside).map(|thread| thread.time).sum()
        };
        let lost = before.threads.keys().any(|thread| !self.threads.contains_key(thread));
        let whole = if lost || self.threads.is_empty() {
            self.whole.saturating_sub(before.whole)
        } else {
            sum(self, false).saturating_sub(sum(before, false))
        };
        let has_beside = self.threads.values().any(|thread| thread.beside);
        Used { whole, beside: has_beside.then(|| sum(self, true).saturating_sub(sum(before, true))) }
    }
}

/// `utime` and `stime`, the 14th and 15th field; the 2nd may contain anything, and ends with the last parenthesis.
fn whole(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u32>().ok()?.saturating_add(fields.next()?.parse().ok()?);
    Some(TICK * ticks)
}

/// The process's own share of memory (`Pss`), in KiB.
pub(crate) fn memory_kib(pid: u32) -> Result<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
    Ok(kib.ok_or("smaps_rollup has no Pss")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 3 0 99";
        assert_eq!(whole(stat), Some(Duration::from_millis(1750)));
        assert_eq!(whole("42 (a"), None);
    }

    #[test]
    fn a_thread_that_ended_is_not_lost() {
        let before = cpu(100, &[(1, 61, false), (2, 42, false)]);
        let after = cpu(110, &[(1, 66, false), (2, 44, false), (3, 1, false)]).since(&before);
        assert_eq!(after, Used { whole: Duration::from_millis(8), beside: None });
        assert_eq!(cpu(110, &[(1, 66, false)]).since(&before).counted(), Duration::from_millis(10));
    }

    #[test]
    fn what_runs_beside_the_data_path_is_told_apart() {
        let ms = Duration::from_millis;
        let before = cpu(100, &[(1, 50, false), (2, 40, true)]);
        for after in [cpu(120, &[(1, 60, false), (2, 47, true)]), cpu(117, &[(2, 47, true), (3, 1, false)])] {
            let used = after.since(&before);
            assert_eq!((used.whole, used.beside, used.counted()), (ms(17), Some(ms(7)), ms(10)));
        }
    }

    #[test]
    fn a_thread_is_known_by_its_name() {
        for (name, expected) in [("audit-sink", 1), ("audit-seal", 0)] {
            let look = || Cpu::of(std::process::id()).unwrap().threads.values().filter(|thread| thread.beside).count();
            let beside = std::thread::Builder::new().name(name.to_owned()).spawn(look).unwrap().join().unwrap();
            assert_eq!(beside, expected, "{name}");
        }
    }

    fn cpu(whole: u64, threads: &[(u32, u64, bool)]) -> Cpu {
        let thread = |ms: u64, beside| Thread { time: Duration::from_millis(ms), beside };
        Cpu {
            whole: Duration::from_millis(whole),
            threads: threads.iter().map(|(id, ms, beside)| (*id, thread(*ms, *beside))).collect(),
        }
    }

    #[test]
    fn this_process_has_used_something() {
        let before = Cpu::of(std::process::id()).unwrap();
        let mut number = 0_u64;
        while Cpu::of(std::process::id()).unwrap().since(&before).counted() < Duration::from_millis(5) {
            number = std::hint::black_box(number).wrapping_add(1);
        }
        assert!(memory_kib(std::process::id()).unwrap() > 100.0);
    }
}

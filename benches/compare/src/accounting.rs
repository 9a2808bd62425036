//! What a process has used: CPU over all its threads, and memory. From `/proc` (proc(5)).

use crate::Result;
use std::collections::BTreeMap;
use std::time::Duration;

/// Length of the kernel's accounting ticks in `/proc/PID/stat`: `USER_HZ` is 100 on every Linux that Debian runs on.
const TICK: Duration = Duration::from_millis(10);

/// CPU used up to one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// User and system time of the whole process, threads that have ended included.
    whole: Duration,
    /// Time on CPU of each thread that lives, to the nanosecond (`schedstat`).
    threads: BTreeMap<u32, Duration>,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let mut threads = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            // A thread may end while we look.
            let Ok(line) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
            let time = line.split_whitespace().next().and_then(|time| time.parse().ok());
            let number = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(time), Some(number)) = (time, number) {
                threads.insert(number, Duration::from_nanos(time));
            }
        }
        Ok(Self { whole: whole(&stat).ok_or("/proc/PID/stat cannot be read")?, threads })
    }

    /// Used since `before`: exact unless a thread ended meanwhile, then to the tick.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let lost = before.threads.keys().any(|thread| !self.threads.contains_key(thread));
        if lost || self.threads.is_empty() {
            return self.whole.saturating_sub(before.whole);
        }
        let sum = |cpu: &Self| cpu.threads.values().sum::<Duration>();
        sum(self).saturating_sub(sum(before))
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
        let cpu = |whole, threads: &[(u32, u64)]| Cpu {
            whole: Duration::from_millis(whole),
            threads: threads.iter().map(|(id, ms)| (*id, Duration::from_millis(*ms))).collect(),
        };
        let before = cpu(100, &[(1, 61), (2, 42)]);
        assert_eq!(cpu(110, &[(1, 66), (2, 44), (3, 1)]).since(&before), Duration::from_millis(8));
        assert_eq!(cpu(110, &[(1, 66)]).since(&before), Duration::from_millis(10));
    }

    #[test]
    fn this_process_has_used_something() {
        let before = Cpu::of(std::process::id()).unwrap();
        let mut number = 0_u64;
        while Cpu::of(std::process::id()).unwrap().since(&before) < Duration::from_millis(5) {
            number = std::hint::black_box(number).wrapping_add(1);
        }
        assert!(memory_kib(std::process::id()).unwrap() > 100.0);
    }
}

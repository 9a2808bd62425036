//! Where and when: what a figure means nothing without.

use std::process::Command;

/// The machine in a few words.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let hypervisor = if cpu.contains(" hypervisor ") { ", virtual" } else { "" };
    format!("{cores} cores of {}{hypervisor}, Linux {}", model.unwrap_or("an unknown CPU"), kernel.trim())
}

/// When a run began, and how busy the machine was with other things.
#[derive(Debug)]
pub(crate) struct Moment {
    /// RFC 3339, to the minute.
    pub(crate) date: String,
    /// Load average of the last minute.
    pub(crate) load: f64,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN);
        let now = pgpassport::time::Clock::system().now();
        Self { date: now.strftime("%Y-%m-%d %H:%M UTC").to_string(), load }
    }
}

/// What is compared: the commit, and whether the tree has changes of its own.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let done = Command::new("git").args(arguments).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    if changed { format!("{commit} with changes") } else { commit }
}

//! A shell that outlives this process by moments: it ends what was started and removes its folder.
//!
//! It waits for the end of a pipe whose other end only this process holds. However this process ends, SIGKILL
//! included, the kernel closes the pipe.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the end of a watchdog's work is waited for.
const FAREWELL: Duration = Duration::from_secs(15);
/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// A user to run as, when this process is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unprivileged {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A running watchdog. Dropping it makes it do its work and waits for that.
#[derive(Debug)]
pub(super) struct Watchdog {
    child: Child,
}

impl Watchdog {
    /// Runs `script` with `arguments` as `$1`…; its standard input ends when the watchdog is dropped.
    /// Signals from the terminal do not reach it.
    pub(super) fn start(script: &str, arguments: &[&Path], user: Option<Unprivileged>) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("trap '' HUP INT TERM\n{script}")).arg("watchdog").args(arguments);
        run_as(&mut command, user);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(GLANCE),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        tracing::warn!("a watchdog of the simulator did not end in time");
    }
}

/// Own process group, neutral folder and environment, and the user's ids if there is one.
pub(super) fn run_as(command: &mut Command, user: Option<Unprivileged>) {
    use std::os::unix::process::CommandExt as _;
    command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").process_group(0);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done_when_the_watchdog_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        std::fs::write(&mark, "here").unwrap();
        let watchdog = Watchdog::start("cat >/dev/null; rm -f \"$1\"", &[&mark], None).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(mark.exists());
        drop(watchdog);
        assert!(!mark.exists());
    }
}

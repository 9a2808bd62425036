//! The built proxy as a child process: its output in files, its end with the value.

use crate::ports::Port;
use crate::records::recorded_bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a proxy may take to be ready, and to end.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the proxy's process goes without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Limited {
    /// Nothing.
    #[default]
    Nothing,
    /// Nothing yet: [`Proxy::fill_disk`] and [`Proxy::limit_files`] decide.
    Later,
    /// Every write to standard error fails.
    NoLog,
    /// More file descriptors than these limits.
    Descriptors {
        /// What it starts with.
        soft: u32,
        /// What it may raise that to.
        hard: u32,
    },
}

/// A running `pgpassport serve`.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    listen: Port,
    admin: Port,
    output: PathBuf,
}

/// How a child ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// Exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// Standard output and standard error, in that order.
    pub output: String,
}

/// The binary under test: `PGPASSPORT_BIN`, else the one that was built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PGPASSPORT_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("tests stand in target/PROFILE/deps");
    let path = profile.join("pgpassport");
    assert!(path.exists(), "{} is not built: run `cargo build`, or name one in PGPASSPORT_BIN", path.display());
    path
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str], environment: &BTreeMap<String, String>) -> io::Result<Ended> {
    let done = Command::new(binary()).args(arguments).envs(environment).stdin(Stdio::null()).output()?;
    let output = [done.stdout.as_slice(), done.stderr.as_slice()].concat();
    Ok(Ended { status: done.status, output: String::from_utf8_lossy(&output).into_owned() })
}

impl Proxy {
    /// Starts `serve --config` with its output in `folder`, without waiting for it.
    pub fn start(
        folder: &Path,
        config: &Path,
        ports: (Port, Port),
        environment: &BTreeMap<String, String>,
        limited: Limited,
    ) -> io::Result<Self> {
        let output = folder.join("proxy");
        let child = spawn(&output, config, environment, limited)?;
        let (listen, admin) = ports;
        Ok(Self { child, listen, admin, output })
    }

    /// Starts it once more, after it has ended, without waiting for it.
    pub fn again(&mut self, config: &Path, environment: &BTreeMap<String, String>, limited: Limited) -> io::Result<()> {
        self.child = spawn(&self.output, config, environment, limited)?;
        Ok(())
    }

    /// Ends it without a word.
    pub fn kill(&self) {
        signal(&self.child, "KILL");
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.listen.address()
    }

    /// Where operators look.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Everything written to standard output and standard error so far.
    pub fn output(&self) -> String {
        ["out", "err"]
            .map(|end| std::fs::read(self.output.with_extension(end)).unwrap_or_default())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat()
    }

    /// Waits for `/readyz` to answer 200; tells the child's output when it ends before that.
    pub async fn ready(&mut self) {
        let admin = self.admin();
        self.until(|| async move { matches!(crate::http::get(admin, "/readyz").await, Ok((200, _))) }).await;
    }

    /// Waits until connections are taken.
    pub async fn listening(&mut self) {
        let address = self.address();
        self.until(|| async move { tokio::net::TcpStream::connect(address).await.is_ok() }).await;
    }

    async fn until<F: Future<Output = bool>>(&mut self, holds: impl Fn() -> F) {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                panic!("the proxy ended with {status}:\n{}", self.output());
            }
            assert!(Instant::now() < deadline, "the proxy is not ready in {PATIENCE:?}:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `GET` on the admin listener: status and body.
    pub async fn get(&self, path: &str) -> io::Result<(u16, String)> {
        crate::http::get(self.admin(), path).await
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The most memory that the process has held so far (`VmHWM`, proc(5)), in bytes.
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux counts it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Its soft and hard limits of file descriptors.
    pub fn descriptors(&self) -> (u64, u64) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).expect("it runs");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit");
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        (numbers.next().expect("the soft limit"), numbers.next().expect("the hard limit"))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        signal(&self.child, "TERM");
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        signal(&self.child, "HUP");
    }

    /// From now on nothing that it writes may stand behind this segment's last record: a disk that is full. The process
    /// must have been started [`Limited::Later`].
    pub fn fill_disk(&self, segment: &Path) {
        self.limit_files(recorded_bytes(segment));
    }

    /// From now on no file that it writes may grow past this size, in bytes.
    pub fn limit_files(&self, size: u64) {
        self.set_limit(&size.to_string());
    }

    /// There is room again.
    pub fn free_disk(&self) {
        self.set_limit("unlimited");
    }

    /// Through `prlimit` of util-linux, which every Debian has: the standard library has no call for it. Only the soft
    /// limit is set, so that it can be raised again.
    fn set_limit(&self, limit: &str) {
        let arguments = ["--pid", &self.child.id().to_string(), &format!("--fsize={limit}:")];
        let status = Command::new("prlimit").args(arguments).status().expect("prlimit is there");
        assert!(status.success(), "the limit cannot be set");
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return Ended { status, output: self.output() };
            }
            assert!(Instant::now() < deadline, "the proxy did not end in {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn spawn(output: &Path, config: &Path, environment: &BTreeMap<String, String>, limited: Limited) -> io::Result<Child> {
    command(limited)
        .args(["serve", "--config"])
        .arg(config)
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(File::create(output.with_extension("out"))?)
        .stderr(File::create(output.with_extension("err"))?)
        .spawn()
}

/// Sends a signal to a child. Through the shell's own `kill`: the standard library has no call for it, and a small
/// Debian has no such program.
pub fn signal(child: &Child, name: &str) {
    let status =
        Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().expect("sh is there");
    assert!(status.success(), "{name} cannot be sent");
}

/// The binary, or a shell that becomes it after it has taken something away.
fn command(limited: Limited) -> Command {
    let script = match limited {
        Limited::Nothing => return Command::new(binary()),
        // Ignored signals stay ignored across `exec`: writes past the limit fail and do not end the process.
        Limited::Later => "trap '' XFSZ; exec \"$@\"".to_owned(),
        Limited::Descriptors { soft, hard } => format!("ulimit -S -n {soft}; ulimit -H -n {hard}; exec \"$@\""),
        Limited::NoLog => "exec \"$@\" 2>/dev/full".to_owned(),
    };
    let mut shell = Command::new("bash");
    shell.args(["-c", &script, "limited"]).arg(binary());
    shell
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Already ended is fine; a failing test shows the output of what it drops.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the proxy's output ----\n{}", self.output());
        }
    }
}

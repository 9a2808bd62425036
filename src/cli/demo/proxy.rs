//! The proxy as a child process: `serve` of this same program, its config in a file, its log too.

use super::Error;
use crate::sim::{Cloud, ProxyConfig};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};

/// Where clients connect, unless the port is taken.
const PREFERRED_PORT: u16 = 15432;
/// The admin listener's port, unless it is taken.
const PREFERRED_ADMIN_PORT: u16 = 19090;
/// Tries to start with ports of its own.
const START_ATTEMPTS: u32 = 5;
/// What the proxy's log says once both listeners are open.
const READY_LINE: &str = " ready address=";
/// What it says when a port is taken (`server::Error::Listen`).
const PORT_TAKEN: &str = "cannot listen on";
/// From its start until it is ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Each answer of the admin listener, and at most this many bytes of it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
const ANSWER_BYTES: u64 = 1024;
/// From the request to stop until it is given up; the script kills the proxy before.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of the proxy's log quoted when it does not run.
const LOG_TAIL: usize = 3000;
/// Sessions of other terminals are ended soon after Ctrl-C.
const EXTRA: &str = "[deadlines]\ndrain = \"2s\"\n";

/// Runs `"$1" serve --config "$2"`; tells it to stop when standard input ends, which happens however this process
/// ends, and kills it 15 s later; exits when the proxy has.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
exec 3<&0
( trap - TERM; exec "$1" serve --config "$2" ) </dev/null & proxy=$!
(
  cat <&3 >/dev/null; kill -TERM "$proxy"; tries=0
  while kill -0 "$proxy" && [ "$tries" -lt 75 ]; do sleep 0.2; tries=$((tries + 1)); done
  kill -KILL "$proxy"
) 2>/dev/null &
exec 3<&-
wait "$proxy"
"#;

/// A running proxy. Dropping it tells it to stop and waits until it has.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Where clients connect.
    pub(super) address: SocketAddr,
    /// The audit log's folder.
    pub(super) audit: PathBuf,
    admin: SocketAddr,
    log: PathBuf,
    child: Child,
    /// Its end tells the proxy to stop. Not left in `child`: waiting for that would close it.
    leash: Option<ChildStdin>,
}

impl Proxy {
    /// Starts the process and waits until it is ready. Between the look for a free port and the proxy's own bind
    /// somebody else can take it: then with other ports, a few times.
    pub(super) async fn start(cloud: &Cloud) -> Result<Self, Error> {
        let mut outcome = Self::try_start(cloud, PREFERRED_PORT, PREFERRED_ADMIN_PORT).await;
        for _ in 1..START_ATTEMPTS {
            match outcome {
                Err(Error::Proxy(reason)) if reason.contains(PORT_TAKEN) => {
                    outcome = Self::try_start(cloud, 0, 0).await;
                }
                other => return other,
            }
        }
        outcome
    }

    async fn try_start(cloud: &Cloud, port: u16, admin_port: u16) -> Result<Self, Error> {
        let folder = cloud.state_dir();
        let (address, admin) = (free(port)?, free(admin_port)?);
        let (config, log, audit) = (folder.join("pgpassport.toml"), folder.join("proxy.log"), folder.join("audit"));
        let settings = ProxyConfig { listen: address, admin, audit_folder: audit.clone(), extra: EXTRA.to_owned() };
        std::fs::write(&config, cloud.proxy_config(&settings))
            .map_err(|source| Error::io("write the config", source))?;
        let mut child = spawn(cloud, &config, &log)?;
        let leash = child.stdin.take();
        let mut proxy = Self { address, audit, admin, log, child, leash };
        proxy.ready().await?;
        Ok(proxy)
    }

    fn says_ready(&self) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().any(|line| line.contains(READY_LINE))
    }

    /// Waits until the process ends; why that is an error.
    pub(super) async fn ended(&mut self) -> Error {
        let status = self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = log.get(log.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
        Error::Proxy(format!("it ended ({status}); its log ends with:\n{}", String::from_utf8_lossy(tail)))
    }

    async fn ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + READY_DEADLINE;
        while Instant::now() < deadline {
            let answer = tokio::time::timeout(ANSWER_DEADLINE, readyz(self.admin));
            tokio::select! {
                // Another proxy may answer on that port: only the log tells that it is ours.
                answer = answer => if matches!(answer, Ok(Ok(true))) && self.says_ready() { return Ok(()) },
                error = self.ended() => return Err(error),
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Err(Error::Proxy(format!("it was not ready within {} s", READY_DEADLINE.as_secs())))
    }
}

impl Drop for Proxy {
    /// Asks it to stop, and waits: it drains.
    fn drop(&mut self) {
        drop(self.leash.take());
        let deadline = Instant::now() + STOP_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.start_kill();
                return;
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

fn spawn(cloud: &Cloud, config: &Path, log: &Path) -> Result<Child, Error> {
    let failed = |source| Error::io("start the proxy", source);
    let output = std::fs::File::create(log).map_err(failed)?;
    let program = std::env::current_exe().map_err(failed)?;
    // Its own process group: Ctrl-C reaches the demo alone, which stops the proxy in order.
    Command::new("/bin/sh")
        .args(["-c", SCRIPT, "proxy"])
        .args([&program, config])
        .envs(cloud.proxy_environment())
        .env_remove("PGPASSPORT_CONFIG")
        .stdin(Stdio::piped())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .map_err(failed)
}

/// A free port on loopback: the preferred one, or any.
fn free(preferred: u16) -> Result<SocketAddr, Error> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    bind(preferred).or_else(|_| bind(0)).map_err(|source| Error::io("find a free port", source))
}

/// `GET /readyz`: whether it answers 200.
async fn readyz(admin: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

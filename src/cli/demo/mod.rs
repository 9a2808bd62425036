//! `pgpassport demo`: the whole chain on this machine, against a simulated cloud.
//!
//! The proxy is this same program, started as `serve` with a config file, as in production. Everything that is shown
//! was read back from the other side: the caller's result, PostgreSQL's log, the proxy's records. With `--check`
//! every claim is checked, and the exit code says whether all held. Nothing is left behind.

mod caller;
mod evidence;
mod proxy;
mod report;
mod session;
mod steps;

use crate::sim::{Cloud, CloudOptions};
use caller::Caller;
use proxy::Proxy;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often the token files are renewed: well within a token's shortest lifetime of an hour.
const RENEW_EVERY: Duration = Duration::from_secs(30 * 60);

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The simulated cloud.
    #[error("the simulated cloud does not start")]
    Cloud(#[from] crate::sim::Error),
    /// The proxy's process.
    #[error("the proxy does not run: {0}")]
    Proxy(String),
    /// A file, socket or process of the demo itself.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Signing in at the simulated Entra.
    #[error("{caller} cannot sign in: {reason}")]
    SignIn {
        /// Who.
        caller: &'static str,
        /// Without tokens.
        reason: String,
    },
    /// The HTTPS client.
    #[error("cannot set up the HTTPS client")]
    Http(#[source] crate::http::Error),
}

impl Error {
    fn io(action: &'static str, source: std::io::Error) -> Self {
        Self::Io { action, source }
    }
}

/// Runs the demo: until Ctrl-C or SIGTERM, or with `check` until every step has been judged.
pub(super) fn run(check: bool) -> ExitCode {
    let shown = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::io("start the runtime", source))
        .and_then(|runtime| runtime.block_on(until_signalled(check)));
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("pgpassport demo: {}\n", crate::http::chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// The demo, which a signal ends at any time; what it started is ended by dropping it.
async fn until_signalled(check: bool) -> Result<bool, Error> {
    let failed = |source| Error::io("wait for signals", source);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::select! {
        shown = demo(check) => shown,
        // A check that was not finished has not held; a demo that was looked at long enough has.
        _ = interrupt.recv() => Ok(!check),
        _ = terminate.recv() => Ok(!check),
        _ = hangup.recv() => Ok(!check),
    }
}

/// Starts everything, shows it, and stays. The bool says whether every step held.
async fn demo(check: bool) -> Result<bool, Error> {
    tell("pgpassport demo: starting the simulated cloud, PostgreSQL and the proxy...\n");
    let cloud = Cloud::start(CloudOptions::default()).await?;
    let mut proxy = Proxy::start(&cloud).await?;
    let callers = Caller::all(&cloud);
    let http = crate::http::Client::new(Some(cloud.ca_path())).map_err(Error::Http)?;
    caller::sign_in(&cloud, &http, &callers).await?;
    let shown = steps::run(&cloud, &proxy, &callers).await?;
    show(&report::text(&cloud, &proxy, &callers, &shown));
    let held = shown.checks.all_held();
    if !check {
        show("\nRunning until Ctrl-C; then nothing is left behind.\n");
        stay(&cloud, &mut proxy, &http, &callers).await?;
    }
    // In this order: the proxy drains while its cloud is still there.
    drop(proxy);
    cloud.shutdown().await;
    Ok(held)
}

/// Renews the token files until the proxy ends by itself, which it should not.
async fn stay(cloud: &Cloud, proxy: &mut Proxy, http: &crate::http::Client, callers: &[Caller]) -> Result<(), Error> {
    let mut renew = tokio::time::interval(RENEW_EVERY);
    renew.tick().await;
    loop {
        tokio::select! {
            _ = renew.tick() => caller::sign_in(cloud, http, callers).await?,
            error = proxy.ended() => return Err(error),
        }
    }
}

/// Writes to standard output; a reader that went away does not matter.
fn show(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes to standard error.
fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

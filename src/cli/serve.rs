//! `pgpassport serve`: log, config, runtime, server, in this order; the config is whole before anything is opened.

use super::Outcome;
use crate::config::{self, Config, Problem};
use crate::http;
use crate::server;
use crate::telemetry::{self, Format};
use std::error::Error;
use std::path::PathBuf;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The config file (see config/example.toml)
    #[arg(long, value_name = "FILE", env = "PGPASSPORT_CONFIG")]
    config: PathBuf,
    /// How log lines look, on standard error
    #[arg(long, value_enum, default_value_t)]
    log_format: Format,
    /// What is logged, for instance `info,pgpassport=debug`; no level shows secrets
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", hide_env_values = true)]
    log: Option<String>,
}

/// Serves until told to stop.
pub(super) fn run(arguments: Arguments) -> Outcome {
    if let Err(error) = telemetry::init(arguments.log_format, arguments.log.as_deref()) {
        eprintln!("pgpassport: {}", chain(&error));
        return Outcome::BadConfig;
    }
    let loaded = match config::load(&arguments.config) {
        Ok(loaded) => loaded,
        Err(problems) => {
            report(&problems, arguments.log_format);
            return Outcome::BadConfig;
        }
    };
    for Problem { file, line, key, reason } in &loaded.warnings {
        tracing::warn!(file = %file.display(), line, key, "{key}: {reason}");
    }
    match serve(loaded.config, arguments.config) {
        Ok(()) => Outcome::Done,
        Err(error) => {
            tracing::error!(error = chain(error.as_ref()), blame = "proxy", "the proxy ended");
            Outcome::Failed
        }
    }
}

fn serve(config: Config, source: PathBuf) -> Result<(), Box<dyn Error + Send + Sync>> {
    // Libraries that build TLS clients of their own look for a process-wide provider; ours are told theirs.
    // An error means that one is set already, by a test.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Connections have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(server::run(config, source))?)
}

/// As a compiler does, for people; as events, for what collects JSON.
fn report(problems: &[Problem], format: Format) {
    for problem in problems {
        let Problem { file, line, key, reason } = problem;
        match format {
            Format::Text => eprintln!("{problem}"),
            Format::Json => tracing::error!(file = %file.display(), line, key, "{key}: {reason}"),
        }
    }
    if format == Format::Text {
        eprintln!("pgpassport: the config has {} problem(s); nothing was opened", problems.len());
    }
}

/// An error and its causes on one line, without what looks like a credential.
fn chain(error: &(dyn Error + 'static)) -> String {
    telemetry::redact(&http::chain(error)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn an_error_is_told_with_its_sources_and_without_tokens() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot bind {address}")]
        struct Bind {
            address: &'static str,
            source: io::Error,
        }
        let error = Bind { address: "127.0.0.1:5432", source: io::Error::other("in use by eyJhbGciOi.eyJz.c2ln") };
        assert_eq!(chain(&error), "cannot bind 127.0.0.1:5432: in use by [redacted]");
    }
}

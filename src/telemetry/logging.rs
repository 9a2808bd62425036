//! The process's log: format, filter, and the levels that a few dependencies never pass.

use super::redact::Redacting;
use std::io;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged when nobody says otherwise.
const DEFAULT_FILTER: &str = "info";

/// The most that a dependency may log, whatever the filter asks for. Only those that print what could be used or
/// read by others; the rest may be turned up to TRACE.
const CAPS: [(&str, Level); 3] = [
    // TRACE prints session tickets, certificates and whole handshake messages.
    ("rustls", Level::DEBUG),
    // TRACE prints the bytes of a connection, when its builder asks for `connection_verbose`.
    ("reqwest::connect", Level::DEBUG),
    // DEBUG prints statements with their literals.
    ("tokio_postgres", Level::INFO),
];

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one; syntax: `tracing_subscriber::EnvFilter`.
    #[error("the log filter {filter:?} cannot be read")]
    Filter {
        /// As it was given.
        filter: String,
        /// The parser's reason.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process logs already.
    #[error("logging is set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts the process's log on stderr: spans and events of `tracing` and records of the `log` crate.
///
/// `filter` is a list of directives (`info,pgpassport=debug`); an empty one counts as none.
pub fn init(format: Format, filter: Option<&str>) -> Result<(), Error> {
    subscriber(format, filter, io::stderr)?.try_init().map_err(Error::Twice)
}

/// The same without making it the process's own, for tests.
fn subscriber<W>(format: Format, filter: Option<&str>, writer: W) -> Result<impl Subscriber + Send + Sync, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(DEFAULT_FILTER);
    let parsed = EnvFilter::try_new(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })?;
    let layer = tracing_subscriber::fmt::layer().with_writer(Redacting::new(writer)).with_ansi(false);
    let layer = match format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(parsed.and(filter_fn(under_cap)))))
}

fn under_cap(metadata: &Metadata<'_>) -> bool {
    let within =
        |cap: &str| metadata.target().strip_prefix(cap).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    CAPS.iter().all(|(target, most)| !within(target) || metadata.level() <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: Option<&str>, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, filter, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiI1ZjJjIn0.c2lnbmF0dXJl";

    #[test]
    fn tokens_in_messages_fields_and_spans_are_redacted_in_both_formats() {
        for format in [Format::Text, Format::Json] {
            let log = logged(format, Some("trace"), || {
                let span = tracing::trace_span!("hop", token = TOKEN, header = ?Some(TOKEN));
                let _entered = span.enter();
                tracing::trace!(target: "hyper::proto", bytes = ?TOKEN.as_bytes(), "sent {TOKEN} and ya29.d.c0ffee-1");
            });
            assert!(log.contains("sent [redacted] and [redacted]"), "{log}");
            assert!(!log.contains("eyJ") && !log.contains("c2lnbmF0dXJl") && !log.contains("c0ffee"), "{log}");
            assert!(!log.contains("101, 121, 74") && !log.contains("101,121,74"), "{log}");
            if format == Format::Json {
                let event: serde_json::Value = serde_json::from_str(log.trim()).expect("still JSON");
                assert_eq!(event["target"], "hyper::proto");
            }
        }
    }

    #[test]
    fn caps_hold_against_every_filter_and_bind_nobody_else() {
        for filter in ["trace", "rustls=trace,reqwest=trace,tokio_postgres=trace,rustls_native_certs=trace"] {
            let log = logged(Format::Text, Some(filter), || {
                tracing::trace!(target: "rustls::client::hs", "A ticket");
                tracing::debug!(target: "rustls::client::hs", "B suite");
                tracing::trace!(target: "reqwest::connect::verbose", "C bytes");
                tracing::trace!(target: "reqwest::retry", "D retry");
                tracing::debug!(target: "tokio_postgres::query", "E statement");
                tracing::trace!(target: "rustls_native_certs", "F other crate");
            });
            for (word, wanted) in [
                ("A ticket", false),
                ("B suite", true),
                ("C bytes", false),
                ("D retry", true),
                ("E statement", false),
                ("F other", true),
            ] {
                assert_eq!(log.contains(word), wanted, "{filter}: {word}: {log}");
            }
        }
    }

    #[test]
    fn the_default_is_info_and_a_bad_filter_is_an_error() {
        for filter in [None, Some(""), Some("  ")] {
            let log = logged(Format::Text, filter, || {
                tracing::info!("shown");
                tracing::debug!("hidden");
            });
            assert!(log.contains("shown") && !log.contains("hidden"), "{log}");
        }
        let error = subscriber(Format::Text, Some("pgpassport=loud"), io::sink).err().expect("no such level");
        assert_eq!(error.to_string(), "the log filter \"pgpassport=loud\" cannot be read");
    }
}

//! The command line: `--name value`, every one of them needed.

use std::net::SocketAddr;
use std::path::PathBuf;

const USAGE: &str = "--listen IP:PORT --server IP:PORT --certificate PEM --key PEM --ca PEM --buffer-kib N \
                     --runtime current_thread|multi_thread";

/// Which of tokio's runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    CurrentThread,
    MultiThread,
}

/// What it is told.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) listen: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Who signed the server's certificate.
    pub(crate) ca: PathBuf,
    /// Of each direction's buffer, in bytes.
    pub(crate) buffer: usize,
    pub(crate) runtime: Runtime,
}

impl Arguments {
    /// Reads them, or says how.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let words: Vec<String> = words.collect();
        let value = |name: &str| {
            let mut pairs = words.chunks_exact(2);
            let found = pairs.find_map(|pair| matches!(pair, [key, _] if key == name).then(|| pair.last())).flatten();
            found.ok_or_else(|| format!("{name} is missing; usage: {USAGE}"))
        };
        let address = |name: &str| value(name)?.parse().map_err(|error| format!("{name}: {error}"));
        let buffer: usize = value("--buffer-kib")?.parse().map_err(|error| format!("--buffer-kib: {error}"))?;
        let runtime = match value("--runtime")?.as_str() {
            "current_thread" => Runtime::CurrentThread,
            "multi_thread" => Runtime::MultiThread,
            other => return Err(format!("--runtime {other}: not one of current_thread, multi_thread")),
        };
        Ok(Self {
            listen: address("--listen")?,
            server: address("--server")?,
            certificate: value("--certificate")?.into(),
            key: value("--key")?.into(),
            ca: value("--ca")?.into(),
            buffer: buffer.saturating_mul(1024),
            runtime,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_argument_is_needed_and_read() {
        let line = "--listen 127.0.0.1:1 --server 127.0.0.1:2 --certificate c --key k --ca a --buffer-kib 64 \
                    --runtime current_thread";
        let arguments = parsed(line).unwrap();
        assert_eq!((arguments.buffer, arguments.runtime), (65_536, Runtime::CurrentThread));
        assert_eq!((arguments.listen.port(), arguments.server.port()), (1, 2));
        for (from, to) in [("--ca a", ""), ("64", "many"), ("current_thread", "both"), ("127.0.0.1:2", "there")] {
            assert!(parsed(&line.replace(from, to)).is_err(), "{to}");
        }
    }
}

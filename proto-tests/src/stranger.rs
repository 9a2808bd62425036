//! Clients that no one here wrote, as child processes: a JSON request a line in, one answer a line out.
//!
//! The scripts are in `proto-tests/strangers`; `.ci/strangers.sh` installs what they need, pinned.

use pgpassport::sim::Cloud;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long one act may take; the slowest retry for some seconds.
const DEADLINE: Duration = Duration::from_secs(90);

/// Bytes of a script's log that are shown.
const LOG_TAIL: usize = 4000;

/// A running script. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Stranger {
    _child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

/// What a client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It got what it wanted; what that is, in a few words.
    Works(String),
    /// Its own exception: class or code, and text.
    Refused(String),
}

impl Stranger {
    /// The Python clients, in front of this cloud.
    pub fn python(cloud: &Cloud) -> Self {
        let python = root().join(".cache/strangers/venv/bin/python");
        Self::start(cloud, &python, "stranger.py")
    }

    /// The Node client.
    pub fn node(cloud: &Cloud) -> Self {
        Self::start(cloud, Path::new("node"), "connector.mjs")
    }

    /// The environment has nothing of this process's (no proxies, no credentials), and trusts the simulated cloud's CA.
    fn start(cloud: &Cloud, interpreter: &Path, script: &str) -> Self {
        let scripts = root().join("proto-tests/strangers");
        let log = cloud.state_dir().join(format!("{script}.log"));
        let errors = std::fs::File::create(&log).expect("a log");
        let browser = format!("{} {} %s &", interpreter.display(), scripts.join("browser.py").display());
        let mut child = Command::new(interpreter)
            .arg(scripts.join(script))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", cloud.state_dir())
            .env("LC_ALL", "C.UTF-8")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("REQUESTS_CA_BUNDLE", cloud.ca_path())
            .env("SSL_CERT_FILE", cloud.ca_path())
            .env("NODE_EXTRA_CA_CERTS", cloud.ca_path())
            // What would leave loopback (google-auth looks up where its tokens may be used) ends at a closed port.
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("BROWSER", browser)
            .env("STRANGER_FOLDER", cloud.state_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run .ci/strangers.sh", interpreter.display()));
        let requests = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { _child: child, requests, answers, log }
    }

    /// One act.
    pub async fn act(&mut self, request: &Value) -> Outcome {
        let asked = async {
            self.requests.write_all(format!("{request}\n").as_bytes()).await.ok()?;
            self.answers.next_line().await.ok()?
        };
        let line = tokio::time::timeout(DEADLINE, asked).await.ok().flatten();
        let line = line.unwrap_or_else(|| panic!("no answer to {}; its log:\n{}", plain(request), self.log()));
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        match (answer["ok"].as_str(), answer["error"].as_str()) {
            (Some(ok), None) => Outcome::Works(ok.to_owned()),
            (None, Some(error)) => Outcome::Refused(error.to_owned()),
            _ => panic!("not an answer: {line}"),
        }
    }

    /// The end of what the script and its libraries wrote to standard error.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned()
    }
}

/// Members of `more` laid over those of `base`.
#[must_use]
pub fn with(base: &Value, more: Value) -> Value {
    let mut joined = base.clone();
    if let (Some(joined), Value::Object(more)) = (joined.as_object_mut(), more) {
        joined.extend(more);
    }
    joined
}

/// The request without what must not be printed.
fn plain(request: &Value) -> Value {
    with(request, json!({ "subject_token": "…", "assertion": "…", "secret": "…", "password": "…", "platform": "…" }))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

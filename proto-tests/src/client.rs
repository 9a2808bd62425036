//! The built binary as a person's client: `pgpassport token` and `pgpassport psql`, with a browser and an `az` that
//! tests control.

use crate::proxy::binary;
use pgpassport::http::Client;
use pgpassport::sim::Cloud;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

/// How long one run may take, sign-in and query included.
const DEADLINE: Duration = Duration::from_secs(60);

/// A person's home: settings, programs in `PATH`, environment.
#[derive(Debug)]
pub struct Person {
    home: TempDir,
    environment: Vec<(String, String)>,
}

/// What one run printed.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error, without what was read from it before.
    pub err: String,
}

/// A run that has not ended.
#[derive(Debug)]
pub struct Running {
    child: Child,
    err: BufReader<ChildStderr>,
}

impl Default for Person {
    fn default() -> Self {
        Self::new()
    }
}

impl Person {
    /// An empty home, and the machine's own programs except `az`.
    pub fn new() -> Self {
        let person = Self { home: tempfile::tempdir().expect("a folder"), environment: Vec::new() };
        std::fs::create_dir(person.programs()).expect("a folder");
        person
    }

    /// Writes the settings file where it is looked for by default.
    pub fn settings(&self, text: &str) -> PathBuf {
        let folder = self.home.path().join(".config/pgpassport");
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("client.toml");
        std::fs::write(&path, text).expect("the settings are written");
        path
    }

    /// Installs a shell script as a program. Its arguments are kept in a file beside it.
    pub fn program(&self, name: &str, script: &str) {
        let path = self.programs().join(name);
        let asked = self.asked_path(name);
        std::fs::write(&path, format!("#!/bin/sh\necho \"$@\" >>'{}'\n{script}\n", asked.display())).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }

    /// An Azure CLI that is signed in and gives this token, printed as the real one prints it.
    pub fn az(&self, token: &str) {
        let answer = serde_json::json!({
            "accessToken": token, "expiresOn": "2026-11-22 06:00:00.000000", "expires_on": 1_795_327_200,
            "subscription": "00000000-0000-0000-0000-000000000000", "tenant": "t", "tokenType": "Bearer",
        });
        let file = self.home.path().join("az.json");
        std::fs::write(&file, answer.to_string()).expect("written");
        self.program("az", &format!("exec cat '{}'", file.display()));
    }

    /// How a program was called, one run a line; empty when it was not.
    pub fn asked(&self, name: &str) -> String {
        std::fs::read_to_string(self.asked_path(name)).unwrap_or_default()
    }

    /// An environment variable of the runs.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Runs to the end.
    pub async fn run(&self, arguments: &[&str]) -> Said {
        self.start(arguments).ended().await
    }

    /// Starts a run.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let path = std::env::join_paths([&self.programs(), Path::new("/usr/bin"), Path::new("/bin")]).expect("a PATH");
        let mut child = Command::new(binary())
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("LC_ALL", "C.UTF-8")
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary runs");
        let err = BufReader::new(child.stderr.take().expect("piped"));
        Running { child, err }
    }

    /// Where [`Person::program`] puts programs.
    pub fn programs(&self) -> PathBuf {
        self.home.path().join("bin")
    }

    fn asked_path(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("{name}.asked"))
    }
}

impl Running {
    /// Reads the page and the code that a person is told.
    pub async fn prompt(&mut self) -> (String, String) {
        let mut line = String::new();
        let read = tokio::time::timeout(DEADLINE, self.err.read_line(&mut line)).await;
        read.expect("told in time").expect("standard error can be read");
        let told = line.trim().strip_prefix("To sign in, open ");
        let told = told.and_then(|rest| rest.split_once(" in a browser and enter the code "));
        let (page, code) = told.unwrap_or_else(|| panic!("no prompt: {line:?}"));
        (page.to_owned(), code.to_owned())
    }

    /// Waits for the end.
    pub async fn ended(self) -> Said {
        let Self { mut child, mut err } = self;
        let mut out = child.stdout.take().expect("piped");
        let (mut printed, mut told) = (String::new(), String::new());
        let all = async {
            let read = tokio::join!(out.read_to_string(&mut printed), err.read_to_string(&mut told));
            read.0.and(read.1).expect("UTF-8");
            child.wait().await.expect("it ends")
        };
        let status = tokio::time::timeout(DEADLINE, all).await.expect("it ends in time");
        Said { code: status.code().unwrap_or(-1), out: printed, err: told }
    }
}

impl Said {
    /// Standard output of a run that went well.
    #[track_caller]
    pub fn well(&self) -> &str {
        assert_eq!(self.code, 0, "it failed: {}", self.err);
        self.out.trim_end()
    }

    /// Standard error of a run that ended with this code and printed nothing.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.out, "", "a failed run printed something");
        &self.err
    }
}

/// What a person does in the browser: `approve` or `decline`.
pub async fn browser(cloud: &Cloud, page: &str, code: &str, login: &str, decision: &str) {
    let http = Client::new(Some(cloud.ca_path())).expect("a client");
    let form = [("otc", code), ("login", login), ("decision", decision)];
    let answer = http.post_form(page, &form, DEADLINE).await.expect("the page answers");
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}

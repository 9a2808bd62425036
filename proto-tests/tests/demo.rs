//! `pgpassport demo`: every step holds, and nothing is left behind, however it ends.

use proto_tests::proxy::{self, PATIENCE};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder for the demo's own, which the database's unprivileged user may pass through.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("pgpassport-test-demo-").tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).expect("its mode");
    folder
}

/// Waits until the folder is empty and no process has it in its arguments.
fn nothing_left(folder: &Path) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path().display().to_string())
            .collect();
        left.extend(processes_with(folder));
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(left.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn processes_with(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(folder.to_str().expect("UTF-8"))).map(|line| line.replace('\0', " ")).collect()
}

#[test]
fn every_step_holds_and_nothing_is_left() {
    let folder = folder();
    let environment = BTreeMap::from([("TMPDIR".to_owned(), folder.path().display().to_string())]);
    let ended = proxy::run(&["demo", "--check"], &environment).expect("runs");
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    for shown in
        ["sslmode=verify-full", "/*app='", "caller='analyst%40contoso.example'", "28000", "correlation id", "HINT"]
    {
        assert!(ended.output.contains(shown), "{shown} is not shown:\n{}", ended.output);
    }
    nothing_left(folder.path()).unwrap_or_else(|left| panic!("left behind:\n{left}"));
}

#[test]
fn it_stays_until_it_is_told_to_stop_and_then_leaves_nothing() {
    // INT is Ctrl-C; TERM is how a service manager ends it; KILL gives it no chance to clean up itself.
    for signal in ["INT", "TERM", "KILL"] {
        println!("{signal}");
        let folder = folder();
        let log = folder.path().with_extension("log");
        let mut demo = Command::new(proxy::binary())
            .arg("demo")
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("starts");
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&log).expect("the log").contains("WHAT IS ON RECORD") {
            assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(&log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_millis(500));
        assert!(matches!(demo.try_wait(), Ok(None)), "it stays up");
        assert!(!processes_with(folder.path()).is_empty(), "this test sees the demo's database");
        let sent = Command::new("kill").args([&format!("-{signal}"), &demo.id().to_string()]).status();
        assert!(sent.expect("`kill` is there").success());
        demo.wait().expect("ends");
        std::fs::remove_file(&log).expect("the log");
        nothing_left(folder.path()).unwrap_or_else(|left| panic!("left behind after {signal}:\n{left}"));
    }
}

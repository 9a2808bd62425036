//! Nothing is left behind: in order, dropped, or killed.

use crate::sim::{Cloud, CloudOptions};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a cloud leaves to look for: its folders and PostgreSQL's process.
fn traces(cloud: &Cloud) -> (Vec<PathBuf>, u32) {
    let postgres = cloud.postgres_log().parent().unwrap().to_owned();
    let pid = std::fs::read_to_string(postgres.join("data/postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap().parse().unwrap();
    (vec![cloud.state_dir().to_owned(), postgres], pid)
}

fn gone(folders: &[PathBuf], pid: u32) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let deadline = Instant::now() + Duration::from_secs(15);
    while Instant::now() < deadline {
        if !process.exists() && folders.iter().all(|folder| !folder.exists()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[tokio::test]
async fn two_clouds_run_at_once_and_leave_nothing() {
    let start = || Cloud::start(CloudOptions::default());
    let (one, other) = tokio::join!(start(), start());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.instance_address(), other.instance_address());
    let ((folders, pid), (other_folders, other_pid)) = (traces(&one), traces(&other));
    let address = one.instance_address();
    one.shutdown().await;
    assert!(gone(&folders, pid));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    drop(other);
    assert!(gone(&other_folders, other_pid));
}

#[tokio::test]
#[ignore = "the victim of a_killed_process_leaves_nothing"]
async fn victim() {
    let cloud = Cloud::start(CloudOptions::default()).await.unwrap();
    let (folders, pid) = traces(&cloud);
    println!("\nTRACES {pid} {} {}", folders[0].display(), folders[1].display());
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[test]
fn a_killed_process_leaves_nothing() {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sim::tests::cleanup::victim", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with("TRACES ")).unwrap();
    let parts: Vec<&str> = line.split(' ').collect();
    let (pid, folders) = (parts[1].parse().unwrap(), [PathBuf::from(parts[2]), PathBuf::from(parts[3])]);
    assert!(folders.iter().all(|folder| folder.exists()));
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(gone(&folders, pid), "PostgreSQL {pid} or {folders:?} outlived a SIGKILL");
}

//! Child processes that end with this one, however it ends.
//!
//! Each is started by a shell that waits for the end of a pipe whose other end only this process holds; then the shell
//! ends the child. A folder goes the same way.

use crate::Result;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};

/// `$1` the signal that ends the child, `$2` its log; the rest is the child. Says the child's process id.
const CHILD: &str = r#"
trap '' HUP INT TERM
signal=$1 log=$2
shift 2
(trap - HUP INT TERM; exec "$@") >>"$log" 2>&1 </dev/null & child=$!
echo "$child"
cat >/dev/null
kill -"$signal" "$child" 2>/dev/null
wait "$child"
"#;

/// Removes the folder `$1`; whoever still writes into it is about to end.
const FOLDER: &str = r#"
trap '' HUP INT TERM
echo 0
cat >/dev/null
for second in 1 2 3 4 5; do rm -rf "$1" && break; sleep 1; done
"#;

/// A user to run as, when this process is root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unprivileged {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// How to start a child.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) log: PathBuf,
    pub(crate) user: Option<Unprivileged>,
    /// What ends it: at once `QUIT` for PostgreSQL, `KILL` for whatever has no children; in order `TERM`.
    pub(crate) signal: &'static str,
}

/// A running child. Dropping it ends it and waits for that.
#[derive(Debug)]
pub(crate) struct Child {
    shell: Process,
    pid: u32,
    log: PathBuf,
}

impl Child {
    pub(crate) fn start(start: &Start) -> Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", CHILD, "child", start.signal]).arg(&start.log).args(&start.command);
        shell.envs(&start.environment);
        if let Some(user) = &start.user {
            shell.uid(user.uid).gid(user.gid).current_dir("/");
        }
        let (shell, pid) = begin(shell)?;
        Ok(Self { shell, pid, log: start.log.clone() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid)).exists()
    }

    /// The end of its output.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        end(&mut self.shell);
    }
}

/// A temporary folder that others may enter; removed when this value or the process goes.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    shell: Process,
}

impl Folder {
    pub(crate) fn create() -> Result<Self> {
        let path = tempfile::Builder::new().prefix("pgpassport-bench-").tempdir()?.keep();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", FOLDER, "folder"]).arg(&path);
        let (shell, _) = begin(shell)?;
        // PostgreSQL's user must get to its own folder inside.
        std::fs::set_permissions(&path, Permissions::from_mode(0o711))?;
        Ok(Self { path, shell })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        end(&mut self.shell);
    }
}

/// Starts a shell in a process group of its own, out of the terminal's reach, and reads the number that it says.
fn begin(mut shell: Command) -> Result<(Process, u32)> {
    let mut shell =
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = shell.stdout.take().ok_or("a shell without an output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok((shell, line.trim().parse().map_err(|_| format!("a shell said {line:?} in place of a number"))?))
}

fn end(shell: &mut Process) {
    drop(shell.stdin.take());
    let _ = shell.wait();
}

/// The user that servers run as which refuse to be root; `None` when this process is not root.
pub(crate) fn unprivileged() -> Result<Option<Unprivileged>> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Unprivileged { name: name.to_owned(), uid, gid })
    };
    Ok(Some(find("postgres").or_else(|| find("nobody")).ok_or("no unprivileged user")?))
}

/// Runs a command to its end; its output, or an error that has it.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {name}: {error}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(text);
    }
    Err(format!("{name}: {}\n{text}{}", done.status, String::from_utf8_lossy(&done.stderr)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_and_a_folder_end_with_their_values() {
        let folder = Folder::create().unwrap();
        let path = folder.path().to_owned();
        let start = Start {
            command: ["sh", "-c", "echo \"$WORD\"; exec sleep 60"].map(str::to_owned).to_vec(),
            environment: BTreeMap::from([("WORD".to_owned(), "here".to_owned())]),
            log: path.join("log"),
            user: None,
            signal: "KILL",
        };
        let child = Child::start(&start).unwrap();
        while child.last_words() != "here" {
            assert!(child.is_alive());
            std::thread::yield_now();
        }
        let process = PathBuf::from(format!("/proc/{}", child.pid()));
        assert!(process.exists());
        drop(child);
        assert!(!process.exists());
        drop(folder);
        assert!(!path.exists());
    }
}

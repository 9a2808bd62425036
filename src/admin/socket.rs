//! The admin socket: a Unix socket that its owner alone can open.
//!
//! Promises: no moment at which somebody else could connect (it is made inside a folder of its own, mode 0700, and moved
//! into place with mode 0600); nobody else can put another one in its place (the folder is ours or root's, and nobody else
//! may write there or above); a socket that somebody listens on is not taken away, one that nobody does is replaced; who
//! connects is asked of the kernel; a slow or endless question costs one of a few places for a short time.

use super::operator::{Answer, Operations, Question};
use rustix::process::geteuid;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// The longest path, in bytes: `sun_path` has 108, and the socket is made a little deeper than it will be.
pub const MAX_PATH_BYTES: usize = 90;
/// Questions answered at a time; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 8;
/// The longest question, in bytes.
const MAX_QUESTION_BYTES: u64 = 4096;
/// From accept until the answer is written.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Mode bits: the group or everybody may write.
const OTHERS_WRITE: u32 = 0o022;
/// Mode bit: only who owns a file renames or deletes it.
const STICKY: u32 = 0o1000;

/// A socket that is listened on; its file goes when this is dropped, if it is still the same.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    owner: u32,
}

impl AdminSocket {
    /// Listens at `path`; must be called inside a runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let folder = folder_of(path);
        refuse_folder(&fs::canonicalize(folder)?, geteuid().as_raw())?;
        refuse_what_is_there(path)?;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let private = folder.join(format!(".{}", name.get(..8).unwrap_or(&name)));
        DirBuilder::new().mode(0o700).create(&private)?;
        let made = private.join("s");
        let bound = UnixListener::bind(&made).and_then(|listener| {
            fs::set_permissions(&made, Permissions::from_mode(0o600))?;
            let metadata = fs::symlink_metadata(&made)?;
            fs::rename(&made, path)?;
            let (device, inode, owner) = (metadata.dev(), metadata.ino(), metadata.uid());
            Ok(Self { listener, file: SocketFile { path: path.to_owned(), device, inode, owner } })
        });
        if bound.is_err() {
            let _ = fs::remove_file(&made);
        }
        fs::remove_dir(&private)?;
        bound
    }

    /// Answers until it is dropped.
    pub async fn serve(self, operations: Operations) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (operations, owner) = (operations.clone(), self.file.owner);
                    tokio::spawn(async move {
                        if !matches!(timeout(DEADLINE, answer(stream, &operations, owner)).await, Ok(Ok(()))) {
                            tracing::debug!("an operator's question broke off");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, blame = "proxy", "the admin socket cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = |file: &fs::Metadata| (file.dev(), file.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(|file| same(&file)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The folder of a socket.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A folder in which somebody else could put another socket, or itself in the place of: who asks there would ask them.
/// Above it a sticky folder will do, in which nobody renames what is another's.
fn refuse_folder(folder: &Path, own: u32) -> io::Result<()> {
    for (above, place) in folder.ancestors().enumerate() {
        let metadata = fs::metadata(place)?;
        let mode = metadata.mode();
        let problem = if metadata.uid() != own && metadata.uid() != 0 {
            format!("belongs to uid {}, neither to the proxy's own user nor to root", metadata.uid())
        } else if mode & OTHERS_WRITE != 0 && (above == 0 || mode & STICKY == 0) {
            format!("can be written by others (mode {:04o}); take that right away (chmod go-w)", mode & 0o7777)
        } else {
            continue;
        };
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("the folder {} {problem}", place.display()),
        ));
    }
    Ok(())
}

/// Only a socket that nobody listens on is in nobody's use.
fn refuse_what_is_there(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"))
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        },
    }
}

/// One question, one answer. The mode lets the owner in and nobody else, but for root; the kernel's word is checked all
/// the same.
async fn answer(mut stream: UnixStream, operations: &Operations, owner: u32) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (read, mut write) = stream.split();
    // Read even of who may not ask: a close with unread bytes would reset the answer away.
    let mut line = Vec::new();
    BufReader::new(read.take(MAX_QUESTION_BYTES)).read_until(b'\n', &mut line).await?;
    let answer = if may_ask(uid, owner) {
        match serde_json::from_slice::<Question>(&line) {
            Ok(question) => operations.answer(&question, uid),
            Err(_) => Answer::Refused { reason: "the question is not understood".to_owned() },
        }
    } else {
        tracing::warn!(uid, "somebody else was refused at the admin socket");
        Answer::Refused { reason: "only the proxy's own user and root may ask".to_owned() }
    };
    let mut text = serde_json::to_vec(&answer).map_err(io::Error::from)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    write.shutdown().await
}

fn may_ask(uid: u32, owner: u32) -> bool {
    uid == owner || uid == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::operator::Chosen;
    use crate::audit::Auditor;
    use crate::audit::testing::MemoryLog;
    use crate::session::Sessions;
    use crate::time::Clock;

    fn operations(log: &MemoryLog) -> Operations {
        let clock = Clock::system();
        let auditor = Auditor::new(Arc::new(log.clone()), 1, clock.clone());
        Operations { sessions: Sessions::default(), auditor, clock, drain: Arc::new(|| Duration::from_secs(1)) }
    }

    async fn ask(path: &Path, question: &[u8]) -> Answer {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // Who sends too much may be answered before all is sent, and cut off.
        let _ = stream.write_all(question).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        serde_json::from_slice(&answer).unwrap()
    }

    #[tokio::test]
    async fn it_is_its_owners_alone_and_goes_with_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let log = MemoryLog::default();
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        let task = tokio::spawn(socket.serve(operations(&log)));
        assert_eq!(ask(&path, b"{\"ask\":\"sessions_list\"}\n").await, Answer::Sessions { sessions: Vec::new() });
        let lines = log.lines();
        assert_eq!((&lines[0]["event"], &lines[0]["action"]), (&"operator_action".into(), &"sessions_list".into()));
        assert_eq!(lines[0]["uid"], fs::metadata(folder.path()).unwrap().uid());
        task.abort();
        let _ = task.await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_what_is_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a process that was killed leaves it behind");
        let first = AdminSocket::bind(&path).unwrap();
        assert_eq!(AdminSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        fs::write(&path, "a file").unwrap();
        assert_eq!(AdminSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn the_proxys_own_user_and_root_may_ask() {
        for (uid, owner, may) in [(0, 0, true), (0, 100, true), (100, 100, true), (101, 100, false), (100, 0, false)] {
            assert_eq!(may_ask(uid, owner), may, "{uid} asks {owner}'s");
        }
    }

    #[tokio::test]
    async fn a_folder_that_others_can_write_to_or_above_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, mode) = (folder.path().join("run"), |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        });
        fs::create_dir(&inner).unwrap();
        let path = inner.join("admin.sock");
        for (of_outer, of_inner, refused) in [
            (0o700, 0o755, None),
            (0o755, 0o775, Some("run can be written by others (mode 0775)")),
            (0o755, 0o702, Some("run can be written by others (mode 0702)")),
            // The socket's own folder: nobody could replace it there, but put one there first.
            (0o755, 0o1777, Some("run can be written by others (mode 1777)")),
            (0o777, 0o755, Some("can be written by others (mode 0777)")),
            (0o1777, 0o755, None),
        ] {
            mode(folder.path(), of_outer);
            mode(&inner, of_inner);
            match (AdminSocket::bind(&path), refused) {
                (Ok(_), None) => {}
                (Err(error), Some(reason)) => assert!(error.to_string().contains(reason), "{error}"),
                (bound, _) => panic!("{of_outer:o} {of_inner:o}: {bound:?}"),
            }
            assert_eq!(fs::read_dir(&inner).unwrap().count(), 0, "nothing is left");
        }
        mode(folder.path(), 0o700);
        let own = fs::metadata(&inner).unwrap().uid();
        let error = refuse_folder(&inner, own + 1).err();
        assert_eq!(error.is_some(), own != 0, "root's folders are right for everybody, other users' for nobody else");
    }

    #[tokio::test]
    async fn questions_that_are_none_name_nobody_or_cannot_be_recorded_do_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let log = MemoryLog::default();
        tokio::spawn(AdminSocket::bind(&path).unwrap().serve(operations(&log)));
        let endless = vec![b' '; 8192];
        for question in [b"{}\n".as_slice(), b"GET / HTTP/1.1\n", b"{\"ask\":\"sessions_end\"}\n", &endless] {
            let answer = ask(&path, question).await;
            assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
        }
        assert!(log.lines().is_empty());
        log.fail(true);
        let chosen = Chosen { who: Some("analyst".to_owned()), ..Chosen::default() };
        let end = serde_json::to_string(&Question::SessionsEnd(chosen)).unwrap() + "\n";
        let Answer::Refused { reason } = ask(&path, end.as_bytes()).await else { panic!("it was done") };
        assert!(reason.contains("audit log"), "{reason}");
        log.fail(false);
        assert_eq!(ask(&path, end.as_bytes()).await, Answer::Ended { sessions: 0 });
        assert_eq!(log.lines()[0]["who"], "analyst");
    }
}

//! Asking the running proxy on this machine, over its admin socket.

use super::Outcome;
use crate::admin::{Answer, Question, folder_of};
use crate::config;
use clap::builder::{OsStringValueParser, TypedValueParser};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the proxy may take for each read and write.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer, in bytes: about 100,000 sessions.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Where the proxy listens for operators. Not exclusive: the environment counts as given, and must not be in the way of
/// a socket on the command line.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Place {
    /// The proxy's config file, whose admin.socket is used
    #[arg(long, value_name = "FILE", env = "PGPASSPORT_CONFIG", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    config: Option<PathBuf>,
    /// The proxy's admin socket; stronger than --config
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Place {
    #[cfg(test)]
    pub(super) fn at(socket: PathBuf) -> Self {
        Self { config: None, socket: Some(socket) }
    }

    /// What is done. What is not has been said on `err`.
    pub(super) fn ask(&self, question: &Question, err: &mut impl Write) -> Result<Answer, Outcome> {
        let (outcome, reason) = match self.try_ask(question) {
            Ok(Answer::Refused { reason }) => (Outcome::Failed, visible(&reason)),
            Ok(answer) => return Ok(answer),
            Err(wrong) => wrong,
        };
        let _ = writeln!(err, "pgpassport: {reason}");
        Err(outcome)
    }

    fn try_ask(&self, question: &Question) -> Result<Answer, (Outcome, String)> {
        let path = self.path().map_err(|reason| (Outcome::BadConfig, reason))?;
        ask(&path, &self.owners(&path), question).map_err(|unasked| {
            let shown = path.display();
            let reason = match unasked {
                Unasked::Stranger(uid) => format!(
                    "{shown} is served by uid {uid}, which is neither root, nor you, nor the owner of its folder or of \
                     the config; nothing was asked"
                ),
                Unasked::Broken(error) => {
                    format!("the proxy cannot be asked at {shown}: {error}; does it run, as you or with you as root?")
                }
            };
            (Outcome::Failed, reason)
        })
    }

    /// Who may serve there besides root and this user: who owns the socket's folder, in which the proxy lets nobody else
    /// write, and who owns the config.
    fn owners(&self, socket: &Path) -> Vec<u32> {
        let config = self.config.as_deref().filter(|_| self.socket.is_none());
        let places = [Some(folder_of(socket)), config];
        places.into_iter().flatten().filter_map(|place| Some(fs::metadata(place).ok()?.uid())).collect()
    }

    fn path(&self) -> Result<PathBuf, String> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let file = self.config.as_deref().unwrap_or(Path::new(""));
        let loaded = config::load(file).map_err(|problems| match problems.first() {
            Some(first) => format!("{} problem(s) in the config, the first: {first}", problems.len()),
            None => "the config cannot be read".to_owned(),
        })?;
        loaded.config.admin_socket.ok_or_else(|| format!("{} has no admin.socket", file.display()))
    }
}

/// Why there is no answer.
#[derive(Debug)]
enum Unasked {
    /// Somebody else is at the other end.
    Stranger(u32),
    /// Nobody is, or not as they should.
    Broken(io::Error),
}

impl From<io::Error> for Unasked {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Asks whoever listens at `path`, if that is root, this user, or one of `owners`; a stranger is told nothing.
fn ask(path: &Path, owners: &[u32], question: &Question) -> Result<Answer, Unasked> {
    let mut stream = UnixStream::connect(path)?;
    // Of who called listen(2): a socket that was handed on is still theirs (unix(7), SO_PEERCRED).
    let peer = socket_peercred(&stream).map_err(io::Error::from)?.uid.as_raw();
    if peer != 0 && peer != geteuid().as_raw() && !owners.contains(&peer) {
        return Err(Unasked::Stranger(peer));
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_vec(question).map_err(io::Error::from)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer).map_err(io::Error::from)?)
}

/// A text that a terminal shows and does not obey: control characters, and those that turn the direction of what
/// follows or have no width, are written as `\u{…}`.
pub(super) fn visible(text: &str) -> String {
    let shown = |c: char| if invisible(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// What a terminal obeys, or does not show.
pub(super) fn invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

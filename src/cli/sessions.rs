//! `pgpassport sessions`: who is logged in to the proxy on this machine, and ending their sessions, over its admin
//! socket.

use super::Outcome;
use crate::admin::{Answer, Chosen, Listed, Question, folder_of};
use crate::config;
use clap::builder::{OsStringValueParser, TypedValueParser};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde_json::json;
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

/// Arguments of `sessions`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the sessions that are there
    List {
        #[command(flatten)]
        place: Place,
        /// One JSON object on standard output, for scripts
        #[arg(long)]
        json: bool,
    },
    /// End sessions: each when it is idle and at the latest after deadlines.drain, or with --now at once
    End {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
        /// Cancel what they run and end them at once
        #[arg(long)]
        now: bool,
        /// One JSON object on standard output, for scripts
        #[arg(long)]
        json: bool,
    },
}

/// Where the proxy listens for operators. Not exclusive: the environment counts as given, and must not be in the way of
/// a socket on the command line.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Place {
    /// The proxy's config file, whose admin.socket is used
    #[arg(long, value_name = "FILE", env = "PGPASSPORT_CONFIG", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    config: Option<PathBuf>,
    /// The proxy's admin socket; stronger than --config
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Which sessions; all that is given must hold.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Which {
    /// Sessions of this caller: the label or the object id
    #[arg(long, value_name = "LABEL-or-OID")]
    who: Option<String>,
    /// The session of this id, which records have, and errors as correlation id
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Sessions of this database, as the config calls it
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

/// Asks the running proxy. `out` takes the list or the count, `err` what is wrong.
pub(super) fn run(arguments: Arguments, out: &mut impl Write, err: &mut impl Write) -> Outcome {
    let (place, question, json) = match arguments.command {
        Command::List { place, json } => (place, Question::SessionsList, json),
        Command::End { place, which: Which { who, session, database }, now, json } => {
            (place, Question::SessionsEnd(Chosen { who, session, database, now }), json)
        }
    };
    let complain = |err: &mut dyn Write, outcome, reason: String| {
        let _ = writeln!(err, "pgpassport: {reason}");
        outcome
    };
    let path = match place.path() {
        Ok(path) => path,
        Err(reason) => return complain(err, Outcome::BadConfig, reason),
    };
    let answer = match ask(&path, &place.owners(&path), &question) {
        Ok(answer) => answer,
        Err(Unasked::Stranger(uid)) => {
            let reason = format!(
                "{} is served by uid {uid}, which is neither root, nor you, nor the owner of its folder or of the \
                 config; nothing was asked",
                path.display()
            );
            return complain(err, Outcome::Failed, reason);
        }
        Err(Unasked::Broken(error)) => {
            let reason = format!(
                "the proxy cannot be asked at {}: {error}; does it run, as you or with you as root?",
                path.display()
            );
            return complain(err, Outcome::Failed, reason);
        }
    };
    let written = match &answer {
        Answer::Refused { reason } => return complain(err, Outcome::Failed, visible(reason)),
        Answer::Sessions { sessions } if json => writeln!(out, "{}", json!({ "sessions": sessions })),
        Answer::Ended { sessions } if json => writeln!(out, "{}", json!({ "ended": sessions })),
        Answer::Sessions { sessions } => table(sessions, out),
        Answer::Ended { sessions } => writeln!(out, "{sessions} session(s) told to end"),
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => Outcome::Done,
        Err(_) => Outcome::Failed,
    }
}

impl Place {
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

/// Columns as wide as their widest entry.
fn table(sessions: &[Listed], out: &mut impl Write) -> io::Result<()> {
    let heads = ["SESSION", "WHO", "DATABASE", "AS", "RULE", "CLIENT", "SINCE", "TOKEN EXPIRES"].map(str::to_owned);
    let row = |listed: &Listed| {
        let Listed { session, who, database, database_user, rule, client, since, token_expires, .. } = listed;
        [session, who, database, database_user, rule, client, &seconds(since), &seconds(token_expires)]
            .map(|text| visible(text))
    };
    let rows: Vec<[String; 8]> = std::iter::once(heads).chain(sessions.iter().map(row)).collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(text, width)| format!("{text:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    writeln!(out, "{} session(s)", sessions.len())
}

/// A time without its fraction.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.to_owned(),
    }
}

/// A text that a terminal shows and does not obey: control characters, and those that turn the direction of what
/// follows or have no width, are written as `\u{…}`.
fn visible(text: &str) -> String {
    let shown = |c: char| if invisible(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// What a terminal obeys, or does not show.
pub(super) fn invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(who: &str) -> Listed {
        let text = |text: &str| text.to_owned();
        Listed {
            session: text("0197-1"),
            who: text(who),
            issuer: text("contoso"),
            tenant: text("t"),
            object_id: text("o"),
            kind: text("user"),
            app: text("a"),
            rule: text("orders-people"),
            database: text("orders"),
            instance: text("p:r:i"),
            database_user: text("analyst@contoso.example"),
            replication: false,
            client: text("192.0.2.7:5000"),
            since: text("2026-11-22T12:00:00.123456Z"),
            token_expires: text("2026-11-22T13:00:00Z"),
        }
    }

    #[test]
    fn a_table_is_aligned_and_obeys_nobody() {
        let hostile = "\u{1b}[2J\u{9b}31m\u{202e}evil\u{7f}\r\n";
        let mut out = Vec::new();
        table(&[listed("analyst@contoso.example"), listed(hostile)], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.replace('\n', "").chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "a name makes no line: {text:?}");
        assert!(lines[2].contains("\\u{1b}[2J\\u{9b}31m\\u{202e}evil\\u{7f}\\u{d}\\u{a}"), "{text}");
        let column = lines[0].find("DATABASE").unwrap();
        assert!(lines[1][column..].starts_with("orders  ") && lines[2][column..].starts_with("orders  "), "{text}");
        assert!(lines[1].ends_with("2026-11-22T12:00:00Z  2026-11-22T13:00:00Z"), "{text}");
        assert_eq!(lines[3], "2 session(s)");
    }

    #[test]
    fn a_proxy_that_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { config: None, socket: Some(folder.path().join("none.sock")) };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = run(Arguments { command: Command::List { place, json: false } }, &mut out, &mut err);
        assert_eq!((outcome, out.len()), (Outcome::Failed, 0));
        assert!(String::from_utf8(err).unwrap().contains("none.sock"));
    }
}

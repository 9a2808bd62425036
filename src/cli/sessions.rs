//! `pgpassport sessions`: who is logged in to the proxy on this machine, and ending their sessions, over its admin
//! socket.

use super::Outcome;
use super::operator::{Place, visible};
use crate::admin::{Answer, Chosen, Listed, Question};
use serde_json::json;
use std::io::{self, Write};

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
    let answer = match place.ask(&question, err) {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    let written = match &answer {
        // Not the answer to what was asked.
        Answer::Refused { .. } | Answer::Erased { .. } => return Outcome::Failed,
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
        let place = Place::at(folder.path().join("none.sock"));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = run(Arguments { command: Command::List { place, json: false } }, &mut out, &mut err);
        assert_eq!((outcome, out.len()), (Outcome::Failed, 0));
        assert!(String::from_utf8(err).unwrap().contains("none.sock"));
    }
}

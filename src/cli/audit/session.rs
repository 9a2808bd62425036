//! `audit session`: one session as a story for a reviewer.

use super::fields::{Fields, began, text, when};
use super::filter::Filter;
use super::join::{Item, Join, Wanted};
use super::reading::{Flow, Folder, SLACK};
use super::shown::{Form, cut, millisecond, milliseconds, outcome, plain, terminal, told, visible};
use super::unseal::Keys;
use super::{Error, Place, say_lost};
use crate::cli::Outcome;
use crate::time::Timestamp;
use serde_json::Value;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// Arguments of `audit session`.
///
/// The folder may be left out and stands in front of the id: which of both a word is, their number says, once all are
/// known; a parser that had to say it at the first would take no options between them.
#[derive(Debug, clap::Args)]
#[command(override_usage = "pgpassport audit session [OPTIONS] [FOLDER] <ID>")]
pub(super) struct Arguments {
    /// The log's folder, or a copy of it; without it, audit.folder of --config
    #[arg(value_name = "FOLDER")]
    first: PathBuf,
    /// The session's id, which errors call correlation id
    #[arg(value_name = "ID", required_unless_present = "config")]
    second: Option<String>,
    /// The proxy's config file, whose audit.folder is read where no folder is given
    #[arg(long, value_name = "FILE", env = "PGPASSPORT_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
    /// One JSON object a line, in order: the session's records, each execution joined, with its text as far as it is recorded
    #[arg(long)]
    json: bool,
    /// Cut lines at so many characters, 0 for never [default: the terminal's width]
    #[arg(long, value_name = "CHARACTERS", conflicts_with = "json")]
    width: Option<usize>,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write, err: &mut impl Write) -> Result<Outcome, Error> {
    let Arguments { first, second, config, keys, json, width } = arguments;
    let (folder, id) = match second {
        Some(id) => (Some(first.clone()), id.clone()),
        None => (None, first.to_string_lossy().into_owned()),
    };
    let place = &Place { folder, config: config.clone() };
    let filter = Filter::of_session(&id);
    let folder = Folder::open(&place.folder()?, err)?;
    let which = folder.span(began(&id), None);
    let wanted = Wanted { whole_texts: *json, ..filter.wanted(keys.opener(place)?) };
    let mut join = Join::new(&folder, which.start, wanted);
    let mut story = Story { out: BufWriter::new(out), json: *json, width: *width, told: 0, ended: None };
    folder.read(which, err, |placed, record| {
        // Nothing of it comes long after its end.
        if story.ended.is_some_and(|ended| placed.created.duration_since(ended) > SLACK) {
            return Ok(Flow::Enough);
        }
        if filter.may_hold(record) {
            for item in join.take(record)?.iter().filter(|item| filter.holds(item)) {
                story.tell(item)?;
            }
        }
        Ok(Flow::On)
    })?;
    for item in join.rest()?.iter().filter(|item| filter.holds(item)) {
        story.tell(item)?;
    }
    if story.told > 0 && story.ended.is_none() && !story.json {
        writeln!(story.out, "\nno end is recorded: it lives, was refused, or its proxy was killed")?;
    }
    story.out.flush()?;
    say_lost(join.lost, err);
    if story.told == 0 { Err(Error::NoRecord(format!("session {id}"))) } else { Ok(Outcome::Done) }
}

struct Story<W: Write> {
    out: W,
    json: bool,
    width: Option<usize>,
    told: u64,
    ended: Option<Timestamp>,
}

impl<W: Write> Story<W> {
    fn tell(&mut self, item: &Item) -> io::Result<()> {
        self.told = self.told.saturating_add(1);
        let fields = &item.fields;
        let event = text(fields, "event");
        if event == "session_end" {
            self.ended = when(fields);
        }
        if self.json {
            return Form::Json.row(item, &mut self.out);
        }
        let lines = match event {
            "session_start" => start(fields),
            "session_open" => vec![open(fields)],
            "session_end" => end(fields),
            "refused" => refused(fields),
            "execution" => vec![statement(fields)],
            _ => vec![format!("{}  {}: {}", time(fields), outcome(fields), told(fields))],
        };
        for line in lines {
            let width = self.width.or_else(terminal).filter(|width| *width > 0);
            writeln!(self.out, "{}", cut(&visible(&line), width.unwrap_or(usize::MAX)))?;
        }
        Ok(())
    }
}

fn time(fields: &Fields) -> String {
    millisecond(text(fields, "time"))
}

/// A member, also one within another, as a person would write it.
fn said(fields: &Fields, path: &str) -> String {
    let mut path = path.split('.');
    let first = path.next().and_then(|name| fields.get(name));
    path.fold(first, |value, name| value?.get(name)).map(plain).unwrap_or_default()
}

/// What is there of these, each behind its word.
fn with(fields: &Fields, parts: &[(&str, &str)]) -> String {
    let said = parts.iter().map(|(word, path)| (word, said(fields, path))).filter(|(_, said)| !said.is_empty());
    said.map(|(word, said)| format!("{word}{said}")).collect::<Vec<_>>().join(", ")
}

fn who(fields: &Fields) -> [String; 2] {
    let caller = [
        ("", "caller.label"),
        ("", "caller.kind"),
        ("object id ", "caller.object_id"),
        ("issuer ", "caller.issuer"),
        ("tenant ", "caller.tenant"),
        ("by app ", "caller.app"),
        ("token ", "caller.token_id"),
    ];
    let from = [
        ("", "client"),
        ("told by balancer ", "via"),
        ("claimed user ", "claimed.user"),
        ("claimed application ", "claimed.application_name"),
    ];
    [format!("  who     {}", with(fields, &caller)), format!("  from    {}", with(fields, &from))]
}

fn start(fields: &Fields) -> Vec<String> {
    let granted = [("rule ", "rule"), ("", "grant"), ("as database user ", "database_user"), ("role ", "role")];
    let [who, from] = who(fields);
    let to = [("", "database"), ("there called ", "database_name"), ("on ", "instance")];
    vec![
        format!("session {}", said(fields, "session")),
        who,
        from,
        format!("  granted {}", with(fields, &granted)),
        format!("  to      {}", with(fields, &to)),
        format!("  when    {}, token expires {}", time(fields), said(fields, "token_expires")),
    ]
}

fn open(fields: &Fields) -> String {
    let place = [("server process ", "backend_pid"), ("at ", "instance_address")];
    format!("  logged in at {}, {}\n", time(fields), with(fields, &place)).trim_end().to_owned()
}

fn refused(fields: &Fields) -> Vec<String> {
    let [who, from] = who(fields);
    let why = [("", "sqlstate"), ("", "message"), ("because ", "reason"), ("blame: ", "blame")];
    vec![
        format!("{}  refused, session {}", time(fields), said(fields, "session")),
        who,
        from,
        format!("  why     {}", with(fields, &why)),
    ]
}

fn statement(fields: &Fields) -> String {
    let number = |name: &str| fields.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (rows, took) = (number("rows"), milliseconds(number("duration_us")));
    let doubtful = if fields.get("text_doubtful").is_some() { " (doubtful text)" } else { "" };
    format!("{}  {:12} {rows:>8} row(s) {took:>9} ms  {}{doubtful}", time(fields), outcome(fields), told(fields))
}

fn end(fields: &Fields) -> Vec<String> {
    let took = fields.get("duration_us").and_then(Value::as_u64).unwrap_or_default();
    let why = with(fields, &[("", "reason"), ("last word ", "sqlstate")]);
    let sums =
        with(fields, &[("begin records: ", "statements"), ("bytes in: ", "bytes_in"), ("bytes out: ", "bytes_out")]);
    vec![format!("{}  end: {why}; after {} ms; {sums}", time(fields), milliseconds(took))]
}

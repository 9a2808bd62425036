//! Items as lines for people, as CSV, and as JSON.
//!
//! What records say is hostile: names, texts and messages come from clients. A terminal gets no character that it would
//! obey or not show, and neither does CSV; there a cell that a spreadsheet would take for a formula starts with an
//! apostrophe (OWASP, "CSV Injection"), and every cell is quoted (RFC 4180). JSON has everything as it was recorded.

use super::fields::{Fields, readable, text};
use super::join::Item;
use crate::cli::operator::invisible;
use serde_json::Value;
use std::io::{self, Write};

/// The least that a line has of a statement's text, in characters.
const MIN_TEXT: usize = 20;
/// The longest name in a line's column, in characters; `--json` has it whole.
const MAX_NAME: usize = 32;
/// What a line's columns or CSV's have already, or only JSON has.
const NOT_DETAILS: [&str; 25] = [
    "time",
    "event",
    "session",
    "caller",
    "grant",
    "database",
    "database_name",
    "database_user",
    "instance",
    "instance_address",
    "backend_pid",
    "claimed",
    "client",
    "via",
    "rule",
    "outcome",
    "sqlstate",
    "text",
    "text_base64",
    "text_sealed",
    "rows",
    "duration_us",
    "id",
    "correlation",
    "token_expires",
];
/// CSV's columns: a name, and where it is.
const COLUMNS: [&str; 25] = [
    "time",
    "event",
    "session",
    "id",
    "caller.label",
    "caller.object_id",
    "caller.issuer",
    "caller.tenant",
    "caller.kind",
    "caller.app",
    "rule",
    "database",
    "database_name",
    "database_user",
    "client",
    "outcome",
    "sqlstate",
    "command",
    "rows",
    "bytes_in",
    "bytes_out",
    "duration_us",
    "text_bytes",
    "details",
    "text",
];

/// How items are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A line of so many characters at most, or of any length.
    Lines(Option<usize>),
    Csv,
    Json,
}

/// How items are to be written.
#[derive(Debug, clap::Args)]
pub(super) struct Wish {
    /// One JSON object a line, as it was recorded: nothing is escaped but what JSON escapes
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// CSV with a header; control characters are escaped, cells that could be formulas start with an apostrophe
    #[arg(long)]
    csv: bool,
    /// Cut lines at so many characters, 0 for never [default: the terminal's width]
    #[arg(long, value_name = "CHARACTERS", conflicts_with_all = ["json", "csv"])]
    width: Option<usize>,
}

impl Wish {
    pub(super) fn form(&self) -> Form {
        match self {
            Self { json: true, .. } => Form::Json,
            Self { csv: true, .. } => Form::Csv,
            Self { width, .. } => Form::Lines(width.or_else(terminal).filter(|width| *width > 0)),
        }
    }
}

/// The width of the terminal that standard output is.
pub(super) fn terminal() -> Option<usize> {
    rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col))
}

impl Form {
    /// What stands above the items.
    pub(super) fn head(self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Lines(width) => {
                let line = line(["TIME", "WHO", "APP", "DATABASE", "OUTCOME", "ROWS", "MS"].map(str::to_owned), "TEXT");
                writeln!(out, "{}", cut(&line, width.unwrap_or(usize::MAX)))
            }
            Self::Csv => write!(out, "{}\r\n", COLUMNS.join(",")),
            Self::Json => Ok(()),
        }
    }

    pub(super) fn row(self, item: &Item, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Lines(width) => {
                let head = columns(&item.fields);
                let taken = line(head.clone(), "").chars().count().saturating_add(1);
                let room = width.map_or(usize::MAX, |width| width.saturating_sub(taken).max(MIN_TEXT));
                writeln!(out, "{}", line(head, &cut(&visible(&told(&item.fields)), room)).trim_end())
            }
            Self::Csv => {
                let cells = COLUMNS.map(|column| cell(&csv_value(&item.fields, column)));
                write!(out, "{}\r\n", cells.join(","))
            }
            Self::Json => {
                serde_json::to_writer(&mut *out, &item.fields)?;
                writeln!(out)
            }
        }
    }
}

fn line(columns: [String; 7], text: &str) -> String {
    let [time, who, app, database, outcome, rows, took] = columns;
    format!("{time:24} {who:24} {app:9} {database:12} {outcome:12} {rows:>8} {took:>9} {text}").trim_end().to_owned()
}

fn columns(fields: &Fields) -> [String; 7] {
    let caller = |name: &str| fields.get("caller").and_then(|caller| caller.get(name)).map(plain).unwrap_or_default();
    let name = |text: &str| cut(&visible(text), MAX_NAME);
    let number = |name: &str| fields.get(name).and_then(Value::as_u64);
    let rows = number("rows").map_or_else(String::new, |rows| rows.to_string());
    let took = number("duration_us").map_or_else(String::new, milliseconds);
    [
        millisecond(text(fields, "time")),
        name(&caller("label")),
        cut(&visible(&caller("app")), 9),
        name(text(fields, "database")),
        name(&outcome(fields)),
        rows,
        took,
    ]
}

/// How it ended, or what it is.
pub(super) fn outcome(fields: &Fields) -> String {
    let event = Some(text(fields, "event")).filter(|event| *event != "execution");
    let parts = [event, Some(text(fields, "outcome")), Some(text(fields, "sqlstate"))];
    let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

/// The statement's text, or what a record of another kind says.
pub(super) fn told(fields: &Fields) -> String {
    let own = readable(fields);
    match (own.is_empty(), fields.get("text_of").and_then(Value::as_str)) {
        (true, Some(of)) => format!("(the text of {of})"),
        (true, None) if text(fields, "event") != "execution" => details(fields),
        _ => own,
    }
}

fn details(fields: &Fields) -> String {
    let own = fields.iter().filter(|(name, _)| !NOT_DETAILS.contains(&name.as_str()));
    own.map(|(name, value)| format!("{name}={}", plain(value))).collect::<Vec<_>>().join(" ")
}

fn csv_value(fields: &Fields, column: &str) -> String {
    match column {
        "text" => readable(fields),
        "details" if text(fields, "event") == "execution" => String::new(),
        "details" => details(fields),
        _ => {
            let mut path = column.split('.');
            let first = path.next().and_then(|name| fields.get(name));
            path.fold(first, |value, name| value?.get(name)).map(plain).unwrap_or_default()
        }
    }
}

/// A quoted cell that no spreadsheet takes for a formula. A number of ours is one, and stays a number.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let apostrophe = if formula { "'" } else { "" };
    format!("\"{apostrophe}{}\"", visible(text).replace('"', "\"\""))
}

/// A JSON value as a person would write it.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A text on one line that a terminal shows and does not obey.
pub(super) fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c if invisible(c) => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// So many characters at most, the last of them `…` where some are left out.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().nth(width).is_none() {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Microseconds in milliseconds.
pub(super) fn milliseconds(us: u64) -> String {
    format!("{}.{:01}", us / 1000, us % 1000 / 100)
}

/// A time in milliseconds, always as long.
pub(super) fn millisecond(time: &str) -> String {
    time.parse::<crate::time::Timestamp>().map_or_else(|_| visible(time), |time| format!("{time:.3}"))
}

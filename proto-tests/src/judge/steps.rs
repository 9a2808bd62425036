//! Our records, as what each message must have caused at the server.

use crate::records::Records;
use base64::Engine;
use pgpassport::audit::{DEFAULT_MAX_TEXT_BYTES, TextDigest};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;

/// What PostgreSQL's log calls the statement without a name.
pub const UNNAMED: &str = "<unnamed>";

/// What became of one message, as our records tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The server did it.
    Passed,
    /// The server did it and there was nothing to do: an Execute of an empty statement, or of a portal whose Bind failed.
    Empty,
    /// The server reported this SQLSTATE for this message, or for an earlier one of the same event.
    Failed(String),
    /// It passed, or this is the SQLSTATE that it failed with: the record of an event does not say at which of its
    /// messages it failed, and what followed was skipped.
    MayHaveFailed(String),
    /// The server passed over it after an earlier error.
    Skipped,
    /// The server skipped this message or a later one of the same event.
    MayHaveBeenSkipped,
    /// The session ended first.
    Unknown,
}

/// A character that a cut has gone through is left out: so many bytes of it at most.
const PART_OF_A_CHARACTER: usize = 3;

/// A statement's text, joined of its begin line and the `text` lines behind it.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// As far as it is recorded.
    pub recorded: String,
    /// Of the whole it is at least what was recorded, and at most this, in bytes.
    pub bytes: usize,
    /// It goes on behind what is recorded.
    pub cut: bool,
    /// What an end line says of the whole, in SHA-256 and bytes.
    pub digest: Option<(String, usize)>,
}

/// One recorded message.
#[derive(Debug, Clone)]
pub struct Step {
    /// The event's id.
    pub event: String,
    /// `query`, `parse`, `bind`, `execute`, `function_call`.
    pub stage: String,
    /// What became of it.
    pub fate: Fate,
    /// The caller's tag, made anew from the record's caller.
    pub tag: String,
    /// The statement's text, if it is known.
    pub text: Option<Text>,
    /// `name` or `name/portal`, as PostgreSQL's log writes it.
    pub name: String,
    /// `FunctionCall`'s function.
    pub function: Option<u64>,
    /// The record does not say which text it was: the begin line was in doubt, and it did not become certain.
    pub uncertain: bool,
    /// The statement's name, empty where there is none.
    pub statement: String,
    /// The portal's.
    pub portal: String,
}

/// All messages of the sessions of one server process.
#[derive(Debug, Default)]
pub struct Process {
    /// The database user that the session record names.
    pub user: String,
    /// In the order of their begin lines.
    pub steps: Vec<Step>,
    /// In the order of the records, which is the server's.
    pub errors: VecDeque<Error>,
    /// SQLSTATE of the server's last word to the client, as the session's end has it.
    pub fatal: Option<String>,
}

/// An error that is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Of the event with this id.
    Of(String),
    /// At what is no event (Sync, Describe, Close), with this SQLSTATE.
    Beside(String),
}

/// By server process.
pub fn processes(records: &Records) -> HashMap<u32, Process> {
    let records = &records.apart();
    let (users, pids) = sessions(records);
    let events = Events::of(records);
    let mut processes: HashMap<u32, Process> = HashMap::new();
    for record in records {
        let Some(pid) = pids.get(text_of(record, "session")) else { continue };
        let process = processes.entry(*pid).or_default();
        match text_of(record, "event") {
            "session_open" => process.user.clone_from(&users[text_of(record, "session")]),
            "begin" => process.steps.push(events.step(record)),
            "end" if !record["sqlstate"].is_null() => {
                process.errors.push_back(Error::Of(text_of(record, "id").to_owned()));
            }
            "sync_error" => process.errors.push_back(Error::Beside(text_of(record, "sqlstate").to_owned())),
            "session_end" if ["client", "server"].contains(&text_of(record, "reason")) => {
                process.fatal = record["sqlstate"].as_str().map(str::to_owned);
            }
            _ => {}
        }
    }
    processes
}

type BySession<T> = HashMap<String, T>;

fn sessions(records: &Records) -> (BySession<String>, BySession<u32>) {
    let (mut users, mut pids) = (HashMap::new(), HashMap::new());
    for record in records {
        let session = text_of(record, "session").to_owned();
        match text_of(record, "event") {
            "session_start" => drop(users.insert(session, text_of(record, "database_user").to_owned())),
            "session_open" => {
                let pid = record["backend_pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
                pids.insert(session, pid.expect("a process id"));
            }
            _ => {}
        }
    }
    (users, pids)
}

/// What is known of each event from all of its lines.
#[derive(Debug, Default)]
struct Events<'a> {
    begins: HashMap<&'a str, Vec<&'a Value>>,
    texts: HashMap<&'a str, Vec<&'a Value>>,
    ends: HashMap<&'a str, Vec<&'a Value>>,
}

impl<'a> Events<'a> {
    fn of(records: &'a Records) -> Self {
        let mut events = Self::default();
        for record in records {
            let lines = match text_of(record, "event") {
                "begin" => &mut events.begins,
                "text" => &mut events.texts,
                "end" => &mut events.ends,
                _ => continue,
            };
            lines.entry(text_of(record, "id")).or_default().push(record);
        }
        events
    }

    fn step(&self, begin: &Value) -> Step {
        let begins = self.begins.get(text_of(begin, "id")).map(Vec::as_slice).unwrap_or_default();
        // Where the begin line was in doubt, the end line says whose text it was.
        let ends = self.ends.get(text_of(begin, "id")).map(Vec::as_slice).unwrap_or_default();
        let other = ends.iter().find_map(|end| self.begins.get(end["text_of"].as_str()?));
        let own = other.map_or(begins, Vec::as_slice);
        // A line on a remembered text names the event whose line has it, and at most repeats its start.
        let enters = |lines: &[&Value]| {
            let mut lines = lines.iter().filter(|begin| begin["text_of"].is_null());
            lines.find_map(|begin| self.text(begin))
        };
        let elsewhere = || own.iter().find_map(|begin| self.begins.get(begin["text_of"].as_str()?));
        let text = enters(own).or_else(|| enters(elsewhere()?)).map(|text| text.unless_repeated_otherwise(own));
        let text = text.map(|text| Text { digest: ends.iter().find_map(|end| digest(end)), ..text });
        let named = |field: &str| begins.iter().find_map(|begin| begin[field].as_str()).unwrap_or_default().to_owned();
        let parsed = other.and_then(|lines| lines.iter().find(|line| line["stage"] == "parse"));
        // An Execute's own line is as doubtful about the statement of its portal as it is about the text.
        let statement = match parsed {
            Some(parsed) => prepared_in_sql(parsed, ends).unwrap_or_else(|| text_of(parsed, "statement").to_owned()),
            None => named("statement"),
        };
        let portal = named("portal");
        let stage = text_of(begin, "stage").to_owned();
        let name = named_in_log(&statement, if stage == "parse" { "" } else { &portal });
        let doubtful = |lines: &[&Value]| lines.iter().any(|line| line["text_doubtful"] == true);
        let uncertain = (doubtful(begins) && other.is_none()) || doubtful(ends);
        let tagged = begins.iter().any(|begin| begin["tagged"] == true) || stage == "bind" || stage == "execute";
        Step {
            event: text_of(begin, "id").to_owned(),
            fate: self.fate(begin, begins.last().copied(), text.as_ref()),
            tag: if tagged { tag(&begin["caller"]) } else { String::new() },
            text,
            name,
            function: begin["function_oid"].as_u64(),
            uncertain,
            statement,
            portal,
            stage,
        }
    }

    /// What is recorded of a text from its begin line on. Where a part is missing it ends, and is another one then.
    fn text(&self, begin: &Value) -> Option<Text> {
        let bytes = usize::try_from(begin["text_bytes"].as_u64()?).ok()?;
        let (mut recorded, mut cut) = (part(begin)?, false);
        for more in self.texts.get(text_of(begin, "id")).into_iter().flatten() {
            if cut || more["offset"] != recorded.len() {
                break;
            }
            recorded.extend(part(more).unwrap_or_default());
            cut = more["cut"] == true;
        }
        Some(Text { recorded: String::from_utf8_lossy(&recorded).into_owned(), bytes, cut, digest: None })
    }

    /// A message that a later one of the same event follows has passed; the last one's fate is the event's end.
    fn fate(&self, begin: &Value, last: Option<&Value>, text: Option<&Text>) -> Fate {
        let ends = self.ends.get(text_of(begin, "id")).map(Vec::as_slice).unwrap_or_default();
        let failed = ends.iter().find_map(|end| end["sqlstate"].as_str()).map(str::to_owned);
        match (last == Some(begin), failed) {
            (true, Some(failed)) => return Fate::Failed(failed),
            (false, Some(failed)) => return Fate::MayHaveFailed(failed),
            (false, None) if ends.iter().any(|end| end["outcome"] == "skipped") => return Fate::MayHaveBeenSkipped,
            (false, None) => return Fate::Passed,
            (true, None) => {}
        }
        let Some(end) = ends.last() else { return Fate::Unknown };
        match text_of(end, "outcome") {
            "skipped" => Fate::Skipped,
            "unknown" => Fate::Unknown,
            // The text was blank, or the record says that it may not be what was there.
            "ok" if begin["stage"] == "execute"
                && end["command"].is_null()
                && (end["text_doubtful"] == true || text.is_some_and(Text::is_blank)) =>
            {
                Fate::Empty
            }
            _ => Fate::Passed,
        }
    }
}

/// The name that SQL's PREPARE gave, where this Parse brought that text and what these lines end ran as prepared: both
/// have the PREPARE's own text (`PrepareQuery`, `src/backend/commands/prepare.c`), and their ends tell them apart.
fn prepared_in_sql(parse: &Value, ends: &[&Value]) -> Option<String> {
    let mut words = text_of(parse, "text").split_whitespace();
    let prepares = words.next().is_some_and(|word| word.eq_ignore_ascii_case("prepare"));
    let ran = ends.iter().any(|end| match end["command"].as_str() {
        Some(command) => command != "PREPARE",
        // A utility command runs to its end.
        None => end["outcome"] == "suspended",
    });
    let name = words.next().filter(|_| prepares && ran)?;
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    Some(quoted.map_or_else(|| name.to_ascii_lowercase(), str::to_owned))
}

/// `<unnamed>`, `name`, `name/portal`.
pub fn named_in_log(statement: &str, portal: &str) -> String {
    let statement = if statement.is_empty() { UNNAMED } else { statement };
    if portal.is_empty() { statement.to_owned() } else { format!("{statement}/{portal}") }
}

impl Text {
    /// Nothing but spaces, semicolons and comments (`scan.l`: those with `*` nest).
    fn is_blank(&self) -> bool {
        let mut rest = self.recorded.as_str();
        let mut depth = 0_u32;
        while let Some(c) = rest.chars().next() {
            let inside = depth > 0;
            if rest.starts_with("/*") || (inside && rest.starts_with("*/")) {
                depth = if rest.starts_with("/*") { depth + 1 } else { depth - 1 };
                rest = &rest[2..];
            } else if !inside && rest.starts_with("--") {
                rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else if inside || c.is_whitespace() || c == ';' {
                rest = &rest[c.len_utf8()..];
            } else {
                return false;
            }
        }
        depth == 0
    }

    /// This text, or what one of these lines says in its place where it is to repeat the start.
    fn unless_repeated_otherwise(self, lines: &[&Value]) -> Self {
        let mut starts = lines.iter().filter(|begin| !begin["text_of"].is_null()).filter_map(|begin| part(begin));
        let other = starts.find_map(|start| {
            let start = String::from_utf8_lossy(&start).into_owned();
            let known = self.recorded.starts_with(start.trim_end_matches(char::REPLACEMENT_CHARACTER));
            (!known).then_some(start)
        });
        other.map_or(self, |recorded| Self { bytes: recorded.len(), recorded, ..Self::default() })
    }

    /// Whether this is the text: to the last byte, or, past what is recorded of any, as far as that goes and by digest.
    pub fn is(&self, whole: &str) -> bool {
        let as_digested = self.digest.as_ref().is_none_or(|(sha256, bytes)| {
            whole.len() == *bytes && TextDigest::of(whole.as_bytes()).sha256() == *sha256
        });
        let most = DEFAULT_MAX_TEXT_BYTES as usize;
        let as_recorded = if self.cut {
            let enough = (most - PART_OF_A_CHARACTER..=most).contains(&self.recorded.len());
            enough && whole.len() > self.recorded.len() && whole.starts_with(&self.recorded)
        } else {
            whole == self.recorded
        };
        as_digested && as_recorded && whole.len() <= self.bytes
    }
}

/// A line's part of a text, in bytes.
fn part(line: &Value) -> Option<Vec<u8>> {
    match (line["text"].as_str(), line["text_base64"].as_str()) {
        (Some(text), _) => Some(text.as_bytes().to_vec()),
        (_, Some(encoded)) => Some(base64::engine::general_purpose::STANDARD.decode(encoded).expect("base64")),
        _ => None,
    }
}

fn digest(end: &Value) -> Option<(String, usize)> {
    Some((end["text_sha256"].as_str()?.to_owned(), usize::try_from(end["text_bytes"].as_u64()?).ok()?))
}

/// The comment that a consumer of PostgreSQL's log expects of this caller (README, "Reading the logs").
pub fn tag(caller: &Value) -> String {
    let value = |field: &str| encoded(text_of(caller, field));
    let (app, label) = (value("app"), value("label"));
    format!("/*app='{app}',caller='{label}',oid='{}',tid='{}'*/ ", value("object_id"), value("tenant"))
}

fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"._~-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes everything");
        }
    }
    out
}

fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn only_what_says_nothing_is_blank() {
        for (text, blank) in [
            ("", true),
            (" ;\n;", true),
            ("-- nothing", true),
            ("-- nothing\n/* nor /* this */ */ ;", true),
            ("select 1", false),
            ("-- nothing\nselect 1", false),
            ("/* a /* b */ select 1 */ select 2", false),
            ("*/", false),
            ("/* open", false),
        ] {
            let text = Text { recorded: text.to_owned(), bytes: text.len(), ..Text::default() };
            assert_eq!(text.is_blank(), blank, "{text:?}");
        }
    }
}

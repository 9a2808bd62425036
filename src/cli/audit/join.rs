//! Begin and end records into executions, with what the session's own records say, in bounded memory.
//!
//! Kept are executions that are open, sessions that are open, and the starts of texts that other executions may be of.
//! Past a bound the oldest goes: an open execution is then told without its end, and its end on a line of its own.
//! Records before those that are read are looked at only for a session that began there, each segment once.

use super::Error;
use super::bounded::{Bounded, Bounds};
use super::fields::{Fields, began, fold, names, needed_later, orphan, raw, readable, text};
use super::parts::{Open, Seen};
use super::reading::{Flow, Folder};
use super::unseal::{Opened, Opener};
use crate::audit::messages;
use serde_json::Value;

/// Executions that are open.
pub(super) const MAX_OPEN: Bounds = Bounds { entries: 20_000, bytes: 64 << 20 };
/// Sessions that are open.
const MAX_SESSIONS: Bounds = Bounds { entries: 20_000, bytes: 64 << 20 };
/// Texts of open sessions that were prepared or declared.
const MAX_TEXTS: Bounds = Bounds { entries: 50_000, bytes: 64 << 20 };
/// What is kept of such a text, in characters: as much as a begin record repeats of it.
const KEPT_TEXT: usize = 4096;
/// What a session's records say that its other records do not.
const OF_SESSION: [&str; 12] = [
    "caller",
    "rule",
    "grant",
    "database",
    "database_name",
    "database_user",
    "instance",
    "client",
    "via",
    "backend_pid",
    "instance_address",
    "claimed",
];

/// One execution, or one record that is none's.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub fields: Fields,
    /// The text has what was asked for, also behind what is shown of it.
    pub text_found: bool,
}

/// What was lost on the way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// Executions that were told without their end for want of room.
    pub evicted: u64,
    /// Executions of a text that is recorded elsewhere, where it was not found.
    pub textless: u64,
    /// Records that are no JSON object.
    pub strange: u64,
    /// Texts that are sealed, and nobody asked to open.
    pub sealed: u64,
    /// Texts whose keys are not there.
    pub erased: u64,
    /// Texts that their keys do not open.
    pub damaged: u64,
}

/// Reads records in order, and tells what they come to.
#[derive(Debug)]
pub(super) struct Join<'a> {
    folder: &'a Folder,
    /// Segments from this one on are read; those before are looked back at.
    start: usize,
    looked_at: Vec<bool>,
    open: Bounded<Open>,
    sessions: Bounded<Fields>,
    texts: Bounded<Known>,
    needle: Option<String>,
    raw: bool,
    opener: Opener,
    whole_texts: bool,
    pub lost: Lost,
}

/// A text that executions may be of.
#[derive(Debug)]
struct Known {
    start: String,
    seen: Seen,
}

/// How records become items.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// What texts are searched for, in lower case.
    pub needle: Option<String>,
    /// Begin, text and end records stay what they are.
    pub raw: bool,
    /// What opens sealed texts.
    pub opener: Opener,
    /// Executions have their texts as far as they are recorded, not only what their begin records have.
    pub whole_texts: bool,
    /// How many executions may be open, if not [`MAX_OPEN`].
    pub max_open: Option<Bounds>,
}

impl<'a> Join<'a> {
    pub(super) fn new(folder: &'a Folder, start: usize, wanted: Wanted) -> Self {
        let Wanted { needle, raw, whole_texts, opener, max_open } = wanted;
        Self {
            folder,
            start,
            looked_at: vec![false; start],
            open: Bounded::new(max_open.unwrap_or(MAX_OPEN)),
            sessions: Bounded::new(MAX_SESSIONS),
            texts: Bounded::new(MAX_TEXTS),
            needle,
            raw,
            opener,
            whole_texts,
            lost: Lost::default(),
        }
    }

    /// Takes the next record, and gives what is complete with it.
    pub(super) fn take(&mut self, record: &[u8]) -> Result<Vec<Item>, Error> {
        let Ok(mut fields) = serde_json::from_slice::<Fields>(record) else {
            self.lost.strange = self.lost.strange.saturating_add(1);
            return Ok(Vec::new());
        };
        let one_more = match self.opener.open(&mut fields) {
            Opened::Yes => None,
            Opened::Unasked => Some(&mut self.lost.sealed),
            Opened::Erased => Some(&mut self.lost.erased),
            Opened::Damaged => Some(&mut self.lost.damaged),
        };
        // Of a text in parts its begin record speaks for all.
        if let Some(count) = one_more.filter(|_| text(&fields, "event") != "text") {
            *count = count.saturating_add(1);
        }
        self.learn(&fields, record.len());
        match text(&fields, "event") {
            "begin" if !self.raw => self.begin(fields, record.len()),
            "text" if !self.raw => self.more(&fields),
            "end" if !self.raw => self.end(fields),
            "recovery" => {
                // Whoever was to write their ends is gone.
                let mut items = self.rest()?;
                items.push(self.record(fields)?);
                Ok(items)
            }
            "session_end" => {
                let session = text(&fields, "session").to_owned();
                let item = self.record(fields)?;
                self.forget(&session);
                Ok(vec![item])
            }
            _ => Ok(vec![self.record(fields)?]),
        }
    }

    /// What is open still, in the order of its begin.
    pub(super) fn rest(&mut self) -> Result<Vec<Item>, Error> {
        self.open.drain().into_iter().map(|open| self.complete(open)).collect()
    }

    fn begin(&mut self, mut fields: Fields, bytes: usize) -> Result<Vec<Item>, Error> {
        let id = text(&fields, "id").to_owned();
        let stages: Vec<Value> = messages(&fields).into_iter().map(Value::from).collect();
        for name in ["stage", "since"] {
            fields.remove(name);
        }
        if let Some(open) = self.open.get_mut(&id) {
            if let Some(Value::Array(before)) = open.fields.get_mut("stages") {
                before.extend(stages);
            }
            for (name, value) in fields {
                open.fields.entry(name).or_insert(value);
            }
            return Ok(Vec::new());
        }
        fields.insert("event".to_owned(), "execution".into());
        fields.insert("outcome".to_owned(), "open".into());
        fields.insert("stages".to_owned(), Value::Array(stages));
        let open = Open::new(fields, self.needle.as_deref());
        let open = if self.whole_texts { open.whole() } else { open };
        self.keep(id, bytes, open)
    }

    /// More of an open execution's text.
    fn more(&mut self, part: &Fields) -> Result<Vec<Item>, Error> {
        let id = text(part, "id");
        let Some(open) = self.open.get_mut(id) else { return Ok(Vec::new()) };
        let bytes = open.add(part, self.needle.as_deref());
        let evicted = self.open.grow(id, bytes);
        self.evicted(evicted)
    }

    fn end(&mut self, end: Fields) -> Result<Vec<Item>, Error> {
        let id = text(&end, "id").to_owned();
        let needle = self.needle.as_deref();
        let mut open = self.open.remove(&id).unwrap_or_else(|| Open::new(orphan(&end), needle));
        fold(&mut open.fields, &end);
        if end.get("final") == Some(&Value::Bool(false)) {
            let bytes = open.bytes().saturating_add(1024);
            return self.keep(id, bytes, open);
        }
        Ok(vec![self.complete(open)?])
    }

    fn keep(&mut self, id: String, bytes: usize, open: Open) -> Result<Vec<Item>, Error> {
        let evicted = self.open.insert(id, bytes, open);
        self.evicted(evicted)
    }

    fn evicted(&mut self, evicted: Vec<Open>) -> Result<Vec<Item>, Error> {
        self.lost.evicted = self.lost.evicted.saturating_add(evicted.len() as u64);
        evicted.into_iter().map(|open| self.complete(open)).collect()
    }

    /// A record that is no execution's.
    fn record(&mut self, fields: Fields) -> Result<Item, Error> {
        self.complete(Open::new(fields, self.needle.as_deref()))
    }

    /// Adds what the session's records say, and the text that another record has.
    fn complete(&mut self, open: Open) -> Result<Item, Error> {
        let (mut fields, mut text_found) = open.finish();
        fields.remove("version");
        let session = text(&fields, "session").to_owned();
        if self.sessions.get(&session).is_none() {
            self.look_back(&session, |join| join.sessions.get(&session).is_some())?;
        }
        if let Some(own) = self.sessions.get(&session) {
            for (name, value) in own {
                if !fields.contains_key(name) {
                    fields.insert(name.clone(), value.clone());
                }
            }
        }
        if let Some(of) = fields.get("text_of").and_then(Value::as_str).map(str::to_owned) {
            if self.texts.get(&of).is_none() {
                self.look_back(&session, |join| join.texts.get(&of).is_some())?;
            }
            if let Some(known) = self.texts.get(&of) {
                // A doubtful begin record may have told another text.
                fields.remove("text_base64");
                fields.insert("text".to_owned(), known.start.clone().into());
                text_found = known.seen.found();
            } else if readable(&fields).is_empty() {
                self.lost.textless = self.lost.textless.saturating_add(1);
            }
        }
        Ok(Item { fields, text_found })
    }

    /// Keeps of a record what later ones need.
    fn learn(&mut self, fields: &Fields, bytes: usize) {
        let session = text(fields, "session");
        match text(fields, "event") {
            "session_start" => {
                let own = fields.iter().filter(|(name, _)| OF_SESSION.contains(&name.as_str()));
                let own = own.map(|(name, value)| (name.clone(), value.clone())).collect();
                self.sessions.insert(session.to_owned(), bytes, own);
            }
            "session_open" => {
                if let Some(own) = self.sessions.get_mut(session) {
                    let new = fields.iter().filter(|(name, _)| OF_SESSION.contains(&name.as_str()));
                    own.extend(new.map(|(name, value)| (name.clone(), value.clone())));
                }
            }
            "begin"
                if ["text", "text_base64", "text_sealed", "text_erased"]
                    .iter()
                    .any(|name| fields.contains_key(*name)) =>
            {
                let id = text(fields, "id");
                let whole = readable(fields);
                if fields.contains_key("text_of") || !(messages(fields).contains(&"parse") || names(&whole)) {
                    return;
                }
                let mut known = Known { start: whole.chars().take(KEPT_TEXT).collect(), seen: Seen::default() };
                known.seen.add(&raw(fields), self.needle.as_deref());
                self.texts.insert(id.to_owned(), known.start.len().saturating_add(256), known);
            }
            "text" => {
                if let Some(known) = self.texts.get_mut(text(fields, "id")) {
                    known.seen.add(&raw(fields), self.needle.as_deref());
                }
            }
            _ => {}
        }
    }

    fn forget(&mut self, session: &str) {
        self.sessions.remove(session);
        self.texts.remove_all(&format!("{session}."));
    }

    /// Reads segments before the first that is read, from where a session began, until something is known.
    fn look_back(&mut self, session: &str, known: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let Some(began) = began(session).filter(|_| self.start > 0) else { return Ok(()) };
        let folder = self.folder;
        for at in folder.span(Some(began), None).start..self.start {
            if known(self) {
                break;
            }
            let Some(looked_at) = self.looked_at.get_mut(at).filter(|looked_at| !**looked_at) else { continue };
            *looked_at = true;
            // What is wrong with a segment that nobody asked for is not said here.
            folder.read(at..at.saturating_add(1), &mut std::io::sink(), |_, record| {
                if needed_later(record) {
                    let mut fields = serde_json::from_slice::<Fields>(record).unwrap_or_default();
                    self.opener.open(&mut fields);
                    self.learn(&fields, record.len());
                    if text(&fields, "event") == "session_end" {
                        self.forget(text(&fields, "session"));
                    }
                }
                Ok(Flow::On)
            })?;
        }
        Ok(())
    }
}

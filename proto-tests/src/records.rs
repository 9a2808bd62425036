//! The audit log as a reader outside the project would read it: each record a JSON object.

use base64::Engine;
use jsonschema::Validator;
use pgpassport::audit::apart;
use pgpassport::audit::ledger::read::{self, Segment};
use pgpassport::audit::ledger::segment;
use pgpassport::audit::schema;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// What a record of each event can say.
static REFERENCE: LazyLock<HashMap<String, Validator>> = LazyLock::new(|| {
    let schema = schema::schema();
    let events = schema["oneOf"].as_array().expect("the events");
    let named = events.iter().map(|event| {
        let name = event["properties"]["event"]["const"].as_str().expect("its name").to_owned();
        (name, jsonschema::draft202012::new(event).expect("a schema"))
    });
    named.collect()
});

/// Where the last record of a segment ends, in bytes of its file. Zeros can stand behind it.
pub fn recorded_bytes(segment: &Path) -> u64 {
    let mut segment = Segment::open(segment).expect("a segment");
    while segment.next_record().expect("records").is_some() {}
    segment.whole_bytes()
}

/// All records, in the order of the log.
#[derive(Debug, Clone, Default)]
pub struct Records(Vec<Value>);

impl Records {
    /// Reads a log's folder; a record that the reference of fields does not have is a failure.
    #[track_caller]
    pub fn read(folder: &Path) -> Self {
        let mut records = Vec::new();
        let take = |_, record: &[u8]| {
            records.push(parsed(record));
            ControlFlow::<()>::Continue(())
        };
        read::each(folder, take).unwrap_or_else(|error| panic!("{error}"));
        Self(records)
    }

    /// Reads records as JSON Lines.
    #[track_caller]
    pub fn lines(file: &Path) -> Self {
        let text = std::fs::read(file).unwrap_or_default();
        Self(whole(&text).map(parsed).collect())
    }

    /// The same of a proxy that was killed: a line that breaks off must come again whole, and how many did.
    #[track_caller]
    pub fn lines_of_the_killed(file: &Path) -> (Self, usize) {
        let text = std::fs::read(file).unwrap_or_default();
        let (mut records, mut torn) = (Vec::new(), Vec::new());
        for line in whole(&text) {
            torn.retain(|start: &&[u8]| !line.starts_with(start));
            if serde_json::from_slice::<Value>(line).is_ok() {
                records.push(parsed(line));
            } else {
                torn.push(line);
            }
        }
        let shown: Vec<_> = torn.iter().map(|line| String::from_utf8_lossy(line)).collect();
        assert!(torn.is_empty(), "these broke off and never came again: {shown:#?}");
        let broken = whole(&text).count() - records.len();
        (Self(records), broken)
    }

    /// Records that no proxy has written: what a test of the tests makes up.
    #[cfg(test)]
    pub(crate) fn made_up(records: impl IntoIterator<Item = Value>) -> Self {
        Self(records.into_iter().collect())
    }

    /// Records of one kind of event.
    #[must_use]
    pub fn of(&self, event: &str) -> Self {
        self.keep(|record| record["event"] == event)
    }

    /// The same where each message has its begin record, also those that share one.
    #[must_use]
    pub fn apart(&self) -> Self {
        let alone = |record: &Value| match record.as_object() {
            Some(begin) if record["event"] == "begin" => apart(begin).into_iter().map(Value::Object).collect(),
            _ => vec![record.clone()],
        };
        Self(self.0.iter().flat_map(alone).collect())
    }

    /// The begin record of each message of this kind.
    #[must_use]
    pub fn messages(&self, stage: &str) -> Self {
        self.of("begin").apart().with("stage", stage)
    }

    /// Records whose field is this text.
    #[must_use]
    pub fn with(&self, field: &str, value: &str) -> Self {
        self.keep(|record| record[field] == value)
    }

    /// The begin records whose text is this.
    #[must_use]
    pub fn began(&self, text: &str) -> Self {
        self.of("begin").with("text", text)
    }

    /// The end record that joins a begin record; there must be exactly one.
    #[track_caller]
    pub fn end_of<'a>(&'a self, begin: &Value) -> &'a Value {
        let ends: Vec<&Value> =
            self.0.iter().filter(|record| record["event"] == "end" && record["id"] == begin["id"]).collect();
        assert_eq!(ends.len(), 1, "one end for {begin}, not {ends:?}");
        ends[0]
    }

    /// The text of an event, put together from its begin record and what follows of it, and whether it goes on behind that.
    #[track_caller]
    pub fn whole_text(&self, id: &str) -> (Vec<u8>, bool) {
        let (mut text, mut cut) = (Vec::new(), false);
        let own = |record: &&Value| {
            let has_text = record["event"] == "text" || !record["text_bytes"].is_null();
            record["id"] == id && has_text && record["event"] != "end"
        };
        for record in self.0.iter().filter(own) {
            assert!(!cut, "more of {id} behind its end");
            if record["event"] == "text" {
                assert_eq!(record["offset"], text.len(), "a part of {id} is missing");
                cut = record["cut"] == true;
            }
            match record["text_base64"].as_str() {
                Some(part) => text.extend(base64::engine::general_purpose::STANDARD.decode(part).expect("base64")),
                None if cut => {}
                None => text.extend(record["text"].as_str().expect("a text").as_bytes()),
            }
        }
        (text, cut)
    }

    /// The only record; there must be exactly one.
    #[track_caller]
    pub fn only(&self) -> &Value {
        assert_eq!(self.0.len(), 1, "one record, not {:#?}", self.0);
        &self.0[0]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Value> {
        self.0.iter()
    }

    /// The begin records of these texts that have no end yet.
    #[must_use]
    pub fn open(&self) -> Self {
        let id = |record: &Value| record["id"].as_str().unwrap_or_default().to_owned();
        let ended: HashSet<String> = self.0.iter().filter(|record| record["event"] == "end").map(id).collect();
        self.keep(|record| record["event"] == "begin" && !ended.contains(&id(record)))
    }

    fn keep(&self, wanted: impl Fn(&Value) -> bool) -> Self {
        Self(self.0.iter().filter(|record| wanted(record)).cloned().collect())
    }
}

fn whole(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[track_caller]
fn parsed(record: &[u8]) -> Value {
    let shown = String::from_utf8_lossy(record);
    let value: Value = serde_json::from_slice(record).unwrap_or_else(|error| panic!("{error} in record {shown}"));
    if let Err(reason) = as_the_reference_has_it(&value) {
        panic!("{reason} in {shown}");
    }
    value
}

/// Whether a record is one that the reference of fields (`pgpassport audit fields --json`) knows, or why not.
pub fn as_the_reference_has_it(record: &Value) -> Result<(), String> {
    let event = record["event"].as_str().ok_or("no event")?;
    let validator = REFERENCE.get(event).ok_or_else(|| format!("no such event as {event}"))?;
    validator.validate(record).map_err(|error| error.to_string())
}

/// A log that grows, from where it was last read.
#[derive(Debug)]
pub struct Tail {
    folder: PathBuf,
    segment: Option<Segment>,
}

impl Tail {
    /// From the log's first record.
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), segment: None }
    }

    /// Adds what was written since the last time.
    #[track_caller]
    pub fn read(&mut self, records: &mut Records) {
        let open = |path: &Path| Segment::open(path).unwrap_or_else(|error| panic!("{error}"));
        let first = || read::segments(&self.folder).ok()?.first().map(|path| open(path));
        let mut segment = self.segment.take().or_else(first).expect("a segment");
        loop {
            while let Some(record) = segment.next_record().unwrap_or_else(|error| panic!("{error}")) {
                records.0.push(parsed(record));
            }
            let next = segment::path(&self.folder, segment.header().number + 1);
            if !next.exists() {
                break;
            }
            segment = open(&next);
        }
        self.segment = Some(segment);
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = &'a Value;
    type IntoIter = std::slice::Iter<'a, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

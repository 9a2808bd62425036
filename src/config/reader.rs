//! A small typed reader over TOML tables that collects every problem instead of stopping at the first.
//!
//! Whoever reads a [`Section`] asks for its keys by name and ends with [`Section::finish`], which reports the keys
//! that nobody asked for. A missing value is `None` after a report, never a default that hides it.

use super::{Problem, suggest, values};
use crate::names::NameError;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Problems and warnings of one file, by their place in it.
pub(super) struct Report<'f> {
    file: &'f Path,
    /// Byte offset of each line's start, ascending, the first 0.
    lines: Vec<usize>,
    found: RefCell<Found>,
}

#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Lines that could not be parsed; what else is said of them is noise.
    broken: BTreeSet<usize>,
    /// Problems that a broken line may have caused: something is missing.
    absences: Vec<Problem>,
}

impl<'f> Report<'f> {
    pub(super) fn new(file: &'f Path, bytes: &[u8]) -> Self {
        let newlines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(newlines).collect();
        Self { file, lines, found: RefCell::default() }
    }

    /// Something that is there and wrong.
    pub(super) fn problem(&self, at: usize, key: &str, reason: &str) {
        let problem = self.at(at, key, reason);
        self.found.borrow_mut().problems.push(problem);
    }

    /// A line that is not TOML.
    pub(super) fn syntax(&self, at: usize, key: &str, reason: &str) {
        let problem = self.at(at, key, reason);
        let mut found = self.found.borrow_mut();
        found.broken.insert(problem.line);
        found.problems.push(problem);
    }

    /// Something that is not there: a required key, or what a name refers to.
    pub(super) fn absence(&self, at: usize, key: &str, reason: &str) {
        let problem = self.at(at, key, reason);
        self.found.borrow_mut().absences.push(problem);
    }

    /// Something that works and that an operator should see.
    pub(super) fn warning(&self, at: usize, key: &str, reason: &str) {
        let warning = self.at(at, key, reason);
        self.found.borrow_mut().warnings.push(warning);
    }

    /// Problems and warnings, each in the order of the file. While there are syntax errors, only what they cannot
    /// have caused is told along with them.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let Found { mut problems, mut warnings, broken, absences } = self.found.into_inner();
        if broken.is_empty() {
            problems.extend(absences);
        } else {
            let mut seen = BTreeSet::new();
            problems.retain(|problem| !broken.contains(&problem.line) || seen.insert(problem.line));
        }
        problems.sort_by_key(|problem| problem.line);
        warnings.sort_by_key(|warning| warning.line);
        (problems, warnings)
    }

    /// Whether nothing is wrong so far with these sections.
    pub(super) fn is_clean(&self, sections: &[&str]) -> bool {
        let found = self.found.borrow();
        let of = |problem: &Problem| {
            let section = problem.key.split(['.', '[']).next();
            section.is_some_and(|section| sections.contains(&section))
        };
        found.broken.is_empty() && !found.problems.iter().chain(&found.absences).any(of)
    }

    /// The line of a byte offset, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    fn at(&self, at: usize, key: &str, reason: &str) -> Problem {
        let line = self.line(at);
        Problem { file: self.file.to_owned(), line, key: key.to_owned(), reason: reason.to_owned() }
    }
}

/// A value, its key and its place.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) report: &'a Report<'a>,
    /// Dotted, with quotes where TOML needs them.
    pub(super) key: String,
    /// Byte offset.
    pub(super) at: usize,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Field<'a> {
    pub(super) fn problem(&self, reason: &str) {
        self.report.problem(self.at, &self.key, reason);
    }

    pub(super) fn absence(&self, reason: &str) {
        self.report.absence(self.at, &self.key, reason);
    }

    pub(super) fn warning(&self, reason: &str) {
        self.report.warning(self.at, &self.key, reason);
    }

    /// Reads the value, or reports why not.
    pub(super) fn read<T>(&self, parse: impl FnOnce(&'a DeValue<'a>) -> Result<T, String>) -> Option<T> {
        parse(self.value).map_err(|reason| self.problem(&reason)).ok()
    }

    pub(super) fn is_empty_array(&self) -> bool {
        self.value.as_array().is_some_and(|array| array.is_empty())
    }

    /// The value as a table.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let table = self.read(|value| value.as_table().ok_or_else(|| wrong_type("a table", value)))?;
        Some(Section { report: self.report, key: self.key.clone(), at: self.at, table, asked: RefCell::default() })
    }

    /// The entries of an array, `key[0]` and on.
    pub(super) fn entries(&self) -> Option<Vec<Field<'a>>> {
        let array = self.read(|value| value.as_array().ok_or_else(|| wrong_type("an array", value)))?;
        let entry = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| Field {
            report: self.report,
            key: format!("{}[{index}]", self.key),
            at: value.span().start,
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(entry).collect())
    }

    /// The same of a list that must not be empty when it is there.
    pub(super) fn some_entries(&self) -> Option<Vec<Field<'a>>> {
        let entries = self.entries()?;
        if entries.is_empty() {
            self.problem("is empty; leave it out or name at least one");
        }
        Some(entries)
    }
}

/// A table that is being read.
pub(super) struct Section<'a> {
    pub(super) report: &'a Report<'a>,
    pub(super) key: String,
    pub(super) at: usize,
    table: &'a DeTable<'a>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self { report, key: String::new(), at: 0, table, asked: RefCell::default() }
    }

    /// A key that may be absent.
    pub(super) fn field(&self, key: &'static str) -> Option<Field<'a>> {
        self.asked.borrow_mut().insert(key);
        self.table.get_key_value(key).map(|(name, value)| self.entry(name, value))
    }

    /// A key that must be there.
    pub(super) fn required_field(&self, key: &'static str) -> Option<Field<'a>> {
        let field = self.field(key);
        if field.is_none() {
            self.report.absence(self.at, &self.path(key), "is required");
        }
        field
    }

    /// A value that may be absent. A bad one is reported and reads as absent.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        self.field(key)?.read(parse)
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        self.required_field(key)?.read(parse)
    }

    /// Each entry of an array that may be absent, except the bad ones, which are reported.
    pub(super) fn list<T>(&self, key: &'static str, parse: impl Fn(&'a DeValue<'a>) -> Result<T, String>) -> Vec<T> {
        let entries = self.field(key).and_then(|field| field.entries()).unwrap_or_default();
        entries.iter().filter_map(|entry| entry.read(&parse)).collect()
    }

    /// The same of an array that restricts something: an empty one would restrict nothing, and is refused.
    pub(super) fn some_list<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Vec<T> {
        let entries = self.field(key).and_then(|field| field.some_entries()).unwrap_or_default();
        entries.iter().filter_map(|entry| entry.read(&parse)).collect()
    }

    /// Every key of a table whose keys are not known beforehand.
    pub(super) fn all_fields(&self) -> Vec<(&'a str, Field<'a>)> {
        self.table.iter().map(|(name, value)| (name.get_ref().as_ref(), self.entry(name, value))).collect()
    }

    /// A sub-table whose absence is left to the caller.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        self.field(key)?.section()
    }

    /// A sub-table that must be there.
    pub(super) fn required_section(&self, key: &'static str) -> Option<Section<'a>> {
        self.required_field(key)?.section()
    }

    /// Every `[KEY.NAME]`, with the name; reports when there is none.
    pub(super) fn named_sections(&self, key: &'static str) -> Vec<(&'a str, Section<'a>)> {
        let Some(outer) = self.required_section(key) else { return Vec::new() };
        if outer.table.is_empty() {
            outer.report.absence(outer.at, &outer.key, "needs at least one entry");
        }
        let named = |(name, value): (&'a Spanned<_>, &'a Spanned<_>)| {
            let name: &'a Spanned<std::borrow::Cow<'a, str>> = name;
            Some((name.get_ref().as_ref(), outer.entry(name, value).section()?))
        };
        outer.table.iter().filter_map(named).collect()
    }

    /// Checks the name that this table has as a key.
    pub(super) fn named<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, NameError>) -> Option<T> {
        parse(name).map_err(|error| self.report.problem(self.at, &self.key, &format!("the name {error}"))).ok()
    }

    /// Calls the table by a better name than its index.
    pub(super) fn rename(&mut self, outer: &str, name: &str) {
        self.key = join(outer, name);
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        for name in self.table.keys() {
            let known: &str = name.get_ref();
            if !asked.contains(known) {
                let hint = suggest::hint(known, asked.iter().copied());
                let key = join(&self.key, known);
                self.report.problem(name.span().start, &key, &format!("is not a known key{hint}"));
            }
        }
    }

    /// This table's key with one more part.
    pub(super) fn path(&self, key: &str) -> String {
        join(&self.key, key)
    }

    fn entry(&self, name: &'a Spanned<std::borrow::Cow<'a, str>>, value: &'a Spanned<DeValue<'a>>) -> Field<'a> {
        Field { report: self.report, key: self.path(name.get_ref()), at: name.span().start, value: value.get_ref() }
    }
}

/// Something that was read, and where.
pub(super) struct Placed<T> {
    pub(super) key: String,
    pub(super) at: usize,
    pub(super) value: T,
}

impl<T> Placed<T> {
    pub(super) fn values(placed: Vec<Self>) -> Vec<T> {
        placed.into_iter().map(|placed| placed.value).collect()
    }
}

/// All `[KEY.NAME]` of one kind: every name that is declared, and the entries that could be read. A name whose entry
/// is wrong resolves still, so that one mistake is one problem.
pub(super) struct Declared<T> {
    pub(super) names: Vec<String>,
    pub(super) entries: Vec<Placed<T>>,
}

impl<T> Default for Declared<T> {
    fn default() -> Self {
        Self { names: Vec::new(), entries: Vec::new() }
    }
}

impl<T> Declared<T> {
    /// Reads a value that must name one of these.
    pub(super) fn resolve<N>(
        &self,
        field: &Field<'_>,
        kind: &str,
        parse: impl Fn(&str) -> Result<N, NameError>,
    ) -> Option<N> {
        let name = field.read(values::text)?;
        if !self.names.iter().any(|declared| declared == name) {
            let hint = suggest::hint(name, self.names.iter().map(String::as_str));
            field.absence(&format!("names no [{kind}.…]: {name:?} is not there{hint}"));
            return None;
        }
        parse(name).ok()
    }
}

/// What a value should have been and what it is.
pub(super) fn wrong_type(expected: &str, value: &DeValue<'_>) -> String {
    format!("must be {expected}, not {}", with_article(value))
}

fn with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Quotes a part that is no bare key, and escapes what could forge a line.
fn join(path: &str, part: &str) -> String {
    let bare = !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let part = if bare { part.to_owned() } else { format!("{part:?}") };
    if path.is_empty() { part } else { format!("{path}.{part}") }
}

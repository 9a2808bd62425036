//! Fuzz target: any text as a config file.

#![allow(clippy::missing_panics_doc, clippy::panic, reason = "a target's panic is its finding")]

use super::{Problem, check};
use crate::fuzzing::Choices;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where the file would stand. Relative paths in it lead nowhere.
const FILE: &str = "/nonexistent/pgpassport.toml";
/// A value that nobody wrote for others to read: no name, no URL, no path.
const PRIVATE: &str = "c4n4ry/+= \\\\\\u0022";
/// Keys whose values are names of things that a reason may name: paths, and references to other sections.
const NAMED: [&str; 10] =
    ["certificate", "key", "ca_certificate", "path", "file", "key_file", "instance", "issuer", "databases", "name"];

/// Any text is a config or a list of what is wrong with it, each with the file, a line that exists, a key and a reason
/// of one line, in the order of the lines, the same each time. A value is not repeated in a reason.
pub fn config(data: &[u8]) {
    let mut choices = Choices::new(data);
    let which = usize::from(choices.byte());
    let text = choices.rest();
    let problems = judge(text);
    assert_eq!(problems, judge(text));
    if let Some(changed) = std::str::from_utf8(text).ok().and_then(|text| with_private_value(text, which)) {
        for problem in judge(changed.as_bytes()) {
            assert!(!problem.reason.contains("c4n4ry"), "{problem}");
        }
    }
}

/// Everything that is said of a file: its problems, or its warnings.
fn judge(text: &[u8]) -> Vec<Problem> {
    let lines = text.split(|byte| *byte == b'\n').count();
    let told = match check(Path::new(FILE), text) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            problems
        }
    };
    for problem in &told {
        assert!(problem.file == Path::new(FILE) && (1..=lines).contains(&problem.line), "{problem}");
        assert!(!problem.key.is_empty() && !problem.reason.is_empty(), "{problem}");
        assert!(!problem.to_string().contains(['\n', '\r', '\u{1b}', '\0']), "{:?}", problem.to_string());
    }
    assert!(told.is_sorted_by_key(|problem| problem.line));
    told
}

/// The file with one of its text values replaced by [`PRIVATE`].
fn with_private_value(text: &str, which: usize) -> Option<String> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return None;
    }
    let mut spans = Vec::new();
    for (key, value) in table.get_ref() {
        values(key.get_ref(), value, &mut spans);
    }
    let span = spans.get(which % spans.len().max(1))?.clone();
    let (before, after) = (text.get(..span.start)?, text.get(span.end..)?);
    Some(format!("{before}\"{PRIVATE}\"{after}"))
}

fn values(key: &str, value: &Spanned<DeValue<'_>>, spans: &mut Vec<std::ops::Range<usize>>) {
    match value.get_ref() {
        _ if NAMED.contains(&key) && !matches!(value.get_ref(), DeValue::Table(_)) => {}
        DeValue::String(_) => spans.push(value.span()),
        DeValue::Array(entries) => entries.iter().for_each(|entry| values(key, entry, spans)),
        DeValue::Table(members) => members.iter().for_each(|(key, value)| values(key.get_ref(), value, spans)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::fuzzing::corpus::replay;

    #[test]
    fn config() {
        replay("config", super::config);
    }
}

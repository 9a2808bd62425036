//! From a file's bytes to a TOML table: bounded, and with every syntax error rather than the first.

use super::reader::{Report, Section};
use toml::de::DeTable;

/// The largest config file, in bytes: room for more than ten thousand rules.
pub(super) const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;
/// Syntax errors that are listed; more are counted. One slip can unsettle all that follows.
const MAX_SYNTAX_ERRORS: usize = 10;

/// Parses and hands the root table to `walk`. After syntax errors the walk still runs, for the problems of what
/// could be read, but what it builds is thrown away.
pub(super) fn parse<T>(bytes: &[u8], report: &Report<'_>, walk: impl FnOnce(Section<'_>) -> Option<T>) -> Option<T> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            report.problem(error.valid_up_to(), "(syntax)", "is not valid UTF-8");
            return None;
        }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(MAX_SYNTAX_ERRORS) {
        let at = error.span().map_or(0, |span| span.start);
        report.syntax(at, &key_at(text, at), error.message());
    }
    if let Some(more) = errors.len().checked_sub(MAX_SYNTAX_ERRORS).filter(|more| *more > 0) {
        report.syntax(text.len(), "(syntax)", &format!("{more} more syntax errors"));
    }
    let built = walk(Section::root(report, table.get_ref()));
    built.filter(|_| errors.is_empty())
}

/// The key that a syntax error most likely stands in: the last header above it and what stands before `=`.
/// A guess for people; nothing is decided by it.
fn key_at(text: &str, at: usize) -> String {
    let line_start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let (above, here) = text.split_at_checked(line_start).unwrap_or((text, ""));
    let line = here.lines().next().unwrap_or_default();
    let header = above.lines().rev().find_map(header);
    let own = line.split_once('=').map(|(key, _)| key.trim()).filter(|key| plain(key));
    match (header, own) {
        (Some(header), Some(own)) => format!("{header}.{own}"),
        (None, Some(own)) => own.to_owned(),
        (Some(header), None) if !line.trim_start().starts_with('[') => header.to_owned(),
        _ => "(syntax)".to_owned(),
    }
}

fn header(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('[')?.split(']').next()?.trim_start_matches('[').trim();
    (!inner.is_empty() && !inner.contains(char::is_control)).then_some(inner)
}

fn plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

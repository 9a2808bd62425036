//! What the other side wrote: PostgreSQL's log and the proxy's records.

use super::caller::Caller;
use crate::audit::ledger::read;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a line may take to reach its file.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A statement as PostgreSQL logged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logged {
    /// The session's user (`%u`).
    pub(super) user: String,
    /// The whole statement, tag and all.
    pub(super) statement: String,
}

impl Logged {
    /// The tag's inside and the text behind it, when the statement begins with one.
    pub(super) fn split_tag(&self) -> Option<(&str, &str)> {
        self.statement.strip_prefix("/*")?.split_once("*/ ")
    }

    /// Whether the tag names this caller, and the text behind it is exactly what they sent.
    pub(super) fn is_tagged_for(&self, caller: &Caller) -> bool {
        let Some((tag, text)) = self.split_tag() else { return false };
        let member = |name: &str, value: &str| tag.split(',').any(|one| one == format!("{name}='{value}'"));
        text == caller.query
            && member("oid", caller.object_id())
            && member("tid", caller.tenant().id)
            && member("app", caller.app())
    }
}

/// The statement in PostgreSQL's log that ends with this text, once it is there.
pub(super) async fn logged(log: &Path, query: &str) -> Option<Logged> {
    eventually(|| {
        let text = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter_map(logged_statement).find(|one| one.statement.ends_with(query))
    })
    .await
}

/// The record that fits, once it is there.
pub(super) async fn record(audit: &Path, fits: impl Fn(&Value) -> bool) -> Option<Value> {
    let parse = |record: &[u8]| serde_json::from_slice::<Value>(record).ok().filter(|record| fits(record));
    let found = |_, record: &[u8]| parse(record).map_or(ControlFlow::Continue(()), ControlFlow::Break);
    eventually(|| read::each(audit, found).ok().flatten()).await
}

/// A record's member as text; empty when it is not there.
pub(super) fn member<'r>(record: &'r Value, pointer: &str) -> &'r str {
    record.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

async fn eventually<T>(find: impl Fn() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = find();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `DATE TIME ZONE [PID] USER DATABASE SQLSTATE LOG:  statement: …` or `… execute NAME: …`.
fn logged_statement(line: &str) -> Option<Logged> {
    let (prefix, message) = line.split_once(" LOG:  ")?;
    let user = prefix.split(' ').nth(4)?.to_owned();
    let statement = message
        .strip_prefix("statement: ")
        .or_else(|| message.strip_prefix("execute ")?.split_once(": ").map(|(_, text)| text))?;
    Some(Logged { user, statement: statement.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read_from_postgresqls_log() {
        let line = "2026-11-22 04:40:00.000 UTC [123] analyst@contoso.example orders 00000 LOG:  statement: /*oid='1'*/ SELECT 1";
        let logged = logged_statement(line).unwrap();
        assert_eq!(
            (logged.user.as_str(), logged.split_tag()),
            ("analyst@contoso.example", Some(("oid='1'", "SELECT 1")))
        );
        let prepared = "2026-11-22 04:40:00.000 UTC [123] app orders 00000 LOG:  execute s0: SELECT 2";
        let logged = logged_statement(prepared).unwrap();
        assert_eq!((logged.statement.as_str(), logged.split_tag()), ("SELECT 2", None));
        assert_eq!(logged_statement("2026-11-22 04:40:00.000 UTC [1]    LOG:  checkpoint starting"), None);
    }
}

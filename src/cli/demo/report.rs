//! What the demo prints: plain text that can be read in ten seconds.

use super::Proxy;
use super::caller::{Caller, Expected};
use super::evidence::member;
use super::session::Answer;
use super::steps::{Shown, Visit};
use crate::sim::Cloud;
use crate::sim::world::{DATABASE, INSTANCE};
use serde_json::Value;
use std::fmt::Write as _;

/// Characters of a correlation or event id that are shown in a line.
const SHORT_ID: usize = 13;

/// The whole report.
pub(super) fn text(cloud: &Cloud, proxy: &Proxy, callers: &[Caller], shown: &Shown) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "\npgpassport on {} in front of {INSTANCE} (simulated)\n", proxy.address);
    connection_strings(&mut out, cloud, proxy, callers);
    let visits = || callers.iter().zip(&shown.visits);
    let _ = writeln!(out, "WHAT EACH CALLER GOT");
    visits().for_each(|(caller, visit)| got(&mut out, caller, visit));
    let _ = writeln!(out, "\nWHAT THE DATABASE LOGGED ({})", cloud.postgres_log().display());
    visits().for_each(|(_, visit)| logged(&mut out, visit));
    let _ = writeln!(out, "\nWHAT IS ON RECORD ({})", proxy.audit.display());
    visits().for_each(|(_, visit)| visit.records.iter().for_each(|record| recorded(&mut out, record)));
    verdict(&mut out, shown);
    out
}

/// Lines to paste into another terminal.
fn connection_strings(out: &mut String, cloud: &Cloud, proxy: &Proxy, callers: &[Caller]) {
    let _ = writeln!(out, "PASTE INTO ANOTHER TERMINAL");
    let (port, ca) = (proxy.address.port(), cloud.ca_path().display());
    for caller in callers {
        let (token, user) = (caller.token_file.display(), caller.user);
        let _ = writeln!(out, "  # {}: {}", caller.name, caller.description);
        let _ = writeln!(
            out,
            "  PGPASSWORD=\"$(cat {token})\" psql \"host=localhost port={port} dbname={DATABASE} user={user} \
             sslmode=verify-full sslrootcert={ca}\""
        );
    }
    out.push('\n');
}

fn got(out: &mut String, caller: &Caller, visit: &Visit) {
    let _ = writeln!(out, "  {:<26} {}", caller.name, caller.query);
    match &visit.answer {
        Answer::Rows(names, rows) => {
            for row in rows {
                let values: Vec<String> =
                    names.iter().zip(row).map(|(name, value)| format!("{name}={value}")).collect();
                let _ = writeln!(out, "  {:<26}   {}", "", values.join("  "));
            }
        }
        Answer::Refused(refusal) => {
            let _ = writeln!(out, "  {:<26}   FATAL {}: {}", "", refusal.sqlstate, refusal.message);
            let _ = writeln!(out, "  {:<26}   {}", "", refusal.detail);
            let _ = writeln!(out, "  {:<26}   HINT: {}", "", refusal.hint);
        }
    }
    let expected = matches!(
        (caller.expected, &visit.answer),
        (Expected::Admitted, Answer::Rows(..)) | (Expected::Refused, Answer::Refused(_))
    );
    if !expected {
        let _ = writeln!(out, "  {:<26}   (that is not what should have happened)", "");
    }
}

fn logged(out: &mut String, visit: &Visit) {
    if let Some(logged) = &visit.logged {
        let _ = writeln!(out, "  {}\n    {}", logged.user, logged.statement);
    }
}

fn recorded(out: &mut String, record: &Value) {
    let text = |pointer| member(record, pointer);
    let number = |pointer| record.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let event = text("/event");
    let _ = match event {
        "begin" => {
            writeln!(out, "  begin    {:<16} {:<38} {}", short(text("/id")), text("/caller/label"), text("/text"))
        }
        "end" => writeln!(
            out,
            "  end      {:<16} {:<38} {} row(s), {} bytes out, {} us",
            short(text("/id")),
            text("/outcome"),
            number("/rows"),
            number("/bytes_out"),
            number("/duration_us")
        ),
        _ => writeln!(
            out,
            "  {event:<8} {:<16} {:<38} {}",
            short(text("/correlation")),
            text("/sqlstate"),
            text("/reason")
        ),
    };
}

/// The tail of an id: version 7 ids of one second begin alike.
fn short(id: &str) -> String {
    let tail = id.char_indices().rev().nth(SHORT_ID.saturating_sub(1)).and_then(|(at, _)| id.get(at..));
    tail.map_or_else(|| id.to_owned(), |tail| format!("..{tail}"))
}

fn verdict(out: &mut String, shown: &Shown) {
    let checks = &shown.checks;
    let held = checks.made.saturating_sub(checks.failed.len());
    let _ = writeln!(out, "\n{held} of {} checks held", checks.made);
    for failed in &checks.failed {
        let _ = writeln!(out, "  FAILED: {failed}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_become_aligned_lines() {
        let mut out = String::new();
        let id = "019b0c2e-0000-7000-8000-00000000000a.1";
        recorded(&mut out, &json!({"event": "begin", "id": id, "caller": {"label": "orders-app"}, "text": "SELECT 1"}));
        recorded(
            &mut out,
            &json!({"event": "end", "id": id, "outcome": "ok", "rows": 1, "bytes_out": 60, "duration_us": 412}),
        );
        let columns: Vec<usize> = out.lines().map(|line| line.find("..").unwrap()).collect();
        assert_eq!(columns, [11, 11]);
        assert!(
            out.contains("orders-app                             SELECT 1")
                && out.contains("1 row(s), 60 bytes out, 412 us"),
            "{out}"
        );
    }
}

//! Which executions and records are asked for.

use super::fields::{Fields, began, text, when};
use super::join::{Item, Wanted};
use super::unseal::Opener;
use crate::time::{Clock, Timestamp};
use jiff::SignedDuration;
use memchr::memmem;
use serde_json::Value;

/// What `--event` takes: `execution`, which joins `begin`, `text` and `end`, or a record of the log.
const EVENTS: [&str; 18] = [
    "execution",
    "all",
    "begin",
    "text",
    "end",
    "session_start",
    "exchanged",
    "session_open",
    "session_end",
    "refused",
    "refusals_suppressed",
    "sync_error",
    "cancel",
    "gap",
    "audit_limit",
    "recovery",
    "reload",
    "operator_action",
];

/// All that is given must hold.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Filter {
    /// Of this caller: the label or the object id
    #[arg(long, value_name = "LABEL-or-OID")]
    who: Option<String>,
    /// Of this client app (the token's azp or appid)
    #[arg(long, value_name = "ID")]
    app: Option<String>,
    /// Of this database, as the config or the instance calls it
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// With this in the statement's text as far as it is recorded, in upper or lower case
    #[arg(long, value_name = "SUBSTRING")]
    text: Option<String>,
    /// Begun then or later: RFC 3339, a date (its midnight in UTC), or how long ago (90s, 30m, 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Timestamp>,
    /// Begun before: as --since
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Timestamp>,
    /// That ended so: ok, error, canceled, suspended, bound, parsed, refused, skipped, unknown, open, or a SQLSTATE
    #[arg(long, value_name = "OUTCOME-or-SQLSTATE")]
    outcome: Option<String>,
    /// With more rows, returned or changed
    #[arg(long, value_name = "N")]
    rows_over: Option<u64>,
    /// Of the session of this id, which errors call correlation id
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Records of this kind in place of executions; `all` for both
    #[arg(long, value_name = "KIND", value_parser = EVENTS)]
    event: Option<String>,
}

impl Filter {
    /// Everything of one session.
    pub(super) fn of_session(id: &str) -> Self {
        Self { session: Some(id.to_owned()), event: Some("all".to_owned()), ..Self::default() }
    }

    /// How records become items.
    pub(super) fn wanted(&self, opener: Opener) -> Wanted {
        Wanted {
            needle: self.text.as_ref().map(|text| text.to_lowercase()),
            raw: matches!(self.event.as_deref(), Some("begin" | "text" | "end")),
            whole_texts: false,
            opener,
            max_open: None,
        }
    }

    /// Before this no record is asked for.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since.max(self.session.as_deref().and_then(began))
    }

    /// Whether a record can matter at all, before it is parsed.
    pub(super) fn may_hold(&self, record: &[u8]) -> bool {
        self.session.as_ref().is_none_or(|session| memmem::find(record, session.as_bytes()).is_some())
    }

    pub(super) fn holds(&self, item: &Item) -> bool {
        let fields = &item.fields;
        let caller = |name: &str| fields.get("caller").and_then(|caller| caller.get(name)).and_then(Value::as_str);
        let is = |wanted: &Option<String>, own: &[Option<&str>]| {
            wanted.as_ref().is_none_or(|wanted| own.iter().flatten().any(|own| own.eq_ignore_ascii_case(wanted)))
        };
        let member = |name| fields.get(name).and_then(Value::as_str);
        let has_text = fields.contains_key("text") || fields.contains_key("text_base64");
        let rows = fields.get("rows").and_then(Value::as_u64);
        self.is_kind(text(fields, "event"))
            && is(&self.who, &[caller("label"), caller("object_id"), member("who")])
            && is(&self.app, &[caller("app")])
            && is(&self.database, &[member("database"), member("database_name")])
            && is(&self.outcome, &[member("outcome"), member("sqlstate")])
            && is(&self.session, &[member("session"), member("ended_session")])
            && (self.text.is_none() || (has_text && item.text_found))
            && self.rows_over.is_none_or(|over| rows.is_some_and(|rows| rows > over))
            && self.is_within(fields)
    }

    fn is_kind(&self, event: &str) -> bool {
        match self.event.as_deref() {
            None => event == "execution",
            Some("all") => true,
            Some(kind) => event == kind,
        }
    }

    fn is_within(&self, fields: &Fields) -> bool {
        let at = when(fields);
        let since = self.since.is_none_or(|since| at.is_some_and(|at| at >= since));
        since && self.until.is_none_or(|until| at.is_some_and(|at| at < until))
    }
}

/// RFC 3339, a date, or how long ago.
fn time(given: &str) -> Result<Timestamp, String> {
    let exact = given.parse().or_else(|_| format!("{given}T00:00:00Z").parse());
    if let Ok(exact) = exact {
        return Ok(exact);
    }
    let wrong = || "use RFC 3339 (2026-11-22T15:04:05Z), a date (2026-11-22), or how long ago (90s, 30m, 2h, 7d)";
    let unit = given.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        'w' => 7 * 86400,
        _ => return Err(wrong().to_owned()),
    };
    let count: u32 = given.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| wrong())?;
    let ago = SignedDuration::from_secs(i64::from(count).saturating_mul(seconds));
    Clock::system().now().checked_sub(ago).map_err(|_| wrong().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_exact_a_date_or_ago() {
        assert_eq!(time("2026-11-22T10:00:00Z"), time("2026-11-22T12:00:00+02:00"));
        assert_eq!(time("2026-11-22").unwrap().to_string(), "2026-11-22T00:00:00Z");
        let ago = Clock::system().now().duration_since(time("2h").unwrap());
        assert!((ago.as_secs() - 7200).abs() < 60, "{ago:?}");
        for wrong in ["", "2", "h", "2y", "-2h", "2026-13-01", "yesterday", "99999999999d", "2hh", "4294967295w"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}

//! `[rule.limits]`: what a rule's callers may use up.

use super::reader::Section;
use super::settings::COUNTS;
use super::values;
use crate::policy::{Limits, Line, Over, Rate};
use std::ops::RangeInclusive;
use std::time::Duration;

const OVER: &[(&str, Over)] = &[("wait", Over::Wait), ("refuse", Over::Refuse)];
/// One read is 64 KiB: slower callers would not be limited but stopped, and an end would be noticed late.
const BYTES: RangeInclusive<u32> = 65_536..=u32::MAX;
const STATEMENTS: RangeInclusive<u32> = 1..=1_000_000;
const CONNECTS: RangeInclusive<u32> = 1..=100_000;
/// A record of a long text has 64 KiB of it: less would be used up by a few; more than 16 TiB a day no disk takes.
const AUDIT_MIB: RangeInclusive<u32> = 1..=16 << 20;
/// How long a login may wait; clients give up by then.
const PATIENCE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);
const IDLE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);
/// Logins of one caller that wait at once, where the section does not say.
const PLACES: usize = 10;
/// The longest wait, where the section does not say.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// The bounds of one rule. What could not be read has been reported.
pub(super) fn limits(section: Section<'_>) -> Limits {
    let count = |key| section.optional(key, values::integer(COUNTS)).map(|count| count as usize);
    let limits = Limits {
        sessions: count("sessions"),
        sessions_per_caller: count("sessions_per_caller"),
        connects_per_minute: section.optional("connects_per_minute", values::integer(CONNECTS)),
        line: line(&section),
        one_address_per_token: section.optional("one_address_per_token", values::boolean).unwrap_or(false),
        statements: rate(&section, ["statements_per_second", "statements_burst", "statements_over"], STATEMENTS),
        bytes: rate(&section, ["bytes_per_second", "bytes_burst", "bytes_over"], BYTES),
        audit_mib_per_day: section.optional("audit_mib_per_day", values::integer(AUDIT_MIB)),
        idle_in_transaction: section.optional("idle_in_transaction", values::duration(IDLE)),
    };
    let over = |all: &usize| limits.sessions_per_caller.is_some_and(|of_one| of_one > *all);
    if let Some(field) = section.field("sessions_per_caller").filter(|_| limits.sessions.as_ref().is_some_and(over)) {
        field.warning("is more than the rule's sessions, so it is never reached");
    }
    let nothing_to_wait_for =
        limits.sessions.is_none() && limits.sessions_per_caller.is_none() && limits.connects_per_minute.is_none();
    if let Some(field) = section.field("logins_over").filter(|_| nothing_to_wait_for) {
        field.warning("says what becomes of logins over a limit, and no limit of logins is there");
    }
    section.finish();
    limits
}

/// Keys that only mean something beside another one are a mistake without it.
fn line(section: &Section<'_>) -> Option<Line> {
    let over = section.optional("logins_over", values::one_of(OVER));
    let places = section.optional("logins_waiting", values::integer(COUNTS));
    let patience = section.optional("logins_wait", values::duration(PATIENCE));
    if over == Some(Over::Wait) {
        return Some(Line {
            places: places.map_or(PLACES, |places| places as usize),
            patience: patience.unwrap_or(DEFAULT_PATIENCE),
        });
    }
    for key in ["logins_waiting", "logins_wait"] {
        if let Some(field) = section.field(key) {
            field.problem("needs logins_over = \"wait\"");
        }
    }
    None
}

fn rate(section: &Section<'_>, keys: [&'static str; 3], bounds: RangeInclusive<u32>) -> Option<Rate> {
    let [rate, burst, over] = keys;
    let given = section.field(rate);
    let per_second = section.optional(rate, values::integer(bounds.clone()));
    let burst_given = section.optional(burst, values::integer(bounds));
    let over_given = section.optional(over, values::one_of(OVER));
    if given.is_none() {
        for key in [burst, over] {
            if let Some(field) = section.field(key) {
                field.problem(&format!("needs {rate}"));
            }
        }
    }
    let per_second = per_second?;
    Some(Rate { per_second, burst: burst_given.unwrap_or(per_second), over: over_given.unwrap_or(Over::Wait) })
}

//! `at_expiry`, `end_grace` and `max_session` of a rule: how long its sessions live.

use super::reader::Section;
use super::values;
use crate::policy::{AtExpiry, Lifetime};
use std::ops::RangeInclusive;
use std::time::Duration;

const AT_EXPIRY: &[(&str, AtExpiry)] = &[("drain", AtExpiry::Drain), ("keep", AtExpiry::Keep), ("end", AtExpiry::End)];
/// How long a session that is to end may go on.
const GRACE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// How long a session may last.
const LENGTH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

pub(super) fn lifetime(section: &Section<'_>) -> Lifetime {
    let default = Lifetime::default();
    let at_expiry = section.optional("at_expiry", values::one_of(AT_EXPIRY)).unwrap_or_default();
    let max_session = section.optional("max_session", values::duration(LENGTH));
    let grace = section.optional("end_grace", values::duration(GRACE)).unwrap_or(default.grace);
    let drains = at_expiry == AtExpiry::Drain || section.field("max_session").is_some();
    if let Some(field) = section.field("end_grace").filter(|_| !drains) {
        field.warning("is not used: without max_session, only at_expiry = \"drain\" waits for sessions to be idle");
    }
    Lifetime { at_expiry, grace, max_session }
}

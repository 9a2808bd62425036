//! `[rule.limits]`: what each key means, and what it says of a mistake.

use super::{MINIMAL, checked, edited, problems, shown};
use crate::policy::{Limits, Line, Over, Rate};
use std::time::Duration;

fn with(lines: &str) -> String {
    format!("{MINIMAL}[rule.limits]\n{lines}\n")
}

fn limits(lines: &str) -> Limits {
    let loaded = checked(&with(lines)).map_err(|problems| shown(&problems)).unwrap();
    loaded.config.policy.rules()[0].limits.clone()
}

#[test]
fn without_the_section_nothing_is_limited() {
    assert_eq!(checked(MINIMAL).unwrap().config.policy.rules()[0].limits, Limits::default());
    assert_eq!(limits(""), Limits::default());
}

#[test]
fn every_key_is_read_and_what_is_left_out_has_its_default() {
    let all = limits(
        "sessions = 50\nsessions_per_caller = 5\nconnects_per_minute = 60\nlogins_over = \"wait\"\n\
         logins_waiting = 3\nlogins_wait = \"2s\"\none_address_per_token = true\nstatements_per_second = 10\n\
         statements_burst = 40\nstatements_over = \"refuse\"\nbytes_per_second = 1_000_000\n\
         bytes_burst = 4_000_000\nbytes_over = \"refuse\"\naudit_mib_per_day = 500\nidle_in_transaction = \"5m\"",
    );
    let expected = Limits {
        sessions: Some(50),
        sessions_per_caller: Some(5),
        connects_per_minute: Some(60),
        line: Some(Line { places: 3, patience: Duration::from_secs(2) }),
        one_address_per_token: true,
        statements: Some(Rate { per_second: 10, burst: 40, over: Over::Refuse }),
        bytes: Some(Rate { per_second: 1_000_000, burst: 4_000_000, over: Over::Refuse }),
        audit_mib_per_day: Some(500),
        idle_in_transaction: Some(Duration::from_secs(300)),
    };
    assert_eq!(all, expected);
    let line = Some(Line { places: 10, patience: Duration::from_secs(10) });
    assert_eq!(limits("sessions = 1\nlogins_over = \"wait\"").line, line);
    assert_eq!(limits("sessions = 1\nlogins_over = \"refuse\"").line, None);
    let rate = Some(Rate { per_second: 7, burst: 7, over: Over::Wait });
    assert_eq!(limits("statements_per_second = 7").statements, rate);
}

#[test]
fn mistakes_are_told_by_line() {
    for (lines, expected) in [
        ("session = 1", "31: rule.people.limits.session: is not a known key; did you mean \"sessions\"?"),
        ("sessions = 0", "31: rule.people.limits.sessions: is out of bounds: 1 to 100000"),
        ("statements_per_second = 0", "31: rule.people.limits.statements_per_second: is out of bounds: 1 to 1000000"),
        ("bytes_per_second = 10", "31: rule.people.limits.bytes_per_second: is out of bounds: 65536 to 4294967295"),
        ("audit_mib_per_day = 0", "31: rule.people.limits.audit_mib_per_day: is out of bounds: 1 to 16777216"),
        ("bytes_over = \"wait\"", "31: rule.people.limits.bytes_over: needs bytes_per_second"),
        ("statements_burst = 5", "31: rule.people.limits.statements_burst: needs statements_per_second"),
        ("logins_wait = \"5s\"", "31: rule.people.limits.logins_wait: needs logins_over = \"wait\""),
        ("logins_over = \"drop\"", "31: rule.people.limits.logins_over: must be \"wait\" or \"refuse\""),
        ("idle_in_transaction = 5", "31: rule.people.limits.idle_in_transaction: must be a string, not an integer"),
    ] {
        assert_eq!(problems(&with(lines)), [expected], "{lines}");
    }
}

#[test]
fn limits_that_cannot_do_what_they_say_are_warned_of() {
    let warnings = |text: &str| shown(&checked(text).map_err(|problems| shown(&problems)).unwrap().warnings);
    assert_eq!(
        warnings(&with("sessions = 5\nsessions_per_caller = 6")),
        ["32: rule.people.limits.sessions_per_caller: is more than the rule's sessions, so it is never reached"]
    );
    assert_eq!(
        warnings(&with("logins_over = \"wait\"")),
        [
            "31: rule.people.limits.logins_over: says what becomes of logins over a limit, and no limit of logins is there"
        ]
    );
    let key = "key = \"tls.key\"";
    let behind = |more: &str| {
        let listen = format!("{key}\ntrusted_proxies = [\"10.0.0.0/8\"]\n{more}");
        warnings(&format!("{}[rule.limits]\none_address_per_token = true\n", edited(key, &listen)))
    };
    assert!(behind("").iter().any(|warning| warning.starts_with("26: rule.people: asks for one address a token")));
    assert_eq!(behind("proxy_protocol = \"required\""), [""; 0]);
}

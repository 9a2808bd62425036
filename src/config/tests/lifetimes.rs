//! `at_expiry`, `end_grace`, `max_session` and `admin.socket`: what they mean, and what is wrong with them.

use super::*;
use crate::policy::{AtExpiry, END_GRACE, Lifetime};
use std::time::Duration;

/// `MINIMAL` with these lines in its rule.
fn ruled(lines: &str) -> String {
    edited(rules::GROUP, &format!("{}\n{lines}", rules::GROUP))
}

#[test]
fn sessions_drain_at_expiry_unless_the_rule_says_otherwise() {
    let seconds = Duration::from_secs;
    for (lines, expected) in [
        ("", Lifetime { at_expiry: AtExpiry::Drain, grace: END_GRACE, max_session: None }),
        ("at_expiry = \"keep\"", Lifetime { at_expiry: AtExpiry::Keep, ..Lifetime::default() }),
        ("at_expiry = \"end\"", Lifetime { at_expiry: AtExpiry::End, ..Lifetime::default() }),
        (
            "end_grace = \"30s\"\nmax_session = \"8h\"",
            Lifetime { grace: seconds(30), max_session: Some(seconds(8 * 3600)), ..Lifetime::default() },
        ),
    ] {
        let loaded = checked(&ruled(lines)).unwrap();
        assert_eq!(loaded.config.policy.rules()[0].lifetime, expected, "{lines}");
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}

#[test]
fn mistakes_in_lifetimes_are_told_and_a_grace_that_is_not_used_is_a_warning() {
    let problems = checked(&ruled("at_expiry = \"never\"\nend_grace = \"0s\"\nmax_session = \"721h\"")).unwrap_err();
    let reasons: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.key, problem.reason)).collect();
    assert_eq!(
        reasons,
        [
            "rule.people.at_expiry: must be \"drain\" or \"keep\" or \"end\"",
            "rule.people.end_grace: is out of bounds: 1s to 1440m",
            "rule.people.max_session: is out of bounds: 1s to 30d",
        ]
    );
    for (lines, unused) in [
        ("at_expiry = \"keep\"\nend_grace = \"1m\"", true),
        ("at_expiry = \"end\"\nend_grace = \"1m\"", true),
        ("at_expiry = \"keep\"\nend_grace = \"1m\"\nmax_session = \"1h\"", false),
        ("end_grace = \"1m\"", false),
    ] {
        let warnings = checked(&ruled(lines)).unwrap().warnings;
        assert_eq!(warnings.iter().any(|warning| warning.key.ends_with("end_grace")), unused, "{lines}");
    }
}

#[test]
fn the_admin_socket_is_off_unless_it_is_named_and_its_place_is_checked() {
    assert_eq!(checked(MINIMAL).unwrap().config.admin_socket, None);
    let socket = |name: &str| checked(&format!("{MINIMAL}\n[admin]\nsocket = \"{name}\"\n"));
    let path = socket("admin.sock").unwrap().config.admin_socket.unwrap();
    assert!(path.is_absolute() && path.ends_with("admin.sock"), "{}", path.display());
    for (name, reason) in [
        ("none/admin.sock".to_owned(), "does not exist"),
        ("tls.crt".to_owned(), "is there and is no socket"),
        ("a".repeat(100), "more than 90 bytes"),
    ] {
        let problems = socket(&name).unwrap_err();
        assert!(problems[0].key == "admin.socket" && problems[0].reason.contains(reason), "{problems:?}");
    }
}

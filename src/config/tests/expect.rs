//! Expected logins, written beside the policy and checked with it.

use super::rules::GROUP;
use super::{APP_RULE, MINIMAL, checked, problems, shown};

/// `MINIMAL` with software's rule, whose start-up and addresses are bounded, and these expectations.
fn expecting(lines: &str) -> String {
    let app =
        APP_RULE.replace("grant = {", "networks = [\"10.0.0.0/8\"]\nstartup = { role = [\"reporting\"] }\ngrant = {");
    let people = MINIMAL.replace(GROUP, "kind = \"user\"\neveryone = true");
    format!("{people}{app}\n[[expect]]\nissuer = \"contoso\"\n{lines}\n")
}

const ANALYST: &str = "database = \"orders\"\nkind = \"user\"\nclaims = { upn = \"analyst@contoso.example\" }\n";
const APP: &str = "database = \"orders\"\nkind = \"app\"\napp = \"8D1E2F3A-4B5C-4D6E-8F70-8192A3B4C5D6\"\n";

#[test]
fn what_is_expected_and_so_is_fine() {
    for lines in [
        format!("{ANALYST}allow = \"people\""),
        format!("{ANALYST}allow = \"people\"\nuser = \"analyst@contoso.example\""),
        format!("{ANALYST}replication = true\ndeny = \"replication\""),
        format!("{ANALYST}guest = true\ndeny = \"guest\""),
        format!("{ANALYST}startup = {{ role = \"reporting\" }}\ndeny = \"startup\""),
        "database = \"orders\"\nkind = \"user\"\ndeny = \"subject\"".to_owned(),
        "database = \"billing\"\nkind = \"user\"\ndeny = \"unknown-database\"".to_owned(),
        "database = \"orders\"\nkind = \"app\"\ndeny = \"no-rule\"".to_owned(),
        format!("{APP}deny = \"address\""),
        format!("{APP}address = \"11.0.0.1\"\ndeny = \"address\""),
        format!("{APP}address = \"10.9.8.7\"\nallow = \"apps\"\nuser = \"orders-app@demo-project.iam\""),
        format!("{APP}address = \"10.9.8.7\"\nstartup = {{ role = \"reporting\" }}\nallow = \"apps\""),
        format!("{APP}address = \"10.9.8.7\"\nstartup = {{ options = \"-c role=dba\" }}\ndeny = \"startup\""),
    ] {
        let loaded = checked(&expecting(&lines)).map_err(|problems| shown(&problems)).expect(&lines);
        assert_eq!(loaded.config.expectations, 1);
    }
    let issuer = expecting(&format!("{APP}address = \"10.9.8.7\"\ndeny = \"issuer\""));
    assert!(checked(&issuer).is_err());
    for lines in ["required_roles = [\"Login\"]", "allowed_apps = [\"00000000-0000-4000-8000-000000000000\"]"] {
        let issuer = issuer.replace("[issuer.contoso]\n", &format!("[issuer.contoso]\n{lines}\n"));
        assert!(checked(&issuer).is_ok(), "{lines}");
    }
}

#[test]
fn what_is_not_as_expected_is_told_with_what_is_all_at_once() {
    let lines = format!(
        "{ANALYST}allow = \"apps\"\n[[expect]]\nname = \"the app\"\nissuer = \"contoso\"\n{APP}address = \"10.9.8.7\"\n\
         deny = \"no-rule\"\n[[expect]]\nname = \"outside\"\nissuer = \"contoso\"\n{APP}address = \"11.9.8.7\"\nallow = \
         \"apps\"\n[[expect]]\nissuer = \"contoso\"\n{ANALYST}allow = \"people\"\nuser = \"dba\"\n"
    );
    assert_eq!(
        problems(&expecting(&lines)),
        [
            "47: expect[0].allow: does not hold: rule people allows it",
            "55: expect.\"the app\".deny: does not hold: rule apps allows it",
            "63: expect.outside.allow: does not hold: it is denied (address): rule apps gives the database orders at \
             other addresses only, and yours is 11.9.8.7",
            "69: expect[3].allow: does not hold: rule people allows it, but as another database user",
        ]
    );
}

#[test]
fn mistakes_in_an_expectation_have_their_line_key_and_reason() {
    for (lines, says) in [
        (ANALYST.to_owned(), "42: expect[0]: needs allow = RULE or deny = REASON"),
        (format!("{ANALYST}allow = \"peple\""), "47: expect[0].allow: names no [[rule]]; did you mean \"people\"?"),
        (
            format!("{ANALYST}allow = \"people\"\ndeny = \"guest\""),
            "48: expect[0].deny: stands beside allow; a login is one of both",
        ),
        (
            format!("{ANALYST}deny = \"guest\"\nuser = \"x\""),
            "48: expect[0].user: is of a login that is allowed; this one is denied",
        ),
        (
            format!("{ANALYST}group = [\"x\"]\ndeny = \"guest\""),
            "47: expect[0].group: is not a known key; did you mean \"groups\"?",
        ),
        (format!("{ANALYST}groups = [\"x\"]\ndeny = \"guest\""), "47: expect[0].groups[0]: is not a hyphenated GUID"),
        (
            format!("{ANALYST}groups = []\ngroups_overage = true\ndeny = \"guest\""),
            "48: expect[0].groups_overage: stands beside groups; a token with too many says none",
        ),
        (format!("{ANALYST}address = \"10.0.0.0/8\"\ndeny = \"guest\""), "47: expect[0].address: is not an IP address"),
        (
            ANALYST.replace("upn", "email") + "deny = \"guest\"",
            "46: expect[0].claims.email: names no database user: guests choose their own e-mail address, so `email` \
             proves nobody; use `upn`, `oid` or `sub`",
        ),
        (ANALYST.replace("kind = \"user\"\n", "") + "deny = \"guest\"", "42: expect[0].kind: is required"),
    ] {
        let found = problems(&expecting(&lines));
        assert!(found.iter().any(|problem| problem == says), "expected\n    {says}\nfound\n    {found:#?}");
    }
    let reasons = problems(&expecting(&format!("{ANALYST}deny = \"nobody\"")));
    assert!(reasons[0].starts_with("47: expect[0].deny: must be \"issuer\" or \"unknown-database\" or"), "{reasons:?}");
}

#[test]
fn a_mistake_in_a_rule_is_not_told_again_by_every_expectation() {
    let text =
        expecting(&format!("{ANALYST}allow = \"people\"")).replace("\"upn\", ", "").replace("\"upn\" }", "\"email\" }");
    let found = problems(&text.replace("127.0.0.1:5432", "here"));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(!found.iter().any(|problem| problem.contains("expect")), "{found:#?}");
}

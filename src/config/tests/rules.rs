//! Who a rule is for, what it lets clients start with, and rules that no caller gets to.

use super::{APP_RULE, MINIMAL, checked, edited, folder, problems, shown};
use crate::audit::{Parameters, UnrecordedCommit};
use crate::config::load;
use crate::policy::{Power, Powers};

pub(super) const GROUP: &str = "groups = [\"0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b\"]";

/// `MINIMAL`, whose rule is for somebody in particular.
fn named(lines: &str) -> String {
    edited(GROUP, &format!("kind = \"user\"\n{lines}"))
}

/// `MINIMAL`, whose rule is for every person of the tenant.
fn everyone() -> String {
    named("everyone = true")
}

/// A rule like the first one for other callers, behind it.
fn second(name: &str, databases: &str, who: &str) -> String {
    let rule = MINIMAL.split("[[rule]]\n").nth(1).unwrap();
    let rule = rule.replace("\"people\"", &format!("{name:?}")).replace("[\"orders\"]", databases);
    format!("\n[[rule]]\n{}", rule.replace(GROUP, who))
}

fn only(found: &[String]) -> &str {
    assert_eq!(found.len(), 1, "{found:#?}");
    &found[0]
}

#[test]
fn everyone_of_an_issuer_is_meant_only_where_the_rule_says_so() {
    const ALONE: &str = "and would give its databases to everyone of the issuer: say who, by object_ids, groups, roles \
                         or (with kind = \"app\") apps; or, if everyone is meant, everyone = true";
    let app = "apps = [\"8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6\"]";
    for (lines, says) in [
        ("", "24: rule.people: names nobody, "),
        ("everyone = false", "24: rule.people: names nobody, "),
        ("guest = false", "24: rule.people: names nobody, "),
        ("networks = [\"10.0.0.0/8\"]", "24: rule.people: names nobody, "),
        (app, "24: rule.people: asks for the program alone that people sign in with, "),
    ] {
        assert_eq!(only(&problems(&named(lines))), format!("{says}{ALONE}"), "{lines}");
    }
    let both = problems(&named(&format!("{GROUP}\neveryone = true")));
    assert_eq!(only(&both), "30: rule.people.everyone: stands beside conditions that say who; leave it or them out");
    for lines in [GROUP, "roles = [\"Orders.Read\"]", "everyone = true\nguest = false", &format!("{GROUP}\n{app}")] {
        assert!(checked(&named(lines)).is_ok(), "{lines}");
    }
    assert!(checked(&format!("{MINIMAL}{APP_RULE}")).is_ok());
}

#[test]
fn networks_are_networks_and_not_everywhere() {
    for (network, says) in [
        ("0.0.0.0/0", "is every address there is; leave networks out"),
        ("10.1.2.3/8", "has bits behind its prefix; the network is 10.0.0.0/8"),
        ("vpn", "is not a network in CIDR form, such as \"10.0.0.0/8\" or \"10.0.0.7/32\""),
    ] {
        let found = problems(&named(&format!("{GROUP}\nnetworks = [\"{network}\"]")));
        assert_eq!(only(&found), format!("30: rule.people.networks[0]: {says}"));
    }
    let behind = named(&format!("{GROUP}\nnetworks = [\"10.0.0.0/8\", \"2001:db8::/32\"]"))
        .replace("[audit]", "trusted_proxies = [\"10.0.0.0/8\"]\n[audit]");
    let loaded = checked(&behind).unwrap();
    assert_eq!(loaded.config.policy.rules()[0].who.networks.len(), 2);
    assert!(only(&shown(&loaded.warnings)).contains("rule.people.networks: is met by no client that comes through"));
}

#[test]
fn start_up_powers_are_read_by_setting() {
    let with = |lines: &str| format!("{MINIMAL}\n[rule.startup]\n{lines}\n");
    let powers = |lines: &str| checked(&with(lines)).unwrap().config.policy.rules()[0].startup.clone();
    let list = |values: &[&str]| Power::OneOf(values.iter().map(|&value| value.to_owned()).collect());
    assert_eq!(checked(MINIMAL).unwrap().config.policy.rules()[0].startup, Powers::default());
    assert_eq!(powers("options = \"allow\"\nothers = \"allow\"\nrole = \"refuse\""), Powers::default());
    assert_eq!(
        powers("Role = [\"reporting\", \"none\"]\nsearch_path = { fixed = \"\" }\n\"my.own\" = \"refuse\""),
        Powers::default()
            .with("role", list(&["reporting", "none"]))
            .with("search_path", Power::Fixed(String::new()))
            .with("my.own", Power::Refuse)
    );
    assert_eq!(
        powers("options = \"refuse\"\nothers = \"refuse\"\nsort_mem = \"allow\""),
        Powers::default().without_options().without_others().with("work_mem", Power::Allow)
    );
    for (lines, says) in [
        ("user = \"allow\"", "user: is not a client's to set: the grant decides it"),
        ("_pq_ = \"allow\"", "_pq_: is not a client's to set: the grant decides it"),
        ("\"a b\" = \"allow\"", "\"a b\": is not the name of a setting, such as role, search_path or my.own"),
        ("role = \"dba\"", "role: must be \"allow\" or \"refuse\""),
        ("role = true", "role: must be \"allow\", \"refuse\", a list of values or { fixed = \"…\" }, not a boolean"),
        ("role = []", "role: is empty; leave it out or name at least one"),
        ("role = [1]", "role[0]: must be a string, not an integer"),
        ("role = { value = \"x\", fixed = \"y\" }", "role.value: is not a known key"),
        ("role = { fixed = \"a\\nb\" }", "role.fixed: has a control character"),
        ("options = { fixed = \"-c a=b\" }", "options: must be a string, not a table"),
        ("others = [\"geqo\"]", "others: must be a string, not an array"),
        ("role = \"allow\"\nROLE = \"refuse\"", "role: is role, which has a word of its own already"),
    ] {
        let found = problems(&with(lines));
        assert!(only(&found).ends_with(&format!(": rule.people.startup.{says}")), "{lines}: {found:#?}");
    }
}

#[test]
fn a_rule_that_is_never_reached_is_a_problem_with_both_lines() {
    let first = everyone();
    let database = "\n[database.second]\ninstance = \"demo-project:europe-west1:orders\"\ndatabase = \"orders\"\n";
    let shadowed =
        problems(&format!("{first}{}", second("again", "[\"orders\"]", &format!("kind = \"user\"\n{GROUP}"))));
    assert_eq!(
        only(&shadowed),
        "32: rule.again: is never reached: before it everyone whom it is for is taken by rule.people on line 24"
    );
    // A person who is in the group is taken, software in it is not.
    assert!(checked(&format!("{first}{}", second("again", "[\"orders\"]", GROUP))).is_ok());
    // Two rules together take what neither takes alone.
    let apps = second("software", "[\"orders\"]", "kind = \"app\"\neveryone = true");
    let third = second("again", "[\"orders\"]", GROUP);
    assert!(only(&problems(&format!("{first}{apps}{third}"))).ends_with(
        "rule.again: is never reached: before it everyone whom it is for is taken by rule.people on line 24, \
         rule.software on line 32"
    ));
    let partly = format!(
        "{first}{}{database}",
        second("again", "[\"orders\", \"second\"]", &format!("kind = \"user\"\n{GROUP}"))
    );
    let loaded = checked(&partly).map_err(|problems| shown(&problems)).unwrap();
    assert_eq!(
        only(&shown(&loaded.warnings)),
        "32: rule.again: is never reached for orders: before it everyone whom it is for is taken there by rule.people \
         on line 24"
    );
}

#[test]
fn a_rule_that_nobody_can_meet_is_a_problem() {
    let first = |lines: &str| named(&format!("{GROUP}\n{lines}"));
    for (text, says) in [
        (
            first("guest = true"),
            "24: rule.people.guest: lets nobody in: a workforce grant is for guests that object_ids names",
        ),
        (
            first("guest = true").replace("kind = \"user\"", "kind = \"app\""),
            "24: rule.people.guest: is met by nobody: no token of issuer.contoso says so",
        ),
        (
            first("").replace("[issuer.contoso]\n", "[issuer.contoso]\nallowed_kinds = [\"app\"]\n"),
            "25: rule.people.kind: is met by nobody: no token of issuer.contoso says so",
        ),
    ] {
        assert_eq!(only(&problems(&text)), says);
    }
    let app = "00000000-0000-4000-8000-000000000000";
    let text = format!("{MINIMAL}{APP_RULE}");
    let loaded =
        checked(&text.replace("[issuer.contoso]\n", &format!("[issuer.contoso]\nallowed_apps = [\"{app}\"]\n")));
    assert!(
        only(&shown(&loaded.unwrap().warnings)).contains("rule.apps.apps: names an app whose tokens issuer.contoso")
    );
}

#[test]
fn sealed_texts_need_their_keys_apart() {
    let sealed = edited("name = \"people\"\n", "name = \"people\"\ntexts = \"sealed\"\n");
    assert!(only(&problems(&sealed)).contains("rule.people.texts: needs [audit.sealing]"));
    let folder = folder();
    let path = folder.path().join("p.toml");
    let loaded = |sealing: &str| {
        std::fs::write(&path, sealed.replace("[own_identity]", &format!("[audit.sealing]\n{sealing}\n[own_identity]")))
            .unwrap();
        load(&path).map(|loaded| shown(&loaded.warnings)).map_err(|problems| shown(&problems))
    };
    let key = crate::audit::key_file::new_secret().unwrap();
    std::fs::write(folder.path().join("texts.key"), key.expose()).unwrap();
    let warnings = loaded("folder = \"texts\"\nkey = \"texts.key\"").unwrap();
    assert!(only(&warnings).contains("audit.sealing.key: can be read by every user"), "{warnings:?}");
    for (sealing, says) in [
        ("folder = \"audit/texts\"\nkey = \"texts.key\"", "audit.sealing.folder: "),
        ("folder = \"texts\"\nkey = \"texts/key\"", "audit.sealing.key: is inside audit.sealing.folder"),
        ("folder = \"texts\"\nkey = \"audit/key\"", "audit.sealing.key: is inside audit.folder"),
        ("folder = \"texts\"\nkey = \"no.key\"", "make it with: pgpassport audit key --new-secret"),
        ("folder = \"texts\"\nkey = \"tls.key\"", "is not base64 of 32 bytes"),
        ("folder = \"texts\"", "audit.sealing.key: is required"),
    ] {
        let problems = loaded(sealing).unwrap_err();
        assert!(only(&problems).contains(says), "{sealing}: {problems:?}");
    }
}

#[test]
fn a_commit_that_is_in_no_record_is_a_choice_that_is_warned_of() {
    let of = |line: &str| -> (UnrecordedCommit, Vec<String>) {
        let loaded = checked(&named(&format!("{GROUP}\n{line}"))).unwrap();
        (loaded.config.policy.rules()[0].unrecorded_commit, shown(&loaded.warnings))
    };
    assert_eq!(of("commit_unrecorded = false"), (UnrecordedCommit::Refused, Vec::new()));
    let (choice, warnings) = of("commit_unrecorded = true");
    assert_eq!(choice, UnrecordedCommit::Passes);
    assert!(only(&warnings).starts_with("30: rule.people.commit_unrecorded: lets transactions commit"), "{warnings:?}");
    let found = problems(&named(&format!("{GROUP}\ncommit_unrecorded = \"yes\"")));
    assert!(only(&found).contains("commit_unrecorded"), "{found:?}");
}

#[test]
fn what_is_recorded_of_parameters_is_a_choice_and_hmacs_need_a_key() {
    let of = |line: &str| checked(&named(&format!("{GROUP}\n{line}")));
    let choice = |line: &str| of(line).unwrap().config.policy.rules()[0].recorded_parameters;
    assert_eq!((choice(""), choice("parameters = \"off\"")), (Parameters::Off, Parameters::Off));
    let full = of("parameters = \"full\"").unwrap();
    assert_eq!(full.config.policy.rules()[0].recorded_parameters, Parameters::Full);
    assert!(only(&shown(&full.warnings)).starts_with("30: rule.people.parameters: has the values"));
    let hmac = named(&format!("{GROUP}\nparameters = \"hmac\""));
    let found = problems(&hmac);
    assert!(only(&found).starts_with("30: rule.people.parameters: needs audit.parameters_key"), "{found:?}");

    let folder = folder();
    let path = folder.path().join("p.toml");
    let loaded = |key: &str| {
        let line = format!("[audit]\nparameters_key = \"{key}\"");
        std::fs::write(&path, hmac.replace("[audit]", &line)).unwrap();
        load(&path).map(|loaded| (loaded.config.audit.recording.parameters_key.is_some(), shown(&loaded.warnings)))
    };
    let key = crate::audit::key_file::new_secret().unwrap();
    std::fs::write(folder.path().join("values.key"), key.expose()).unwrap();
    let (there, warnings) = loaded("values.key").unwrap();
    assert!(there && only(&warnings).contains("audit.parameters_key: can be read by every user"), "{warnings:?}");
    for (key, says) in [
        ("audit/values.key", "is inside audit.folder"),
        ("no.key", "make it with: pgpassport audit key --new-secret"),
        ("tls.key", "is not base64 of 32 bytes"),
    ] {
        let problems = shown(&loaded(key).unwrap_err());
        assert!(
            only(&problems).contains("audit.parameters_key: ") && only(&problems).contains(says),
            "{key}: {problems:?}"
        );
    }
}

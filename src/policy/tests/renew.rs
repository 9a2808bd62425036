//! A session under an earlier policy's grant, decided again: what keeps it, what ends it.

use super::*;
use std::time::Duration;

fn policy(target: Target, rules: Vec<Rule>) -> Policy {
    Policy::new(vec![target], rules)
}

fn people(how: How) -> Rule {
    rule("people", &["orders"], Who { groups: list(&["staff"]), ..Who::default() }, how)
}

/// The policy that the session was granted by.
fn before() -> Policy {
    policy(target("orders"), vec![people(workforce("upn"))])
}

#[test]
fn what_changes_nothing_for_a_session_keeps_it_and_gives_it_the_rules_new_lifetime() {
    let caller = person("ann", Some(&["staff"]));
    let held = before().authorize(&proven(caller.clone()), &asking("orders")).unwrap();
    let shorter = Lifetime { max_session: Some(Duration::from_secs(60)), ..Lifetime::default() };
    let untagged = || Target { tag: false, ..target("orders") };
    for (what, after, lifetime) in [
        ("the same", before(), Lifetime::default()),
        ("another provider", policy(target("orders"), vec![people(workforce("upn"))]), Lifetime::default()),
        (
            "another rule, the same way",
            policy(
                target("orders"),
                vec![Rule {
                    lifetime: shorter,
                    ..rule("all", &["orders"], Who { kind: Some(CallerKind::User), ..Who::default() }, workforce("upn"))
                }],
            ),
            shorter,
        ),
        ("tags no more", policy(untagged(), vec![people(workforce("upn"))]), Lifetime::default()),
    ] {
        assert_eq!(after.renew(&held, &caller, &asking("orders")), Ok(lifetime), "{what}");
    }
}

#[test]
fn what_takes_a_session_away_or_leads_it_elsewhere_ends_it() {
    let caller = person("ann", Some(&["staff"]));
    let held = before().authorize(&proven(caller.clone()), &asking("orders")).unwrap();
    let moved =
        Target { instance: InstanceName::parse("demo-project:europe-west1:other").unwrap(), ..target("orders") };
    let renamed = Target { database: DatabaseName::parse("other").unwrap(), ..target("orders") };
    let others = Who { groups: list(&["others"]), ..Who::default() };
    let elsewhere = |name: &str| Err(Withdrawn::Elsewhere(RuleName::parse(name).unwrap()));
    for (what, after, expected) in [
        ("another instance", policy(moved, vec![people(workforce("upn"))]), elsewhere("people")),
        ("another database", policy(renamed, vec![people(workforce("upn"))]), elsewhere("people")),
        ("another user", policy(target("orders"), vec![people(account("orders"))]), elsewhere("people")),
        (
            "an earlier rule, another user",
            policy(
                target("orders"),
                vec![
                    rule(
                        "first",
                        &["orders"],
                        Who { kind: Some(CallerKind::User), ..Who::default() },
                        account("orders"),
                    ),
                    people(workforce("upn")),
                ],
            ),
            elsewhere("first"),
        ),
    ] {
        assert_eq!(after.renew(&held, &caller, &asking("orders")), expected, "{what}");
    }
    for (what, after) in [
        ("no rule", policy(target("orders"), vec![rule("people", &["orders"], others, workforce("upn"))])),
        (
            "no database",
            policy(target("billing"), vec![rule("people", &["billing"], Who::default(), workforce("upn"))]),
        ),
        (
            "another issuer",
            policy(
                target("orders"),
                vec![Rule { issuer: IssuerName::parse("other").unwrap(), ..people(workforce("upn")) }],
            ),
        ),
    ] {
        let withdrawn = after.renew(&held, &caller, &asking("orders"));
        assert!(matches!(withdrawn, Err(Withdrawn::Denied(_))), "{what}: {withdrawn:?}");
    }
}

#[test]
fn a_session_that_is_to_be_tagged_and_is_not_ends() {
    let caller = person("ann", Some(&["staff"]));
    let untagged = Target { tag: false, ..target("orders") };
    let held = policy(untagged, vec![people(workforce("upn"))]).authorize(&proven(caller.clone()), &asking("orders"));
    let after = before().renew(&held.unwrap(), &caller, &asking("orders"));
    assert!(matches!(after, Err(Withdrawn::Elsewhere(_))), "{after:?}");
}

#[test]
fn replication_and_addresses_count_again() {
    let caller = person("ann", Some(&["staff"]));
    let replicating = Rule { replication: true, ..people(workforce("upn")) };
    let replication = Request { purpose: Purpose::Replication, ..asking("orders") };
    let held = policy(target("orders"), vec![replicating]).authorize(&proven(caller.clone()), &replication).unwrap();
    let after = before().renew(&held, &caller, &replication);
    assert!(matches!(after, Err(Withdrawn::Denied(Denied::Replication { .. }))), "{after:?}");

    let held = before().authorize(&proven(caller.clone()), &asking("orders")).unwrap();
    let office = Who { groups: list(&["staff"]), networks: vec!["192.0.2.0/24".parse().unwrap()], ..Who::default() };
    let office = policy(target("orders"), vec![rule("office", &["orders"], office, workforce("upn"))]);
    for (address, kept) in [("192.0.2.7", true), ("198.51.100.7", false)] {
        let request = Request { address: Some(address.parse().unwrap()), ..asking("orders") };
        assert_eq!(office.renew(&held, &caller, &request).is_ok(), kept, "{address}");
    }
}

/// The groups were too many for the token, and Graph was asked about those that the policy named at the login.
#[test]
fn groups_that_graph_was_not_asked_about_are_unknown_and_neither_keep_nor_lead_elsewhere() {
    let told = |asked: &[&str]| IdentityFacts {
        asked_groups: Some(std::sync::Arc::new(list(asked).into_iter().collect())),
        ..person("ann", Some(&["staff"]))
    };
    let held = before().authorize(&proven(told(&["staff"])), &asking("orders")).unwrap();
    let of = |name: &str, groups: &[&str], how: How| {
        rule(name, &["orders"], Who { groups: list(groups), ..Who::default() }, how)
    };
    let staff = || people(workforce("upn"));
    let unknown = || Err(Withdrawn::Groups("ann".to_owned()));
    let elsewhere = || Err(Withdrawn::Elsewhere(RuleName::parse("leavers").unwrap()));
    let leavers = || of("leavers", &["leavers"], account("orders"));
    for (what, asked, rules, expected) in [
        ("an unknown group decides", &["staff"][..], vec![leavers(), staff()], unknown()),
        ("a known one does", &["staff", "leavers"], vec![leavers(), staff()], Ok(Lifetime::default())),
        ("unknown, and the only one", &["staff"], vec![of("new", &["new"], workforce("upn"))], unknown()),
        ("unknown behind what decides", &["staff"], vec![staff(), leavers()], Ok(Lifetime::default())),
        (
            "one of two is known and met",
            &["staff"],
            vec![of("both", &["new", "staff"], workforce("upn"))],
            Ok(Lifetime::default()),
        ),
        (
            "met, and leads elsewhere",
            &["staff"],
            vec![of("leavers", &["staff", "new"], account("orders"))],
            elsewhere(),
        ),
        (
            "unknown, and another's issuer",
            &["staff"],
            vec![Rule { issuer: IssuerName::parse("other").unwrap(), ..leavers() }, staff()],
            Ok(Lifetime::default()),
        ),
    ] {
        assert_eq!(policy(target("orders"), rules).renew(&held, &told(asked), &asking("orders")), expected, "{what}");
    }
}

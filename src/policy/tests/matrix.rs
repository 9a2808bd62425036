//! The policy as people read it: callers × databases.

use super::*;
use std::fmt::Write as _;

pub(super) fn policy() -> Policy {
    let user = Some(CallerKind::User);
    Policy::new(
        vec![target("orders"), target("billing"), target("hr")],
        vec![
            rule(
                "admins",
                &["orders", "billing"],
                Who { object_ids: list(&["oid-of-admin"]), ..Who::default() },
                account("dba"),
            ),
            rule(
                "people",
                &["orders"],
                Who { kind: user, groups: list(&["analysts"]), ..Who::default() },
                workforce("upn"),
            ),
            rule(
                "orders-app",
                &["orders"],
                Who { kind: Some(CallerKind::App), apps: list(&["orders-api"]), ..Who::default() },
                account("orders-app"),
            ),
            rule("clerks", &["billing"], Who { roles: list(&["Billing.Read"]), ..Who::default() }, account("clerks")),
            rule("by-oid", &["billing"], Who { kind: user, apps: list(&["psql"]), ..Who::default() }, workforce("oid")),
        ],
    )
}

pub(super) fn decision(policy: &Policy, caller: &VerifiedIdentity, database: &str) -> String {
    match policy.authorize(caller, &asking(database)) {
        Ok(grant) => {
            assert_eq!(grant.expires_at(), caller.facts().expires_at, "a grant ends with its token");
            assert_eq!(grant.target().alias.as_str(), database);
            let replication =
                match policy.authorize(caller, &Request { purpose: Purpose::Replication, ..asking(database) }) {
                    Ok(same) => {
                        assert_eq!((same.rule(), same.role()), (grant.rule(), grant.role()));
                        ", replication too"
                    }
                    Err(denied) => {
                        assert_eq!(denied, Denied::Replication { rule: grant.rule().clone() });
                        ""
                    }
                };
            format!("{} as {}{replication}", grant.rule(), grant.role())
        }
        Err(Denied::NoRule { .. }) => "no rule".to_owned(),
        Err(Denied::Guest) => "guest".to_owned(),
        Err(Denied::UnknownDatabase(_)) => "unknown database".to_owned(),
        Err(Denied::Subject { claim, reason }) => format!("{claim} {reason}"),
        Err(Denied::Address { rule, .. }) => format!("{rule} at other addresses"),
        Err(Denied::Startup { overreach, .. }) => overreach.to_string(),
        Err(Denied::Replication { .. }) => unreachable!("statements were asked for"),
    }
}

#[test]
fn the_policy_matrix() {
    let mut clerk = person("clerk", None);
    clerk.roles = Some(list(&["Other", "Billing.Read"]));
    let mut guest = person("guest", Some(&["analysts"]));
    guest.guest = true;
    let mut stranger = person("stranger", Some(&["analysts"]));
    stranger.issuer = IssuerName::parse("fabrikam").unwrap();
    let mut forged = app("orders-api");
    (forged.kind, forged.groups) = (CallerKind::User, Some(list(&["none"])));
    let callers = [
        ("admin, an analyst too", person("admin", Some(&["analysts"]))),
        ("analyst", person("analyst", Some(&["analysts"]))),
        ("analyst, groups overage", person("analyst", None)),
        ("clerk by role", clerk),
        ("guest analyst", guest),
        ("analyst, other issuer", stranger),
        ("orders-api", app("orders-api")),
        ("person using orders-api", forged),
        ("other app", app("other-api")),
    ];
    let policy = policy();
    let mut table = String::new();
    for (title, facts) in callers {
        let caller = proven(facts);
        writeln!(table, "{title}").unwrap();
        for database in ["orders", "billing", "hr", "Orders"] {
            writeln!(table, "    {database:8} {}", decision(&policy, &caller, database)).unwrap();
        }
    }
    assert_eq!(table, MATRIX, "the matrix is now:\n{table}");
}

const MATRIX: &str = "\
admin, an analyst too
    orders   admins as dba@demo-project.iam, replication too
    billing  admins as dba@demo-project.iam, replication too
    hr       no rule
    Orders   unknown database
analyst
    orders   people as analyst@contoso.example
    billing  by-oid as oid-of-analyst
    hr       no rule
    Orders   unknown database
analyst, groups overage
    orders   no rule
    billing  by-oid as oid-of-analyst
    hr       no rule
    Orders   unknown database
clerk by role
    orders   no rule
    billing  clerks as clerks@demo-project.iam
    hr       no rule
    Orders   unknown database
guest analyst
    orders   guest
    billing  guest
    hr       no rule
    Orders   unknown database
analyst, other issuer
    orders   no rule
    billing  no rule
    hr       no rule
    Orders   unknown database
orders-api
    orders   orders-app as orders-app@demo-project.iam
    billing  no rule
    hr       no rule
    Orders   unknown database
person using orders-api
    orders   no rule
    billing  no rule
    hr       no rule
    Orders   unknown database
other app
    orders   no rule
    billing  no rule
    hr       no rule
    Orders   unknown database
";

//! The policy as people read it: callers × databases, and every way to be denied.

use super::*;
use crate::identity::IdentityFacts;
use crate::names::TenantId;
use crate::secret::Secret;
use crate::wire::Purpose;
use std::fmt::Write as _;

const WORKFORCE: &str = "//iam.googleapis.com/locations/global/workforcePools/contoso/providers/entra";
const WORKLOAD: &str =
    "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/entra/providers/contoso";

fn list(entries: &[&str]) -> Vec<String> {
    entries.iter().map(|&entry| entry.to_owned()).collect()
}

fn person(label: &str, groups: Option<&[&str]>) -> IdentityFacts {
    IdentityFacts {
        issuer: IssuerName::parse("contoso").unwrap(),
        issuer_url: "https://login.microsoftonline.com/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/v2.0".to_owned(),
        tenant: TenantId::parse("6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91").unwrap().into(),
        object_id: format!("oid-of-{label}"),
        kind: CallerKind::User,
        guest: false,
        label: label.to_owned(),
        app: "psql".to_owned(),
        groups: groups.map(list),
        overage: false,
        roles: None,
        claims: BTreeMap::from([
            ("upn".to_owned(), format!("{label}@contoso.example")),
            ("oid".to_owned(), format!("oid-of-{label}")),
        ]),
        token_id: None,
        issued_at: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::from_second(3600).unwrap(),
    }
}

fn app(label: &str) -> IdentityFacts {
    IdentityFacts { kind: CallerKind::App, app: label.to_owned(), claims: BTreeMap::new(), ..person(label, None) }
}

fn proven(facts: IdentityFacts) -> VerifiedIdentity {
    VerifiedIdentity { facts, token: Secret::new("token".to_owned()) }
}

fn target(alias: &str) -> Target {
    Target {
        alias: DatabaseAlias::parse(alias).unwrap(),
        instance: InstanceName::parse("demo-project:europe-west1:orders").unwrap(),
        database: DatabaseName::parse("real_orders").unwrap(),
        tag: true,
    }
}

fn workforce(claim: &str) -> How {
    How::Workforce {
        provider: Provider::parse(WORKFORCE).unwrap(),
        subject_claim: claim.to_owned(),
        subject_prefix: String::new(),
        user_project: None,
    }
}

fn account(name: &str) -> How {
    let account = ServiceAccount::parse(&format!("{name}@demo-project.iam.gserviceaccount.com")).unwrap();
    How::ServiceAccount { provider: Provider::parse(WORKLOAD).unwrap(), account }
}

fn rule(name: &str, databases: &[&str], who: Who, how: How) -> Rule {
    Rule {
        name: RuleName::parse(name).unwrap(),
        issuer: IssuerName::parse("contoso").unwrap(),
        databases: databases.iter().map(|d| DatabaseAlias::parse(d).unwrap()).collect(),
        who,
        how,
        replication: name == "admins",
    }
}

fn policy() -> Policy {
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

fn decision(policy: &Policy, caller: &VerifiedIdentity, database: &str) -> String {
    match policy.authorize(caller, database, Purpose::Statements) {
        Ok(grant) => {
            assert_eq!(grant.expires_at(), caller.facts().expires_at, "a grant ends with its token");
            assert_eq!(grant.target().alias.as_str(), database);
            let replication = match policy.authorize(caller, database, Purpose::Replication) {
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

#[test]
fn the_database_is_asked_for_before_any_rule() {
    let nobody = proven(person("nobody", None));
    for unknown in ["", "orders ", "ORDERS", "real_orders", "orders\0", &"o".repeat(64)] {
        assert_eq!(
            policy().authorize(&nobody, unknown, Purpose::Statements).unwrap_err(),
            Denied::UnknownDatabase(unknown.to_owned()),
            "only [database.NAME] is a database"
        );
    }
    assert!(matches!(policy().authorize(&nobody, "hr", Purpose::Replication), Err(Denied::NoRule { .. })));
}

#[test]
fn a_guest_arrives_as_themselves_only_where_a_rule_names_them_by_object_id() {
    let user = Some(CallerKind::User);
    let named = |id: &str| Who { kind: user, object_ids: list(&[id]), ..Who::default() };
    let mut guest = person("guest", Some(&["analysts"]));
    guest.guest = true;
    for (who, expected) in [
        (named("oid-of-guest"), "only as guest@contoso.example"),
        (Who { kind: user, groups: list(&["analysts"]), ..Who::default() }, "guest"),
        (named("oid-of-analyst"), "no rule"),
    ] {
        let policy = Policy::new(vec![target("orders")], vec![rule("only", &["orders"], who, workforce("upn"))]);
        assert_eq!(decision(&policy, &proven(guest.clone()), "orders"), expected);
    }
}

#[test]
fn a_prefix_stands_in_front_of_the_claim_and_counts() {
    let prefixed = |claim: &str| match workforce(claim) {
        How::Workforce { provider, subject_claim, user_project, .. } => {
            How::Workforce { provider, subject_claim, subject_prefix: "partner:".to_owned(), user_project }
        }
        account @ How::ServiceAccount { .. } => account,
    };
    let who = || Who { kind: Some(CallerKind::User), ..Who::default() };
    let policy = Policy::new(vec![target("orders")], vec![rule("p", &["orders"], who(), prefixed("uid"))]);
    let mut caller = person("analyst", None);
    caller.claims = BTreeMap::from([("uid".to_owned(), "00u1".to_owned())]);
    assert_eq!(decision(&policy, &proven(caller.clone()), "orders"), "p as partner:00u1");
    caller.claims = BTreeMap::from([("uid".to_owned(), "x".repeat(56))]);
    assert_eq!(
        decision(&policy, &proven(caller.clone()), "orders"),
        "uid is 64 bytes long; PostgreSQL names end at 63"
    );
    caller.claims = BTreeMap::from([("oid".to_owned(), "x".to_owned())]);
    assert_eq!(decision(&policy, &proven(caller), "orders"), "uid is absent");
}

#[test]
fn a_subject_that_is_no_database_user_is_denied_and_no_later_rule_is_asked() {
    let cases: [(&str, Option<String>, &str); 8] = [
        ("upn", Some("orders-app@demo-project.iam".to_owned()), "names a service account's database user"),
        ("upn", None, "is absent"),
        ("upn", Some(String::new()), "is empty"),
        ("upn", Some("a".repeat(64)), "is 64 bytes long; PostgreSQL names end at 63"),
        ("upn", Some("a".repeat(128)), "is 128 bytes long; a subject ends at 127"),
        ("upn", Some("a\nb".to_owned()), "has a control character"),
        ("email", Some("victim@contoso.example".to_owned()), "proves nobody"),
        ("name", Some("Victim".to_owned()), "proves nobody"),
    ];
    for (claim, value, reason) in cases {
        let everyone = || Who { kind: Some(CallerKind::User), ..Who::default() };
        let rules = vec![
            rule("first", &["orders"], everyone(), workforce(claim)),
            rule("second", &["orders"], everyone(), account("dba")),
        ];
        let mut facts = person("analyst", None);
        facts.claims = value.into_iter().map(|value| (claim.to_owned(), value)).collect();
        let denied = Policy::new(vec![target("orders")], rules)
            .authorize(&proven(facts), "orders", Purpose::Statements)
            .unwrap_err();
        assert_eq!(denied, Denied::Subject { claim: claim.to_owned(), reason: reason.to_owned() });
    }
}

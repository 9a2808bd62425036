//! Callers, rules and databases that the tests of the policy share, and every way to be denied.

mod matrix;
mod reach;
mod renew;

use super::*;
use crate::identity::IdentityFacts;
use crate::names::TenantId;
use crate::secret::Secret;

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
        asked_groups: None,
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

/// A session with statements, from nowhere in particular, that sets nothing.
fn asking(database: &str) -> Request<'_> {
    Request { database, purpose: Purpose::Statements, address: None, parameters: &[] }
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
    How::ServiceAccount { provider: Provider::parse(WORKLOAD).unwrap(), account, delegates: Vec::new() }
}

fn rule(name: &str, databases: &[&str], who: Who, how: How) -> Rule {
    Rule {
        name: RuleName::parse(name).unwrap(),
        issuer: IssuerName::parse("contoso").unwrap(),
        databases: databases.iter().map(|d| DatabaseAlias::parse(d).unwrap()).collect(),
        who,
        how,
        replication: name == "admins",
        startup: Powers::default(),
        limits: Limits::default(),
        lifetime: Lifetime::default(),
        durability: Durability::default(),
        recorded_parameters: crate::audit::Parameters::default(),
        texts: Texts::default(),
        unrecorded_commit: UnrecordedCommit::default(),
    }
}

#[test]
fn the_database_is_asked_for_before_any_rule() {
    let nobody = proven(person("nobody", None));
    for unknown in ["", "orders ", "ORDERS", "real_orders", "orders\0", &"o".repeat(64)] {
        assert_eq!(
            matrix::policy().authorize(&nobody, &asking(unknown)).unwrap_err(),
            Denied::UnknownDatabase(unknown.to_owned()),
            "only [database.NAME] is a database"
        );
    }
    let replication = Request { purpose: Purpose::Replication, ..asking("hr") };
    assert!(matches!(matrix::policy().authorize(&nobody, &replication), Err(Denied::NoRule { .. })));
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
        (named("oid-of-analyst"), "no-rule"),
    ] {
        let policy = Policy::new(vec![target("orders")], vec![rule("only", &["orders"], who, workforce("upn"))]);
        assert_eq!(matrix::decision(&policy, &proven(guest.clone()), &asking("orders")), expected);
    }
}

/// Who is in more groups than a token holds does not escape a narrow rule into a wide one behind it.
#[test]
fn groups_that_nobody_knows_let_no_later_rule_decide() {
    let contractors = Who { groups: list(&["contractors"]), ..Who::default() };
    let office = Who { networks: vec!["10.1.0.0/16".parse().unwrap()], ..contractors.clone() };
    let software = Who { kind: Some(CallerKind::App), ..contractors.clone() };
    let everyone = || rule("everyone", &["orders"], Who::default(), account("everyone"));
    for (narrow, overage, groups, expected) in [
        (&contractors, true, None, "no-rule"),
        (&contractors, false, None, "everyone as everyone@demo-project.iam"),
        (&contractors, true, Some(list(&["analysts"])), "everyone as everyone@demo-project.iam"),
        (&office, true, None, "everyone as everyone@demo-project.iam"),
        (&software, true, None, "everyone as everyone@demo-project.iam"),
    ] {
        let rules = vec![rule("narrow", &["orders"], narrow.clone(), account("narrow")), everyone()];
        let policy = Policy::new(vec![target("orders")], rules);
        let caller = IdentityFacts { groups, overage, ..person("contractor", None) };
        assert_eq!(matrix::decision(&policy, &proven(caller), &asking("orders")), expected, "{narrow:?}");
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
    assert_eq!(matrix::decision(&policy, &proven(caller.clone()), &asking("orders")), "p as partner:00u1");
    caller.claims = BTreeMap::from([("uid".to_owned(), "x".repeat(56))]);
    assert_eq!(
        matrix::decision(&policy, &proven(caller.clone()), &asking("orders")),
        "uid is 64 bytes long; PostgreSQL names end at 63"
    );
    caller.claims = BTreeMap::from([("oid".to_owned(), "x".to_owned())]);
    assert_eq!(matrix::decision(&policy, &proven(caller), &asking("orders")), "uid is absent");
}

#[test]
fn a_subject_that_is_no_database_user_is_denied_and_no_later_rule_is_asked() {
    const ACCOUNT: &str = "names a service account's database user";
    let cases: [(&str, Option<String>, &str); 13] = [
        ("upn", Some("123456789012-compute@developer".to_owned()), ACCOUNT),
        ("upn", Some("demo-project@appspot".to_owned()), ACCOUNT),
        ("upn", Some("123456789012@cloudservices".to_owned()), ACCOUNT),
        ("upn", Some("orders-app@demo-project.IAM".to_owned()), ACCOUNT),
        ("upn", Some("orders-app@demo-project.iam.gserviceaccount.com".to_owned()), ACCOUNT),
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
        let denied =
            Policy::new(vec![target("orders")], rules).authorize(&proven(facts), &asking("orders")).unwrap_err();
        assert_eq!(denied, Denied::Subject { claim: claim.to_owned(), reason: reason.to_owned() });
    }
}

//! The policy as people read it, in `matrix.txt`: rules in words, then callers × databases.
//!
//! After a change that is meant: `PGPASSPORT_WRITE_MATRIX=1 cargo test --lib policy`, and read what has changed.

use super::*;
use std::fmt::Write as _;
use std::path::Path;

const OFFICE: &str = "10.1.2.3";
const VPN: &str = "2001:db8::7";
const HOTEL: &str = "198.51.100.7";

fn networks(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|network| network.parse().unwrap()).collect()
}

/// A rule of each kind, with each condition.
pub(super) fn policy() -> Policy {
    let (user, app) = (Some(CallerKind::User), Some(CallerKind::App));
    let acting = |roles: &[&str]| Powers::default().with("role", Power::OneOf(list(roles)));
    let admins = Who { object_ids: list(&["oid-of-admin"]), networks: networks(&["10.1.0.0/16"]), ..Who::default() };
    let people = Who { kind: user, groups: list(&["analysts"]), ..Who::default() };
    let guests = Who {
        guest: Some(true),
        groups: list(&["partners"]),
        networks: networks(&["10.0.0.0/8", "2001:db8::/32"]),
        ..Who::default()
    };
    let api = Who { kind: app, apps: list(&["orders-api"]), ..Who::default() };
    let clerks = Who { roles: list(&["Billing.Read"]), guest: Some(false), ..Who::default() };
    let rest = Who { kind: user, guest: Some(false), ..Who::default() };
    let fixed = Powers::default()
        .with("search_path", Power::Fixed("orders, public".to_owned()))
        .with("role", Power::Fixed("api".to_owned()))
        .without_options();
    let startup = |rule: Rule, startup: Powers| Rule { startup, ..rule };
    Policy::new(
        vec![target("orders"), target("billing"), target("hr")],
        vec![
            startup(rule("admins", &["orders", "billing"], admins, account("dba")), acting(&["dba", "auditor"])),
            rule("people", &["orders"], people, workforce("upn")),
            rule("partners", &["orders"], guests, account("partners")),
            startup(rule("orders-app", &["orders"], api, account("orders-app")), fixed),
            rule("clerks", &["billing"], clerks, account("clerks")),
            rule("by-oid", &["billing"], rest, workforce("oid")),
        ],
    )
}

fn callers() -> Vec<(&'static str, IdentityFacts)> {
    let mut clerk = person("clerk", None);
    clerk.roles = Some(list(&["Other", "Billing.Read"]));
    let mut guest = person("guest", Some(&["analysts"]));
    guest.guest = true;
    let mut partner = person("partner", Some(&["partners"]));
    partner.guest = true;
    let mut stranger = person("stranger", Some(&["analysts"]));
    stranger.issuer = IssuerName::parse("fabrikam").unwrap();
    let mut forged = app("orders-api");
    (forged.kind, forged.groups) = (CallerKind::User, Some(list(&["none"])));
    vec![
        ("admin, an analyst too", person("admin", Some(&["analysts"]))),
        ("analyst", person("analyst", Some(&["analysts"]))),
        ("analyst, groups overage", IdentityFacts { overage: true, ..person("analyst", None) }),
        ("clerk by role", clerk),
        ("guest who is an analyst", guest),
        ("guest who is a partner", partner),
        ("member in the partners' group", person("member", Some(&["partners"]))),
        ("analyst, other issuer", stranger),
        ("orders-api", app("orders-api")),
        ("person using orders-api", forged),
        ("other app", app("other-api")),
    ]
}

/// What becomes of a session, of one for replication, and of one that starts in another role.
pub(super) fn decision(policy: &Policy, caller: &VerifiedIdentity, request: &Request<'_>) -> String {
    let grant = match policy.authorize(caller, request) {
        Ok(grant) => grant,
        Err(Denied::Subject { claim, reason }) => return format!("{claim} {reason}"),
        Err(denied) => return denied.reason().to_string(),
    };
    assert_eq!(grant.expires_at(), caller.facts().expires_at, "a grant ends with its token");
    assert_eq!(grant.target().alias.as_str(), request.database);
    let mut text = format!("{} as {}", grant.rule(), grant.role());
    match policy.authorize(caller, &Request { purpose: Purpose::Replication, ..*request }) {
        Ok(same) => {
            assert_eq!((same.rule(), same.role()), (grant.rule(), grant.role()));
            text.push_str(", replication too");
        }
        Err(denied) => assert_eq!(denied, Denied::Replication { rule: grant.rule().clone() }),
    }
    let dba = [(b"options".to_vec(), b"-c role=dba".to_vec())];
    match policy.authorize(caller, &Request { parameters: &dba, ..*request }) {
        Ok(same) => {
            assert_eq!((same.rule(), same.role()), (grant.rule(), grant.role()));
            let _ = write!(text, ", with role {}", same.startup().role.as_deref().unwrap_or("none"));
        }
        Err(denied) => assert_eq!(denied.reason(), Reason::Startup, "{denied}"),
    }
    text
}

fn matrix() -> String {
    let policy = policy();
    let mut table = "Rules, in the order they are tried\n".to_owned();
    for rule in policy.rules() {
        let databases: Vec<&str> = rule.databases.iter().map(DatabaseAlias::as_str).collect();
        writeln!(table, "    {}: {} may use {}", rule.name, rule.who_in_words(), databases.join(", ")).unwrap();
        writeln!(table, "        as {}", rule.how_in_words()).unwrap();
        for bound in rule.bounds_in_words() {
            writeln!(table, "        {bound}").unwrap();
        }
    }
    for (title, facts) in callers() {
        let caller = proven(facts);
        writeln!(table, "\n{title}").unwrap();
        for database in ["orders", "billing", "hr", "Orders"] {
            let places = [("office", Some(OFFICE)), ("VPN", Some(VPN)), ("hotel", Some(HOTEL)), ("unknown", None)];
            let decided = places.map(|(place, address)| {
                let address = address.map(|address| address.parse().unwrap());
                (place, decision(&policy, &caller, &Request { address, ..asking(database) }))
            });
            if decided.iter().all(|(_, decision)| *decision == decided[0].1) {
                writeln!(table, "    {database:8} {}", decided[0].1).unwrap();
                continue;
            }
            for (place, decision) in decided {
                writeln!(table, "    {database:8} at {place:8} {decision}").unwrap();
            }
        }
    }
    table
}

#[test]
fn the_policy_matrix() {
    let table = matrix();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy/tests/matrix.txt");
    if std::env::var_os("PGPASSPORT_WRITE_MATRIX").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(table, kept, "the matrix is now:\n{table}");
}

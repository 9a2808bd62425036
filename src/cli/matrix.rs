//! The policy as a matrix: for each database its rules in the order they are tried, each with who, how and its bounds.

use crate::policy::{How, Policy, Power, Powers, Rule, Target, Who};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// For people.
pub(super) fn in_words(policy: &Policy) -> String {
    let mut text = String::new();
    for target in policy.databases() {
        let untagged = if target.tag { "" } else { ", without tags" };
        let _ = writeln!(text, "{}: {} on {}{untagged}", target.alias, target.database, target.instance);
        for (position, rule) in of(policy, target).enumerate() {
            let _ = writeln!(text, "    {}. {}: {}", position.saturating_add(1), rule.name, rule.who_in_words());
            let _ = writeln!(text, "       as {}", rule.how_in_words());
            for bound in rule.bounds_in_words() {
                let _ = writeln!(text, "       {bound}");
            }
        }
        let _ = writeln!(text, "    nobody else");
    }
    text
}

/// For scripts: the same, with each list as a list.
pub(super) fn as_json(policy: &Policy) -> Value {
    let databases = policy.databases().map(|target| {
        json!({
            "database": target.alias,
            "instance": target.instance,
            "database_name": target.database,
            "tag": target.tag,
            "rules": of(policy, target).map(rule).collect::<Vec<_>>(),
        })
    });
    databases.collect()
}

fn of<'a>(policy: &'a Policy, target: &'a Target) -> impl Iterator<Item = &'a Rule> {
    policy.rules().iter().filter(|rule| rule.databases.contains(&target.alias))
}

fn rule(rule: &Rule) -> Value {
    json!({
        "rule": rule.name,
        "issuer": rule.issuer,
        "who": who(&rule.who),
        "grant": grant(&rule.how),
        "replication": rule.replication,
        "startup": startup(&rule.startup),
        "bounds": rule.bounds_in_words(),
    })
}

fn who(who: &Who) -> Value {
    let Who { kind, guest, object_ids, groups, roles, apps, networks } = who;
    let mut asked = Map::new();
    if let Some(kind) = kind {
        asked.insert("kind".to_owned(), json!(kind.as_str()));
    }
    if let Some(guest) = guest {
        asked.insert("guest".to_owned(), json!(guest));
    }
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    for (key, list) in
        [("object_ids", object_ids), ("groups", groups), ("roles", roles), ("apps", apps), ("networks", &networks)]
    {
        if !list.is_empty() {
            asked.insert(key.to_owned(), json!(list));
        }
    }
    Value::Object(asked)
}

fn grant(how: &How) -> Value {
    match how {
        How::Workforce { provider, subject_claim, subject_prefix, user_project } => json!({
            "kind": "workforce",
            "provider": provider,
            "subject_claim": subject_claim,
            "subject_prefix": subject_prefix,
            "user_project": user_project,
        }),
        How::ServiceAccount { provider, account, delegates } => json!({
            "kind": "service_account",
            "provider": provider,
            "service_account": account,
            "delegates": delegates,
        }),
    }
}

/// As the config writes it.
fn startup(powers: &Powers) -> Value {
    let word = |allowed| if allowed { "allow" } else { "refuse" };
    let mut startup: Map<String, Value> =
        powers.named().map(|(name, power)| (name.to_owned(), self::power(power))).collect();
    startup.insert("options".to_owned(), word(powers.allows_options()).into());
    startup.insert("others".to_owned(), word(powers.allows_others()).into());
    Value::Object(startup)
}

fn power(power: &Power) -> Value {
    match power {
        Power::Allow => "allow".into(),
        Power::Refuse => "refuse".into(),
        Power::OneOf(values) => json!(values),
        Power::Fixed(value) => json!({ "fixed": value }),
    }
}

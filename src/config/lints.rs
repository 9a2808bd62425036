//! What only shows between sections: addresses in each other's way, entries nobody uses, rules nobody reaches.

use super::reader::{Declared, Placed, Report, Section};
use super::{ListenConfig, ProxyProtocol};
use crate::audit::sealing::Texts;
use crate::cloudsql::InstanceConfig;
use crate::identity::IssuerConfig;
use crate::policy::{How, MAX_COMPARISONS, Population, Reach, Rule, Target, reach};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The two listeners must not be the same.
pub(super) fn addresses(root: &Section<'_>, listen: SocketAddr, admin: SocketAddr) {
    let overlaps = listen.ip() == admin.ip() || listen.ip().is_unspecified() || admin.ip().is_unspecified();
    if overlaps && listen.port() == admin.port() && listen.port() != 0 {
        let at = root.field("admin").map_or(root.at, |field| field.at);
        root.report.problem(
            at,
            "admin.address",
            &format!("is in the way of listen.address: both take port {}", listen.port()),
        );
    }
}

/// Entries that nothing refers to; most often a slip.
pub(super) fn unused(
    report: &Report<'_>,
    issuers: &Declared<IssuerConfig>,
    instances: &Declared<InstanceConfig>,
    databases: &Declared<Target>,
    rules: &[Placed<Rule>],
) {
    for issuer in &issuers.entries {
        if !rules.iter().any(|rule| rule.value.issuer == issuer.value.name) {
            report.warning(issuer.at, &issuer.key, "is in no rule: its tokens are checked and then always refused");
        }
    }
    for instance in &instances.entries {
        if !databases.entries.iter().any(|database| database.value.instance == instance.value.name) {
            report.warning(instance.at, &instance.key, "is in no database: nobody can reach it");
        }
    }
    for database in &databases.entries {
        if !rules.iter().any(|rule| rule.value.databases.contains(&database.value.alias)) {
            report.warning(database.at, &database.key, "is in no rule: nobody can reach it");
        }
    }
}

/// Rules whose texts nothing can seal.
pub(super) fn unsealable(report: &Report<'_>, rules: &[Placed<Rule>]) {
    for rule in rules.iter().filter(|rule| rule.value.texts == Texts::Sealed) {
        let reason = "needs [audit.sealing] with folder and key, which has the keys that seal texts";
        report.problem(rule.at, &format!("{}.texts", rule.key), reason);
    }
}

/// Rules that decide for nobody, because earlier ones do. For all of a rule's databases that is a mistake: what was meant
/// as an exception is none. For some of them it can be meant.
pub(super) fn unreachable(report: &Report<'_>, rules: &[Placed<Rule>], issuers: &Declared<IssuerConfig>) {
    let order: Vec<Rule> = rules.iter().map(|rule| rule.value.clone()).collect();
    let mut budget = MAX_COMPARISONS;
    for (index, rule) in rules.iter().enumerate() {
        let Some(issuer) = issuers.entries.iter().find(|issuer| issuer.value.name == rule.value.issuer) else {
            continue;
        };
        let population = Population::of(&issuer.value);
        let mut takers = BTreeSet::new();
        let mut taken = Vec::new();
        for database in &rule.value.databases {
            if let Reach::Shadowed(by) = reach(&order, index, database, &population, &mut budget) {
                takers.extend(by);
                taken.push(database.as_str());
            }
        }
        if taken.is_empty() {
            continue;
        }
        let takers = takers.iter().filter_map(|place| rules.get(*place));
        let takers: Vec<String> =
            takers.map(|taker| format!("{} on line {}", taker.key, report.line(taker.at))).collect();
        let takers = takers.join(", ");
        if taken.len() == rule.value.databases.len() {
            let reason = format!("is never reached: before it everyone whom it is for is taken by {takers}");
            report.problem(rule.at, &rule.key, &reason);
        } else {
            let databases = taken.join(", ");
            let reason = format!(
                "is never reached for {databases}: before it everyone whom it is for is taken there by {takers}"
            );
            report.warning(rule.at, &rule.key, &reason);
        }
    }
    if let Some(last) = rules.last().filter(|_| budget == 0) {
        report.warning(last.at, "rule", "are too many to tell of each whether it is reached");
    }
}

/// Rules that hold for nobody or let nobody in, whatever the others say.
pub(super) fn impossible(
    report: &Report<'_>,
    rules: &[Placed<Rule>],
    issuers: &Declared<IssuerConfig>,
    listen: Option<&ListenConfig>,
) {
    let silent = listen
        .is_some_and(|listen| !listen.trusted_proxies.is_empty() && listen.proxy_protocol != ProxyProtocol::Required);
    for rule in rules {
        let Rule { issuer, who, how, .. } = &rule.value;
        let key = |condition: &str| format!("{}.{condition}", rule.key);
        let Some(issuer) = issuers.entries.iter().find(|other| other.value.name == *issuer) else { continue };
        if let Some(condition) = Population::of(&issuer.value).cannot_meet(who) {
            let reason = format!("is met by nobody: no token of {} says so", issuer.key);
            report.problem(rule.at, &key(condition), &reason);
        } else if who.guest == Some(true) && who.object_ids.is_empty() && matches!(how, How::Workforce { .. }) {
            let reason = "lets nobody in: a workforce grant is for guests that object_ids names";
            report.problem(rule.at, &key("guest"), reason);
        }
        let allowed = &issuer.value.allowed_apps;
        let never = |app: &&String| !allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(app));
        if !allowed.is_empty() && who.apps.iter().any(|app| never(&app)) {
            let reason = format!("names an app whose tokens {} refuses (allowed_apps)", issuer.key);
            report.warning(rule.at, &key("apps"), &reason);
        }
        if silent && !who.networks.is_empty() {
            let reason = "is met by no client that comes through a balancer that adds no header \
                          (listen.proxy_protocol = \"required\" tells the addresses)";
            report.warning(rule.at, &key("networks"), reason);
        }
    }
}

/// Rules that ask for one address a token, while a balancer hides the clients' addresses: they let nobody in.
pub(super) fn unknown_addresses(root: &Section<'_>, listen: Option<&ListenConfig>, rules: &[Placed<Rule>]) {
    let hides =
        |listen: &ListenConfig| !listen.trusted_proxies.is_empty() && listen.proxy_protocol != ProxyProtocol::Required;
    if !listen.is_some_and(hides) {
        return;
    }
    for rule in rules.iter().filter(|rule| rule.value.limits.one_address_per_token) {
        let reason = "asks for one address a token: who comes through a balancer that adds no header is refused \
                      (listen.proxy_protocol = \"required\" tells the addresses)";
        root.report.warning(rule.at, &rule.key, reason);
    }
}

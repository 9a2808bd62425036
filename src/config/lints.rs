//! What only shows between sections: addresses in each other's way, entries nobody uses, rules nobody reaches.

use super::reader::{Declared, Placed, Report, Section};
use super::{ListenConfig, ProxyProtocol};
use crate::cloudsql::InstanceConfig;
use crate::identity::IssuerConfig;
use crate::policy::{Rule, Target};
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

/// Rules whose every caller and database an earlier rule takes already.
pub(super) fn unreachable(report: &Report<'_>, rules: &[Placed<Rule>]) {
    for (index, later) in rules.iter().enumerate() {
        let earlier = || rules.iter().take(index).filter(|rule| rule.value.takes_callers_of(&later.value));
        let taken = |alias| earlier().find(|rule| rule.value.databases.contains(alias));
        let takers: Option<Vec<_>> = later.value.databases.iter().map(taken).collect();
        if let Some(taker) = takers.as_deref().and_then(<[_]>::first) {
            let reason = format!("is never reached: {} comes first and asks no more of the caller", taker.key);
            report.warning(later.at, &later.key, &reason);
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

//! The whole file: every section in turn, then what only shows between them.

use super::durations::{DEADLINES, DRAIN};
use super::reader::{Placed, Section};
use super::{
    Config, Deadlines, Limits, audit, expect, issuers, lints, network, on_behalf_of, pools, rules, tag, targets, trust,
    values,
};
use crate::policy::Policy;
use std::ops::RangeInclusive;
use std::path::Path;

/// What a count may be. More sessions than this need more ports and descriptors than one process gets.
pub(super) const COUNTS: RangeInclusive<u32> = 1..=100_000;

/// Reads everything; `None` when anything needed could not be read, which has been reported.
pub(super) fn settings(root: Section<'_>, file: &Path) -> Option<Config> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let listen = root.required_section("listen").and_then(|section| network::listen(section, folder));
    let (admin, admin_socket) = network::admin(root.section("admin"), folder);
    let audit = root.required_section("audit").and_then(|section| audit::audit(section, folder));
    let ca_certificate = root.section("https").and_then(|section| network::https(section, folder));
    let (universe, google) = network::google(root.section("google"));
    let own_identity = root.required_section("own_identity").and_then(|section| trust::own_identity(section, folder));
    let issuers = issuers::issuers(&root);
    let instances = targets::instances(&root);
    let databases = targets::databases(&root, &instances);
    let rules = rules::rules(&root, &issuers, &databases);
    let on_behalf_of = on_behalf_of::sections(&root, &issuers, &rules, folder);
    let names = tag::Names { issuers: &issuers, rules: &rules, databases: &databases };
    let tag = tag::template(root.section("tag"), &names);
    let limits = root.section("limits").map_or_else(Limits::default, limits);
    let deadlines = root.section("deadlines").map_or_else(Deadlines::default, deadlines);
    if let (Some(listen), Some(admin)) = (&listen, admin) {
        lints::addresses(&root, listen.address, admin);
    }
    lints::unused(root.report, &issuers, &instances, &databases, &rules);
    lints::unreachable(root.report, &rules, &issuers);
    lints::impossible(root.report, &rules, &issuers, listen.as_ref());
    lints::unknown_addresses(&root, listen.as_ref(), &rules);
    if audit.as_ref().is_some_and(|audit| audit.sealing.is_none()) {
        lints::unsealable(root.report, &rules);
    }
    network::universe(&root, &universe, &rules, own_identity.as_ref());
    pools::feeds(root.report, &rules, own_identity.as_ref());
    pools::subjects(root.report, &rules, &issuers, &databases);
    let policy = Policy::new(databases.entries.iter().map(|d| d.value.clone()).collect(), Placed::values(rules));
    let expectations = expect::expectations(&root, &issuers, &policy);
    root.finish();
    Some(Config {
        listen: listen?,
        admin,
        admin_socket,
        audit: audit?,
        issuers: Placed::values(issuers.entries),
        google,
        on_behalf_of,
        ca_certificate,
        own_identity: own_identity?,
        instances: Placed::values(instances.entries),
        policy,
        expectations,
        tag: tag?,
        limits,
        deadlines,
    })
}

fn limits(section: Section<'_>) -> Limits {
    let default = Limits::default();
    let count = |key, default| section.optional(key, values::integer(COUNTS)).map_or(default, |count| count as usize);
    let limits = Limits {
        sessions: count("sessions", default.sessions),
        sessions_per_caller: count("sessions_per_caller", default.sessions_per_caller),
        logins: count("logins", default.logins),
        logins_per_address: count("logins_per_address", default.logins_per_address),
        bad_tokens_per_address: section
            .optional("bad_tokens_per_address", values::integer(COUNTS))
            .unwrap_or(default.bad_tokens_per_address),
    };
    if let Some(field) = section.field("sessions_per_caller").filter(|_| limits.sessions_per_caller > limits.sessions) {
        field.warning("is more than limits.sessions, so it is never reached");
    }
    if let Some(field) = section.field("logins_per_address").filter(|_| limits.logins_per_address > limits.logins) {
        field.warning("is more than limits.logins, so it is never reached");
    }
    section.finish();
    limits
}

fn deadlines(section: Section<'_>) -> Deadlines {
    let default = Deadlines::default();
    let deadline = |key, default| section.optional(key, values::duration(DEADLINES)).unwrap_or(default);
    let deadlines = Deadlines {
        startup: deadline("startup", default.startup),
        keys: deadline("keys", default.keys),
        on_behalf_of: deadline("on_behalf_of", default.on_behalf_of),
        sts: deadline("sts", default.sts),
        iam_credentials: deadline("iam_credentials", default.iam_credentials),
        own_identity: deadline("own_identity", default.own_identity),
        admin_api: deadline("admin_api", default.admin_api),
        dial: deadline("dial", default.dial),
        handshake: deadline("handshake", default.handshake),
        login: deadline("login", default.login),
        cancel: deadline("cancel", default.cancel),
        drain: section.optional("drain", values::duration(DRAIN)).unwrap_or(default.drain),
    };
    section.finish();
    deadlines
}

//! `[instance.NAME]` and `[database.NAME]`: what can be reached.

use super::reader::{Declared, Placed, Section};
use super::values;
use crate::cloudsql::{DIRECT_PORT, InstanceConfig, IpType, LoginMethod, Route};
use crate::names::{DatabaseAlias, DatabaseName, InstanceName};
use crate::policy::Target;

const METHODS: &[(&str, LoginMethod)] =
    &[("token-as-password", LoginMethod::TokenAsPassword), ("token-in-certificate", LoginMethod::TokenInCertificate)];
const IP_TYPES: &[(&str, IpType)] = &[("public", IpType::Public), ("private", IpType::Private), ("psc", IpType::Psc)];

/// THREATS.md, "The first question".
const DIRECT: &str = "needs connectorEnforcement off, so that whoever has a login token and reaches the address can \
                      go round the proxy: let only the proxy's network reach the instance";
const IN_CERTIFICATE: &str = "makes the instance bypassable where callers hold cloudsql.instances.connect: who has it \
                              goes round the proxy; if Google refuses certificates for principals without it, use \
                              token-as-password rather than grant it";

pub(super) fn instances(root: &Section<'_>) -> Declared<InstanceConfig> {
    let mut instances = Declared::default();
    for (name, section) in root.named_sections("instance") {
        instances.names.push(name.to_owned());
        let (key, at) = (section.key.clone(), section.at);
        if let Some(value) = instance(name, section) {
            instances.entries.push(Placed { key, at, value });
        }
    }
    instances
}

fn instance(name: &str, section: Section<'_>) -> Option<InstanceConfig> {
    let name = section.named(name, InstanceName::parse);
    let ip_type = section.optional("ip_type", values::one_of(IP_TYPES)).unwrap_or_default();
    let route = route(&section);
    let field = section.field("login");
    let login = field.as_ref().and_then(|field| field.read(values::one_of(METHODS))).unwrap_or_default();
    if let Some(field) = field.filter(|_| login == LoginMethod::TokenInCertificate) {
        field.warning(IN_CERTIFICATE);
        if let Route::Direct { .. } = route {
            field.warning("is documented by Google for connectors only; try it on the instance before relying on it");
        }
    }
    section.finish();
    Some(InstanceConfig { name: name?, ip_type, route, login })
}

/// `path`, and `port` where it has one.
fn route(section: &Section<'_>) -> Route {
    let field = section.field("path");
    let words = &[("connector", false), ("direct", true)];
    let direct = field.as_ref().and_then(|field| field.read(values::one_of(words))).unwrap_or_default();
    let port = section.field("port");
    if !direct {
        if let Some(port) = port {
            port.problem("is for path = \"direct\"; the connector's port is always 3307");
        }
        return Route::Connector;
    }
    if let Some(field) = field {
        field.warning(DIRECT);
    }
    let port = port.and_then(|port| port.read(values::integer(1..=u32::from(u16::MAX))));
    Route::Direct { port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(DIRECT_PORT) }
}

pub(super) fn databases(root: &Section<'_>, instances: &Declared<InstanceConfig>) -> Declared<Target> {
    let mut databases = Declared::default();
    for (name, section) in root.named_sections("database") {
        databases.names.push(name.to_owned());
        let (key, at) = (section.key.clone(), section.at);
        if let Some(value) = database(name, section, instances) {
            databases.entries.push(Placed { key, at, value });
        }
    }
    databases
}

fn database(name: &str, section: Section<'_>, instances: &Declared<InstanceConfig>) -> Option<Target> {
    let alias = section.named(name, DatabaseAlias::parse);
    let instance = section.required_field("instance");
    let instance = instance.as_ref().and_then(|field| instances.resolve(field, "instance", InstanceName::parse));
    let given = section.optional("database", values::name(DatabaseName::parse));
    let tag = section.field("tag");
    let tagged = tag.as_ref().and_then(|field| field.read(values::boolean)).unwrap_or(true);
    if let Some(field) = tag.filter(|_| !tagged) {
        field.warning("turns the caller's tag off: the database's own logs will not say who asked");
    }
    section.finish();
    let alias = alias?;
    let database = match given {
        Some(database) => database,
        None => DatabaseName::parse(alias.as_str()).ok()?,
    };
    Some(Target { alias, instance: instance?, database, tag: tagged })
}

//! `[instance.NAME]` and `[database.NAME]`: what can be reached.

use super::reader::{Declared, Placed, Section};
use super::values;
use crate::cloudsql::{InstanceConfig, IpType};
use crate::names::{DatabaseAlias, DatabaseName, InstanceName};
use crate::policy::Target;

const IP_TYPES: &[(&str, IpType)] = &[("public", IpType::Public), ("private", IpType::Private), ("psc", IpType::Psc)];

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
    section.optional("path", values::one_of(&[("connector", ())]));
    section.optional("login", values::one_of(&[("token-as-password", ())]));
    section.finish();
    Some(InstanceConfig { name: name?, ip_type })
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

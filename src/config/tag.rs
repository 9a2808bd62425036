//! `[tag]`: what the comment in front of each statement says.

use super::reader::{Declared, Placed, Section};
use super::values;
use crate::identity::IssuerConfig;
use crate::policy::{Rule, Target};
use crate::relay::tag::{self, Longest, MAX_TAG_BYTES, Template, Value};

#[derive(Clone, Copy)]
enum Preset {
    Caller,
    QueryInsights,
}

const PRESETS: &[(&str, Preset)] = &[("caller", Preset::Caller), ("query-insights", Preset::QueryInsights)];

/// What the names that stand in tags can be.
pub(super) struct Names<'a> {
    pub(super) issuers: &'a Declared<IssuerConfig>,
    pub(super) rules: &'a [Placed<Rule>],
    pub(super) databases: &'a Declared<Target>,
}

/// The template; `None` when one is there that cannot be used, which has been reported.
pub(super) fn template(section: Option<Section<'_>>, names: &Names<'_>) -> Option<Template> {
    let Some(section) = section else { return Some(Template::default()) };
    let preset = section.field("preset");
    let keys = section.section("keys");
    let template = match (&preset, keys) {
        (Some(preset), Some(keys)) => {
            preset.problem("stands beside tag.keys; one of both decides");
            keys.all_fields();
            None
        }
        (None, Some(keys)) => own(&keys),
        (Some(preset), None) => preset.read(values::one_of(PRESETS)).map(|preset| match preset {
            Preset::Caller => Template::default(),
            Preset::QueryInsights => Template::query_insights(),
        }),
        (None, None) => Some(Template::default()),
    };
    let (report, at, key) = (section.report, section.at, section.key.clone());
    section.finish();
    let template = template?;
    let longest = template.longest(names.longest());
    if longest > MAX_TAG_BYTES {
        let reason = format!("makes tags of up to {longest} bytes; they may have {MAX_TAG_BYTES}");
        report.problem(at, &key, &reason);
        return None;
    }
    if !template.names_the_identity() {
        let reason = "lacks {tenant} or {object_id}, which are the identity: the database's own logs will not say for \
                      certain who asked";
        report.warning(at, &key, reason);
    }
    Some(template)
}

/// `[tag.keys]`: every key with its value.
fn own(section: &Section<'_>) -> Option<Template> {
    let fields = section.all_fields();
    if fields.is_empty() {
        section.report.problem(section.at, &section.key, "is empty; `tag = false` of a database turns its tag off");
        return None;
    }
    let read = |(name, field): &(&str, super::reader::Field<'_>)| {
        if let Err(reason) = tag::check_key(name) {
            field.problem(&reason);
            return None;
        }
        let value = field.read(|value| Value::parse(values::text(value)?))?;
        Some(((*name).to_owned(), value))
    };
    let keys: Vec<Option<_>> = fields.iter().map(read).collect();
    Template::new(keys.into_iter().collect::<Option<_>>()?)
}

impl Names<'_> {
    fn longest(&self) -> Longest {
        let longest = |names: &mut dyn Iterator<Item = &str>| names.map(tag::encoded_bytes).max().unwrap_or_default();
        Longest {
            issuer: longest(&mut self.issuers.entries.iter().map(|entry| entry.value.name.as_str())),
            rule: longest(&mut self.rules.iter().map(|entry| entry.value.name.as_str())),
            database: longest(&mut self.databases.entries.iter().map(|entry| entry.value.alias.as_str())),
        }
    }
}

//! Which keys a tag has, and where their values come from.
//!
//! A value is a text with placeholders: `{object_id}`. Only what is the same for a caller's every session of a
//! database can stand in one: a tag that changed would cost plan caches, statement caches and poolers their hits.

use super::encode;
use std::fmt::Write;

/// The longest tag, in bytes: with the 1024 that `track_activity_query_size` and Query Insights keep by default, half
/// is left for the statement.
pub const MAX_TAG_BYTES: usize = 512;
/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 32;
/// Bytes of a tag besides its keys and values: `/*`, `*/ `, and for each key `=''` and a comma.
const FRAME_BYTES: usize = 5;
const PAIR_BYTES: usize = 4;

/// Where a part of a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The client app that asked for the token (`azp`).
    App,
    /// The caller's label, for reading; never an identity.
    Label,
    /// The caller's object id; with the tenant, the identity.
    ObjectId,
    /// The caller's tenant.
    Tenant,
    /// The caller's issuer, as the config calls it.
    Issuer,
    /// The rule that decided.
    Rule,
    /// The database as the config calls it.
    Database,
}

/// Names of the sources, as the config and the records have them.
pub const SOURCES: &[(&str, Source)] = &[
    ("app", Source::App),
    ("label", Source::Label),
    ("object_id", Source::ObjectId),
    ("tenant", Source::Tenant),
    ("issuer", Source::Issuer),
    ("rule", Source::Rule),
    ("database", Source::Database),
];

/// A value: its parts in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Of(Source),
}

/// Keys and values, sorted by key as sqlcommenter asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<(String, Value)>);

/// The longest that the config's own names are in a tag, in encoded bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Longest {
    /// Of the issuers.
    pub issuer: usize,
    /// Of the rules.
    pub rule: usize,
    /// Of the databases.
    pub database: usize,
}

impl Default for Template {
    /// `app`, `caller`, `oid`, `tid`.
    fn default() -> Self {
        Self::of(&[("app", Source::App), ("caller", Source::Label), ("oid", Source::ObjectId), ("tid", Source::Tenant)])
    }
}

impl Template {
    /// Only keys that Query Insights keeps ("Add tags to SQL queries": `action`, `application`, `controller`, `route`,
    /// `framework`, `db_driver`), so that its views by tag are views by caller. They are sqlcommenter's words for parts
    /// of a web application; here they are the caller's app, tenant, object id and label.
    pub fn query_insights() -> Self {
        Self::of(&[
            ("action", Source::Label),
            ("application", Source::App),
            ("controller", Source::Tenant),
            ("route", Source::ObjectId),
        ])
    }

    /// Keys with their values; `None` when there is no key.
    pub fn new(mut keys: Vec<(String, Value)>) -> Option<Self> {
        keys.sort_by(|(left, _), (right, _)| left.cmp(right));
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Whether tenant and object id are both in it: less than both is no identity.
    pub fn names_the_identity(&self) -> bool {
        let has = |source| self.0.iter().any(|(_, value)| value.0.contains(&Part::Of(source)));
        has(Source::ObjectId) && has(Source::Tenant)
    }

    /// How long a tag can become, in bytes.
    pub fn longest(&self, names: Longest) -> usize {
        let pair = |(key, value): &(String, Value)| {
            let value: usize = value.0.iter().map(|part| part.longest(names)).sum();
            key.len().saturating_add(value).saturating_add(PAIR_BYTES)
        };
        self.0.iter().map(pair).sum::<usize>().saturating_add(FRAME_BYTES)
    }

    /// The comment, given the encoded value of each source.
    pub(super) fn fill(&self, value_of: impl Fn(Source) -> String) -> String {
        let mut out = String::from("/*");
        for (at, (key, value)) in self.0.iter().enumerate() {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "{}{key}='", if at > 0 { "," } else { "" });
            for part in &value.0 {
                match part {
                    Part::Text(text) => out.push_str(text),
                    Part::Of(source) => out.push_str(&value_of(*source)),
                }
            }
            out.push('\'');
        }
        out.push_str("*/ ");
        out
    }

    fn of(keys: &[(&str, Source)]) -> Self {
        Self(keys.iter().map(|(key, source)| ((*key).to_owned(), Value(vec![Part::Of(*source)]))).collect())
    }
}

impl Value {
    /// Reads a text with placeholders; what is wrong, as a clause.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            push_text(&mut parts, before)?;
            let (name, behind) = after.split_once('}').ok_or("has a { without its }")?;
            let source = SOURCES.iter().find(|(known, _)| *known == name).map(|(_, source)| *source);
            parts.push(Part::Of(source.ok_or_else(|| unknown(name))?));
            rest = behind;
        }
        push_text(&mut parts, rest)?;
        Ok(Self(parts))
    }
}

impl Part {
    fn longest(&self, names: Longest) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Of(Source::Label) => super::MAX_LABEL_BYTES,
            Self::Of(Source::App | Source::ObjectId | Source::Tenant) => super::MAX_ID_BYTES,
            Self::Of(Source::Issuer) => names.issuer,
            Self::Of(Source::Rule) => names.rule,
            Self::Of(Source::Database) => names.database,
        }
    }
}

/// Checks a key; what is wrong, as a clause.
pub fn check_key(key: &str) -> Result<(), String> {
    let letters = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let starts = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if letters && starts && key.len() <= MAX_KEY_BYTES {
        return Ok(());
    }
    Err(format!("is not a tag's key: lower-case letters, digits and _, at most {MAX_KEY_BYTES}"))
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains('}') {
        return Err("has a } without its {".to_owned());
    }
    if !text.is_empty() {
        parts.push(Part::Text(encode(text, usize::MAX)));
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    let known: Vec<String> = SOURCES.iter().map(|(known, _)| format!("{{{known}}}")).collect();
    format!("has the placeholder {{{}}}, which is none of {}", name.escape_debug(), known.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_texts_with_placeholders() {
        let part = |text: &str| Part::Text(text.to_owned());
        for (text, expected) in [
            ("{object_id}", vec![Part::Of(Source::ObjectId)]),
            ("{tenant}/{object_id}", vec![Part::Of(Source::Tenant), part("%2F"), Part::Of(Source::ObjectId)]),
            ("a'*/b", vec![part("a%27%2A%2Fb")]),
            ("", vec![]),
        ] {
            assert_eq!(Value::parse(text), Ok(Value(expected)), "{text}");
        }
        for (text, expected) in [
            ("{object_id", "has a { without its }"),
            ("object_id}", "has a } without its {"),
            (
                "{oid}",
                "has the placeholder {oid}, which is none of {app} {label} {object_id} {tenant} {issuer} {rule} {database}",
            ),
            (
                "{}",
                "has the placeholder {}, which is none of {app} {label} {object_id} {tenant} {issuer} {rule} {database}",
            ),
            (
                "{{app}}",
                "has the placeholder {{app}, which is none of {app} {label} {object_id} {tenant} {issuer} {rule} {database}",
            ),
        ] {
            assert_eq!(Value::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn keys_are_plain_words() {
        for good in ["app", "db_driver", "k8s"] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        for bad in ["", "App", "1a", "_a", "a-b", "a'b", "a*/", "ü", &"a".repeat(33)] {
            assert!(check_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_presets_name_the_identity_and_leave_room() {
        for preset in [Template::default(), Template::query_insights()] {
            assert!(preset.names_the_identity());
            assert!(preset.longest(Longest::default()) < MAX_TAG_BYTES);
        }
        let half = Template::new(vec![("tid".to_owned(), Value::parse("{tenant}").unwrap())]).unwrap();
        assert!(!half.names_the_identity());
        assert_eq!(Template::new(Vec::new()), None);
    }
}

//! What a record can say, from the types that are written: as JSON Schema, and as Markdown for people.
//!
//! Every member stands here with the words of its type; what a record has besides fails the schema.

use super::event::Line;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// The schema of one record (JSON Schema 2020-12): `oneOf` the events, each closed.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    let mut line = settings.into_generator().into_root_schema_for::<Line<'static>>().to_value();
    let common = members(&line);
    let required = list(&line, "required");
    let events: Vec<Value> = list(&line, "oneOf").into_iter().map(|event| whole(event, &common, &required)).collect();
    let description = line.as_object_mut().and_then(|line| line.remove("description")).unwrap_or_default();
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A record of pgpassport's audit log",
        "description": description,
        "oneOf": events,
    });
    tidy(&mut schema);
    schema
}

/// An event with the members that every record has.
fn whole(mut event: Value, common: &Map<String, Value>, required: &[Value]) -> Value {
    let mut properties = common.clone();
    properties.extend(members(&event));
    let mut all = required.to_vec();
    all.extend(list(&event, "required"));
    if let Some(event) = event.as_object_mut() {
        event.insert("properties".to_owned(), properties.into());
        event.insert("required".to_owned(), all.into());
    }
    event
}

fn members(schema: &Value) -> Map<String, Value> {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn list(schema: &Value, name: &str) -> Vec<Value> {
    schema.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Closes objects, takes away what is never written (an absent member is left out, and not null), and what only reads
/// well beside the code.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(tidy),
        Value::Object(schema) => {
            if schema.contains_key("properties") && !schema.contains_key("additionalProperties") {
                schema.insert("additionalProperties".to_owned(), false.into());
            }
            if let Some(Value::Array(types)) = schema.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    schema.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    schema.remove("anyOf");
                    for (key, value) in only {
                        schema.entry(key).or_insert(value);
                    }
                }
            }
            if let Some(Value::String(text)) = schema.get_mut("description") {
                *text = plain(text);
            }
            schema.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

/// Without links that lead nowhere outside the code, on one line.
fn plain(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The reference for people.
pub fn markdown() -> String {
    let schema = schema();
    let mut out = String::from(HEAD);
    let events = list(&schema, "oneOf");
    if let Some(event) = events.first() {
        out.push_str("\n## Every record\n\n");
        let common = members(event).into_iter().filter(|(name, _)| COMMON.contains(&name.as_str()));
        table(&mut out, &common.collect(), &list(event, "required"));
    }
    for event in &events {
        let name = event.pointer("/properties/event/const").and_then(Value::as_str).unwrap_or_default();
        let _ = write!(out, "\n## `{name}`\n\n{}\n\n", text(event, "description"));
        let own = members(event).into_iter().filter(|(name, _)| name != "event" && !COMMON.contains(&name.as_str()));
        table(&mut out, &own.collect(), &list(event, "required"));
    }
    out
}

const COMMON: [&str; 3] = ["version", "time", "session"];

const HEAD: &str = "\
# The audit log's records

Made by `pgpassport audit fields` from the types that the proxy writes; a test fails where it is out of date. As JSON
Schema: `pgpassport audit fields --json`. Each record is one JSON object. A member that is not `always` there is left out
where it does not apply, and is never null. Members can be added within a version; none changes its meaning.
";

fn table(out: &mut String, members: &Map<String, Value>, required: &[Value]) {
    if members.is_empty() {
        out.push_str("No members of its own.\n");
        return;
    }
    out.push_str("| member | type | there | meaning |\n|---|---|---|---|\n");
    rows(out, "", members, required);
}

fn rows(out: &mut String, prefix: &str, members: &Map<String, Value>, required: &[Value]) {
    for (name, member) in members {
        let there = if required.iter().any(|required| required == name) { "always" } else { "" };
        let meaning = [text(member, "description"), &choices(member)].join(" ").replace('|', "\\|");
        let _ = writeln!(out, "| `{prefix}{name}` | {} | {there} | {} |", kind(member), meaning.trim());
        let (inner, suffix) = member.get("items").map_or((member, "."), |items| (items, "[]."));
        rows(out, &format!("{prefix}{name}{suffix}"), &self::members(inner), &list(inner, "required"));
    }
}

fn text<'v>(schema: &'v Value, name: &str) -> &'v str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn kind(schema: &Value) -> String {
    if let Some(items) = schema.get("items") {
        return format!("array of {}", kind(items));
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        _ => "string",
    };
    match text(schema, "format") {
        "date-time" => "time".to_owned(),
        _ => kind.to_owned(),
    }
}

/// The values of an enum, with their meanings where they have some.
fn choices(schema: &Value) -> String {
    let plain = list(schema, "enum").into_iter().filter_map(|value| Some(format!("`{}`", value.as_str()?)));
    let told = list(schema, "oneOf").into_iter().map(|choice| {
        let (value, meaning) = (text(&choice, "const"), text(&choice, "description"));
        format!("`{value}`: {}", meaning.trim_end_matches('.'))
    });
    let all: Vec<String> = plain.chain(told).collect();
    if all.is_empty() { String::new() } else { format!("One of {}.", all.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_reference_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/audit-events.md");
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(checked_in == markdown(), "out of date: pgpassport audit fields > config/audit-events.md");
    }

    #[test]
    fn every_member_has_words_that_can_be_read_without_the_code() {
        fn look(at: &str, schema: &Value) {
            for (name, member) in &members(schema) {
                let at = format!("{at}.{name}");
                let words = text(member, "description");
                assert!(name == "event" || !words.is_empty(), "{at} has no words");
                for code in ["::", "MAX_", "[`"] {
                    assert!(!words.contains(code), "{at} names code: {words}");
                }
                look(&at, member);
                member.get("items").inspect(|items| look(&at, items));
            }
            for choice in list(schema, "oneOf") {
                assert!(!text(&choice, "description").is_empty(), "{at}: {choice}");
                look(&format!("{at}/{}", choice["properties"]["event"]["const"]), &choice);
            }
        }
        let schema = schema();
        assert!(list(&schema, "oneOf").len() > 10, "the events");
        look("", &schema);
    }

    #[test]
    fn objects_are_closed_and_nothing_is_null() {
        let text = schema().to_string();
        assert!(!text.contains("\"null\"") && !text.contains("$ref"), "{text}");
        assert_eq!(text.matches("\"properties\":").count(), text.matches("\"additionalProperties\":false").count());
    }
}

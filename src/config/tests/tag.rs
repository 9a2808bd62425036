//! `[tag]`: templates that can be used, and each way in which one cannot.

use super::*;
use crate::relay::tag::{Template, Value};

/// `MINIMAL` with these lines in front, so that they begin on line 1.
fn with(lines: &str) -> String {
    format!("{lines}\n{MINIMAL}")
}

fn template(lines: &str) -> Template {
    let loaded = checked(&with(lines)).unwrap();
    assert_eq!(shown(&loaded.warnings), [""; 0], "{lines}");
    loaded.config.tag
}

#[test]
fn a_preset_or_keys_of_ones_own() {
    assert_eq!(template("[tag]"), Template::default());
    assert_eq!(template("[tag]\npreset = \"caller\""), Template::default());
    assert_eq!(template("[tag]\npreset = \"query-insights\""), Template::query_insights());
    let keys = [("who", "{tenant}/{object_id}"), ("by", "pgpassport {rule}")]
        .map(|(key, value)| (key.to_owned(), Value::parse(value).unwrap()));
    let own = template("[tag.keys]\nwho = \"{tenant}/{object_id}\"\nby = \"pgpassport {rule}\"");
    assert_eq!(Some(own), Template::new(keys.into()));
}

#[test]
fn what_cannot_be_a_template_says_why() {
    const SOURCES: &str = "{app} {label} {object_id} {tenant} {issuer} {rule} {database}";
    let placeholder = format!("2: tag.keys.who: has the placeholder {{session}}, which is none of {SOURCES}");
    let identity = "\nwho = \"{tenant}{object_id}\"";
    for (lines, expected) in [
        ("tag = false".to_owned(), "1: tag: must be a table, not a boolean"),
        ("[tag]\npreset = \"insights\"".to_owned(), "2: tag.preset: must be \"caller\" or \"query-insights\""),
        ("[tag]\nkey = { a = \"b\" }".to_owned(), "2: tag.key: is not a known key; did you mean \"keys\"?"),
        (
            "[tag]\npreset = \"caller\"\nkeys = { a = \"b\" }".to_owned(),
            "2: tag.preset: stands beside tag.keys; one of both decides",
        ),
        ("[tag.keys]".to_owned(), "1: tag.keys: is empty; `tag = false` of a database turns its tag off"),
        (
            format!("[tag.keys]{identity}\nApp = \"a\""),
            "3: tag.keys.App: is not a tag's key: lower-case letters, digits and _, at most 32",
        ),
        (
            format!("[tag.keys]{identity}\n\"a*/\" = \"a\""),
            "3: tag.keys.\"a*/\": is not a tag's key: lower-case letters, digits and _, at most 32",
        ),
        (format!("[tag.keys]{identity}\na = 1"), "3: tag.keys.a: must be a string, not an integer"),
        ("[tag.keys]\nwho = \"{session}\"".to_owned(), &placeholder),
        ("[tag.keys]\nwho = \"{tenant\"".to_owned(), "2: tag.keys.who: has a { without its }"),
        (
            format!("[tag.keys]{identity}\nmore = \"{}\"", "x".repeat(400)),
            "1: tag: makes tags of up to 620 bytes; they may have 512",
        ),
    ] {
        assert_eq!(problems(&with(&lines)), [expected], "{lines}");
    }
}

#[test]
fn a_template_without_the_identity_is_a_warning() {
    let loaded = checked(&with("[tag.keys]\ncaller = \"{label}\"")).unwrap();
    let warnings = shown(&loaded.warnings);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("1: tag: lacks {tenant} or {object_id}, which are the identity"), "{warnings:?}");
}

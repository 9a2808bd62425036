//! The documents name things that exist: tests, SQLSTATEs, files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Texts between single backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn threats_name_tests_that_exist() {
    let threats = read("THREATS.md");
    let named: Vec<(&str, &str)> =
        quoted(&threats).filter_map(|name| name.split_once("::")).filter(|(file, _)| *file != "file").collect();
    assert!(named.len() > 15, "the table names tests");
    for (file, test) in named {
        let source = read(&format!("proto-tests/tests/{file}.rs"));
        assert!(source.contains(&format!("fn {test}(")), "THREATS.md names {file}::{test}, which is not there");
    }
}

#[test]
fn the_reference_lists_every_sqlstate_of_the_rejection_table() {
    let table = read("src/session/rejection.rs");
    let codes: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.split_once(": &str = \"")?.1.strip_suffix("\";"))
        .filter(|code| code.len() == 5)
        .collect();
    assert!(codes.contains("28P01") && codes.len() > 10, "the table was not read: {codes:?}");
    let refusals = read("config/refusals.md");
    let listed: BTreeSet<&str> = refusals
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |"))
        .flat_map(|(codes, _)| codes.split(", "))
        .collect();
    let missing: Vec<&&str> = codes.iter().filter(|code| !listed.contains(**code)).collect();
    assert!(missing.is_empty(), "config/refusals.md does not explain {missing:?}");
}

/// What a heading is linked as: lower case, words joined by hyphens.
fn slug(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
}

#[test]
fn which_rule_decides_is_said_once_and_in_one_place() {
    let said = |text: &str| text.to_lowercase().matches("the first whose conditions all hold decides").count();
    assert_eq!(said(&read("config/README.md")), 1);
    for document in [
        "README.md",
        "config/refusals.md",
        "config/audit-log.md",
        "ARCHITECTURE.md",
        "THREATS.md",
        "config/example.toml",
    ] {
        let text = read(document).to_lowercase();
        let again = ["first rule", "first that matches", "first match"].iter().find(|words| text.contains(**words));
        assert!(said(&text) == 0 && again.is_none(), "{document} says which rule decides: {again:?}");
    }
}

/// Pages in Markdown that people have written, in the project's own folders.
const PAGES: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "THREATS.md",
    "config/README.md",
    "config/refusals.md",
    "config/audit-log.md",
    "docker/README.md",
];

#[test]
fn links_lead_somewhere() {
    for document in PAGES {
        let text = read(document);
        let folder = Path::new(document).parent().expect("a folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(document) } else { root().join(&folder).join(file) };
            assert!(path.exists(), "{document} links to {target}");
            let headings = std::fs::read_to_string(&path).unwrap_or_default();
            let found = anchor.is_empty() || headings.lines().any(|line| slug(line).as_deref() == Some(anchor));
            assert!(found, "{document} links to {target}");
        }
    }
}

/// What was one page is several: each is found from the first.
#[test]
fn every_page_is_linked_from_the_readme() {
    let readme = read("README.md");
    for page in PAGES.iter().filter(|page| **page != "README.md") {
        assert!(readme.contains(&format!("]({page})")), "README.md does not link to {page}");
    }
}

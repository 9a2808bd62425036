//! Keeps the modules of `src/` in the order that `src/lib.rs` lists, and the files tidy.
//!
//! The layers are read from `lib.rs` itself (`// L2: …` above the modules of a layer), so that the list is the truth.
//! An arrow points down a layer, or sideways without a cycle. Comments and strings are no code. The checks are
//! functions over texts, and each is shown below to fail on a text that breaks it.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot read its own tree must fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The longest file, in lines.
const MAX_FILE_LINES: usize = 500;
/// The longest function outside tests, in lines.
const MAX_FUNCTION_LINES: usize = 70;
/// Who may name the simulators: the demo, and they themselves.
const SIMULATOR_USERS: [&str; 2] = ["sim/", "cli/demo/"];
/// Modules and files that do no I/O and know no runtime.
const PURE: [&str; 9] = [
    "names.rs",
    "secret.rs",
    "time.rs",
    "wire/",
    "policy/",
    "identity/claims",
    "identity/signatures.rs",
    "relay/tag/",
    "relay/tracker/",
];

/// A file of `src/`: its path from there, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The top module; none for the crate's roots.
    fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next()?.trim_end_matches(".rs");
        (!matches!(first, "lib" | "main" | "bin")).then_some(first)
    }

    /// How many modules deep the file is: 1 for `policy/mod.rs` and `time.rs`, 2 for `policy/role.rs`.
    fn depth(&self) -> usize {
        self.path.trim_end_matches("/mod.rs").split('/').count()
    }

    /// The code without tests: `mod tests` stands last.
    fn production(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let in_tests =
            self.path.contains("/tests/") || ["tests.rs", "testing.rs"].contains(&name) || name.ends_with("_tests.rs");
        let code = code_only(&self.text);
        let end = if in_tests { 0 } else { code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len()) };
        code[..end].to_owned()
    }
}

// ---- The tree as it is -----------------------------------------------------------------------------

#[test]
fn arrows_only_point_down() {
    assert_eq!(wrong_arrows(&layers(&lib()), &sources()), [""; 0]);
}

#[test]
fn simulators_are_named_by_the_demo_only() {
    assert_eq!(simulator_uses(&sources()), [""; 0]);
}

#[test]
fn only_time_reads_the_clock() {
    assert_eq!(clock_reads(&sources()), [""; 0]);
}

#[test]
fn pure_modules_do_no_io() {
    assert_eq!(impure(&sources()), [""; 0]);
}

#[test]
fn files_say_what_they_own_and_stay_short() {
    assert_eq!(untidy(&sources()), [""; 0]);
}

#[test]
fn functions_stay_short() {
    assert_eq!(long_functions(&sources()), [""; 0]);
}

#[test]
fn the_look_itself_sees_the_tree() {
    let (layers, sources) = (layers(&lib()), sources());
    assert!(layers.len() >= 15 && layers["names"] == 0 && layers["sim"] == 6, "{layers:?}");
    let arrows = arrows(&layers, &sources);
    for (from, to) in [("policy", "identity"), ("federation", "policy"), ("config", "cloudsql"), ("cli", "config")] {
        assert!(arrows.contains_key(&(from.to_owned(), to.to_owned())), "no arrow {from} -> {to} was seen");
    }
    for module in sources.iter().filter_map(Source::module) {
        assert!(layers.contains_key(module), "src/{module} is not listed in lib.rs");
    }
}

#[test]
fn every_exception_and_promise_is_of_a_file_that_is_there() {
    assert_eq!(unmatched(&SIMULATOR_USERS, &sources()), [""; 0]);
    assert_eq!(unmatched(&PURE, &sources()), [""; 0]);
    let moved = [Source::new("relay/tag/mod.rs", "")];
    assert_eq!(unmatched(&["relay/tag.rs", "relay/tag/"], &moved), ["relay/tag.rs"]);
}

// ---- The checks ------------------------------------------------------------------------------------

/// Entries of a list that no file's path begins with: what they said of it holds for nothing any more.
fn unmatched<'a>(entries: &[&'a str], sources: &[Source]) -> Vec<&'a str> {
    let named = |entry: &&str| sources.iter().any(|source| source.path.starts_with(*entry));
    entries.iter().filter(|entry| !named(entry)).copied().collect()
}

/// Arrows that point up, and modules of one layer that need each other.
fn wrong_arrows(layers: &BTreeMap<String, usize>, sources: &[Source]) -> Vec<String> {
    let arrows = arrows(layers, sources);
    let mut wrong = Vec::new();
    for ((from, to), file) in &arrows {
        if layers[from] < layers[to] {
            wrong.push(format!("{file}: {from} (L{}) must not use {to} (L{})", layers[from], layers[to]));
        } else if (from.as_str(), to.as_str()) == ("sim", "cli") {
            wrong.push(format!("{file}: the simulators must not use the command line"));
        } else if from < to && reaches(&arrows, to, from) {
            wrong.push(format!("{file}: {from} and {to} need each other"));
        }
    }
    wrong
}

fn simulator_uses(sources: &[Source]) -> Vec<String> {
    let others = sources.iter().filter(|source| !SIMULATOR_USERS.iter().any(|user| source.path.starts_with(user)));
    let uses = others.filter(|source| source.module().is_some() && referenced(source).contains("sim"));
    uses.map(|source| format!("{}: only cli::demo may use the simulators", source.path)).collect()
}

fn clock_reads(sources: &[Source]) -> Vec<String> {
    let reads = |source: &&Source| {
        let code = source.production();
        ["SystemTime::now", "Timestamp::now", "Zoned::now", "UNIX_EPOCH.elapsed"].iter().any(|call| code.contains(call))
    };
    let others = sources.iter().filter(|source| source.path != "time.rs");
    others.filter(reads).map(|source| format!("{}: take the time from time::Clock", source.path)).collect()
}

fn impure(sources: &[Source]) -> Vec<String> {
    let pure = sources.iter().filter(|source| PURE.iter().any(|pure| source.path.starts_with(pure)));
    let mut found = Vec::new();
    for source in pure {
        let code = source.production();
        for word in ["tokio::", "std::net::Tcp", "std::fs", "reqwest::", "hyper"] {
            if code.contains(word) {
                found.push(format!("{}: is pure, {word} is not", source.path));
            }
        }
    }
    found
}

fn untidy(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for Source { path, text } in sources {
        if !text.starts_with("//!") {
            found.push(format!("{path}: starts without //!"));
        }
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            found.push(format!("{path}: has {lines} lines, over {MAX_FILE_LINES}"));
        }
    }
    found
}

fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (line, name, length) in functions(&source.production()) {
            if length > MAX_FUNCTION_LINES {
                found.push(format!("{}:{line}: {name} has {length} lines, over {MAX_FUNCTION_LINES}", source.path));
            }
        }
    }
    found
}

/// Every module of `lib.rs` with the layer whose `// Ln:` comment stands above it.
fn layers(lib: &str) -> BTreeMap<String, usize> {
    let mut layer = None;
    let mut layers = BTreeMap::new();
    for line in lib.lines() {
        let numbered = line.strip_prefix("// L").and_then(|rest| rest.split(':').next());
        if let Some(number) = numbered.and_then(|number| number.parse().ok()) {
            layer = Some(number);
        } else if let Some(module) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            layers.insert(module.to_owned(), layer.expect("a layer's comment stands above its modules"));
        }
    }
    layers
}

/// Every arrow between two modules, with one file that draws it. Tests count: what needs a higher layer to be tested
/// belongs there.
fn arrows(layers: &BTreeMap<String, usize>, sources: &[Source]) -> BTreeMap<(String, String), String> {
    let mut arrows = BTreeMap::new();
    for source in sources {
        let Some(from) = source.module().filter(|module| layers.contains_key(*module)) else { continue };
        for to in referenced(source).into_iter().filter(|to| to != from && layers.contains_key(to)) {
            arrows.entry((from.to_owned(), to)).or_insert_with(|| source.path.clone());
        }
    }
    arrows
}

fn reaches(arrows: &BTreeMap<(String, String), String>, from: &str, goal: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(at) = next.pop() {
        if at == goal {
            return true;
        }
        if seen.insert(at) {
            next.extend(arrows.keys().filter(|(source, _)| source == at).map(|(_, target)| target.as_str()));
        }
    }
    false
}

/// First names of the paths that start at the crate's root: `crate::x`, each of `crate::{x, y::z}`, and `super::x`
/// with as many `super::` as the file is deep.
fn referenced(source: &Source) -> BTreeSet<String> {
    let code: String = code_only(&source.text).split_whitespace().collect::<Vec<_>>().join(" ").replace(" ::", "::");
    let code = code.replace(":: ", "::");
    let mut names = BTreeSet::new();
    for root in ["crate::".to_owned(), "super::".repeat(source.depth())] {
        for (at, _) in code.match_indices(&root) {
            let whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if whole {
                names.extend(first_names(&code[at + root.len()..]));
            }
        }
    }
    names
}

/// `x` of `x::y`; `x` and `y` of `{x::a, y::{b, c}}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else { return vec![identifier(path)] };
    let (mut depth, mut fresh, mut names) = (0_u32, true, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            letter if fresh && (letter.is_alphabetic() || letter == '_') => {
                names.push(identifier(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Line, name and length of every function with a body.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        let name = identifier(&code[at + "fn ".len()..]);
        if name.is_empty() || before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        if let Some(length) = body_end(&code[at..]).map(|end| code[at..at + end].lines().count()) {
            found.push((code[..at].lines().count().max(1), name, length));
        }
    }
    found
}

/// Where the body that starts at the first brace outside brackets ends; none for a declaration.
fn body_end(code: &str) -> Option<usize> {
    let (mut brackets, mut braces) = (0_u32, 0_u32);
    for (at, character) in code.char_indices() {
        match character {
            '(' | '[' if braces == 0 => brackets += 1,
            ')' | ']' if braces == 0 => brackets = brackets.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' if braces <= 1 => return Some(at + 1),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

/// The text with comments and the insides of literals blanked out; line ends stay.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_name = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = match rest {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => block_comment(rest),
            _ if first == '"' => quoted(rest, '"'),
            _ if first == '\'' => character(rest),
            _ if !after_name && (rest.starts_with("r\"") || rest.starts_with("r#")) => raw(rest, 1),
            _ if !after_name && (rest.starts_with("br\"") || rest.starts_with("br#")) => raw(rest, 2),
            _ => 0,
        };
        let (blanked, kept) = if length == 0 { (0, first.len_utf8()) } else { (length, 0) };
        code.extend(rest[..blanked].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        code.push_str(&rest[..kept]);
        rest = &rest[blanked + kept..];
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at.min(text.len())
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal's length; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(text, '\''),
        _ => 0,
    }
}

/// A raw string's length, its prefix of `prefix` letters included; 0 for a raw identifier.
fn raw(text: &str, prefix: usize) -> usize {
    let hashes = text[prefix..].chars().take_while(|c| *c == '#').count();
    let body = prefix + hashes + 1;
    if !text[prefix + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[body..].find(&end).map_or(text.len(), |at| body + at + end.len())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn lib() -> String {
    std::fs::read_to_string(root().join("lib.rs")).unwrap()
}

fn sources() -> Vec<Source> {
    let (mut folders, mut sources) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                sources.push(Source { path: name, text: std::fs::read_to_string(&path).unwrap() });
            }
        }
    }
    sources.sort_by(|left, right| left.path.cmp(&right.path));
    sources
}

// ---- The checks can fail ---------------------------------------------------------------------------

const LIB: &str = "//! x\n// L0: a\npub mod names;\npub mod time;\n// L1: b\npub mod audit;\npub mod http;\n\
                   // L2: c\npub mod cli;\n#[cfg(feature = \"demo\")]\npub mod sim;\n";

fn wrong(path: &str, text: &str) -> usize {
    wrong_arrows(&layers(LIB), &[Source::new(path, text)]).len()
}

#[test]
fn every_way_to_point_up_is_seen() {
    for (path, text) in [
        ("names.rs", "use crate::http::Client;"),
        ("names.rs", "use crate::{time::Clock, http};"),
        ("names.rs", "use crate::{\n    time::{Clock, later},\n    // one more\n    audit,\n};"),
        ("names.rs", "fn f() -> crate::http::Error { todo!() }"),
        ("names.rs", "pub use crate ::\n http::Client;"),
        ("names.rs", "use super::http;"),
        ("time/zone.rs", "use super::super::audit::Record;"),
        ("http/mod.rs", "#[cfg(test)]\nmod tests { use crate::cli::run; }"),
        ("sim/mod.rs", "use crate::cli::run;"),
    ] {
        assert_eq!(wrong(path, text), 1, "{path}: {text}");
    }
}

#[test]
fn what_is_no_arrow_up_is_left_alone() {
    for (path, text) in [
        ("http.rs", "use crate::{names::Name, time};"),
        ("http.rs", "use crate::audit::Record;"),
        ("names.rs", "//! See [`crate::http`].\n/* crate::http /* crate::cli */ crate::audit */"),
        ("names.rs", "const A: &str = \"crate::http\"; const B: &str = r#\"\"crate::http\"#; const C: char = '\"';"),
        ("names.rs", "fn f<'a>(x: &'a str) -> char { '\\'' } // crate::http"),
        ("names.rs", "use mycrate::http; use crate::names::http;"),
        ("names/parse.rs", "use super::http;"),
        ("main.rs", "use crate::cli;"),
    ] {
        assert_eq!(wrong(path, text), 0, "{path}: {text}");
    }
}

#[test]
fn two_of_a_layer_must_not_need_each_other() {
    let both = [Source::new("audit.rs", "use crate::http;"), Source::new("http.rs", "use crate::audit;")];
    assert_eq!(wrong_arrows(&layers(LIB), &both), ["audit.rs: audit and http need each other"]);
}

fn one(path: &str, text: &str) -> [Source; 1] {
    [Source::new(path, text)]
}

#[test]
fn simulators_clocks_io_and_untidiness_are_seen() {
    assert_eq!(simulator_uses(&one("cli/serve.rs", "use crate::sim::Cloud;")).len(), 1);
    assert_eq!(simulator_uses(&one("cli/demo/mod.rs", "use crate::sim::Cloud;")).len(), 0);
    assert_eq!(clock_reads(&one("http.rs", "let now = std::time::SystemTime::now();")).len(), 1);
    assert_eq!(clock_reads(&one("http.rs", "#[cfg(test)]\nmod tests { fn f() { Timestamp::now(); } }")).len(), 0);
    assert_eq!(clock_reads(&one("time.rs", "Timestamp::now()")).len(), 0);
    assert_eq!(impure(&one("wire/frame.rs", "use tokio::io::AsyncRead;")).len(), 1);
    assert_eq!(impure(&one("wire/frame.rs", "// no tokio::io here")).len(), 0);
    assert_eq!(untidy(&one("http.rs", "use x;")).len(), 1);
    assert_eq!(untidy(&one("http.rs", &format!("//! x\n{}", "\n".repeat(MAX_FILE_LINES)))).len(), 1);
    let function = |lines| {
        format!("impl X {{\n    pub async fn long<T>(a: [u8; 2]) {{\n{}    }}\n}}", "        a;\n".repeat(lines))
    };
    assert_eq!(long_functions(&one("http.rs", &function(MAX_FUNCTION_LINES - 2))), [""; 0]);
    let over = long_functions(&one("http.rs", &function(MAX_FUNCTION_LINES - 1)));
    assert_eq!(over, ["http.rs:2: long has 71 lines, over 70"]);
}

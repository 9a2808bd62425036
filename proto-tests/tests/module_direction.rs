//! The modules of `src/` stand in layers, and an arrow only points down (or sideways, without a cycle).
//!
//! Read from the sources themselves: a `use crate::X` or a path `crate::X::` in module Y is the arrow Y → X.
//! Test modules count too: a unit test that needs a higher layer belongs elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layers, bottom up. `ARCHITECTURE.md` says what each is for.
const LAYERS: [&[&str]; 7] = [
    &["names", "secret", "time", "wire"],
    &["audit", "http", "telemetry"],
    &["federation", "identity", "policy"],
    &["backend", "cloudsql", "frontend", "relay"],
    &["session"],
    &["admin", "agent", "config", "server"],
    &["cli", "sim"],
];

#[test]
fn arrows_only_point_down() {
    let arrows = arrows();
    let mut wrong = Vec::new();
    for ((from, to), file) in &arrows {
        if layer(from) < layer(to) {
            wrong.push(format!("{file}: {from} (L{}) uses {to} (L{})", layer(from), layer(to)));
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn modules_of_one_layer_form_no_cycle() {
    let edges: BTreeSet<(String, String)> = arrows().into_keys().collect();
    for (from, to) in &edges {
        assert!(!reaches(&edges, to, from), "{from} and {to} use each other");
    }
}

#[test]
fn every_module_has_a_layer_and_every_source_is_seen() {
    let declared = declared_modules();
    for module in &declared {
        assert!(LAYERS.concat().contains(&module.as_str()), "{module} has no layer: give it one here");
    }
    // The look itself must work: these two arrows are the design's.
    let arrows = arrows();
    for (from, to) in [("policy", "identity"), ("federation", "policy")] {
        assert!(arrows.contains_key(&(from.to_owned(), to.to_owned())), "no arrow {from} → {to} was seen");
    }
}

/// The rules that only the design page would say otherwise: pure modules import no runtime and no I/O.
#[test]
fn pure_modules_import_no_runtime() {
    for module in ["names", "secret", "time", "wire", "policy"] {
        for (file, text) in sources(module) {
            for word in ["tokio::", "std::net::Tcp", "std::fs", "reqwest::"] {
                assert!(!text.contains(word), "{}: {module} is pure, {word} is not", file.display());
            }
        }
    }
}

/// Every arrow between different modules, with one file that has it.
fn arrows() -> BTreeMap<(String, String), String> {
    let modules = declared_modules();
    let mut arrows = BTreeMap::new();
    for from in &modules {
        for (file, text) in sources(from) {
            for to in mentioned(&text) {
                if to != *from && modules.contains(&to) {
                    arrows.insert((from.clone(), to), file.display().to_string());
                }
            }
        }
    }
    arrows
}

/// Names that follow `crate::`, those in a `use crate::{a, b::c}` list included. Comments do not count.
fn mentioned(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            names.extend(top_level_names(list));
        } else {
            names.insert(identifier(rest));
        }
    }
    names
}

/// The first identifier of each entry of a brace list, up to its closing brace.
fn top_level_names(list: &str) -> Vec<String> {
    let (mut depth, mut fresh, mut names) = (0_u32, true, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && c.is_alphabetic() => {
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

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).expect("checked by its own test")
}

fn reaches(edges: &BTreeSet<(String, String)>, from: &str, goal: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(at) = next.pop() {
        if at == goal {
            return true;
        }
        if seen.insert(at.clone()) {
            next.extend(edges.iter().filter(|(source, _)| *source == at).map(|(_, target)| target.clone()));
        }
    }
    false
}

/// Modules of `src/lib.rs`.
fn declared_modules() -> BTreeSet<String> {
    let lib = std::fs::read_to_string(source_folder().join("lib.rs")).expect("src/lib.rs");
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

/// A module's files with their text.
fn sources(module: &str) -> Vec<(PathBuf, String)> {
    let single = source_folder().join(format!("{module}.rs"));
    let mut files = if single.exists() { vec![single] } else { Vec::new() };
    collect(&source_folder().join(module), &mut files);
    assert!(!files.is_empty(), "module {module} has no file");
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).expect("a source is text");
        (file, text)
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src")
}

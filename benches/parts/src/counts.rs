//! The kept instruction counts: what they are of, how they are written, and what has changed since.

use crate::Result;
use crate::callgrind::Profile;
use crate::replay::{Outcome, Told};
use crate::script::Kind;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::process::Command;

/// What is told of a change, in parts of a hundred.
pub const TOLD_FROM: u64 = 1;
/// A part below so much of the whole, in parts of a thousand, is counted with others like it.
const SMALL: u64 = 2;
/// Such parts together.
const OTHERS: &str = "others, each below 0.2 %";

/// Stages of a read's way, each a function of [`crate::session`], in order.
const STAGES: [(&str, &str); 6] = [
    ("client: frames, tag, tracker, begin records", "client_is_inspected"),
    ("client: commit of begin records", "begins_are_recorded"),
    ("client: write to the server", "client_is_forwarded"),
    ("server: frames, tracker", "server_is_inspected"),
    ("server: end records and their commit", "ends_are_recorded"),
    ("server: write to the client", "server_is_forwarded"),
];
/// Kinds of exchanges, each a function of [`crate::replay`].
const KINDS: [(Kind, u64, u64); 8] = Kind::ALL;

/// One run's counts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Instructions in all.
    pub total: u64,
    /// By what: another compiler counts differently.
    pub by: BTreeMap<String, String>,
    /// What was replayed: two counts can be compared only where this is the same.
    pub replay: Told,
    /// What came of it: other records cost something else.
    pub outcome: Told,
    /// By kind of exchange.
    pub kinds: BTreeMap<String, u64>,
    /// By stage.
    pub stages: BTreeMap<String, u64>,
    /// Of the proxy's functions that cost most, with all that they call.
    pub functions: BTreeMap<String, u64>,
    /// By module.
    pub modules: BTreeMap<String, u64>,
}

impl Counts {
    /// From callgrind's profile and what the replay said.
    pub fn of(profile: &Profile, told: Outcome) -> Result<Self> {
        let stages = STAGES.iter().map(|(stage, function)| {
            Ok(((*stage).to_owned(), profile.of(&format!("parts::session::Session::{function}"))?))
        });
        let kinds = KINDS
            .iter()
            .map(|(kind, ..)| Ok((kind.name().to_owned(), profile.of(&format!("parts::replay::{}", kind.name()))?)));
        let mut modules: BTreeMap<String, u64> = BTreeMap::new();
        for (function, cost) in &profile.own {
            *modules.entry(module(function)).or_default() += cost;
        }
        Ok(Self {
            total: profile.total,
            by: BTreeMap::from([("compiler".to_owned(), compiler()?), ("valgrind".to_owned(), printed("valgrind")?)]),
            replay: told.replay,
            outcome: told.outcome,
            kinds: kinds.collect::<Result<_>>()?,
            stages: stages.collect::<Result<_>>()?,
            functions: functions(profile),
            modules: without_small(modules, profile.total),
        })
    }

    /// Reads a file that [`Counts`] has written.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// What has changed since, by more than [`TOLD_FROM`]; the whole is always told.
    pub fn since(&self, before: &Self) -> Changes {
        let mut lines = vec![Change::new("in all", Some(before.total), Some(self.total))];
        for (now, before) in self.tables().into_iter().zip(before.tables()) {
            let names: BTreeSet<&String> = now.1.keys().chain(before.1.keys()).collect();
            let change = |name: &String| Change::new(name, before.1.get(name).copied(), now.1.get(name).copied());
            // Of an outcome, every change.
            let told = |change: &Change| change.is_told() || (now.0 == "outcome" && change.before != change.now);
            lines.extend(names.into_iter().map(change).filter(told));
        }
        Changes { lines, by: self.by != before.by, replay: self.replay != before.replay }
    }

    fn tables(&self) -> [(&'static str, &BTreeMap<String, u64>); 5] {
        [
            ("outcome", &self.outcome),
            ("kinds", &self.kinds),
            ("stages", &self.stages),
            ("functions", &self.functions),
            ("modules", &self.modules),
        ]
    }
}

/// The file, as it is kept.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Instructions in user space of the fixed replay (benches/parts), counted by callgrind. Written by"
        )?;
        writeln!(
            f,
            "# `target/release/parts instructions --write`; `make bench-parts` compares. The same in every run of one build."
        )?;
        writeln!(
            f,
            "# Another build of the same code may inline otherwise: 0.3 % in all, several per cent of a function."
        )?;
        writeln!(f, "# SHA-256 and what encrypts, sends and writes to the disk are not in it.\n")?;
        writeln!(f, "total = {}\n\n[by]", self.total)?;
        for (name, value) in &self.by {
            writeln!(f, "{name} = {value:?}")?;
        }
        let comments = [
            "What came of it.",
            "Instructions by kind of exchange, with all that it calls.",
            "By stage of a read's way, with all that it calls.",
            "Of the proxy's functions that cost 1 % or more, with all that they call.",
            "By the function's module, itself alone. What is inlined counts where it ended up.",
        ];
        let replay =
            ("What was replayed: counts of different ones say nothing of each other.", ("replay", &self.replay));
        for (comment, (table, values)) in std::iter::once(replay).chain(comments.into_iter().zip(self.tables())) {
            writeln!(f, "\n# {comment}\n[{table}]")?;
            for (name, value) in values {
                writeln!(f, "{name:?} = {value}")?;
            }
        }
        Ok(())
    }
}

/// What has changed.
#[derive(Debug)]
pub struct Changes {
    /// The whole, then what is told.
    pub lines: Vec<Change>,
    /// Another compiler or valgrind.
    pub by: bool,
    /// Another replay.
    pub replay: bool,
}

impl Changes {
    /// Whether the whole has become dearer than is told.
    pub fn is_dearer(&self) -> bool {
        self.lines.first().is_none_or(|whole| whole.is_told() && whole.now > whole.before)
    }
}

/// One line's.
#[derive(Debug)]
pub struct Change {
    name: String,
    before: Option<u64>,
    now: Option<u64>,
}

impl Change {
    fn new(name: &str, before: Option<u64>, now: Option<u64>) -> Self {
        Self { name: name.to_owned(), before, now }
    }

    /// None where one of both is not there.
    fn percent(&self) -> Option<f64> {
        let (before, now) = (self.before?, self.now?);
        Some((float(now) / float(before.max(1)) - 1.0) * 100.0)
    }

    fn is_told(&self) -> bool {
        let Some((before, now)) = self.before.zip(self.now) else { return true };
        now.abs_diff(before) * 100 > before * TOLD_FROM
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.replay {
            writeln!(f, "another replay than the kept counts are of: they say nothing of each other")?;
        }
        if self.by {
            writeln!(f, "another compiler or valgrind than the kept counts are by")?;
        }
        writeln!(f, "{:<46} {:>14} {:>14} {:>9}", "instructions", "kept", "now", "change")?;
        for Change { name, before, now } in &self.lines {
            let told = |count: &Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
            let percent = Change::new(name, *before, *now).percent();
            let percent = percent.map_or("-".to_owned(), |percent| format!("{percent:+.2} %"));
            writeln!(f, "{name:<46} {:>14} {:>14} {percent:>9}", told(before), told(now))?;
        }
        if self.lines.len() == 1 {
            writeln!(f, "nothing else has changed by more than {TOLD_FROM} %")?;
        }
        Ok(())
    }
}

/// The module that a function is counted for: two steps of the proxy's own, otherwise the crate's or what libc does.
fn module(function: &str) -> String {
    const COPYING: [&str; 6] = ["memcpy", "memmove", "memset", "memcmp", "bcmp", "memchr"];
    const ALLOCATING: [&str; 8] =
        ["malloc", "free", "realloc", "calloc", "_int_", "sysmalloc", "unlink_chunk", "__rust_"];
    const NUMBERS: [&str; 12] =
        ["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize"];
    let bare = function.trim_start_matches(['<', '_', '&']);
    let path: Vec<&str> =
        bare.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|part| !part.is_empty()).collect();
    let Some(first) = path.first() else { return "other".to_owned() };
    let says = |words: &[&str]| words.iter().any(|word| function.contains(word));
    match *first {
        "pgpassport" => path.iter().skip(1).take(2).copied().collect::<Vec<_>>().join("::"),
        "core" | "alloc" | "std" | "hashbrown" => "Rust's library".to_owned(),
        number if NUMBERS.contains(&number) => "Rust's library".to_owned(),
        "serde" | "serde_core" | "serde_json" | "itoa" | "zmij" | "ryu" => "serde_json".to_owned(),
        "parts" => "the replay itself".to_owned(),
        _ if says(&COPYING) => "libc: copies and comparisons".to_owned(),
        _ if says(&ALLOCATING) => "allocator".to_owned(),
        other if function.contains("::") => other.to_owned(),
        _ => "libc and others".to_owned(),
    }
}

fn functions(profile: &Profile) -> BTreeMap<String, u64> {
    let ours = |name: &str| name.contains("pgpassport::") && !name.contains("parts::");
    let mut functions: BTreeMap<String, u64> = BTreeMap::new();
    for (name, cost) in &profile.inclusive {
        if ours(name) && cost * 100 >= profile.total {
            *functions.entry(short(name)).or_default() += cost;
        }
    }
    functions
}

/// `relay::tracker::server::Tracker::server` of
/// `pgpassport::relay::tracker::server::<impl pgpassport::relay::tracker::Tracker>::server`.
fn short(function: &str) -> String {
    let implemented = function.split_once("<impl ").and_then(|(before, rest)| Some((before, rest.split_once(">::")?)));
    let Some((before, (of, after))) = implemented else { return function.replace("pgpassport::", "") };
    let of = of.rsplit("::").next().unwrap_or(of);
    format!("{before}{of}::{after}").replace("pgpassport::", "").replace("_::", "")
}

fn without_small(modules: BTreeMap<String, u64>, total: u64) -> BTreeMap<String, u64> {
    let mut kept = BTreeMap::new();
    for (name, cost) in modules {
        let name = if cost * 1000 < total * SMALL { OTHERS.to_owned() } else { name };
        *kept.entry(name).or_default() += cost;
    }
    kept
}

/// The first line of what `--version` prints.
fn printed(program: &str) -> Result<String> {
    let output = Command::new(program).arg("--version").output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn compiler() -> Result<String> {
    printed("rustc")
}

#[allow(clippy::cast_precision_loss, reason = "counts of a replay are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Instructions for each statement, for people.
pub fn table(counts: &Counts) -> String {
    let statements = counts.replay.get("statements").copied().unwrap_or_default().max(1);
    let mut out = String::new();
    let mut line = |name: &str, cost: u64| {
        let (each, share) = (float(cost) / float(statements), float(cost) * 100.0 / float(counts.total.max(1)));
        // A String takes everything.
        let _ = writeln!(out, "  {name:<46} {each:>10.1} {share:>7.1} %");
    };
    line("in all, a statement", counts.total);
    for (_, table) in counts.tables().into_iter().filter(|(name, _)| ["stages", "modules"].contains(name)) {
        for (name, cost) in table {
            line(name, *cost);
        }
    }
    for (kind, exchanges, each) in KINDS {
        let cost = counts.kinds.get(kind.name()).copied().unwrap_or_default();
        let each = float(cost) / float(exchanges * each);
        let _ = writeln!(out, "  a statement, {:<33} {each:>10.1}", kind.name());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: u64, tracker: u64) -> Counts {
        let table = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        Counts {
            total,
            by: BTreeMap::from([("compiler".to_owned(), "rustc \"1\"".to_owned())]),
            replay: table("statements", 10_000),
            outcome: table("record_bytes", 7),
            functions: BTreeMap::new(),
            kinds: table("simple", total),
            stages: table("server: frames, tracker", 5),
            modules: table("relay::tracker", tracker),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let written = counts(1_000_000, 500);
        assert_eq!(Counts::parse(&written.to_string()).unwrap(), written);
    }

    #[test]
    fn changes_of_more_than_a_hundredth_are_told() {
        let names = |now: &Counts, before: &Counts| {
            let changes = now.since(before);
            (changes.lines.iter().map(|line| line.name.clone()).collect::<Vec<_>>().join(" "), changes.is_dearer())
        };
        let before = counts(100_000, 1_000);
        assert_eq!(names(&counts(100_900, 1_010), &before), ("in all".to_owned(), false));
        assert_eq!(names(&counts(98_000, 1_011), &before), ("in all simple relay::tracker".to_owned(), false));
        assert_eq!(names(&counts(101_001, 1_000), &before), ("in all simple".to_owned(), true));
        let mut other = before.clone();
        other.modules = BTreeMap::from([("relay::book".to_owned(), 1_000)]);
        other.replay.insert("statements".to_owned(), 1);
        assert_eq!(names(&other, &before), ("in all relay::book relay::tracker".to_owned(), false));
        assert!(other.since(&before).replay && !before.since(&before).replay);
        let longer = Counts { outcome: BTreeMap::from([("record_bytes".to_owned(), 8)]), ..before.clone() };
        assert_eq!(names(&longer, &before), ("in all record_bytes".to_owned(), false));
    }

    #[test]
    fn functions_are_counted_for_their_modules() {
        for (function, expected) in [
            ("pgpassport::relay::tracker::client::<impl pgpassport::relay::tracker::Tracker>::query", "relay::tracker"),
            ("<pgpassport::audit::event::Event as serde::ser::Serialize>::serialize", "audit::event"),
            ("_<pgpassport::audit::event::Begin as serde_core::ser::Serialize>::serialize::h01", "audit::event"),
            ("serde_json::ser::format_escaped_str", "serde_json"),
            ("core::fmt::write", "Rust's library"),
            ("<u32 as core::fmt::Display>::fmt", "Rust's library"),
            ("crc32c::hw_x86_64::crc_u64", "crc32c"),
            ("__memmove_avx_unaligned_erms", "libc: copies and comparisons"),
            ("_int_malloc", "allocator"),
            ("clock_gettime", "libc and others"),
        ] {
            assert_eq!(module(function), expected, "{function}");
        }
        let function = "pgpassport::relay::tracker::server::<impl pgpassport::relay::tracker::Tracker>::server";
        assert_eq!(short(function), "relay::tracker::server::Tracker::server");
        assert_eq!(short("pgpassport::audit::line::write"), "audit::line::write");
    }
}

//! Callgrind's file ("Callgrind Format Specification", Valgrind's manual): what each function has cost itself, and what
//! it has cost with all that it calls.

use crate::Result;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;

/// Starts and ends with this function: nothing around it is counted.
const COUNTED: &str = "parts::replay::counted*";

/// Instructions that were counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// In all.
    pub total: u64,
    /// Of functions themselves.
    pub own: BTreeMap<String, u64>,
    /// Of functions with what they call, those that were called by another one.
    pub inclusive: BTreeMap<String, u64>,
}

/// Has the replay counted; also what it printed. `folder` gets callgrind's file.
pub fn count(program: &Path, folder: &Path) -> Result<(Profile, String)> {
    let file = folder.join("callgrind.out");
    std::fs::create_dir_all(folder)?;
    let _ = std::fs::remove_file(&file);
    let (place, name) = (program.parent(), program.file_name());
    let (place, name) = place.zip(name).ok_or("the replay's program is nowhere")?;
    let mut valgrind = Command::new("valgrind");
    // Neither the environment nor the folder's name may move the stack about.
    let path = std::env::var_os("PATH").unwrap_or_default();
    valgrind.env_clear().env("PATH", path).current_dir(place);
    valgrind.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
    valgrind.arg(format!("--toggle-collect={COUNTED}"));
    valgrind.arg(format!("--callgrind-out-file={}", file.display()));
    let output = valgrind.arg(Path::new(".").join(name)).output().map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("the replay under valgrind: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let profile = Profile::parse(&std::fs::read_to_string(&file)?)?;
    if profile.total == 0 {
        return Err("callgrind has counted nothing".into());
    }
    Ok((profile, String::from_utf8(output.stdout)?))
}

impl Profile {
    /// Reads the file.
    pub fn parse(text: &str) -> Result<Self> {
        let (mut profile, mut names) = (Self::default(), HashMap::new());
        let (mut function, mut called, mut is_call) = (String::new(), String::new(), false);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = full_name(name, &mut names)?;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = full_name(name, &mut names)?;
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
                let cost: u64 = line.split_whitespace().nth(1).map_or(Ok(0), str::parse)?;
                let (table, name) =
                    if is_call { (&mut profile.inclusive, &called) } else { (&mut profile.own, &function) };
                *table.entry(name.clone()).or_default() += cost;
                profile.total += if is_call { 0 } else { cost };
                is_call = false;
            }
        }
        Ok(profile)
    }

    /// What this function has cost with all that it calls, whatever stands around its name.
    pub fn of(&self, function: &str) -> Result<u64> {
        let found = self.inclusive.iter().filter(|(name, _)| is(name, function));
        found.map(|(_, cost)| *cost).reduce(|one, other| one + other).ok_or(format!("{function} was not seen").into())
    }
}

/// `(7) name` the first time, `(7)` from then on.
fn full_name(told: &str, names: &mut HashMap<String, String>) -> Result<String> {
    let (number, name) = told.split_once(')').ok_or("a name without its number")?;
    if name.is_empty() {
        return Ok(names.get(number).ok_or("a number without its name")?.clone());
    }
    let name = name.trim().to_owned();
    names.insert(number.to_owned(), name.clone());
    Ok(name)
}

/// A symbol's name may end in its hash.
fn is(name: &str, function: &str) -> bool {
    name.strip_prefix(function).is_some_and(|rest| rest.is_empty() || rest.starts_with("::h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# callgrind format\nversion: 1\npositions: line\nevents: Ir\n\nob=(1) /bin/x\nfl=(1) ???\n\
        fn=(1) parts::replay::counted\n0 10\ncfn=(2) parts::replay::simple::h00\ncalls=2 0\n0 300\n\n\
        fn=(2)\n0 100\n+1 50\ncob=(2) /lib/libc.so.6\ncfn=(3) malloc\ncalls=3 0\n* 150\n\nob=(2)\nfn=(3)\n0 150\n\n\
        totals: 310\n";

    #[test]
    fn own_costs_and_those_of_what_is_called_are_told_apart() {
        let profile = Profile::parse(FILE).unwrap();
        let own: Vec<(&str, u64)> = profile.own.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        assert_eq!(own, [("malloc", 150), ("parts::replay::counted", 10), ("parts::replay::simple::h00", 150)]);
        assert_eq!(profile.total, 310);
        assert_eq!((profile.of("parts::replay::simple").unwrap(), profile.of("malloc").unwrap()), (300, 150));
        assert!(profile.of("parts::replay::sim").is_err());
        assert!(Profile::parse("fn=(9)\n").is_err());
    }
}

//! The commands as they are typed.

use super::*;
use crate::audit::ledger::checkpoint::Signer;
use crate::audit::ledger::medium::Disk;
use crate::audit::ledger::{Behind, Ledger, Settings, Urgency, anchor, frame, prove, segment};
use crate::time::Clock;
use clap::Parser;
use std::sync::Arc;
use tempfile::TempDir;

#[derive(Debug, Parser)]
pub(super) struct Line {
    #[command(flatten)]
    pub(super) arguments: Arguments,
}

pub(super) fn said(arguments: &[&str]) -> (Outcome, String, String) {
    let line = Line::try_parse_from([&["audit"], arguments].concat()).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = run(&line.arguments, &mut out, &mut err);
    (outcome, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// A folder with a key of its own, a log of three records, and their anchor.
fn log() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (outcome, public, _) = said(&["key", "--new", &at("audit.key"), "--name", "audit.contoso.example"]);
    assert_eq!(outcome, Outcome::Done);
    std::fs::write(at("audit.pub"), public).unwrap();
    std::fs::create_dir(at("log")).unwrap();
    let signer = Signer::read(&folder.path().join("audit.key")).unwrap();
    let anchors: Vec<Box<dyn anchor::Anchor>> =
        vec![Box::new(anchor::FileAnchor::open(&folder.path().join("anchor")).unwrap())];
    let behind = Behind { anchors, ..Behind::default() };
    let settings = Settings::new(folder.path().join("log")).with_segments_of(1 << 20);
    let (ledger, _) = Ledger::open(settings, Arc::new(Disk), Clock::system(), signer, behind).unwrap();
    for id in ["a.1", "a.2", "a.3"] {
        let mut frames = Vec::new();
        assert!(frame::push(&mut frames, format!(r#"{{"event":"begin","id":"{id}"}}"#).as_bytes()));
        ledger.append(&frames, Urgency::Normal).unwrap();
    }
    ledger.close();
    folder
}

#[test]
fn a_key_is_made_once_is_private_and_has_a_public_half() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k").display().to_string();
    let (_, public, _) = said(&["key", "--new", &path, "--name", "audit.contoso.example"]);
    assert!(public.starts_with("audit.contoso.example+"), "{public}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(said(&["key", "--of", &path]).1, public);
    let (outcome, _, err) = said(&["key", "--new", &path, "--name", "other"]);
    assert!(outcome == Outcome::Failed && err.contains("cannot write"), "{err}");
    let (outcome, _, err) = said(&["key", "--new", &format!("{path}2"), "--name", "a b"]);
    assert!(outcome == Outcome::Failed && err.contains("neither blanks nor"), "{err}");
    for wrong in [&["audit", "key"][..], &["audit", "key", "--new", "x"], &["audit", "key", "--name", "x"]] {
        assert!(Line::try_parse_from(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_verdict_is_one_line_and_an_exit_code() {
    let folder = log();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (log, public, anchor) = (at("log"), at("audit.pub"), at("anchor"));
    let verify = |more: &[&str]| said(&[&["verify", &log, "--public", &public], more].concat());
    let (outcome, out, _) = verify(&["--anchor", &anchor]);
    assert_eq!((outcome, out.as_str()), (Outcome::Done, "proved: records 0 to 2\n"));
    let (outcome, out, _) = verify(&[]);
    assert_eq!(outcome, Outcome::NotProved);
    assert!(out.starts_with("sound, and NOT proved"), "{out}");
    let (_, out, _) = verify(&["--anchor", &anchor, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["proved"], &json["anchored_before"]), (&true.into(), &3.into()));
    let path = segment::path(&folder.path().join("log"), 1);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, String::from_utf8_lossy(&bytes).replace("a.2", "a.7").as_bytes()).unwrap();
    let (outcome, out, _) = verify(&["--anchor", &anchor]);
    assert_eq!(outcome, Outcome::Failed);
    assert!(out.starts_with("NOT SOUND: "), "{out}");
    let (outcome, _, err) = said(&["verify", &at("nothing"), "--public", &public]);
    assert!(outcome == Outcome::Failed && err.contains("holds no log"), "{err}");
    let (outcome, _, err) = said(&["verify", &log, "--public", &at("audit.key")]);
    assert!(outcome == Outcome::Failed && err.contains("is not a public key"), "{err}");
}

#[test]
fn a_proof_checks_with_the_public_key_and_the_record_alone() {
    let folder = log();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (log, public, proof) = (at("log"), at("audit.pub"), at("proof"));
    let (outcome, out, err) = said(&["prove", &log, "--public", &public, "--event", "a.2", "--out", &proof]);
    assert!(outcome == Outcome::Done && out.starts_with("record 1: "), "{out}{err}");
    let key = PublicKey::parse(std::fs::read_to_string(&public).unwrap().trim()).unwrap();
    let text = std::fs::read_to_string(&proof).unwrap();
    let record = std::fs::read(at("proof.record")).unwrap();
    assert_eq!(prove::check(&text, &record, &key), Some(1));
    assert_eq!(prove::check(&text, b"another", &key), None);
    let (outcome, out, _) = said(&["prove", &log, "--public", &public, "--record", "2", "--out", &proof]);
    assert!(outcome == Outcome::Done && out.starts_with("record 2: "), "{out}");
    for (argument, value) in [("--event", "a.9"), ("--record", "3")] {
        let (outcome, _, err) = said(&["prove", &log, "--public", &public, argument, value, "--out", &proof]);
        assert!(outcome == Outcome::Failed && err.contains("has no record of"), "{err}");
    }
}

/// Every order of these.
fn orders<'a>(parts: &[&'a [&'a str]]) -> Vec<Vec<&'a str>> {
    if parts.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for first in 0..parts.len() {
        let rest: Vec<_> = parts.iter().enumerate().filter(|(n, _)| *n != first).map(|(_, part)| *part).collect();
        all.extend(orders(&rest).into_iter().map(|rest| [parts[first], &rest].concat()));
    }
    all
}

/// A command, its words in their order, and its options, each with its value.
type Typed = (&'static str, &'static [&'static str], &'static [&'static [&'static str]]);

#[test]
fn options_stand_anywhere_among_the_words() {
    let parsed = |line: &[&str]| Line::try_parse_from(line).map(|line| format!("{line:?}"));
    let commands: [Typed; 9] = [
        ("session", &["log", "id"], &[&["--json"], &["--config", "c"], &["--unseal"]]),
        ("session", &["id"], &[&["--config=c"], &["--width", "80"]]),
        ("session", &["log", "id"], &[&["--sealing-folder", "f"], &["--sealing-key", "k"], &["--json"]]),
        ("search", &["log"], &[&["--who", "w"], &["--rows-over", "5"], &["--csv"], &["--since", "2026-11-01"]]),
        ("tail", &["log"], &[&["-n", "5"], &["-f"], &["--json"], &["--event", "refused"]]),
        ("verify", &["log"], &[&["--public", "p"], &["--anchor", "a"], &["--witness", "w"], &["--json"]]),
        ("prove", &["log"], &[&["--public", "p"], &["--event", "e"], &["--out", "o"]]),
        ("erase", &[], &[&["--config", "c"], &["--object-id", "o"], &["--before", "2026-11-01"], &["--json"]]),
        ("search", &[], &[&["--config", "c"], &["--unseal"], &["--text", "x"]]),
    ];
    for (command, words, options) in commands {
        let first = [&["audit", command], words, &options.concat()].concat();
        let expected = parsed(&first).unwrap_or_else(|error| panic!("{first:?}: {error}"));
        let split: Vec<&[&str]> = words.iter().map(std::slice::from_ref).collect();
        let mut tried = 0;
        for order in orders(&[&split, options].concat()) {
            // Folder and id are told apart by their order alone.
            let at = |word: &str| order.iter().position(|other| *other == word);
            if words.len() == 2 && at("id") < at("log") {
                continue;
            }
            let line = [&["audit", command], &order[..]].concat();
            assert_eq!(parsed(&line).unwrap_or_else(|error| panic!("{line:?}: {error}")), expected, "{line:?}");
            tried += 1;
        }
        assert!(tried >= 6, "{command}: {tried} orders");
    }
    for wrong in [&["session"][..], &["session", "id"], &["session", "log", "id", "more"], &["search"], &["tail"]] {
        let refused = Line::try_parse_from([&["audit"], wrong].concat()).expect_err("not enough, or too much");
        assert_eq!(refused.exit_code(), 2, "{wrong:?}");
    }
}

//! `audit verify`: one line, and an exit code.

use super::{Error, Log, read};
use crate::audit::ledger::verify::{Report, verify_with};
use crate::audit::ledger::witness::WitnessKey;
use crate::cli::Outcome;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `audit verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    log: Log,
    /// Checkpoints that were kept outside the log's folder; may be given several times
    #[arg(long = "anchor", value_name = "FILE")]
    anchors: Vec<PathBuf>,
    /// The public key of a witness that has cosigned this log's checkpoints (`NAME+HASH+DATA`, or a file with it); may be
    /// given several times
    #[arg(long = "witness", value_name = "FILE-or-KEY")]
    witnesses: Vec<String>,
    /// One JSON object on standard output, for scripts
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<Outcome, Error> {
    let witnesses = arguments.witnesses.iter().map(|key| witness(key)).collect::<Result<Vec<_>, _>>()?;
    let report = verify_with(&arguments.log.folder, &arguments.log.key()?, &arguments.anchors, &witnesses)?;
    if arguments.json {
        writeln!(out, "{}", as_json(&report))?;
    } else {
        writeln!(out, "{report}")?;
        for problem in report.problems.iter().skip(1) {
            writeln!(out, "  {problem}")?;
        }
        if let Some(deleted) = &report.deleted {
            writeln!(out, "  {deleted}")?;
        }
        if report.torn > 0 && report.problems.is_empty() {
            writeln!(out, "  behind the last record are {} bytes of a write that is not finished", report.torn)?;
        }
    }
    Ok(match &report {
        report if !report.problems.is_empty() => Outcome::Failed,
        report if report.is_proved() => Outcome::Done,
        _ => Outcome::NotProved,
    })
}

fn witness(key: &str) -> Result<WitnessKey, Error> {
    if let Ok(key) = WitnessKey::parse(key.trim()) {
        return Ok(key);
    }
    let path = Path::new(key);
    WitnessKey::parse(read(path)?.trim()).map_err(|source| Error::Key { of: path.to_owned(), source })
}

fn as_json(report: &Report) -> serde_json::Value {
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    json!({
        "verdict": report.to_string(),
        "sound": report.problems.is_empty(),
        "proved": report.is_proved(),
        "first_record": report.first,
        "next_record": report.records,
        "signed_before": report.signed,
        "anchored_before": report.anchored,
        "segments": report.segments,
        "deleted": report.deleted.as_ref().map(|deleted| json!({
            "first_record": 0,
            "last_record": deleted.before.saturating_sub(1),
            "said_by_record": deleted.record,
            "time": deleted.time.map(|time| time.to_string()),
        })),
        "torn_bytes": report.torn,
        "problems": problems,
    })
}

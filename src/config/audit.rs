//! `[audit]`: where records go, what signs them, and who gets copies.

use super::reader::{Field, Section};
use super::{AuditConfig, files, values};
use crate::audit::{LogConfig, Output};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The signing key where the file does not say, from the config's folder.
const DEFAULT_KEY: &str = "audit.key";
/// What stands for standard output.
const STANDARD_OUTPUT: &str = "-";
/// What a segment may have, in bytes: room for the longest write several times over, and not so much that little is ever
/// old enough to be deleted.
const SEGMENT_BYTES: RangeInclusive<u32> = 4 << 20..=1 << 30;

pub(super) fn audit(section: Section<'_>, config: &Path) -> Option<AuditConfig> {
    let field = section.required_field("folder");
    let folder = field.as_ref().and_then(|field| field.read(|value| files::log_folder(value, config)));
    if let (Some(field), Some(folder)) = (&field, &folder)
        && files::everyone_reads(folder)
    {
        field.warning(
            "can be read by every user of this machine, and has what people asked; mode 0700 or 0750 is enough",
        );
    }
    let inside = |path: &Path| folder.as_ref().is_some_and(|folder| path.starts_with(folder));
    let key = key(&section, config, inside);
    let jsonl = section.field("jsonl").and_then(|field| output(&field, config, inside));
    if let (Some(field), Some(Output::File(path))) = (section.field("jsonl"), &jsonl)
        && files::everyone_reads(path)
    {
        field.warning(
            "can be read by every user of this machine, and has what people asked; mode 0600 or 0640 is enough",
        );
    }
    let anchors = section.field("anchors").and_then(|field| field.some_entries()).unwrap_or_default();
    let anchors = anchors.iter().filter_map(|field| output(field, config, inside)).collect();
    let segment_bytes = section.optional("segment_bytes", values::integer(SEGMENT_BYTES));
    let budget = section.optional("unverified_refusals_per_minute", values::integer(1..=1_000_000));
    section.finish();
    let segment_bytes = segment_bytes.map_or(crate::audit::ledger::DEFAULT_SEGMENT_BYTES, u64::from);
    let log = LogConfig { folder: folder?, key: key?, segment_bytes, jsonl, anchors };
    Some(AuditConfig { log, unverified_refusals_per_minute: budget.unwrap_or(60) })
}

/// Whoever can write the log must not find there what signs it.
fn key(section: &Section<'_>, config: &Path, inside: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let Some(field) = section.field("key") else {
        let path = config.join(DEFAULT_KEY);
        let reason = files::signing_key(&path).err();
        return match reason {
            None => Some(path),
            Some(reason) => {
                section.report.problem(section.at, &section.path("key"), &reason);
                None
            }
        };
    };
    let path = field.read(|value| {
        let path = files::resolve(value, config)?;
        if inside(&path) {
            return Err("is inside audit.folder: who takes the log would have its key too".to_owned());
        }
        files::signing_key(&path).map(|()| path)
    })?;
    if files::everyone_reads(&path) {
        field.warning("can be read by every user of this machine; mode 0600 or 0640 is enough");
    }
    Some(path)
}

/// `-`, or a file outside the log's folder.
fn output(field: &Field<'_>, config: &Path, inside: impl Fn(&Path) -> bool) -> Option<Output> {
    field.read(|value| {
        if values::text(value)? == STANDARD_OUTPUT {
            return Ok(Output::StandardOutput);
        }
        let path = files::log_file(value, config)?;
        if inside(&path) {
            return Err("is inside audit.folder, where only the log itself is".to_owned());
        }
        Ok(Output::File(path))
    })
}

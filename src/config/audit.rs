//! `[audit]`: where records go, what signs them, and who gets copies.

use super::reader::{Field, Section};
use super::{AuditConfig, files, values};
use crate::audit::ledger::witness::{WitnessConfig, WitnessKey};
use crate::audit::parameters::Key;
use crate::audit::sealing::SealingConfig;
use crate::audit::{Anchoring, DEFAULT_MAX_TEXT_BYTES, LogConfig, MAX_TEXT_BYTES_RANGE, Output, Recording};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The signing key where the file does not say, from the config's folder.
const DEFAULT_KEY: &str = "audit.key";
/// What stands for standard output.
const STANDARD_OUTPUT: &str = "-";
/// What a segment may have, in bytes: room for the longest write several times over, and not so much that little is ever
/// old enough to be deleted.
const SEGMENT_BYTES: RangeInclusive<u32> = 4 << 20..=1 << 30;

/// How long records can be kept: at least a day.
const KEEP: RangeInclusive<Duration> = Duration::from_secs(24 * 3600)..=Duration::from_secs(36_500 * 24 * 3600);

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
    let anchors: Vec<Anchoring> = anchors.iter().filter_map(|field| anchor(field, config, inside)).collect();
    let keep = keep(&section);
    let segment_bytes = section.optional("segment_bytes", values::integer(SEGMENT_BYTES));
    let max_text_bytes = section.optional("max_text_bytes", values::integer(MAX_TEXT_BYTES_RANGE));
    let parameters_key = section.field("parameters_key").map(|field| parameters_key(&field, config, inside));
    let budget = section.optional("unverified_refusals_per_minute", values::integer(1..=1_000_000));
    let sealing = section.section("sealing").map(|section| sealing(section, config, inside));
    section.finish();
    let segment_bytes = segment_bytes.map_or(crate::audit::ledger::DEFAULT_SEGMENT_BYTES, u64::from);
    let log = LogConfig { folder: folder?, key: key?, segment_bytes, jsonl, anchors, keep };
    let sealing = sealing.map_or(Some(None), |sealing| sealing.map(Some))?;
    let parameters_key = parameters_key.map_or(Some(None), |key| key.map(|key| Some(Arc::new(key))))?;
    let recording = Recording { max_text_bytes: max_text_bytes.unwrap_or(DEFAULT_MAX_TEXT_BYTES), parameters_key };
    Some(AuditConfig { log, sealing, recording, unverified_refusals_per_minute: budget.unwrap_or(60) })
}

/// Nothing is ever deleted that no anchor covers: without one nothing would be, and the disk would be full one day.
fn keep(section: &Section<'_>) -> Option<Duration> {
    let field = section.field("keep")?;
    if section.field("anchors").is_none() {
        field.problem(
            "needs audit.anchors: records are deleted only once anchors have what covers them; leave it out to keep them for ever",
        );
    }
    field.read(values::duration(KEEP))
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

/// As the signing key: who takes the log must not be able to try values.
fn parameters_key(field: &Field<'_>, config: &Path, inside: impl Fn(&Path) -> bool) -> Option<Key> {
    field.read(|value| {
        let path = files::resolve(value, config)?;
        if inside(&path) {
            return Err("is inside audit.folder: who takes the log would have its key too".to_owned());
        }
        let key = files::parameters_key(&path)?;
        if files::everyone_reads(&path) {
            field.warning("can be read by every user of this machine; mode 0600 or 0640 is enough");
        }
        Ok(key)
    })
}

/// `[audit.sealing]`: apart from the log and from each other, or who takes one folder has all.
fn sealing(section: Section<'_>, config: &Path, inside: impl Fn(&Path) -> bool) -> Option<SealingConfig> {
    let reason = "is inside audit.folder: who takes the log would have its texts too";
    let apart = |path: PathBuf| if inside(&path) { Err(reason.to_owned()) } else { Ok(path) };
    let folder = section.required("folder", |value| apart(files::log_folder(value, config)?));
    let within = |path: &Path| folder.as_ref().is_some_and(|folder| path.starts_with(folder));
    let key = section.required("key", |value| {
        let path = apart(files::resolve(value, config)?)?;
        if within(&path) {
            return Err("is inside audit.sealing.folder: what wraps the keys is not kept with them".to_owned());
        }
        files::wrapping_key(&path).map(|()| path)
    });
    if let (Some(field), Some(path)) = (section.field("key"), &key)
        && files::everyone_reads(path)
    {
        field.warning("can be read by every user of this machine; mode 0600 or 0640 is enough");
    }
    section.finish();
    Some(SealingConfig { folder: folder?, key: key? })
}

/// A table is a witness.
fn anchor(field: &Field<'_>, config: &Path, inside: impl Fn(&Path) -> bool) -> Option<Anchoring> {
    if field.value.as_table().is_none() {
        return output(field, config, inside).map(Anchoring::Output);
    }
    let section = field.section()?;
    let url = section.required("witness", values::service_url);
    let parse = |line: &str| WitnessKey::parse(line).map_err(|error| error.to_string());
    let key = section.required("key", |value| parse(values::text(value)?));
    section.finish();
    Some(Anchoring::Witness(Box::new(WitnessConfig { url: url?, key: key? })))
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

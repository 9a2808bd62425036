//! `audit erase`: has the running proxy delete the keys with which a person's texts were sealed, and record it.

use crate::admin::{Answer, Erasure, Question};
use crate::cli::Outcome;
use crate::cli::operator;
use serde_json::json;
use std::io::Write;

/// Arguments of `audit erase`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: operator::Place,
    /// The person's object id (oid), which every record of theirs has
    #[arg(long, value_name = "OID")]
    object_id: String,
    /// The issuer, as the config calls it, where more than one has that id
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// The tenant, where more than one has that id
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only what was sealed on days before this one (YYYY-MM-DD, UTC) [default: everything]
    #[arg(long, value_name = "DAY")]
    before: Option<String>,
    /// One JSON object on standard output, for scripts
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write, err: &mut impl Write) -> Result<Outcome, super::Error> {
    let Arguments { place, object_id, issuer, tenant, before, json } = arguments;
    let (object_id, issuer) = (object_id.clone(), issuer.clone());
    let erasure = Erasure { object_id, issuer, tenant: tenant.clone(), before: before.clone() };
    let keys = match place.ask(&Question::TextsErase(erasure), err) {
        Ok(Answer::Erased { keys }) => keys,
        Ok(_) => return Ok(Outcome::Failed),
        Err(outcome) => return Ok(outcome),
    };
    if *json {
        writeln!(out, "{}", json!({ "erased_keys": keys }))?;
    } else {
        writeln!(out, "{keys} key(s) erased: the texts that they sealed cannot be read any more")?;
    }
    Ok(Outcome::Done)
}

//! `audit fields`: what a record can say.

use super::Error;
use crate::audit::schema;
use crate::cli::Outcome;
use std::io::Write;

/// Arguments of `audit fields`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// As JSON Schema (2020-12), for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<Outcome, Error> {
    if arguments.json {
        writeln!(out, "{:#}", schema::schema())?;
    } else {
        write!(out, "{}", schema::markdown())?;
    }
    Ok(Outcome::Done)
}

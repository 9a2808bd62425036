//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// What the parts of the hot path cost: times beside their budgets, and the instructions of a fixed replay.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// What of it; both, where nothing is said
    #[command(subcommand)]
    pub command: Option<What>,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Times of the parts, each beside its budget
    Times(Times),
    /// Instructions of the fixed replay, compared with those that are kept (needs valgrind)
    Instructions(Instructions),
}

/// Of times.
#[derive(Debug, Default, Args)]
pub struct Times {
    /// Only the parts whose names have this in them
    #[arg(long)]
    pub only: Option<String>,
    /// Exit with 1 where a budget does not hold
    #[arg(long)]
    pub check: bool,
}

/// Where the counts are kept.
pub const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/INSTRUCTIONS.toml");

/// Of instructions.
#[derive(Debug, Args)]
pub struct Instructions {
    /// Where they are kept
    #[arg(long, default_value = KEPT)]
    pub file: PathBuf,
    /// Keep these from now on
    #[arg(long)]
    pub write: bool,
    /// Exit with 1 where the whole has grown by more than 1 %, or is of another replay
    #[arg(long)]
    pub check: bool,
}

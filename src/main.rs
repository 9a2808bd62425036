//! The `pgpassport` binary: everything is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgpassport::cli::run(std::env::args_os())
}

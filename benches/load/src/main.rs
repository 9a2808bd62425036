//! `load`: clients that a bench orders about (`drive`), and a server without a database (`respond`).
//!
//! Each is a process with one thread. For benchmarks on loopback, not for use.

mod call;
mod client;
mod drive;
mod messages;
mod respond;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Clients that a bench orders about, and a server without a database
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry out orders, one line of JSON each, until standard input ends
    Drive,
    /// Take every password, and give every statement the answer of `SELECT 1`
    Respond {
        /// Where
        #[arg(long)]
        listen: SocketAddr,
        /// PEM
        #[arg(long)]
        certificate: PathBuf,
        /// PEM
        #[arg(long)]
        key: PathBuf,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.command {
        Command::Drive => drive::serve(&runtime),
        Command::Respond { listen, certificate, key } => runtime.block_on(respond::serve(listen, &certificate, &key)),
    }
}

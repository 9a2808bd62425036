//! `compare`: the same load through pgpassport and its peers, in alternating rounds, and what each of them cost.
//!
//! All reach one PostgreSQL through its own TLS listener, clients with TLS too. The simulated Entra and Google run in
//! a process of their own, the proxy as `pgpassport serve`. CPU comes from each process's own accounting.
//! Started by `benches/compare.sh`, which builds and installs what is needed.

mod accounting;
mod cells;
mod child;
mod cloud;
mod copy;
mod database;
mod driver;
mod idle;
mod instructions;
mod log_ins;
mod machine;
mod peers;
mod pgbench;
mod report;
mod rounds;
mod scale;
mod stage;
mod table;

use cells::{Cell, Size};
use clap::{Parser, Subcommand, ValueEnum};
use report::Report;
use stage::Stage;
use std::error::Error;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Whatever goes wrong ends the run.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The same load through pgpassport and its peers, in alternating rounds, and what each of them cost.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// One short round for each cell: to see that everything works
    #[arg(long)]
    quick: bool,
    /// Only these parts of the report
    #[arg(long, value_delimiter = ',', value_enum)]
    parts: Vec<Part>,
    /// Rounds for each cell (3; with --quick 1)
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds that each pgbench runs (3; with --quick 1)
    #[arg(long)]
    seconds: Option<u32>,
    /// Only these peers, by name
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Only the cells whose name contains one of these texts
    #[arg(long, value_delimiter = ',')]
    cells: Vec<String>,
    /// The list of peers
    #[arg(long, default_value = "benches/compare/peers.toml")]
    list: PathBuf,
    /// Folder of the built pgpassport and forwarder
    #[arg(long, default_value = "target/dist")]
    binaries: PathBuf,
    /// Where the rounds (JSON) and the report go
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
    /// Write the report to this file too
    #[arg(long)]
    record: Option<PathBuf>,
    /// How the binaries were built, for the report
    #[arg(long, default_value = "said by nobody")]
    profile: String,
    /// Count instructions in user space in place of time, by callgrind (needs valgrind)
    #[arg(long)]
    instructions: bool,
    /// What ends a peer
    #[arg(long, value_enum, default_value = "kill")]
    end_with: Signal,
    /// What was typed, for the report
    #[arg(long, default_value = "compare", hide = true)]
    typed: String,
    /// Measure nothing: start everything, say how each peer is reached, and wait for the end of standard input
    #[arg(long)]
    hold: bool,
}

/// A signal that ends a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Signal {
    /// At once
    Kill,
    /// In order: what is instrumented writes its counts
    Term,
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The cells of pgbench, COPY, log-ins and idle sessions, through every peer
    Cells,
    /// Log-ins of the proxy: warm, cold, thousands at once
    LogIns,
    /// What sessions, long statements, remembered statements and rules cost the proxy
    Scale,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The simulated Entra and Google, until standard input ends (started by the bench itself)
    #[command(hide = true)]
    Cloud,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Cloud) => cloud::serve(),
        None => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let size = Size::new(arguments.quick, arguments.rounds, arguments.seconds);
    let chosen = |name: &str| arguments.cells.is_empty() || arguments.cells.iter().any(|part| name.contains(part));
    let cells: Vec<Cell> = Cell::all().into_iter().filter(|cell| chosen(&cell.name())).collect();
    std::fs::create_dir_all(&arguments.output)?;
    let peers = peers::load(&arguments.list, &arguments.peers)?;
    let wrapper = if arguments.instructions { instructions::WRAPPER } else { "" };
    let signal = match arguments.end_with {
        Signal::Kill => "KILL",
        Signal::Term => "TERM",
    };
    let mut stage = Stage::set(peers, &arguments.binaries, wrapper, signal)?;
    if arguments.hold {
        return hold(&stage);
    }
    let began = machine::Moment::now();
    let rounds = if arguments.instructions {
        instructions::measure(&stage)?
    } else {
        measure(&mut stage, &cells, &size, arguments)?
    };
    let report = Report::new(&stage, &rounds, &size, arguments, &began)?;
    rounds::write(&arguments.output.join("rounds.json"), &report.facts, &rounds)?;
    let text = report.render();
    print!("\n{text}");
    std::fs::write(arguments.output.join("report.md"), &text)?;
    if let Some(record) = &arguments.record {
        std::fs::write(record, &text)?;
    }
    Ok(())
}

/// The chosen parts. Cells that are named leave the other parts out.
fn measure(stage: &mut Stage, cells: &[Cell], size: &Size, arguments: &Arguments) -> Result<Vec<rounds::Round>> {
    let all = arguments.parts.is_empty() && arguments.cells.is_empty();
    let chosen = |part: Part| all || arguments.parts.contains(&part);
    let mut rounds = Vec::new();
    if chosen(Part::Cells) || !arguments.cells.is_empty() {
        rounds.extend(rounds::run(stage, cells, size)?);
    }
    if chosen(Part::LogIns) {
        rounds.extend(log_ins::measure(stage, size)?);
    }
    if chosen(Part::Scale) {
        rounds.extend(scale::measure(stage, size)?);
    }
    Ok(rounds)
}

fn hold(stage: &Stage) -> Result<()> {
    for line in stage.connection_lines() {
        println!("{line}");
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

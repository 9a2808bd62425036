//! `parts`: what the parts of the hot path cost, one by one.

mod arguments;
mod times;

use arguments::{Arguments, Instructions, KEPT, Times, What};
use clap::Parser;
use parts::counts::{Counts, table};
use parts::{Result, callgrind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Some(What::Times(arguments)) => times(&arguments),
        Some(What::Instructions(arguments)) => instructions(&arguments),
        None => {
            times(&Times::default())?;
            println!();
            instructions(&Instructions { file: PathBuf::from(KEPT), write: false, check: false })
        }
    }
}

/// Where criterion and callgrind leave their files: `bench/parts` beside the folder of this program.
fn folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().and_then(Path::parent).ok_or("this program is nowhere")?.join("bench/parts"))
}

fn times(arguments: &Times) -> Result<ExitCode> {
    let report = times::measure(arguments, folder()?.join("criterion"))?;
    print!("\n{report}");
    Ok(exit_code(arguments.check && !report.holds()))
}

fn instructions(arguments: &Instructions) -> Result<ExitCode> {
    let (program, folder) = (std::env::current_exe()?.with_file_name("parts-replay"), folder()?);
    let (profile, told) = callgrind::count(&program, &folder)?;
    let now = Counts::of(&profile, serde_json::from_str(&told)?)?;
    print!("instructions a statement of the fixed replay:\n{}", table(&now));
    println!("  (by function: callgrind_annotate {})\n", folder.join("callgrind.out").display());
    let kept = || Counts::parse(&std::fs::read_to_string(&arguments.file)?);
    let before = kept();
    if arguments.write {
        std::fs::write(&arguments.file, now.to_string())?;
        println!("kept in {}", arguments.file.display());
    }
    let changes = match before {
        Ok(before) => now.since(&before),
        // There may have been none, or of another form.
        Err(_) if arguments.write => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(format!("{}: {error} (--write keeps these)", arguments.file.display()).into()),
    };
    print!("{changes}");
    Ok(exit_code(arguments.check && (changes.is_dearer() || changes.replay)))
}

fn exit_code(fails: bool) -> ExitCode {
    if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

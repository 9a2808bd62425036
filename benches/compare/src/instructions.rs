//! Instructions in user space for each transaction, counted by callgrind: the same on a busy machine as on a quiet one.
//!
//! A fixed number of statements is replayed twice, once short and once long; their difference has no log-in in it. The
//! kernel's work is not counted, and callgrind runs one thread at a time: what threads cost each other does not show.

use crate::Result;
use crate::child::output_of;
use crate::peers::Peer;
use crate::pgbench::Mode;
use crate::rounds::{Round, Values};
use crate::stage::Stage;
use std::process::Command;

/// What every peer's command is started by; `{folder}` is the peer's own.
pub(crate) const WRAPPER: &str = "valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file={folder}/callgrind";
/// Transactions before anything is counted, of the short replay, and of the long one.
const REPLAYS: [u32; 3] = [200, 500, 3_500];

/// How long a counter may take to answer, in seconds.
const PATIENCE: &str = "20";

/// Every mode through every peer, once: the counts of two runs differ by parts of a percent.
pub(crate) fn measure(stage: &Stage) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for mode in Mode::ALL {
        eprintln!("{} through each peer", mode.name());
        for peer in &stage.peers {
            if output_of(callgrind_control(peer).arg("--instr=on")).is_err() {
                eprintln!("  not through {}, which callgrind cannot reach (it has changed its user)", peer.entry.name);
                continue;
            }
            let [_, short, long] = REPLAYS.map(|transactions| replay(stage, peer, mode, transactions));
            let more = f64::from(REPLAYS[2] - REPLAYS[1]);
            let values = Values::from([("instructions", (long? - short?) / more)]);
            rounds.push(Round {
                cell: format!("{} x1", mode.name()),
                peer: peer.entry.name.clone(),
                number: 0,
                values,
            });
            output_of(callgrind_control(peer).arg("--instr=off"))?;
        }
    }
    Ok(rounds)
}

/// Instructions of one run of pgbench, log-in included.
fn replay(stage: &Stage, peer: &Peer, mode: Mode, transactions: u32) -> Result<f64> {
    let mut pgbench = stage.database.program("pgbench");
    pgbench.args(["-n", "-S", "--random-seed=1", "-c", "1", "-M", mode.name(), "-t", &transactions.to_string()]);
    stage.address(peer).tell(&mut pgbench);
    output_of(&mut pgbench)?;
    // A dump begins at nought again.
    output_of(callgrind_control(peer).arg("--dump"))?;
    let last = std::fs::read_dir(peer.folder())?.flatten().filter_map(|file| {
        let number: u32 = file.file_name().to_str()?.strip_prefix("callgrind.")?.parse().ok()?;
        Some((number, file.path()))
    });
    let (_, last) = last.max().ok_or("callgrind has written nothing")?;
    totals(&std::fs::read_to_string(last)?).ok_or_else(|| "callgrind has counted nothing".into())
}

/// It waits for ever for a process that it may not speak to.
fn callgrind_control(peer: &Peer) -> Command {
    let mut command = Command::new("timeout");
    command.args([PATIENCE, "callgrind_control", &peer.pid().to_string()]);
    command
}

/// `totals: 42639568` of callgrind's file.
fn totals(dump: &str) -> Option<f64> {
    dump.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(totals("events: Ir\nfn=(1) main\n1 5\n\ntotals: 42639568\n"), Some(42_639_568.0));
        assert_eq!(totals("events: Ir\n"), None);
    }
}

//! A caller who has logged in before, beside a log-in to PostgreSQL itself; one after another.

use super::measured;
use crate::Result;
use crate::cells::Size;
use crate::driver::Driver;
use crate::rounds::{DIRECT, Round, Values};
use crate::stage::Stage;
use crate::table::{Figures, Section, number};
use std::time::Duration;

/// Log-ins for a figure.
const COUNT: usize = 300;
/// In a quick run.
const FEW: usize = 40;
/// Log-ins before: keys, tokens, certificates and settings are there from then on.
const BEFORE: usize = 5;
/// After that, what is done late has been.
const SETTLE: Duration = Duration::from_millis(1200);
/// What a log-in may cost at most: milliseconds of CPU, and more than PostgreSQL's own takes.
const BOUNDS: (f64, f64) = (2.0, 3.0);
const CELL: &str = "warm";

pub(super) fn measure(stage: &Stage, size: &Size) -> Result<Vec<Round>> {
    eprintln!("log-ins: warm");
    let (mut driver, mut rounds) = (Driver::start(&stage.program("load"))?, Vec::new());
    let count = if size.quick { FEW } else { COUNT };
    for round in 0..size.rounds {
        let log_ins = driver.log_in(stage.direct().target(), count)?;
        let values = Values::from([("wall_ms", log_ins.p50_ms), ("wall_p99_ms", log_ins.p99_ms)]);
        rounds.push(Round { cell: CELL.to_owned(), peer: DIRECT.to_owned(), number: round, values });
        for peer in measured(stage).into_iter().filter_map(|place| stage.peers.get(place)) {
            let target = stage.address(peer).target();
            driver.log_in(target.clone(), BEFORE)?;
            std::thread::sleep(SETTLE);
            let before = peer.cpu()?;
            let log_ins = driver.log_in(target, count)?;
            std::thread::sleep(SETTLE);
            let cpu = peer.cpu()?.since(&before).counted().as_secs_f64() * 1e3 / f64::from(u32::try_from(count)?);
            let values = Values::from([("wall_ms", log_ins.p50_ms), ("wall_p99_ms", log_ins.p99_ms), ("cpu_ms", cpu)]);
            rounds.push(Round { cell: CELL.to_owned(), peer: peer.entry.name.clone(), number: round, values });
        }
    }
    Ok(rounds)
}

pub(super) fn section(rounds: &[Round]) -> Section {
    let (cpu, over) = BOUNDS;
    let head = ["through", "p50 ms", "over direct ms", "p99 ms", "over direct ms", "proxy CPU ms", "within"];
    let mut section = Section::new(
        "Log-ins, warm: from connect to ReadyForQuery",
        &head,
        &format!(
            "The same caller again and again, one log-in after another, every TLS handshake in full; PostgreSQL behind all. \
             Bounds: {cpu} ms of CPU, and {over} ms more than a direct TLS log-in (median)."
        ),
    );
    let direct = Figures { rounds, peer: DIRECT };
    for peer in names(rounds) {
        let figures = Figures { rounds, peer };
        let of = |figure: &str| figures.of(CELL, figure);
        let over_direct = |figure: &str| of(figure).zip(direct.of(CELL, figure)).map(|(all, direct)| all - direct);
        let within = of("cpu_ms").zip(over_direct("wall_ms")).map(|(used, more)| used <= cpu && more <= over);
        section.lines.push(vec![
            peer.to_owned(),
            number(of("wall_ms"), 2),
            number(over_direct("wall_ms"), 2),
            number(of("wall_p99_ms"), 2),
            number(over_direct("wall_p99_ms"), 2),
            number(of("cpu_ms"), 2),
            within.map_or("-", |within| if within { "yes" } else { "no" }).to_owned(),
        ]);
    }
    section
}

/// Who was measured, in the order of the rounds.
fn names(rounds: &[Round]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for round in rounds.iter().filter(|round| round.cell == CELL) {
        if !names.contains(&round.peer.as_str()) {
            names.push(&round.peer);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_bounds_is_not_within() {
        let round = |peer: &str, wall_ms, cpu_ms: Option<f64>| Round {
            cell: CELL.to_owned(),
            peer: peer.to_owned(),
            number: 0,
            values: [("wall_ms", wall_ms)].into_iter().chain(cpu_ms.map(|cpu| ("cpu_ms", cpu))).collect(),
        };
        let rounds = [
            round(DIRECT, 2.0, None),
            round("us", 5.0, Some(2.0)),
            round("slow", 5.1, Some(1.0)),
            round("dear", 3.0, Some(2.1)),
        ];
        let lines = section(&rounds).lines;
        let of = |name: &str| lines.iter().find(|line| line[0] == name).unwrap().clone();
        assert_eq!(of("us"), ["us", "5.00", "3.00", "-", "-", "2.00", "yes"]);
        assert_eq!([of("slow")[6].as_str(), of("dear")[6].as_str(), of(DIRECT)[6].as_str()], ["no", "no", "-"]);
    }
}

//! From one statement that a session remembers to a hundred thousand.

use super::{Differs, Ground, RESPONDER, SETTLE};
use crate::Result;
use crate::rounds::Round;
use crate::table::{Figures, Section, short};
use load::Work;

/// Remembered statements.
const STEPS: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];

/// Statements are added step by step; each round is a session of its own.
pub(super) fn measure(ground: &mut Ground<'_>, count: u32) -> Result<Vec<Round>> {
    let peer = ground.proxy(&Differs { name: "remembered", backend: RESPONDER, all_processors: false, rules: 0 })?;
    let target = ground.stage.address(&peer).target();
    let mut rounds = Vec::new();
    for round in 0..count {
        ground.driver.open(target.clone(), 1)?;
        let mut there = 0;
        for remembered in STEPS {
            let before = peer.cpu()?;
            ground.driver.prepare(there, remembered)?;
            std::thread::sleep(SETTLE);
            let parsed = f64::from(u32::try_from(remembered - there)?);
            let parse = peer.cpu()?.since(&before).counted().as_secs_f64() * 1e6 / parsed;
            there = remembered;
            let (_, mut values) = ground.cost(&peer, 1, Work::Execute { remembered })?;
            // Of a few the rest of the second would be counted.
            if remembered >= 1_000 {
                values.insert("parse_us", parse);
            }
            rounds.push(Round { cell: cell(remembered), peer: RESPONDER.to_owned(), number: round, values });
        }
        ground.driver.end()?;
    }
    Ok(rounds)
}

pub(super) fn section(rounds: &[Round]) -> Section {
    let head = ["remembered", "µs an execution", "to the first", "µs a Parse", "to 1k's"];
    let mut section = Section::new(
        "Scale: proxy CPU by the statements that a session remembers (responder)",
        &head,
        "One session, one serving thread; Bind, Execute and Sync at a time, each of another statement; Parses are sent fifty \
         at a time. Behind it a protocol responder without PostgreSQL.",
    );
    let figures = Figures { rounds, peer: RESPONDER };
    for remembered in STEPS.into_iter().filter(|step| figures.of(&cell(*step), "cpu_us").is_some()) {
        let mut line = vec![short(remembered)];
        line.extend(figures.against(&cell(remembered), "cpu_us", (&cell(STEPS[0]), 1)));
        line.extend(figures.against(&cell(remembered), "parse_us", (&cell(STEPS[3]), 1)));
        section.lines.push(line);
    }
    section
}

fn cell(remembered: usize) -> String {
    format!("{remembered} remembered")
}

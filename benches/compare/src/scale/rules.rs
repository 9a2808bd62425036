//! From one policy rule to ten thousand, of which the last one decides.

use super::{Differs, Ground, RESPONDER, SETTLE};
use crate::Result;
use crate::peers::Peer;
use crate::rounds::{Round, Values};
use crate::table::{Figures, Section, number, short};
use load::Work;
use std::time::Instant;

/// Rules, the one that decides included.
const STEPS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// Log-ins for a figure.
const LOG_INS: usize = 200;
/// In a quick run.
const FEW: usize = 20;
/// Sessions, each with a statement under way.
const SESSIONS: usize = 8;

pub(super) fn measure(ground: &mut Ground<'_>, count: u32) -> Result<Vec<Round>> {
    let mut peers: Vec<(usize, Peer)> = Vec::new();
    for rules in STEPS {
        let name = format!("rules-{rules}");
        let differs = Differs { name: &name, backend: RESPONDER, all_processors: false, rules: rules - 1 };
        peers.push((rules, ground.proxy(&differs)?));
    }
    let mut rounds = Vec::new();
    for round in 0..count {
        for (rules, peer) in &mut peers {
            let began = Instant::now();
            peer.restart()?;
            let mut values = Values::from([("start_s", began.elapsed().as_secs_f64())]);
            values.extend(once(ground, peer)?);
            rounds.push(Round { cell: cell(*rules), peer: RESPONDER.to_owned(), number: round, values });
        }
    }
    Ok(rounds)
}

fn once(ground: &mut Ground<'_>, peer: &Peer) -> Result<Values> {
    let target = ground.stage.address(peer).target();
    let log_ins = if ground.quick { FEW } else { LOG_INS };
    // Keys, tokens and the instance's settings are there from then on.
    ground.driver.log_in(target.clone(), SESSIONS)?;
    std::thread::sleep(SETTLE);
    let before = peer.cpu()?;
    let done = ground.driver.log_in(target.clone(), log_ins)?;
    std::thread::sleep(SETTLE);
    let used = peer.cpu()?.since(&before).counted().as_secs_f64() * 1e3;
    let log_in = used / f64::from(u32::try_from(log_ins)?);
    ground.driver.open(target, SESSIONS)?;
    let (_, mut values) = ground.cost(peer, SESSIONS, Work::Query { bytes: 100 })?;
    ground.driver.end()?;
    values.extend([("cpu_ms_log_in", log_in), ("log_in_p50_ms", done.p50_ms)]);
    Ok(values)
}

pub(super) fn section(rounds: &[Round]) -> Section {
    let head =
        ["rules", "µs a statement", "to the first", "CPU ms a log-in", "to the first", "log-in p50 ms", "start s"];
    let mut section = Section::new(
        "Scale: proxy CPU by the rules of the policy (responder)",
        &head,
        &format!(
            "So many rules for the caller's database, of which the last one decides; one serving thread, {SESSIONS} sessions with \
             a statement each; log-ins one after another. Behind it a protocol responder without PostgreSQL. The start is \
             that of the process, until it listens."
        ),
    );
    let figures = Figures { rounds, peer: RESPONDER };
    let first = cell(STEPS[0]);
    for rules in STEPS.into_iter().filter(|rules| figures.of(&cell(*rules), "cpu_us").is_some()) {
        let cell = cell(rules);
        let mut line = vec![short(rules)];
        line.extend(figures.against(&cell, "cpu_us", (&first, 1)));
        line.extend(figures.against(&cell, "cpu_ms_log_in", (&first, 2)));
        line.push(number(figures.of(&cell, "log_in_p50_ms"), 2));
        line.push(number(figures.of(&cell, "start_s"), 2));
        section.lines.push(line);
    }
    section
}

fn cell(rules: usize) -> String {
    format!("{rules} rules")
}

//! Thousands of log-ins that all begin at once, in front of a responder without a database.

use crate::Result;
use crate::cloud::Order;
use crate::rounds::{Round, Values};
use crate::scale::{Differs, Ground, POSTGRESQL, RESPONDER};
use crate::stage::Stage;
use crate::table::{Figures, Section, number};

/// Log-ins at once, and in front of PostgreSQL.
const COUNT: usize = 5_000;
const COUNT_OF_POSTGRESQL: usize = 300;
/// By when all must be served, in seconds.
const BOUND: f64 = 30.0;

/// A user name and an access token each.
pub(super) type Callers = Vec<(String, String)>;

/// Who comes.
const ONE: &str = "one caller, seen before";
const MANY: &str = "as many callers, never seen before";

/// As many callers as a storm has, whom nobody has seen before.
pub(super) fn callers(stage: &mut Stage) -> Result<Callers> {
    Ok(stage.cloud.order(Order::Callers { count: COUNT })?.callers)
}

pub(super) fn measure(ground: &mut Ground<'_>, callers: &Callers, count: u32) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for (backend, number, who) in
        [(POSTGRESQL, COUNT_OF_POSTGRESQL, ONE), (RESPONDER, COUNT, ONE), (RESPONDER, COUNT, MANY)]
    {
        eprintln!("log-ins: {number} at once, {who}, {backend}");
        let name = format!("storm-{number}-{}", if who == ONE { "one" } else { "many" });
        let mut peer = ground.proxy(&Differs { name: &name, backend, all_processors: true, rules: 0 })?;
        for round in 0..count {
            peer.restart()?;
            let mut target = ground.stage.address(&peer).target();
            if who == ONE {
                ground.driver.log_in(target.clone(), 1)?;
            } else {
                target.callers.clone_from(callers);
            }
            let before = peer.cpu()?;
            let done = ground.driver.storm(target, number)?;
            let used = peer.cpu()?.since(&before).counted().as_secs_f64() * 1e3;
            ground.driver.end()?;
            if let Some(why) = &done.failure {
                eprintln!("  {} of {number} failed, one of them: {why}", done.failed);
            }
            let figure = |count: usize| u32::try_from(count).map(f64::from);
            let values = Values::from([
                ("served", figure(done.served)?),
                ("failed", figure(done.failed)?),
                ("seconds", done.seconds),
                ("p50_ms", done.p50_ms),
                ("p99_ms", done.p99_ms),
                ("cpu_ms_log_in", used / figure(number)?),
            ]);
            rounds.push(Round { cell: cell(number, who), peer: backend.to_owned(), number: round, values });
        }
    }
    Ok(rounds)
}

pub(super) fn section(rounds: &[Round]) -> Section {
    let head = ["at once", "behind", "served", "failed", "seconds", "p50 ms", "p99 ms", "CPU ms each", "within"];
    let mut section = Section::new(
        "Log-ins: all at once",
        &head,
        &format!(
            "As many serving threads as processors, which clients, simulators and what is behind share; `[limits]` raised. The \
             responder is a protocol responder without PostgreSQL. Bound: all are served within {BOUND} s."
        ),
    );
    for (backend, count, who) in
        [(POSTGRESQL, COUNT_OF_POSTGRESQL, ONE), (RESPONDER, COUNT, ONE), (RESPONDER, COUNT, MANY)]
    {
        let (figures, cell) = (Figures { rounds, peer: backend }, cell(count, who));
        let Some((failed, seconds)) = figures.of(&cell, "failed").zip(figures.of(&cell, "seconds")) else { continue };
        let mut line = vec![cell.clone(), backend.to_owned()];
        for (figure, decimals) in
            [("served", 0), ("failed", 0), ("seconds", 1), ("p50_ms", 0), ("p99_ms", 0), ("cpu_ms_log_in", 2)]
        {
            line.push(number(figures.of(&cell, figure), decimals));
        }
        line.push(if failed < 0.5 && seconds <= BOUND { "yes" } else { "no" }.to_owned());
        section.lines.push(line);
    }
    section
}

fn cell(count: usize, who: &str) -> String {
    format!("{count}: {who}")
}

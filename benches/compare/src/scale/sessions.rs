//! From one session to thousands: one statement at a time, and as many at a time as there are statements in flight on a
//! busy proxy; the next statement is always of the session that has waited longest.

use super::{Differs, Ground, POSTGRESQL, RESPONDER};
use crate::Result;
use crate::rounds::Round;
use crate::table::{Figures, Section, short};
use load::Work;

/// Sessions.
const STEPS: [usize; 6] = [1, 10, 100, 300, 1_000, 5_000];
/// PostgreSQL has no more here.
const MOST_OF_POSTGRESQL: usize = 300;
/// Statements that are under way at once.
const IN_FLIGHT: [usize; 2] = [1, 64];
/// Of each statement's text.
const BYTES: usize = 100;

/// Sessions are added step by step; each round begins with none.
pub(super) fn measure(ground: &mut Ground<'_>, number: u32) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for backend in [POSTGRESQL, RESPONDER] {
        let name = format!("sessions-{}", backend.to_lowercase());
        let peer = ground.proxy(&Differs { name: &name, backend, all_processors: false, rules: 0 })?;
        let target = ground.stage.address(&peer).target();
        for round in 0..number {
            let mut there = 0;
            for sessions in STEPS.into_iter().filter(|sessions| backend == RESPONDER || *sessions <= MOST_OF_POSTGRESQL)
            {
                ground.driver.open(target.clone(), sessions - there)?;
                there = sessions;
                for in_flight in IN_FLIGHT.into_iter().filter(|in_flight| *in_flight <= sessions) {
                    let (_, values) = ground.cost(&peer, in_flight, Work::Query { bytes: BYTES })?;
                    let (cell, peer) = (cell(sessions, in_flight), backend.to_owned());
                    rounds.push(Round { cell, peer, number: round, values });
                }
            }
            ground.driver.end()?;
        }
    }
    Ok(rounds)
}

pub(super) fn section(rounds: &[Round]) -> Section {
    let head = ["sessions, at a time", POSTGRESQL, "to the first", RESPONDER, "to the first", "p99 µs"];
    let mut section = Section::new(
        "Scale: proxy CPU microseconds per statement, by sessions",
        &head,
        &format!(
            "One serving thread; statements of {BYTES} bytes, so many at a time, in turn over all sessions. The responder is a \
             protocol responder without PostgreSQL. A ratio is to the first row with as many at a time; p99 is of the \
             latency in front of the responder."
        ),
    );
    let (postgresql, responder) = (Figures { rounds, peer: POSTGRESQL }, Figures { rounds, peer: RESPONDER });
    for in_flight in IN_FLIGHT {
        let mut steps = STEPS.into_iter().filter(|sessions| *sessions >= in_flight).peekable();
        let first = cell(steps.peek().copied().unwrap_or_default(), in_flight);
        for sessions in steps {
            let cell = cell(sessions, in_flight);
            if responder.of(&cell, "cpu_us").is_none() {
                continue;
            }
            let mut line = vec![format!("{}, {in_flight}", short(sessions))];
            line.extend(postgresql.against(&cell, "cpu_us", (&first, 1)));
            line.extend(responder.against(&cell, "cpu_us", (&first, 1)));
            line.push(crate::table::number(responder.of(&cell, "p99_us"), 0));
            section.lines.push(line);
        }
    }
    section
}

fn cell(sessions: usize, in_flight: usize) -> String {
    format!("sessions {sessions}, {in_flight} at a time")
}

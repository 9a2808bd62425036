//! From one session to thousands: one statement at a time, and as many at a time as there are statements in flight on a
//! busy proxy; the next statement is always of the session that has waited longest.

use super::{Differs, FORWARDER, Ground, POSTGRESQL, RESPONDER};
use crate::Result;
use crate::peers::Peer;
use crate::rounds::{Round, Values};
use crate::table::{Figures, Section, number, short};
use load::Work;

/// Sessions.
const STEPS: [usize; 6] = [1, 10, 100, 300, 1_000, 5_000];
/// PostgreSQL has no more here.
const MOST_OF_POSTGRESQL: usize = 300;
/// Statements that are under way at once.
const IN_FLIGHT: [usize; 2] = [1, 64];
/// Of each statement's text.
const BYTES: usize = 100;

/// Each round begins without a session.
pub(super) fn measure(ground: &mut Ground<'_>, number: u32) -> Result<Vec<Round>> {
    let mut peers = Vec::new();
    for backend in [POSTGRESQL, RESPONDER] {
        let name = format!("sessions-{}", backend.to_lowercase());
        peers.push((backend, ground.proxy(&Differs { name: &name, backend, all_processors: false, rules: 0 })?));
    }
    peers.extend(ground.forwarder()?.map(|forwarder| (FORWARDER, forwarder)));
    let mut rounds = Vec::new();
    for round in 0..number {
        for (name, peer) in &peers {
            for (cell, values) in steps(ground, name, peer)? {
                rounds.push(Round { cell, peer: (*name).to_owned(), number: round, values });
            }
        }
    }
    Ok(rounds)
}

/// Sessions are added step by step.
fn steps(ground: &mut Ground<'_>, name: &str, peer: &Peer) -> Result<Vec<(String, Values)>> {
    let (target, mut there, mut cells) = (ground.stage.address(peer).target(), 0, Vec::new());
    for sessions in STEPS.into_iter().filter(|sessions| name != POSTGRESQL || *sessions <= MOST_OF_POSTGRESQL) {
        ground.driver.open(target.clone(), sessions - there)?;
        there = sessions;
        for in_flight in IN_FLIGHT.into_iter().filter(|in_flight| *in_flight <= sessions) {
            let (_, values) = ground.cost(peer, in_flight, Work::Query { bytes: BYTES })?;
            cells.push((cell(sessions, in_flight), values));
        }
    }
    ground.driver.end()?;
    Ok(cells)
}

pub(super) fn section(rounds: &[Round]) -> Section {
    let head = [
        "sessions, at a time",
        POSTGRESQL,
        "to the first",
        RESPONDER,
        "to the first",
        "p99 µs",
        FORWARDER,
        "to the first",
    ];
    let mut section = Section::new(
        "Scale: proxy CPU microseconds per statement, by sessions",
        &head,
        &format!(
            "One serving thread; statements of {BYTES} bytes, so many at a time, in turn over all sessions. The responder is a \
             protocol responder without PostgreSQL. A ratio is to the first row with as many at a time; p99 is of the \
             latency in front of the responder. Beside it a bare forwarder in front of the responder: what becomes dearer \
             there, too, is the machine's doing (more memory than its caches have), not the proxy's."
        ),
    );
    let figures = [POSTGRESQL, RESPONDER, FORWARDER].map(|peer| Figures { rounds, peer });
    for in_flight in IN_FLIGHT {
        let mut steps = STEPS.into_iter().filter(|sessions| *sessions >= in_flight).peekable();
        let first = cell(steps.peek().copied().unwrap_or_default(), in_flight);
        for sessions in steps {
            let cell = cell(sessions, in_flight);
            let [postgresql, responder, forwarder] =
                figures.map(|figures| figures.against(&cell, "cpu_us", (&first, 1)));
            let p99 = figures.iter().find(|figures| figures.peer == RESPONDER).and_then(|f| f.of(&cell, "p99_us"));
            if p99.is_none() {
                continue;
            }
            let mut line = vec![format!("{}, {in_flight}", short(sessions))];
            line.extend(postgresql);
            line.extend(responder);
            line.push(number(p99, 0));
            line.extend(forwarder);
            section.lines.push(line);
        }
    }
    section
}

fn cell(sessions: usize, in_flight: usize) -> String {
    format!("sessions {sessions}, {in_flight} at a time")
}

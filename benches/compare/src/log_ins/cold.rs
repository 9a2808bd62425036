//! The first log-in of a process, and the first one of a caller: what they add to the calls that they make.
//!
//! The services are simulated and answer as late as they are told. What the same log-in takes longer when each answer
//! comes later by a known time says how many calls it waits for one after another. What a call takes that comes as late is
//! measured by a bare client: on a connection of its own, as a process's first calls are made, and on one that is there.

use super::measured;
use crate::Result;
use crate::cells::Size;
use crate::cloud::Order;
use crate::driver::Driver;
use crate::rounds::{Round, Values};
use crate::stage::Stage;
use crate::table::{Figures, Section, number};
use std::time::Duration;

/// How late each service answers, in milliseconds, besides not at all: about as late as the real ones.
const LATE: u64 = 100;
/// As many calls are made to know what one takes.
const CALLS: usize = 4;
/// After that, a process that listens has fetched what it fetches without being asked: the issuers' keys.
const STARTED: Duration = Duration::from_millis(500);

/// Who has not been seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    OfTheProcess,
    OfACaller,
}

impl First {
    const ALL: [Self; 2] = [Self::OfTheProcess, Self::OfACaller];

    fn name(self) -> &'static str {
        match self {
            Self::OfTheProcess => "of the process",
            Self::OfACaller => "of a caller",
        }
    }
}

pub(super) fn measure(stage: &mut Stage, size: &Size) -> Result<Vec<Round>> {
    eprintln!("log-ins: cold");
    let (mut driver, mut rounds) = (Driver::start(&stage.program("load"))?, Vec::new());
    for round in 0..size.rounds {
        for place in measured(stage) {
            for first in First::ALL {
                let quick = once(stage, &mut driver, (place, first), 0)?;
                let late = once(stage, &mut driver, (place, first), LATE)?;
                let peer = stage.peers.get(place).ok_or("no such peer")?;
                let warm = driver.log_in(stage.address(peer).target(), 5)?.p50_ms;
                let values = Values::from([
                    ("quick_ms", quick.ms),
                    ("late_ms", late.ms),
                    ("calls", late.calls),
                    ("call_ms", late.call_ms),
                    ("warm_ms", warm),
                ]);
                let name = peer.entry.name.clone();
                rounds.push(Round { cell: first.name().to_owned(), peer: name, number: round, values });
            }
        }
    }
    Ok(rounds)
}

/// One log-in.
struct Once {
    ms: f64,
    /// That it made.
    calls: f64,
    /// What one of them takes, milliseconds.
    call_ms: f64,
}

fn once(stage: &mut Stage, driver: &mut Driver, (place, first): (usize, First), late: u64) -> Result<Once> {
    let peer = stage.peers.get_mut(place).ok_or("no such peer")?;
    if first == First::OfTheProcess {
        peer.restart()?;
        std::thread::sleep(STARTED);
    }
    let peer = stage.peers.get(place).ok_or("no such peer")?;
    let mut target = stage.address(peer).target();
    if first == First::OfACaller {
        driver.log_in(target.clone(), 1)?;
        // The database lets in the one who is known to it: another token of the same caller.
        target.callers = stage.cloud.order(Order::Tokens { count: 1 })?.callers;
    }
    stage.cloud.order(Order::Delay { ms: late })?;
    stage.cloud.order(Order::Calls)?;
    let ca = target.ca.clone();
    let done = driver.log_in(target, 1);
    let calls = stage.cloud.order(Order::Calls);
    let called = driver.call(&stage.cloud.facts.discovery, &ca, CALLS);
    stage.cloud.order(Order::Delay { ms: 0 })?;
    let (connected, next) = called?;
    let call_ms = if first == First::OfTheProcess { connected } else { next };
    Ok(Once { ms: done?.p50_ms, calls: f64::from(calls?.calls), call_ms })
}

pub(super) fn section(rounds: &[Round]) -> Section {
    let late = f64::from(u32::try_from(LATE).unwrap_or_default());
    let (at_late, added) = (format!("{LATE} ms each: wall ms"), "more than calls and warm, ms");
    let head = [
        "the first log-in",
        "calls",
        "one after another",
        "0 ms each: wall ms",
        &at_late,
        "a call, ms",
        "the calls, ms",
        "warm, ms",
        added,
    ];
    let mut section = Section::new(
        "Log-ins, cold: beside the remote calls that they make",
        &head,
        "Keys of issuers are fetched as the process starts, and not counted. Calls that are made at the same time are waited \
         for together: `one after another` is what the log-in takes longer when each answer comes later, in answers. `a call` \
         is what a bare client measures that calls the same simulators, as late: of the process, with a connection of its \
         own; of a caller, on one that is there. Bound: no more than the calls themselves and a warm log-in.",
    );
    for first in First::ALL {
        let mut peers: Vec<&str> = rounds.iter().filter(|r| r.cell == first.name()).map(|r| r.peer.as_str()).collect();
        peers.sort_unstable();
        peers.dedup();
        for peer in peers {
            let figures = Figures { rounds, peer };
            let of = |figure: &str| figures.of(first.name(), figure);
            let in_a_row = of("late_ms").zip(of("quick_ms")).map(|(slow, quick)| (slow - quick) / late);
            let calls = in_a_row.zip(of("call_ms")).map(|(in_a_row, call)| in_a_row.round() * call);
            let added = of("late_ms").zip(calls).zip(of("warm_ms")).map(|((all, calls), warm)| all - calls - warm);
            section.lines.push(vec![
                format!("{}, {peer}", first.name()),
                number(of("calls"), 0),
                number(in_a_row, 1),
                number(of("quick_ms"), 1),
                number(of("late_ms"), 1),
                number(of("call_ms"), 1),
                number(calls, 1),
                number(of("warm_ms"), 1),
                number(added, 1),
            ]);
        }
    }
    section
}

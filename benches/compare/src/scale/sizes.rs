//! From statements of ten bytes to statements of ten megabytes.

use super::{Differs, Ground, RESPONDER};
use crate::Result;
use crate::rounds::Round;
use crate::table::{Figures, Section, number, short};
use load::Work;
use std::fmt::Write as _;

/// Bytes of a statement's text.
const STEPS: [usize; 7] = [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

pub(super) fn measure(ground: &mut Ground<'_>, count: u32) -> Result<Vec<Round>> {
    let peer = ground.proxy(&Differs { name: "sizes", backend: RESPONDER, all_processors: false, rules: 0 })?;
    let target = ground.stage.address(&peer).target();
    ground.driver.open(target, 1)?;
    let mut rounds = Vec::new();
    for round in 0..count {
        for bytes in STEPS {
            let (_, mut values) = ground.cost(&peer, 1, Work::Query { bytes })?;
            let us = values.get("cpu_us").copied().unwrap_or_default();
            values.insert("cpu_ns_byte", us * 1e3 / f64::from(u32::try_from(bytes)?));
            rounds.push(Round { cell: cell(bytes), peer: RESPONDER.to_owned(), number: round, values });
        }
    }
    ground.driver.end()?;
    Ok(rounds)
}

pub(super) fn section(rounds: &[Round]) -> Section {
    let head = ["bytes", "µs a statement", "to the first", "ns a byte", "to 1k's"];
    let mut section = Section::new(
        "Scale: proxy CPU by the statement's length (responder)",
        &head,
        "One session, one Query at a time, one serving thread; behind it a protocol responder without PostgreSQL. Of a text \
         the first MiB is recorded, in parts; what is longer is hashed.",
    );
    let figures = Figures { rounds, peer: RESPONDER };
    let (first, kilobyte) = (cell(STEPS[0]), cell(STEPS[2]));
    for bytes in STEPS.into_iter().filter(|bytes| figures.of(&cell(*bytes), "cpu_us").is_some()) {
        let mut line = vec![short(bytes)];
        line.extend(figures.against(&cell(bytes), "cpu_us", (&first, 1)));
        line.extend(figures.against(&cell(bytes), "cpu_ns_byte", (&kilobyte, 2)));
        section.lines.push(line);
    }
    let growing = figures.of(&cell(STEPS[6]), "cpu_us").zip(figures.of(&first, "cpu_us"));
    let rate = growing.map(|(most, least)| (most - least) * 1e3 / 9_999_990.0);
    let _ = write!(section.note, " From 10 bytes to 10 MB each byte costs {} ns.", number(rate, 2));
    section
}

fn cell(bytes: usize) -> String {
    format!("statement of {bytes} bytes")
}

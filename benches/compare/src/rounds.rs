//! Rounds: every peer once, in an order that turns with each round, so that whatever else the machine does meets all
//! of them.

use crate::Result;
use crate::cells::{Cell, Size};
use crate::stage::Stage;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// The name of PostgreSQL itself, without a peer between.
pub(crate) const DIRECT: &str = "direct";

/// Figures by name; the name ends with the unit.
pub(crate) type Values = BTreeMap<&'static str, f64>;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub(crate) cell: String,
    pub(crate) peer: String,
    pub(crate) number: u32,
    pub(crate) values: Values,
}

/// Measures every cell.
pub(crate) fn run(stage: &mut Stage, cells: &[Cell], size: &Size) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        eprint!("{} of {}: {} ", number + 1, cells.len(), cell.name());
        for round in 0..size.rounds {
            for peer in turn(stage.peers.len(), round) {
                let entry = peer.and_then(|peer| stage.peers.get(peer)).map(|peer| &peer.entry);
                if entry.is_some_and(|entry| !entry.has(&cell.name())) {
                    continue;
                }
                rounds.push(once(stage, *cell, (peer, round), size)?);
                eprint!(".");
                std::io::stderr().flush()?;
            }
        }
        eprintln!();
    }
    Ok(rounds)
}

/// PostgreSQL itself and every peer once, beginning with another one each round.
fn turn(peers: usize, round: u32) -> Vec<Option<usize>> {
    let mut all: Vec<Option<usize>> = [None].into_iter().chain((0..peers).map(Some)).collect();
    let places = all.len();
    all.rotate_left(usize::try_from(round).unwrap_or(0) % places);
    all
}

fn once(stage: &mut Stage, cell: Cell, (peer, round): (Option<usize>, u32), size: &Size) -> Result<Round> {
    let name = |stage: &Stage| peer.and_then(|peer| stage.peers.get(peer)).map(|peer| peer.entry.name.clone());
    let name = name(stage).unwrap_or_else(|| DIRECT.to_owned());
    let values = cell.measure(stage, peer, size);
    let values = values.map_err(|error| format!("{} through {name}: {error}", cell.name()))?;
    Ok(Round { cell: cell.name(), peer: name, number: round, values })
}

/// The middle of a figure's rounds; `None` where it was not measured.
pub(crate) fn median(rounds: &[Round], cell: &str, peer: &str, figure: &str) -> Option<f64> {
    let of_cell = rounds.iter().filter(|round| round.cell == cell && round.peer == peer);
    let mut values: Vec<f64> = of_cell.filter_map(|round| round.values.get(figure).copied()).collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, *values.get(values.len() / 2 - 1)?))
}

/// Writes every round as JSON.
pub(crate) fn write(path: &Path, facts: &[(String, String)], rounds: &[Round]) -> Result<()> {
    let facts: BTreeMap<&String, &String> = facts.iter().map(|(name, value)| (name, value)).collect();
    let content = serde_json::json!({ "facts": facts, "rounds": rounds });
    Ok(std::fs::write(path, format!("{content:#}\n"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(values: &[f64]) -> Vec<Round> {
        let round = |value: &f64| Round {
            cell: "c".to_owned(),
            peer: "p".to_owned(),
            number: 0,
            values: Values::from([("tps", *value)]),
        };
        values.iter().map(round).collect()
    }

    #[test]
    fn medians() {
        for (values, expected) in
            [(&[3.0, 1.0, 2.0][..], Some(2.0)), (&[4.0, 1.0], Some(2.5)), (&[7.0], Some(7.0)), (&[], None)]
        {
            assert_eq!(median(&rounds(values), "c", "p", "tps"), expected, "{values:?}");
        }
        assert_eq!(median(&rounds(&[1.0]), "c", "q", "tps"), None);
    }

    #[test]
    fn everybody_has_a_turn_and_nobody_is_always_first() {
        assert_eq!(turn(2, 0), [None, Some(0), Some(1)]);
        assert_eq!(turn(2, 1), [Some(0), Some(1), None]);
        assert_eq!(turn(2, 3), turn(2, 0));
    }
}

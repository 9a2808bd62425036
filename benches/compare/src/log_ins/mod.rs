//! What a log-in costs: warm, cold, and when thousands come at once.

mod cold;
mod storm;
mod warm;

use crate::Result;
use crate::cells::{Cell, Size};
use crate::rounds::Round;
use crate::scale::Ground;
use crate::stage::Stage;
use crate::table::Section;

/// Every table's rounds.
pub(crate) fn measure(stage: &mut Stage, size: &Size) -> Result<Vec<Round>> {
    let mut rounds = warm::measure(stage, size)?;
    rounds.extend(cold::measure(stage, size)?);
    let callers = storm::callers(stage)?;
    rounds.extend(storm::measure(&mut Ground::new(stage, size)?, &callers, size.rounds)?);
    Ok(rounds)
}

/// The tables.
pub(crate) fn sections(rounds: &[Round]) -> Vec<Section> {
    vec![warm::section(rounds), cold::section(rounds), storm::section(rounds)]
}

/// The places of the subject, and of those beside it that take part in log-ins.
fn measured(stage: &Stage) -> Vec<usize> {
    let entries = stage.peers.iter().map(|peer| &peer.entry).enumerate();
    let there =
        entries.filter(|(_, entry)| entry.subject || (entry.beside.is_some() && entry.has(&Cell::LogIns.name())));
    there.map(|(place, _)| place).collect()
}

//! What is measured: the cells of the tables, and how long each lasts.

use crate::Result;
use crate::copy::{self, Direction};
use crate::peers::Peer;
use crate::pgbench::{self, Load, Mode};
use crate::stage::Stage;
use crate::{idle, rounds::Values};

/// Clients of the pgbench cells.
const CLIENTS: [u32; 3] = [1, 8, 64];
/// Clients that log in again and again.
const STORM_CLIENTS: u32 = 8;
/// A storm of log-ins lasts at least this long, in seconds: there are few of them in one.
const STORM_SECONDS: u32 = 3;
/// Bytes of the COPY cells' rows.
const ROWS: [u32; 2] = [1000, 100];

/// One cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Select-only pgbench.
    Select {
        /// Protocol.
        mode: Mode,
        /// How many at once.
        clients: u32,
    },
    /// One COPY of rows of this many bytes.
    Copy {
        /// Out of the database or into it.
        direction: Direction,
        /// Bytes.
        row: u32,
    },
    /// Every transaction is a new connection.
    LogIns,
    /// Memory of sessions that do nothing.
    Idle,
}

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Rounds for each cell.
    pub(crate) rounds: u32,
    /// Seconds that each pgbench runs.
    pub(crate) seconds: u32,
    /// Bytes that each COPY moves.
    pub(crate) copied: u64,
    /// Sessions that do nothing.
    pub(crate) idle: u32,
    /// Not for record.
    pub(crate) quick: bool,
}

impl Size {
    /// The usual size, or a quick one, with what the command line says otherwise.
    pub(crate) fn new(quick: bool, rounds: Option<u32>, seconds: Option<u32>) -> Self {
        let (usual_rounds, usual_seconds, copied, idle) =
            if quick { (1, 1, 50_000_000, 50) } else { (3, 3, 300_000_000, 200) };
        Self {
            rounds: rounds.unwrap_or(usual_rounds).max(1),
            seconds: seconds.unwrap_or(usual_seconds).max(1),
            copied,
            idle,
            quick,
        }
    }
}

impl Cell {
    /// Every cell, in the order of the report. Idle sessions come first, in processes that have just started.
    pub(crate) fn all() -> Vec<Self> {
        let selects = Mode::ALL.into_iter().flat_map(|mode| CLIENTS.map(|clients| Self::Select { mode, clients }));
        let copies = Direction::ALL.into_iter().flat_map(|direction| ROWS.map(|row| Self::Copy { direction, row }));
        [Self::Idle].into_iter().chain(selects).chain(copies).chain([Self::LogIns]).collect()
    }

    /// As it is called in tables and on the command line.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Select { mode, clients } => format!("{} x{clients}", mode.name()),
            Self::Copy { direction, row } => format!("copy {} {row} B", direction.name()),
            Self::LogIns => format!("log-ins x{STORM_CLIENTS}"),
            Self::Idle => "idle".to_owned(),
        }
    }

    /// Measures it once; `None` is PostgreSQL itself, without a peer between.
    pub(crate) fn measure(self, stage: &mut Stage, peer: Option<usize>, size: &Size) -> Result<Values> {
        if self == Self::Idle {
            return peer.map_or(Ok(Values::new()), |peer| idle::measure(stage, peer, size.idle));
        }
        let peer: Option<&Peer> = peer.and_then(|peer| stage.peers.get(peer));
        match self {
            Self::Copy { direction, row } => copy::measure(stage, peer, direction, (row, size.copied)),
            Self::Select { mode, clients } => {
                pgbench::measure(stage, peer, &Load { mode, clients, seconds: size.seconds, reconnect: false })
            }
            Self::LogIns | Self::Idle => {
                let seconds = size.seconds.max(STORM_SECONDS);
                let load = Load { mode: Mode::Simple, clients: STORM_CLIENTS, seconds, reconnect: true };
                pgbench::measure(stage, peer, &load)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_nine_cells_of_pgbench_four_of_copy_and_their_names_differ() {
        let cells = Cell::all();
        let names: std::collections::BTreeSet<String> = cells.iter().map(|cell| cell.name()).collect();
        assert_eq!((cells.len(), names.len()), (15, 15), "{names:?}");
        assert_eq!(cells.iter().filter(|cell| matches!(cell, Cell::Select { .. })).count(), 9);
        assert_eq!(cells.iter().filter(|cell| matches!(cell, Cell::Copy { .. })).count(), 4);
    }
}

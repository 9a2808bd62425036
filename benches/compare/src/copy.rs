//! One COPY by psql, and what it cost.

use crate::Result;
use crate::peers::Peer;
use crate::rounds::Values;
use crate::stage::Stage;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Bytes that are handed to psql at once.
const CHUNK: usize = 1 << 20;

/// Which way the rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the client.
    Out,
    /// Into the database, which reads every row and keeps none.
    In,
}

impl Direction {
    pub(crate) const ALL: [Self; 2] = [Self::Out, Self::In];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// Moves `bytes` of text rows of `row` bytes each (their line's end not counted as a part of the row, but as moved).
pub(crate) fn measure(
    stage: &Stage,
    peer: Option<&Peer>,
    direction: Direction,
    (row, bytes): (u32, u64),
) -> Result<Values> {
    let line = u64::from(row) + 1;
    let rows = bytes / line;
    let mut psql = stage.database.program("psql");
    peer.map_or_else(|| stage.direct(), |peer| stage.address(peer)).tell(&mut psql);
    psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-c"]).stderr(Stdio::piped());
    let before = peer.map(Peer::cpu).transpose()?;
    let began = Instant::now();
    match direction {
        Direction::Out => take(&mut psql, row, rows)?,
        Direction::In => give(&mut psql, row, rows)?,
    }
    let took = began.elapsed().as_secs_f64();
    let gigabytes = f64::from(u32::try_from(line * rows / 1000)?) / 1e6;
    let mut values = Values::from([("mb_s", gigabytes * 1e3 / took)]);
    if let (Some(before), Some(peer)) = (before, peer) {
        values.insert("cpu_s_gb", peer.cpu()?.since(&before).counted().as_secs_f64() / gigabytes);
    }
    Ok(values)
}

fn take(psql: &mut Command, row: u32, rows: u64) -> Result<()> {
    let sql = format!("COPY (SELECT repeat('x', {row}) FROM generate_series(1, {rows})) TO STDOUT");
    let done = psql.arg(sql).stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    finished(done.status, &done.stderr)
}

fn give(psql: &mut Command, row: u32, rows: u64) -> Result<()> {
    let mut psql = psql.arg("COPY sink FROM STDIN WHERE false").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let line = format!("{}\n", "x".repeat(usize::try_from(row)?));
    let at_once = (CHUNK / line.len()).max(1);
    let chunk = line.repeat(at_once);
    let mut input = psql.stdin.take().ok_or("psql has no input")?;
    let mut left = rows;
    // A psql that has ended says why below.
    while left > 0 {
        let now = usize::try_from(left)?.min(at_once);
        let Some(part) = chunk.get(..now * line.len()) else { break };
        if input.write_all(part.as_bytes()).is_err() {
            break;
        }
        left -= u64::try_from(now)?;
    }
    drop(input);
    let done = psql.wait_with_output()?;
    finished(done.status, &done.stderr)
}

fn finished(status: std::process::ExitStatus, stderr: &[u8]) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(format!("psql: {status}\n{}", String::from_utf8_lossy(stderr)).into())
}

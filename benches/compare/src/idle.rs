//! Memory of sessions that have run a statement and do nothing now.

use crate::Result;
use crate::accounting::memory_kib;
use crate::pgbench::{Load, Mode, measure as warm_up};
use crate::rounds::Values;
use crate::stage::Stage;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long the sessions may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// After that, whatever is given back late has been.
const SETTLE: Duration = Duration::from_secs(1);
/// One statement, then nothing until pgbench is ended.
const SCRIPT: &str = "SELECT 1;\n\\sleep 600 s\n";

/// KiB for each of `sessions`, in a process that has just started and served one client.
pub(crate) fn measure(stage: &mut Stage, peer: usize, sessions: u32) -> Result<Values> {
    stage.peers.get_mut(peer).ok_or("no such peer")?.restart()?;
    let peer = stage.peers.get(peer).ok_or("no such peer")?;
    warm_up(stage, Some(peer), &Load { mode: Mode::Simple, clients: 1, seconds: 1, reconnect: false })?;
    std::thread::sleep(SETTLE);
    let before = memory_kib(peer.pid())?;
    let script = stage.scratch().join("idle.sql");
    std::fs::write(&script, SCRIPT)?;
    let mut pgbench = stage.database.program("pgbench");
    pgbench.args(["-n", "-c", &sessions.to_string(), "-j", "1", "-t", "1", "-f"]).arg(script);
    stage.address(peer).tell(&mut pgbench);
    let pgbench = pgbench.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let _ending = Ending(pgbench);
    await_sessions(stage, sessions)?;
    std::thread::sleep(SETTLE);
    let after = memory_kib(peer.pid())?;
    Ok(Values::from([("kib_session", (after - before) / f64::from(sessions))]))
}

/// Waits until as many sessions of clients have run their statement.
fn await_sessions(stage: &Stage, sessions: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'idle' AND \
                 query LIKE '%SELECT 1;'";
    loop {
        let there: u32 = stage.database.sql(count)?.parse()?;
        if there >= sessions {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("only {there} of {sessions} idle sessions are there").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ends pgbench, whatever happens.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

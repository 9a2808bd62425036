//! The replay alone, for callgrind: see `parts instructions`. Prints what came out of it as JSON.

use parts::Result;
use parts::replay::{counted, told};
use parts::script::Script;
use parts::session::{MemoryLog, Session};
use std::sync::Arc;

fn main() -> Result<()> {
    let script = Script::fixed()?;
    let log = MemoryLog::new();
    let mut session = Session::recorded_in(Arc::new(log.clone()))?;
    counted(&mut session, &script)?;
    println!("{}", serde_json::to_string(&told(&session, &log, &script)?)?);
    Ok(())
}

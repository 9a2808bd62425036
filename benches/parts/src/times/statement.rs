//! A statement's whole way through the parts, both directions: frames, tag, tracker, records, and what is handed to the
//! two writes. The log keeps nothing, the writes go nowhere.

use super::{Bench, Part};
use parts::Result;
use parts::script::{Exchange, Kind, Script, Side};
use parts::session::{NoLog, Session};
use std::sync::Arc;

pub fn measure(bench: &mut Bench) -> Result<()> {
    let script = Script::fixed()?;
    for (name, kind, budget) in [
        ("a statement in all, simple", Kind::Simple, 2_000.0),
        ("a statement in all, extended", Kind::Extended, 3_500.0),
        ("a statement in all, prepared", Kind::Prepared, 3_000.0),
    ] {
        let part = Part { name, per: "statement", count: 1, budget, allocations: None };
        let mut session = Session::recorded_in(Arc::new(NoLog::default()))?;
        // What is prepared must be before it is used.
        for exchange in script.exchanges.iter().filter(|exchange| exchange.kind == kind) {
            run(&mut session, exchange);
        }
        // One row, and no name that is given anew.
        let of_kind = script.exchanges.iter().filter(|exchange| exchange.kind == kind);
        let bytes = |exchange: &&Exchange| exchange.reads.iter().map(|(_, read)| read.len()).sum::<usize>();
        let shortest = of_kind.min_by_key(bytes).ok_or("none of it")?;
        bench.time(part, || run(&mut session, shortest))?;
    }
    Ok(())
}

fn run(session: &mut Session, exchange: &Exchange) {
    for (side, read) in &exchange.reads {
        let done = match side {
            Side::Client => session.client_sends(read),
            Side::Server => session.server_sends(read),
        };
        assert!(done.is_ok(), "{done:?}");
    }
}

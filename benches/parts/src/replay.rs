//! The replay: a [`Script`] through a [`Session`].
//!
//! What is counted is [`counted`] and all that it calls. Each kind of exchange has a function of its own that is never
//! inlined, so that a profiler can tell them apart.

use crate::Result;
use crate::script::{Exchange, Kind, STATEMENTS, Script, Side};
use crate::session::{MemoryLog, Session};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hint::black_box;

/// Figures by name.
pub type Told = BTreeMap<String, u64>;

/// What a run of the replay tells of itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was replayed.
    pub replay: Told,
    /// What came of it.
    pub outcome: Told,
}

/// Goes through the whole script.
#[inline(never)]
pub fn counted(session: &mut Session, script: &Script) -> Result<()> {
    for exchange in &script.exchanges {
        match exchange.kind {
            Kind::Simple => simple(session, exchange)?,
            Kind::Transaction => transaction(session, exchange)?,
            Kind::Extended => extended(session, exchange)?,
            Kind::Prepared => prepared(session, exchange)?,
            Kind::Pipelined => pipelined(session, exchange)?,
            Kind::Error => error(session, exchange)?,
            Kind::CopyIn => copy_in(session, exchange)?,
            Kind::CopyOut => copy_out(session, exchange)?,
        }
    }
    Ok(())
}

/// One function each; what differs keeps the compiler from making them one.
macro_rules! kinds {
    ($($name:ident)*) => {$(
        #[inline(never)]
        fn $name(session: &mut Session, exchange: &Exchange) -> Result<()> {
            black_box(stringify!($name));
            run(session, exchange)
        }
    )*};
}

kinds! { simple transaction extended prepared pipelined error copy_in copy_out }

fn run(session: &mut Session, exchange: &Exchange) -> Result<()> {
    for (side, read) in &exchange.reads {
        match side {
            Side::Client => session.client_sends(read)?,
            Side::Server => session.server_sends(read)?,
        }
    }
    Ok(())
}

/// What a record says that is looked at.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Seen {
    event: String,
    #[serde(rename = "final")]
    last: bool,
    rows: u64,
}

/// What came of it. An error where anything is missing: then less was counted than it says.
pub fn told(session: &Session, log: &MemoryLog, script: &Script) -> Result<Outcome> {
    let records: Vec<Seen> =
        log.records().into_iter().map(serde_json::from_value).collect::<std::result::Result<_, _>>()?;
    let count = |event: &str| records.iter().filter(|record| record.event == event).count() as u64;
    let ended = records.iter().filter(|record| record.event == "end" && record.last).count() as u64;
    if !session.is_idle() || ended < STATEMENTS {
        return Err(format!("{ended} statements of {STATEMENTS} have ended").into());
    }
    let (to_server, to_client) = session.forwarded();
    let named = |figures: &[(&str, u64)]| figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let replay = named(&[
        ("statements", STATEMENTS),
        ("bytes_from_client", script.bytes(Side::Client)),
        ("bytes_from_server", script.bytes(Side::Server)),
    ]);
    let outcome = named(&[
        ("bytes_to_server", to_server),
        ("bytes_to_client", to_client),
        ("begin_records", count("begin")),
        ("end_records", count("end")),
        ("record_bytes", log.bytes()),
        ("rows_recorded", records.iter().map(|record| record.rows).sum()),
    ]);
    Ok(Outcome { replay, outcome })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn two_replays_come_out_the_same_and_nothing_is_missing() {
        let script = Script::fixed().unwrap();
        let run = || {
            let log = MemoryLog::new();
            let mut session = Session::recorded_in(Arc::new(log.clone())).unwrap();
            counted(&mut session, &script).unwrap();
            (told(&session, &log, &script).unwrap(), log)
        };
        let ((one, log), (other, _)) = (run(), run());
        assert_eq!(one, other);
        let records = log.records();
        let text = |record: &serde_json::Value| record["text"].as_str().map(str::to_owned);
        assert!(records.iter().filter(|record| record["event"] == "begin").all(|record| record["tagged"] == true));
        assert!(records.iter().filter_map(text).any(|text| text.starts_with("SELECT c.name,\n")));
        // Nothing is hashed: SHA-256 under callgrind is not what it is on a processor.
        assert!(records.iter().all(|record| record.get("text_sha256").is_none()));
        let Outcome { replay, outcome } = one;
        assert!(outcome["bytes_to_server"] > replay["bytes_from_client"] && outcome["rows_recorded"] > STATEMENTS);
    }
}

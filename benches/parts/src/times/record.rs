//! A statement's two records: made into bytes and committed to a log that keeps nothing; what the log does with them
//! beside the data path is measured apart.

use super::{Bench, Part, float};
use parts::session::NoLog;
use parts::{Result, whose};
use pgpassport::audit::event::{Outcome, Stage};
use pgpassport::audit::ledger::{frame, tree::Tree};
use pgpassport::audit::{Auditor, Begin, End, RecordLog, Urgency};
use pgpassport::time::Clock;
use std::hint::black_box;
use std::sync::Arc;

/// As programs write it.
const TEXT: &[u8] = b"SELECT o.id, o.customer, o.total FROM app.orders o WHERE o.customer = $1 AND o.placed_at > now()";

pub fn measure(bench: &mut Bench) -> Result<()> {
    let part = |name, budget| Part { name, per: "statement", count: 1, budget, allocations: None };
    let log = Arc::new(NoLog::default());
    let mut recorder = whose::recorder(Auditor::new(Arc::clone(&log) as Arc<dyn RecordLog>, 60, Clock::system()))?;
    let (begin, end) = (begin(), end());
    let mut both = || {
        recorder.begin(black_box(&begin));
        assert!(recorder.commit(Urgency::Normal).is_ok());
        recorder.end(black_box(&end));
        assert!(recorder.commit(Urgency::Normal).is_ok());
    };
    bench.time(part("records, begin and end as bytes, committed", 1_000.0), &mut both)?;
    let before = log.bytes();
    both();
    let bytes = float(log.bytes() - before);
    bench.add("records, begin and end", "statement", "bytes", (bytes, 1_000.0));

    // What both records are, as bytes of about their lengths.
    let records = [vec![b'b'; 640], vec![b'e'; 360]];
    let (mut frames, mut tree, mut stored) = (Vec::new(), Tree::default(), Vec::new());
    bench.time(part("records, checksums (with their copies)", 120.0), || {
        frames.clear();
        assert!(records.iter().all(|record| frame::push(&mut frames, black_box(record))));
    })?;
    bench.time(part("records, hashes into the tree (a thread's)", 1_000.0), || {
        stored.clear();
        for record in &records {
            tree.push(black_box(record), &mut stored);
        }
    })
}

fn begin() -> Begin<'static> {
    Begin {
        event: 4_711,
        stage: Stage::Query,
        text: Some((TEXT, TEXT.len() as u64)),
        text_of: None,
        text_doubtful: false,
        role_changes: &[],
        statement: b"",
        portal: b"",
        function_oid: None,
        parameters: None,
        tagged: true,
    }
}

fn end() -> End {
    End {
        event: 4_711,
        part: 0,
        last: true,
        outcome: Outcome::Ok,
        sqlstate: None,
        text_of: None,
        text: None,
        text_doubtful: false,
        executes: None,
        command: Some("SELECT".to_owned()),
        rows: 10,
        bytes_in: 206,
        bytes_out: 1_500,
        first_row_us: Some(700),
        duration_us: 800,
    }
}

//! A statement's two records: made into bytes and committed to a log that keeps nothing; what the log does with them
//! beside the data path is measured apart.

use super::{Bench, Part, float};
use parts::Result;
use parts::session::NoLog;
use pgpassport::audit::ledger::{frame, tree::Tree};
use pgpassport::audit::{Auditor, Durability, RecordLog, Urgency};
use pgpassport::time::Clock;
use std::hint::black_box;
use std::sync::Arc;

/// As programs write it.
const TEXT: &[u8] = b"SELECT o.id, o.customer, o.total FROM app.orders o WHERE o.customer = $1 AND o.placed_at > now()";

pub fn measure(bench: &mut Bench) -> Result<()> {
    let part = |name, budget| Part { name, per: "statement", count: 1, budget, allocations: None };
    let log = Arc::new(NoLog::default());
    let auditor = Auditor::new(Arc::clone(&log) as Arc<dyn RecordLog>, 60, Clock::system());
    let mut recorder = sample::recorder(auditor, Durability::Batch)?;
    let (begin, end) = (sample::begin(4_711, TEXT), sample::end(4_711));
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

//! The tracker's part in each message, its text's reading in it: which event it is, what it ends, and the end lines.

use super::{Bench, Part};
use parts::Result;
use pgpassport::relay::parts::Tracker;
use std::hint::black_box;
use std::time::Instant;

/// As programs write it.
const TEXT: &[u8] = b"SELECT o.id, o.customer, o.total FROM app.orders o WHERE o.customer = $1 AND o.placed_at > now()";
/// Bytes of a message, of those whose number is not told.
const BYTES: u64 = 100;

pub fn measure(bench: &mut Bench) -> Result<()> {
    let part = |name, count, budget| Part { name, per: "message", count, budget, allocations: None };
    let (now, text) = (Instant::now(), TEXT.len() as u64);

    let mut tracker = Tracker::reproducible();
    bench.time(part("tracker, simple", 5, 80.0), || {
        tracker.query(black_box(TEXT), text, BYTES, now);
        answer(&mut tracker, b"TDCZ", now);
    })?;

    let mut tracker = Tracker::reproducible();
    bench.time(part("tracker, extended", 11, 80.0), || {
        tracker.parse(b"", black_box(TEXT), text, BYTES, now);
        black_box(tracker.bind(b"", b"", BYTES, now));
        tracker.describe();
        black_box(tracker.execute(b"", BYTES, now));
        tracker.sync();
        answer(&mut tracker, b"12TDCZ", now);
    })?;

    let mut tracker = Tracker::reproducible();
    tracker.parse(b"s_1", TEXT, text, BYTES, now);
    tracker.sync();
    answer(&mut tracker, b"1Z", now);
    bench.time(part("tracker, prepared", 7, 80.0), || {
        black_box(tracker.bind(b"", black_box(b"s_1"), BYTES, now));
        black_box(tracker.execute(b"", BYTES, now));
        tracker.sync();
        answer(&mut tracker, b"2DCZ", now);
    })
}

/// The server's messages of these types, and the end lines that are ready then.
fn answer(tracker: &mut Tracker, kinds: &[u8], now: Instant) {
    for kind in kinds {
        let body: &[u8] = match kind {
            b'C' => b"SELECT 1\0",
            b'Z' => b"I",
            _ => b"",
        };
        assert!(tracker.server(*kind, body, BYTES, now).is_ok());
    }
    black_box(tracker.take_settled());
}

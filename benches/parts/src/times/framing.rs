//! Finding frames: rows to the client, COPY data to the server, each with the tracker's look at its type and its place
//! in what is written.

use super::{Bench, Part};
use parts::Result;
use parts::session::{NoLog, told};
use pgpassport::audit::{Auditor, Durability};
use pgpassport::relay::parts::{ClientSide, Output, ServerSide, Tracker};
use pgpassport::time::Clock;
use pgpassport::wire::append;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Frames of one read.
const FRAMES: u32 = 100;
/// Bytes of each one's body.
const BODY: [u8; 100] = [b'x'; 100];

pub fn measure(bench: &mut Bench) -> Result<()> {
    let part = |name, budget| Part { name, per: "frame", count: FRAMES, budget, allocations: Some(0.0) };
    let (tag, now) = (sample::tag()?, Instant::now());
    let mut output = Output::default();

    let mut tracker = Tracker::reproducible();
    tracker.query(b"SELECT 1", 8, 14, now);
    let (mut server, rows) = (ServerSide::new(tag.clone()), read(b'D'));
    bench.time(part("framing, server to client (DataRow)", 40.0), || {
        let taken = server.process_at(now, black_box(&rows), &mut tracker, &told, &mut output);
        assert!(taken.is_ok_and(|taken| taken == rows.len()));
        black_box(output.len());
        output.clear();
    })?;

    let mut tracker = Tracker::reproducible();
    tracker.query(b"COPY t FROM STDIN", 17, 23, now);
    tracker.server(b'G', b"\0\0\0", 8, now)?;
    let mut recorder =
        sample::recorder(Auditor::new(Arc::new(NoLog::default()), 60, Clock::system()), Durability::Batch)?;
    let (mut client, data) = (ClientSide::new(tag), read(b'd'));
    bench.time(part("framing, client to server (CopyData)", 40.0), || {
        let (taken, _) = client.process_at(now, black_box(&data), &mut tracker, &mut recorder, &mut output);
        assert!(taken == data.len());
        black_box(output.len());
        output.clear();
    })
}

fn read(kind: u8) -> Vec<u8> {
    let mut read = Vec::new();
    for _ in 0..FRAMES {
        append(&mut read, kind, &BODY);
    }
    read
}

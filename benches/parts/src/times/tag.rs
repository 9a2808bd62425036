//! The tag's way into a Query: the new header, the tag, and the client's text as it lies in the read buffer.

use super::{Bench, Part};
use parts::Result;
use parts::session::{Wire, at_once};
use pgpassport::relay::parts::{ClientSide, Output};
use pgpassport::wire::append;
use std::hint::black_box;
use std::time::Instant;

pub fn measure(bench: &mut Bench) -> Result<()> {
    let part = |name, budget| Part { name, per: "statement", count: 1, budget, allocations: Some(0.0) };
    let (client, now) = (ClientSide::new(sample::tag()?), Instant::now());
    let mut query = Vec::new();
    append(&mut query, b'Q', b"SELECT o.id, o.customer, o.total FROM app.orders o WHERE o.customer = 'c-4711'\0");
    let (mut output, mut wire) = (Output::default(), Wire::default());
    bench.time(part("tag, put in", 50.0), || {
        client.splice(black_box(&query), now, &mut output);
        black_box(output.len());
        output.clear();
    })?;
    bench.time(part("tag, put in and handed to one write", 80.0), || {
        client.splice(black_box(&query), now, &mut output);
        let written = at_once(output.write_to(&query, &mut wire));
        assert!(matches!(written, Ok(Ok(()))));
    })
}

//! A record's bytes: what serde makes of [`Line`](super::event::Line). The head and the two events that every statement
//! has are written by hand, which costs a fraction; tests hold them against serde's.

mod escape;
mod head;
mod statement;

use super::event::{Begin, Event};
use crate::time::Timestamp;
pub use escape::{MAX_ESCAPED_BYTES, escaped_bytes};
pub(super) use head::Heads;
pub(super) use statement::{Next, Places, insert};
use std::io;

/// Appends the record to `out`; after an error there may be a part of it.
pub(super) fn write(out: &mut Vec<u8>, time: Timestamp, heads: &mut Heads, event: &Event<'_>) -> io::Result<()> {
    match event {
        Event::Begin(begin) => write_begin(out, time, heads, begin).map(drop),
        Event::End(end) => {
            let head = heads.write(out, time)?;
            statement::end(out, head, end)
        }
        other => {
            heads.write(out, time)?;
            write_members(out, other)
        }
    }
}

/// The same of a statement's begin; says where in it the next message's word goes ([`insert`]).
pub(super) fn write_begin(
    out: &mut Vec<u8>,
    time: Timestamp,
    heads: &mut Heads,
    begin: &Begin<'_>,
) -> io::Result<Places> {
    let head = heads.write(out, time)?;
    statement::begin(out, head, begin)
}

/// The event's own members follow the head's.
fn write_members(out: &mut Vec<u8>, event: &Event<'_>) -> io::Result<()> {
    let own = out.len();
    serde_json::to_writer(&mut *out, event)?;
    match out.get_mut(own) {
        Some(brace) if *brace == b'{' => *brace = b',',
        _ => return Err(io::Error::other("an event is no JSON object")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::event::{Line, Refused, VERSION};
    use super::*;
    use crate::names::SessionId;

    pub(super) fn written(time: Timestamp, session: SessionId, event: &Event<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, time, &mut Heads::of(session), event).unwrap();
        String::from_utf8(out).unwrap()
    }

    pub(super) fn derived(time: Timestamp, session: SessionId, event: &Event<'_>) -> String {
        serde_json::to_string(&Line { version: VERSION, time, session, event }).unwrap()
    }

    #[test]
    fn a_line_is_what_its_type_says() {
        let refused = Refused { message: "a \"text\"\n", ..Refused::default() };
        let events = [
            Event::Refused(Box::new(refused)),
            Event::RefusalsSuppressed { count: 7 },
            Event::SyncError { sqlstate: "40001".to_owned() },
        ];
        for event in &events {
            let (time, session) = (Timestamp::now(), SessionId::generate());
            assert_eq!(written(time, session, event), derived(time, session, event));
        }
    }
}

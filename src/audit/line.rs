//! A record's bytes: what serde makes of [`Line`](super::event::Line). The head and the two events that every statement
//! has are written by hand, which costs a fraction; tests hold them against serde's.

mod escape;
mod statement;

use super::event::{Begin, Event};
use crate::names::SessionId;
use crate::time::Timestamp;
pub use escape::escaped_bytes;
use statement::Head;
pub(super) use statement::{Next, Places, insert};
use std::io::{self, Write};

/// What of a time is always told, in bytes.
const SECONDS: usize = "0000-00-00T00:00:00".len();
/// Version 1, and where the time begins.
const HEAD: &[u8] = b"{\"version\":1,\"time\":\"";

/// Appends the record to `out`; after an error there may be a part of it.
pub(super) fn write(out: &mut Vec<u8>, time: Timestamp, session: SessionId, event: &Event<'_>) -> io::Result<()> {
    match event {
        Event::Begin(begin) => write_begin(out, time, session, begin).map(drop),
        Event::End(end) => {
            let head = write_head(out, time, session)?;
            statement::end(out, head, end)
        }
        other => {
            write_head(out, time, session)?;
            write_members(out, other)
        }
    }
}

/// The same of a statement's begin; says where in it the next message's word goes ([`insert`]).
pub(super) fn write_begin(
    out: &mut Vec<u8>,
    time: Timestamp,
    session: SessionId,
    begin: &Begin<'_>,
) -> io::Result<Places> {
    let head = write_head(out, time, session)?;
    statement::begin(out, head, begin)
}

fn write_head(out: &mut Vec<u8>, time: Timestamp, session: SessionId) -> io::Result<Head> {
    let start = out.len();
    out.extend_from_slice(HEAD);
    write_time(out, time)?;
    out.extend_from_slice(b"\",\"session\":\"");
    let session_at = out.len();
    out.extend_from_slice(session.encode(&mut [0; SessionId::TEXT_BYTES]).as_bytes());
    out.push(b'"');
    Ok(Head { start, session_at, session })
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

/// RFC 3339 in UTC, as [`Timestamp`] writes itself: nine digits of a second at most, without zeros at the end.
fn write_time(out: &mut Vec<u8>, time: Timestamp) -> io::Result<()> {
    const DAY: i64 = 86_400;
    let parts = date(time.as_second().div_euclid(DAY));
    let of_day = u32::try_from(time.as_second().rem_euclid(DAY));
    let (Ok(nanosecond), Ok(second), Some((year, month, day)), 0..) =
        (u32::try_from(time.subsec_nanosecond()), of_day, parts, time.as_second())
    else {
        return write!(out, "{time}");
    };
    let mut text = *b"0000-00-00T00:00:00.000000000";
    two_digits(&mut text, 0, year / 100);
    two_digits(&mut text, 2, year % 100);
    two_digits(&mut text, 5, month);
    two_digits(&mut text, 8, day);
    two_digits(&mut text, 11, second / 3600);
    two_digits(&mut text, 14, second / 60 % 60);
    two_digits(&mut text, 17, second % 60);
    two_digits(&mut text, 20, nanosecond / 10_000_000);
    two_digits(&mut text, 22, nanosecond / 100_000 % 100);
    two_digits(&mut text, 24, nanosecond / 1_000 % 100);
    two_digits(&mut text, 26, nanosecond / 10 % 100);
    // Of nine digits the last has no partner: the one before it is written twice.
    two_digits(&mut text, 27, nanosecond % 100);
    let mut told: &[u8] = &text;
    while let Some((b'0', before)) = told.split_last().filter(|_| told.len() > SECONDS) {
        told = before;
    }
    out.extend_from_slice(told.strip_suffix(b".").unwrap_or(told));
    out.push(b'Z');
    Ok(())
}

/// Writes a number below 100.
#[inline]
fn two_digits(text: &mut [u8], at: usize, number: u32) {
    let digit = |number: u32| b'0'.saturating_add(u8::try_from(number % 10).unwrap_or_default());
    if let Some(pair) = text.get_mut(at..at.saturating_add(2)) {
        pair.copy_from_slice(&[digit(number / 10), digit(number)]);
    }
}

/// Year, month and day of a day since 1970, not before it (the proleptic Gregorian calendar repeats every 146,097 days;
/// counted from March, so that a leap day is a year's last).
fn date(days: i64) -> Option<(u32, u32, u32)> {
    const ERA: u32 = 146_097;
    let days = u32::try_from(days).ok()?.checked_add(719_468)?;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    Some((era * 400 + year_of_era + u32::from(month <= 2), month, day))
}

#[cfg(test)]
mod tests {
    use super::super::event::{Line, Refused, VERSION};
    use super::*;
    use proptest::prelude::*;

    pub(super) fn written(time: Timestamp, session: SessionId, event: &Event<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, time, session, event).unwrap();
        String::from_utf8(out).unwrap()
    }

    pub(super) fn derived(time: Timestamp, session: SessionId, event: &Event<'_>) -> String {
        serde_json::to_string(&Line { version: VERSION, time, session, event }).unwrap()
    }

    #[test]
    fn a_line_is_what_its_type_says() {
        assert_eq!(HEAD, format!("{{\"version\":{VERSION},\"time\":\"").as_bytes());
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

    #[test]
    fn times_at_edges() {
        for time in [
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:59.5Z",
            "2000-02-29T23:59:59.999999999Z",
            "2026-11-22T10:00:00.100Z",
            "2100-02-28T00:00:00.000000001Z",
            "2100-03-01T00:00:00Z",
            "9999-12-30T21:59:59Z",
            "-000001-01-01T00:00:00Z",
        ] {
            let time: Timestamp = time.parse().unwrap();
            let mut out = Vec::new();
            write_time(&mut out, time).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), time.to_string());
        }
    }

    proptest! {
        #[test]
        fn every_time_is_as_it_writes_itself(second in -100_000_000_000_i64..250_000_000_000, nanosecond in 0..1_000_000_000_i32) {
            let time = Timestamp::new(second, nanosecond).unwrap();
            let mut out = Vec::new();
            write_time(&mut out, time).unwrap();
            prop_assert_eq!(String::from_utf8(out).unwrap(), time.to_string());
        }
    }
}

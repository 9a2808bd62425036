//! A record's head: version, time, session.

use crate::names::SessionId;
use crate::time::Timestamp;
use std::io::{self, Write};

/// What of a time is always told, in bytes.
const SECONDS: usize = "0000-00-00T00:00:00".len();
/// Version 1, and where the time begins.
const START: &[u8] = b"{\"version\":1,\"time\":\"";

/// The heads of one session's records. What one has in common with the one before it is not worked out again.
#[derive(Debug)]
pub struct Heads {
    session: SessionId,
    session_text: [u8; SessionId::TEXT_BYTES],
    /// The last record's second of Unix time (the last that was none before 1970), and its text.
    second: i64,
    second_text: [u8; SECONDS],
}

/// A record's head, as it stands in front of what is appended.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// Where it begins.
    pub start: usize,
    /// Where the session's id stands in it.
    pub session_at: usize,
    /// Which that is.
    pub session: SessionId,
}

impl Heads {
    /// Of this session's records.
    pub fn of(session: SessionId) -> Self {
        let mut session_text = [0; SessionId::TEXT_BYTES];
        session.encode(&mut session_text);
        Self { session, session_text, second: 0, second_text: *b"1970-01-01T00:00:00" }
    }

    /// Whose they are.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Appends the next one.
    pub fn write(&mut self, out: &mut Vec<u8>, time: Timestamp) -> io::Result<Head> {
        let start = out.len();
        out.extend_from_slice(START);
        self.write_time(out, time)?;
        out.extend_from_slice(b"\",\"session\":\"");
        let session_at = out.len();
        out.extend_from_slice(&self.session_text);
        out.push(b'"');
        Ok(Head { start, session_at, session: self.session })
    }

    /// RFC 3339 in UTC, as [`Timestamp`] writes itself: nine digits of a second at most, without zeros at the end.
    fn write_time(&mut self, out: &mut Vec<u8>, time: Timestamp) -> io::Result<()> {
        let second = time.as_second();
        let text = if second == self.second { Some(self.second_text) } else { second_text(second) };
        let (Some(text), Ok(nanosecond), 0..) = (text, u32::try_from(time.subsec_nanosecond()), second) else {
            return write!(out, "{time}");
        };
        (self.second, self.second_text) = (second, text);
        out.extend_from_slice(&text);
        let mut fraction = *b".000000000";
        two_digits(&mut fraction, 1, nanosecond / 10_000_000);
        two_digits(&mut fraction, 3, nanosecond / 100_000 % 100);
        two_digits(&mut fraction, 5, nanosecond / 1_000 % 100);
        two_digits(&mut fraction, 7, nanosecond / 10 % 100);
        // Of nine digits the last has no partner: the one before it is written twice.
        two_digits(&mut fraction, 8, nanosecond % 100);
        let mut told: &[u8] = &fraction;
        while let Some((b'0', before)) = told.split_last() {
            told = before;
        }
        out.extend_from_slice(told.strip_suffix(b".").unwrap_or(told));
        out.push(b'Z');
        Ok(())
    }
}

/// A second of Unix time, as far as it can be written so.
fn second_text(second: i64) -> Option<[u8; SECONDS]> {
    const DAY: i64 = 86_400;
    let (year, month, day) = date(second.div_euclid(DAY))?;
    let second = u32::try_from(second.rem_euclid(DAY)).ok()?;
    let mut text = *b"0000-00-00T00:00:00";
    two_digits(&mut text, 0, year / 100);
    two_digits(&mut text, 2, year % 100);
    two_digits(&mut text, 5, month);
    two_digits(&mut text, 8, day);
    two_digits(&mut text, 11, second / 3600);
    two_digits(&mut text, 14, second / 60 % 60);
    two_digits(&mut text, 17, second % 60);
    Some(text)
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
    use super::super::super::event::VERSION;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_has_the_version() {
        assert_eq!(START, format!("{{\"version\":{VERSION},\"time\":\"").as_bytes());
    }

    #[test]
    fn times_at_edges() {
        let mut heads = Heads::of(SessionId::generate());
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
            heads.write_time(&mut out, time).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), time.to_string());
        }
    }

    proptest! {
        #[test]
        fn every_time_is_as_it_writes_itself(
            second in -100_000_000_000_i64..250_000_000_000,
            times in prop::collection::vec((-1..2_i64, 0..1_000_000_000_i32), 1..5),
        ) {
            let mut heads = Heads::of(SessionId::generate());
            for (after, nanosecond) in times {
                let time = Timestamp::new(second + after, nanosecond).unwrap();
                let mut out = Vec::new();
                heads.write_time(&mut out, time).unwrap();
                prop_assert_eq!(String::from_utf8(out).unwrap(), time.to_string());
            }
        }
    }
}

//! `Retry-After` (RFC 9110 §10.2.3): seconds, or a date, which is read against the answer's own `Date`.

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use std::time::Duration;

/// How long the service wants to be left alone; nothing where it does not say so in a way that can be read.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    // The two clocks that matter are one, so that ours does not.
    let date = |text| DateTimeParser::new().parse_timestamp(text).ok();
    Some(crate::time::until(date(asked)?, date(text(DATE)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn seconds_and_dates_are_read_and_nothing_else() {
        const DATE_NOW: &str = "Sun, 22 Nov 2026 10:00:00 GMT";
        for (asked, date, expected) in [
            ("120", None, Some(120)),
            (" 0 ", None, Some(0)),
            ("Sun, 22 Nov 2026 10:00:30 GMT", Some(DATE_NOW), Some(30)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(DATE_NOW), Some(0)),
            ("Sun, 22 Nov 2026 10:00:30 GMT", None, None),
            ("-1", None, None),
            ("1.5", None, None),
            ("99999999999999999999", None, None),
            ("soon", Some(DATE_NOW), None),
            ("", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(asked));
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_static(date));
            }
            assert_eq!(read(&headers).map(|wait| wait.as_secs()), expected, "{asked:?} {date:?}");
        }
        assert_eq!(read(&HeaderMap::new()), None);
    }
}

//! Durations as people write them: `500ms`, `15s`, `2m`, `12h`, `90d`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What a hop's deadline may be.
pub(super) const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);
/// How long a drain may take.
pub(super) const DRAIN: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// One whole number and one unit, within `bounds`.
pub(super) fn parse(text: &str, bounds: &RangeInclusive<Duration>) -> Result<Duration, String> {
    const SHAPE: &str = "is not a duration such as \"500ms\", \"15s\" or \"2m\"";
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(SHAPE.to_owned()),
    };
    if number.is_empty() {
        return Err(SHAPE.to_owned());
    }
    let duration = number.parse().ok().and_then(|n: u64| n.checked_mul(per_unit)).map(Duration::from_millis);
    duration
        .filter(|d| bounds.contains(d))
        .ok_or_else(|| format!("is out of bounds: {} to {}", shown(*bounds.start()), shown(*bounds.end())))
}

/// The shortest way to write a duration that [`parse`] reads; milliseconds are the smallest unit.
pub(super) fn shown(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let (number, unit) = match milliseconds {
        whole if whole > 86_400_000 && whole % 86_400_000 == 0 => (whole / 86_400_000, "d"),
        whole if whole > 0 && whole % 60_000 == 0 => (whole / 60_000, "m"),
        whole if whole > 0 && whole % 1000 == 0 => (whole / 1000, "s"),
        fraction => (fraction, "ms"),
    };
    format!("{number}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_bounds_and_overflow() {
        for (text, seconds) in [("500ms", 0.5), ("15s", 15.0), ("2m", 120.0), ("10m", 600.0), ("10ms", 0.01)] {
            assert_eq!(parse(text, &DEADLINES).map(|d| d.as_secs_f64()), Ok(seconds), "{text}");
        }
        assert_eq!(parse("1h", &DRAIN), Ok(Duration::from_secs(3600)));
        for bad in ["", "15", "s", "1.5s", "-1s", "15 s", "15S", "15sec", "1m30s", "１５s", "0x1s"] {
            assert!(parse(bad, &DEADLINES).unwrap_err().contains("not a duration"), "{bad}");
        }
        for bad in ["0s", "9ms", "601s", "11m", "1h", "99999999999999999999s", "18446744073709551615m"] {
            assert_eq!(parse(bad, &DEADLINES).unwrap_err(), "is out of bounds: 10ms to 10m", "{bad}");
        }
    }
}

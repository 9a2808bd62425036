//! How many refusals of strangers are written each minute; the rest are counted.

use crate::time::{Timestamp, later};
use std::time::Duration;

/// The length of one budget period.
const PERIOD: Duration = Duration::from_secs(60);

/// What to do with one refusal.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Record,
    /// Write how many were only counted, then this one.
    RecordAfter {
        /// Refusals that were not written.
        suppressed: u64,
    },
    /// Only count it.
    Count,
}

/// A fixed number per period.
#[derive(Debug)]
pub struct Budget {
    each_period: u32,
    left: u32,
    ends: Timestamp,
    suppressed: u64,
}

impl Budget {
    /// `each_period` refusals are written a minute.
    pub fn new(each_period: u32) -> Self {
        Self { each_period, left: 0, ends: Timestamp::MIN, suppressed: 0 }
    }

    /// From the next minute on so many are written.
    pub fn change(&mut self, each_period: u32) {
        self.each_period = each_period;
    }

    /// Decides about one refusal at `now`.
    pub fn spend(&mut self, now: Timestamp) -> Verdict {
        if now >= self.ends {
            self.left = self.each_period;
            self.ends = later(now, PERIOD);
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.suppressed = self.suppressed.saturating_add(1);
            return Verdict::Count;
        };
        self.left = left;
        match std::mem::take(&mut self.suppressed) {
            0 => Verdict::Record,
            suppressed => Verdict::RecordAfter { suppressed },
        }
    }

    /// A count that could not be told.
    pub fn put_back(&mut self, count: u64) {
        self.suppressed = self.suppressed.saturating_add(count);
    }

    /// The refusals that were only counted, once their period is over or the process ends.
    pub fn take_suppressed(&mut self) -> u64 {
        std::mem::take(&mut self.suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_minute_tells_what_the_last_one_only_counted() {
        let start = Timestamp::from_second(1_000_000).unwrap();
        let mut budget = Budget::new(2);
        let verdicts: Vec<Verdict> = (0..4).map(|_| budget.spend(start)).collect();
        assert_eq!(verdicts, [Verdict::Record, Verdict::Record, Verdict::Count, Verdict::Count]);
        let next = later(start, PERIOD);
        assert_eq!(budget.spend(next), Verdict::RecordAfter { suppressed: 2 });
        assert_eq!(budget.spend(next), Verdict::Record);
        assert_eq!(budget.take_suppressed(), 0);
    }
}

//! What a caller has used up of a rule's limits, in all of its sessions together: token buckets that need no lock.
//!
//! A bucket is one number, the time at which it will be whole again (the generic cell rate algorithm, ITU-T I.371): it
//! holds `burst` and gets `per_second` back. How fast that is stands in [`Pace`], not here, so that sessions which began
//! under an older config share what was used up.

use crate::policy::{Over, Rate};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Refused messages that are answered at once, and as many a second after, where no rate of statements says more: each
/// costs the instance an error and the log two lines. Past it the client waits.
const REFUSALS: u32 = 100;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// One caller's buckets under one rule.
#[derive(Debug)]
pub struct Meter {
    epoch: Instant,
    connects: Bucket,
    statements: Bucket,
    refusals: Bucket,
    bytes: Bucket,
    records: Bucket,
}

/// What is left of what a caller's records may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Ample,
    /// What is kept for ends of statements that run, and of transactions: a sixteenth more than the limit, as of a log's
    /// segment.
    Reserve,
    /// Nothing.
    None,
}

/// How fast a bucket fills, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    units: u64,
    /// What `units` cost.
    nanos: u64,
    /// What may be used up ahead.
    burst: u64,
    /// What becomes of more.
    pub over: Over,
}

/// When the bucket is whole, in nanoseconds since the meter's epoch.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Pace {
    /// `burst` at once and `units` in each `period` after.
    pub fn new(units: impl Into<u64>, period: Duration, burst: impl Into<u64>, over: Over) -> Self {
        let (units, nanos) = (units.into().max(1), u64::try_from(period.as_nanos()).unwrap_or(u64::MAX));
        let one = Self { units, nanos, burst: 0, over };
        // So many single ones, each rounded up: the last of a burst must not fail for a nanosecond.
        let burst = one.cost(1).saturating_mul(burst.into().max(1));
        Self { burst, ..one }
    }

    /// Of a rule's rate.
    pub fn of(rate: &Rate) -> Self {
        Self::new(rate.per_second, Duration::from_secs(1), rate.burst, rate.over)
    }

    /// Of what a caller's records take.
    pub fn of_records(mib_per_day: u32) -> Self {
        let bytes = u64::from(mib_per_day) << 20;
        Self::new(bytes, DAY, bytes, Over::Refuse)
    }

    /// Of refusals, where statements have this pace.
    pub fn of_refusals(statements: Option<Self>) -> Self {
        statements.unwrap_or_else(|| Self::new(REFUSALS, Duration::from_secs(1), REFUSALS, Over::Wait))
    }

    /// Rounded up, so that no sequence gets more than its rate.
    fn cost(&self, count: u64) -> u64 {
        let nanos = u128::from(count).saturating_mul(u128::from(self.nanos)).div_ceil(u128::from(self.units));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl Meter {
    /// Everything whole. `epoch` is no later than any time that it is asked of.
    pub fn new(epoch: Instant) -> Self {
        let [connects, statements, refusals, bytes, records] = std::array::from_fn(|_| Bucket::default());
        Self { epoch, connects, statements, refusals, bytes, records }
    }

    /// Whether nothing is used up: who has such a meter loses nothing with it, and gains nothing by a new one.
    pub fn is_whole(&self, now: Instant) -> bool {
        let now = self.nanos(now);
        let buckets = [&self.connects, &self.statements, &self.refusals, &self.bytes, &self.records];
        buckets.iter().all(|bucket| bucket.get() <= now)
    }

    /// One more connect: when it is its turn, which is taken; none, and nothing is taken, where that is not within
    /// `patience`.
    pub fn connect(&self, pace: &Pace, patience: Duration, now: Instant) -> Option<Instant> {
        let wait = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        let whole_at = self.connects.try_spend(pace.cost(1), pace.burst.saturating_add(wait), self.nanos(now)).ok()?;
        Some(self.at(whole_at.saturating_sub(pace.burst)).max(now))
    }

    /// One more execution, if it may be now; else when it may be, if nobody else takes it.
    pub fn statement(&self, pace: &Pace, now: Instant) -> Result<(), Instant> {
        self.try_one(&self.statements, pace, now)
    }

    /// The next execution's turn, which is taken: nobody else gets it.
    pub fn reserve_statement(&self, pace: &Pace, now: Instant) -> Instant {
        let cost = pace.cost(1);
        let whole_at = self.statements.spend(cost, self.nanos(now));
        self.at(whole_at.saturating_sub(pace.burst)).max(now)
    }

    /// Executions that nobody could count before: they have run.
    pub fn further_statements(&self, pace: &Pace, count: u64, now: Instant) {
        self.statements.spend(pace.cost(count), self.nanos(now));
    }

    /// One more refusal, if it may be now; else when it may be, if nobody else takes it.
    pub fn refusal(&self, pace: &Pace, now: Instant) -> Result<(), Instant> {
        self.try_one(&self.refusals, pace, now)
    }

    /// Bytes that went through.
    pub fn bytes(&self, pace: &Pace, count: usize, now: Instant) {
        self.bytes.spend(pace.cost(count as u64), self.nanos(now));
    }

    /// Whether too many bytes went through: then until when nothing more should.
    pub fn over_bytes(&self, pace: &Pace, now: Instant) -> Option<Instant> {
        let until = self.at(self.bytes.get().saturating_sub(pace.burst));
        (until > now).then_some(until)
    }

    /// Bytes that the log has taken.
    pub fn records(&self, pace: &Pace, count: u64, now: Instant) {
        self.records.spend(pace.cost(count), self.nanos(now));
    }

    /// What is left for records.
    pub fn room(&self, pace: &Pace, now: Instant) -> Room {
        let used = self.records.get().saturating_sub(self.nanos(now));
        if used < pace.burst {
            Room::Ample
        } else if used < pace.burst.saturating_add(pace.burst / 16) {
            Room::Reserve
        } else {
            Room::None
        }
    }

    fn try_one(&self, bucket: &Bucket, pace: &Pace, now: Instant) -> Result<(), Instant> {
        let taken = bucket.try_spend(pace.cost(1), pace.burst, self.nanos(now));
        taken.map(drop).map_err(|at| self.at(at).max(now))
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    fn at(&self, nanos: u64) -> Instant {
        // A time that no clock reaches is as good as the farthest one.
        const FAR: Duration = Duration::from_secs(366 * 24 * 3600);
        let since = Duration::from_nanos(nanos);
        self.epoch.checked_add(since).unwrap_or_else(|| Instant::now() + FAR)
    }
}

impl Bucket {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Uses it up in any case; returns when it is whole again.
    fn spend(&self, cost: u64, now: u64) -> u64 {
        let spent = |whole_at: u64| whole_at.max(now).saturating_add(cost);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole_at| Some(spent(whole_at)));
        before.map_or_else(spent, spent)
    }

    /// Uses it up if there is that much left, and says when it is whole again; else when there is that much.
    fn try_spend(&self, cost: u64, burst: u64, now: u64) -> Result<u64, u64> {
        let spent = |whole_at: u64| whole_at.max(now).saturating_add(cost);
        let allowed = |whole_at: &u64| spent(*whole_at) <= now.saturating_add(burst);
        let update = |whole_at: u64| allowed(&whole_at).then(|| spent(whole_at));
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update) {
            Ok(whole_at) => Ok(spent(whole_at)),
            Err(whole_at) => Err(spent(whole_at).saturating_sub(burst)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(per_second: u32, burst: u32) -> Pace {
        Pace::of(&Rate { per_second, burst, over: Over::Wait })
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_whole_and_then_one_comes_at_a_time() {
        for (rate, burst) in [(3, 3), (7, 1), (1_000_000, 999), (1, 100)] {
            let (meter, pace, start) = (Meter::new(Instant::now()), pace(rate, burst), Instant::now());
            assert!(meter.is_whole(start));
            for _ in 0..burst {
                assert_eq!(meter.statement(&pace, start), Ok(()), "{burst} at once");
            }
            let next = meter.statement(&pace, start).unwrap_err();
            assert_eq!(meter.statement(&pace, next - Duration::from_nanos(1)), Err(next));
            assert_eq!(meter.statement(&pace, next), Ok(()), "it may be when it was said that it may be");
            assert!(meter.statement(&pace, next).is_err() && !meter.is_whole(next));
            assert_eq!(meter.connect(&pace, Duration::ZERO, start), Some(start), "each limit has its own");
            let later = start + Duration::from_secs(3600);
            assert!(meter.is_whole(later));
            assert_eq!((0..1000).filter(|_| meter.statement(&pace, later).is_ok()).count(), burst.min(1000) as usize);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_given_once() {
        let (meter, pace, start) = (Meter::new(Instant::now()), pace(10, 2), Instant::now());
        let turns: Vec<u128> = (0..6).map(|_| (meter.reserve_statement(&pace, start) - start).as_millis()).collect();
        assert_eq!(turns, [0, 0, 100, 200, 300, 400]);
        assert_eq!(meter.statement(&pace, start).unwrap_err() - start, Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connect_gets_a_turn_within_its_patience_or_none() {
        let (meter, start) = (Meter::new(Instant::now()), Instant::now());
        let pace = Pace::new(6_u32, Duration::from_secs(60), 2_u32, Over::Wait);
        let connect = |patience| meter.connect(&pace, Duration::from_secs(patience), start);
        assert_eq!([connect(0), connect(0), connect(0)], [Some(start), Some(start), None]);
        let turns = [connect(20), connect(20), connect(20), connect(30)];
        let after = |seconds| Some(start + Duration::from_secs(seconds));
        assert_eq!(turns, [after(10), after(20), None, after(30)]);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_paid_afterwards() {
        let (meter, pace, start) = (Meter::new(Instant::now()), pace(1000, 500), Instant::now());
        meter.bytes(&pace, 500, start);
        assert_eq!(meter.over_bytes(&pace, start), None);
        meter.bytes(&pace, 64_000, start);
        let until = meter.over_bytes(&pace, start).unwrap();
        assert_eq!(until - start, Duration::from_secs(64));
        assert_eq!(meter.over_bytes(&pace, until), None);
    }

    #[tokio::test(start_paused = true)]
    async fn records_have_a_days_worth_at_once_and_a_reserve_behind_it() {
        let (meter, pace, start) = (Meter::new(Instant::now()), Pace::of_records(16), Instant::now());
        let mib = |count: u64| meter.records(&pace, count << 20, start);
        mib(15);
        assert_eq!(meter.room(&pace, start), Room::Ample);
        mib(1);
        // What a byte costs is rounded up, so that a day's worth is a little more.
        meter.records(&pace, 1024, start);
        assert_eq!(meter.room(&pace, start), Room::Reserve);
        mib(1);
        assert_eq!(meter.room(&pace, start), Room::None);
        assert!(!meter.is_whole(start));
        // Half a MiB comes back in a thirty-second of a day.
        assert_eq!(meter.room(&pace, start + DAY / 32), Room::Reserve);
        assert_eq!(meter.room(&pace, start + DAY / 7), Room::Ample);
        assert!(meter.is_whole(start + 2 * DAY));
        let largest = Pace::of_records(16 << 20);
        assert!(
            largest.burst >= u64::try_from(DAY.as_nanos()).unwrap()
                && largest.burst < 1_100 * 86_400_000_000_000 / 1_000
        );
    }

    proptest! {
        /// In no stretch of time does more pass than `burst` and the rate's share of it; and who asks often enough gets
        /// no less than that, but for the rounding of a nanosecond each.
        #[test]
        fn a_bucket_gives_its_rate_exactly(
            rate in 1..2_000u32,
            burst in 1..50u32,
            gaps in proptest::collection::vec(0..400_000_000u64, 1..300),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let _guard = runtime.enter();
            let (meter, pace, start) = (Meter::new(Instant::now()), pace(rate, burst), Instant::now());
            let mut now = start;
            let mut passed: Vec<Instant> = Vec::new();
            let mut tokens = f64::from(burst);
            let mut last = start;
            for gap in gaps {
                now += Duration::from_nanos(gap);
                // The model: a bucket of fractions.
                tokens = (tokens + (now - last).as_secs_f64() * f64::from(rate)).min(f64::from(burst));
                last = now;
                let slack = 1e-4;
                match meter.statement(&pace, now) {
                    Ok(()) => {
                        prop_assert!(tokens >= 1.0 - slack, "one too many: {tokens}");
                        tokens -= 1.0;
                        passed.push(now);
                    }
                    Err(next) => {
                        prop_assert!(tokens <= 1.0 + slack, "one too few: {tokens}");
                        prop_assert!(next > now);
                    }
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (count, to) in passed[first..].iter().enumerate() {
                    let most = u128::from(burst) * 1_000_000_000 + (*to - *from).as_nanos() * u128::from(rate);
                    prop_assert!((count as u128 + 1) * 1_000_000_000 <= most, "{} in {:?}", count + 1, *to - *from);
                }
            }
        }

        /// However sessions share a bucket, all of them together get its rate.
        #[test]
        fn reserved_turns_are_a_rate_apart(rate in 1..10_000u32, burst in 1..20u32, count in 1..200usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let _guard = runtime.enter();
            let (meter, pace, start) = (Meter::new(Instant::now()), pace(rate, burst), Instant::now());
            let turns: Vec<Instant> = (0..count).map(|_| meter.reserve_statement(&pace, start)).collect();
            for (at, turn) in turns.iter().enumerate() {
                let late = (u32::try_from(at).unwrap() + 1).saturating_sub(burst);
                let exact = f64::from(late) / f64::from(rate);
                let given = (*turn - start).as_secs_f64();
                prop_assert!(given >= exact - 1e-9 && given <= exact + 1e-6, "{at}: {given} and not {exact}");
            }
        }
    }
}

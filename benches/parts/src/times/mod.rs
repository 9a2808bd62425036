//! Times of the parts on a processor, each beside its budget.
//!
//! The budgets divide what the whole may cost beside PgBouncer, on the machine on which that was measured. Where PgBouncer
//! takes 29.5 microseconds of CPU for a transaction of a simple Query, 0.9 of that are 26.6, and forwarding alone
//! takes some 23: what is left for a statement's parts and its records' hashes is 3.6. Where it takes 368
//! nanoseconds for a COPY row of 100 bytes, 0.6 of that are 220, and forwarding takes 141: a row's frame may cost half of
//! what is left, 40. A log-in may take 2 milliseconds, its token's check and its TLS handshake a small part of them. A
//! machine of another speed has other times; an allocation where none is due is one on every machine.

mod cpu_time;
mod framing;
mod handshake;
mod record;
mod statement;
mod tag;
mod token;
mod tracker;

use crate::arguments::Times;
use cpu_time::CpuTime;
use criterion::measurement::Measurement;
use criterion::{BatchSize, Criterion};
use parts::Result;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Samples of a part's time.
const SAMPLES: usize = 40;
/// How long a part warms up, and how long it is measured.
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(1_500);
/// Iterations over which allocations are counted, after as many that are not.
const COUNTED: u32 = 1_000;

/// What is measured, and what it may cost.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Its name; criterion's folder for it.
    pub name: &'static str,
    /// What one figure is of.
    pub per: &'static str,
    /// Such in one iteration.
    pub count: u32,
    /// Nanoseconds of one, at most.
    pub budget: f64,
    /// Allocations of one, at most, where that is asked for.
    pub allocations: Option<f64>,
}

/// One measured figure.
#[derive(Debug, Clone)]
pub struct Line {
    name: String,
    per: &'static str,
    unit: &'static str,
    measured: f64,
    budget: f64,
}

impl Line {
    fn holds(&self) -> bool {
        self.measured <= self.budget
    }
}

/// Every figure.
#[derive(Debug, Default)]
pub struct Report(Vec<Line>);

impl Report {
    /// Whether every budget holds.
    pub fn holds(&self) -> bool {
        self.0.iter().all(Line::holds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44} {:<10} {:>10} {:>10}", "part", "each", "measured", "budget")?;
        for line in &self.0 {
            let Line { name, per, unit, measured, budget } = line;
            let (budget, verdict) = match line {
                _ if budget.is_infinite() => ("-".to_owned(), ""),
                line if line.holds() => (format!("{budget:.0}"), "holds"),
                _ => (format!("{budget:.0}"), "OVER"),
            };
            writeln!(f, "{name:<44} {per:<10} {measured:>10.1} {budget:>10} {unit:<11} {verdict}")?;
        }
        Ok(())
    }
}

/// Measures parts and notes their figures.
pub struct Bench {
    criterion: Criterion<CpuTime>,
    folder: PathBuf,
    only: Option<String>,
    report: Report,
}

/// What the steps of a part have taken so far.
#[derive(Debug, Default)]
pub struct Meter {
    spent: Duration,
    allocations: u64,
    /// Allocations are counted in place of time.
    counts: bool,
}

impl Meter {
    /// One step of the part that is measured.
    fn run<T>(&mut self, step: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.counts {
            let mut result = Err("the step was not made".into());
            self.allocations += allocation_counter::measure(|| result = step()).count_total;
            return result;
        }
        let start = CpuTime.start();
        let result = step();
        self.spent += CpuTime.end(start);
        result
    }
}

impl Bench {
    fn wants(&self, part: &Part) -> bool {
        self.only.as_ref().is_none_or(|only| part.name.contains(only.as_str()))
    }

    /// A part that leaves things as it found them.
    fn time(&mut self, part: Part, mut routine: impl FnMut()) -> Result<()> {
        if !self.wants(&part) {
            return Ok(());
        }
        self.criterion.bench_function(part.name, |bencher| bencher.iter(&mut routine));
        (0..COUNTED).for_each(|_| routine());
        let allocations = allocation_counter::measure(|| (0..COUNTED).for_each(|_| routine()));
        self.note(part, float(allocations.count_total) / f64::from(COUNTED))
    }

    /// A part that uses up what is set up for it, which is not measured.
    fn time_of<T>(&mut self, part: Part, mut set_up: impl FnMut() -> T, mut routine: impl FnMut(T)) -> Result<()> {
        if !self.wants(&part) {
            return Ok(());
        }
        let criterion = &mut self.criterion;
        criterion.bench_function(part.name, |bencher| {
            bencher.iter_batched(&mut set_up, &mut routine, BatchSize::SmallInput);
        });
        let mut total = 0;
        for _ in 0..COUNTED {
            let given = set_up();
            total += allocation_counter::measure(|| routine(given)).count_total;
        }
        self.note(part, float(total) / f64::from(COUNTED))
    }

    /// A part that is done in steps, between which there is something else.
    fn time_within(&mut self, part: Part, mut routine: impl FnMut(&mut Meter)) -> Result<()> {
        if !self.wants(&part) {
            return Ok(());
        }
        self.criterion.bench_function(part.name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut meter = Meter::default();
                (0..iterations).for_each(|_| routine(&mut meter));
                meter.spent
            });
        });
        let mut meter = Meter { counts: true, ..Meter::default() };
        (0..COUNTED).for_each(|_| routine(&mut meter));
        self.note(part, float(meter.allocations) / f64::from(COUNTED))
    }

    fn note(&mut self, part: Part, allocations: f64) -> Result<()> {
        let count = f64::from(part.count);
        let estimates = self.folder.join(part.name).join("new/estimates.json");
        let estimates: serde_json::Value = serde_json::from_slice(&std::fs::read(&estimates)?)?;
        let nanoseconds = estimates.pointer("/median/point_estimate").and_then(serde_json::Value::as_f64);
        let measured = nanoseconds.ok_or("criterion has no median")? / count;
        self.add(part.name, part.per, "ns", (measured, part.budget));
        // Where nothing is asked for it is told all the same.
        let budget = part.allocations.unwrap_or(f64::INFINITY);
        self.add("", part.per, "allocations", (allocations / count, budget));
        Ok(())
    }

    /// A figure that is no time, and what it may be.
    fn add(&mut self, name: &str, per: &'static str, unit: &'static str, figure: (f64, f64)) {
        let (measured, budget) = figure;
        self.report.0.push(Line { name: name.to_owned(), per, unit, measured, budget });
    }
}

/// Measures everything, or the parts whose names have this in them.
pub fn measure(arguments: &Times, folder: PathBuf) -> Result<Report> {
    let criterion = Criterion::default()
        .with_measurement(CpuTime)
        .without_plots()
        .output_directory(&folder)
        .sample_size(SAMPLES)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASURED);
    let mut bench = Bench { criterion, folder, only: arguments.only.clone(), report: Report::default() };
    framing::measure(&mut bench)?;
    tag::measure(&mut bench)?;
    tracker::measure(&mut bench)?;
    record::measure(&mut bench)?;
    statement::measure(&mut bench)?;
    token::measure(&mut bench)?;
    handshake::measure(&mut bench)?;
    Ok(bench.report)
}

#[allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_does_not_hold_is_seen() {
        let line = |measured| Line { name: "x".to_owned(), per: "frame", unit: "ns", measured, budget: 10.0 };
        assert!(Report(vec![line(10.0)]).holds() && !Report(vec![line(9.0), line(10.1)]).holds());
        assert!(Report(vec![line(10.1)]).to_string().contains("OVER"));
        assert!(!Report(vec![line(f64::NAN)]).holds(), "what was not measured holds nothing");
    }
}

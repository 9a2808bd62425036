//! The tables: medians of rounds, and the subject's ratios to each group's cheapest peer.

use crate::cells::{Cell, Size};
use crate::machine::{Moment, commit, machine};
use crate::rounds::{DIRECT, Round, median};
use crate::stage::Stage;
use crate::table::{Figures, Section, aligned, number};
use crate::{Arguments, Result, log_ins, scale};
use std::fmt::Write as _;

/// What a table shows.
struct Table {
    title: &'static str,
    /// The figure's name in the rounds.
    figure: &'static str,
    decimals: usize,
    /// The smallest is the best.
    least: bool,
}

/// What a transaction costs the proxy.
const CPU: &str = "cpu_us";
/// What that counts.
const COUNTED: &str = "\
Counted, here and in every table of the proxy's CPU, is every thread of the process but sinks, which read the audit log
behind it for other systems (threads `audit-sink`): those that serve, which write that log too, and those that sync, hash,
sign and anchor it. Where a peer has sinks, two tables show them alone (beside the data path) and with all the rest (the
whole process). Searching the log is a command of its own.
";

const fn table(title: &'static str, figure: &'static str, decimals: usize, least: bool) -> Table {
    Table { title, figure, decimals, least }
}

const TABLES: [Table; 12] = [
    table("Instructions in user space per transaction (callgrind)", "instructions", 0, true),
    table("Proxy CPU per transaction, microseconds", CPU, 1, true),
    table("CPU beside the data path per transaction, microseconds", "beside_us", 1, true),
    table("CPU of the whole process per transaction, microseconds", "whole_us", 1, true),
    table("Transactions per second", "tps", 0, false),
    table("Latency, median, microseconds", "p50_us", 0, true),
    table("Latency, 99th percentile, microseconds", "p99_us", 0, true),
    table("COPY: proxy CPU seconds per GB (10^9 bytes)", "cpu_s_gb", 2, true),
    table("COPY: MB per second", "mb_s", 0, false),
    table("Log-ins, each with one statement: proxy CPU milliseconds per log-in", "cpu_ms_log_in", 2, true),
    table("Log-ins per second", "log_ins_s", 0, false),
    table("Memory (Pss) per idle session, KiB", "kib_session", 1, true),
];

/// What is told of a peer that stands beside another one.
const BESIDE: [(&str, &str); 11] = [
    ("instructions", "instructions in user space"),
    (CPU, "proxy CPU µs a transaction"),
    ("beside_us", "CPU beside the data path, µs a transaction"),
    ("whole_us", "CPU of the whole process, µs a transaction"),
    ("tps", "transactions a second"),
    ("p50_us", "p50 µs"),
    ("p99_us", "p99 µs"),
    ("cpu_s_gb", "proxy CPU s/GB"),
    ("mb_s", "MB a second"),
    ("cpu_ms_log_in", "proxy CPU ms a log-in"),
    ("log_ins_s", "log-ins a second"),
];

/// A peer as the tables know it.
struct Column {
    name: String,
    group: Option<String>,
    subject: bool,
}

/// A peer that stands beside another one, and what that is about.
struct Beside {
    name: String,
    other: String,
    about: String,
    note: String,
}

/// Everything that the report says.
pub(crate) struct Report<'a> {
    /// Machine, versions, size: name and value.
    pub(crate) facts: Vec<(String, String)>,
    columns: Vec<Column>,
    besides: Vec<Beside>,
    remarks: Vec<String>,
    rounds: &'a [Round],
    quick: bool,
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        stage: &Stage,
        rounds: &'a [Round],
        size: &Size,
        arguments: &Arguments,
        began: &Moment,
    ) -> Result<Self> {
        let mut facts: Vec<(String, String)> = Vec::new();
        let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
        fact("Date", format!("{} to {}", began.date, Moment::now().date));
        fact("Machine", machine());
        fact("Load average before the run", format!("{:.2}", began.load));
        fact("Commit", commit());
        fact("Build", arguments.profile.clone());
        fact("PostgreSQL, pgbench, psql", stage.database.version()?);
        for peer in &stage.peers {
            if let Some(version) = &peer.version {
                fact(&peer.entry.name, version.clone());
            }
        }
        let Size { rounds: number, seconds, copied, idle, .. } = size;
        let each = format!(
            "{number} of {seconds} s for each cell and peer; COPY of {} MB; {idle} idle sessions",
            copied / 1_000_000
        );
        fact("Rounds", each);
        fact("Command", arguments.typed.clone());
        let besides = stage.peers.iter().filter_map(|peer| {
            let entry = peer.entry.clone();
            let about = entry.about.unwrap_or_default();
            Some(Beside { name: entry.name, other: entry.beside?, about, note: entry.note })
        });
        let columns = stage.peers.iter().map(|peer| &peer.entry).filter(|entry| entry.beside.is_none());
        let columns = columns.map(|entry| Column {
            name: entry.name.clone(),
            group: entry.group.clone(),
            subject: entry.subject,
        });
        let remarks = stage.peers.iter().map(|peer| &peer.entry);
        let remarks = remarks.filter_map(|entry| Some(format!("{} {}.", entry.name, entry.sessions.as_ref()?)));
        Ok(Self {
            facts,
            columns: columns.collect(),
            besides: besides.collect(),
            remarks: remarks.collect(),
            rounds,
            quick: size.quick,
        })
    }

    /// Markdown, aligned so that it reads well on a terminal.
    pub(crate) fn render(&self) -> String {
        let mut text = "# pgpassport beside its peers\n\n".to_owned();
        if self.quick {
            text.push_str("**A quick run: it shows that everything works; its figures are no results.**\n\n");
        }
        for (name, value) in &self.facts {
            let _ = writeln!(text, "- {name}: {value}");
        }
        text.push_str(
            "\nMedians of the rounds. All reach the same PostgreSQL through its TLS listener, clients with TLS too; \
             `direct` is\nPostgreSQL without a peer between. A ratio is to the group's best peer in that row.\n",
        );
        for table in &TABLES {
            self.append(&mut text, table);
        }
        let besides = self.besides.iter().map(|beside| self.beside(beside));
        for section in besides.chain(log_ins::sections(self.rounds)).chain(scale::sections(self.rounds)) {
            text.push_str(&section.render());
        }
        text
    }

    /// Every figure that both peers have.
    fn beside(&self, beside: &Beside) -> Section {
        let Beside { name, other, about, note } = beside;
        let ratio = format!("{name} / {other}");
        let mut section = Section::new(about, &["", other, name, "more", &ratio], note);
        let (those, ours) = (Figures { rounds: self.rounds, peer: other }, Figures { rounds: self.rounds, peer: name });
        for cell in Cell::all().into_iter().map(Cell::name) {
            for (figure, unit) in BESIDE {
                let Some((that, this)) = those.of(&cell, figure).zip(ours.of(&cell, figure)) else { continue };
                let decimals = if that < 100.0 { 2 } else { 0 };
                let figures = [that, this, this - that].map(|value| number(Some(value), decimals));
                let mut line = vec![format!("{cell}: {unit}")];
                line.extend(figures);
                line.push(number(Some(this / that), 2));
                section.lines.push(line);
            }
        }
        section
    }

    fn append(&self, text: &mut String, table: &Table) {
        let with_direct: Vec<&str> =
            [DIRECT].into_iter().chain(self.columns.iter().map(|column| column.name.as_str())).collect();
        let cells: Vec<String> = Cell::all().into_iter().map(Cell::name).collect();
        let measured = |peer: &str, cell: &str| median(self.rounds, cell, peer, table.figure);
        let cells: Vec<&String> =
            cells.iter().filter(|cell| with_direct.iter().any(|peer| measured(peer, cell).is_some())).collect();
        let peers: Vec<&str> =
            with_direct.into_iter().filter(|peer| cells.iter().any(|cell| measured(peer, cell).is_some())).collect();
        if cells.is_empty() {
            return;
        }
        let has = |group: &str| {
            let best = |cell: &&String| self.best(group, table.least, |peer| measured(peer, cell));
            cells.iter().any(|cell| best(cell).is_some())
        };
        let ratios: Vec<(&str, &str)> = self.ratios().into_iter().filter(|(_, group)| has(group)).collect();
        let mut lines = vec![
            [""].into_iter()
                .chain(peers.iter().copied())
                .map(str::to_owned)
                .chain(ratios.iter().map(|(subject, group)| format!("{subject} / {group}")))
                .collect::<Vec<String>>(),
        ];
        for cell in cells {
            let figures = peers.iter().map(|peer| number(measured(peer, cell), table.decimals));
            let ratios = ratios.iter().map(|(subject, group)| {
                let best = self.best(group, table.least, |peer| measured(peer, cell));
                number(measured(subject, cell).zip(best).map(|(subject, best)| subject / best), 2)
            });
            lines.push([cell.clone()].into_iter().chain(figures).chain(ratios).collect());
        }
        let _ = write!(text, "\n## {}\n\n{}", table.title, aligned(&lines));
        if table.figure == CPU {
            let _ = write!(text, "\n{COUNTED}");
        }
        if table.figure == "cpu_ms_log_in" {
            for remark in &self.remarks {
                let _ = write!(text, "\n{remark}");
            }
            text.push_str(if self.remarks.is_empty() { "" } else { "\n" });
        }
    }

    /// Subject and group of every ratio.
    fn ratios(&self) -> Vec<(&str, &str)> {
        let mut groups: Vec<&str> = self.columns.iter().filter_map(|column| column.group.as_deref()).collect();
        groups.dedup();
        let subjects = self.columns.iter().filter(|column| column.subject).map(|column| column.name.as_str());
        subjects.flat_map(|subject| groups.iter().map(move |group| (subject, *group))).collect()
    }

    fn best(&self, group: &str, least: bool, measured: impl Fn(&str) -> Option<f64>) -> Option<f64> {
        let group = self.columns.iter().filter(|column| column.group.as_deref() == Some(group));
        let values = group.filter_map(|column| measured(&column.name));
        if least { values.min_by(f64::total_cmp) } else { values.max_by(f64::total_cmp) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Values;

    fn column(name: &str, group: Option<&str>) -> Column {
        Column { name: name.to_owned(), group: group.map(str::to_owned), subject: group.is_none() }
    }

    #[test]
    fn the_subject_is_divided_by_each_groups_best() {
        let figures = [("direct", None), ("a", Some(40.0)), ("b", Some(30.0)), ("c", Some(50.0)), ("us", Some(60.0))];
        let rounds: Vec<Round> = figures
            .into_iter()
            .map(|(peer, cpu)| Round {
                cell: "simple x8".to_owned(),
                peer: peer.to_owned(),
                number: 0,
                values: [("tps", 1000.0)].into_iter().chain(cpu.map(|cpu| ("cpu_us", cpu))).collect::<Values>(),
            })
            .collect();
        let columns = vec![column("a", Some("A")), column("b", Some("B")), column("c", Some("B")), column("us", None)];
        let beside = Beside {
            name: "us".to_owned(),
            other: "a".to_owned(),
            about: "Us beside a".to_owned(),
            note: String::new(),
        };
        let (facts, remarks) = (Vec::new(), Vec::new());
        let report = Report { facts, columns, besides: vec![beside], remarks, rounds: &rounds, quick: false };
        let text = report.render();
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        let row: Vec<String> = line("| simple x8").split('|').map(|cell| cell.trim().to_owned()).collect();
        assert_eq!(row, ["", "simple x8", "40.0", "30.0", "50.0", "60.0", "1.50", "2.00", ""], "{text}");
        assert!(text.contains("## Transactions per second") && !text.contains("## COPY"), "{text}");
        assert!(text.contains("direct"), "{text}");
        let (_, beside) = text.split_once("## Us beside a").unwrap();
        let row = beside.lines().find(|line| line.contains("CPU")).unwrap();
        let row: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(row, ["", "simple x8: proxy CPU µs a transaction", "40.00", "60.00", "20.00", "1.50", ""]);
    }
}

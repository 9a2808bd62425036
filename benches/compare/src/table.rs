//! Tables in Markdown, aligned so that they read well on a terminal.

use crate::rounds::{Round, median};
use std::fmt::Write as _;

/// A table with its title and what must be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) note: String,
    /// The first line is the head.
    pub(crate) lines: Vec<Vec<String>>,
}

impl Section {
    /// A table of this title and head.
    pub(crate) fn new(title: &str, head: &[&str], note: &str) -> Self {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { title: title.to_owned(), note: note.to_owned(), lines: vec![head] }
    }

    /// Nothing where no line is.
    pub(crate) fn render(&self) -> String {
        if self.lines.len() < 2 {
            return String::new();
        }
        let note = if self.note.is_empty() { String::new() } else { format!("\n{}\n", wrapped(&self.note)) };
        format!("\n## {}\n\n{}{note}", self.title, aligned(&self.lines))
    }
}

/// One peer's medians of some rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures<'a> {
    pub(crate) rounds: &'a [Round],
    pub(crate) peer: &'a str,
}

impl Figures<'_> {
    /// A figure of a cell.
    pub(crate) fn of(&self, cell: &str, figure: &str) -> Option<f64> {
        median(self.rounds, cell, self.peer, figure)
    }

    /// The figure, and its ratio to that of another cell.
    pub(crate) fn against(&self, cell: &str, figure: &str, (first, decimals): (&str, usize)) -> [String; 2] {
        let (value, first) = (self.of(cell, figure), self.of(first, figure));
        [number(value, decimals), number(value.zip(first).map(|(value, first)| value / first), 2)]
    }
}

/// `-` where there is none.
pub(crate) fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// 10, 100, 1k, … 1M: as sizes are called in tables.
pub(crate) fn short(number: usize) -> String {
    match number {
        n if n >= 1_000_000 && n % 1_000_000 == 0 => format!("{}M", n / 1_000_000),
        n if n >= 1000 && n % 1000 == 0 => format!("{}k", n / 1000),
        n => n.to_string(),
    }
}

/// Columns are as wide as their widest cell; the first line is the head.
pub(crate) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let length = |cell: &String| cell.chars().count();
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(length).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (place, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = if column == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if place == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                let _ = if column == 0 { write!(text, "|{dashes}-") } else { write!(text, "|{dashes}:") };
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Lines of 120 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= 120 {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Values;

    #[test]
    fn a_figure_stands_beside_its_ratio_to_the_first() {
        let round = |cell: &str, cpu| Round {
            cell: cell.to_owned(),
            peer: "responder".to_owned(),
            number: 0,
            values: Values::from([("cpu_us", cpu)]),
        };
        let rounds = [round("1", 20.0), round("10", 25.0)];
        let figures = Figures { rounds: &rounds, peer: "responder" };
        assert_eq!(figures.against("10", "cpu_us", ("1", 1)), ["25.0", "1.25"]);
        assert_eq!(figures.against("100", "cpu_us", ("1", 1)), ["-", "-"]);
        assert_eq!(Figures { peer: "PostgreSQL", ..figures }.of("1", "cpu_us"), None);
    }

    #[test]
    fn a_table_without_lines_is_not_shown_and_notes_are_wrapped() {
        let mut section = Section::new("Sizes", &["bytes", "µs"], &"word ".repeat(40));
        assert_eq!(section.render(), "");
        section.lines.push(vec!["10".to_owned(), "1.0".to_owned()]);
        let text = section.render();
        assert!(text.starts_with("\n## Sizes\n\n| bytes |  µs |\n|-------|----:|\n| 10    | 1.0 |\n\nword "), "{text}");
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([10, 300, 1000, 100_000, 10_000_000].map(short), ["10", "300", "1k", "100k", "10M"]);
    }
}

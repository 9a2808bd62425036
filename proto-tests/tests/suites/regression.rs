//! PostgreSQL 15's regression and isolation suites: directly, through a proxy that does not tag, and through one that
//! does.

use pgpassport::sim::PostgresOptions;
use proto_tests::judge::Mode;
use proto_tests::suites::padding::differences;
use proto_tests::suites::regress::{ISOLATION, REGRESSION, Run, Suite, regress};
use proto_tests::suites::{self, Postgres15, Suited};
use std::collections::BTreeSet;

/// Without prepared transactions the suites print less.
const SETTINGS: &str = "max_prepared_transactions = 10\nautovacuum = on\n";
/// The statement that shows itself as the server got it.
const SHOW_MYSELF: &str = "select query from pg_stat_activity where pid = pg_backend_pid()";
/// What is told of a suite's own report of differences, in characters.
const DIFFS: usize = 6000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: make suites"]
async fn the_regression_suite() {
    three_ways(REGRESSION, 51_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: make suites"]
async fn the_isolation_suite() {
    // How often it asks whether a session waits depends on the machine: 19,000 lines and more on a busy one.
    three_ways(ISOLATION, 10_000).await;
}

/// What passes directly passes through, with the same output; and with tags once they are taken out. Then the server's
/// log agrees with the records, over at least this many lines.
async fn three_ways(suite: Suite, lines: usize) {
    let postgres = Postgres15::unpack();
    let direct = {
        let suited = suited(&postgres, false).await;
        regress(suite, &postgres, "direct", &suited.direct(suite.database), &suited.chain).await
    };
    passes(suite, "directly", &direct);
    let plain = {
        let suited = suited(&postgres, false).await;
        regress(suite, &postgres, "plain", &suited.through(suite.database), &suited.chain).await
    };
    passes(suite, "through, without tags", &plain);
    for (test, output) in &direct.outputs {
        assert!(plain.outputs[test] == *output, "{test} has another output:\n{}", first_diffs(&plain));
    }
    let suited = suited(&postgres, true).await;
    let login = suited.through(suite.database);
    let log = suited.chain.database_log().len();
    let shown = suited.chain.query(&login, SHOW_MYSELF).await;
    let tag = shown.strip_suffix(SHOW_MYSELF).filter(|tag| tag.starts_with("/*")).expect("the proxy tags");
    let tagged = regress(suite, &postgres, "tagged", &login, &suited.chain).await;
    same_but_for(tag, suite, &direct, &tagged);
    let verdict = suited.judged(log, Mode::Statements).await;
    println!("the judge: {} lines of PostgreSQL's log agree with the records", verdict.agreed.lines());
    verdict.holds(lines);
}

async fn suited(postgres: &Postgres15, tagged: bool) -> Suited {
    let options = PostgresOptions { bin: Some(postgres.bin()), settings: SETTINGS.to_owned() };
    suites::chain(options, tagged).await.with_tls().await
}

/// As much passed as is known to, and nothing was left out.
#[track_caller]
fn passes(suite: Suite, how: &str, run: &Run) {
    println!("{}, {how}: {} of {}", suite.program, run.passed, suite.tests);
    let (passed, outputs) = (run.passed, run.outputs.len());
    let told = first_diffs(run);
    assert_eq!((passed, outputs), (suite.passing, suite.tests), "failed: {:?}\n{told}", run.failed);
}

fn first_diffs(run: &Run) -> String {
    run.diffs.chars().take(DIFFS).collect()
}

/// The tagged run printed what the direct one did, but for tags. No test is excepted.
#[track_caller]
fn same_but_for(tag: &str, suite: Suite, direct: &Run, tagged: &Run) {
    assert_eq!(tagged.outputs.len(), suite.tests, "outputs of the tagged run");
    let (mut same, mut saw_tags, mut found) = (0, Vec::new(), Vec::new());
    for (test, output) in &direct.outputs {
        let through = &tagged.outputs[test];
        let differences = differences(output, through, tag);
        same += usize::from(differences.is_empty());
        if through != output {
            saw_tags.push(test.clone());
        }
        found.extend(differences.into_iter().map(|difference| format!("{test}, {difference}")));
    }
    println!("{}, through, with tags: {same} of {}, after taking tags out of {saw_tags:?}", suite.program, suite.tests);
    assert!(found.is_empty(), "{} differences, among them:\n{}", found.len(), found[..found.len().min(5)].join("\n"));
    let failed: BTreeSet<&String> = direct.failed.iter().chain(&saw_tags).collect();
    assert_eq!(failed, tagged.failed.iter().collect(), "the suite itself found what we found");
}

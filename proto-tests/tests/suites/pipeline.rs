//! `libpq_pipeline` of PostgreSQL 15 and 18: what passes directly passes through, and libpq sees the same protocol.

use pgpassport::sim::PostgresOptions;
use proto_tests::drivers::Postgres18;
use proto_tests::suites::pipeline::{FIFTEEN, MORE_IN_EIGHTEEN, Pipeline, Version};
use proto_tests::suites::{self, DATABASE, Postgres15, Suited};
use std::path::Path;

/// Runs each test directly and through; returns how many passed both ways.
async fn both_ways(program: &Pipeline<'_>, tests: &[&str], options: &str, suited: &Suited) -> usize {
    let (direct, through, chain) = (suited.direct(DATABASE), suited.through(DATABASE), &suited.chain);
    for test in tests {
        let (printed, expected) = program.test(test, options, &direct, chain).await;
        assert!(printed.well, "{test} fails directly: {}", printed.output);
        // What it left would be another notice the second time.
        direct
            .psql(chain.cloud.ca_path(), &["-c", "DROP TABLE IF EXISTS pq_pipeline_demo, pq_pipeline_tst"])
            .await
            .well();
        let (printed, trace) = program.test(test, options, &through, chain).await;
        assert!(printed.well, "{test} {options}: {}", printed.output);
        // What another session's random delays change is no difference of ours.
        if *test != "uniqviol" && *test != "cancel" && *test != "pipelined_insert" {
            assert!(!expected.is_empty(), "{test}: libpq traced nothing");
            assert_eq!(trace, expected, "{test} {options}");
        }
    }
    tests.len()
}

async fn suited(bin: &Path, tagged: bool) -> Suited {
    suites::chain(PostgresOptions { bin: Some(bin.to_owned()), ..PostgresOptions::default() }, tagged).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: make suites"]
async fn the_pipeline_tests_of_15() {
    let postgres = Postgres15::unpack();
    let program = Pipeline::new(Version::Fifteen, &postgres);
    assert_eq!(program.tests().await, FIFTEEN, "its tests");
    for tagged in [false, true] {
        let suited = suited(&postgres.bin(), tagged).await;
        let passed = both_ways(&program, &FIFTEEN, "", &suited).await;
        println!("libpq_pipeline of 15, tags {tagged}: {passed} of {}", FIFTEEN.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: make suites"]
async fn the_pipeline_tests_of_18() {
    let (postgres, newest) = (Postgres15::unpack(), Postgres18::unpack());
    let program = Pipeline::new(Version::Eighteen, &postgres);
    let mut tests = [FIFTEEN.as_slice(), &MORE_IN_EIGHTEEN].concat();
    tests.sort_unstable();
    assert_eq!(program.tests().await, tests, "its tests");
    for tagged in [false, true] {
        let suited = suited(&newest.bin(), tagged).await;
        let latest = both_ways(&program, &tests, "max_protocol_version=latest", &suited).await;
        println!("libpq_pipeline of 18, newest protocol, tags {tagged}: {latest} of {}", tests.len());
        // That test is of newer protocols.
        let older: Vec<&str> = tests.iter().copied().filter(|test| *test != "protocol_version").collect();
        let older = both_ways(&program, &older, "max_protocol_version=3.0", &suited).await;
        println!("libpq_pipeline of 18, protocol 3.0, tags {tagged}: {older} of {}", tests.len() - 1);
    }
}

//! `pg_regress` and `pg_isolation_regress`: PostgreSQL 15's suites against a server that runs already.

use super::{DATABASE, ISOLATED, Postgres15, run};
use crate::chain::Chain;
use crate::psql::Login;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// One of the two suites.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// Its folder below `src/test`.
    name: &'static str,
    /// The program that runs it.
    pub program: &'static str,
    schedule: &'static str,
    /// The database that it runs in.
    pub database: &'static str,
    /// Tests in its schedule.
    pub tests: usize,
    /// Those that pass over TLS: some expect words of libpq's that it has for a connection without.
    pub passing: usize,
}

/// SQL through psql, with up to 20 sessions at once.
pub const REGRESSION: Suite = Suite {
    name: "regress",
    program: "pg_regress",
    schedule: "parallel_schedule",
    database: DATABASE,
    tests: 217,
    passing: 217,
};
/// Sessions that wait for each other, known by their process ids, and cancel each other.
pub const ISOLATION: Suite = Suite {
    name: "isolation",
    program: "pg_isolation_regress",
    schedule: "isolation_schedule",
    database: ISOLATED,
    tests: 115,
    passing: 114,
};

/// One run of all tests.
#[derive(Debug)]
pub struct Run {
    /// Tests whose output was one of the expected ones.
    pub passed: usize,
    /// The others.
    pub failed: Vec<String>,
    /// What each test printed.
    pub outputs: BTreeMap<String, Vec<u8>>,
    /// What the suite found different from what it expects.
    pub diffs: String,
}

/// Runs a suite as this caller; its files are in a folder of this name.
pub async fn regress(suite: Suite, postgres: &Postgres15, name: &str, login: &Login, chain: &Chain) -> Run {
    let folder = postgres.path().join(name);
    // The server writes there too, as another user.
    for made in [folder.clone(), folder.join("results")] {
        std::fs::create_dir(&made).expect("a folder");
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o777)).expect("its mode");
    }
    let inputs = postgres.path().join(suite.name);
    let mut command = postgres.program(&format!("../lib/pgxs/src/test/{}/{}", suite.name, suite.program));
    command
        .args(["--use-existing", "--dbname", suite.database, "--schedule"])
        .arg(inputs.join(suite.schedule))
        .arg("--inputdir")
        .arg(&inputs)
        .arg("--outputdir")
        .arg(&folder)
        .arg("--dlpath")
        .arg(postgres.path().join("libraries"))
        .arg("--bindir")
        .arg(postgres.bin())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let printed = run(command, login, chain).await;
    let failed = tests(&printed.output, "FAILED");
    let passed = tests(&printed.output, "ok").len();
    assert!(passed > 0, "{} ran nothing: {}", suite.program, printed.output);
    assert_eq!(printed.well, failed.is_empty(), "{} says otherwise: {}", suite.program, printed.output);
    let diffs = std::fs::read(folder.join("regression.diffs")).unwrap_or_default();
    let diffs = String::from_utf8_lossy(&diffs).into_owned();
    Run { passed, failed, outputs: outputs(&folder.join("results")), diffs }
}

/// Names of the tests that ended like this: `test boolean ... ok 35 ms`, or `boolean ... ok 35 ms` in a group.
fn tests(output: &str, end: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let (name, rest) = line.split_once("...")?;
        let name = name.trim().trim_start_matches("test ").trim();
        (rest.split_whitespace().next()? == end && !name.contains(' ')).then(|| name.to_owned())
    };
    output.lines().filter_map(of_line).collect()
}

fn outputs(results: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(results).expect("the results").flatten().map(|entry| entry.path());
    let outputs = files.filter(|path| path.extension().is_some_and(|end| end == "out"));
    outputs
        .map(|path| {
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (name, std::fs::read(&path).expect("a result can be read"))
        })
        .collect()
}

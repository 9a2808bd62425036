//! Other proxies' and servers' published bugs, each as a test named after its CVE or issue: what broke them must not
//! break this one. The table is the list; a family of tests shares a chain and runs its tests one after the other.
//!
//! `startup`: before a session. `session` and `copy`: sessions at PostgreSQL, most of them compared byte for byte with
//! the same bytes sent directly. `server`: a program in PostgreSQL's place.

mod copy;
mod server;
mod session;
mod startup;

use std::any::Any;
use std::collections::BTreeSet;

/// What became of a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A test of this family and name.
    Test(&'static str),
    /// Something else already tests it: `file::test` in proto-tests/tests.
    Elsewhere(&'static str),
    /// It cannot happen here, for this reason.
    Cannot(&'static str),
}

use Answer::{Cannot, Elsewhere, Test};

/// The bug, what it was, and what became of it.
const TABLE: [(&str, &str, Answer); 62] = [
    ("CVE-2021-23214", "PostgreSQL believes bytes behind SSLRequest", Test("startup::cve_2021_23214")),
    ("CVE-2021-23222", "libpq believes bytes behind the server's S", Test("server::cve_2021_23222")),
    ("CVE-2021-43766", "Odyssey, the same towards clients", Test("startup::cve_2021_23214")),
    ("CVE-2021-43767", "Odyssey, the same towards servers", Test("server::cve_2021_23222")),
    ("CVE-2021-3935", "PgBouncer, the same with client certificates", Test("startup::cve_2021_23214")),
    ("pgwire P1", "the same in a library", Test("startup::cve_2021_23214")),
    ("sqlx #69", "the same in a driver", Test("server::cve_2021_23222")),
    ("CVE-2026-6664", "PgBouncer, a length that wraps ends the process", Test("startup::cve_2026_6664")),
    ("CVE-2026-6665", "PgBouncer, a server's long SCRAM message overflows", Test("server::cve_2026_6665")),
    ("CVE-2026-6666", "PgBouncer, an error without SQLSTATE ends the process", Test("server::cve_2026_6666")),
    ("CVE-2026-6667", "PgBouncer, KILL_CLIENT for everybody", Cannot("there is no console that takes commands")),
    ("CVE-2025-12819", "PgBouncer, search_path of a client in its own queries", Test("session::cve_2025_12819")),
    ("CVE-2025-2291", "PgBouncer, a password past its end", Test("startup::cve_2025_2291")),
    ("CVE-2015-6817", "PgBouncer, unknown users become auth_user", Test("startup::cve_2015_6817")),
    ("CVE-2012-4575", "PgBouncer, a long database name", Test("startup::cve_2012_4575")),
    ("PgBouncer 1.5.5", "a packet out of order ends the process", Test("startup::pgbouncer_1_5_5")),
    ("PgBouncer 1.7", "what TLS holds is forgotten", Test("session::pgbouncer_1_7")),
    ("PgBouncer #223", "a cancel hits a later statement", Test("session::pgbouncer_223")),
    ("PgBouncer #329", "a storm of cancels", Test("session::pgbouncer_329")),
    ("PgBouncer #717", "a cancel hits another client", Test("session::pgbouncer_717")),
    ("PgBouncer #759", "an error and the next batch cross", Test("session::pgbouncer_759")),
    ("PgBouncer #874", "an Entra user's token is too long", Test("startup::pgbouncer_874")),
    ("PgBouncer #879", "SET DateStyle of its own", Test("session::cve_2025_12819")),
    ("PgBouncer #999", "an empty application_name", Test("session::pgbouncer_999")),
    ("PgBouncer #1023", "Sync before the data of a COPY", Test("copy::pgbouncer_1023")),
    ("PgBouncer #1058", "a greeting in several TLS records", Test("startup::pgbouncer_1058")),
    ("PgBouncer #1064", "options as --name=value", Test("session::pgbouncer_1064")),
    ("PgBouncer #1215", "passwords of 1,024 bytes and more", Test("startup::pgbouncer_1215")),
    ("PgBouncer #1507", "an end without close_notify", Test("session::pgbouncer_1507")),
    ("PgDog #854", "memory, long rows", Test("session::pgdog_854")),
    ("PgDog #886", "COPY with two Syncs", Test("copy::pgdog_886")),
    ("PgDog #1261", "memory, many rows", Test("session::pgdog_854")),
    ("PgDog #1512", "LISTEN in a pipeline", Test("session::pgdog_1512")),
    ("pg_doorman 3.2.4", "Flush in place of Sync", Test("session::pg_doorman_3_2_4")),
    ("pg_doorman 3.3.3", "a long row overtakes what came before it", Test("session::pg_doorman_3_3_3")),
    ("pg_doorman 3.3.4", "a Parse without Sync, then gone", Test("session::pg_doorman_3_3_4")),
    ("pg_doorman 3.3.5", "statements vanish within a batch", Test("session::pg_doorman_3_3_5")),
    ("pg_doorman 3.6.3", "buffers stay as large as they once were", Test("session::pg_doorman_3_6_3")),
    ("pg_doorman 3.6.5", "a client leaves within a long row", Test("session::pg_doorman_3_6_5")),
    ("pg_doorman 3.10.7", "function calls of large objects", Test("session::pg_doorman_3_10_7")),
    ("Supavisor #1061", "replies to what was sent ahead are lost", Test("session::supavisor_1061")),
    ("Supavisor #1079", "the same", Test("session::supavisor_1061")),
    ("Supavisor #1148", "a cancel that is not waited for", Test("session::supavisor_1148")),
    ("Supavisor #1176", "a write that begins with Sync", Test("session::supavisor_1176")),
    ("Neon #998", "a cancel reaches another process", Cannot("a key is valid in the process that gave it out")),
    ("Neon #5839", "the same", Cannot("a key is valid in the process that gave it out")),
    ("Electric #630", "GSSENCRequest ends the process", Test("startup::electric_630")),
    ("hoop #649", "the extended protocol leaves no record", Test("session::teleport_6453")),
    ("Kviklet #267", "statements leave no record", Test("session::teleport_6453")),
    ("Teleport #6453", "the extended protocol leaves no record", Test("session::teleport_6453")),
    ("pgpool #79", "Flush within COPY", Test("copy::pgpool_79")),
    ("GatewayD #533", "COPY stalls", Test("copy::gatewayd_533")),
    ("Duckgres #718", "what follows an error is not skipped", Test("session::duckgres_718")),
    ("XTDB #6079", "CopyFail outside COPY", Test("copy::xtdb_6079")),
    ("Multigres #1274", "errors wait for Sync", Test("session::multigres_1274")),
    ("pgwire P2", "tokens over 10,000 bytes", Test("startup::pgbouncer_1215")),
    ("pgwire P3", "p with a length of 0 to 3 panics", Test("startup::cve_2026_6664")),
    ("pgwire P4", "a second statement behind the NUL", Test("session::pgwire_p4")),
    ("pgwire P5", "text that is not UTF-8 is changed", Test("session::pgwire_p5")),
    ("pgwire P6", "FunctionCall is no message", Test("session::pg_doorman_3_10_7")),
    ("pgwire P7", "1 GiB is promised before the login", Test("startup::pgwire_p7")),
    (
        "pgwire P9",
        "aud is not checked, keys are fetched for every unknown kid",
        Elsewhere("refusals::what_is_not_an_accepted_token_is_refused_before_google_hears_of_it"),
    ),
];
/// Those that are limits to copy, or of the negotiation, named apart in the same source.
const ALSO: [(&str, &str, Answer); 2] = [
    ("pgwire P8", "PostgreSQL's own limits of short messages", Test("session::pgwire_p8")),
    ("pgwire P10", "options of the protocol are not answered", Test("startup::pgwire_p10")),
];
/// Bugs by answer: tested here, tested elsewhere, impossible.
const COUNTS: (usize, usize, usize) = (60, 1, 3);
/// Different tests among them.
const TESTS: usize = 47;

/// Runs one test after the other on one chain; one that fails does not keep the others from running.
#[macro_export]
macro_rules! family {
    ($chain:expr, $($test:ident),+ $(,)?) => {{
        let chain = $chain;
        let mut failed = Vec::new();
        $(
            let name = stringify!($test);
            println!("{name}");
            let outcome = std::panic::AssertUnwindSafe($test(&chain));
            let outcome = futures_util::FutureExt::catch_unwind(outcome).await;
            failed.extend(outcome.err().map(|panic| format!("{name}: {}", $crate::words(&*panic))));
        )+
        assert!(failed.is_empty(), "{failed:#?}");
        chain
    }};
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

const SOURCES: [(&str, &str); 4] = [
    ("startup", include_str!("startup.rs")),
    ("session", include_str!("session.rs")),
    ("copy", include_str!("copy.rs")),
    ("server", include_str!("server.rs")),
];

#[test]
fn every_bug_has_an_answer() {
    let table: Vec<_> = TABLE.iter().chain(&ALSO).collect();
    let bugs: BTreeSet<&str> = table.iter().map(|(name, ..)| *name).collect();
    assert_eq!(bugs.len(), table.len(), "a bug stands twice");
    let count = |wanted: fn(&Answer) -> bool| table.iter().filter(|(_, _, answer)| wanted(answer)).count();
    let counts = (
        count(|answer| matches!(answer, Test(_))),
        count(|answer| matches!(answer, Elsewhere(_))),
        count(|answer| matches!(answer, Cannot(_))),
    );
    assert_eq!(counts, COUNTS);
    let named: BTreeSet<String> = table
        .iter()
        .filter_map(|(_, _, answer)| if let Test(name) = answer { Some((*name).to_owned()) } else { None })
        .collect();
    let mut there = BTreeSet::new();
    for (family, source) in SOURCES {
        let list = source.split("family!(").nth(1).and_then(|rest| rest.split(");").next()).expect("a family");
        let run: BTreeSet<&str> = list.split(',').skip(1).map(str::trim).filter(|name| !name.is_empty()).collect();
        let functions =
            source.lines().filter_map(|line| line.strip_prefix("async fn ")?.split_once("(chain: &Chain) {"));
        let written: BTreeSet<&str> = functions.map(|(name, _)| name).collect();
        assert_eq!(run, written, "{family}: what runs, and what is there");
        let alone = source.lines().filter_map(|line| line.strip_prefix("async fn ")?.strip_suffix("() {"));
        there.extend(alone.filter(|name| !name.starts_with("published_bugs")).map(|name| format!("{family}::{name}")));
        there.extend(run.into_iter().map(|name| format!("{family}::{name}")));
    }
    assert_eq!(named, there, "what the table names, and what is there");
    assert_eq!(there.len(), TESTS);
    for (_, _, answer) in table {
        if let Elsewhere(name) = answer {
            let (file, test) = name.split_once("::").expect("file::test");
            let path = format!("{}/tests/{file}.rs", env!("CARGO_MANIFEST_DIR"));
            let source = std::fs::read_to_string(&path).expect("a file of tests");
            assert!(source.contains(&format!("fn {test}(")), "{name}");
        }
    }
}

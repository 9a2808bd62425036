//! Sessions at PostgreSQL: most scripts run through the proxy and directly, and no answer may differ by a byte.

use crate::family;
use base64::Engine;
use proto_tests::chain::Chain;
use proto_tests::script::{
    Step, bind, describe, execute, flush, parse, query, same, send, sync, through, to_end, types,
};
use proto_tests::wire::{self, message, text};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How much memory a test may cost on top of what was held before, in bytes: far less than what it sends or asks for.
const GROWTH: u64 = 48 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn published_bugs_of_sessions() {
    // The storm is last: what it uses up of this address's cancels comes back in some seconds.
    let mut chain = family!(
        Chain::start().await,
        cve_2025_12819,
        pgbouncer_1_7,
        pgbouncer_223,
        pgbouncer_717,
        pgbouncer_759,
        pgbouncer_999,
        pgbouncer_1064,
        pgbouncer_1507,
        pgdog_854,
        pgdog_1512,
        pg_doorman_3_2_4,
        pg_doorman_3_3_3,
        pg_doorman_3_3_4,
        pg_doorman_3_3_5,
        pg_doorman_3_6_3,
        pg_doorman_3_6_5,
        pg_doorman_3_10_7,
        supavisor_1061,
        supavisor_1148,
        supavisor_1176,
        teleport_6453,
        duckgres_718,
        multigres_1274,
        pgwire_p4,
        pgwire_p5,
        pgwire_p8,
        pgbouncer_329,
    );
    assert!(chain.proxy.is_alive());
    println!("peak memory: {} KiB", chain.proxy.peak_memory() / 1024);
    let records = chain.records_when("every session's end", |records| {
        records.of("session_end").len() == records.of("session_start").len()
    });
    let open = records.await.open();
    assert!(open.is_empty(), "{open:#?}");
}

/// The proxy runs no statement of its own, whatever the client sets at start-up.
async fn cve_2025_12819(chain: &Chain) {
    let login = chain.person();
    let mut stream = chain.tls().await.expect("TLS");
    let startup = wire::startup(&[
        (b"user", login.user.as_bytes()),
        (b"database", login.database.as_bytes()),
        (b"search_path", b"scratch, pg_catalog"),
        (b"DateStyle", b"iso, mdy"),
        (b"application_name", b"cve_2025_12819"),
    ]);
    stream.write_all(&startup).await.expect("sent");
    assert_eq!(wire::read(&mut stream).await.expect("an answer").tag, b'R');
    stream.write_all(&message(b'p', &text(&login.password))).await.expect("sent");
    let greeting = wire::read_until(&mut stream, b'Z').await;
    let key = greeting.iter().find(|message| message.tag == b'K').expect("a key");
    let pid = u32::from_be_bytes([key.body[0], key.body[1], key.body[2], key.body[3]]);
    stream.write_all(&query("select 'its own and only statement'")).await.expect("sent");
    wire::read_until(&mut stream, b'Z').await;
    let log = chain.database_log();
    let of_session = |line: &&str| line.contains(&format!("[{pid}]")) && line.contains("LOG:  ");
    let statements: Vec<&str> =
        log.lines().filter(of_session).filter(|line| line.contains("statement:") || line.contains("execute")).collect();
    assert!(statements.len() == 1 && statements[0].ends_with("select 'its own and only statement'"), "{statements:#?}");
}

/// What one TLS record holds is worked through to its end, without waiting for more.
async fn pgbouncer_1_7(chain: &Chain) {
    let mut stream = chain.session(&chain.person()).await;
    // One write of 2,000 messages in less than one TLS record.
    stream.write_all(&sync().repeat(2_000)).await.expect("sent");
    for _ in 0..2_000 {
        assert_eq!(wire::read(&mut stream).await.expect("an answer").tag, b'Z');
    }
}

/// A cancel that comes too late hits nothing that follows.
async fn pgbouncer_223(chain: &Chain) {
    let connected = chain.connect(&chain.person()).await;
    let cancel = connected.client.cancel_token();
    for number in 0..5 {
        let mut stream = chain.tls().await.expect("TLS");
        cancel.cancel_query_raw(&mut stream, tokio_postgres::NoTls).await.expect("sent");
        // As libpq waits: before the proxy has closed, the cancel may be on its way.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let row = connected.client.query_one("select 1 from pg_sleep(0.1)", &[]).await;
        assert!(row.is_ok(), "statement {number} after an idle cancel: {row:?}");
    }
}

/// A storm of cancels with keys of nobody keeps nobody out.
async fn pgbouncer_329(chain: &Chain) {
    let mut storm = Vec::new();
    for number in 0..200_u32 {
        let mut stream = chain.tcp().await;
        let body = [80_877_102_u32.to_be_bytes(), number.to_be_bytes(), [7; 4]].concat();
        stream.write_all(&[16_u32.to_be_bytes().to_vec(), body].concat()).await.expect("sent");
        storm.push(stream);
    }
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    for mut stream in storm {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok() && rest.is_empty(), "a cancel is answered by a close and nothing else");
    }
}

/// One client's cancels never hit another's statement.
async fn pgbouncer_717(chain: &Chain) {
    let (own, other) = (chain.connect(&chain.person()).await, chain.connect(&chain.person()).await);
    let cancel = own.client.cancel_token();
    let statement = other.client.query_one("select 1 from pg_sleep(2)", &[]);
    let cancels = async {
        for _ in 0..10 {
            let stream = chain.tls().await.expect("TLS");
            // The limit on cancels may answer some of them by a close.
            let _ = cancel.cancel_query_raw(stream, tokio_postgres::NoTls).await;
        }
    };
    let (row, ()) = tokio::join!(statement, cancels);
    assert!(row.is_ok(), "{row:?}");
}

/// An error, its Sync, and the next batch behind it without a pause.
async fn pgbouncer_759(chain: &Chain) {
    let failing = [parse("", "select 1/0"), bind("", ""), execute(""), sync()].concat();
    let next = [parse("n", "select 2"), describe("n"), flush()].concat();
    let rest = [bind("", "n"), execute(""), sync()].concat();
    let script = [send(&[failing, next]), Step::Until(b'T'), send(&[rest])];
    assert_eq!(types(&same(chain, &script).await), "1EZ1tT2DCZ");
}

/// An empty `application_name` is one.
async fn pgbouncer_999(chain: &Chain) {
    let answer = with_parameters(chain, &[(b"application_name", b"")], "show application_name").await;
    assert_eq!(answer, "");
}

/// `options` in each spelling that PostgreSQL takes.
async fn pgbouncer_1064(chain: &Chain) {
    for (options, name, value) in [
        ("--work_mem=5MB", "work_mem", "5MB"),
        ("-c work_mem=6MB", "work_mem", "6MB"),
        ("-cwork_mem=7MB --geqo=off", "geqo", "off"),
        (r"-c application_name=a\ b", "application_name", "a b"),
    ] {
        let answer = with_parameters(chain, &[(b"options", options.as_bytes())], &format!("show {name}")).await;
        assert_eq!(answer, value, "{options}");
    }
}

/// A client that goes without a word, within a transaction or a message, leaves nothing behind.
async fn pgbouncer_1507(chain: &Chain) {
    for last in [query("begin"), query("select pg_sleep(60)"), b"Q\0\0\x01\0select".to_vec(), Vec::new()] {
        let before = chain.records().of("session_end").len();
        let mut stream = chain.session(&chain.person()).await;
        stream.write_all(&last).await.expect("sent");
        stream.flush().await.expect("sent");
        let (tcp, _) = stream.into_inner();
        drop(tcp);
        chain.records_when("the session's end", |records| records.of("session_end").len() > before).await;
    }
    let count = "select count(*) from pg_stat_activity where usename like 'analyst@%' and pid <> pg_backend_pid()";
    let deadline = Instant::now() + Duration::from_secs(20);
    while chain.query(&chain.person(), count).await != "0" {
        assert!(Instant::now() < deadline, "a backend stays");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Long rows and many rows pass through and are not held.
async fn pgdog_854(chain: &Chain) {
    let before = chain.proxy.peak_memory();
    for (text, bytes) in [
        ("select repeat('x', 80000000)", 80_000_000),
        ("select repeat('y', 1000) from generate_series(1, 80000)", 80_000_000_u64),
    ] {
        let mut stream = chain.session(&chain.person()).await;
        stream.write_all(&query(text)).await.expect("sent");
        let (mut total, mut last, mut buffer) = (0_u64, Vec::new(), vec![0; 256 * 1024]);
        while !last.ends_with(b"Z\0\0\0\x05I") {
            let count = stream.read(&mut buffer).await.expect("more");
            assert!(count > 0, "an end after {total} bytes");
            total += count as u64;
            last.extend_from_slice(&buffer[..count]);
            last.drain(..last.len().saturating_sub(6));
        }
        assert!(total > bytes, "{total} bytes");
    }
    grown(chain, before);
}

/// LISTEN and a statement in one pipeline: one `ReadyForQuery`, at the Sync.
async fn pgdog_1512(chain: &Chain) {
    let batch = |statement: &str| [parse("", statement), bind("", ""), execute("")].concat();
    let script = [send(&[batch("listen a"), batch("select 1"), flush()]), Step::Until(b'D'), send(&[sync()])];
    assert_eq!(types(&same(chain, &script).await), "12C12DCZ");
}

/// Batches that end in Flush, many of them, before any Sync.
async fn pg_doorman_3_2_4(chain: &Chain) {
    let mut script = Vec::new();
    for number in 0..30 {
        let name = format!("s{number}");
        script.push(send(&[parse(&name, &format!("select {number}")), describe(&name), flush()]));
        script.push(Step::Until(b'T'));
    }
    script.push(send(&[bind("", "s7"), execute(""), sync()]));
    assert_eq!(types(&same(chain, &script).await), format!("{}2DCZ", "1tT".repeat(30)));
}

/// A row of a megabyte stands behind what came before it.
async fn pg_doorman_3_3_3(chain: &Chain) {
    let long = [parse("l", "select repeat('z', 1000000)"), bind("", "l"), execute("")].concat();
    let short = [bind("", "l"), execute(""), describe("l"), sync()].concat();
    assert_eq!(types(&same(chain, &[send(&[long, short])]).await), "12DC2DCtTZ");
}

/// A Parse whose Sync never comes is nothing to whoever uses its name next.
async fn pg_doorman_3_3_4(chain: &Chain) {
    let mut stream = chain.session(&chain.person()).await;
    stream.write_all(&parse("shared", "select 1")).await.expect("sent");
    drop(stream);
    let script =
        [send(&[parse("shared", "select 2"), bind("", "shared"), execute(""), sync(), bind("", "other"), sync()])];
    assert_eq!(types(&same(chain, &script).await), "12DCZEZ");
}

/// A thousand statements in one batch; the first of them is still there.
async fn pg_doorman_3_3_5(chain: &Chain) {
    let statements: Vec<u8> = (0..1_000).flat_map(|n| parse(&format!("s{n}"), &format!("select {n}"))).collect();
    let answers = same(chain, &[send(&[statements, bind("", "s0"), execute(""), sync()])]).await;
    assert_eq!(types(&answers), format!("{}2DCZ", "1".repeat(1_000)));
}

/// Sessions that once sent something large hold no more for it.
async fn pg_doorman_3_6_3(chain: &Chain) {
    let before = chain.proxy.peak_memory();
    let mut idle = Vec::new();
    for _ in 0..12 {
        let mut stream = chain.session(&chain.person()).await;
        stream.write_all(&query(&format!("select length('{}')", "x".repeat(8_000_000)))).await.expect("sent");
        stream.flush().await.expect("sent");
        wire::read_until(&mut stream, b'Z').await;
        idle.push(stream);
    }
    grown(chain, before);
}

/// A client that leaves within a long row frees its place.
async fn pg_doorman_3_6_5(chain: &Chain) {
    let before = chain.records().of("session_end").len();
    for _ in 0..5 {
        let mut stream = chain.session(&chain.person()).await;
        stream.write_all(&query("select repeat('x', 100000000)")).await.expect("sent");
        let mut some = vec![0; 100_000];
        stream.read_exact(&mut some).await.expect("the row's start");
    }
    chain.records_when("their ends", |records| records.of("session_end").len() >= before + 5).await;
}

/// Function calls, as drivers use them for large objects.
async fn pg_doorman_3_10_7(chain: &Chain) {
    // int4abs(int4), OID 1251, one argument and the result in binary.
    let call = |argument: &[u8]| {
        let length = u32::try_from(argument.len()).expect("short").to_be_bytes();
        let head = [1251_u32.to_be_bytes().as_slice(), &[0, 1, 0, 1, 0, 1], &length].concat();
        message(b'F', &[head, argument.to_vec(), vec![0, 1]].concat())
    };
    let script = [send(&[call(&(-7_i32).to_be_bytes()), query("begin"), call(&[1]), query("rollback")])];
    assert_eq!(types(&same(chain, &script).await), "VZCZEZCZ");
}

/// Batches sent ahead, while the first is still at work.
async fn supavisor_1061(chain: &Chain) {
    let batch = |statement: &str| [parse("", statement), describe(""), bind("", ""), execute(""), sync()].concat();
    let mut script = vec![send(&[batch("select 1 from pg_sleep(0.3)")])];
    script.extend((0..11).map(|number| send(&[batch(&format!("select {number}"))])));
    assert_eq!(types(&same(chain, &script).await), "1tT2DCZ".repeat(12));
}

/// A cancel's connection stays open until the server has closed its own: what is sent after that is safe.
async fn supavisor_1148(chain: &Chain) {
    let connected = chain.connect(&chain.person()).await;
    let cancel = connected.client.cancel_token();
    for _ in 0..3 {
        let sleep = connected.client.simple_query("select pg_sleep(30)");
        let stop = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let stream = chain.tls().await.expect("TLS");
            cancel.cancel_query_raw(stream, tokio_postgres::NoTls).await.expect("sent");
        };
        let (slept, ()) = tokio::join!(sleep, stop);
        let error = slept.expect_err("it was cancelled");
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("57014"));
        connected.client.simple_query("select 1 from pg_sleep(0.05)").await.expect("what follows is not hit");
    }
}

/// A write that begins with the Sync of the batch before it.
async fn supavisor_1176(chain: &Chain) {
    let batch = |statement: &str| [parse("", statement), bind("", ""), execute("")].concat();
    let script = [
        send(&[batch("select 1 from pg_sleep(0.3)")]),
        send(&[sync(), batch("select 2")]),
        send(&[sync(), batch("select 3"), sync()]),
    ];
    assert_eq!(types(&same(chain, &script).await), "12DCZ".repeat(3));
}

/// The extended protocol is recorded as the simple one is, text and all, by every name it is used under.
async fn teleport_6453(chain: &Chain) {
    let statement = "select 'teleport 6453', $1::text";
    let parameter = [b"\0named\0".as_slice(), &[0, 0, 0, 1, 0, 0, 0, 1, b'v', 0, 0]].concat();
    let script = [
        send(&[parse("named", statement), message(b'B', &parameter), execute(""), sync()]),
        send(&[message(b'B', &parameter), execute(""), sync()]),
        send(&[query("select 'teleport 6453 too'")]),
    ];
    assert_eq!(types(&through(chain, &chain.person(), &script).await), "12DCZ2DCZTDCZ");
    let records = chain.records_when("both executions", |records| records.began(statement).len() >= 2).await;
    assert!(records.began("select 'teleport 6453 too'").len() == 1, "{records:#?}");
    for begin in &records.began(statement).of("begin") {
        assert_eq!(begin["caller"]["label"], "analyst@contoso.example", "{begin}");
    }
}

/// What stands between an error and the next Sync does not run.
async fn duckgres_718(chain: &Chain) {
    let run = |statement: &str| [parse("", statement), bind("", ""), execute("")].concat();
    let script = [
        send(&[query("create temp table t (a int)")]),
        send(&[
            run("insert into t values (1)"),
            run("select 1/0"),
            run("insert into t values (2)"),
            query("insert into t values (3)"),
            sync(),
        ]),
        send(&[query("select count(*) from t")]),
    ];
    let answers = same(chain, &script).await;
    assert_eq!(types(&answers), "CZ12C1EZTDCZ");
    let row = answers.iter().find(|answer| answer.tag == b'D').expect("a row");
    assert!(row.body.ends_with(b"0"), "nothing was committed: {row:?}");
}

/// An error in the extended protocol arrives at once, without Flush or Sync.
async fn multigres_1274(chain: &Chain) {
    let mut stream = chain.session(&chain.person()).await;
    stream.write_all(&parse("", "select from where")).await.expect("sent");
    let began = Instant::now();
    assert_eq!(wire::read(&mut stream).await.expect("an answer").sqlstate(), "42601");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A second statement behind the NUL of the first, or a text without one: refused as PostgreSQL refuses it, and
/// nothing of what stands behind the NUL runs or passes for the record's text.
async fn pgwire_p4(chain: &Chain) {
    let script = [
        send(&[query("create temp table smuggled (a int)")]),
        send(&[message(b'Q', b"select 'p4'\0drop table smuggled\0")]),
        send(&[message(b'Q', &[text("select 'p4'"), query("drop table smuggled")].concat())]),
        send(&[message(b'Q', b"select 'p4'")]),
        send(&[message(b'P', b"\0select 'p4'\0\0\0drop table smuggled\0"), sync()]),
        send(&[query("select count(*) from smuggled")]),
    ];
    let answers = same(chain, &script).await;
    assert_eq!(types(&answers), "CZEZEZEZEZTDCZ");
    for error in answers.iter().filter(|answer| answer.tag == b'E') {
        assert_eq!(error.sqlstate(), "08P01");
    }
    let records = chain.records();
    assert_eq!(records.began("select 'p4'").len(), 4, "what stands before the NUL is what the record has");
    assert!(!records.iter().any(|record| record["text"].as_str().is_some_and(|text| text.contains("drop table"))));
    assert!(!chain.database_log().contains("statement: drop"), "it never ran");
}

/// Text in other encodings passes byte for byte, into the record too.
async fn pgwire_p5(chain: &Chain) {
    for (encoding, bytes) in
        [("SJIS", b"\x83\x5c\x95\x5c".as_slice()), ("LATIN1", b"\xe9\xff"), ("UTF8", "é表".as_bytes())]
    {
        let literal = [b"select '", bytes, b"'\0"].concat();
        let script = [send(&[query(&format!("set client_encoding = {encoding}"))]), send(&[message(b'Q', &literal)])];
        let answers = same(chain, &script).await;
        let row = answers.iter().find(|answer| answer.tag == b'D').unwrap_or_else(|| panic!("{encoding}: {answers:?}"));
        assert!(row.body.ends_with(bytes), "{encoding}: {row:?}");
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(b"select '\x83\x5c\x95\x5c'");
    assert_eq!(chain.records().of("begin").with("text_base64", &encoded).len(), 1, "the bytes are in the record");
}

/// Messages that PostgreSQL keeps short are as short here.
async fn pgwire_p8(chain: &Chain) {
    for kind in [b'C', b'D', b'E', b'H', b'S', b'c', b'f'] {
        let fits = message(kind, &vec![b'x'; 9_996]);
        let answers = through(chain, &chain.person(), &[send(&[fits, sync(), query("select 1")])]).await;
        assert!(types(&answers).ends_with('Z'), "{}: {}", char::from(kind), types(&answers));
        let mut stream = chain.session(&chain.person()).await;
        stream.write_all(&message(kind, &vec![b'x'; 9_997])).await.expect("sent");
        let answers = to_end(&mut stream).await;
        let last = answers.last().expect("a last word");
        assert_eq!(
            (last.sqlstate().as_str(), last.field(b'S').as_deref()),
            ("08P01", Some("FATAL")),
            "{}",
            char::from(kind)
        );
    }
}

/// Logs in with more parameters and asks one question; the answer's only column.
async fn with_parameters(chain: &Chain, parameters: &[(&[u8], &[u8])], question: &str) -> String {
    let login = chain.person();
    let own: [(&[u8], &[u8]); 2] = [(b"user", login.user.as_bytes()), (b"database", login.database.as_bytes())];
    let mut stream = chain.tls().await.expect("TLS");
    stream.write_all(&wire::startup(&[own.as_slice(), parameters].concat())).await.expect("sent");
    assert_eq!(wire::read(&mut stream).await.expect("an answer").tag, b'R');
    stream.write_all(&message(b'p', &text(&login.password))).await.expect("sent");
    wire::read_until(&mut stream, b'Z').await;
    stream.write_all(&query(question)).await.expect("sent");
    let answers = wire::read_until(&mut stream, b'Z').await;
    let row = answers.iter().find(|answer| answer.tag == b'D').expect("a row");
    // One column: its count, its length, its text.
    String::from_utf8_lossy(&row.body[6..]).into_owned()
}

/// The process's memory has not grown with what passed through it.
fn grown(chain: &Chain, before: u64) {
    let grown = chain.proxy.peak_memory() - before;
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < GROWTH, "{grown} bytes more");
}

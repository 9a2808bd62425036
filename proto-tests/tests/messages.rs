//! Message kinds at a real PostgreSQL, of two major versions: as directly, byte for byte.

use proto_tests::chain::{Chain, Setup};
use proto_tests::script::{
    self, Step, alike, bind, execute, flush, parse, query, same, send, sync, through, to_end, types,
};
use proto_tests::servers::{At, each};
use proto_tests::wire::{self, Message, message, text};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// The simulator's superuser.
const OWNER: &str = "cloudsqladmin";
/// `lo_create`, `lo_open`, `loread`, `lowrite`, `lo_lseek`, `lo_unlink` (`pg_proc.dat`).
const CREATE: u32 = 715;
const OPEN: u32 = 952;
const READ: u32 = 954;
const WRITE: u32 = 955;
const SEEK: u32 = 956;
const UNLINK: u32 = 964;
/// How much of a large object is written and read at once.
const PIECE: usize = 300_000;

/// COPY that the client gives up, in both protocols: in its own words, and the session goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_the_client_fails_is_told_in_its_own_words() {
    for At { name, chain, .. } in each(Setup::default, "").await {
        let give_up = [message(b'd', b"1\n2\n"), message(b'f', &text("no more of this")), query("table t")].concat();
        let start = query("create temp table t (a int)");
        let extended = [parse("", "copy t from stdin"), bind("", ""), execute("")].concat();
        let skipped = [parse("", "insert into t values (3)"), bind("", ""), execute(""), sync()].concat();
        for (script, expected) in [
            (vec![send(&[start.clone(), query("copy t from stdin")]), Step::Until(b'G'), send(&[give_up])], "CZGEZTCZ"),
            (
                vec![
                    send(&[start, extended, flush()]),
                    Step::Until(b'G'),
                    send(&[message(b'd', b"1\n"), flush(), message(b'f', &text("no more of this"))]),
                    Step::Until(b'E'),
                    send(&[skipped, query("table t")]),
                ],
                "CZ12GEZTCZ",
            ),
        ] {
            let answers = same_but_for_oids(&chain, &script).await;
            assert_eq!(types(&answers), expected, "{name}");
            let error = answers.iter().find(|answer| answer.tag == b'E').expect("an error");
            assert_eq!(error.sqlstate(), "57014", "{name}");
            assert!(error.field(b'M').expect("a message").contains("no more of this"), "{name}: {error:?}");
        }
    }
}

/// Each session's temporary table has an OID of its own, which a `RowDescription` tells.
async fn same_but_for_oids(chain: &Chain, script: &[Step]) -> Vec<Message> {
    let proxied = through(chain, &chain.person(), script).await;
    let direct = script::run(&mut script::direct(chain).await, script).await;
    let without = |messages: &[Message]| messages.iter().filter(|message| message.tag != b'T').cloned().collect();
    let (left, right): (Vec<Message>, Vec<Message>) = (without(&proxied), without(&direct));
    alike(&left, &right);
    assert_eq!(types(&proxied), types(&direct));
    proxied
}

/// What a session reports of itself: at a SET, and after a reload that it did not ask for.
#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_told_whenever_they_change() {
    for At { name, chain, .. } in each(Setup::default, "").await {
        let sets = ["set timezone = 'Asia/Tokyo'", "set client_encoding = latin1; set datestyle = german"];
        let extended = [parse("", "set application_name = 'told'"), bind("", ""), execute(""), sync()].concat();
        let answers = same(&chain, &[send(&[query(sets[0]), query(sets[1]), extended, query("reset all")])]).await;
        assert!(types(&answers).matches('S').count() >= 5, "{name}: {}", types(&answers));
        let (mut proxied, mut direct) = (chain.session(&chain.person()).await, script::direct(&chain).await);
        let reload = [query("alter system set timezone = 'Europe/Berlin'"), query("select pg_reload_conf()")];
        let mut owner = script::direct_as(&chain, OWNER).await;
        assert_eq!(types(&script::run(&mut owner, &[send(&reload)]).await), "CZTDCZ");
        // A session hears of it with its next message: who asks until it does.
        let (left, right) = (until_told(&mut proxied).await, until_told(&mut direct).await);
        assert_eq!(left, right, "{name}");
        assert_eq!(left.body, b"TimeZone\0Europe/Berlin\0", "{name}");
    }
}

async fn until_told<S: AsyncRead + AsyncWrite + Unpin>(session: &mut S) -> Message {
    for _ in 0..200 {
        session.write_all(&query("select 1 from pg_sleep(0.05)")).await.expect("sent");
        let answers = wire::read_until(session, b'Z').await;
        if let Some(told) = answers.into_iter().find(|answer| answer.tag == b'S') {
            return told;
        }
    }
    panic!("no ParameterStatus");
}

/// A notice that no message of the client has caused: of a session that says how it takes notifications in.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_reaches_an_idle_client() {
    for At { name, chain, .. } in each(Setup::default, "").await {
        let (mut proxied, mut direct) = (chain.session(&chain.person()).await, script::direct(&chain).await);
        let listen = query("set trace_notify = on; set client_min_messages = debug1; listen topic");
        proxied.write_all(&listen).await.expect("sent");
        direct.write_all(&listen).await.expect("sent");
        let (left, right) = (wire::read_until(&mut proxied, b'Z').await, wire::read_until(&mut direct, b'Z').await);
        assert_eq!(types(&left), types(&right), "{name}");
        let mut owner = script::direct_as(&chain, OWNER).await;
        owner.write_all(&query("notify topic, 'now'")).await.expect("sent");
        wire::read_until(&mut owner, b'Z').await;
        let (left, right) = (wire::read_until(&mut proxied, b'A').await, wire::read_until(&mut direct, b'A').await);
        assert_eq!(left, right, "{name}");
        assert!(left.iter().any(|message| message.tag == b'N'), "{name}: {}", types(&left));
    }
}

/// `FunctionCall` with arguments and result in binary.
fn call(function: u32, arguments: &[&[u8]]) -> Vec<u8> {
    let count = u16::try_from(arguments.len()).expect("few").to_be_bytes();
    let mut body = [function.to_be_bytes().as_slice(), &[0, 1, 0, 1], &count].concat();
    for argument in arguments {
        body.extend_from_slice(&u32::try_from(argument.len()).expect("short").to_be_bytes());
        body.extend_from_slice(argument);
    }
    body.extend_from_slice(&[0, 1]);
    message(b'F', &body)
}

/// Large objects as libpq has them: by function calls, long ones in both directions, and recorded.
#[tokio::test(flavor = "multi_thread")]
async fn large_objects_are_made_written_and_read_by_function_calls() {
    let int = |number: i32| number.to_be_bytes();
    let data: Vec<u8> = (0..PIECE).map(|number| b'a' + u8::try_from(number % 26).expect("a letter")).collect();
    for At { name, chain, .. } in each(Setup::default, "").await {
        let script = [
            send(&[query("begin"), call(CREATE, &[&int(424_242)]), call(OPEN, &[&int(424_242), &int(0x60000)])]),
            send(&[call(WRITE, &[&int(0), &data]), call(SEEK, &[&int(0), &int(0), &int(0)])]),
            send(&[call(READ, &[&int(0), &int(i32::try_from(PIECE).expect("short"))]), call(UNLINK, &[&int(424_242)])]),
            send(&[query("commit"), call(OPEN, &[&int(424_242), &int(0)]), call(0, &[]), query("select 1")]),
        ];
        let answers = same(&chain, &script).await;
        assert_eq!(types(&answers), "CZVZVZVZVZVZVZCZEZEZTDCZ", "{name}");
        assert!(answers.iter().any(|answer| answer.tag == b'V' && answer.body.ends_with(&data)), "{name}");
        let records = chain.records_when("the ends", |records| records.open().is_empty()).await;
        let written = records.of("begin").iter().find(|begin| begin["function_oid"] == WRITE).cloned();
        let end = records.end_of(&written.expect("the record of lowrite")).clone();
        assert!(end["bytes_in"].as_u64().is_some_and(|bytes| bytes > PIECE as u64), "{name}: {end}");
        let read = records.of("begin").iter().find(|begin| begin["function_oid"] == READ).cloned();
        let end = records.end_of(&read.expect("the record of loread")).clone();
        assert!(end["bytes_out"].as_u64().is_some_and(|bytes| bytes > PIECE as u64), "{name}: {end}");
    }
}

/// A name that does not end within what is looked at is refused: the transaction around it is aborted at PostgreSQL,
/// nothing of it commits, and the session lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_a_limit_fails_at_postgresql_too_and_the_session_lives() {
    const INSERT: &str = "insert into orders values (9000, 'refused', 1, '2026-11-22')";
    const ANOTHER: &str = "insert into orders values (9001, 'refused', 1, '2026-11-22')";
    let endless = "n".repeat(70_000);
    for At { name, chain, .. } in each(Setup::default, "").await {
        for refused in [
            vec![parse(&endless, ANOTHER), sync()],
            vec![parse("", ANOTHER), bind("", &endless), execute(""), sync()],
            vec![parse("", ANOTHER), bind(&endless, ""), execute(""), sync()],
            vec![parse("", ANOTHER), bind("", ""), execute(""), parse(&endless, "select 1"), sync()],
        ] {
            let around = [query("begin"), query(INSERT), refused.concat(), query("commit"), query("select 1")];
            let answers = through(&chain, &chain.person(), &[send(&around)]).await;
            let errors: Vec<&Message> = answers.iter().filter(|answer| answer.tag == b'E').collect();
            assert_eq!((errors.len(), errors[0].sqlstate().as_str()), (1, "54000"), "{name}: {answers:?}");
            assert_eq!(errors[0].field(b'S').as_deref(), Some("ERROR"), "{name}");
            assert!(types(&answers).ends_with("EZCZTDCZ"), "{name}: {}", types(&answers));
            let completed: Vec<&[u8]> =
                answers.iter().filter(|answer| answer.tag == b'C').map(|answer| answer.body.as_slice()).collect();
            assert!(completed.contains(&b"ROLLBACK\0".as_slice()), "{name}: COMMIT takes back");
        }
        assert_eq!(chain.query(&chain.person(), "select count(*) from orders where id >= 9000").await, "0", "{name}");
        assert!(!chain.database_log().contains("nnnnnnnn"), "{name}: a refused name reached the database");
    }
}

/// `CancelRequest` with a key of any length.
fn cancel(pid: &[u8], secret: &[u8]) -> Vec<u8> {
    let length = u32::try_from(12 + secret.len()).expect("short").to_be_bytes();
    [&length, 80_877_102_u32.to_be_bytes().as_slice(), pid, secret].concat()
}

/// Protocol 3.2's long keys: the whole of it ends the statement, anything less or else ends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_key_cancels_and_no_part_of_it_does() {
    for At { name, chain, .. } in each(Setup::default, "").await {
        let login = chain.person();
        let mut stream = chain.tls().await.expect("TLS");
        let mut packet = wire::startup(&[(b"user", login.user.as_bytes()), (b"database", login.database.as_bytes())]);
        packet[6..8].copy_from_slice(&[0, 2]);
        stream.write_all(&packet).await.expect("sent");
        wire::read_until(&mut stream, b'R').await;
        stream.write_all(&message(b'p', &text(&login.password))).await.expect("sent");
        let greeting = wire::read_until(&mut stream, b'Z').await;
        let key = greeting.iter().find(|message| message.tag == b'K').expect("a key").body.clone();
        let (pid, secret) = key.split_at(4);
        assert_eq!(secret.len(), 32, "{name}");
        stream.write_all(&query("select pg_sleep(60)")).await.expect("sent");
        chain.records_when("the sleep", |records| !records.began("select pg_sleep(60)").is_empty()).await;
        let mut other = secret.to_vec();
        other[31] ^= 1;
        for wrong in [&secret[..4], &secret[..31], other.as_slice(), &[secret, &[0]].concat(), secret] {
            let mut tls = chain.tls().await.expect("TLS");
            tls.write_all(&cancel(pid, wrong)).await.expect("sent");
            assert!(to_end(&mut tls).await.is_empty(), "{name}: a cancel is answered by a close");
        }
        let told = wire::read_until(&mut stream, b'E').await.pop().expect("an error");
        assert_eq!(told.sqlstate(), "57014", "{name}");
        let records = chain.records_when("the cancel", |records| !records.of("cancel").is_empty()).await;
        assert_eq!(records.of("cancel").with("outcome", "forwarded").len(), 1, "{name}: {:#?}", records.of("cancel"));
    }
}

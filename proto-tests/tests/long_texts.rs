//! Texts longer than a begin record has: what is recorded of them, when, and what becomes of one that the log does not take.

use proto_tests::chain::{Chain, Setup};
use proto_tests::proxy::{Limited, binary};
use proto_tests::records::Records;
use proto_tests::script::{bind, execute, parse, query, sync, to_end};
use proto_tests::servers::{At, each};
use proto_tests::stand_in::StandIn;
use proto_tests::wire;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

type Raw = TlsStream<TcpStream>;

const MIB: usize = 1 << 20;

/// So many bytes of each text are recorded.
fn recording(bytes: usize) -> Setup {
    Setup::default().replace("[audit]\n", &format!("[audit]\nmax_text_bytes = {bytes}\n"))
}

/// A statement of so many bytes, whose characters have one to four.
fn long(bytes: usize) -> String {
    let (start, end) = ("select length('needle ahead", " needle behind')");
    let mut text = start.to_owned();
    for n in 0_u64.. {
        let word = format!(" {n} \u{e9}\u{20ac}\u{1d11e}");
        if text.len() + word.len() + end.len() > bytes {
            break;
        }
        text.push_str(&word);
    }
    let fill = bytes - text.len() - end.len();
    format!("{text}{}{end}", "-".repeat(fill))
}

/// Sends in pieces of odd sizes and reads up to `ReadyForQuery`: SQLSTATEs and command tags.
async fn ask(session: &mut Raw, bytes: &[u8]) -> Vec<String> {
    for piece in bytes.chunks(99_991) {
        session.write_all(piece).await.expect("sent");
        session.flush().await.expect("sent");
    }
    let mut answers = Vec::new();
    loop {
        let answer = wire::read(session).await.expect("an answer");
        match answer.tag {
            b'E' => answers.push(answer.sqlstate()),
            b'C' => answers.push(String::from_utf8_lossy(&answer.body).trim_end_matches('\0').to_owned()),
            b'Z' => return answers,
            _ => {}
        }
    }
}

/// SHA-256 as coreutils have it.
fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("coreutils");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("written");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a digest").to_owned()
}

fn parsed_and_run(text: &str) -> Vec<u8> {
    [parse("", text), bind("", ""), execute(""), sync()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_is_recorded_in_parts_that_are_the_text() {
    for At { name, chain, .. } in each(|| recording(4 * MIB), "").await {
        let mut session = chain.session(&chain.app()).await;
        let (whole, more) = (long(3 * MIB), long(5 * MIB));
        for (kind, text, bytes) in [
            ("Q", &whole, query(&whole)),
            ("P", &whole, parsed_and_run(&whole)),
            ("Q", &more, query(&more)),
            ("P", &more, parsed_and_run(&more)),
        ] {
            assert_eq!(ask(&mut session, &bytes).await, ["SELECT 1"], "{name}, {kind}");
            let last = |records: &Records, event| Some(records.of(event).iter().last()?["id"].clone());
            let ended = |records: &Records| last(records, "begin") == last(records, "end");
            let records = chain.records_when("its end", ended).await;
            let end = records.of("end").iter().last().expect("an end").clone();
            let (recorded, cut) = records.whole_text(end["id"].as_str().expect("an id"));
            assert_eq!(cut, text.len() > 4 * MIB, "{name}, {kind}");
            if cut {
                assert!(text.as_bytes().starts_with(&recorded) && recorded.len() + 3 >= 4 * MIB, "{name}, {kind}");
            } else {
                assert!(text.as_bytes() == recorded, "{name}, {kind}: {} bytes are others", recorded.len());
                assert_eq!(end["text_sha256"], sha256(&recorded), "{name}, {kind}");
            }
            assert_eq!(end["text_sha256"], sha256(text.as_bytes()), "{name}, {kind}");
            assert_eq!(end["text_bytes"], text.len(), "{name}, {kind}");
        }
        // It is remembered, and run again: the parts are not written again.
        let parts = chain.records().of("text").len();
        let again = [parse("again", &whole), bind("", "again"), execute(""), sync()].concat();
        ask(&mut session, &again).await;
        let once = chain.records().of("text").len() - parts;
        assert_eq!(ask(&mut session, &[bind("", "again"), execute(""), sync()].concat()).await, ["SELECT 1"]);
        let records = chain.records();
        assert_eq!(records.of("text").len(), parts + once, "{name}");
        let bind = records.messages("bind").iter().last().expect("a Bind").clone();
        let (text, _) = records.whole_text(bind["text_of"].as_str().expect("whose text it is"));
        assert!(text == whole.as_bytes(), "{name}");
        told(&chain, &whole);
        assert!(chain.proxy.peak_memory() < 128 << 20, "{name}: {} bytes", chain.proxy.peak_memory());
    }
}

/// What readers see of them.
fn told(chain: &Chain, whole: &str) {
    let audit = |command: &str, more: &[&str]| -> Vec<Value> {
        let mut audit = Command::new(binary());
        audit.args(["audit", command]).arg(chain.audit_folder()).args(more).env_remove("PGPASSPORT_CONFIG");
        let output = audit.output().expect("the binary runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let behind = audit("search", &["--json", "--text", "NEEDLE BEHIND"]);
    assert_eq!(behind.len(), 4, "of texts that are recorded whole, also of the one that was run again");
    assert_eq!(audit("search", &["--json", "--text", "needle ahead"]).len(), 6);
    assert_eq!(audit("search", &["--json", "--text", "needle beneath"]).len(), 0);
    // Whatever place is searched for, a part's edge among them.
    for at in (0..whole.len()).step_by(65_536 * 13).skip(1).chain([65_536 * 3 + 40]) {
        let edge = |at: usize| (at..whole.len()).find(|at| whole.is_char_boundary(*at)).expect("a character");
        let (start, end) = (edge(at - 20), edge(at + 20));
        assert_eq!(audit("search", &["--json", "--text", &whole[start..end]]).len(), 6, "at {at}");
    }
    let session = behind[0]["session"].as_str().expect("a session");
    let story = audit("session", &[session, "--json"]);
    let texts =
        story.iter().filter(|item| item["event"] == "execution").map(|item| item["text"].as_str().expect("a text"));
    assert_eq!(texts.filter(|text| *text == whole).count(), 3, "the one that was run again names whose it is");
}

/// How many bytes of the text PostgreSQL's place has been sent.
fn of_text(received: &[u8]) -> &[u8] {
    let at = received.windows(13).position(|bytes| bytes == b"select length");
    let text = at.map_or(&[][..], |at| &received[at..]);
    text.strip_suffix(&[0]).unwrap_or(text)
}

/// How much of the text is recorded, which must be at least what has arrived.
#[track_caller]
fn recorded(chain: &Chain, received: &[u8]) -> usize {
    let records = chain.records();
    let begin = records.of("begin").iter().last().expect("its begin").clone();
    let (recorded, cut) = records.whole_text(begin["id"].as_str().expect("an id"));
    let arrived = of_text(received);
    assert!(recorded.starts_with(arrived) && !cut, "{} arrived, {} are recorded", arrived.len(), recorded.len());
    recorded.len()
}

/// At the wire: whenever somebody looks, the log has at least what PostgreSQL has; and when the proxy is killed then.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_text_arrives_that_is_not_recorded() {
    // More than the sockets between hold.
    let text = long(24 * MIB);
    let bytes = query(&text);
    let mut chain = recording(32 * MIB).start().await;
    let mut within = 0;
    for (round, at) in [150_000, 600_000, 1_500_000].into_iter().enumerate() {
        let stand_in = StandIn::start(&chain).await;
        let login = chain.app();
        let (session, mut backend) = tokio::join!(chain.session(&login), stand_in.session());
        let (mut client, piece) = (session, 20_000 + round * 7_919);
        let sent = bytes.clone();
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(piece) {
                if client.write_all(piece).await.is_err() || client.flush().await.is_err() {
                    break;
                }
            }
            client
        });
        let mut received = Vec::new();
        while received.len() < at {
            let mut more = vec![0; 300_000];
            let read = backend.stream.read(&mut more).await.expect("more");
            received.extend_from_slice(&more[..read]);
            recorded(&chain, &received);
        }
        chain.proxy.kill();
        chain.proxy.ended().await;
        received.extend(backend.rest().await);
        let recorded = recorded(&chain, &received);
        within += usize::from(recorded < text.len());
        println!("{} bytes of the text had arrived, {recorded} are recorded", of_text(&received).len());
        drop(sending.await);
        chain.cloud.stand_in(None);
        chain.start_again();
        chain.proxy.ready().await;
    }
    assert!(within > 0, "none was killed in the midst of it");
}

async fn send(session: &mut Raw, bytes: &[u8]) {
    session.write_all(bytes).await.expect("sent");
    session.flush().await.expect("sent");
}

/// The log takes no more of a text whose start has left: nothing can stand in its place, so the session ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_log_takes_no_more_of_ends_the_session_and_nothing_commits() {
    let limited = || recording(4 * MIB).limited(Limited::Later);
    for At { name, chain, .. } in each(limited, "").await {
        let insert = format!("insert into orders values (9001, '{}', 1, '2026-11-22')", "x".repeat(3 * MIB));
        let halves = [query(&insert), parsed_and_run(&insert)];
        for (kind, bytes) in ["Q", "P"].into_iter().zip(halves) {
            let mut session = chain.session(&chain.app()).await;
            let row = "insert into orders values (9000, 'refused', 1, '2026-11-22')";
            assert_eq!(ask(&mut session, &[query("begin"), query(row)].concat()).await, ["BEGIN"], "{name}, {kind}");
            assert_eq!(wire::read(&mut session).await.expect("the row").tag, b'C', "{name}, {kind}");
            assert_eq!(wire::read(&mut session).await.expect("ready").tag, b'Z', "{name}, {kind}");
            let before = chain.records().of("text").len();
            send(&mut session, &bytes[..MIB]).await;
            let half = |records: &Records| records.of("text").len() >= before + 10;
            chain.records_when("half of it", half).await;
            chain.proxy.fill_disk(&chain.segment_path());
            // What comes with its end is not looked at either.
            send(&mut session, &[&bytes[MIB..], &query("commit")].concat()).await;
            let answers = to_end(&mut session).await;
            let last = answers.last().expect("a last word");
            let told = (last.sqlstate(), last.field(b'S'));
            assert_eq!(told, ("53100".to_owned(), Some("FATAL".to_owned())), "{name}, {kind}: {answers:?}");
            assert_eq!(answers.len(), 1, "{name}, {kind}: {answers:?}");
            chain.proxy.free_disk();
            assert_eq!(chain.query(&chain.app(), "select count(*) from orders where id >= 9000").await, "0");
            let idle =
                "select count(*) from pg_stat_activity where state like '%transaction%' and pid <> pg_backend_pid()";
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(chain.query(&chain.app(), idle).await, "0", "{name}, {kind}: nothing is left at the server");
        }
        let records = chain
            .records_when("both ends", |records| records.of("session_end").with("reason", "unrecorded").len() == 2);
        let records = records.await;
        let long = records
            .of("begin")
            .iter()
            .filter(|begin| begin["text_bytes"].as_u64() > Some(2 << 20))
            .cloned()
            .collect::<Vec<_>>();
        assert_eq!(long.len(), 2, "{name}");
        for begin in long {
            assert_eq!(records.end_of(&begin)["outcome"], "unknown", "{name}");
        }
        let database_log = chain.database_log();
        assert!(!database_log.contains("xxxxxxxx"), "{name}: PostgreSQL had a whole text");
    }
}

//! The audit log as its files: what a kill leaves, what a sink gets, what a full disk takes, and what `verify` says of
//! all of it.

use proto_tests::audit::{stop, verify};
use proto_tests::chain::{Chain, Setup};
use proto_tests::records::{Records, recorded_bytes};
use proto_tests::script::query;
use proto_tests::wire::{self, Message};
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_proxy_leaves_a_proved_log_and_a_whole_copy() {
    let mut chain = Chain::start().await;
    for n in 0..20 {
        assert_eq!(chain.query(&chain.person(), &format!("select {n}")).await, n.to_string());
    }
    stop(&mut chain).await;
    let (code, verdict) = verify(&chain);
    let records = chain.records();
    let last = records.len() - 1;
    assert_eq!((code, verdict.as_str()), (0, format!("proved: records 0 to {last}\n").as_str()));
    let copy: Vec<_> = Records::lines(&chain.jsonl_path()).iter().cloned().collect();
    assert_eq!(copy, records.iter().cloned().collect::<Vec<_>>(), "the sink has them all, in order, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_record_is_found() {
    let mut chain = Chain::start().await;
    chain.query(&chain.person(), "select 'as it was'").await;
    stop(&mut chain).await;
    let path = chain.segment_path();
    let bytes = fs::read(&path).expect("the segment");
    let at = bytes.windows(9).position(|bytes| bytes == b"as it was").expect("the text");
    let mut changed = bytes.clone();
    changed[at] ^= 0x20;
    fs::write(&path, &changed).expect("written");
    let (code, verdict) = verify(&chain);
    assert!(code == 1 && verdict.starts_with("NOT SOUND: record "), "{verdict}");
    fs::write(&path, bytes).expect("written");
    assert_eq!(verify(&chain).0, 0);
    fs::remove_file(chain.audit_folder().with_extension("anchor")).expect("removed");
    fs::write(chain.audit_folder().with_extension("anchor"), b"").expect("an anchor that has nothing");
    let (code, verdict) = verify(&chain);
    assert!(
        code == 3 && verdict.starts_with("sound, and NOT proved: no anchor covers any of records 0 to"),
        "{verdict}"
    );
}

/// Kills it while statements run, starts it again on the same folder, and looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_leaves_every_begin_and_says_what_it_cut() {
    let mut chain = Chain::start().await;
    let mut session = chain.session(&chain.app()).await;
    let mut asked = 0;
    for n in 0..200 {
        session.write_all(&query(&format!("select 'statement {n} of the killed'"))).await.expect("sent");
        asked = n;
        if n > 50 {
            break;
        }
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    chain.proxy.kill();
    chain.proxy.ended().await;
    // A write that did not reach its end.
    let path = chain.segment_path();
    let segment = fs::OpenOptions::new().write(true).open(&path).expect("the segment");
    segment.write_all_at(&[200, 0, 0, 0, 1, 2, 3, 4, b'{'], recorded_bytes(&path)).expect("written");
    let before = chain.records();
    let logged = |n: i32| chain.database_log().contains(&format!("'statement {n} of the killed'"));
    for n in 0..=asked {
        let text = format!("select 'statement {n} of the killed'");
        assert!(!logged(n) || before.began(&text).len() == 1, "statement {n} ran and is not in the log");
    }
    chain.start_again();
    chain.proxy.ready().await;
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    let records = chain.records();
    let recovery = records.of("recovery").only().clone();
    assert_eq!(recovery["records"], before.len());
    assert_eq!((recovery["cut_bytes"].as_u64(), recovery["segment"].as_u64()), (Some(9), Some(1)));
    stop(&mut chain).await;
    let (code, verdict) = verify(&chain);
    assert!(code == 0 && verdict.starts_with("proved: records 0 to "), "{verdict}");
    let copied = Records::lines(&chain.jsonl_path());
    for record in &chain.records() {
        assert!(copied.iter().any(|copy| copy == record), "the sink never got {record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_records_that_are_gone_stop_the_start() {
    let mut chain = Chain::start().await;
    chain.query(&chain.person(), "select 1").await;
    stop(&mut chain).await;
    let path = chain.segment_path();
    let bytes = fs::read(&path).expect("the segment");
    fs::write(&path, &bytes[..bytes.len() - 20]).expect("cut");
    chain.start_again();
    let output = chain.proxy.ended().await.output;
    assert!(output.contains("were signed and") && output.contains("audit verify"), "{output}");
}

async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<Message> {
    let mut answers = Vec::new();
    loop {
        answers.push(wire::read(stream).await.expect("an answer"));
        if answers.last().is_some_and(|last| last.tag == b'Z') {
            return answers;
        }
    }
}

/// No new segment can be begun, and what is left of this one is the reserve.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_commits_and_ends_from_the_reserve() {
    let chain = Setup::default().replace("[audit]\n", "[audit]\nsegment_bytes = 4194304\n").start().await;
    let mut session = chain.session(&chain.app()).await;
    let mut ask = async |text: &str| -> Message {
        session.write_all(&query(text)).await.expect("sent");
        answer(&mut session).await.into_iter().find(|answer| matches!(answer.tag, b'C' | b'E')).expect("an outcome")
    };
    let mut refused = 0_u64;
    // Where the next segment would be made.
    let obstacle = chain.segment_path().with_file_name("0000000000000002.tmp");
    fs::create_dir(&obstacle).expect("made");
    ask("begin").await;
    ask("insert into orders values (9100, 'kept', 1, '2026-11-22')").await;
    // Down to where not even a text as short as the next one has room.
    for filler in [
        format!("select '{}' is null", "x".repeat(60_000)),
        format!("select '{}' is null", "x".repeat(400)),
        "select".to_owned(),
    ] {
        let mut outcome = None;
        for _ in 0..400 {
            let answer = ask(&filler).await;
            if answer.tag == b'E' && answer.sqlstate() == "53100" {
                outcome = Some(answer);
                break;
            }
        }
        assert!(outcome.is_some(), "{} bytes always have room", filler.len());
        refused += 1;
    }
    // The transaction is aborted; its COMMIT is recorded, and takes back.
    assert_eq!(ask("commit").await.body, b"ROLLBACK\0");
    assert_eq!(ask("select").await.sqlstate(), "53100");
    assert_eq!(ask("rollback").await.tag, b'C');
    let records = chain.records();
    assert_eq!((records.began("commit").len(), records.began("rollback").len()), (1, 1), "from the reserve");
    assert!(records.open().is_empty(), "and so are the ends: {:#?}", records.open());
    fs::remove_dir(&obstacle).expect("removed");
    assert_eq!(ask("select 1").await.tag, b'C');
    let told = |records: &Records, member: &str| -> u64 {
        records.of("gap").iter().map(|gap| gap[member].as_u64().expect("a count")).sum()
    };
    let records = chain.records_when("the gaps", |records| told(records, "refused") == refused + 1).await;
    assert_eq!(told(&records, "passed"), 0);
}

/// Each rule's own choice, through a real disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_chooses_what_its_records_outlive() {
    let rule = |name: &str, durability: &str| {
        let line = format!("name = \"{name}\"\n");
        (line.clone(), format!("{line}durability = \"{durability}\"\n"))
    };
    let (people, strict) = rule("orders-people", "strict");
    let (app, none) = rule("orders-app", "none");
    let mut chain = Setup::default().replace(&people, &strict).replace(&app, &none).start().await;
    for n in 0..20 {
        assert_eq!(chain.query(&chain.person(), &format!("select {n}")).await, n.to_string());
    }
    assert_eq!(chain.query(&chain.app(), "select 'none'").await, "none");
    stop(&mut chain).await;
    let records = chain.records();
    assert!(records.open().is_empty(), "what waited is written when the proxy stops: {:#?}", records.open());
    for record in records.iter().filter(|record| record["event"] == "begin" || record["event"] == "end") {
        let text = records.of("begin").with("id", record["id"].as_str().expect("an id")).only()["text"].clone();
        let expected = if text == "select 'none'" { "none" } else { "strict" };
        assert_eq!(record["durability"], expected, "{record}");
    }
    assert_eq!(records.of("exchanged").len(), 21, "each login's exchange is on record");
    let account = &records.of("exchanged").with("service_account", pgpassport::sim::world::ORDERS_APP.service_account);
    assert_eq!(account.len(), 1, "{account:#?}");
    assert_eq!(verify(&chain).0, 0);
}

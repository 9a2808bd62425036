//! `audit.keep` in a running proxy: old segments go once their deletion is on record and anchored, what remains is proved,
//! and with the segments go the keys of what was sealed in them.

use pgpassport::audit::ledger::checkpoint::Signer;
use pgpassport::audit::ledger::medium::Disk;
use pgpassport::audit::ledger::read::Segment;
use pgpassport::audit::ledger::{Behind, Ledger, Settings, Urgency, frame, segment};
use pgpassport::audit::sealing::{Person, Sealer, SealingConfig};
use pgpassport::sim::world::ANALYST;
use pgpassport::time::{Clock, day};
use proto_tests::audit::{run, stop, verify};
use proto_tests::chain::{Prepared, Setup};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const DAY: i64 = 24 * 3600;
/// Records of a proxy that ran long ago, in segments of their own.
const OLD: u64 = 30;

/// The log of a proxy that ran so many days ago.
fn ran(prepared: &Prepared, days: i64) {
    let folder = prepared.audit_folder();
    fs::create_dir_all(&folder).expect("made");
    let clock = Clock::shifted(Arc::new(AtomicI64::new(-days * DAY)));
    let signer = Signer::read(&prepared.cloud.audit_key()).expect("the key");
    let settings = Settings::new(folder).with_segments_of(1000);
    let (ledger, _) = Ledger::open(settings, Arc::new(Disk), clock.clone(), signer, Behind::default()).expect("opened");
    for _ in 0..OLD {
        let mut frames = Vec::new();
        let (time, session) = (clock.now(), uuid::Uuid::now_v7());
        let record =
            format!(r#"{{"version":1,"time":"{time}","session":"{session}","event":"sync_error","sqlstate":"40001"}}"#);
        assert!(frame::push(&mut frames, record.as_bytes()));
        ledger.append(&frames, Urgency::Normal).expect("appended");
    }
}

fn keep(days: u32) -> Setup {
    Setup::default().replace("[audit]\n", &format!("[audit]\nkeep = \"{days}d\"\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn old_segments_go_when_their_deletion_is_anchored_and_the_rest_is_proved() {
    let prepared = keep(90).prepare().await;
    ran(&prepared, 100);
    let folder = prepared.audit_folder();
    let mut old = segment::numbers(&folder).expect("segments");
    assert!(old.len() > 3, "{old:?}");
    // Of the last nothing says that it ended long ago: it goes as soon as its successor is old.
    let stays = segment::path(&folder, old.pop().expect("a segment"));
    let before = Segment::open(&stays).expect("a segment").header().first;
    let mut chain = prepared.start().await;
    assert_eq!(chain.query(&chain.person(), "select 'young'").await, "young");
    let began = tokio::time::Instant::now();
    while old.iter().any(|number| segment::path(&folder, *number).exists()) {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing was deleted: {}", chain.proxy.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(chain.query(&chain.person(), "select 'younger'").await, "younger");
    stop(&mut chain).await;
    let records = chain.records();
    let told = records.of("segments_deleted").only().clone();
    assert_eq!(
        (told["first"].as_u64(), told["before"].as_u64(), told["keep_s"].as_u64()),
        (Some(0), Some(before), Some(7_776_000))
    );
    assert_eq!(
        (told["first_segment"].as_u64(), told["last_segment"].as_u64()),
        (old.first().copied(), old.last().copied())
    );
    assert!(told["tree_size"].as_u64() >= Some(OLD) && told["by"] == "retention", "{told}");
    assert_eq!(records.began("select 'young'").len(), 1);
    let (code, verdict) = verify(&chain);
    let last = before + records.len() as u64 - 1;
    let said =
        format!("proved: records {before} to {last}\n  records 0 to {} were deleted by retention: record ", before - 1);
    assert!(code == 0 && verdict.starts_with(&said), "{verdict}");
    // A later record is proved as ever.
    let id = records.began("select 'younger'").only()["id"].as_str().expect("an id").to_owned();
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    let public = String::from_utf8(run(&["key", "--of", &path(&chain.cloud.audit_key())]).stdout).expect("a key");
    let proof = path(&folder.with_extension("proof"));
    let proved = run(&["prove", &path(&folder), "--public", public.trim(), "--event", &id, "--out", &proof]);
    assert!(proved.status.success(), "{}", String::from_utf8_lossy(&proved.stderr));
    // Where nothing says so, nothing may be missing.
    chain.start_again();
    chain.proxy.ready().await;
    chain.query(&chain.person(), "select 1").await;
    stop(&mut chain).await;
    let first = segment::numbers(&folder).expect("segments")[0];
    fs::remove_file(segment::path(&folder, first)).expect("removed");
    let (code, verdict) = verify(&chain);
    assert!(code == 1 && verdict.starts_with("NOT SOUND: records "), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_younger_stays() {
    let prepared = keep(365).prepare().await;
    ran(&prepared, 100);
    let folder = prepared.audit_folder();
    let old = segment::numbers(&folder).expect("segments");
    let mut chain = prepared.start().await;
    chain.query(&chain.person(), "select 1").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop(&mut chain).await;
    assert!(segment::numbers(&folder).expect("segments").starts_with(&old));
    assert!(chain.records().of("segments_deleted").is_empty());
}

/// What seals texts, beside the chain's config.
fn sealing(folder: &Path) -> SealingConfig {
    SealingConfig { folder: folder.join("texts"), key: folder.join("texts.key") }
}

fn keep_sealed() -> Setup {
    let sealing = "[audit.sealing]\nfolder = \"texts\"\nkey = \"texts.key\"\n\n[admin]\nsocket = \"admin.sock\"\n";
    let rule = "name = \"orders-people\"\n";
    keep(90).replace("[admin]\n", sealing).replace(rule, &format!("{rule}texts = \"sealed\"\n"))
}

/// Each of these texts was sealed so many days ago and is in a segment of its own that was begun that many days ago.
fn ran_sealed(prepared: &Prepared, texts: &[(i64, i64)]) {
    let folder = prepared.audit_folder();
    fs::create_dir_all(&folder).expect("made");
    let vault = Arc::new(sealing(prepared.folder()).open().expect("the vault"));
    let person = || Person { issuer: "contoso".into(), tenant: "t".into(), object_id: "of-long-ago".into() };
    for (n, (sealed, written)) in texts.iter().enumerate() {
        let offset = Arc::new(AtomicI64::new(-sealed * DAY));
        let clock = Clock::shifted(Arc::clone(&offset));
        let mut of_session = Sealer::new(Arc::clone(&vault), person(), clock.clone()).expect("sealing");
        let (session, time) = (uuid::Uuid::now_v7(), clock.now());
        let id = format!("{session}.1");
        let text = of_session.seal(&id, "text@0", format!("select 'SECRET-{n}'").as_bytes()).expect("sealed");
        let text = serde_json::to_value(text).expect("JSON");
        let record = format!(
            r#"{{"version":1,"time":"{time}","session":"{session}","event":"text","id":"{id}","offset":0,"text_sealed":{text}}}"#
        );
        offset.store(-written * DAY, Ordering::Relaxed);
        let signer = Signer::read(&prepared.cloud.audit_key()).expect("the key");
        let settings = Settings::new(folder.clone()).with_segments_of(10_000);
        let (ledger, _) = Ledger::open(settings, Arc::new(Disk), clock, signer, Behind::default()).expect("opened");
        let mut frames = Vec::new();
        assert!(frame::push(&mut frames, record.as_bytes()));
        ledger.append(&frames, Urgency::Normal).expect("appended");
        ledger.close();
    }
}

/// The days of the keys that are there, whosever they are, in order.
fn days(folder: &Path) -> Vec<String> {
    let list = |folder: &Path| -> Vec<_> {
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one").path()).collect()
    };
    let files = list(&sealing(folder).folder).into_iter().flat_map(|person| list(&person));
    let names = files.map(|file| file.file_name().expect("a name").to_string_lossy().into_owned());
    let mut days: Vec<_> = names.filter_map(|name| Some(name.split_once('.')?.0.to_owned())).collect();
    days.sort();
    days
}

fn ago(days: i64) -> String {
    day(Clock::shifted(Arc::new(AtomicI64::new(-days * DAY))).now())
}

/// Which of the keys of old texts are there once a proxy has deleted what is older than 90 days, and what it said of them.
async fn keys_left(texts: &[(i64, i64)], erase: bool) -> (Vec<String>, serde_json::Value) {
    let prepared = keep_sealed().prepare().await;
    let key = prepared.folder().join("texts.key");
    assert!(run(&["key", "--new-secret", key.to_str().expect("a path")]).status.success());
    ran_sealed(&prepared, texts);
    let (folder, base) = (prepared.audit_folder(), prepared.folder().to_owned());
    let first = segment::path(&folder, 1);
    let mut chain = prepared.start().await;
    chain.query(&chain.person(), "select 'SECRET-OF-TODAY'").await;
    let began = tokio::time::Instant::now();
    while first.exists() || days(&base).contains(&ago(102)) {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing was deleted: {}", chain.proxy.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if erase {
        let socket = base.join("admin.sock");
        let erased = run(&["erase", "--socket", socket.to_str().expect("a path"), "--object-id", "of-long-ago"]);
        assert!(String::from_utf8_lossy(&erased.stdout).starts_with("2 key(s) erased"), "{erased:?}");
    }
    stop(&mut chain).await;
    let (code, verdict) = verify(&chain);
    assert_eq!(code, 0, "{verdict}");
    // Who is here today goes on being read.
    let config = sealing(&base);
    let vault = [&config.folder, &config.key].map(|path| path.to_str().expect("a path").to_owned());
    let search = [
        "search",
        folder.to_str().expect("a path"),
        "--json",
        "--sealing-folder",
        &vault[0],
        "--sealing-key",
        &vault[1],
    ];
    let found = String::from_utf8(run(&search).stdout).expect("UTF-8");
    assert!(found.contains("SECRET-OF-TODAY") && found.contains(ANALYST.object_id), "{found}");
    let mut days = days(&base);
    assert_eq!(days.pop(), Some(ago(0)), "today's key");
    (days, chain.records().of("segments_deleted").only().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_with_the_last_segment_that_needs_them() {
    // The third segment ended when the fourth was begun, 80 days ago, and stays with what it needs.
    let (left, told) = keys_left(&[(102, 102), (101, 101), (95, 95), (80, 80)], false).await;
    assert_eq!(left, [ago(95), ago(80)]);
    assert_eq!((&told["text_keys_before"], &told["text_keys"]), (&ago(95).into(), &2.into()), "{told}");
    assert_eq!((&told["first_segment"], &told["last_segment"]), (&1.into(), &2.into()), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_any_record_needs_stays_however_old_it_is() {
    // What stays has a text of 101 days ago: it had to wait for room in the log.
    let (left, told) = keys_left(&[(102, 102), (101, 101), (95, 95), (101, 80)], false).await;
    assert_eq!(left, [ago(101), ago(95)]);
    assert_eq!((&told["text_keys_before"], &told["text_keys"]), (&ago(101).into(), &1.into()), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_erases_what_retention_has_left() {
    let (left, told) = keys_left(&[(102, 102), (95, 95), (80, 80)], true).await;
    assert_eq!((left.len(), &told["text_keys"]), (0, &1.into()), "{told}");
}

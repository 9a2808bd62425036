//! `audit.keep` in a running proxy: old segments go once their deletion is on record and anchored, and what remains is
//! proved.

use pgpassport::audit::ledger::checkpoint::Signer;
use pgpassport::audit::ledger::medium::Disk;
use pgpassport::audit::ledger::read::Segment;
use pgpassport::audit::ledger::{Behind, Ledger, Settings, Urgency, frame, segment};
use pgpassport::time::Clock;
use proto_tests::audit::{run, stop, verify};
use proto_tests::chain::{Prepared, Setup};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
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
    let path = |path: &std::path::Path| path.to_str().expect("a path").to_owned();
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

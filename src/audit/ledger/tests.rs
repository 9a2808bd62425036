//! A log over its processes: going on, torn ends, what is gone or changed, disks that fail.

use super::medium::Disk;
use super::testing::Flaky;
use super::*;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) use super::testing::PRIVATE;

fn open(folder: &Path, medium: impl Medium + 'static) -> Result<(Ledger, Opening), open::Error> {
    let settings = Settings { folder: folder.to_owned(), segment_bytes: 2000, reserve_bytes: 100 };
    testing::open(settings, medium)
}

fn write(ledger: &Ledger, texts: impl IntoIterator<Item = u64>) -> u64 {
    let mut last = 0;
    for text in texts {
        let mut frames = Vec::new();
        assert!(frame::push(&mut frames, format!("record {text:0>50}").as_bytes()));
        last = ledger.append(&frames, Urgency::Normal).unwrap();
    }
    last
}

fn sizes(folder: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(folder.join(checkpoint::FILE)).unwrap();
    let key = Signer::parse(PRIVATE).unwrap();
    checkpoint::notes(&text).map(|note| key.public().open(note.as_bytes()).unwrap().size()).collect()
}

#[test]
fn a_log_goes_on_where_it_ended_and_every_end_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = 0;
    for round in 0..5 {
        let (ledger, opening) = open(folder.path(), Disk).unwrap();
        assert_eq!(opening, Opening { records, unsealed: 0, cut: None });
        records = write(&ledger, 0..=(round * 40));
        drop(ledger);
        assert_eq!(sizes(folder.path()).last(), Some(&records));
    }
    assert_eq!(records, 405);
}

/// A log of three records that was closed, its segment's file, and what is in it.
fn three() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(folder.path(), Disk).unwrap();
    write(&ledger, 0..3);
    drop(ledger);
    let path = segment::path(folder.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    (folder, path, whole)
}

#[test]
fn a_torn_tail_is_cut_off_and_told() {
    let (folder, path, whole) = three();
    std::fs::write(&path, [&whole[..], &[9, 0, 0, 0, 1, 2]].concat()).unwrap();
    let (ledger, opening) = open(folder.path(), Disk).unwrap();
    assert_eq!(opening, Opening { records: 3, unsealed: 0, cut: Some((1, 6)) });
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    assert_eq!(write(&ledger, 3..4), 4);
}

#[test]
fn what_was_signed_and_is_gone_or_changed_stops_the_start() {
    let (folder, path, whole) = three();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(open(folder.path(), Disk).unwrap_err(), open::Error::Lost { signed: 3, found: 2 }));
    let mut other = whole[..segment::HEADER_BYTES].to_vec();
    for text in ["a", "b", "c"] {
        assert!(frame::push(&mut other, text.as_bytes()));
    }
    std::fs::write(&path, &other).unwrap();
    std::fs::remove_file(folder.path().join(hashes::FILE)).unwrap();
    assert!(matches!(open(folder.path(), Disk).unwrap_err(), open::Error::Changed(3)));
    std::fs::write(&path, &whole).unwrap();
    let (_ledger, opening) = open(folder.path(), Disk).unwrap();
    assert_eq!((opening.records, opening.unsealed), (3, 0), "hashes are made again from the records");
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), Disk).unwrap();
    assert!(matches!(open(folder.path(), Disk).unwrap_err(), open::Error::Locked));
    drop(first);
    assert!(open(folder.path(), Disk).is_ok());
}

#[test]
fn where_the_hashes_of_what_was_written_are_lost_the_records_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(folder.path(), Disk).unwrap();
    write(&ledger, 0..50);
    drop(ledger);
    let expected = hashes::Stored::open(folder.path()).unwrap();
    // Those of records 10 to 19 and 30 to 39 are.
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { folder: folder.path().to_owned(), segment_bytes: 2000, reserve_bytes: 100 };
    let signer = Signer::parse(PRIVATE).unwrap();
    let mut open = Prepared::new(settings, Arc::new(Disk), Clock::system(), signer).unwrap();
    for ten in 0..5_u64 {
        for text in ten * 10..ten * 10 + 10 {
            let mut frames = Vec::new();
            assert!(frame::push(&mut frames, format!("record {text:0>50}").as_bytes()));
            open.shared.writer().append(&frames, 1, Urgency::Normal).unwrap();
        }
        if ten % 2 == 1 {
            drop(open.shared.writer().take_leaves());
        }
        // At 20 the end is lost, and at 50 ten of twenty: in front of the others.
        if ten != 3 {
            worker::sync_once(&open.shared);
            assert!(worker::seal_once(&open.shared, &mut open.sealer).unwrap().is_some());
            assert_eq!(Some(open.sealer.root()), expected.root(ten * 10 + 10));
        }
    }
}

#[test]
fn what_is_signed_is_what_was_written_whatever_the_file_says_later() {
    let (sound, _, bytes) = three();
    let expected = hashes::Stored::open(sound.path()).unwrap().root(3);
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { folder: folder.path().to_owned(), segment_bytes: 2000, reserve_bytes: 100 };
    let signer = Signer::parse(PRIVATE).unwrap();
    let mut open = Prepared::new(settings, Arc::new(Disk), Clock::system(), signer).unwrap();
    open.shared.writer().append(&bytes[segment::HEADER_BYTES..], 3, Urgency::Normal).unwrap();
    worker::sync_once(&open.shared);
    let mut other = Vec::new();
    assert!(frame::push(&mut other, format!("record {:0>50}", 9).as_bytes()));
    let file = std::fs::OpenOptions::new().write(true).open(segment::path(folder.path(), 1)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &other, segment::HEADER_BYTES as u64).unwrap();
    assert!(worker::seal_once(&open.shared, &mut open.sealer).unwrap().is_some());
    assert_eq!(Some(open.sealer.root()), expected);
}

#[tokio::test]
async fn a_strict_record_waits_for_the_disk_and_hears_when_it_failed() {
    let folder = tempfile::tempdir().unwrap();
    let flaky = Flaky::default();
    let (ledger, _) = open(folder.path(), flaky.clone()).unwrap();
    let index = write(&ledger, 0..1);
    ledger.durable(index).await.unwrap();
    flaky.fail_sync();
    let index = write(&ledger, 1..2);
    assert!(ledger.durable(index).await.is_err());
    let index = write(&ledger, 2..3);
    ledger.durable(index).await.unwrap();
    drop(ledger);
    assert_eq!(segment::numbers(folder.path()).unwrap(), [1, 2]);
    assert_eq!(sizes(folder.path()).last(), Some(&3));
}

#[test]
fn a_disk_that_takes_no_checkpoint_gets_it_later() {
    let folder = tempfile::tempdir().unwrap();
    let flaky = Flaky::default();
    let (ledger, _) = open(folder.path(), flaky.clone()).unwrap();
    write(&ledger, 0..3);
    flaky.fail_write("full");
    std::thread::sleep(Duration::from_millis(1500));
    flaky.fail_write("none");
    drop(ledger);
    let (_ledger, opening) = open(folder.path(), Disk).unwrap();
    assert_eq!(opening.records, 3);
}

#[test]
fn so_many_records_are_synced_and_sealed_once_though_more_come_meanwhile() {
    for later in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let flaky = Flaky::default();
        let (ledger, _) = testing::open(Settings::new(folder.path().to_owned()), flaky.clone()).unwrap();
        let begun = Instant::now();
        let mut record = Vec::new();
        assert!(frame::push(&mut record, &[b'x'; 50]));
        let mut records = 0;
        while records < SEAL_RECORDS * 3 / 2 || ledger.sealed() < SEAL_RECORDS {
            if later {
                ledger.append_later(&record).unwrap();
            } else {
                ledger.append(&record, Urgency::Normal).unwrap();
            }
            records += 1;
            if records >= SEAL_RECORDS * 3 / 2 {
                // Who hashes has the processor after who writes.
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is sealed");
        }
        let asked = usize::try_from(records / SEAL_RECORDS).unwrap();
        // Once a second they are synced in any case.
        let most = asked + usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
        let (synced, sealed) = (flaky.syncs(), sizes(folder.path()).len());
        assert!(synced <= most && sealed <= most, "{synced} syncs, {sealed} checkpoints, {asked} asked for");
    }
}

#[test]
fn what_waits_counts_towards_the_next_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = testing::open(Settings::new(folder.path().to_owned()), Disk).unwrap();
    let mut record = Vec::new();
    // All of them wait together.
    assert!(
        frame::push(&mut record, b"x")
            && u64::try_from(record.len()).unwrap() * SEAL_RECORDS < MAX_WAITING_BYTES as u64
    );
    for _ in 0..SEAL_RECORDS {
        ledger.append_later(&record).unwrap();
    }
    assert!(ledger.shared.due.load(Ordering::Relaxed) >= SEAL_RECORDS * 2);
}

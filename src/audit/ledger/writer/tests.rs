//! What an append leaves behind, on a disk that fails in each way.

use super::super::frame;
use super::super::medium::Disk;
use super::super::read;
use super::super::segment;
use super::super::testing::Flaky;
use super::*;

fn settings(folder: &tempfile::TempDir) -> Settings {
    Settings { folder: folder.path().to_owned(), segment_bytes: 1000, reserve_bytes: 200 }
}

fn writer(folder: &tempfile::TempDir, medium: Arc<dyn Medium>) -> Writer {
    Writer::begin(settings(folder), medium, Clock::system(), Uuid::nil(), (1, 0)).unwrap()
}

/// A writer on a disk that fails when it is told to.
fn flaky_writer() -> (tempfile::TempDir, Flaky, Writer) {
    let (folder, flaky) = (tempfile::tempdir().unwrap(), Flaky::default());
    let writer = writer(&folder, Arc::new(flaky.clone()));
    (folder, flaky, writer)
}

fn batch(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(frame::push(&mut out, text.as_bytes()));
    out
}

fn records(folder: &tempfile::TempDir) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    for path in read::segments(folder.path()).unwrap() {
        let mut segment = read::Segment::open(&path).unwrap();
        assert_eq!(segment.next_index(), all.len() as u64);
        let number = segment.header().number;
        while let Some(record) = segment.next_record().unwrap() {
            all.push((number, String::from_utf8(record.to_vec()).unwrap()));
        }
    }
    all
}

#[test]
fn records_are_numbered_without_gaps_over_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(&folder, Arc::new(Disk));
    for n in 1..=20_u64 {
        let text = format!("{n:0>100}");
        assert_eq!(writer.append(&batch(&text), 1, Urgency::Normal).unwrap(), n);
    }
    let records = records(&folder);
    assert_eq!(records.len(), 20);
    assert_eq!(records[19], (4, format!("{:0>100}", 20)));
    let unsynced = writer.take_unsynced();
    assert_eq!((unsynced.file.is_some(), unsynced.next, unsynced.segment), (true, 20, 4));
    assert!(writer.take_unsynced().file.is_none());
}

#[test]
fn a_full_disk_refuses_what_can_be_refused_and_takes_the_rest_from_the_reserve() {
    let (folder, flaky, mut writer) = flaky_writer();
    let text = "x".repeat(100);
    for _ in 0..6 {
        writer.append(&batch(&text), 1, Urgency::Normal).unwrap();
    }
    flaky.fail_creates(true);
    assert!(writer.append(&batch("short"), 1, Urgency::Normal).is_ok(), "within the segment");
    assert!(writer.append(&batch(&text), 1, Urgency::Normal).is_err());
    assert_eq!(writer.append(&batch("end"), 1, Urgency::Reserve).unwrap(), 8);
    assert!(writer.append(&batch(&"y".repeat(300)), 1, Urgency::Reserve).is_err(), "even the reserve ends");
    flaky.fail_creates(false);
    assert_eq!(writer.append(&batch(&text), 1, Urgency::Normal).unwrap(), 9);
    let records = records(&folder);
    assert_eq!((records.len(), &records[7], &records[8]), (9, &(1, "end".to_owned()), &(2, text)));
}

#[test]
fn of_a_write_that_fails_nothing_is_ever_read() {
    for fault in ["short", "io", "full"] {
        let (folder, flaky, mut writer) = flaky_writer();
        writer.append(&batch("one"), 1, Urgency::Normal).unwrap();
        flaky.fail_write(fault);
        let both = [batch("two"), batch("three")].concat();
        assert!(writer.append(&both, 2, Urgency::Normal).is_err());
        assert_eq!(records(&folder).len(), 1, "{fault}");
        assert_eq!(writer.append(&batch("four"), 1, Urgency::Normal).unwrap(), 2);
        let records = records(&folder);
        let segment = if fault == "io" { 2 } else { 1 };
        assert_eq!(records, [(1, "one".to_owned()), (segment, "four".to_owned())], "{fault}");
    }
}

#[test]
fn what_a_short_write_has_left_is_not_read_behind_a_record_of_the_same_length() {
    let (folder, flaky, mut writer) = flaky_writer();
    writer.append(&batch("one"), 1, Urgency::Normal).unwrap();
    flaky.fail_write("short");
    let refused = [batch("two"), batch("six"), batch(&"x".repeat(20))].concat();
    assert!(writer.append(&refused, 3, Urgency::Normal).is_err());
    let (ten, expected) = (batch("ten"), [(1, "one".to_owned()), (1, "ten".to_owned())]);
    // Nor where that one, too, ends early, with all of its record.
    flaky.fail_write("no zeros");
    writer.append(&ten, 1, Urgency::Normal).unwrap();
    assert_eq!(records(&folder), expected);
    writer.append(&batch("and"), 1, Urgency::Normal).unwrap();
    assert_eq!(records(&folder)[2..], [(1, "and".to_owned())]);

    let (folder, flaky, mut writer) = flaky_writer();
    writer.append(&batch("one"), 1, Urgency::Normal).unwrap();
    flaky.fail_write("short");
    assert!(writer.append(&refused, 3, Urgency::Normal).is_err());
    writer.append(&ten, 1, Urgency::Normal).unwrap();
    assert_eq!(records(&folder), expected);
}

#[test]
fn what_is_written_is_hashed_and_what_is_not_is_not() {
    let (_folder, flaky, mut writer) = flaky_writer();
    writer.append_later(&[batch("one"), batch("two")].concat(), 2).unwrap();
    assert_eq!(writer.take_leaves().end(), 0, "they have no place yet");
    writer.append(&batch("three"), 1, Urgency::Normal).unwrap();
    flaky.fail_write("full");
    assert!(writer.append(&batch("four"), 1, Urgency::Normal).is_err());
    writer.append(&batch("five"), 1, Urgency::Normal).unwrap();
    let leaves = writer.take_leaves();
    for (index, text) in (0..).zip(["one", "two", "three", "five"]) {
        assert_eq!(leaves.get(index), Some(tlog_tiles::record_hash(text.as_bytes())), "{text}");
    }
    assert_eq!(leaves.end(), 4);
}

#[test]
fn the_first_write_in_a_block_takes_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { folder: folder.path().to_owned(), segment_bytes: 100_000, reserve_bytes: 200 };
    let mut writer = Writer::begin(settings, Arc::new(Disk), Clock::system(), Uuid::nil(), (1, 0)).unwrap();
    let length = || std::fs::metadata(segment::path(folder.path(), 1)).unwrap().len();
    let text = "x".repeat(10_000);
    for expected in [32, 32, 32, 64, 64, 64, 96, 96, 96].map(|kib| kib * 1024) {
        writer.append(&batch(&text), 1, Urgency::Normal).unwrap();
        assert_eq!(length(), expected);
    }
    writer.append(&batch(&"y".repeat(9_000)), 1, Urgency::Normal).unwrap();
    assert_eq!(length(), 100_000, "no more than was set aside");
    assert_eq!(records(&folder).len(), 10);
}

#[test]
fn what_waits_goes_first_with_the_next_write_or_with_the_next_sync() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(&folder, Arc::new(Disk));
    writer.append_later(&batch("one"), 1).unwrap();
    writer.append_later(&batch("two"), 1).unwrap();
    assert_eq!((writer.next(), records(&folder).len()), (0, 0), "they have no place yet");
    assert_eq!(writer.append(&batch("three"), 1, Urgency::Normal).unwrap(), 3);
    writer.append_later(&batch("four"), 1).unwrap();
    let unsynced = writer.take_unsynced();
    assert_eq!((unsynced.next, unsynced.file.is_some()), (4, true));
    let texts: Vec<String> = records(&folder).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["one", "two", "three", "four"]);
    assert!(writer.take_unsynced().file.is_none(), "nothing twice");
}

#[test]
fn what_waits_on_a_full_disk_has_the_reserve_and_no_end_only_within_bounds() {
    let (folder, flaky, mut writer) = flaky_writer();
    writer.append(&batch(&"x".repeat(700)), 1, Urgency::Normal).unwrap();
    flaky.fail_creates(true);
    writer.append_later(&batch("end"), 1).unwrap();
    assert!(writer.append(&batch(&"y".repeat(100)), 1, Urgency::Normal).is_err(), "it can be refused");
    assert_eq!(records(&folder)[1..], [(1, "end".to_owned())], "what has happened is written");
    writer.append_later(&batch(&"z".repeat(300)), 1).unwrap();
    assert!(writer.append(&batch("more"), 1, Urgency::Reserve).is_err(), "nothing passes what waits");
    assert!(writer.append_later(&batch(&"z".repeat(MAX_WAITING_BYTES)), 1).is_err());
    assert!(writer.take_unsynced().file.is_some());
    assert_eq!(records(&folder).len(), 2);
    flaky.fail_creates(false);
    assert_eq!(writer.append(&batch("last"), 1, Urgency::Normal).unwrap(), 4);
    let lengths: Vec<usize> = records(&folder).iter().map(|(_, text)| text.len()).collect();
    assert_eq!(lengths, [700, 3, 300, 4]);
}

#[test]
fn of_a_batch_that_is_too_long_with_what_waits_each_is_written_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(&folder, Arc::new(Disk));
    writer.append_later(&batch(&"x".repeat(500)), 1).unwrap();
    assert_eq!(writer.append(&batch(&"y".repeat(500)), 1, Urgency::Normal).unwrap(), 2);
    assert_eq!(records(&folder).len(), 2);
}

#[test]
fn a_failed_sync_ends_the_segment() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(&folder, Arc::new(Disk));
    writer.append(&batch("one"), 1, Urgency::Normal).unwrap();
    let unsynced = writer.take_unsynced();
    writer.sync_failed(unsynced.segment);
    writer.append(&batch("two"), 1, Urgency::Reserve).unwrap();
    assert_eq!(writer.segment(), 2);
    writer.sync_failed(1);
    writer.append(&batch("three"), 1, Urgency::Normal).unwrap();
    assert_eq!(writer.segment(), 2, "an older segment's failure is no reason");
}

#[test]
fn a_log_is_full_once_it_has_refused_what_may_not_have_the_reserve_and_until_it_takes_some() {
    let (folder, flaky, mut writer) = flaky_writer();
    let full = writer.full();
    let is_full = || full.load(Ordering::Relaxed);
    writer.append(&batch(&"x".repeat(700)), 1, Urgency::Normal).unwrap();
    flaky.fail_creates(true);
    assert!(!is_full(), "nobody knows yet");
    writer.append_later(&batch(&"y".repeat(100)), 1).unwrap();
    writer.flush().unwrap();
    assert!(is_full(), "the reserve took it");
    writer.append(&batch("end"), 1, Urgency::Reserve).unwrap();
    assert!(is_full());
    flaky.fail_creates(false);
    writer.append(&batch("begin"), 1, Urgency::Normal).unwrap();
    assert!(!is_full());
    assert_eq!(records(&folder).len(), 4);
}

/// Who asks first writes for all, behind what waits; the others find it written.
#[test]
fn a_group_is_one_write_by_whoever_asks_first() {
    let (folder, flaky, mut writer) = flaky_writer();
    writer.append_later(&batch("end"), 1).unwrap();
    let (one, two) = (writer.join(&batch("one"), 1).unwrap(), writer.join(&batch("two"), 1).unwrap());
    assert_eq!((writer.next(), records(&folder).len()), (0, 0), "nobody has asked");
    assert!(writer.commit(&two));
    flaky.fail_write("full");
    assert!(writer.commit(&one), "without a write");
    let texts: Vec<String> = records(&folder).into_iter().map(|(_, text)| text).collect();
    assert_eq!((texts.as_slice(), writer.next()), (&["end", "one", "two"].map(str::to_owned)[..], 3));
    let three = writer.join(&batch("three"), 1).unwrap();
    assert_eq!(three.is_written(), None, "another group");
    assert!(!writer.commit(&three), "the write fails");
}

#[test]
fn of_a_group_that_cannot_be_written_nothing_is_there_and_each_may_try_alone() {
    for fault in ["short", "io", "full"] {
        let (folder, flaky, mut writer) = flaky_writer();
        let (one, two) = (writer.join(&batch("one"), 1).unwrap(), writer.join(&batch("two"), 1).unwrap());
        flaky.fail_write(fault);
        assert!(!writer.commit(&one));
        assert_eq!(records(&folder).len(), 0, "{fault}");
        assert_eq!(writer.append(&batch("one"), 1, Urgency::Normal).unwrap(), 1);
        let three = writer.join(&batch("three"), 1).unwrap();
        assert!(!writer.commit(&two), "{fault}: what has failed stays so");
        assert!(writer.commit(&three) && !writer.commit(&one), "{fault}");
        let texts: Vec<String> = records(&folder).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["one", "three"], "{fault}");
    }
}

#[test]
fn a_group_has_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(&folder, Arc::new(Disk));
    let half = batch(&"x".repeat(MAX_WAITING_BYTES / 2));
    assert!(writer.join(&half, 1).is_some() && writer.join(&half, 1).is_none());
    assert!(writer.join(&batch("short"), 1).is_some());
}

/// Who is alone is not kept, but for a try now and then; company ends that.
#[test]
fn who_has_been_alone_for_a_while_is_in_no_group() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(&folder, Arc::new(Disk));
    let groups = |writer: &mut Writer, together: usize| {
        let tries = (0..200).map(|_| {
            let joined: Vec<_> = (0..together).filter_map(|_| writer.join(&batch("x"), 1)).collect();
            for group in &joined {
                assert!(writer.commit(group));
            }
            usize::from(!joined.is_empty())
        });
        tries.sum::<usize>()
    };
    for _ in 0..3 {
        let alone = groups(&mut writer, 1);
        assert!((4..20).contains(&alone), "{alone} of 200");
        let together = groups(&mut writer, 2);
        assert!(together > 150, "{together} of 200");
    }
}

//! Deletion over a disk that stops at any call: whatever is left is sound, and says what was deleted.

use super::checkpoint::FILE as CHECKPOINTS;
use super::faulty::{Fault, Faulty};
use super::retention::{DayKeys, Progress, Retainer, Retention, append};
use super::tests::PRIVATE;
use super::worker::{seal_once, sync_once};
use super::*;
use crate::time::{Timestamp, day};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const DAY: i64 = 24 * 3600;

/// A log whose first records are old, in segments of their own.
struct Old {
    folder: tempfile::TempDir,
    disk: Faulty,
    offset: Arc<AtomicI64>,
    /// What an anchor outside has, and up to where.
    notes: Vec<u8>,
    anchored: u64,
}

impl Old {
    fn new() -> Self {
        Self::with(|n| format!("old record {n:0>150}"))
    }

    /// With these records, a hundred days ago.
    fn with(record: impl Fn(usize) -> String) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let offset = Arc::new(AtomicI64::new(-100 * DAY));
        let mut old = Self { folder: folder.unwrap(), disk: Faulty::default(), offset, notes: Vec::new(), anchored: 0 };
        let mut open = old.open().unwrap();
        for n in 0..24 {
            let mut frames = Vec::new();
            assert!(frame::push(&mut frames, record(n).as_bytes()));
            open.shared.writer().append(&frames, 1, Urgency::Normal).unwrap();
        }
        old.seal(&mut open);
        old.offset.store(0, Ordering::Relaxed);
        assert!(old.segments() > 4, "{}", old.segments());
        old
    }

    fn open(&self) -> Result<Prepared, open::Error> {
        let settings = Settings { folder: self.folder.path().to_owned(), segment_bytes: 1000, reserve_bytes: 200 };
        let clock = Clock::shifted(Arc::clone(&self.offset));
        Prepared::new(settings, Arc::new(self.disk.clone()), clock, Signer::parse(PRIVATE).unwrap())
    }

    fn retainer(&self) -> Retainer {
        self.retainer_with(None)
    }

    fn retainer_with(&self, keys: Option<Arc<dyn DayKeys>>) -> Retainer {
        let tell = |deletion: &retention::Deletion| {
            let mut frame = Vec::new();
            let (before, keys) = (deletion.before, deletion.keys.as_ref().map(|keys| keys.count));
            let record =
                format!(r#"{{"event":"segments_deleted","before":{before},"text_keys":{}}}"#, keys.unwrap_or(0));
            assert!(frame::push(&mut frame, record.as_bytes()));
            Ok(frame)
        };
        let retention = Retention { keep: Duration::from_secs(90 * 24 * 3600), tell: Arc::new(tell), keys };
        let clock = Clock::shifted(Arc::clone(&self.offset));
        Retainer::new(retention, self.folder.path(), Arc::new(self.disk.clone()), clock)
    }

    /// Syncs, signs, anchors.
    fn seal(&mut self, open: &mut Prepared) {
        sync_once(&open.shared);
        if let Ok(Some(note)) = seal_once(&open.shared, &mut open.sealer) {
            self.anchored = checkpoint::size_of(&note).unwrap();
            self.notes.extend_from_slice(&[&note[..], b"\n"].concat());
        }
    }

    fn progress(&self) -> Progress {
        Progress { anchored: self.anchored, delivered: u64::MAX }
    }

    /// What the threads do, one after the other; the one that deletes is ahead of the one that signs.
    fn turn(&mut self, open: &mut Prepared, retainer: &mut Retainer) {
        for _ in 0..2 {
            let _ = retainer.step(self.progress(), |frame| append(&mut open.shared.writer(), frame));
        }
        self.seal(open);
    }

    fn segments(&self) -> usize {
        segment::numbers(self.folder.path()).unwrap().len()
    }

    fn verify(&self) -> verify::Report {
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), &self.notes).unwrap();
        let anchors: [PathBuf; 1] = [outside.path().to_owned()];
        verify::verify(self.folder.path(), Signer::parse(PRIVATE).unwrap().public(), &anchors).unwrap()
    }
}

#[test]
fn what_is_old_goes_when_its_record_is_anchored_and_not_before() {
    let mut old = Old::new();
    let mut open = old.open().unwrap();
    let mut retainer = old.retainer();
    let all = old.segments();
    let mut step = |progress: Progress| {
        retainer.step(progress, |frame| append(&mut open.shared.writer(), frame)).unwrap();
        (segment::numbers(old.folder.path()).unwrap().len(), open.shared.writer().next())
    };
    let (nobody, behind) = (Progress { anchored: 0, ..old.progress() }, Progress { delivered: 1, ..old.progress() });
    assert_eq!(step(nobody), (all, 24), "no anchor has anything");
    assert_eq!(step(behind), (all, 24), "the copy is not so far");
    let here = old.progress();
    assert_eq!(step(here), (all, 25), "recorded as soon as they are, and nothing is gone");
    assert_eq!(step(here), (all, 25), "the record is not anchored");
    assert_eq!(step(Progress { anchored: 24, ..here }), (all, 25), "nor now");
    assert_eq!(
        step(Progress { anchored: 25, ..here }),
        (2, 25),
        "all but the last of then and the one that is written"
    );
    old.seal(&mut open);
    drop(open);
    let report = old.verify();
    assert_eq!(report.problems, []);
    assert_eq!((report.first, report.is_proved(), report.deleted.unwrap().record), (20, true, 24));
}

#[test]
fn it_is_looked_every_hour_and_what_is_younger_stays() {
    let mut old = Old::new();
    let all = old.segments();
    let before = 600;
    old.offset.store(-10 * DAY - before, Ordering::Relaxed);
    let mut open = old.open().unwrap();
    let mut retainer = old.retainer();
    for (seconds, gone) in [(0, false), (20 * 60, false), (59 * 60, false), (61 * 60, true)] {
        old.offset.store(-10 * DAY - before + seconds, Ordering::Relaxed);
        (0..3).for_each(|_| old.turn(&mut open, &mut retainer));
        assert_eq!(old.segments() < all, gone, "after {seconds} s");
    }
}

#[test]
fn a_stop_at_any_call_leaves_a_log_that_is_sound_and_the_next_process_goes_on() {
    let calls = {
        let mut old = Old::new();
        let start = old.disk.calls();
        let mut open = old.open().unwrap();
        let mut retainer = old.retainer();
        (0..5).for_each(|_| old.turn(&mut open, &mut retainer));
        assert_eq!(old.segments(), 2);
        old.disk.calls() - start
    };
    assert!(calls > 15, "{calls}");
    let (mut before, mut midst, mut after) = (0, 0, 0);
    for at in 1..=calls + 1 {
        for power in [false, true] {
            for late in [false, true] {
                let mut old = Old::new();
                let all = old.segments();
                old.disk.stop_after(at, if late { Fault::Late } else { Fault::Io });
                if let Ok(mut open) = old.open() {
                    let mut retainer = old.retainer();
                    (0..5).for_each(|_| old.turn(&mut open, &mut retainer));
                }
                old.disk.whole_again();
                if power {
                    old.disk.lose_power(old.folder.path());
                }
                let report = old.verify();
                assert_eq!(report.problems, [], "stopped at call {at}, late {late}, power {power}");
                match old.segments() {
                    gone if gone < 3 => after += 1,
                    there if there < all => midst += 1,
                    _ => before += 1,
                }
                let mut open = old.open().expect("it opens again");
                let mut retainer = old.retainer();
                // As in a running proxy, more is recorded.
                let mut frames = Vec::new();
                assert!(frame::push(&mut frames, b"more"));
                open.shared.writer().append(&frames, 1, Urgency::Normal).unwrap();
                old.seal(&mut open);
                (0..5).for_each(|_| old.turn(&mut open, &mut retainer));
                drop(open);
                let report = old.verify();
                assert_eq!((report.problems.as_slice(), report.is_proved()), (&[][..], true), "{report}");
                assert!(report.deleted.is_some() && report.first == 20, "{report:?}");
            }
        }
    }
    assert!(before > 0 && midst > 0 && after > 0, "stopped {before} before, {midst} in the midst, {after} after");
}

/// A file for each day's key; a record names it by its path.
#[derive(Debug)]
struct Keys {
    folder: tempfile::TempDir,
    disk: Faulty,
}

/// So many days ago.
fn ago(days: i64) -> String {
    day(Timestamp::now().checked_sub(Duration::from_secs(u64::try_from(days * DAY).unwrap())).unwrap())
}

impl Keys {
    fn new(disk: &Faulty, days: &[i64]) -> Arc<Self> {
        let keys = Self { folder: tempfile::tempdir().unwrap(), disk: disk.clone() };
        for days in days {
            std::fs::write(keys.folder.path().join(ago(*days)), "").unwrap();
        }
        Arc::new(keys)
    }

    fn days(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut days: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        days.sort();
        days
    }

    fn are(&self, days: &[i64]) {
        assert_eq!(self.days(), days.iter().map(|days| ago(*days)).collect::<Vec<_>>());
    }
}

impl DayKeys for Keys {
    fn named(&self, record: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(record).unwrap();
        text.split_once("key ").map(|(_, rest)| rest[..10].to_owned())
    }

    fn count(&self, before: &str) -> io::Result<u64> {
        Ok(self.days().iter().filter(|day| day.as_str() < before).count() as u64)
    }

    fn delete(&self, before: &str) -> io::Result<()> {
        let days = self.days();
        days.iter()
            .filter(|day| day.as_str() < before)
            .try_for_each(|day| self.disk.remove(&self.folder.path().join(day)))
    }
}

/// The first half was sealed two days before the second; the last but one's day is `late`.
fn sealed(late: i64) -> Old {
    Old::with(|n| {
        let days = if n == 22 {
            late
        } else if n < 12 {
            102
        } else {
            100
        };
        format!("record {n:0>130} key {}", ago(days))
    })
}

#[test]
fn keys_go_when_the_record_of_it_is_anchored_after_the_segments_and_only_those_that_nothing_names() {
    // What a record that has waited for room names is needed, and so is what is younger.
    for (late, gone) in [(100, 2), (102, 1), (103, 0)] {
        let mut old = sealed(late);
        let keys = Keys::new(&old.disk, &[103, 102, 101, 100, 0]);
        let all = [103, 102, 101, 100, 0];
        let mut open = old.open().unwrap();
        let mut retainer = old.retainer_with(Some(Arc::clone(&keys) as Arc<dyn DayKeys>));
        let here = old.progress();
        let mut step = |progress: Progress| {
            retainer.step(progress, |frame| append(&mut open.shared.writer(), frame)).unwrap();
            open.shared.writer().next()
        };
        assert_eq!(step(here), 24, "a segment that stays is read first");
        assert_eq!(step(here), 25, "recorded");
        for _ in 0..2 {
            assert_eq!(step(here), 25, "not anchored yet");
            keys.are(&all);
        }
        step(Progress { anchored: 25, ..here });
        assert_eq!(old.segments(), 2);
        // The hundredth day's key is named; the one before it is nobody's, and over when what stays was begun.
        keys.are(&all[if gone == 2 { 3 } else { gone }..]);
        old.seal(&mut open);
        drop(open);
        let report = old.verify();
        assert_eq!((report.problems.as_slice(), report.is_proved()), (&[][..], true), "{report}");
        let told = if gone == 2 { 3 } else { gone };
        let mut newest = read::Segment::open(read::segments(old.folder.path()).unwrap().last().unwrap()).unwrap();
        let record = String::from_utf8(newest.next_record().unwrap().unwrap().to_vec()).unwrap();
        assert!(record.ends_with(&format!(r#""text_keys":{told}}}"#)), "{record}");
    }
}

#[test]
fn what_cannot_be_read_may_need_any_key() {
    let old = sealed(100);
    let keys = Keys::new(&old.disk, &[103, 100]);
    let stays = read::segments(old.folder.path()).unwrap().pop().unwrap();
    let open = old.open().unwrap();
    let mut bytes = std::fs::read(&stays).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&stays, bytes).unwrap();
    let mut retainer = old.retainer_with(Some(Arc::clone(&keys) as Arc<dyn DayKeys>));
    for anchored in [24, 24, 25] {
        let progress = Progress { anchored, ..old.progress() };
        retainer.step(progress, |frame| append(&mut open.shared.writer(), frame)).unwrap();
    }
    assert_eq!(old.segments(), 2);
    keys.are(&[103, 100]);
}

#[test]
fn no_stop_leaves_a_record_without_its_key_and_what_is_left_goes_with_the_next_deletion() {
    let turns = |old: &mut Old, keys: &Arc<Keys>| {
        let Ok(mut open) = old.open() else { return };
        let mut retainer = old.retainer_with(Some(Arc::clone(keys) as Arc<dyn DayKeys>));
        (0..6).for_each(|_| old.turn(&mut open, &mut retainer));
    };
    let days = [103, 102, 101, 100];
    let calls = {
        let mut old = sealed(100);
        let (keys, start) = (Keys::new(&old.disk, &days), old.disk.calls());
        turns(&mut old, &keys);
        keys.are(&[100]);
        old.disk.calls() - start
    };
    let (mut before, mut midst, mut after, mut left) = (0, 0, 0, 0);
    for at in 1..=calls + 1 {
        for late in [false, true] {
            let mut old = sealed(100);
            let keys = Keys::new(&old.disk, &days);
            old.disk.stop_after(at, if late { Fault::Late } else { Fault::Io });
            turns(&mut old, &keys);
            old.disk.whole_again();
            let there = keys.days().len();
            assert!(there == 4 || old.segments() < 3, "stopped at call {at}: keys are gone before what they open");
            assert!(keys.days().contains(&ago(100)));
            match there {
                4 => before += 1,
                1 => after += 1,
                _ => midst += 1,
            }
            turns(&mut old, &keys);
            left += usize::from(keys.days().len() > 1);
            // Some day the segments of today are old, and all keys of before go with them.
            old.offset.store(100 * DAY, Ordering::Relaxed);
            turns(&mut old, &keys);
            turns(&mut old, &keys);
            assert_eq!(keys.days(), [""; 0], "stopped at call {at}");
            let report = old.verify();
            assert_eq!(report.problems, [], "stopped at call {at}, late {late}");
        }
    }
    assert!(
        before > 0 && midst > 0 && after > 0 && left > 0,
        "stopped {before} before, {midst} in the midst, {after} after; {left} left"
    );
}

#[test]
fn segments_that_somebody_else_removed_are_missed() {
    let old = Old::new();
    drop(old.open().unwrap());
    for number in [1, 2] {
        std::fs::remove_file(segment::path(old.folder.path(), number)).unwrap();
        let report = old.verify().to_string();
        let said = "missing, and no record says that they were deleted";
        assert!(report.starts_with("NOT SOUND: records 0 to") && report.contains(said), "{report}");
    }
    assert!(old.folder.path().join(CHECKPOINTS).exists());
}

//! Deletion over a disk that stops at any call: whatever is left is sound, and says what was deleted.

use super::checkpoint::FILE as CHECKPOINTS;
use super::fault_tests::{Fault, Faulty};
use super::retention::{Progress, Retainer, Retention, append};
use super::tests::PRIVATE;
use super::worker::{signable, sync_once};
use super::*;
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
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let offset = Arc::new(AtomicI64::new(-100 * DAY));
        let mut old = Self { folder: folder.unwrap(), disk: Faulty::default(), offset, notes: Vec::new(), anchored: 0 };
        let mut open = old.open().unwrap();
        for n in 0..24 {
            let mut frames = Vec::new();
            assert!(frame::push(&mut frames, format!("old record {n:0>150}").as_bytes()));
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
        let tell = |deletion: &retention::Deletion| {
            let mut frame = Vec::new();
            let record = format!(r#"{{"event":"segments_deleted","before":{}}}"#, deletion.before);
            assert!(frame::push(&mut frame, record.as_bytes()));
            Ok(frame)
        };
        let retention = Retention { keep: Duration::from_secs(90 * 24 * 3600), tell: Arc::new(tell) };
        let clock = Clock::shifted(Arc::clone(&self.offset));
        Retainer::new(retention, self.folder.path(), Arc::new(self.disk.clone()), clock)
    }

    /// Syncs, signs, anchors.
    fn seal(&mut self, open: &mut Prepared) {
        sync_once(&open.shared);
        if let Ok(Some(note)) = open.sealer.seal(signable(&open.shared)) {
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

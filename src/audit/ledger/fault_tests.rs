//! A disk that fails at every point of a run in every way: nothing acknowledged is lost, and the log goes on.
//!
//! The run is one thread's, so that a fault's place is the same each time: appends, syncs and seals are called as the
//! threads behind [`Ledger`] call them.

use super::faulty::{FAULTS, Fault, Faulty};
use super::tests::PRIVATE;
use super::verify;
use super::worker::{seal_once, sync_once};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With everything that was written.
    Kill,
    /// With what was synced.
    PowerLoss,
}

/// What is done, in order.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many records of so many bytes in one batch.
    Append(u64, usize),
    /// One of so many bytes, with the next batch or the next sync.
    Later(usize),
    /// One of so many bytes of each of so many sessions, as a group; each alone where that fails.
    Together(usize, usize),
    /// As the first, from the reserve.
    Urgent(u64, usize),
    Sync,
    Seal,
    Reopen(End),
}

/// Several segments, with ends of processes in between.
fn script(end: End) -> Vec<Step> {
    use Step::{Append, Later, Reopen, Seal, Sync, Together, Urgent};
    let filled = [Append(1, 200), Later(50), Append(3, 60), Later(30), Later(20), Sync, Together(3, 50), Seal];
    let filled = filled.into_iter().chain([Append(1, 300), Later(100), Urgent(2, 40), Sync, Seal]);
    let filled = || filled.clone();
    filled()
        .chain([Later(40), Together(2, 90), Reopen(end), Append(1, 50), Sync, Append(4, 120)])
        .chain([Reopen(end), Reopen(end)])
        .chain(filled())
        .chain([Append(5, 200), Append(5, 100), Later(80), Seal, Sync, Append(1, 10), Later(10), Reopen(end)])
        .collect()
}

struct Run {
    folder: tempfile::TempDir,
    disk: Faulty,
    open: Option<Prepared>,
    /// Records that the log has taken.
    taken: BTreeMap<u64, String>,
    /// Records that wait for it, in order.
    waiting: Vec<String>,
    /// Records before this index were taken by this process and one before it, and confirmed or not.
    asked: u64,
    /// Records that the disk has confirmed.
    confirmed: BTreeMap<u64, String>,
    written: u64,
}

impl Run {
    fn new(schedule: BTreeMap<usize, Fault>) -> Self {
        let shared_memory = Path::new("/dev/shm");
        let folder = if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() };
        let disk = Faulty::default();
        disk.faults().schedule = schedule;
        let (taken, confirmed) = (BTreeMap::new(), BTreeMap::new());
        Self { folder: folder.unwrap(), disk, open: None, taken, waiting: Vec::new(), asked: 0, confirmed, written: 0 }
    }

    /// The `nth` call from now on fails.
    fn fail(&self, nth: usize, fault: Fault) {
        let mut faults = self.disk.faults();
        let call = faults.calls + nth;
        faults.schedule.insert(call, fault);
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Opens the log, and again while the disk fails.
    fn reopen(&mut self) {
        for _ in 0..30 {
            let settings = Settings { folder: self.path().to_owned(), segment_bytes: 1000, reserve_bytes: 200 };
            let signer = Signer::parse(PRIVATE).unwrap();
            match Prepared::new(settings, Arc::new(self.disk.clone()), Clock::system(), signer) {
                Ok(open) => {
                    self.asked = open.opening.records;
                    self.open = Some(open);
                    return;
                }
                Err(open::Error::Io(_)) => {}
                // What no sync has confirmed went with the power, and was not to be hashed again.
                Err(open::Error::Changed(_) | open::Error::Lost { .. }) if self.disk.faults().segment_in_doubt => {
                    return;
                }
                Err(other) => panic!("the log does not open: {other}"),
            }
        }
        panic!("the disk is whole again, and the log does not open");
    }

    fn step(&mut self, step: Step) {
        if self.open.is_none() {
            return;
        }
        match step {
            Step::Append(records, bytes) => drop(self.append(records, bytes, Urgency::Normal)),
            Step::Urgent(records, bytes) => drop(self.append(records, bytes, Urgency::Reserve)),
            Step::Later(bytes) => self.append_later(bytes),
            Step::Together(sessions, bytes) => self.append_together(sessions, bytes),
            Step::Sync => self.sync(),
            Step::Seal => {
                let open = self.open.as_mut().unwrap();
                let _ = seal_once(&open.shared, &mut open.sealer);
            }
            Step::Reopen(end) => {
                self.open = None;
                self.waiting.clear();
                if end == End::PowerLoss {
                    self.disk.lose_power(self.path());
                }
                self.check_records(end);
                self.reopen();
            }
        }
    }

    fn append(&mut self, records: u64, bytes: usize, urgency: Urgency) -> io::Result<()> {
        let texts = self.texts(records, bytes);
        self.append_all(texts, urgency)
    }

    fn append_all(&mut self, (frames, texts): (Vec<u8>, Vec<String>), urgency: Urgency) -> io::Result<()> {
        let records = texts.len() as u64;
        let mut writer = self.open.as_ref().unwrap().shared.writer();
        let first = writer.next();
        let appended = writer.append(&frames, records, urgency);
        let next = writer.next();
        drop(writer);
        let waited = self.waiting.len() as u64;
        match appended {
            Ok(behind) => {
                assert_eq!((behind, next), (next, first + waited + records), "numbers have no gaps");
                self.waiting.extend(texts);
            }
            Err(_) => assert!([first, first + waited].contains(&next), "what was refused has no number"),
        }
        self.note_written(first, next);
        appended.map(drop)
    }

    fn append_later(&mut self, bytes: usize) {
        let (frames, texts) = self.texts(1, bytes);
        self.open.as_ref().unwrap().shared.writer().append_later(&frames, 1).unwrap();
        self.waiting.extend(texts);
    }

    fn append_together(&mut self, sessions: usize, bytes: usize) {
        let batches: Vec<_> = (0..sessions).map(|_| self.texts(1, bytes)).collect();
        let mut writer = self.open.as_ref().unwrap().shared.writer();
        let first = writer.next();
        let groups: Vec<_> = batches.iter().map(|(frames, _)| writer.join(frames, 1).unwrap()).collect();
        assert_eq!(writer.next(), first, "nothing is written before somebody asks");
        let fates: Vec<bool> = groups.iter().rev().map(|group| writer.commit(group)).collect();
        let next = writer.next();
        drop(writer);
        let (waited, written) = (self.waiting.len() as u64, fates[0]);
        assert!(fates.iter().all(|fate| *fate == written), "all or none: {fates:?}");
        if written {
            assert_eq!(next, first + waited + sessions as u64, "numbers have no gaps");
            self.waiting.extend(batches.into_iter().flat_map(|(_, texts)| texts));
            return self.note_written(first, next);
        }
        assert!([first, first + waited].contains(&next), "what was refused has no number");
        self.note_written(first, next);
        for batch in batches {
            let _ = self.append_all(batch, Urgency::Normal);
        }
    }

    fn texts(&mut self, records: u64, bytes: usize) -> (Vec<u8>, Vec<String>) {
        let texts: Vec<_> = (0..records).map(|n| format!("{:x>bytes$}", format!("{}.{n}", self.written))).collect();
        self.written += 1;
        let mut frames = Vec::new();
        for text in &texts {
            assert!(frame::push(&mut frames, text.as_bytes()));
        }
        (frames, texts)
    }

    /// What has got these numbers waits no longer.
    fn note_written(&mut self, first: u64, next: u64) {
        let count = usize::try_from(next - first).unwrap();
        self.taken.extend((first..next).zip(self.waiting.drain(..count)));
    }

    /// What [`Ledger::durable`] would say of everything so far.
    fn sync(&mut self) {
        let shared = &self.open.as_ref().unwrap().shared;
        let first = shared.writer().next();
        sync_once(shared);
        let (next, durable) = (shared.writer().next(), *shared.durable.borrow());
        self.note_written(first, next);
        if durable.doubtful < next {
            assert_eq!(durable.next, next);
            let new = self.taken.range(self.asked..next).map(|(index, text)| (*index, text.clone()));
            self.confirmed.extend(new);
        }
        self.asked = next;
    }

    /// Records as a reader finds them.
    fn records(&self) -> BTreeMap<u64, String> {
        let mut records = BTreeMap::new();
        let read = read::each(self.path(), |index, record| {
            records.insert(index, String::from_utf8(record.to_vec()).unwrap());
            std::ops::ControlFlow::<()>::Continue(())
        });
        read.unwrap();
        records
    }

    fn check_records(&mut self, end: End) {
        let there = self.records();
        let kept = if end == End::Kill { &self.taken } else { &self.confirmed };
        for (index, text) in kept {
            assert_eq!(there.get(index), Some(text), "record {index} after {end:?}; confirmed or taken");
        }
        // What was not taken may be there after a kill: a write that failed, and may have reached the disk all the same.
        self.taken = there;
    }

    /// No fault any more: the log takes, confirms, signs, and is what was signed.
    fn finish(mut self) {
        self.disk.faults().schedule.clear();
        if self.open.is_none() {
            return;
        }
        let left = self.disk.faults().left_behind;
        if !left {
            self.append(1, 100, Urgency::Normal).expect("the disk is whole again");
        }
        self.step(Step::Reopen(End::Kill));
        for _ in 0..3 {
            self.append(2, 100, Urgency::Normal).expect("the disk is whole again");
            self.sync();
        }
        assert_eq!(self.confirmed.last_key_value(), self.taken.last_key_value());
        self.step(Step::Seal);
        self.step(Step::Reopen(End::Kill));
        drop(self.open.take());
        let report = verify::verify(self.path(), Signer::parse(PRIVATE).unwrap().public(), &[]).unwrap();
        let doubt = self.disk.faults().segment_in_doubt;
        if !doubt {
            assert_eq!(report.problems, []);
            assert_eq!((report.records, report.signed), (self.taken.len() as u64, self.taken.len() as u64));
        }
    }
}

fn run(script: &[Step], schedule: BTreeMap<usize, Fault>) {
    let mut run = Run::new(schedule);
    run.reopen();
    for &step in script {
        run.step(step);
    }
    run.finish();
}

/// Calls of a run in which nothing fails.
fn calls(script: &[Step]) -> usize {
    let mut run = Run::new(BTreeMap::new());
    run.reopen();
    for &step in script {
        run.step(step);
    }
    let calls = run.disk.faults().calls;
    assert!(calls > 60, "{calls} calls");
    run.finish();
    calls
}

fn each_call(end: End) {
    let script = script(end);
    for at in 1..=calls(&script) {
        for fault in FAULTS {
            for lasting in [1, 2, 5] {
                let schedule: BTreeMap<_, _> = (at..at + lasting).map(|call| (call, fault)).collect();
                let told = format!("{fault:?} at call {at}, {lasting} times, {end:?}");
                let done = std::panic::catch_unwind(|| run(&script, schedule));
                assert!(done.is_ok(), "{told}");
            }
        }
    }
}

#[test]
fn a_fault_at_any_call_loses_nothing_to_a_kill() {
    each_call(End::Kill);
}

#[test]
fn a_fault_at_any_call_loses_nothing_that_was_confirmed_to_a_power_loss() {
    each_call(End::PowerLoss);
}

/// A checkpoint that failed may stand there whole. The next goes to its place, and only a part of it is written.
fn part_of_a_checkpoint_over_one_that_failed(first: (usize, Fault), second: (usize, Fault), end: End) {
    let mut run = Run::new(BTreeMap::new());
    run.reopen();
    for (nth, fault) in [first, second] {
        run.step(Step::Append(1, 100));
        run.step(Step::Sync);
        run.fail(nth, fault);
        run.step(Step::Seal);
        run.disk.whole_again();
    }
    run.step(Step::Reopen(end));
    run.finish();
}

#[test]
fn no_checkpoint_is_left_that_is_made_of_two_that_failed() {
    // Hashes written and synced, checkpoint written and synced; before the second, what the first left is cut off.
    for (first, second) in (1..=4).flat_map(|first| (1..=6).map(move |second| (first, second))) {
        for (fault, end) in FAULTS.into_iter().flat_map(|fault| [(fault, End::Kill), (fault, End::PowerLoss)]) {
            let told =
                format!("{fault:?} at call {first} of a checkpoint, a part at call {second} of the next, {end:?}");
            let run = || part_of_a_checkpoint_over_one_that_failed((first, fault), (second, Fault::Short), end);
            assert!(std::panic::catch_unwind(run).is_ok(), "{told}");
        }
    }
}

/// Once the records are deleted nothing else proves that they were.
#[test]
fn hashes_whose_sync_failed_are_written_again() {
    for (fault, removed) in [(Fault::Io, false), (Fault::Late, false), (Fault::Io, true)] {
        let mut run = Run::new(BTreeMap::new());
        run.reopen();
        for failing in [false, true, false] {
            run.step(Step::Append(3, 100));
            run.step(Step::Sync);
            if failing && removed {
                run.open = None;
                std::fs::remove_file(run.path().join(hashes::FILE)).unwrap();
                run.disk.removed_by_others(&run.path().join(hashes::FILE));
                run.reopen();
            }
            if failing {
                // Behind the write of the hashes.
                run.fail(2, fault);
            }
            run.step(Step::Seal);
        }
        let (sealed, root) = (run.open.as_ref().unwrap().sealer.sealed(), run.open.as_ref().unwrap().sealer.root());
        assert_eq!(sealed, 9);
        run.disk.lose_power(run.path());
        assert_eq!(hashes::Stored::open(run.path()).unwrap().root(sealed), Some(root), "{fault:?} {removed}");
        run.step(Step::Reopen(End::PowerLoss));
        run.finish();
    }
}

/// The next segment is made, and the disk says that it is not: the log goes on in the one before, where a write fails.
#[test]
fn what_is_torn_before_a_segment_that_was_never_begun_is_cut_off() {
    let mut run = Run::new(BTreeMap::new());
    run.reopen();
    run.append(1, 600, Urgency::Normal).unwrap();
    // It is synced, and then the next is made.
    run.fail(2, Fault::Late);
    run.append(1, 300, Urgency::Normal).unwrap_err();
    assert!(run.disk.faults().left_behind);
    run.fail(1, Fault::Short);
    run.append(1, 100, Urgency::Normal).unwrap_err();
    run.step(Step::Reopen(End::Kill));
    assert_eq!(run.open.as_ref().unwrap().opening.cut, Some((1, (frame::HEAD_BYTES as u64 + 100) * 3 / 4)));
    run.finish();
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![Just(End::Kill), Just(End::PowerLoss)];
    let step = prop_oneof![
        6 => (1..5_u64, 1..200_usize).prop_map(|(records, bytes)| Step::Append(records, bytes)),
        3 => (1..100_usize).prop_map(Step::Later),
        4 => (2..5_usize, 1..100_usize).prop_map(|(sessions, bytes)| Step::Together(sessions, bytes)),
        2 => (1..3_u64, 1..80_usize).prop_map(|(records, bytes)| Step::Urgent(records, bytes)),
        3 => Just(Step::Sync),
        2 => Just(Step::Seal),
        1 => end.prop_map(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

fn schedules() -> impl Strategy<Value = BTreeMap<usize, Fault>> {
    proptest::collection::btree_map(1..150_usize, proptest::sample::select(FAULTS.to_vec()), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn many_faults_lose_nothing(steps in steps(), schedule in schedules()) {
        run(&steps, schedule);
    }
}

/// With its threads: every wait ends while the disk fails, and the log goes on when it does no more.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_hangs_while_a_disk_fails() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let settings = || Settings { folder: folder.path().to_owned(), segment_bytes: 2000, reserve_bytes: 100 };
    let signer = || Signer::parse(PRIVATE).unwrap();
    let medium = Arc::new(disk.clone());
    let (ledger, _) = Ledger::open(settings(), medium, Clock::system(), signer(), Behind::default()).unwrap();
    let start = disk.faults().calls;
    // Not `Late`: a segment that is left behind is begun again only by the next process.
    let faults = [Fault::Io, Fault::Short, Fault::NoRoom];
    disk.faults().schedule = (0..200).map(|n| (start + n * 3 + n % 2, faults[n % 3])).collect();
    let (mut refused, mut doubted) = (0, 0);
    for n in 0..200 {
        let mut frames = Vec::new();
        assert!(frame::push(&mut frames, format!("record {n:0>50}").as_bytes()));
        match ledger.append(&frames, Urgency::Normal) {
            Err(_) => refused += 1,
            Ok(next) => {
                let waited = tokio::time::timeout(std::time::Duration::from_secs(10), ledger.durable(next)).await;
                doubted += u32::from(waited.expect("an answer").is_err());
            }
        }
    }
    assert!(refused > 10 && doubted > 10, "{refused} refused, {doubted} in doubt");
    disk.faults().schedule.clear();
    let mut frames = Vec::new();
    assert!(frame::push(&mut frames, b"whole again"));
    let next = ledger.append(&frames, Urgency::Normal).unwrap();
    ledger.durable(next).await.unwrap();
    drop(ledger);
    let report = verify::verify(folder.path(), signer().public(), &[]).unwrap();
    assert_eq!((report.problems, report.records, report.signed), (Vec::new(), next, next));
}

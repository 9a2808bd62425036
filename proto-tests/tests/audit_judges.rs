//! The audit log before judges that no one here wrote: Go's `sumdb` (`note`, `tlog`) and Python's `pymerkle`.
//!
//! The programs around them are in `proto-tests/strangers`; `.ci/strangers.sh` installs and builds them.

use pgpassport::audit::ledger::checkpoint::{self, Signer, new_private_key};
use pgpassport::audit::ledger::medium::Disk;
use pgpassport::audit::ledger::read::{self, Segment};
use pgpassport::audit::ledger::{Behind, Ledger, Settings, Urgency, frame};
use pgpassport::time::Clock;
use proto_tests::proxy::binary;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};

/// Runs of the process; each ends with a checkpoint.
const RUNS: u64 = 25;
/// Records of all runs.
const RECORDS: u64 = RUNS * (RUNS + 1) / 2 * 10;

/// Held while a log is open, and while a child runs.
static ALONE: Mutex<()> = Mutex::new(());

/// A log of several runs and segments, its public key, and where proofs go.
struct Written {
    folder: tempfile::TempDir,
    public: String,
}

impl Written {
    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Run N has ten records times N, so that checkpoints have all kinds of sizes.
    fn new() -> Self {
        // A child that another test has just forked would hold this log's lock until it runs its program.
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        fs::create_dir(&log).expect("made");
        let line = new_private_key("audit.contoso.example").expect("a key");
        let public = Signer::parse(&line).expect("a key").public().to_string();
        for run in 1..=RUNS {
            let settings = Settings::new(log.clone()).with_segments_of(20_000);
            let signer = Signer::parse(&line).expect("a key");
            let (ledger, _) = Ledger::open(settings, Arc::new(Disk), Clock::system(), signer, Behind::default())
                .expect("the log opens");
            for n in 0..run * 10 {
                let mut frames = Vec::new();
                let text = "x".repeat(usize::try_from(n * 7 % 200).expect("small"));
                let record = format!(r#"{{"event":"begin","id":"{run}.{n}","text":"{text}"}}"#);
                assert!(frame::push(&mut frames, record.as_bytes()));
                ledger.append(&frames, Urgency::Normal).expect("appended");
            }
        }
        Self { folder, public }
    }

    /// Writes one record of a segment anew with a frame that fits.
    fn change(&self, number: usize) {
        let path = read::segments(&self.log()).expect("segments").swap_remove(number);
        let mut segment = Segment::open(&path).expect("a segment");
        let mut bytes = segment.header().encode().to_vec();
        let mut first = true;
        while let Some(record) = segment.next_record().expect("read") {
            let mut record = record.to_vec();
            if std::mem::take(&mut first) {
                record[2] ^= 1;
            }
            assert!(frame::push(&mut bytes, &record));
        }
        fs::write(path, bytes).expect("written");
    }

    fn checkpoints(&self) -> PathBuf {
        self.log().join(checkpoint::FILE)
    }

    fn go(&self) -> Result<String, String> {
        go(&["log", text(&self.log()), &self.public])
    }

    fn python(&self) -> Result<String, String> {
        let mut python = Command::new(root().join(".cache/strangers/venv/bin/python"));
        said(python.arg("-B").arg(root().join("proto-tests/strangers/merkle_judge.py")).arg(self.log()))
    }
}

/// What a judge says: its line, or why not.
fn said(command: &mut Command) -> Result<String, String> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output: Output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run .ci/strangers.sh"));
    let own = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(own(&output.stdout)),
        Some(1) => Err(own(&output.stderr)),
        _ => panic!("{command:?} has no verdict: {}", own(&output.stderr)),
    }
}

fn go(arguments: &[&str]) -> Result<String, String> {
    said(Command::new(root().join(".cache/strangers/tlog_judge")).args(arguments))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

#[test]
fn go_opens_every_checkpoint_and_finds_its_root_and_its_successor() {
    let log = Written::new();
    assert!(read::segments(&log.log()).expect("segments").len() > 30, "a segment a run, and full ones");
    let verdict = log.go().expect("all of it holds");
    report("go", &format!("golang.org/x/mod {} (Debian), {verdict}", mod_version()));
    let (_, counted) = verdict.split_once(": ").expect("what ran, and what it has counted");
    assert_eq!(counted, format!("{RECORDS} records, {RUNS} checkpoints"));
}

#[test]
fn go_refuses_what_was_changed() {
    let log = Written::new();
    log.change(3);
    assert!(log.go().unwrap_err().starts_with("the root over "), "a record");

    let log = Written::new();
    let whole = fs::read_to_string(log.checkpoints()).expect("checkpoints");
    for (from, to) in [("\n10\n", "\n11\n"), ("\n30\n", "\n29\n"), ("— audit", "— eudit")] {
        assert!(whole.contains(from), "{from:?}");
        fs::write(log.checkpoints(), whole.replacen(from, to, 1)).expect("written");
        let refused = log.go().unwrap_err();
        assert!(refused.starts_with("checkpoint "), "{from:?}: {refused}");
    }
    // Another key's, well signed.
    fs::copy(Written::new().checkpoints(), log.checkpoints()).expect("copied");
    assert!(log.go().unwrap_err().starts_with("checkpoint 1: "));
    fs::write(log.checkpoints(), whole).expect("written");
    assert!(log.go().is_ok(), "as it was");

    let last = read::segments(&log.log()).expect("segments").pop().expect("a segment");
    fs::remove_file(last).expect("removed");
    assert!(log.go().unwrap_err().starts_with("a checkpoint of "), "records that are gone");
}

#[test]
fn go_checks_the_proofs_of_records_and_refuses_others() {
    let log = Written::new();
    let proof = log.folder.path().join("proof");
    let record = proof.with_extension("record");
    let check = || go(&["proof", &log.public, text(&proof), text(&record)]);
    for index in [0, 1, 9, 10, 1023, 1024, 2047, RECORDS / 2, RECORDS - 2, RECORDS - 1] {
        let (folder, number) = (log.log(), index.to_string());
        let arguments = ["audit", "prove", text(&folder), "--public", &log.public, "--record", &number, "--out"];
        said(Command::new(binary()).args(arguments).arg(&proof)).expect("it can be proved");
        fs::rename(log.folder.path().join("proof.record"), &record).expect("it is there");
        assert_eq!(check(), Ok(format!("record {index} of {RECORDS}")));

        let (whole, bytes) = (fs::read_to_string(&proof).expect("read"), fs::read(&record).expect("read"));
        let mut other = bytes.clone();
        other[3] ^= 1;
        fs::write(&record, other).expect("written");
        assert!(check().is_err(), "another record in place of {index}");
        fs::write(&record, bytes).expect("written");
        let moved = format!("index {}\n", index ^ 1);
        fs::write(&proof, whole.replace(&format!("index {index}\n"), &moved)).expect("written");
        assert!(check().is_err(), "record {index} at another place");
        let hash = whole.lines().nth(2).expect("a hash");
        fs::write(&proof, whole.replacen(hash, &format!("{}=", "A".repeat(43)), 1)).expect("written");
        assert!(check().is_err(), "another path to record {index}");
        fs::write(&proof, whole.replace(&format!("\n{RECORDS}\n"), &format!("\n{}\n", RECORDS + 1))).expect("written");
        assert!(check().is_err(), "another head over record {index}");
        fs::write(&proof, &whole).expect("written");
        assert!(check().is_ok(), "as it was");
    }
}

#[test]
fn pymerkle_finds_the_same_roots_and_no_others() {
    let log = Written::new();
    let verdict = log.python().expect("all of it holds");
    report("pymerkle", &verdict);
    assert_eq!(verdict, format!("pymerkle {}: {RECORDS} records, {RUNS} checkpoints", pinned("pymerkle")));
    log.change(5);
    assert!(log.python().unwrap_err().starts_with("the root over "));
}

/// What ran, for the report of `make test`.
fn report(judge: &str, line: &str) {
    println!("{line}");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("audit-judge-{judge}.txt"));
    fs::write(file, format!("{line}\n")).expect("written");
}

/// Of the Debian package that the judge was built with.
fn mod_version() -> String {
    let mut query = Command::new("dpkg-query");
    said(query.args(["--show", "--showformat", "${Version}", "golang-golang-x-mod-dev"])).expect("the package")
}

fn pinned(package: &str) -> String {
    let pins = fs::read_to_string(root().join("proto-tests/strangers/requirements.txt")).expect("the pins");
    let line = pins.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
    line.expect("it is pinned").to_owned()
}

//! A witness as an anchor of the audit log. The witness is Go's (`proto-tests/strangers/tlog_witness.go`, on
//! `golang.org/x/mod/sumdb`); `.ci/strangers.sh` builds it.

use pgpassport::audit::ledger::checkpoint;
use proto_tests::audit::{run, stop};
use proto_tests::chain::{Chain, Setup};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the proxy may take to have something cosigned.
const PATIENCE: Duration = Duration::from_secs(20);

/// Go's witness of one log. Ends when it is dropped.
struct Witness {
    child: Child,
    said: BufReader<ChildStdout>,
    address: String,
    key: String,
}

impl Witness {
    fn of(public: &str) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/strangers/tlog_witness");
        let mut command = Command::new(&program);
        let started = command.arg(public).stdout(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{}: {error}; run .ci/strangers.sh", program.display()));
        let mut said = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        said.read_line(&mut line).expect("its first line");
        let (address, key) = line.trim().split_once(' ').expect("an address and a key");
        let (address, key) = (address.to_owned(), key.to_owned());
        Self { child, said, address, key }
    }

    /// An entry of `audit.anchors`.
    fn entry(&self) -> String {
        format!("{{ witness = \"http://{}\", key = \"{}\" }}", self.address, self.key)
    }

    /// What it cosigned last, as it has it itself.
    async fn cosigned(&self) -> String {
        let address = self.address.parse().expect("an address");
        proto_tests::http::get(address, "/checkpoint").await.expect("an answer").1
    }

    /// Waits until it has cosigned so many records.
    async fn has(&self, records: u64) {
        let began = Instant::now();
        while checkpoint::size_of(self.cosigned().await.as_bytes()).unwrap_or_default() < records {
            assert!(began.elapsed() < PATIENCE, "{}", self.cosigned().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn end(mut self) -> Vec<String> {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.said.by_ref().lines().map_while(Result::ok).collect()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path").to_owned()
}

/// A witness, and a chain whose log has it as its only anchor.
async fn witnessed() -> (Witness, Chain, String) {
    let prepared = Setup::default().prepare().await;
    let public = run(&["key", "--of", &path(&prepared.cloud.audit_key())]).stdout;
    let public = String::from_utf8(public).expect("a key").trim().to_owned();
    let witness = Witness::of(&public);
    let anchor = prepared.audit_folder().with_extension("anchor");
    let entry = format!("\"{}\"", path(&anchor));
    let chain = prepared.replace(&entry, &witness.entry()).start().await;
    (witness, chain, public)
}

fn verify(chain: &Chain, public: &str, more: &[&str]) -> (i32, String) {
    let folder = path(&chain.audit_folder());
    let output = run(&[&["verify", &folder, "--public", public], more].concat());
    (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("the log") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// Waits until the proxy's own log says this.
async fn until_said(chain: &Chain, what: &str) {
    let began = Instant::now();
    while !chain.proxy.output().contains(what) {
        assert!(began.elapsed() < PATIENCE, "no {what:?} in {}", chain.proxy.output());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a metric is as it should be.
async fn until_shown(chain: &Chain, series: &str, wanted: impl Fn(&str) -> bool) {
    let began = Instant::now();
    loop {
        let (_, metrics) = proto_tests::http::get(chain.proxy.admin(), "/metrics").await.expect("metrics");
        if metrics.lines().filter_map(|line| line.strip_prefix(series)).any(&wanted) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{series} in {metrics}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_witness_has_cosigned_is_proved_offline() {
    let (witness, mut chain, public) = witnessed().await;
    for n in 0..10 {
        assert_eq!(chain.query(&chain.person(), &format!("select {n}")).await, n.to_string());
    }
    witness.has(1).await;
    // A second checkpoint, with a proof from the first.
    for n in 0..10 {
        assert_eq!(chain.query(&chain.person(), &format!("select {n}")).await, n.to_string());
    }
    stop(&mut chain).await;
    let records = chain.records().len() as u64;
    witness.has(records).await;
    let (address, key) = (witness.address.clone(), witness.key.clone());
    let outside = chain.audit_folder().with_extension("outside");
    fs::write(&outside, format!("{}\n", witness.cosigned().await)).expect("written");
    let asked = witness.end();
    assert!(asked.iter().filter(|line| line.starts_with("200 old ")).count() > 1, "{asked:?}");
    assert!(asked.iter().any(|line| line.starts_with("200 old ") && !line.ends_with(" 0")), "a proof: {asked:?}");
    assert!(asked.iter().all(|line| !line.starts_with("422")), "{asked:?}");
    let proved = format!("proved: records 0 to {}\n", records - 1);
    assert_eq!(verify(&chain, &public, &["--witness", &key]), (0, proved.clone()));
    assert_eq!(verify(&chain, &public, &["--anchor", &path(&outside)]), (0, proved), "the witness's own copy");
    let (code, verdict) = verify(&chain, &public, &[]);
    assert!(code == 3 && verdict.starts_with("sound, and NOT proved"), "its key is what proves: {verdict}");
    // Whoever owns the folder cannot make a cosignature.
    let kept = fs::read_dir(chain.audit_folder()).expect("the log").filter_map(Result::ok);
    let kept: Vec<PathBuf> =
        kept.map(|entry| entry.path()).filter(|path| self::path(path).contains("cosigned-")).collect();
    let [kept] = kept.as_slice() else { panic!("one file: {kept:?}") };
    let text = fs::read_to_string(kept).expect("read");
    fs::write(kept, text.replace("witness.example/w1 ", "witness.example/w2 ")).expect("written");
    let (code, verdict) = verify(&chain, &public, &["--witness", &key]);
    assert!(code == 1 && verdict.starts_with("NOT SOUND: checkpoint 1 in"), "{verdict}");
    fs::write(kept, text).expect("written");
    // It is gone: the proxy says so, serves on, and verify names what nobody has cosigned.
    chain.start_again();
    chain.proxy.ready().await;
    assert_eq!(chain.query(&chain.person(), "select 'unwitnessed'").await, "unwitnessed");
    until_said(&chain, "takes no checkpoint").await;
    let failing = format!("pgpassport_audit_anchor_failing_since_seconds{{anchor=\"http://{address}\"}} ");
    until_shown(&chain, &failing, |since| since != "0").await;
    stop(&mut chain).await;
    let (code, verdict) = verify(&chain, &public, &["--witness", &key]);
    let named = format!("NOT anchored yet: {} from record {records} on", chain.records().len() as u64 - records);
    assert!(code == 0 && verdict.contains(&named), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_rolled_back_or_forked_is_refused_and_that_is_told_loudly() {
    let (witness, mut chain, public) = witnessed().await;
    chain.query(&chain.person(), "select 'before'").await;
    stop(&mut chain).await;
    let folder = chain.audit_folder();
    let old = folder.with_extension("old");
    copy(&folder, &old);
    chain.start_again();
    chain.proxy.ready().await;
    for n in 0..3 {
        chain.query(&chain.person(), &format!("select 'taken back {n}'")).await;
    }
    stop(&mut chain).await;
    let seen = chain.records().len() as u64;
    witness.has(seen).await;
    let outside = folder.with_extension("outside");
    fs::write(&outside, format!("{}\n", witness.cosigned().await)).expect("written");

    // Fewer records than the witness has seen.
    copy(&old, &folder);
    chain.start_again();
    chain.proxy.ready().await;
    chain.query(&chain.person(), "select 'instead'").await;
    until_said(&chain, "THE LOG WAS ROLLED BACK").await;
    // As many, and others.
    for n in 0..8 {
        chain.query(&chain.person(), &format!("select 'instead {n}'")).await;
    }
    until_said(&chain, "THE LOG WAS CHANGED OR FORKED").await;
    let told = format!("pgpassport_audit_anchor_has_another_log{{anchor=\"http://{}\"}} ", witness.address);
    until_shown(&chain, &told, |told| told == "1").await;
    stop(&mut chain).await;
    assert!(chain.records().len() as u64 > seen, "longer than what was seen");
    let now = witness.cosigned().await;
    assert_eq!(checkpoint::size_of(now.as_bytes()), Some(seen), "nothing of the fork is cosigned");
    let (code, verdict) = verify(&chain, &public, &["--witness", &witness.key]);
    assert!(code == 0 && verdict.contains("NOT anchored yet"), "up to what both have: {verdict}");
    let (code, verdict) = verify(&chain, &public, &["--anchor", &path(&outside)]);
    assert!(code == 1 && verdict.starts_with("NOT SOUND: records "), "the witness's own copy: {verdict}");
    let asked = witness.end();
    for status in ["409 ", "422 "] {
        assert!(asked.iter().any(|line| line.starts_with(status)), "{status}: {asked:?}");
    }
}

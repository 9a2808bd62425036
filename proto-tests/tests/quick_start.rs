//! README's production quick start: its blocks run in one shell against stand-ins for `az` and `gcloud`, and what comes
//! out is a config that loads and settings that a client can use, each value under the name of its key.

use proto_tests::proxy::binary;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Keys whose values are no variable of the shell: choices, not findings.
const LITERAL: &[&str] = &[
    "address",
    "certificate",
    "key",
    "folder",
    "anchors",
    "jsonl",
    "kind",
    "name",
    "issuer",
    "databases",
    "subject_claim",
    "via",
];

fn section() -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let (_, section) = readme.split_once("\n## Production quick start\n").expect("the section");
    section.split("\n## ").next().unwrap_or_default().to_owned()
}

fn blocks(section: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let starts = section.split(&fence).skip(1);
    starts.map(|block| block.split("\n```").next().unwrap_or_default().to_owned()).collect()
}

/// A home with stand-ins: `az` and `gcloud` note how they were called; a question has an answer, a command none. `az`
/// answers with another GUID each time.
fn home() -> TempDir {
    let home = tempfile::tempdir().expect("a folder");
    let guid = "cat /proc/sys/kernel/random/uuid";
    let stand_ins = [
        ("az", format!("case \"$*\" in *--query*) {guid};; esac")),
        ("gcloud", "case \"$*\" in *--format=*) echo 123456789012;; esac".to_owned()),
        ("uuidgen", guid.to_owned()),
    ];
    fs::create_dir(home.path().join("bin")).expect("a folder");
    for (name, script) in stand_ins {
        let path = home.path().join("bin").join(name);
        let note = format!(
            "printf '%s' '{name}' >>\"$HOME/called\"; printf ' %s' \"$@\" >>\"$HOME/called\"; echo >>\"$HOME/called\""
        );
        fs::write(&path, format!("#!/bin/bash\n{note}\n{script}\n")).expect("written");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, executable).expect("executable");
    }
    std::os::unix::fs::symlink(binary(), home.path().join("bin/pgpassport")).expect("linked");
    home
}

fn run(home: &Path, script: &str) -> Output {
    let path = format!("{}:/usr/bin:/bin", home.join("bin").display());
    Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env("PATH", path)
        .output()
        .expect("bash runs")
}

/// A key pair for the proxy. The demo's own tools make one; here openssl need not be installed.
fn certificate(home: &Path) {
    let cloud = pgpassport::sim::CloudOptions::default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (certificate, key) = runtime.block_on(async {
        let cloud = pgpassport::sim::Cloud::start(cloud).await.expect("the simulated cloud starts");
        let (certificate, key) = cloud.listener_certificate();
        (fs::read(certificate).expect("read"), fs::read(key).expect("read"))
    });
    fs::write(home.join("tls.crt"), certificate).expect("written");
    fs::write(home.join("tls.key"), key).expect("written");
}

#[test]
fn the_blocks_run_and_the_config_that_they_write_loads() {
    let section = section();
    let home = home();
    certificate(home.path());
    let shell = blocks(&section, "sh");
    assert!(shell.len() >= 6, "{} blocks", shell.len());
    let done = run(home.path(), &shell.join("\n"));
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{err}{out}");
    // check-config ran as the quick start's own last step: two rules, as a person and as an app.
    for line in ["rule       orders-people: user and group ", "rule       orders-app: app and app ", "ok, "] {
        assert!(out.contains(line), "{line}: {out}{err}");
    }
    // Every body is JSON, and every variable in it had a value.
    for body in ["api.json", "clients.json", "own.json"] {
        let text = fs::read_to_string(home.path().join(body)).expect("written");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{body}: {error}"));
        assert!(json["api"].is_object() && !text.contains('$'), "{text}");
    }
    let called = fs::read_to_string(home.path().join("called")).expect("called");
    for call in [
        "gcloud iam workforce-pools providers create-oidc entra ",
        "gcloud iam workload-identity-pools providers create-oidc contoso ",
        "gcloud iam workload-identity-pools providers create-oidc proxy ",
        "--role=roles/cloudsql.client",
        "gcloud sql users create analyst@contoso.example --instance=orders ",
        "gcloud sql users create orders-app@demo-project.iam --instance=orders ",
        "--database-flags=cloudsql.iam_authentication=on",
    ] {
        assert!(called.contains(call), "{call}: {called}");
    }
    let clients: Vec<&str> = called.lines().filter(|line| line.contains("--role=roles/cloudsql.client")).collect();
    assert_eq!(clients.len(), 1, "only the proxy may open connectors: {clients:?}");
    // A client needs nothing more: the next step is the sign-in, which has no az here that answers.
    let said = run(home.path(), "pgpassport token orders");
    let err = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "the settings are whole: {err}");
    assert!(err.contains("the Azure CLI answered something that is no token"), "{err}");
}

#[test]
fn each_value_has_its_keys_name_and_is_set_before_it_is_used() {
    let section = section();
    let shell = blocks(&section, "sh");
    let set: BTreeSet<&str> = shell.iter().flat_map(|block| block.lines()).filter_map(assigned).collect();
    let mut checked = 0;
    for line in shell.iter().flat_map(|block| block.lines()) {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let value = value.trim_matches(['"', '[', ']']);
        let Some(variable) = value.strip_prefix('$') else {
            // `host` and the like are findings; `instance = "orders"` would be a value that no step made.
            assert!(LITERAL.contains(&key), "{line} is no value that a step found");
            continue;
        };
        assert!(variable == key || variable.ends_with(&format!("_{key}")), "{line}: not the key's name");
        assert!(set.contains(variable), "{line}: no step sets it");
        checked += 1;
    }
    assert_eq!(checked, 17, "lines of the config and of client.toml that hold a value");
}

/// The variable that a line sets.
fn assigned(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('=')?;
    (!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')).then_some(name)
}

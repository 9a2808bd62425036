//! `pgpassport check-config`: every problem, every warning, and what a good file means, without opening anything.

use super::{Outcome, matrix};
use crate::config::{self, Config, Loaded, Problem};
use crate::names::DatabaseAlias;
use crate::policy::Rule;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::PathBuf;

/// Arguments of `check-config`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The config file
    #[arg(long, value_name = "FILE", env = "PGPASSPORT_CONFIG")]
    config: PathBuf,
    /// Who reaches which database, how, and within which bounds
    #[arg(long)]
    matrix: bool,
    /// One JSON object on standard output, for scripts
    #[arg(long)]
    json: bool,
}

/// Checks a file. `out` takes the summary or the JSON, `err` problems and warnings for people.
pub(super) fn run(arguments: &Arguments, out: &mut impl Write, err: &mut impl Write) -> Outcome {
    let result = config::load(&arguments.config);
    let written = if arguments.json {
        writeln!(out, "{}", as_json(&result, arguments.matrix))
    } else {
        match &result {
            Ok(loaded) => told(loaded, arguments.matrix, out, err),
            Err(problems) => complain(problems, err),
        }
    };
    match (result, written) {
        (Err(_), _) => Outcome::BadConfig,
        (Ok(_), Err(_)) => Outcome::Failed,
        (Ok(_), Ok(())) => Outcome::Done,
    }
}

fn complain(problems: &[Problem], err: &mut impl Write) -> io::Result<()> {
    for problem in problems {
        writeln!(err, "{problem}")?;
    }
    writeln!(err, "{} problem(s)", problems.len())
}

fn told(loaded: &Loaded, matrix: bool, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
    for Problem { file, line, key, reason } in &loaded.warnings {
        writeln!(err, "{}:{line}: warning: {key}: {reason}", file.display())?;
    }
    if matrix {
        write!(out, "{}", matrix::in_words(&loaded.config.policy))?;
    } else {
        summarize(&loaded.config, out)?;
    }
    writeln!(out, "ok, {} warning(s)", loaded.warnings.len())
}

fn summarize(config: &Config, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "clients    {}", config.listen.address)?;
    match config.admin {
        Some(address) => writeln!(out, "admin      {address}")?,
        None => writeln!(out, "admin      off")?,
    }
    writeln!(out, "records    {}", config.audit.log.folder.display())?;
    for issuer in &config.issuers {
        let audiences = issuer.audiences.join(" or ");
        writeln!(out, "issuer     {}: {}, audience {audiences}", issuer.name, issuer.url())?;
    }
    for target in config.policy.databases() {
        let untagged = if target.tag { "" } else { ", without tags" };
        writeln!(out, "database   {}: {} on {}{untagged}", target.alias, target.database, target.instance)?;
    }
    for rule in config.policy.rules() {
        writeln!(out, "rule       {}: {}", rule.name, explained(rule))?;
    }
    if config.expectations > 0 {
        writeln!(out, "expected   {} login(s), each as it should be", config.expectations)?;
    }
    Ok(())
}

/// A rule as one sentence: who, what, how.
fn explained(rule: &Rule) -> String {
    let databases: Vec<&str> = rule.databases.iter().map(DatabaseAlias::as_str).collect();
    let replication = if rule.replication { ", replication too" } else { "" };
    format!("{} may use {} as {}{replication}", rule.who_in_words(), databases.join(", "), rule.how_in_words())
}

fn as_json(result: &Result<Loaded, Vec<Problem>>, matrix: bool) -> Value {
    let Loaded { config, warnings } = match result {
        Ok(loaded) => loaded,
        Err(problems) => return json!({ "ok": false, "problems": problems, "warnings": [] }),
    };
    let mut told = json!({
        "ok": true,
        "problems": [],
        "warnings": warnings,
        "listen": config.listen.address,
        "admin": config.admin,
        "audit": config.audit.log.folder,
        "issuers": config.issuers.iter().map(|issuer| &issuer.name).collect::<Vec<_>>(),
        "instances": config.instances.iter().map(|instance| &instance.name).collect::<Vec<_>>(),
        "databases": config.policy.databases().map(|target| &target.alias).collect::<Vec<_>>(),
        "rules": config.policy.rules().iter().map(|rule| &rule.name).collect::<Vec<_>>(),
        "expectations": config.expectations,
    });
    if let Some(members) = told.as_object_mut().filter(|_| matrix) {
        members.insert("matrix".to_owned(), matrix::as_json(&config.policy));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::ledger::checkpoint::new_private_key;
    use std::fs;
    use tempfile::TempDir;

    const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/example.toml"));

    /// The example with its files beside it.
    fn example(change: impl Fn(String) -> String) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("tls.crt"), pair.cert.pem()).unwrap();
        fs::write(folder.path().join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        let key = new_private_key("audit.contoso.example").unwrap();
        fs::write(folder.path().join("audit.key"), key.as_bytes()).unwrap();
        let text = EXAMPLE
            .replace("/etc/pgpassport/", "")
            .replace("/var/log/pgpassport/", "")
            .replace("/var/lib/pgpassport/", "");
        let path = folder.path().join("pgpassport.toml");
        fs::write(&path, change(text)).unwrap();
        (folder, path)
    }

    fn output(config: PathBuf, json: bool) -> (Outcome, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = run(&Arguments { config, matrix: false, json }, &mut out, &mut err);
        (outcome, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_good_file_is_explained() {
        let replication = "replication = true\nissuer = \"contoso\"";
        let (_folder, path) = example(|text| {
            text.replace("# tag = false ", "tag = false #").replacen("issuer = \"contoso\"", replication, 1)
        });
        let (outcome, out, err) = output(path, false);
        assert_eq!(outcome, Outcome::Done);
        for line in [
            "clients    0.0.0.0:5432",
            "admin      127.0.0.1:9090",
            "database   orders: orders on demo-project:europe-west1:orders, without tags",
            "rule       orders-people: user and group 0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b of contoso may use orders \
             as themselves, by upn, replication too",
            "rule       orders-app: app and app 8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6 of contoso may use orders as \
             orders-app@demo-project.iam.gserviceaccount.com",
        ] {
            assert!(out.lines().any(|have| have == line), "{line}\n{out}");
        }
        assert!(err.contains("warning: database.orders.tag: turns the caller's tag off"), "{err}");
        assert!(!out.contains("PRIVATE KEY") && !err.contains("PRIVATE KEY"));
    }

    #[test]
    fn a_bad_file_is_complained_about_for_people_and_for_scripts() {
        let (_folder, path) = example(|text| text.replace("0.0.0.0:5432", "here").replace("\"upn\"", "\"email\""));
        let (outcome, out, err) = output(path.clone(), false);
        assert_eq!((outcome, out.as_str()), (Outcome::BadConfig, ""));
        assert!(err.contains("pgpassport.toml:") && err.contains(": listen.address: is not IP:PORT"), "{err}");
        assert!(err.contains("rule.orders-people.grant.subject_claim") && err.ends_with("2 problem(s)\n"), "{err}");

        let (outcome, out, err) = output(path, true);
        let parsed: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((outcome, err.as_str()), (Outcome::BadConfig, ""));
        assert_eq!(parsed["ok"], false);
        assert_eq!(parsed["problems"][0]["key"], "listen.address");
        assert!(parsed["problems"][0]["line"].as_u64().is_some_and(|line| line > 1));
    }

    #[test]
    fn scripts_get_one_object_for_a_good_file() {
        let (_folder, path) = example(|text| text);
        let (outcome, out, _) = output(path, true);
        let parsed: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((outcome, &parsed["ok"]), (Outcome::Done, &json!(true)));
        assert_eq!(parsed["databases"], json!(["orders"]));
        assert_eq!(parsed["instances"], json!(["demo-project:europe-west1:orders"]));
    }
}

//! Whether what a statement costs the proxy stays the same: with more sessions, longer statements, more statements that a
//! session remembers, more rules.
//!
//! What is counted is all CPU of the proxy, from before the first statement until a second after the last one, when what
//! is done late (synced, hashed, signed) has been done.

mod rules;
mod sessions;
mod sizes;
mod statements;

use crate::Result;
use crate::cells::Size;
use crate::cloud::changed;
use crate::driver::Driver;
use crate::peers::{Peer, Variables};
use crate::rounds::{Round, Values};
use crate::stage::{Responder, Stage};
use crate::table::Section;
use load::{Ran, Work};
use std::fmt::Write as _;
use std::time::Duration;

/// After that, whatever is done late has been: syncs, hashes and checkpoints come once a second.
const SETTLE: Duration = Duration::from_millis(1200);
/// The name of the server without a database, beside each of its figures.
pub(crate) const RESPONDER: &str = "responder";
/// PostgreSQL's.
pub(crate) const POSTGRESQL: &str = "PostgreSQL";
/// The name of a bare forwarder in front of the responder.
const FORWARDER: &str = "forwarder";

/// What all tables need.
pub(crate) struct Ground<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) driver: Driver,
    pub(crate) responder: Responder,
    /// Seconds that statements run for a figure.
    seconds: f64,
    quick: bool,
}

/// How a proxy of these tables differs from the list's.
pub(crate) struct Differs<'a> {
    pub(crate) name: &'a str,
    /// Whether it has PostgreSQL behind it, or the responder.
    pub(crate) backend: &'a str,
    /// As many serving threads as processors in place of one.
    pub(crate) all_processors: bool,
    /// Rules in front of the one that decides.
    pub(crate) rules: usize,
}

/// Every table's rounds.
pub(crate) fn measure(stage: &Stage, size: &Size) -> Result<Vec<Round>> {
    let mut ground = Ground::new(stage, size)?;
    let mut rounds = Vec::new();
    for (what, measure) in [
        ("sessions", sessions::measure as fn(&mut Ground, u32) -> Result<Vec<Round>>),
        ("sizes", sizes::measure),
        ("remembered statements", statements::measure),
        ("rules", rules::measure),
    ] {
        eprintln!("scale: {what}");
        rounds.extend(measure(&mut ground, size.rounds)?);
    }
    Ok(rounds)
}

/// The tables.
pub(crate) fn sections(rounds: &[Round]) -> Vec<Section> {
    vec![sessions::section(rounds), sizes::section(rounds), statements::section(rounds), rules::section(rounds)]
}

impl<'a> Ground<'a> {
    pub(crate) fn new(stage: &'a Stage, size: &Size) -> Result<Self> {
        let driver = Driver::start(&stage.program("load"))?;
        let seconds = if size.quick { 0.3 } else { 1.5 };
        Ok(Self { stage, driver, responder: stage.respond()?, seconds, quick: size.quick })
    }

    /// Starts a proxy like the list's subject, but that its records go nowhere else.
    pub(crate) fn proxy(&self, differs: &Differs<'_>) -> Result<Peer> {
        let subject = self.stage.peers.iter().map(|peer| &peer.entry).find(|entry| entry.subject);
        let subject = subject.ok_or("the list has no subject, or it was not chosen")?.clone();
        let port = self.responder.port();
        self.stage.start(subject.renamed(differs.name), |variables| {
            if differs.backend == RESPONDER {
                variables.insert("server_port", port.to_string());
            }
            if differs.all_processors {
                let all = variables.get("proxy_config").cloned().unwrap_or_default();
                variables.insert("proxy_config_one", all);
            }
            without_copies(variables)?;
            with_rules(variables, differs.rules)
        })
    }

    /// Starts the list's first forwarder in front of the responder; `None` where none was chosen.
    fn forwarder(&self) -> Result<Option<Peer>> {
        let entries = self.stage.peers.iter().map(|peer| &peer.entry);
        let mut forwarders = entries.filter(|entry| entry.group.as_deref() == Some(FORWARDER));
        let Some(entry) = forwarders.next() else { return Ok(None) };
        let port = self.responder.port();
        let start = self.stage.start(entry.clone().renamed("forwarder-scale"), |variables| {
            let server = variables.get("server").cloned().ok_or("no server")?;
            let words = variables.get_mut("forwarder").ok_or("no forwarder")?;
            *words = words.replace(&server, &format!("127.0.0.1:{port}"));
            Ok(())
        });
        start.map(Some)
    }

    /// Runs statements, and says what each has cost; late work included.
    fn cost(&mut self, peer: &Peer, in_flight: usize, work: Work) -> Result<(Ran, Values)> {
        let before = peer.cpu()?;
        let ran = self.driver.run(in_flight, self.seconds, work)?;
        std::thread::sleep(SETTLE);
        let used = peer.cpu()?.since(&before).counted().as_secs_f64() * 1e6;
        let number = f64::from(u32::try_from(ran.statements)?);
        let values = Values::from([("cpu_us", used / number), ("p50_us", ran.p50_us), ("p99_us", ran.p99_us)]);
        Ok((ran, values))
    }
}

fn without_copies(variables: &mut Variables) -> Result<()> {
    let config = variables.get_mut("proxy_config_one").ok_or("no config")?;
    let line = config.lines().find(|line| line.starts_with("jsonl = ")).ok_or("the config copies no records")?;
    *config = changed(config, &format!("{line}\n"), "")?;
    Ok(())
}

/// Puts rules in front whose groups the caller is not in.
fn with_rules(variables: &mut Variables, count: usize) -> Result<()> {
    let config = variables.get_mut("proxy_config_one").ok_or("no config")?;
    let from = config.find("[[rule]]\n").ok_or("the config has no rule")?;
    let (before, rest) = config.split_at(from);
    let grant = rest.lines().find(|line| line.starts_with("grant = ")).ok_or("the first rule has no grant")?;
    let mut more = String::new();
    for number in 0..count {
        let _ = write!(
            more,
            "[[rule]]\nname = \"team-{number}\"\nissuer = \"contoso\"\ndatabases = [\"orders\"]\nkind = \"user\"\ngroups = \
             [\"00000000-0000-4000-8000-{number:012}\"]\n{grant}\n\n"
        );
    }
    *config = format!("{before}{more}{rest}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_come_in_front_and_copies_go() {
        let config =
            "[audit]\njsonl = \"x\"\nanchors = []\n\n[[rule]]\nname = \"last\"\ngrant = { kind = \"workforce\" }\n";
        let mut variables = Variables::from([("proxy_config_one", config.to_owned())]);
        without_copies(&mut variables).unwrap();
        with_rules(&mut variables, 2).unwrap();
        let changed = &variables["proxy_config_one"];
        let names: Vec<&str> = changed.lines().filter_map(|line| line.strip_prefix("name = ")).collect();
        assert_eq!(names, ["\"team-0\"", "\"team-1\"", "\"last\""]);
        assert_eq!(changed.matches("grant = { kind = \"workforce\" }").count(), 3);
        assert!(changed.starts_with("[audit]\nanchors = []\n\n[[rule]]\n"), "{changed}");
    }
}

//! Who is compared: the list in `peers.toml`, and a peer that runs.

use crate::Result;
use crate::accounting::Cpu;
use crate::child::{Child, Start, output_of};
use proto_tests::ports::Port;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a peer may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which password clients send to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Password {
    /// The database's own.
    Login,
    /// The caller's access token.
    Entra,
}

/// An entry of the list.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// What the subjects are divided by.
    #[serde(default)]
    pub(crate) group: Option<String>,
    #[serde(default)]
    pub(crate) subject: bool,
    /// The peer that it is beside, in a table of their own.
    #[serde(default)]
    pub(crate) beside: Option<String>,
    /// What that table is about.
    #[serde(default)]
    pub(crate) about: Option<String>,
    /// What must be said under it.
    #[serde(default)]
    pub(crate) note: String,
    /// The only cells that it takes part in; every cell where none is named.
    #[serde(default)]
    pub(crate) cells: Vec<String>,
    pub(crate) password: Password,
    command: String,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    version: Option<String>,
    /// A remark on its log-ins.
    #[serde(default)]
    pub(crate) sessions: Option<String>,
}

impl Entry {
    /// The same under another name.
    pub(crate) fn renamed(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Whether it takes part in a cell.
    pub(crate) fn has(&self, cell: &str) -> bool {
        self.cells.is_empty() || self.cells.iter().any(|own| own == cell)
    }
}

#[derive(Debug, Deserialize)]
struct List {
    peer: Vec<Entry>,
}

/// What stands for `{name}` in an entry.
pub(crate) type Variables = BTreeMap<&'static str, String>;

/// Reads the list; with `chosen`, only those, in the list's order.
pub(crate) fn load(path: &Path, chosen: &[String]) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let List { peer } = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if let Some(unknown) = chosen.iter().find(|name| peer.iter().all(|entry| entry.name != **name)) {
        return Err(format!("no peer is called {unknown}").into());
    }
    Ok(peer.into_iter().filter(|entry| chosen.is_empty() || chosen.contains(&entry.name)).collect())
}

/// A peer that runs, on a port and in a folder of its own.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) entry: Entry,
    pub(crate) version: Option<String>,
    port: Port,
    folder: PathBuf,
    start: Start,
    child: Option<Child>,
}

impl Peer {
    /// Writes its files and starts it. `folder` is there, with what all peers need.
    pub(crate) fn start(entry: Entry, folder: &Path, variables: &Variables, signal: &'static str) -> Result<Self> {
        let port = Port::reserve()?;
        let mut variables = variables.clone();
        variables.insert("port", port.address().port().to_string());
        variables.insert("folder", folder.display().to_string());
        for (name, content) in &entry.files {
            std::fs::write(folder.join(name), substitute(content, &variables)?)?;
        }
        let words = |text: &str| -> Result<Vec<String>> {
            Ok(substitute(text, &variables)?.split_whitespace().map(str::to_owned).collect())
        };
        let environment = entry.environment.iter();
        let environment = environment.map(|(name, value)| Ok((name.clone(), substitute(value, &variables)?)));
        let wrapper = variables.get("wrapper").map(String::as_str).unwrap_or_default();
        let start = Start {
            command: [words(wrapper)?, words(&entry.command)?].concat(),
            environment: environment.collect::<Result<_>>()?,
            log: folder.join("log"),
            user: None,
            signal,
        };
        let version = match &entry.version {
            Some(command) => Some(version(&words(command)?, &start.environment)?),
            None => None,
        };
        let mut peer = Self { entry, version, port, folder: folder.to_owned(), start, child: None };
        peer.restart()?;
        Ok(peer)
    }

    /// Ends the process and starts a new one; returns when it listens.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.child = None;
        let child = self.child.insert(Child::start(&self.start)?);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.port.address()).is_err() {
            if !child.is_alive() || Instant::now() > deadline {
                return Err(format!("{} does not listen:\n{}", self.entry.name, child.last_words()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.address().port()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::pid)
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// CPU that its process has used so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let gone = |error| format!("{} is gone ({error}):\n{}", self.entry.name, self.last_words());
        Ok(Cpu::of(self.pid()).map_err(gone)?)
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        self.child.as_ref().map(Child::last_words).unwrap_or_default()
    }
}

/// Its records can be gigabytes: they go with it.
impl Drop for Peer {
    fn drop(&mut self) {
        self.child = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn version(words: &[String], environment: &BTreeMap<String, String>) -> Result<String> {
    let (program, arguments) = words.split_first().ok_or("an empty command")?;
    let text = output_of(Command::new(program).args(arguments).envs(environment))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Replaces every `{name}` that there is a variable for; whatever else has braces stays.
fn substitute(text: &str, variables: &Variables) -> Result<String> {
    let mut text = text.to_owned();
    // A variable's value may have variables: the proxy's config has.
    for _ in 0..2 {
        for (name, value) in variables {
            text = text.replace(&format!("{{{name}}}"), value);
        }
    }
    let left = text.split('{').skip(1).find_map(|rest| {
        let name = rest.split('}').next()?;
        (!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')).then_some(name)
    });
    match left {
        Some(name) => Err(format!("the list of peers names {{{name}}}, which is unknown").into()),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_also_inside_variables_and_unknown_ones_are_found() {
        let variables = Variables::from([("port", "1".to_owned()), ("config", "listen {port} {grant = 2}".to_owned())]);
        assert_eq!(substitute("{config}!", &variables).unwrap(), "listen 1 {grant = 2}!");
        assert!(substitute("{folder}", &variables).unwrap_err().to_string().contains("{folder}"));
    }

    #[test]
    fn the_list_can_be_read_and_has_one_subject_and_both_groups() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers.toml");
        let entries = load(&path, &[]).unwrap();
        let groups: Vec<&str> = entries.iter().filter_map(|entry| entry.group.as_deref()).collect();
        assert!(groups.contains(&"PgBouncer") && groups.contains(&"forwarder"), "{groups:?}");
        assert_eq!(entries.iter().filter(|entry| entry.subject).count(), 1);
        let names: Vec<String> = crate::cells::Cell::all().into_iter().map(crate::cells::Cell::name).collect();
        for entry in &entries {
            assert!(entry.cells.iter().all(|cell| names.contains(cell)), "{:?}", entry.cells);
            assert_eq!(entry.beside.is_some(), entry.about.is_some(), "{}", entry.name);
            assert!(entry.beside.iter().all(|beside| entries.iter().any(|other| other.name == *beside)));
        }
        assert!(load(&path, &["nobody".to_owned()]).is_err());
        assert_eq!(load(&path, &["pgbouncer".to_owned()]).unwrap().len(), 1);
    }
}

//! Everything that runs while cells are measured: the cloud, PostgreSQL, the peers; and how clients reach each.

use crate::Result;
use crate::child::{Child, Folder, Start, Unprivileged, unprivileged};
use crate::cloud::{CONNECTOR, DIRECT, Facts, Order, Running, changed};
use crate::database::{DATABASE, Database, SERVER};
use crate::peers::{Entry, Password, Peer, Variables};
use load::Target;
use proto_tests::ports::Port;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name in every peer's certificate.
const HOST: &str = "localhost";

/// What runs. Dropped in this order: peers first, the folder last.
pub(crate) struct Stage {
    pub(crate) peers: Vec<Peer>,
    pub(crate) database: Database,
    pub(crate) cloud: Running,
    folder: Folder,
    /// What a further peer's entry may name.
    variables: Variables,
    user: Option<Unprivileged>,
    /// What ends a peer.
    signal: &'static str,
}

/// A server that has the protocol and no database, for more sessions than PostgreSQL has.
#[derive(Debug)]
pub(crate) struct Responder {
    _child: Child,
    port: Port,
}

impl Responder {
    /// Its TLS listener's port.
    pub(crate) fn port(&self) -> u16 {
        self.port.address().port()
    }
}

/// Where a load goes, without the peer itself.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    host: &'static str,
    port: u16,
    user: String,
    password: String,
    sslmode: &'static str,
    ca: PathBuf,
}

impl Address {
    /// Tells a program of PostgreSQL's where to connect.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env("PGHOST", self.host).env("PGPORT", self.port.to_string()).env("PGUSER", &self.user);
        command.env("PGDATABASE", DATABASE).env("PGPASSWORD", &self.password).env("PGCONNECT_TIMEOUT", "30");
        command.env("PGSSLMODE", self.sslmode).env("PGSSLROOTCERT", &self.ca).env("PGGSSENCMODE", "disable");
    }

    /// The same for `load`.
    pub(crate) fn target(&self) -> Target {
        Target {
            address: SocketAddr::new(SERVER, self.port),
            ca: self.ca.clone(),
            database: DATABASE.to_owned(),
            callers: vec![(self.user.clone(), self.password.clone())],
        }
    }
}

impl Stage {
    /// Starts everything; ready when it returns. `wrapper` stands in front of every peer's command, `signal`
    /// ends it.
    pub(crate) fn set(entries: Vec<Entry>, binaries: &Path, wrapper: &str, signal: &'static str) -> Result<Self> {
        let folder = Folder::create()?;
        let mut cloud = Running::start()?;
        let user = unprivileged()?;
        let database = Database::start(folder.path(), &cloud.facts, user.as_ref())?;
        std::fs::write(folder.path().join("ca.pem"), &cloud.facts.listener_ca)?;
        std::fs::write(folder.path().join("server-ca.pem"), &cloud.facts.server_ca)?;
        cloud.order(Order::StandIn { address: database.address() })?;
        let mut variables = variables(&cloud.facts, database.port(), binaries, user.as_ref())?;
        variables.insert("wrapper", wrapper.to_owned());
        let mut stage = Self { peers: Vec::new(), database, cloud, folder, variables, user, signal };
        for entry in entries {
            let peer = stage.start(entry, |_| Ok(()))?;
            stage.peers.push(peer);
        }
        Ok(stage)
    }

    /// Starts a peer, with what `change` makes of the variables.
    pub(crate) fn start(&self, entry: Entry, change: impl FnOnce(&mut Variables) -> Result<()>) -> Result<Peer> {
        let mut variables = self.variables.clone();
        change(&mut variables)?;
        let folder = self.peer_folder(&entry.name)?;
        Peer::start(entry, &folder, &variables, self.signal)
    }

    /// Starts a responder, which has PostgreSQL's certificate.
    pub(crate) fn respond(&self) -> Result<Responder> {
        let (port, folder) = (Port::reserve()?, self.folder.path());
        let (certificate, key) = (folder.join("responder.crt"), folder.join("responder.key"));
        std::fs::write(&certificate, &self.cloud.facts.server_certificate)?;
        std::fs::write(&key, &self.cloud.facts.server_key)?;
        let words = [self.program("load"), "respond".to_owned(), "--listen".to_owned(), port.address().to_string()];
        let files = ["--certificate", &certificate.display().to_string(), "--key", &key.display().to_string()];
        let child = Child::start(&Start {
            command: words.into_iter().chain(files.map(str::to_owned)).collect(),
            environment: BTreeMap::new(),
            log: folder.join("responder.log"),
            user: None,
            signal: "KILL",
        })?;
        Ok(Responder { _child: child, port })
    }

    /// One of the programs that were built.
    pub(crate) fn program(&self, name: &str) -> String {
        format!("{}/{name}", self.variables.get("binaries").map(String::as_str).unwrap_or_default())
    }

    /// How clients reach a peer.
    pub(crate) fn address(&self, peer: &Peer) -> Address {
        let facts = &self.cloud.facts;
        let password = match peer.entry.password {
            Password::Login => &facts.login_token,
            Password::Entra => &facts.entra_token,
        };
        let ca = self.folder.path().join("ca.pem");
        Address {
            host: HOST,
            port: peer.port(),
            user: facts.user.clone(),
            password: password.clone(),
            sslmode: "verify-full",
            ca,
        }
    }

    /// How clients reach PostgreSQL itself, whose certificate has no host's name.
    pub(crate) fn direct(&self) -> Address {
        let facts = &self.cloud.facts;
        Address {
            host: "127.0.0.1",
            port: self.database.port(),
            user: facts.user.clone(),
            password: facts.login_token.clone(),
            sslmode: "verify-ca",
            ca: self.folder.path().join("server-ca.pem"),
        }
    }

    /// A folder for what cells write.
    pub(crate) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// For people: a process id and the start of a command line for each peer.
    pub(crate) fn connection_lines(&self) -> Vec<String> {
        let peers = self.peers.iter().map(|peer| (peer.entry.name.as_str(), peer.pid(), self.address(peer)));
        peers
            .chain([("direct", 0, self.direct())])
            .map(|(name, pid, Address { host, port, user, password, sslmode, ca })| {
                format!(
                    "# {name} (pid {pid})\nPGPASSWORD={password} PGHOST={host} PGPORT={port} PGUSER={user} \
                     PGDATABASE={DATABASE} PGSSLMODE={sslmode} PGSSLROOTCERT={}",
                    ca.display()
                )
            })
            .collect()
    }

    fn peer_folder(&self, name: &str) -> Result<PathBuf> {
        let (folder, facts) = (self.folder.path().join(name), &self.cloud.facts);
        std::fs::create_dir(&folder)?;
        let mut paths = vec![folder.clone()];
        for (name, content) in [
            ("listener.crt", &facts.listener_certificate),
            ("listener.key", &facts.listener_key),
            ("server-ca.pem", &facts.server_ca),
        ] {
            std::fs::write(folder.join(name), content)?;
            paths.push(folder.join(name));
        }
        // A peer that is started by root may leave it behind and still read these.
        if let Some(user) = &self.user {
            for path in paths {
                chown(path, Some(user.uid), Some(user.gid))?;
            }
        }
        Ok(folder)
    }
}

/// What entries of the list may name; `{port}` and `{folder}` are the peer's own.
fn variables(facts: &Facts, port: u16, binaries: &Path, user: Option<&Unprivileged>) -> Result<Variables> {
    let environment = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let forwarder = format!(
        "--server {SERVER}:{port} --certificate {{folder}}/listener.crt --key {{folder}}/listener.key --ca \
         {{folder}}/server-ca.pem"
    );
    let binaries = binaries.canonicalize().map_err(|error| format!("{}: {error}", binaries.display()))?;
    let one = changed(&facts.proxy_config, "[listen]\n", "[listen]\nworkers = 1\n")?;
    let strict = changed(&one, "[[rule]]\n", "[[rule]]\ndurability = \"strict\"\n")?;
    Ok(Variables::from([
        ("server", format!("{SERVER}:{port}")),
        ("server_port", port.to_string()),
        ("database", DATABASE.to_owned()),
        ("user", facts.user.clone()),
        ("login_password", facts.login_token.clone()),
        ("identity_endpoint", facts.identity_endpoint.clone()),
        ("identity_header", facts.identity_header.clone()),
        ("proxy_config", facts.proxy_config.clone()),
        ("proxy_config_connector", changed(&one, DIRECT, CONNECTOR)?),
        ("proxy_config_strict", strict),
        ("proxy_config_one", one),
        ("binaries", binaries.display().to_string()),
        ("forwarder", forwarder),
        ("pgbouncer", environment("PGBOUNCER", "pgbouncer")),
        ("pgbouncer_libraries", environment("PGBOUNCER_LIBRARIES", "")),
        ("pgbouncer_user", user.map(|user| format!("-u {}", user.name)).unwrap_or_default()),
    ]))
}

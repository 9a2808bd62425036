//! Everything that runs while cells are measured: the cloud, PostgreSQL, the peers; and how clients reach each.

use crate::Result;
use crate::child::{Folder, Unprivileged, unprivileged};
use crate::cloud::Running;
use crate::database::{DATABASE, Database, SERVER};
use crate::peers::{Entry, Password, Peer, Variables};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name in every peer's certificate.
const HOST: &str = "localhost";

/// What runs. Dropped in this order: peers first, the folder last.
pub(crate) struct Stage {
    pub(crate) peers: Vec<Peer>,
    pub(crate) database: Database,
    cloud: Running,
    folder: Folder,
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
}

impl Stage {
    /// Starts everything; ready when it returns. `wrapper` stands in front of every peer's command.
    pub(crate) fn set(entries: Vec<Entry>, binaries: &Path, wrapper: &str) -> Result<Self> {
        let folder = Folder::create()?;
        let cloud = Running::start()?;
        let user = unprivileged()?;
        let database = Database::start(folder.path(), &cloud.facts, user.as_ref())?;
        std::fs::write(folder.path().join("ca.pem"), &cloud.facts.listener_ca)?;
        std::fs::write(folder.path().join("server-ca.pem"), &cloud.facts.server_ca)?;
        let mut stage = Self { peers: Vec::new(), database, cloud, folder };
        let mut variables = stage.variables(binaries, user.as_ref())?;
        variables.insert("wrapper", wrapper.to_owned());
        for entry in entries {
            let folder = stage.peer_folder(&entry.name, user.as_ref())?;
            stage.peers.push(Peer::start(entry, &folder, &variables)?);
        }
        Ok(stage)
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

    fn peer_folder(&self, name: &str, user: Option<&Unprivileged>) -> Result<PathBuf> {
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
        if let Some(user) = user {
            for path in paths {
                chown(path, Some(user.uid), Some(user.gid))?;
            }
        }
        Ok(folder)
    }

    /// What entries of the list may name; `{port}` and `{folder}` are the peer's own.
    fn variables(&self, binaries: &Path, user: Option<&Unprivileged>) -> Result<Variables> {
        let (facts, port) = (&self.cloud.facts, self.database.port());
        let environment = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let forwarder = format!(
            "--server {SERVER}:{port} --certificate {{folder}}/listener.crt --key {{folder}}/listener.key --ca \
             {{folder}}/server-ca.pem"
        );
        let binaries = binaries.canonicalize().map_err(|error| format!("{}: {error}", binaries.display()))?;
        Ok(Variables::from([
            ("server", format!("{SERVER}:{port}")),
            ("server_port", port.to_string()),
            ("database", DATABASE.to_owned()),
            ("user", facts.user.clone()),
            ("login_password", facts.login_token.clone()),
            ("identity_endpoint", facts.identity_endpoint.clone()),
            ("identity_header", facts.identity_header.clone()),
            ("proxy_config", facts.proxy_config.clone()),
            ("proxy_config_one", facts.proxy_config.replacen("[listen]\n", "[listen]\nworkers = 1\n", 1)),
            ("binaries", binaries.display().to_string()),
            ("forwarder", forwarder),
            ("pgbouncer", environment("PGBOUNCER", "pgbouncer")),
            ("pgbouncer_libraries", environment("PGBOUNCER_LIBRARIES", "")),
            ("pgbouncer_user", user.map(|user| format!("-u {}", user.name)).unwrap_or_default()),
        ]))
    }
}

//! The whole chain: a simulated cloud in this process, the built proxy in front of it, and callers.
//!
//! [`Setup`] says what is special about a chain, [`Prepared`] is a cloud with a config file and no proxy yet (faults
//! can be ordered before the proxy's first request), [`Chain`] is ready for callers.

use crate::ports::Port;
use crate::proxy::{Limited, Proxy};
use crate::psql::{Login, Printed};
use crate::records::Records;
use crate::wire;
use pgpassport::audit::ledger::read;
use pgpassport::sim::world::{self, App, Person};
use pgpassport::sim::{Calls, Cloud, CloudOptions, ProxyConfig, TokenSpec};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

/// As which host clients name the proxy; its certificate has the name.
pub const HOST: &str = "localhost";
/// The config file, in the chain's folder.
const CONFIG: &str = "pgpassport.toml";
/// How long records may take to arrive.
const RECORDS_PATIENCE: Duration = Duration::from_secs(10);
/// How often they are looked for.
const RECORDS_PAUSE: Duration = Duration::from_millis(20);

/// What is special about a chain; by default nothing.
#[derive(Debug, Default)]
pub struct Setup {
    extra: String,
    replacements: Vec<(String, String)>,
    environment: BTreeMap<String, String>,
    limited: Limited,
    options: CloudOptions,
}

/// A cloud and a config file in front of which no proxy runs yet.
#[derive(Debug)]
pub struct Prepared {
    /// The simulated cloud.
    pub cloud: Cloud,
    setup: Setup,
    folder: TempDir,
    ports: (Port, Port),
}

/// A running proxy in front of a simulated cloud. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Chain {
    /// The proxy's process. Dropped first.
    pub proxy: Proxy,
    /// The simulated cloud.
    pub cloud: Cloud,
    environment: BTreeMap<String, String>,
    limited: Limited,
    folder: TempDir,
}

/// A tokio-postgres client and the task that moves its bytes.
#[derive(Debug)]
pub struct Connected {
    /// The client.
    pub client: tokio_postgres::Client,
    /// Ends with the connection.
    pub connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Setup {
    /// Lines appended to the config file.
    #[must_use]
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }

    /// Replaces a text of the config file that must be there.
    #[must_use]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        self.replacements.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Lines of the instance's section; `DIRECT_PORT` stands for the simulator's.
    #[must_use]
    pub fn instance(self, lines: &str) -> Self {
        let section = format!("[instance.\"{}\"]\n", world::INSTANCE);
        let with_lines = format!("{section}{lines}\n");
        self.replace(&section, &with_lines)
    }

    /// Limits of a rule, as members of an inline table.
    #[must_use]
    pub fn limits(self, rule: &str, members: &str) -> Self {
        let name = format!("name = \"{rule}\"\n");
        let with_limits = format!("{name}limits = {{ {members} }}\n");
        self.replace(&name, &with_limits)
    }

    /// An environment variable of the proxy.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// What the proxy's process goes without.
    #[must_use]
    pub fn limited(mut self, limited: Limited) -> Self {
        self.limited = limited;
        self
    }

    /// How the cloud starts.
    #[must_use]
    pub fn options(mut self, options: CloudOptions) -> Self {
        self.options = options;
        self
    }

    /// Starts the cloud and writes the config file.
    pub async fn prepare(self) -> Prepared {
        let cloud = Cloud::start(self.options.clone()).await.expect("the simulated cloud starts");
        let folder = tempfile::Builder::new().prefix("pgpassport-test-").tempdir().expect("a folder");
        let ports = (Port::reserve().expect("a port"), Port::reserve().expect("a port"));
        let prepared = Prepared { cloud, setup: self, folder, ports };
        std::fs::write(prepared.config_path(), prepared.config()).expect("the config is written");
        prepared
    }

    /// Starts the cloud and the proxy, and waits until it is ready.
    pub async fn start(self) -> Chain {
        self.prepare().await.start().await
    }
}

/// `[own_identity]` as the cloud's config has it.
pub fn managed_identity() -> String {
    let (resource, provider, account) = (world::OWN_RESOURCE, world::OWN_PROVIDER, world::OWN_SERVICE_ACCOUNT);
    format!(
        "kind = \"azure-managed-identity\"\nresource = \"{resource}\"\nprovider = \"{provider}\"\n\
         service_account = \"{account}\"\n"
    )
}

impl Prepared {
    /// The config file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join(CONFIG)
    }

    /// Its text.
    pub fn config(&self) -> String {
        let mut text = self.cloud.proxy_config(&ProxyConfig {
            listen: self.ports.0.address(),
            admin: self.ports.1.address(),
            audit_folder: audit_folder(&self.folder),
            extra: self.setup.extra.clone(),
        });
        for (from, to) in &self.setup.replacements {
            assert!(text.contains(from), "the config has no {from:?}:\n{text}");
            text = text.replace(from, to);
        }
        text.replace("DIRECT_PORT", &self.cloud.direct_address().port().to_string())
    }

    /// Changes a text of the config file that must be there, after the cloud has started.
    #[must_use]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        self.setup.replacements.push((from.to_owned(), to.to_owned()));
        std::fs::write(self.config_path(), self.config()).expect("the config is written");
        self
    }

    /// An environment variable of the proxy.
    #[must_use]
    pub fn with_environment(mut self, name: &str, value: &Path) -> Self {
        self.setup.environment.insert(name.to_owned(), value.display().to_string());
        self
    }

    /// The proxy is a Google service account with this key file, in place of a managed identity on Azure.
    #[must_use]
    pub fn with_service_account_key(self, key: &Path) -> Self {
        let section = format!("kind = \"google-service-account-file\"\nkey_file = \"{}\"\n", key.display());
        let ca = self.cloud.ca_path().to_owned();
        // `gcp_auth` trusts the platform's roots; this is how the platform's are changed.
        self.replace(&managed_identity(), &section).with_environment("SSL_CERT_FILE", &ca)
    }

    /// A folder for a test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the proxy's audit log will be.
    pub fn audit_folder(&self) -> PathBuf {
        audit_folder(&self.folder)
    }

    /// Where the proxy would listen.
    pub fn address(&self) -> std::net::SocketAddr {
        self.ports.0.address()
    }

    /// What the proxy finds in its environment.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut environment: BTreeMap<String, String> = self.cloud.proxy_environment().into_iter().collect();
        environment.extend(self.setup.environment.clone());
        environment
    }

    /// Starts the proxy and waits until it is ready.
    pub async fn start(self) -> Chain {
        let mut chain = self.spawn();
        chain.proxy.ready().await;
        chain
    }

    /// Starts a proxy whose config turns the admin listener off, and waits until it takes connections.
    pub async fn start_without_admin(self) -> Chain {
        let mut chain = self.spawn();
        chain.proxy.listening().await;
        chain
    }

    fn spawn(self) -> Chain {
        let environment = self.environment();
        let config = self.config_path();
        let Self { cloud, setup, folder, ports } = self;
        let proxy = Proxy::start(folder.path(), &config, ports, &environment, setup.limited)
            .expect("the proxy's process starts");
        Chain { proxy, cloud, environment, limited: setup.limited, folder }
    }
}

impl Chain {
    /// Another process in place of the proxy's, which knows nothing of what the first one learned.
    pub async fn restart(&mut self) {
        self.proxy.kill();
        self.proxy.ended().await;
        self.start_again();
        self.proxy.ready().await;
    }

    /// A chain with nothing special.
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    /// Starts the proxy once more, after it has ended, without waiting for it.
    pub fn start_again(&mut self) {
        let config = self.config_path();
        self.proxy.again(&config, &self.environment, self.limited).expect("the proxy's process starts");
    }

    /// The analyst: a person with a workforce grant.
    pub fn person(&self) -> Login {
        self.as_person(&world::ANALYST)
    }

    /// The orders app: software with a service account grant.
    pub fn app(&self) -> Login {
        self.as_app(&world::ORDERS_APP)
    }

    /// A person with their own right token, naming themselves.
    pub fn as_person(&self, person: &Person) -> Login {
        self.login(person.upn, &TokenSpec::person(person))
    }

    /// An app with its own right token, naming its database user.
    pub fn as_app(&self, app: &App) -> Login {
        self.login(app.database_user, &TokenSpec::app(app))
    }

    /// Anybody with any minted token.
    pub fn login(&self, user: &str, spec: &TokenSpec) -> Login {
        let token = self.cloud.mint(spec).expect("a token can be minted");
        Login {
            host: HOST.to_owned(),
            port: self.proxy.address().port(),
            user: user.to_owned(),
            database: world::DATABASE.to_owned(),
            password: token.expose().clone(),
            sslmode: "verify-full",
        }
    }

    /// Runs psql.
    pub async fn psql(&self, login: &Login, arguments: &[&str]) -> Printed {
        login.psql(self.cloud.ca_path(), arguments).await
    }

    /// Runs one statement as psql's `-c` does and returns its output, tuples only.
    pub async fn query(&self, login: &Login, statement: &str) -> String {
        self.psql(login, &["-c", statement]).await.well().to_owned()
    }

    /// A verified TLS stream to the proxy, before the start-up packet.
    pub async fn tls(&self) -> io::Result<TlsStream<TcpStream>> {
        wire::tls(self.proxy.address(), self.cloud.ca_path(), HOST).await
    }

    /// A bare TCP stream to the proxy.
    pub async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.proxy.address()).await.expect("the proxy accepts")
    }

    /// A raw session, logged in.
    pub async fn session(&self, login: &Login) -> TlsStream<TcpStream> {
        let mut stream = self.tls().await.expect("TLS");
        let last = self.attempt(&mut stream, login).await;
        assert_eq!(last.tag, b'Z', "logged in, not {:?}", last.field(b'M'));
        stream
    }

    /// A raw login on this stream: `ReadyForQuery` or the error.
    pub async fn attempt(&self, stream: &mut TlsStream<TcpStream>, login: &Login) -> wire::Message {
        wire::log_in(stream, login.user.as_bytes(), login.database.as_bytes(), &login.password)
            .await
            .expect("the proxy answers a login")
    }

    /// A tokio-postgres client, logged in.
    pub async fn connect(&self, login: &Login) -> Connected {
        self.try_connect(login).await.expect("tokio-postgres connects")
    }

    /// A tokio-postgres client, or why not.
    pub async fn try_connect(&self, login: &Login) -> Result<Connected, tokio_postgres::Error> {
        let stream = self.tls().await.expect("TLS");
        let (client, connection) = tokio_postgres::Config::new()
            .user(&login.user)
            .dbname(&login.database)
            .password(&login.password)
            // TLS is up already: nothing is left to negotiate.
            .ssl_mode(tokio_postgres::config::SslMode::Disable)
            .connect_raw(stream, tokio_postgres::NoTls)
            .await?;
        Ok(Connected { client, connection: tokio::spawn(connection) })
    }

    /// How often the cloud's endpoints were reached.
    pub fn calls(&self) -> &Calls {
        self.cloud.calls()
    }

    /// The proxy's config file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join(CONFIG)
    }

    /// Changes a text of the config file that must be there, and tells the proxy to read it again; returns when the
    /// reload is on record.
    pub async fn reload(&self, from: &str, to: &str) -> Records {
        let path = self.config_path();
        let text = std::fs::read_to_string(&path).expect("the config is there");
        assert!(text.contains(from), "the config has no {from:?}:\n{text}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("the config is written");
        let before = self.records().of("reload").len();
        self.proxy.hang_up();
        self.records_when("the reload", |records| records.of("reload").len() > before).await
    }

    /// The audit log's folder.
    pub fn audit_folder(&self) -> PathBuf {
        audit_folder(&self.folder)
    }

    /// The audit log's records as JSON Lines: what a sink was given.
    pub fn jsonl_path(&self) -> PathBuf {
        self.audit_folder().with_extension("jsonl")
    }

    /// Every byte in the audit log's folder, for searches.
    pub fn everything_recorded(&self) -> String {
        let files = std::fs::read_dir(self.audit_folder()).expect("the log's folder");
        let bytes = |file: io::Result<std::fs::DirEntry>| std::fs::read(file.expect("a file").path()).expect("bytes");
        files.map(|file| String::from_utf8_lossy(&bytes(file)).into_owned()).collect()
    }

    /// The segment that the proxy writes.
    pub fn segment_path(&self) -> PathBuf {
        read::segments(&self.audit_folder()).expect("the log's folder").pop().expect("a segment")
    }

    /// The audit log so far.
    pub fn records(&self) -> Records {
        Records::read(&self.audit_folder())
    }

    /// The audit log once it holds what is waited for.
    pub async fn records_when(&self, what: &str, holds: impl Fn(&Records) -> bool) -> Records {
        let deadline = Instant::now() + RECORDS_PATIENCE;
        loop {
            let records = self.records();
            if holds(&records) {
                return records;
            }
            assert!(Instant::now() < deadline, "no record of {what} in {RECORDS_PATIENCE:?}: {records:#?}");
            tokio::time::sleep(RECORDS_PAUSE).await;
        }
    }

    /// The one refusal that has this correlation id.
    pub async fn refusal(&self, correlation: &str) -> serde_json::Value {
        let records = self
            .records_when("the refusal", |records| !records.of("refused").with("correlation", correlation).is_empty())
            .await;
        records.of("refused").with("correlation", correlation).only().clone()
    }

    /// The database's own log.
    pub fn database_log(&self) -> String {
        std::fs::read_to_string(self.cloud.postgres_log()).expect("the database's log can be read")
    }

    /// A folder for a test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every file in it and in the folders in it, the proxy's own among them, and its bytes.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files(self.folder())
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.is_file() {
            all.push((path.clone(), std::fs::read(path).expect("a file")));
        }
    }
    all
}

fn audit_folder(folder: &TempDir) -> PathBuf {
    folder.path().join("audit")
}

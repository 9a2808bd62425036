//! The simulated Entra and Google in a process of their own, and what the stage must know of them.

use crate::Result;
use crate::database::SERVER;
use pgpassport::names::SessionId;
use pgpassport::sim::world::ANALYST;
use pgpassport::sim::{Cloud, CloudOptions, Endpoint, Fault, Hop, ProxyConfig, TokenSpec};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// In the proxy's config, in place of the address to listen on.
const LISTEN: &str = "127.0.0.1:1";
/// In the proxy's config, in place of the admin listener's address.
const ADMIN: &str = "127.0.0.1:2";
/// More sessions and log-ins than any cell has.
const LIMITS: &str =
    "[limits]\nsessions = 6000\nsessions_per_caller = 6000\nlogins = 6000\nlogins_per_address = 6000\n";
/// Of the proxy's config: the way to PostgreSQL's own listener.
pub(crate) const DIRECT: &str = "path = \"direct\"\nport = {server_port}\n";
/// In its place: the connector's way, through the simulated instance.
pub(crate) const CONNECTOR: &str = "ip_type = \"private\"\n";
/// The services that a log-in may call, and where a delay is ordered for them.
const REMOTE: [(Endpoint, Hop); 7] = [
    (Endpoint::EntraDiscovery, Hop::EntraDiscovery),
    (Endpoint::EntraKeys, Hop::EntraKeys),
    (Endpoint::OwnIdentity, Hop::OwnIdentity),
    (Endpoint::Sts, Hop::Sts),
    (Endpoint::GenerateAccessToken, Hop::IamCredentials),
    (Endpoint::ConnectSettings, Hop::SqlAdmin),
    (Endpoint::GenerateEphemeralCert, Hop::SqlAdmin),
];

/// What a cloud says of itself, as one line of JSON.
// No `Debug`: it has tokens.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The caller, who is also the database user.
    pub(crate) user: String,
    /// The caller's access token for the proxy.
    pub(crate) entra_token: String,
    /// The login token that each exchange gives the caller: the role's password.
    pub(crate) login_token: String,
    pub(crate) identity_endpoint: String,
    pub(crate) identity_header: String,
    /// Certificate and key of every peer's listener, and who signed it (PEM).
    pub(crate) listener_certificate: String,
    pub(crate) listener_key: String,
    pub(crate) listener_ca: String,
    /// Certificate, key and CA of PostgreSQL's listener (PEM).
    pub(crate) server_certificate: String,
    pub(crate) server_key: String,
    pub(crate) server_ca: String,
    /// One of the services that a delay is ordered for: Entra's discovery.
    pub(crate) discovery: Service,
    /// The proxy's config file, with `{port}`, `{folder}` and `{server_port}`.
    pub(crate) proxy_config: String,
}

/// Something that an HTTPS service answers without asking who asks.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    /// Of the address.
    pub(crate) path: String,
}

/// What the bench wants of a running cloud, one line of JSON each on its standard input.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Who gets through the instance's TLS at the connector's port speaks with the server at this address.
    StandIn {
        /// Where PostgreSQL takes clients without TLS.
        address: SocketAddr,
    },
    /// Each service answers this much later.
    Delay {
        /// Milliseconds; 0 ends it.
        ms: u64,
    },
    /// How many calls were made since this was asked last.
    Calls,
    /// Further tokens of the analyst's.
    Tokens {
        /// How many.
        count: usize,
    },
    /// Further callers of the analyst's group.
    Callers {
        /// How many.
        count: usize,
    },
}

/// What it answers.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Of [`Order::Calls`].
    pub(crate) calls: u32,
    /// Of [`Order::Callers`] and [`Order::Tokens`]: user name and access token.
    pub(crate) callers: Vec<(String, String)>,
}

/// A running cloud: ends when its standard input does.
pub(crate) struct Running {
    process: Child,
    output: BufReader<ChildStdout>,
    pub(crate) facts: Facts,
}

impl Running {
    pub(crate) fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.arg("cloud").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("a cloud without an output")?;
        let (mut output, mut line) = (BufReader::new(output), String::new());
        output.read_line(&mut line)?;
        let facts = serde_json::from_str(&line).map_err(|_| "the simulated cloud does not start")?;
        Ok(Self { process, output, facts })
    }

    /// Has an order carried out.
    pub(crate) fn order(&mut self, order: Order) -> Result<Answer> {
        let input = self.process.stdin.as_mut().ok_or("a cloud without an input")?;
        writeln!(input, "{}", serde_json::to_string(&order)?)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(serde_json::from_str(&line).map_err(|_| "the simulated cloud does not carry out an order")?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The other side: starts the cloud, says its facts, and carries out orders until standard input ends.
#[tokio::main]
pub(crate) async fn serve() -> Result<()> {
    let cloud = Cloud::start(CloudOptions::default()).await?;
    // By its public address clients reach PostgreSQL's own listener, by its private one the simulated instance.
    let addresses = serde_json::json!({ "ipAddresses": [
        { "type": "PRIMARY", "ipAddress": SERVER.to_string() },
        { "type": "PRIVATE", "ipAddress": cloud.instance_address().ip().to_string() },
    ]});
    if let serde_json::Value::Object(patch) = addresses {
        cloud.patch_connect_settings(patch);
    }
    println!("{}", serde_json::to_string(&facts(&cloud)?)?);
    let cloud = Arc::new(cloud);
    let ordered = Arc::clone(&cloud);
    tokio::task::spawn_blocking(move || carry_out(&ordered)).await??;
    if let Some(cloud) = Arc::into_inner(cloud) {
        cloud.shutdown().await;
    }
    Ok(())
}

fn carry_out(cloud: &Cloud) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let mut answer = Answer::default();
        match serde_json::from_str(&line?)? {
            Order::StandIn { address } => cloud.stand_in(Some(address)),
            Order::Delay { ms: 0 } => cloud.faults().clear_all(),
            Order::Delay { ms } => {
                for (_, hop) in REMOTE {
                    cloud.faults().set(hop, Fault::Delay(Duration::from_millis(ms)));
                }
            }
            Order::Calls => {
                let calls: u64 = REMOTE.iter().map(|(endpoint, _)| cloud.calls().count(*endpoint)).sum();
                answer.calls = u32::try_from(calls)?;
                cloud.calls().reset();
            }
            Order::Tokens { count } => answer.callers = (0..count).map(|_| token(cloud)).collect::<Result<_>>()?,
            Order::Callers { count } => answer.callers = (0..count).map(|_| caller(cloud)).collect::<Result<_>>()?,
        }
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}

fn token(cloud: &Cloud) -> Result<(String, String)> {
    Ok((ANALYST.upn.to_owned(), cloud.mint(&TokenSpec::person(&ANALYST))?.expose().clone()))
}

/// Somebody whom nobody has seen before.
fn caller(cloud: &Cloud) -> Result<(String, String)> {
    let id = SessionId::generate().to_string();
    let name = format!("{id}@contoso.example");
    let spec = TokenSpec::person(&ANALYST).claim("oid", id.as_str()).claim("sub", id);
    let spec = spec.claim("upn", name.as_str()).claim("preferred_username", name.as_str());
    Ok((name, cloud.mint(&spec)?.expose().clone()))
}

fn facts(cloud: &Cloud) -> Result<Facts> {
    let (certificate, key) = cloud.listener_certificate();
    let (server_certificate, server_key) = cloud.server_identity();
    // The chain ends with the CA that signed it.
    let server_ca = server_certificate.rfind("-----BEGIN").and_then(|at| server_certificate.get(at..));
    Ok(Facts {
        user: ANALYST.upn.to_owned(),
        entra_token: cloud.mint(&TokenSpec::person(&ANALYST))?.expose().clone(),
        login_token: cloud.steady_login_token(&ANALYST).expose().clone(),
        identity_endpoint: cloud.identity_endpoint().to_owned(),
        identity_header: cloud.identity_header().to_owned(),
        listener_certificate: std::fs::read_to_string(certificate)?,
        listener_key: std::fs::read_to_string(key)?,
        listener_ca: std::fs::read_to_string(cloud.ca_path())?,
        server_ca: server_ca.ok_or("the instance has no certificate")?.to_owned(),
        server_key: server_key.expose().clone(),
        discovery: Service {
            address: cloud.entra_authority().trim_start_matches("https://").parse()?,
            path: format!("/{}/v2.0/.well-known/openid-configuration", ANALYST.tenant.id),
        },
        proxy_config: proxy_config(cloud)?,
        server_certificate,
    })
}

/// The proxy's config with this in place of that, which must be there.
pub(crate) fn changed(config: &str, from: &str, to: &str) -> Result<String> {
    if config.contains(from) {
        return Ok(config.replacen(from, to, 1));
    }
    Err(format!("the proxy's config has no {from}").into())
}

/// Path `direct` to the bench's PostgreSQL, and no admin listener.
fn proxy_config(cloud: &Cloud) -> Result<String> {
    let mut config = cloud.proxy_config(&ProxyConfig {
        listen: LISTEN.parse()?,
        admin: ADMIN.parse()?,
        audit_folder: "{folder}/audit".into(),
        extra: LIMITS.to_owned(),
    });
    let section = format!("[instance.\"{}\"]\n", cloud.instance_name());
    for (from, to) in [
        (format!("address = \"{LISTEN}\""), "address = \"127.0.0.1:{port}\"".to_owned()),
        (format!("address = \"{ADMIN}\""), "enabled = false".to_owned()),
        (section.clone(), format!("{section}{DIRECT}")),
    ] {
        config = changed(&config, &from, &to)?;
    }
    Ok(config)
}

//! The simulated Entra and Google in a process of their own, and what the stage must know of them.

use crate::Result;
use crate::database::SERVER;
use pgpassport::sim::world::ANALYST;
use pgpassport::sim::{Cloud, CloudOptions, ProxyConfig, TokenSpec};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

/// In the proxy's config, in place of the address to listen on.
const LISTEN: &str = "127.0.0.1:1";
/// In the proxy's config, in place of the admin listener's address.
const ADMIN: &str = "127.0.0.1:2";
/// More sessions and log-ins than any cell has.
const LIMITS: &str = "[limits]\nsessions = 4000\nsessions_per_caller = 4000\nlogins_per_address = 4000\n";

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
    /// The proxy's config file, with `{port}`, `{folder}` and `{server_port}`.
    pub(crate) proxy_config: String,
}

/// A running cloud: ends when its standard input does.
pub(crate) struct Running {
    process: Child,
    pub(crate) facts: Facts,
}

impl Running {
    pub(crate) fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.arg("cloud").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("a cloud without an output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let facts = serde_json::from_str(&line).map_err(|_| "the simulated cloud does not start")?;
        Ok(Self { process, facts })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The other side: starts the cloud, says its facts, and stays until standard input ends.
#[tokio::main]
pub(crate) async fn serve() -> Result<()> {
    let cloud = Cloud::start(CloudOptions::default()).await?;
    let server = serde_json::json!({ "ipAddresses": [{ "type": "PRIMARY", "ipAddress": SERVER.to_string() }] });
    if let serde_json::Value::Object(patch) = server {
        cloud.patch_connect_settings(patch);
    }
    println!("{}", serde_json::to_string(&facts(&cloud)?)?);
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
    cloud.shutdown().await;
    Ok(())
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
        proxy_config: proxy_config(cloud)?,
        server_certificate,
    })
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
        (section.clone(), format!("{section}path = \"direct\"\nport = {{server_port}}\n")),
    ] {
        if !config.contains(&from) {
            return Err(format!("the proxy's config has no {from}").into());
        }
        config = config.replace(&from, &to);
    }
    Ok(config)
}

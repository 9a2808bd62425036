//! The file, and the validated settings that are composed of each module's own.
//!
//! Every error comes at once, each with file, line, key and reason; a config with an error is never served.
//! Reading opens no socket and writes nothing. Values are never echoed in reasons, names are.

mod audit;
pub mod client;
mod document;
mod durations;
mod expect;
mod files;
mod first_party;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod issuers;
mod lifetimes;
mod limits;
mod lints;
mod network;
mod on_behalf_of;
mod open_issuers;
mod pools;
mod reader;
mod rules;
mod settings;
mod startup;
mod suggest;
mod tag;
mod targets;
#[cfg(test)]
mod tests;
mod trust;
mod values;
mod who;

use crate::audit::sealing::SealingConfig;
use crate::audit::{LogConfig, Recording};
use crate::cloudsql::InstanceConfig;
use crate::federation::{GoogleEndpoints, OnBehalfOfConfig, OwnIdentityConfig};
pub use crate::frontend::ProxyProtocol;
use crate::identity::IssuerConfig;
use crate::names::IssuerName;
use crate::policy::Policy;
use crate::relay::tag::Template;
pub use crate::session::Deadlines;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything `serve` needs.
#[derive(Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: ListenConfig,
    /// Where operators look; `None` turns it off.
    pub admin: Option<SocketAddr>,
    /// Where operators act, with `pgpassport sessions`; `None` turns it off.
    pub admin_socket: Option<PathBuf>,
    /// Where records go.
    pub audit: AuditConfig,
    /// Whose tokens are accepted.
    pub issuers: Vec<IssuerConfig>,
    /// Google's services.
    pub google: GoogleEndpoints,
    /// `[on_behalf_of.ISSUER]`: whose people's tokens are traded before Google sees any.
    pub on_behalf_of: BTreeMap<IssuerName, OnBehalfOfConfig>,
    /// One CA file for every HTTPS call, in place of the platform's roots.
    pub ca_certificate: Option<PathBuf>,
    /// The proxy's own credential.
    pub own_identity: OwnIdentityConfig,
    /// Reachable instances.
    pub instances: Vec<InstanceConfig>,
    /// Databases and rules.
    pub policy: Policy,
    /// How many logins of `[[expect]]` end as they should.
    pub expectations: usize,
    /// What the tag says.
    pub tag: Template,
    /// Counts.
    pub limits: Limits,
    /// Times.
    pub deadlines: Deadlines,
}

/// `[listen]`.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// Address and port.
    pub address: SocketAddr,
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// Balancers in front of the proxy.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether they say who is behind them.
    pub proxy_protocol: ProxyProtocol,
    /// Threads that serve connections; as many as there are processors where the file does not say.
    pub workers: Option<usize>,
}

/// `[audit]`.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// The log.
    pub log: LogConfig,
    /// `[audit.sealing]`: the keys of texts that are sealed.
    pub sealing: Option<SealingConfig>,
    /// How much of what clients send is recorded.
    pub recording: Recording,
    /// Refusals before a token verifies that are recorded each minute; the rest are counted.
    pub unverified_refusals_per_minute: u32,
}

/// `[limits]`: more is refused with SQLSTATE 53300.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sessions in all, of callers whose token has verified.
    pub sessions: usize,
    /// Sessions of one caller.
    pub sessions_per_caller: usize,
    /// Connections that have not logged in yet.
    pub logins: usize,
    /// Those of one client address (IPv6: of one /64; of the /56 and /48 twice and four times as many).
    pub logins_per_address: usize,
    /// Different tokens of one client address that are refused within a minute before no more are checked.
    pub bad_tokens_per_address: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 1000,
            sessions_per_caller: 100,
            logins: 500,
            logins_per_address: 50,
            bad_tokens_per_address: 60,
        }
    }
}

/// One thing wrong with the file. `Display`: `FILE:LINE: KEY: REASON`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file as it was named.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Dotted key, for instance `issuer.contoso.tenant`.
    pub key: String,
    /// What is wrong and what is expected.
    pub reason: String,
}

/// A config that can be served, and what is worth a warning.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Choices that an operator should see (`tag = false`…).
    pub warnings: Vec<Problem>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file.display(), self.line, self.key, self.reason)
    }
}

/// Reads and checks a config file; all problems at once, in the order of their lines.
///
/// Relative paths in the file start at the file's folder.
pub fn load(path: &Path) -> Result<Loaded, Vec<Problem>> {
    let bytes = files::regular(path, document::MAX_CONFIG_BYTES)
        .map_err(|reason| vec![Problem { file: path.to_owned(), line: 1, key: "(file)".to_owned(), reason }])?;
    check(path, &bytes)
}

/// Checks a config file's bytes; `path` names it in problems, and relative paths start at its folder.
fn check(path: &Path, bytes: &[u8]) -> Result<Loaded, Vec<Problem>> {
    let report = reader::Report::new(path, bytes);
    let config = document::parse(bytes, &report, |root| settings::settings(root, path));
    let (problems, warnings) = report.finish();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings }),
        // Nothing was reported and nothing was built: a bug of ours, and still no config.
        None if problems.is_empty() => Err(vec![Problem {
            file: path.to_owned(),
            line: 1,
            key: "(file)".to_owned(),
            reason: "cannot be used, for a reason that is not known; please report this".to_owned(),
        }]),
        _ => Err(problems),
    }
}

//! What a config file says, made ready to serve: at the start, and again at each reload.

use super::Error;
use crate::audit::event::Event;
use crate::audit::ledger::Opening;
use crate::audit::sealing::SealingConfig;
use crate::audit::{self, Auditor, LogConfig};
use crate::cloudsql::{self, Connector, InstanceConfig};
use crate::config::{Config, Deadlines, Limits};
use crate::federation::{
    self, Exchanger, Google, GoogleEndpoints, GraphIdentity, OnBehalfOf, OnBehalfOfConfig, OwnIdentity,
    OwnIdentityConfig,
};
use crate::frontend::{self, Door, DoorConfig};
use crate::http::Client;
use crate::identity::{self, Directory, IssuerConfig, Overage, Verifier};
use crate::names::{IssuerName, SessionId};
use crate::policy::Policy;
use crate::session::{self, Callers, CancelKeys, Judge, Services, Sessions, TokenAddresses};
use crate::telemetry::Metrics;
use crate::time::Clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// What lives as long as the process, through every reload. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Lasting {
    pub auditor: Auditor,
    pub sessions: Sessions,
    pub cancel_keys: CancelKeys,
    pub callers: Callers,
    pub limits: session::Limits,
    pub tokens: TokenAddresses,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

/// What only a start can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fixed {
    listen: SocketAddr,
    workers: Option<usize>,
    admin: Option<SocketAddr>,
    admin_socket: Option<PathBuf>,
    audit: LogConfig,
    sealing: Option<SealingConfig>,
}

/// One generation, and what the next one is compared with.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub services: Arc<Services>,
    pub door: Door,
    dialling: Arc<Dialling>,
    watched: DoorConfig,
}

/// Everything that a connector is made of: where all is as it was, so is the connector, with its certificates.
#[derive(Debug, PartialEq, Eq)]
struct Dialling {
    instances: Vec<InstanceConfig>,
    google: GoogleEndpoints,
    own_identity: OwnIdentityConfig,
    calls: federation::Deadlines,
    own: std::time::Duration,
    hops: cloudsql::Deadlines,
    /// The bytes of `https.ca_certificate`, which may have changed where the name has not.
    roots: Option<Vec<u8>>,
}

impl Lasting {
    pub fn open(config: &Config, metrics: Arc<Metrics>, clock: Clock) -> Result<Self, Error> {
        let vault = config.audit.sealing.as_ref().map(SealingConfig::open).transpose()?.map(Arc::new);
        let ca = config.ca_certificate.as_deref();
        let (log, opening) = audit::open(&config.audit.log, ca, vault.clone(), clock.clone())?;
        let refusals = config.audit.unverified_refusals_per_minute;
        let auditor = Auditor::new(Arc::new(log), refusals, clock.clone()).with_vault(vault);
        tell_opening(&auditor, &opening)?;
        let callers = Callers::new(config.limits.sessions, config.limits.sessions_per_caller);
        let (sessions, cancel_keys) = (Sessions::default(), CancelKeys::default());
        let (limits, tokens) = (session::Limits::default(), TokenAddresses::default());
        Ok(Self { auditor, sessions, cancel_keys, callers, limits, tokens, metrics, clock })
    }
}

/// What the last process left open is told before anything else is recorded.
fn tell_opening(auditor: &Auditor, opening: &Opening) -> Result<(), Error> {
    let Opening { records, unsealed, cut } = *opening;
    if unsealed == 0 && cut.is_none() {
        return Ok(());
    }
    let (segment, cut_bytes) = cut.unzip();
    tracing::warn!(records, unsealed, cut_bytes, "the audit log was not closed; going on behind its last whole record");
    let recovery = Event::Recovery { records, unsealed, segment, cut_bytes };
    Ok(auditor.record(SessionId::generate(), &recovery)?)
}

impl Fixed {
    pub fn of(config: &Config) -> Self {
        let Config { listen, admin, admin_socket, audit, .. } = config;
        let (log, sealing) = (audit.log.clone(), audit.sealing.clone());
        let (workers, admin_socket) = (listen.workers, admin_socket.clone());
        Self { listen: listen.address, workers, admin: *admin, admin_socket, audit: log, sealing }
    }

    /// The keys that say something else there.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let Self { listen, workers, admin, admin_socket, audit, sealing } = self;
        let keys = [
            ("listen.address", *listen == other.listen),
            ("listen.workers", *workers == other.workers),
            ("admin.address", *admin == other.admin),
            ("admin.socket", *admin_socket == other.admin_socket),
            ("audit.folder", audit.folder == other.audit.folder),
            ("audit.key", audit.key == other.audit.key),
            ("audit.segment_bytes", audit.segment_bytes == other.audit.segment_bytes),
            ("audit.jsonl", audit.jsonl == other.audit.jsonl),
            ("audit.anchors", audit.anchors == other.audit.anchors),
            ("audit.sealing", *sealing == other.sealing),
            ("audit.keep", audit.keep == other.audit.keep),
        ];
        keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}

impl Generation {
    /// Opens nothing and calls nobody, but reads the files that the config names.
    pub fn make(config: Config, lasting: &Lasting, earlier: Option<&Self>) -> Result<Self, Error> {
        let watched = door_config(&config);
        let door = match earlier.filter(|earlier| earlier.watched == watched) {
            Some(earlier) => earlier.door.clone(),
            None => Door::new(watched.clone()),
        };
        let Config { listen, issuers, google, ca_certificate, own_identity, instances, policy, tag, .. } = config;
        let (limits, deadlines) = (config.limits, config.deadlines);
        let tls = frontend::server_config(&listen.certificate, &listen.key)?;
        let http = Client::new(ca_certificate.as_deref())?;
        let calls = federation::Deadlines { sts: deadlines.sts, iam_credentials: deadlines.iam_credentials };
        let dialling = Dialling {
            instances,
            google: google.clone(),
            own_identity,
            calls,
            own: deadlines.own_identity,
            hops: cloudsql::Deadlines {
                admin_api: deadlines.admin_api,
                dial: deadlines.dial,
                handshake: deadlines.handshake,
            },
            roots: ca_certificate.and_then(|path| std::fs::read(path).ok()),
        };
        let calls = || Google {
            endpoints: google.clone(),
            http: http.clone(),
            clock: lasting.clock.clone(),
            deadlines: calls,
            services: federation::Services::default(),
        };
        let same = earlier.filter(|earlier| *earlier.dialling == dialling);
        let connector = match same {
            Some(earlier) => Arc::clone(&earlier.services.connector),
            None => Arc::new(connector(&dialling, calls())?),
        };
        let verifier = verifier(issuers, &policy, (&limits, &deadlines), &http, &lasting.clock)?;
        let verifier = match earlier {
            Some(earlier) => verifier.succeeding(&earlier.services.verifier, &http, deadlines.keys),
            None => verifier,
        };
        let trades = trades(config.on_behalf_of, &http, &lasting.clock, &deadlines)?;
        let (policy, verifier) = (Arc::new(policy), Arc::new(verifier));
        let judge = Judge { policy: Arc::clone(&policy), verifier: Arc::clone(&verifier), drain: deadlines.drain };
        let Lasting { auditor, sessions, cancel_keys, callers, limits: used_up, tokens, metrics, clock } =
            lasting.clone();
        let services = Arc::new(Services {
            tls,
            verifier,
            policy,
            judge: Arc::new(judge),
            tag,
            exchanger: Exchanger::new(calls(), trades),
            connector,
            recording: config.audit.recording,
            auditor,
            sessions,
            cancel_keys,
            callers: callers.limited(limits.sessions, limits.sessions_per_caller),
            limits: used_up,
            tokens,
            metrics,
            clock,
            deadlines,
        });
        Ok(Self { services, door, dialling: Arc::new(dialling), watched })
    }
}

fn connector(dialling: &Dialling, calls: Google) -> Result<Connector, Error> {
    let Dialling { instances, google, own_identity, own, hops, .. } = dialling;
    let (http, clock) = (calls.http.clone(), calls.clock.clone());
    let own = OwnIdentity::new(own_identity.clone(), calls, *own).map_err(Error::OwnIdentity)?;
    Connector::new(instances.clone(), google.clone(), Arc::new(own), http, clock, *hops).map_err(Error::Connector)
}

/// How people's tokens are traded; reads the credentials anew.
fn trades(
    configured: BTreeMap<IssuerName, OnBehalfOfConfig>,
    http: &Client,
    clock: &Clock,
    deadlines: &Deadlines,
) -> Result<BTreeMap<IssuerName, OnBehalfOf>, Error> {
    let bounds = (deadlines.on_behalf_of, deadlines.own_identity);
    let trade = |(issuer, config)| {
        Ok((issuer, OnBehalfOf::new(config, http.clone(), clock.clone(), bounds).map_err(Error::OnBehalfOf)?))
    };
    configured.into_iter().map(trade).collect()
}

/// Checks tokens, and asks directories for the groups that do not fit into them.
fn verifier(
    issuers: Vec<IssuerConfig>,
    policy: &Policy,
    (limits, deadlines): (&Limits, &Deadlines),
    http: &Client,
    clock: &Clock,
) -> Result<Verifier, Error> {
    let mut directories = Vec::new();
    for issuer in &issuers {
        let Some(Overage::Graph { endpoint, client_id }) = issuer.entra().map(|entra| &entra.overage) else { continue };
        let own = deadlines.own_identity;
        let token = GraphIdentity::new(http.clone(), clock.clone(), own, endpoint, client_id.clone())
            .map_err(Error::OwnIdentity)?;
        let asked = policy.groups_of(&issuer.name).cloned().collect();
        let directory = Directory::new(endpoint, Arc::new(token), http.clone(), deadlines.keys, asked);
        directories.push((issuer.name.clone(), directory));
    }
    let bounds = identity::Settings { keys: deadlines.keys, bad_tokens_per_address: limits.bad_tokens_per_address };
    let verifier = Verifier::new(issuers, http.clone(), bounds);
    Ok(directories.into_iter().fold(verifier, |verifier, (name, directory)| verifier.with_directory(name, directory)))
}

fn door_config(config: &Config) -> DoorConfig {
    DoorConfig {
        logins: config.limits.logins,
        logins_per_address: config.limits.logins_per_address,
        trusted_proxies: config.listen.trusted_proxies.clone(),
        proxy_protocol: config.listen.proxy_protocol,
    }
}

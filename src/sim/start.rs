//! Starting the cloud: ports, certificates, state, PostgreSQL, servers.

use super::certs::{Authority, Leaf, loopback_names, random_serial};
use super::entra::{self, Entra};
use super::gate::Gate;
use super::google::{Google, Issuers};
use super::instance::{self, Instance, Server};
use super::oidc::{self, Oidc};
use super::postgres::Postgres;
use super::state_dir::StateDir;
use super::{Calls, Cloud, CloudOptions, Error, Faults, Hop, Urls, https, world};
use crate::time::{Clock, Timestamp};
use rcgen::ExtendedKeyUsagePurpose;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use tokio::task::JoinSet;

/// Seconds that the HTTPS certificates are valid before and after the start: shifted clocks stay inside.
const VALID_SECONDS: i64 = 30 * 86_400;

/// The services' listeners, bound before anything is told where they are.
struct Gates {
    entra: Gate,
    graph: Gate,
    oidc: Gate,
    sts: Gate,
    iam_credentials: Gate,
    sql_admin: Gate,
    identity: Gate,
    instance: Gate,
    direct: Gate,
}

/// Starts everything.
pub(super) async fn cloud(options: CloudOptions) -> Result<Cloud, Error> {
    let (faults, calls, offset) = (Faults::default(), Calls::default(), Arc::new(AtomicI64::new(0)));
    let clock = Clock::shifted(Arc::clone(&offset));
    let gates = Gates::bind(&faults)?;
    let urls = gates.urls();
    let name = world::instance().map_err(|error| Error::Certificate(error.to_string()))?;
    let instance = Instance::new(name, gates.instance.address(), options.server_certificate, clock.now())?;
    let instance = Arc::new(instance);
    let (entra, postgres) = tokio::join!(
        start_entra(urls.entra.clone(), urls.graph.clone(), clock.clone()),
        Postgres::start(options.postgres)
    );
    let (entra, postgres) = (entra?, postgres?);
    let oidc = Arc::new(Oidc::new(format!("https://{}", gates.oidc.address()), clock.clone())?);
    let issuers = Issuers { entra: Arc::clone(&entra), oidc: Arc::clone(&oidc) };
    let google = Arc::new(Google::new(issuers, clock.clone(), Arc::clone(&instance)));
    let ca = Authority::root("Simulated Cloud CA")?;
    let identity = ca.identity(&loopback_leaf(clock.now())?)?;
    let state = StateDir::create(&ca, &identity)?;
    let server = Server {
        instance: Arc::clone(&instance),
        google: Arc::clone(&google),
        clock: clock.clone(),
        calls: calls.clone(),
        faults: faults.clone(),
        socket: postgres.socket().to_owned(),
    };
    let tls = https::acceptor(&identity)?;
    let mut servers = JoinSet::new();
    let services = [
        (gates.entra, Some(tls.clone()), entra::login_service(Arc::clone(&entra), calls.clone(), faults.clone())),
        (gates.graph, Some(tls.clone()), entra::graph_service(Arc::clone(&entra), calls.clone(), faults.clone())),
        (gates.oidc, Some(tls.clone()), oidc::service(&oidc, calls.clone(), faults.clone())),
        (gates.identity, None, entra::identity_service(Arc::clone(&entra), calls.clone(), faults.clone())),
        (gates.sts, Some(tls.clone()), google.sts_service(calls.clone(), faults.clone())),
        (gates.iam_credentials, Some(tls.clone()), google.iam_credentials_service(calls.clone(), faults.clone())),
        (gates.sql_admin, Some(tls), google.sql_admin_service(calls.clone(), faults.clone())),
    ];
    for (gate, tls, service) in services {
        servers.spawn(https::serve(gate, tls, service));
    }
    if let Some(address) = options.metadata {
        let gate = Gate::bind(address, Hop::OwnIdentity, faults.clone());
        let gate = gate.map_err(|source| Error::io("bind the metadata server's address", source))?;
        servers.spawn(https::serve(gate, None, google.metadata_service(calls.clone(), faults.clone())));
    }
    let direct = gates.direct.address();
    servers.spawn(server.clone().serve(gates.instance, instance::Path::Connector));
    servers.spawn(server.serve(gates.direct, instance::Path::Direct));
    Ok(Cloud { servers, postgres, state, entra, oidc, google, instance, faults, calls, clock, offset, urls, direct })
}

impl Gates {
    fn bind(faults: &Faults) -> Result<Self, Error> {
        let (instance, direct) = instance::bind(faults)?;
        Ok(Self {
            entra: https::bind(Hop::EntraKeys, faults)?.and(Hop::EntraDiscovery).and(Hop::EntraToken),
            graph: https::bind(Hop::Graph, faults)?,
            oidc: https::bind(Hop::PartnerKeys, faults)?,
            sts: https::bind(Hop::Sts, faults)?,
            iam_credentials: https::bind(Hop::IamCredentials, faults)?,
            sql_admin: https::bind(Hop::SqlAdmin, faults)?,
            identity: https::bind(Hop::OwnIdentity, faults)?,
            instance,
            direct,
        })
    }

    fn urls(&self) -> Urls {
        let https = |gate: &Gate| format!("https://{}", gate.address());
        Urls {
            entra: https(&self.entra),
            graph: https(&self.graph),
            sts: https(&self.sts),
            iam_credentials: https(&self.iam_credentials),
            sql_admin: https(&self.sql_admin),
            identity: format!("http://{}/msi/token", self.identity.address()),
        }
    }
}

async fn start_entra(base: String, graph: String, clock: Clock) -> Result<Arc<Entra>, Error> {
    let made = tokio::task::spawn_blocking(move || Entra::new(base, graph, clock)).await;
    made.map_err(|error| Error::Certificate(error.to_string()))?.map(Arc::new)
}

fn loopback_leaf(now: Timestamp) -> Result<Leaf<'static>, Error> {
    let at = |seconds: i64| Timestamp::from_second(now.as_second() + seconds).unwrap_or(now);
    Ok(Leaf {
        common_name: "localhost",
        names: loopback_names()?,
        usage: ExtendedKeyUsagePurpose::ServerAuth,
        not_before: at(-VALID_SECONDS),
        not_after: at(VALID_SECONDS),
        serial: random_serial(),
    })
}

//! Each hop is tried: one caller after the other at each.

use super::cells::{Cell, FAULTS, HOPS, Hop, MATRIX};
use super::{DEADLINE, at_deadline, refuses, unharmed};
use pgpassport::sim::world::{
    ANALYST, PROXY_APP, SECOND_API, SECOND_API_URI, WORKFORCE_PROVIDER, WORKFORCE_PROVIDER_OBO,
};
use pgpassport::sim::{self, Endpoint, Fault, TokenSpec};
use proto_tests::chain::{Chain, Prepared, Setup};
use proto_tests::psql::Login;
use proto_tests::refusal::Expected;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a slow hop hangs.
const HANG: Duration = Duration::from_secs(40);

impl Hop {
    /// As the simulated cloud calls it.
    pub fn simulated(self) -> sim::Hop {
        match self {
            Self::Discovery => sim::Hop::EntraDiscovery,
            Self::Jwks => sim::Hop::EntraKeys,
            Self::Graph => sim::Hop::Graph,
            Self::OnBehalfOf => sim::Hop::EntraToken,
            Self::Sts => sim::Hop::Sts,
            Self::Iam => sim::Hop::IamCredentials,
            Self::OwnIdentity => sim::Hop::OwnIdentity,
            Self::AdminApi => sim::Hop::SqlAdmin,
            Self::Dial => sim::Hop::InstanceTcp,
            Self::Tls => sim::Hop::InstanceTls,
            Self::Login => sim::Hop::InstanceLogin,
        }
    }

    /// The key of `[deadlines]`.
    pub fn deadline(self) -> &'static str {
        let index = HOPS.iter().position(|one| *one == self).expect("a row");
        MATRIX[index].deadline
    }

    /// In the order of [`FAULTS`].
    fn fault(self, name: &str) -> Fault {
        match (self, name) {
            (Self::Dial, "slow") => Fault::BlackHole,
            (_, "slow") => Fault::Delay(HANG),
            (_, "refused") => Fault::Refuse,
            (_, "reset") => Fault::Reset,
            (_, "4xx") => Fault::Status(403),
            (_, "429") => Fault::Status(429),
            (_, "5xx") => Fault::Status(503),
            (_, "garbage") => Fault::Garbage,
            (_, "huge body") => Fault::Huge,
            (_, other) => panic!("no fault {other}"),
        }
    }

    /// What is kept of a hop once it has answered is not asked again: each fault needs a proxy that knows nothing yet.
    fn is_remembered(self) -> bool {
        matches!(self, Self::Discovery | Self::Jwks | Self::Graph | Self::OwnIdentity | Self::AdminApi)
    }

    /// Who comes by this hop; each time with a token that nobody has seen.
    pub fn caller(self, chain: &Chain) -> Login {
        match self {
            Self::Graph => {
                chain.login(ANALYST.upn, &TokenSpec::person(&ANALYST).without("groups").claim("hasgroups", true))
            }
            Self::OnBehalfOf => chain.person(),
            _ => chain.app(),
        }
    }

    /// A chain whose callers come by this hop, with its own deadline cut to [`DEADLINE`].
    pub async fn prepare(self, deadline: &str) -> Prepared {
        let deadlines = format!("[deadlines]\n{deadline} = \"{}ms\"", DEADLINE.as_millis());
        let setup = Setup::default().extra(&deadlines);
        match self {
            Self::Graph => {
                let asking = "[issuer.contoso]\ngroups_overage = \"graph\"\ngraph = \"GRAPH\"";
                let prepared = setup.replace("[issuer.contoso]", asking).prepare().await;
                let url = prepared.cloud.graph_url().to_owned();
                prepared.replace("GRAPH", &url)
            }
            Self::OnBehalfOf => {
                let section = format!(
                    "[on_behalf_of.contoso]\nscope = \"{SECOND_API_URI}/.default\"\naudience = \"{SECOND_API}\"\n\
                     client_secret_file = \"client-secret\""
                );
                let setup = setup.extra(&section).replace(WORKFORCE_PROVIDER, WORKFORCE_PROVIDER_OBO);
                let prepared = setup.prepare().await;
                std::fs::write(prepared.folder().join("client-secret"), PROXY_APP.secret).expect("written");
                prepared
            }
            _ => setup.prepare().await,
        }
    }
}

/// Tries every cell of a hop's row.
async fn row(hop: Hop) {
    let index = HOPS.iter().position(|one| *one == hop).expect("a row");
    let row = MATRIX[index];
    let mut kept: Option<Chain> = None;
    let mut tried = 0;
    for (name, cell) in FAULTS.iter().zip(row.cells) {
        let Cell::Refused(sqlstate) = cell else { continue };
        let what = format!("{} × {name}", hop.name());
        println!("{what}");
        let (simulated, fault) = (hop.simulated(), hop.fault(name));
        let chain = if let Some(mut chain) = kept.take() {
            chain.calls().reset();
            chain.cloud.faults().set(simulated, fault);
            if hop.is_remembered() {
                chain.restart().await;
            }
            chain
        } else {
            let prepared = hop.prepare(row.deadline).await;
            prepared.cloud.faults().set(simulated, fault);
            prepared.start().await
        };
        // The keys are asked for at the start; what failed then is not asked again at once.
        if matches!(hop, Hop::Discovery | Hop::Jwks) {
            tokio::time::sleep(Duration::from_millis(2200)).await;
        }
        let (took, _) = refuses(&chain, &what, Expected { sqlstate, says: "" }, &hop.caller(&chain)).await;
        if *name == "slow" {
            at_deadline(&what, took);
        }
        assert_eq!(chain.calls().count(Endpoint::InstanceLogin), 0, "{what}: nobody was let in");
        unharmed(&chain, &hop.caller(&chain)).await;
        tried += 1;
        kept = Some(chain);
    }
    assert_eq!(tried, row.cells.iter().filter(|cell| matches!(cell, Cell::Refused(_))).count());
}

/// Tries the rows of these hops beside each other: they mostly wait.
async fn rows(hops: &[Hop]) {
    let mut all = JoinSet::new();
    for hop in hops {
        all.spawn(row(*hop));
    }
    all.join_all().await;
}

const OF_ENTRA: [Hop; 4] = [Hop::Discovery, Hop::Jwks, Hop::Graph, Hop::OnBehalfOf];
const OF_GOOGLE: [Hop; 4] = [Hop::Sts, Hop::Iam, Hop::OwnIdentity, Hop::AdminApi];
const OF_THE_INSTANCE: [Hop; 3] = [Hop::Dial, Hop::Tls, Hop::Login];

#[test]
fn every_hop_has_its_test() {
    assert_eq!([&OF_ENTRA[..], &OF_GOOGLE, &OF_THE_INSTANCE].concat(), HOPS);
}

#[tokio::test(flavor = "multi_thread")]
async fn hops_of_entra() {
    rows(&OF_ENTRA).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hops_of_google() {
    rows(&OF_GOOGLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hops_of_the_instance() {
    rows(&OF_THE_INSTANCE).await;
}

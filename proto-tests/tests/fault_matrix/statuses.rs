//! Statuses that the table of remedies tells apart: what the client is told is the next step, and what is asked again
//! and what is not.

use super::cells::Hop;
use super::{DEADLINE, refuses};
use pgpassport::sim::world::ANALYST;
use pgpassport::sim::{Endpoint, Fault, TokenSpec};
use proto_tests::chain::Chain;
use proto_tests::psql::Login;
use proto_tests::refusal::Expected;
use std::ops::RangeInclusive;
use tokio::task::JoinSet;

/// One status of a hop.
struct Told {
    status: u16,
    sqlstate: &'static str,
    /// In the message or its hint.
    says: &'static str,
    /// How often the service is asked.
    asked: RangeInclusive<u64>,
}

const fn told(status: u16, sqlstate: &'static str, says: &'static str, asked: RangeInclusive<u64>) -> Told {
    Told { status, sqlstate, says, asked }
}

/// A 429 comes last: what comes after it would wait.
const STATUSES: [(Hop, Endpoint, [Told; 7]); 5] = [
    (
        Hop::Graph,
        Endpoint::Graph,
        [
            told(401, "57P03", "GroupMember.Read.All", 1..=1),
            told(403, "57P03", "GroupMember.Read.All", 1..=1),
            told(404, "57P03", "does not know you", 1..=1),
            told(408, "57P03", "cannot be asked for them now", 3..=3),
            told(500, "57P03", "cannot be asked for them now", 3..=3),
            told(503, "57P03", "cannot be asked for them now", 3..=3),
            told(429, "57P03", "takes no more questions", 2..=3),
        ],
    ),
    (
        // A failing front end of Entra's says nothing in JSON.
        Hop::OnBehalfOf,
        Endpoint::EntraToken,
        [
            told(401, "08006", "cannot be used", 1..=1),
            told(403, "08006", "cannot be used", 1..=1),
            told(404, "08006", "cannot be used", 1..=1),
            told(408, "57P03", "is unavailable", 3..=3),
            told(500, "57P03", "is unavailable", 3..=3),
            told(503, "57P03", "is unavailable", 3..=3),
            told(429, "57P03", "takes no more calls", 2..=3),
        ],
    ),
    (
        Hop::Sts,
        Endpoint::Sts,
        [
            told(401, "28000", "issuer, audience, keys and condition", 1..=1),
            told(403, "28000", "issuer, audience, keys and condition", 1..=1),
            told(404, "28000", "issuer, audience, keys and condition", 1..=1),
            told(408, "57P03", "is unavailable", 3..=3),
            told(500, "57P03", "is unavailable", 3..=3),
            told(503, "57P03", "is unavailable", 3..=3),
            told(429, "57P03", "takes no more calls", 2..=3),
        ],
    ),
    (
        Hop::Iam,
        Endpoint::GenerateAccessToken,
        [
            told(401, "28000", "pool and provider of the rule", 1..=1),
            told(403, "28000", "roles/iam.workloadIdentityUser", 1..=1),
            told(404, "28000", "service account of the rule", 1..=1),
            told(408, "57P03", "is unavailable", 1..=1),
            told(500, "57P03", "is unavailable", 1..=1),
            told(503, "57P03", "is unavailable", 3..=3),
            told(429, "57P03", "takes no more calls", 2..=3),
        ],
    ),
    (
        Hop::AdminApi,
        Endpoint::ConnectSettings,
        [
            told(401, "57P03", "roles/cloudsql.client", 1..=1),
            told(403, "57P03", "roles/cloudsql.client", 1..=1),
            told(404, "57P03", "the instance's name", 1..=1),
            told(408, "57P03", "is unavailable", 1..=1),
            told(500, "57P03", "is unavailable", 2..=5),
            told(503, "57P03", "is unavailable", 2..=5),
            told(429, "57P03", "is unavailable", 1..=1),
        ],
    ),
];

/// Somebody of whom the hop has not been asked yet.
fn somebody(chain: &Chain, hop: Hop, number: usize) -> Login {
    match hop {
        Hop::Graph => {
            let id = format!("00000000-0000-4000-8000-{number:012}");
            let spec = TokenSpec::person(&ANALYST).without("groups").claim("hasgroups", true).claim("oid", id);
            chain.login(ANALYST.upn, &spec)
        }
        _ => hop.caller(chain),
    }
}

/// How often an endpoint was asked. The Admin API is asked for settings and a certificate at once, and the first refusal
/// ends both: either of them may not have left by then.
fn asked_of(chain: &Chain, endpoint: Endpoint) -> u64 {
    let twin = if endpoint == Endpoint::ConnectSettings { Endpoint::GenerateEphemeralCert } else { endpoint };
    chain.calls().count(endpoint).max(chain.calls().count(twin))
}

async fn statuses(hop: Hop) {
    let (_, endpoint, statuses) = STATUSES.iter().find(|(one, ..)| *one == hop).expect("a row");
    let mut chain = hop.prepare(hop.deadline()).await.start().await;
    for (number, Told { status, sqlstate, says, asked }) in statuses.iter().enumerate() {
        let what = format!("{} × {status}", hop.name());
        println!("{what}");
        if hop == Hop::AdminApi {
            // What has failed is not asked again at once.
            chain.restart().await;
        } else if number == 0 {
            chain.query(&chain.app(), "select 'the proxy has its own token'").await;
        }
        chain.calls().reset();
        chain.cloud.faults().set(hop.simulated(), Fault::Status(*status));
        let expected = Expected { sqlstate, says: "" };
        let (took, answer) = refuses(&chain, &what, expected, &somebody(&chain, hop, number)).await;
        let text = [b'M', b'H'].map(|field| answer.field(field).unwrap_or_default()).join(" ");
        assert!(text.contains(says), "{what}: {text}");
        assert!(took <= DEADLINE * 2, "{what}: {took:?}");
        let count = asked_of(&chain, *endpoint);
        assert!(asked.contains(&count), "{what}: asked {count} times");
        chain.cloud.faults().clear_all();
    }
}

/// Beside each other: they mostly wait.
#[tokio::test(flavor = "multi_thread")]
async fn each_status_is_told_with_its_own_next_step() {
    let mut all = JoinSet::new();
    for (hop, ..) in STATUSES {
        all.spawn(statuses(hop));
    }
    all.join_all().await;
}

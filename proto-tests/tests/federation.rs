//! The exchange: delegates, what a caller's token has bought already, and a Google that is overrun.

use pgpassport::sim::world::{ANALYST, ORDERS_APP, OTHER_APP, REPORTS_APP, WORKFORCE_PROVIDER, WORKLOAD_PROVIDER};
use pgpassport::sim::{Endpoint, Fault, Hop, TokenSpec};
use proto_tests::chain::{Chain, Prepared, Setup};
use proto_tests::refusal::{Expected, refused_by_psql};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const TOKEN_CREATOR: &str = "roles/iam.serviceAccountTokenCreator";
const IDENTITY_USER: &str = "roles/iam.workloadIdentityUser";

/// Principals of a pool, as bindings name them.
fn principal(provider: &str, subject: &str) -> String {
    let (pool, _) = provider.split_once("/providers/").expect("a provider is in a pool");
    format!("principal:{pool}/subject/{subject}")
}

fn account(email: &str) -> String {
    format!("serviceAccount:{email}")
}

/// By way of two accounts to the third.
fn by_way() -> Setup {
    let goal = format!("service_account = \"{}\"", ORDERS_APP.service_account);
    let delegates =
        format!("{goal}, delegates = [\"{}\", \"{}\"]", OTHER_APP.service_account, REPORTS_APP.service_account);
    Setup::default().replace(&goal, &delegates)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_delegates_holds_as_its_weakest_link() {
    let app = principal(WORKLOAD_PROVIDER, ORDERS_APP.object_id);
    let (first, second) = (account(OTHER_APP.service_account), account(REPORTS_APP.service_account));
    let links = [
        (IDENTITY_USER, app.clone(), OTHER_APP.service_account),
        (TOKEN_CREATOR, first, REPORTS_APP.service_account),
        (TOKEN_CREATOR, second, ORDERS_APP.service_account),
    ];
    for missing in [None, Some(0), Some(1), Some(2)] {
        let chain = by_way().start().await;
        // The direct way, which the rule does not take any more.
        chain.cloud.revoke(IDENTITY_USER, &app);
        for (index, (role, member, on)) in links.iter().enumerate() {
            if Some(index) != missing {
                chain.cloud.grant(role, member, Some(on));
            }
        }
        if missing.is_some() {
            let expected = Expected { sqlstate: "28000", says: TOKEN_CREATOR };
            refused_by_psql(&chain, &chain.app(), expected).await;
            assert_eq!(chain.calls().count(Endpoint::InstancePassword), 0);
        } else {
            assert_eq!(chain.query(&chain.app(), "select session_user").await, ORDERS_APP.database_user);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_reconnects_costs_google_one_exchange() {
    let chain = std::sync::Arc::new(Chain::start().await);
    let login = chain.app();
    let mut logins = JoinSet::new();
    for _ in 0..20 {
        let (chain, login) = (std::sync::Arc::clone(&chain), login.clone());
        logins.spawn(async move { drop(chain.connect(&login).await) });
    }
    while let Some(done) = logins.join_next().await {
        done.expect("logged in");
    }
    // The callers' one, and the proxy's own.
    let count = |endpoint| chain.calls().count(endpoint);
    assert_eq!((count(Endpoint::Sts), count(Endpoint::GenerateAccessToken)), (2, 2));
    assert_eq!(count(Endpoint::InstanceLogin), 20);
    // A new token of the same caller's buys a new login.
    chain.query(&chain.app(), "select 1").await;
    assert_eq!((count(Endpoint::Sts), count(Endpoint::GenerateAccessToken)), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_the_instance_refuses_is_not_kept() {
    let chain = Chain::start().await;
    let (login, analyst) = (chain.person(), principal(WORKFORCE_PROVIDER, ANALYST.upn));
    assert_eq!(chain.query(&login, "select 1").await, "1");
    let exchanged = chain.calls().count(Endpoint::Sts);
    // A role that is taken away holds for the next login, whatever is kept.
    chain.cloud.revoke("roles/cloudsql.instanceUser", &analyst);
    let expected = Expected { sqlstate: "28000", says: "roles/cloudsql.instanceUser" };
    refused_by_psql(&chain, &login, expected).await;
    assert_eq!(chain.calls().count(Endpoint::Sts), exchanged, "the kept token was tried");
    chain.cloud.grant("roles/cloudsql.instanceUser", &analyst, None);
    assert_eq!(chain.query(&login, "select 1").await, "1");
    assert_eq!(chain.calls().count(Endpoint::Sts), exchanged + 1, "and a new one was bought");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_google_refused_is_not_sent_again_and_a_new_one_is() {
    let chain = Chain::start().await;
    let app = principal(WORKLOAD_PROVIDER, ORDERS_APP.object_id);
    chain.query(&chain.person(), "select 'the proxy has its own token'").await;
    chain.cloud.revoke(IDENTITY_USER, &app);
    let stale = TokenSpec::person(&ANALYST).issued_ago(25 * 3600).lifetime(26 * 3600);
    let (stale, refused) = (chain.login(ANALYST.upn, &stale), chain.app());
    for (login, expected, endpoint) in [
        (&stale, Expected { sqlstate: "28P01", says: "same one will not do" }, Endpoint::Sts),
        (&refused, Expected { sqlstate: "28000", says: IDENTITY_USER }, Endpoint::GenerateAccessToken),
    ] {
        let before = chain.calls().count(endpoint);
        refused_by_psql(&chain, login, expected).await;
        assert_eq!(chain.calls().count(endpoint), before + 1, "{endpoint:?}");
        // Past the moment for which any failure stands.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for _ in 0..3 {
            refused_by_psql(&chain, login, expected).await;
        }
        assert_eq!(chain.calls().count(endpoint), before + 1, "{endpoint:?}: it was asked with the same token again");
    }
    chain.cloud.grant(IDENTITY_USER, &app, Some(ORDERS_APP.service_account));
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_google_that_asks_for_silence_gets_it() {
    for (hop, endpoint) in [(Hop::Sts, Endpoint::Sts), (Hop::IamCredentials, Endpoint::GenerateAccessToken)] {
        let chain = Chain::start().await;
        chain.query(&chain.person(), "select 'the proxy has its own token'").await;
        let before = chain.calls().count(endpoint);
        chain.cloud.faults().set(hop, Fault::RetryAfter(30));
        let expected = Expected { sqlstate: "57P03", says: "takes no more calls" };
        let began = Instant::now();
        refused_by_psql(&chain, &chain.app(), expected).await;
        // psql has connected once, and the others are told without a question to Google.
        for _ in 0..3 {
            refused_by_psql(&chain, &chain.app(), expected).await;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(chain.calls().count(endpoint), before + 1);
        if hop == Hop::IamCredentials {
            // People's exchange does not go there.
            assert_eq!(chain.query(&chain.as_person(&ANALYST), "select 1").await, "1");
        }
    }
    // One that ends in time is waited for.
    let chain = Chain::start().await;
    chain.cloud.faults().set(Hop::Sts, Fault::RetryAfter(2));
    let (began, login) = (Instant::now(), chain.app());
    let waits = chain.query(&login, "select 1");
    let ends = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        chain.cloud.faults().clear_all();
    };
    assert_eq!(tokio::join!(waits, ends).0, "1");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

/// Pools of another universe have names of its own: the proxy sends the rule's name as it stands, and no other will do.
#[tokio::test(flavor = "multi_thread")]
async fn in_another_universe_people_and_apps_arrive_by_its_own_names_alone() {
    const UNIVERSE: &str = "apis.contoso.example";
    let names = |prepared: Prepared| {
        let section = format!("[google]\nuniverse_domain = \"{UNIVERSE}\"\n");
        prepared.replace("[google]\n", &section).replace("//iam.googleapis.com/", &format!("//iam.{UNIVERSE}/"))
    };
    let prepared = names(Setup::default().prepare().await);
    prepared.cloud.move_to_universe(UNIVERSE);
    let chain = prepared.start().await;
    assert_eq!(chain.query(&chain.person(), "select session_user").await, ANALYST.upn);
    assert_eq!(chain.query(&chain.app(), "select session_user").await, ORDERS_APP.database_user);
    let expected = Expected { sqlstate: "28000", says: "pool and provider of the rule" };
    let elsewhere = names(Setup::default().prepare().await).start().await;
    refused_by_psql(&elsewhere, &elsewhere.person(), expected).await;
    let moved = Chain::start().await;
    moved.cloud.move_to_universe(UNIVERSE);
    refused_by_psql(&moved, &moved.person(), expected).await;
    assert_eq!(moved.calls().count(Endpoint::InstancePassword), 0);
}

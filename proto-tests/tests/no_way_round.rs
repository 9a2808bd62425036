//! Who holds a caller's token tries to reach the instance without the proxy, in each mode, and is refused; and where
//! they are not, config check says so.

use pgpassport::federation::{ADMIN_SCOPE, IMPERSONATION_SCOPE, LOGIN_SCOPE};
use pgpassport::sim::TokenSpec;
use pgpassport::sim::world::{
    ANALYST, ORDERS_APP, OTHER_APP, OWN_CLIENT_ID, PROXY_API, PROXY_APP, SECOND_API, SECOND_API_URI,
    WORKFORCE_PROVIDER, WORKFORCE_PROVIDER_OBO, WORKLOAD_PROVIDER,
};
use pgpassport::sim::{Endpoint, Fault, Hop};
use proto_tests::chain::{Chain, Setup};
use proto_tests::intruder::{Got, Intruder};
use proto_tests::refusal::{Expected, refused_by_psql, until_let_in};

/// Refused in these words.
#[track_caller]
fn refused<T>(got: Got<T>, says: &str) {
    match got {
        Ok(_) => panic!("there is a way round: nobody said {says:?}"),
        Err(words) => assert!(words.contains(says), "{says:?}: {words}"),
    }
}

/// A proxy that trades people's tokens, before a cloud whose other provider for people is gone.
async fn trading(credential: &str, deadlines: &str) -> Chain {
    let section = format!(
        "[on_behalf_of.contoso]\nscope = \"{SECOND_API_URI}/.default\"\naudience = \"{SECOND_API}\"\n{credential}\n\
         {deadlines}"
    );
    let setup = Setup::default().extra(&section).replace(WORKFORCE_PROVIDER, WORKFORCE_PROVIDER_OBO);
    let prepared = setup.prepare().await;
    std::fs::write(prepared.folder().join("client-secret"), format!("{}\n", PROXY_APP.secret)).expect("written");
    let (certificate, key) = prepared.cloud.register_app_certificate().expect("registered");
    std::fs::copy(certificate, prepared.folder().join("app.crt")).expect("copied");
    std::fs::copy(key, prepared.folder().join("app.key")).expect("copied");
    prepared.cloud.disable_provider(WORKFORCE_PROVIDER);
    prepared.start().await
}

const SECRET: &str = "client_secret_file = \"client-secret\"";

#[tokio::test(flavor = "multi_thread")]
async fn people_arrive_by_a_token_that_the_proxys_app_alone_can_get() {
    let identity = format!("managed_identity_client_id = \"{OWN_CLIENT_ID}\"");
    for credential in [SECRET, "certificate = \"app.crt\"\nkey = \"app.key\"", &identity] {
        println!("{credential}");
        let chain = trading(credential, "").await;
        let person = chain.person();
        assert_eq!(chain.query(&person, "select session_user").await, ANALYST.upn);
        assert_eq!(chain.calls().count(Endpoint::EntraToken), 1);
        // What has been bought serves; another token is another trade.
        assert_eq!(chain.query(&person, "select 'again'").await, "again");
        assert_eq!(chain.calls().count(Endpoint::EntraToken), 1);
        assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
        assert_eq!(chain.calls().count(Endpoint::EntraToken), 2);
        // Software's tokens cannot be traded: they go as they are.
        assert_eq!(chain.query(&chain.app(), "select session_user").await, ORDERS_APP.database_user);
        assert_eq!(chain.calls().count(Endpoint::EntraToken), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_own_token_buys_nothing_at_google() {
    let chain = trading(SECRET, "").await;
    let person = chain.person();
    assert_eq!(chain.query(&person, "select 1").await, "1");
    let intruder = Intruder::new(&chain.cloud);
    let own = person.password.as_str();
    // Their own token, at every provider.
    refused(intruder.exchange(own, WORKFORCE_PROVIDER_OBO, LOGIN_SCOPE).await, "audience in ID Token");
    refused(intruder.exchange(own, WORKFORCE_PROVIDER, LOGIN_SCOPE).await, "invalid_target");
    let workload = intruder.exchange(own, WORKLOAD_PROVIDER, IMPERSONATION_SCOPE).await;
    if let Ok(federated) = workload {
        let account = intruder.impersonate(&federated, ORDERS_APP.service_account, LOGIN_SCOPE).await;
        refused(account, "getAccessToken");
    }
    // The second API's token: not by signing in, not by trading, not as software, not with another app's name in it.
    let second = format!("{SECOND_API_URI}/.default");
    refused(intruder.device_code(&second).await, "AADSTS65001");
    let trade = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("requested_token_use", "on_behalf_of"),
        ("assertion", own),
        ("scope", &second),
    ];
    let with = |more: &[(&'static str, &'static str)]| [trade.as_slice(), more].concat();
    let other = with(&[("client_id", OTHER_APP.client_id), ("client_secret", OTHER_APP.secret)]);
    refused(intruder.sign_in(&other).await, "AADSTS700016");
    refused(intruder.sign_in(&with(&[("client_id", PROXY_API)])).await, "AADSTS7000218");
    refused(intruder.sign_in(&with(&[("client_id", PROXY_API), ("client_secret", "guess")])).await, "AADSTS7000215");
    let software = [
        ("grant_type", "client_credentials"),
        ("client_id", OTHER_APP.client_id),
        ("client_secret", OTHER_APP.secret),
        ("scope", &second),
    ];
    let software = intruder.sign_in(&software).await.expect("any app of a tenant gets a token for any of its APIs");
    refused(intruder.exchange(&software, WORKFORCE_PROVIDER_OBO, LOGIN_SCOPE).await, "attribute condition");
    let minted = chain.cloud.mint(&TokenSpec::person(&ANALYST).audience(SECOND_API)).expect("minted");
    refused(intruder.exchange(minted.expose(), WORKFORCE_PROVIDER_OBO, LOGIN_SCOPE).await, "attribute condition");
    // And at the instance itself.
    chain.cloud.require_connectors();
    refused(intruder.connector(None, ANALYST.upn, own).await, "");
    refused(intruder.direct(ANALYST.upn, own).await, "");
    refused(intruder.certificate(own, None).await, "UNAUTHENTICATED");
    assert_eq!(chain.calls().count(Endpoint::InstanceLogin), 1, "the proxy's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn software_with_a_login_token_has_nothing_to_dial_with() {
    let chain = Chain::start().await;
    let app = chain.app();
    assert_eq!(chain.query(&app, "select 1").await, "1");
    chain.cloud.require_connectors();
    let intruder = Intruder::new(&chain.cloud);
    // Up to here Google helps: the token logs this account in.
    let federated = intruder.exchange(&app.password, WORKLOAD_PROVIDER, IMPERSONATION_SCOPE).await.expect("a provider");
    let login = intruder.impersonate(&federated, ORDERS_APP.service_account, LOGIN_SCOPE).await.expect("its account");
    let admin = intruder.impersonate(&federated, ORDERS_APP.service_account, ADMIN_SCOPE).await.expect("its account");
    // But not in without `cloudsql.instances.connect`, whatever the token is for.
    let user = ORDERS_APP.database_user;
    refused(intruder.certificate(&admin, Some(&login)).await, "PERMISSION_DENIED");
    refused(intruder.certificate(&login, Some(&login)).await, "PERMISSION_DENIED");
    refused(intruder.certificate(&federated, Some(&login)).await, "PERMISSION_DENIED");
    refused(intruder.connector(None, user, &login).await, "");
    refused(intruder.direct(user, &login).await, "");
    assert_eq!(chain.calls().count(Endpoint::InstanceLogin), 1, "the proxy's own");
    assert_eq!(chain.query(&app, "select 'the proxy still can'").await, "the proxy still can");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_connect_goes_round_and_check_config_calls_the_instance_bypassable() {
    let prepared = Setup::default().instance("login = \"token-in-certificate\"").prepare().await;
    let checked = tokio::process::Command::new(proto_tests::proxy::binary())
        .args(["check-config", "--config"])
        .arg(prepared.config_path())
        .envs(prepared.environment())
        .output()
        .await
        .expect("it runs");
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(said.contains("bypassable") && said.contains("cloudsql.instances.connect"), "{said}");
    let chain = prepared.start().await;
    chain.cloud.require_connectors();
    chain.cloud.grant("roles/cloudsql.client", &format!("serviceAccount:{}", ORDERS_APP.service_account), None);
    let intruder = Intruder::new(&chain.cloud);
    let own = chain.app().password;
    let federated = intruder.exchange(&own, WORKLOAD_PROVIDER, IMPERSONATION_SCOPE).await.expect("a provider");
    let account = ORDERS_APP.service_account;
    let login = intruder.impersonate(&federated, account, LOGIN_SCOPE).await.expect("its account");
    let admin = intruder.impersonate(&federated, account, ADMIN_SCOPE).await.expect("its account");
    let certificate = intruder.certificate(&admin, Some(&login)).await.expect("it may connect");
    intruder.connector(Some(&certificate), ORDERS_APP.database_user, "").await.expect("a way round");
    assert_eq!(chain.records().of("session_start").len(), 0, "and nothing of it is on record");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_entra_says_to_a_trade_is_told_with_what_helps() {
    let chain = trading(SECRET, "").await;
    for (error, code, sqlstate, says) in [
        ("interaction_required", 50_079, "28P01", "sign in again"),
        ("invalid_grant", 50_076, "28P01", "sign in again"),
        ("invalid_grant", 50_013, "28P01", "new access token"),
        ("invalid_grant", 500_133, "28P01", "new access token"),
        ("invalid_grant", 500_131, "57P03", "on_behalf_of.client_id"),
        ("invalid_grant", 50_173, "28P01", "sign in again"),
        ("invalid_grant", 70_000, "28P01", "sign in again"),
        ("invalid_grant", 65_001, "28000", "consent"),
        ("invalid_grant", 50_105, "28000", "assign"),
        ("invalid_grant", 53_003, "28000", "Conditional Access"),
        ("invalid_grant", 50_057, "28000", "account"),
        ("invalid_client", 7_000_222, "57P03", "credential"),
        ("unauthorized_client", 700_016, "57P03", "on_behalf_of"),
        ("invalid_scope", 70_011, "57P03", "on_behalf_of.scope"),
        ("invalid_resource", 500_011, "57P03", "on_behalf_of.scope"),
        ("temporarily_unavailable", 90_033, "57P03", "in a moment"),
        ("something_new", 1, "57P03", "operator"),
    ] {
        println!("{error} {code}");
        chain.cloud.order_on_behalf_of(Some((error, code)));
        let exchanged = chain.calls().count(Endpoint::Sts);
        refused_by_psql(&chain, &chain.person(), Expected { sqlstate, says }).await;
        assert_eq!(chain.calls().count(Endpoint::Sts), exchanged, "nothing went to Google");
    }
    chain.cloud.order_on_behalf_of(None);
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entra_that_does_not_trade_lets_nobody_in_and_nothing_wrong_is_kept() {
    for (fault, sqlstate) in [
        (Fault::Status(503), "57P03"),
        (Fault::RetryAfter(30), "57P03"),
        (Fault::Garbage, "08006"),
        (Fault::Huge, "08006"),
        (Fault::Delay(std::time::Duration::from_secs(30)), "57P03"),
    ] {
        println!("{fault:?}");
        let chain = trading(SECRET, "[deadlines]\non_behalf_of = \"1500ms\"").await;
        let person = chain.person();
        chain.cloud.faults().set(Hop::EntraToken, fault);
        refused_by_psql(&chain, &person, Expected { sqlstate, says: "Entra" }).await;
        assert_eq!(chain.calls().count(Endpoint::InstancePassword), 0);
        chain.cloud.faults().clear_all();
        if !matches!(fault, Fault::RetryAfter(_)) {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            until_let_in(&chain, &person).await;
        }
    }
}

//! The exchanges against services on loopback: what is sent, what is believed, what is asked again.
//!
//! The proxy's own identity reads the process's environment, so its tests run this test binary once more as a
//! child with an App Service environment; the child logs everything at TRACE, and none of it may be a secret.

use super::*;
use crate::http::Client;
use crate::http::testing::{Seen, Server, ca, client, http2};
use crate::identity::{CallerKind, IdentityFacts, VerifiedIdentity};
use crate::names::{DatabaseAlias, DatabaseName, InstanceName, IssuerName, RoleName, RuleName, TenantId};
use crate::policy::{Grant, How, Limits, Target};
use crate::time::{later, until};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

pub(super) const WORKLOAD: &str =
    "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/entra/providers/contoso";
const WORKFORCE: &str = "//iam.googleapis.com/locations/global/workforcePools/contoso/providers/entra";
const ACCOUNT: &str = "orders-app@demo-project.iam.gserviceaccount.com";
const ENTRA_TOKEN: &str = "eyJhbGciOi.SECRET-ENTRA-CLAIMS.SECRET-ENTRA-SIGNATURE";
const STS_TOKEN: &str = "ya29.d.SECRET-FEDERATED";
const IAM_TOKEN: &str = "ya29.c.SECRET-ACCOUNT";
const IDENTITY_HEADER: &str = "SECRET-IDENTITY-HEADER";
const MANAGED_TOKEN: &str = "eyJhbGciOi.SECRET-MANAGED-CLAIMS.SECRET-MANAGED-SIGNATURE";

fn sts_answer() -> String {
    json!({"access_token": STS_TOKEN, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
           "token_type": "Bearer", "expires_in": 3599})
    .to_string()
}

fn iam_answer() -> String {
    let end = later(Timestamp::now(), Duration::from_secs(3600));
    json!({"accessToken": IAM_TOKEN, "expireTime": end.to_string()}).to_string()
}

/// STS, IAM Credentials and the App Service endpoint, all willing.
pub(super) fn willing(request: &Seen) -> (u16, String) {
    let path = request.target.split('?').next().unwrap();
    match path {
        "/v1/token" => (200, sts_answer()),
        "/msi/token" => {
            let end = Timestamp::now().as_second() + 86_400;
            let token = json!({"access_token": MANAGED_TOKEN, "expires_on": end.to_string(), "token_type": "Bearer",
                               "resource": "api://AzureADTokenExchange", "client_id": "x"});
            (200, token.to_string())
        }
        _ if path.ends_with(":generateAccessToken") => (200, iam_answer()),
        _ => (404, String::new()),
    }
}

fn endpoints(url: &str) -> GoogleEndpoints {
    GoogleEndpoints { sts: url.to_owned(), iam_credentials: url.to_owned(), sql_admin: url.to_owned() }
}

fn identity() -> VerifiedIdentity {
    let now = Timestamp::now();
    let facts = IdentityFacts {
        issuer: IssuerName::parse("contoso").unwrap(),
        issuer_url: String::new(),
        tenant: TenantId::parse("6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91").unwrap().into(),
        object_id: String::new(),
        kind: CallerKind::User,
        guest: false,
        label: "analyst@contoso.example".to_owned(),
        app: String::new(),
        groups: None,
        overage: false,
        asked_groups: None,
        roles: None,
        claims: BTreeMap::new(),
        token_id: None,
        issued_at: now,
        expires_at: now,
    };
    VerifiedIdentity { facts, token: Secret::new(ENTRA_TOKEN.to_owned()) }
}

fn grant(how: How) -> Grant {
    let target = Target {
        alias: DatabaseAlias::parse("orders").unwrap(),
        instance: InstanceName::parse("demo-project:europe-west1:orders").unwrap(),
        database: DatabaseName::parse("orders").unwrap(),
        tag: true,
    };
    Grant {
        rule: RuleName::parse("orders").unwrap(),
        target,
        how,
        startup: crate::policy::Startup::default(),
        lifetime: crate::policy::Lifetime::default(),
        durability: crate::audit::Durability::default(),
        recorded_parameters: crate::audit::Parameters::default(),
        texts: crate::audit::sealing::Texts::default(),
        unrecorded_commit: crate::audit::UnrecordedCommit::default(),
        role: RoleName::parse("analyst").unwrap(),
        expires_at: Timestamp::now(),
        limits: Limits::default(),
    }
}

pub(super) fn workforce(user_project: Option<&str>) -> Grant {
    grant(How::Workforce {
        provider: Provider::parse(WORKFORCE).unwrap(),
        subject_claim: "upn".to_owned(),
        subject_prefix: String::new(),
        user_project: user_project.map(str::to_owned),
    })
}

pub(super) fn service_account() -> Grant {
    grant(How::ServiceAccount {
        provider: Provider::parse(WORKLOAD).unwrap(),
        account: ServiceAccount::parse(ACCOUNT).unwrap(),
        delegates: Vec::new(),
    })
}

pub(super) fn google(url: &str, http: Client, clock: Clock) -> Google {
    let (sts, iam_credentials) = (Duration::from_secs(5), Duration::from_secs(5));
    let deadlines = Deadlines { sts, iam_credentials };
    Google { endpoints: endpoints(url), http, clock, deadlines, services: Services::default() }
}

pub(super) fn exchanger(url: &str) -> Exchanger {
    Exchanger::new(google(url, client(), Clock::system()), BTreeMap::new())
}

#[tokio::test]
async fn a_workforce_grant_is_one_exchange_for_the_login_scope() {
    let server = Server::start(willing).await;
    let begin = Timestamp::now();
    let token = exchanger(&server.url).exchange(&workforce(Some("123456789012")), &identity()).await.unwrap();
    assert_eq!(token.token.expose(), STS_TOKEN);
    let life = until(token.expires_at, begin).as_secs();
    assert!((3598..=3605).contains(&life), "{life}");

    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    let request = &seen[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/token"));
    assert_eq!(request.header("authorization"), None);
    for (field, value) in [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("audience", WORKFORCE),
        ("scope", LOGIN_SCOPE),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token", ENTRA_TOKEN),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("options", r#"{"userProject":"123456789012"}"#),
    ] {
        assert_eq!(request.field(field).as_deref(), Some(value), "{field}");
    }
}

#[tokio::test]
async fn without_a_quota_project_there_are_no_options() {
    let server = Server::start(willing).await;
    exchanger(&server.url).exchange(&workforce(None), &identity()).await.unwrap();
    assert_eq!(server.seen()[0].field("options"), None);
}

#[tokio::test]
async fn a_service_account_is_impersonated_with_the_federated_token() {
    let server = Server::start(willing).await;
    let token = exchanger(&server.url).exchange(&service_account(), &identity()).await.unwrap();
    assert_eq!(token.token.expose(), IAM_TOKEN);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].field("audience").as_deref(), Some(WORKLOAD));
    assert_eq!(seen[0].field("scope").as_deref(), Some(IMPERSONATION_SCOPE));
    assert_eq!(seen[1].target, format!("/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"));
    assert_eq!(seen[1].header("authorization"), Some(format!("Bearer {STS_TOKEN}").as_str()));
    assert_eq!(seen[1].body, format!(r#"{{"lifetime":"3600s","scope":["{LOGIN_SCOPE}"]}}"#));
}

#[tokio::test]
async fn delegates_go_along_in_their_order() {
    let server = Server::start(willing).await;
    let mut by_way = service_account();
    if let How::ServiceAccount { delegates, .. } = &mut by_way.how {
        *delegates = ["one@p.iam.gserviceaccount.com", "two@p.iam.gserviceaccount.com"]
            .map(|account| ServiceAccount::parse(account).unwrap())
            .to_vec();
    }
    exchanger(&server.url).exchange(&by_way, &identity()).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&server.seen()[1].body).unwrap();
    let chain = [
        "projects/-/serviceAccounts/one@p.iam.gserviceaccount.com",
        "projects/-/serviceAccounts/two@p.iam.gserviceaccount.com",
    ];
    assert_eq!(body["delegates"], json!(chain));
}

/// A caller whose token lives on for an hour.
pub(super) fn caller(token: &str) -> VerifiedIdentity {
    let mut identity = identity();
    identity.facts.expires_at = later(Timestamp::now(), Duration::from_secs(3600));
    VerifiedIdentity { facts: identity.facts, token: Secret::new(token.to_owned()) }
}

#[tokio::test]
async fn a_token_is_bought_once_for_one_caller_and_one_purpose() {
    let server = Server::start(willing).await;
    let exchanger = exchanger(&server.url);
    let asked = |grant: Grant, token: &'static str| {
        let exchanger = &exchanger;
        let before = server.seen().len();
        let server = &server;
        async move {
            exchanger.exchange(&grant, &caller(token)).await.unwrap();
            server.seen().len() - before
        }
    };
    let other = |change: fn(&mut Vec<ServiceAccount>, &mut ServiceAccount, &mut Provider)| {
        let mut grant = service_account();
        if let How::ServiceAccount { provider, account, delegates } = &mut grant.how {
            change(delegates, account, provider);
        }
        grant
    };
    assert_eq!(asked(service_account(), "one").await, 2);
    assert_eq!(asked(service_account(), "one").await, 0);
    assert_eq!(asked(service_account(), "two").await, 2, "another token");
    let delegated =
        || other(|delegates, _, _| delegates.push(ServiceAccount::parse("a@p.iam.gserviceaccount.com").unwrap()));
    assert_eq!(asked(delegated(), "one").await, 2, "by way of another");
    let account = || other(|_, account, _| *account = ServiceAccount::parse("a@p.iam.gserviceaccount.com").unwrap());
    assert_eq!(asked(account(), "one").await, 2, "another account");
    let provider =
        || other(|_, _, provider| *provider = Provider::parse(&WORKLOAD.replace("contoso", "other")).unwrap());
    assert_eq!(asked(provider(), "one").await, 2, "another provider");
    assert_eq!(asked(workforce(None), "one").await, 1, "another kind of grant");
    assert_eq!(asked(workforce(Some("1")), "one").await, 1, "another quota project");
    for grant in [service_account(), delegated(), account(), provider(), workforce(None), workforce(Some("1"))] {
        assert_eq!(asked(grant, "one").await, 0);
    }
}

#[tokio::test]
async fn what_the_instance_did_not_take_is_bought_anew() {
    let server = Server::start(willing).await;
    let exchanger = exchanger(&server.url);
    let token = exchanger.exchange(&service_account(), &caller("one")).await.unwrap();
    exchanger.forget(&service_account(), &caller("two"), &token);
    exchanger.exchange(&service_account(), &caller("one")).await.unwrap();
    assert_eq!(server.seen().len(), 2, "another caller's token is none of this");
    exchanger.forget(&service_account(), &caller("one"), &token);
    exchanger.exchange(&service_account(), &caller("one")).await.unwrap();
    assert_eq!(server.seen().len(), 4);
    exchanger.sweep();
    exchanger.exchange(&service_account(), &caller("one")).await.unwrap();
    assert_eq!(server.seen().len(), 4, "what lives is not swept");
}

#[tokio::test]
async fn a_stale_token_is_said_to_be_stale_and_never_sent_again() {
    let body = r#"{"error":"invalid_grant","error_description":"ID Token issued at 1790000000 is stale to sign-in."}"#;
    let server = Server::start(move |_| (400, body.to_owned())).await;
    let error = exchanger(&server.url).exchange(&service_account(), &identity()).await.unwrap_err();
    assert!(matches!(error, Error::Stale));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn each_service_refuses_under_its_own_name() {
    let refuse_iam = |request: &Seen| {
        if request.target == "/v1/token" {
            return (200, sts_answer());
        }
        let message = format!("Permission 'iam.serviceAccounts.getAccessToken' denied for {STS_TOKEN}.");
        (403, json!({"error": {"code": 403, "message": message, "status": "PERMISSION_DENIED"}}).to_string())
    };
    let server = Server::start(refuse_iam).await;
    let error = exchanger(&server.url).exchange(&service_account(), &identity()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "IamCredentials refused: PERMISSION_DENIED: Permission 'iam.serviceAccounts.getAccessToken' denied for …."
    );
    assert_eq!(server.seen().len(), 2);

    let server = Server::start(|request: &Seen| {
        let echo = request.field("subject_token").unwrap();
        (400, json!({"error": "invalid_grant", "error_description": format!("bad token {echo}")}).to_string())
    })
    .await;
    let error = exchanger(&server.url).exchange(&workforce(None), &identity()).await.unwrap_err();
    assert_eq!(error.to_string(), "Sts refused: invalid_grant: bad token …");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_passing_trouble_is_asked_again_and_a_lasting_one_is_unavailable() {
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |request: &Seen| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => (503, String::new()),
        1 => (500, String::new()),
        _ => willing(request),
    })
    .await;
    exchanger(&server.url).exchange(&workforce(None), &identity()).await.unwrap();
    assert_eq!(server.seen().len(), 3);

    let server = Server::start(|_| (503, String::new())).await;
    let error = exchanger(&server.url).exchange(&workforce(None), &identity()).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { hop: Hop::Sts, reason } if reason == "status 503"), "{error:?}");
    assert_eq!(server.seen().len(), usize::try_from(crate::http::ATTEMPTS).unwrap());

    let error = exchanger("http://127.0.0.1:1").exchange(&workforce(None), &identity()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { hop: Hop::Sts, .. }), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_understood_is_broken() {
    for (status, body) in [(200, "<html>"), (200, "{}"), (302, ""), (400, "<html>")] {
        let server = Server::start(move |_| (status, body.to_owned())).await;
        let error = exchanger(&server.url).exchange(&workforce(None), &identity()).await.unwrap_err();
        assert!(matches!(error, Error::Broken { hop: Hop::Sts, .. }), "{status} {body}: {error:?}");
        assert_eq!(server.seen().len(), 1);
    }
}

// The proxy's own identity, in a child process.

fn own_identity(url: &str, clock: Clock) -> Result<OwnIdentity, Error> {
    let config = OwnIdentityConfig::AzureManagedIdentity {
        resource: "api://AzureADTokenExchange".to_owned(),
        client_id: Some("3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10".to_owned()),
        provider: Provider::parse(WORKLOAD).unwrap(),
        service_account: ServiceAccount::parse(ACCOUNT).unwrap(),
        delegates: Vec::new(),
    };
    OwnIdentity::new(config, google(url, client(), clock), Duration::from_secs(5))
}

/// Runs one of the `child_…` tests below with an App Service environment; gives back what it printed.
async fn run_child(child: &str, server: &Server, more: &[(&str, &str)]) -> String {
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([&format!("federation::tests::{child}"), "--exact", "--ignored", "--nocapture"])
        .env_clear()
        .env("IDENTITY_ENDPOINT", format!("{}/msi/token", server.url))
        .env("IDENTITY_HEADER", IDENTITY_HEADER)
        .env("CHILD_SERVER", &server.url)
        .envs(more.iter().copied())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text
}

/// Everything is logged, at every level, by every crate.
fn child_server() -> Option<String> {
    let url = std::env::var("CHILD_SERVER").ok()?;
    tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::TRACE).with_span_events(FULL).init();
    Some(url)
}

const FULL: tracing_subscriber::fmt::format::FmtSpan = tracing_subscriber::fmt::format::FmtSpan::FULL;

#[tokio::test]
async fn the_proxys_own_identity_is_federated_from_the_platforms_endpoint() {
    let server = Server::start(willing).await;
    let output = run_child("child_tokens", &server, &[("HTTP_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "")]).await;
    // The platform's endpoint was reached without the egress proxy, which nobody else can pass here.
    assert!(output.contains("CHILD: Unavailable"), "{output}");
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        seen[0].target,
        "/msi/token?api-version=2019-08-01&resource=api%3A%2F%2FAzureADTokenExchange\
         &client_id=3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10"
    );
    assert_eq!(seen[0].header("x-identity-header"), Some(IDENTITY_HEADER));
    no_secret(&output);

    let server = Server::start(willing).await;
    let output = run_child("child_tokens", &server, &[]).await;
    assert!(output.contains("CHILD: ten shared one, then one was renewed"), "{output}");
    let seen = server.seen();
    let targets: Vec<&str> = seen.iter().map(|request| request.target.split('?').next().unwrap()).collect();
    let iam = format!("/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken");
    let round = ["/msi/token", "/v1/token", &iam];
    assert_eq!(targets, [round, round].concat());
    assert_eq!(seen[1].field("subject_token").as_deref(), Some(MANAGED_TOKEN));
    assert!(seen[2].body.contains(ADMIN_SCOPE) && !seen[2].body.contains(LOGIN_SCOPE));
    assert!(output.contains("TRACE") && output.contains("hyper"), "dependencies were logged");
    no_secret(&output);
}

fn no_secret(output: &str) {
    for line in output.lines() {
        assert!(!line.contains("SECRET") && !line.contains("ya29.") && !line.contains("eyJ"), "leaked: {line}");
    }
}

#[tokio::test]
#[ignore = "a child of the test above"]
async fn child_tokens() {
    let Some(url) = child_server() else { return };
    let offset = Arc::new(AtomicI64::new(0));
    let own = own_identity(&url, Clock::shifted(Arc::clone(&offset))).unwrap();
    let first = match own.token().await {
        Ok(token) => token,
        Err(error) => return println!("CHILD: {error:?}"),
    };
    for _ in 0..9 {
        assert!(Arc::ptr_eq(&first, &own.token().await.unwrap()));
    }
    offset.store(3400, Ordering::Relaxed);
    assert!(!Arc::ptr_eq(&first, &own.token().await.unwrap()));
    println!("CHILD: ten shared one, then one was renewed");
}

#[tokio::test]
async fn a_stale_token_of_the_proxy_is_not_blamed_on_a_caller() {
    let server = Server::start(|request: &Seen| {
        let stale = r#"{"error":"invalid_grant","error_description":"ID Token issued at 1 is stale to sign-in."}"#;
        if request.target == "/v1/token" { (400, stale.to_owned()) } else { willing(request) }
    })
    .await;
    let output = run_child("child_tokens", &server, &[]).await;
    assert!(output.contains("CHILD: Refused { hop: OwnIdentity, code: \"stale\""), "{output}");
}

#[tokio::test]
async fn the_platforms_refusals_are_told_apart() {
    for (status, body, expected) in [
        (400, "{}", "Refused { hop: OwnIdentity, code: \"http_400\""),
        (403, "SECRET-BUT-SHORT is what the endpoint itself says", "Refused { hop: OwnIdentity, code: \"http_403\""),
        (500, "", "Unavailable { hop: OwnIdentity, reason: \"status 500\""),
        (200, r#"{"access_token": 1}"#, "Broken { hop: OwnIdentity"),
        (200, "<html>", "Broken { hop: OwnIdentity"),
    ] {
        let server = Server::start(move |_| (status, body.to_owned())).await;
        let output = run_child("child_tokens", &server, &[]).await;
        let line = output.lines().find(|line| line.contains("CHILD: ")).unwrap();
        assert!(line.contains(expected), "{status} {body}: {line}");
    }
}

#[tokio::test]
async fn a_platform_without_support_is_refused_at_once() {
    let server = Server::start(willing).await;
    let output = run_child("child_unsupported", &server, &[("IDENTITY_SERVER_THUMBPRINT", "x")]).await;
    assert!(output.contains("unsupported_platform") && output.contains("Service Fabric"), "{output}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
#[ignore = "a child of the test above"]
async fn child_unsupported() {
    let Some(url) = child_server() else { return };
    println!("CHILD: {:?}", own_identity(&url, Clock::system()).unwrap_err());
}

#[tokio::test]
async fn callers_exchanges_log_no_token_at_any_level() {
    let server = Server::start(willing).await;
    let output = run_child("child_exchange", &server, &[]).await;
    assert!(output.contains("CHILD: exchanged"), "{output}");
    // Otherwise a crate that logs a token would go unheard.
    assert!(output.contains("TRACE"));
    for crate_name in [" hyper_util::", " h2::", " rustls::", " reqwest::"] {
        assert!(output.contains(crate_name), "{crate_name} was not heard: {output}");
    }
    no_secret(&output);
}

#[tokio::test]
#[ignore = "a child of the test above"]
async fn child_exchange() {
    let Some(url) = child_server() else { return };
    let authority = ca();
    let secure = http2(&authority, willing).await;
    let over_http2 =
        Exchanger::new(google(&secure, Client::new(Some(&authority.file)).unwrap(), Clock::system()), BTreeMap::new());
    for exchanger in [exchanger(&url), over_http2] {
        exchanger.exchange(&service_account(), &identity()).await.unwrap();
        exchanger.exchange(&workforce(Some("1")), &identity()).await.unwrap();
    }
    println!("CHILD: exchanged");
}

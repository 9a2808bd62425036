//! google-auth's external-account credentials: workload and workforce pools, with and without impersonation.

use crate::cell::{Cell, Expect, Row};
use pgpassport::sim::world::{
    ANALYST, BYSTANDER, FABRIKAM, ORDERS_APP, OWN_PROVIDER, OWN_SERVICE_ACCOUNT, PROJECT, PROJECT_NUMBER, REPORTS_APP,
    WORKFORCE_PROVIDER, WORKLOAD_PROVIDER,
};
use pgpassport::sim::{Cloud, CloudOptions, Endpoint, Signing, TokenSpec};
use proto_tests::stranger::{Stranger, with};
use serde_json::{Value, json};

/// `iat` of a token that has not expired and is older than STS takes.
const STALE: i64 = 25 * 3600;
const USER_PROJECT_ROLE: &str = "roles/serviceusage.serviceUsageConsumer";
const EVERYBODY: &str = "principalSet://iam.googleapis.com/locations/global/workforcePools/contoso/*";

/// A kind of external account.
struct Account {
    client: &'static str,
    /// What its credentials file says.
    credentials: Value,
    /// Whose token it brings.
    caller: TokenSpec,
    /// Somebody who may not do the same.
    stranger: TokenSpec,
    /// Begins its access tokens.
    token: &'static str,
    /// What a missing role says.
    denied: &'static [&'static str],
}

/// Fills the family's cells.
pub async fn run() -> Vec<Cell> {
    let cloud = Cloud::start(CloudOptions::default()).await.expect("a cloud");
    let analyst =
        format!("principal://iam.googleapis.com/locations/global/workforcePools/contoso/subject/{}", ANALYST.upn);
    cloud.grant("roles/iam.workloadIdentityUser", &analyst, Some(ORDERS_APP.service_account));
    let mut python = Stranger::python(&cloud);
    let mut cells = Vec::new();
    for account in accounts(&cloud) {
        for row in rows(&cloud, &account) {
            cells.push(row.fill(&mut python).await);
        }
    }
    cells.push(managed_identity(&cloud).fill(&mut python).await);
    cloud.revoke(USER_PROJECT_ROLE, EVERYBODY);
    cells.push(no_quota_project(&cloud).fill(&mut python).await);
    let impersonated = cloud.calls().count(Endpoint::GenerateAccessToken);
    assert_eq!(impersonated, 5, "once for each that works or lacks a role: {}", python.log());
    cloud.shutdown().await;
    cells
}

fn accounts(cloud: &Cloud) -> [Account; 4] {
    let getting_token = &["RefreshError", "iam.serviceAccounts.getAccessToken", "PERMISSION_DENIED"];
    [
        Account {
            client: "google-auth, workload pool",
            credentials: workload(cloud),
            caller: TokenSpec::app(&ORDERS_APP),
            stranger: TokenSpec::app(&REPORTS_APP),
            token: "ya29.d.",
            denied: &["HTTPError", "403 Client Error"],
        },
        Account {
            client: "google-auth, workload pool, service account",
            credentials: with(&workload(cloud), impersonation(cloud, ORDERS_APP.service_account)),
            caller: TokenSpec::app(&ORDERS_APP),
            stranger: TokenSpec::app(&REPORTS_APP),
            token: "ya29.c. sql#connectSettings",
            denied: getting_token,
        },
        Account {
            client: "google-auth, workforce pool",
            credentials: workforce(cloud),
            caller: TokenSpec::person(&ANALYST),
            stranger: TokenSpec::person(&BYSTANDER),
            token: "ya29.d. sql#connectSettings",
            denied: &["HTTPError", "403 Client Error"],
        },
        Account {
            client: "google-auth, workforce pool, service account",
            credentials: with(&workforce(cloud), impersonation(cloud, ORDERS_APP.service_account)),
            caller: TokenSpec::person(&ANALYST),
            stranger: TokenSpec::person(&BYSTANDER),
            token: "ya29.c. sql#connectSettings",
            denied: getting_token,
        },
    ]
}

fn rows(cloud: &Cloud, account: &Account) -> Vec<Row> {
    let request = |spec: &TokenSpec, more: Value| {
        let token = cloud.mint(spec).expect("a token");
        let base = json!({
            "client": "google-auth", "act": "token", "credentials": account.credentials,
            "subject_token": token.expose().as_str(),
        });
        with(&base, more)
    };
    let row = |act, request, expect| Row { client: account.client, act, request, expect };
    let admin = json!({ "use": connect_settings(cloud) });
    let caller = || account.caller.clone();
    // A workload pool's identity has no role of its own here: its token works, the API denies.
    let used = if account.token == "ya29.d." { json!({}) } else { admin.clone() };
    let elsewhere = with(
        &account.credentials,
        json!({ "audience": format!("{}x", account.credentials["audience"].as_str().unwrap_or_default()) }),
    );
    vec![
        row("a token, used at the Admin API", request(&caller(), used), Expect::Works(account.token)),
        row(
            "wrong audience",
            request(&caller().audience("another"), json!({})),
            Expect::Refused(&["OAuthError", "invalid_grant", "The audience in ID Token [another] does not match"]),
        ),
        row(
            "stale iat",
            request(&caller().issued_ago(STALE).lifetime(2 * STALE), json!({})),
            Expect::Refused(&["OAuthError", "invalid_grant", "is stale to sign-in"]),
        ),
        row(
            "expired assertion",
            request(&caller().expired(), json!({})),
            Expect::Refused(&["OAuthError", "invalid_grant", "is stale to sign-in"]),
        ),
        row("missing role", request(&account.stranger, admin), Expect::Refused(account.denied)),
        row(
            "unknown provider",
            request(&caller(), json!({ "credentials": elsewhere })),
            Expect::Refused(&["OAuthError", "invalid_target", "the pool or provider is disabled or deleted"]),
        ),
        row(
            "foreign signing key",
            request(&caller().signing(Signing::WrongKey), json!({})),
            Expect::Refused(&["OAuthError", "invalid_grant", "signature"]),
        ),
        row(
            "another tenant's token",
            request(&caller().claim("iss", format!("{}/{}/v2.0", cloud.entra_authority(), FABRIKAM.id)), json!({})),
            Expect::Refused(&["OAuthError", "invalid_grant", "does not match the expected one"]),
        ),
    ]
}

/// The credentials file that Google documents for Azure: the subject token comes from the platform's endpoint.
fn managed_identity(cloud: &Cloud) -> Row {
    let url = format!("{}?api-version=2019-08-01&resource=api://AzureADTokenExchange", cloud.identity_endpoint());
    let source = json!({ "credential_source": {
        "url": url, "headers": { "X-IDENTITY-HEADER": cloud.identity_header() },
        "format": { "type": "json", "subject_token_field_name": "access_token" },
    }});
    let credentials = with(&with(&workload(cloud), impersonation(cloud, OWN_SERVICE_ACCOUNT)), source);
    let credentials = with(&credentials, json!({ "audience": OWN_PROVIDER }));
    Row {
        client: "google-auth, workload pool, service account",
        act: "a managed identity's token as its source",
        request: json!({
            "client": "google-auth", "act": "token", "credentials": credentials, "use": connect_settings(cloud),
        }),
        expect: Expect::Works("ya29.c. sql#connectSettings"),
    }
}

/// A workforce caller who may not use the quota project, which only workforce credentials name.
fn no_quota_project(cloud: &Cloud) -> Row {
    let token = cloud.mint(&TokenSpec::person(&ANALYST)).expect("a token");
    Row {
        client: "google-auth, workforce pool",
        act: "missing role on the quota project",
        request: json!({
            "client": "google-auth", "act": "token", "credentials": workforce(cloud),
            "subject_token": token.expose().as_str(),
        }),
        expect: Expect::Refused(&["OAuthError", "unauthorized_client", "does not have permission to use project"]),
    }
}

/// What a workload's credentials file says.
pub fn workload(cloud: &Cloud) -> Value {
    json!({
        "type": "external_account", "audience": WORKLOAD_PROVIDER,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/v1/token", cloud.sts_url()),
    })
}

/// What a person's credentials file says.
pub fn workforce(cloud: &Cloud) -> Value {
    json!({
        "type": "external_account", "audience": WORKFORCE_PROVIDER,
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "token_url": format!("{}/v1/token", cloud.sts_url()),
        "workforce_pool_user_project": PROJECT_NUMBER,
    })
}

/// The part that impersonates a service account.
pub fn impersonation(cloud: &Cloud, account: &str) -> Value {
    let url = format!("{}/v1/projects/-/serviceAccounts/{account}:generateAccessToken", cloud.iam_credentials_url());
    json!({ "service_account_impersonation_url": url })
}

fn connect_settings(cloud: &Cloud) -> String {
    format!("{}/sql/v1beta4/projects/{PROJECT}/instances/orders/connectSettings", cloud.sql_admin_url())
}

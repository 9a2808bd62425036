//! msal for Python: client credentials, device code, authorization code with PKCE, refresh, managed identity.
//!
//! msal returns Entra's errors as dictionaries; the script raises them word for word. A stale `iat` cannot reach it
//! nor azure-identity: Entra judges assertions by `nbf` and `exp`. What Entra shows on its own pages (a redirect URI
//! that is not registered) never comes back to the client; the simulator's own tests have it.

use crate::cell::{Cell, Expect, Row};
use pgpassport::sim::world::{
    ANALYST, ASSIGNED_API, ASSIGNED_API_URI, CONTOSO, ORDERS_APP, OTHER_APP, OWN_AUDIENCE, OWN_CLIENT_ID,
    OWN_OBJECT_ID, OWN_RESOURCE, PROXY_API, SIGN_IN_CLIENT,
};
use pgpassport::sim::{Cloud, CloudOptions, Signing, TokenSpec, Version};
use proto_tests::stranger::{Stranger, with};
use serde_json::{Value, json};

/// What everybody asks a token for.
pub const SCOPE: &str = "api://pgpassport/.default";

/// Fills the family's cells.
pub async fn run() -> Vec<Cell> {
    let cloud = Cloud::start(CloudOptions::default()).await.expect("a cloud");
    let mut python = Stranger::python(&cloud);
    let mut cells = Vec::new();
    let rows = [secrets(&cloud), assertions(&cloud), devices(&cloud), codes(&cloud), managed_identities(&cloud)];
    for row in rows.into_iter().flatten() {
        cells.push(row.fill(&mut python).await);
    }
    cloud.shutdown().await;
    cells
}

fn secrets(cloud: &Cloud) -> Vec<Row> {
    let request = |more| with(&app(cloud, "msal", "secret"), with(&json!({ "secret": ORDERS_APP.secret }), more));
    let row = |act, more, expect| Row { client: "msal, client secret", act, request: request(more), expect };
    let other = json!({ "client_id": OTHER_APP.client_id, "secret": OTHER_APP.secret, "scope": assigned() });
    vec![
        row("a token", json!({}), Expect::Works(PROXY_API)),
        row("a token where a role is needed", json!({ "scope": assigned() }), Expect::Works(ASSIGNED_API)),
        row("wrong audience", json!({ "scope": "api://another/.default" }), Expect::Refused(&["AADSTS500011"])),
        row("missing role", other, Expect::Refused(&["invalid_grant", "AADSTS501051"])),
        row("wrong secret", json!({ "secret": "wrong" }), Expect::Refused(&["invalid_client", "AADSTS7000215"])),
        row("unknown app", json!({ "client_id": PROXY_API }), Expect::Refused(&["AADSTS700016"])),
    ]
}

fn assertions(cloud: &Cloud) -> Vec<Row> {
    let request = |spec: TokenSpec| with(&app(cloud, "msal", "assertion"), assertion(cloud, &spec));
    let row = |act, spec, expect| Row { client: "msal, federated assertion", act, request: request(spec), expect };
    let refused = |code: &'static [&'static str]| Expect::Refused(code);
    vec![
        row("a token", federated(), Expect::Works(ORDERS_APP.object_id)),
        row("wrong audience", federated().audience("another"), refused(&["invalid_client", "AADSTS700212"])),
        row("expired assertion", federated().expired(), refused(&["invalid_client", "AADSTS700024"])),
        row("assertion of the future", federated().issued_ago(-3600), refused(&["invalid_client", "AADSTS700024"])),
        row("another subject", federated().claim("sub", "another"), refused(&["invalid_client", "AADSTS700213"])),
        row("another issuer", federated().version(Version::V1), refused(&["invalid_client", "AADSTS700211"])),
        row("foreign signing key", federated().signing(Signing::WrongKey), refused(&["AADSTS700027"])),
    ]
}

fn devices(cloud: &Cloud) -> Vec<Row> {
    let row = |act, more, expect| Row {
        client: "msal, device code",
        act,
        request: with(&person(cloud, "msal", "device"), more),
        expect,
    };
    vec![
        row("a token", json!({}), Expect::Works(ANALYST.object_id)),
        row("the person declines", json!({ "decision": "decline" }), Expect::Refused(&["AADSTS70017"])),
        row("wrong audience", json!({ "scope": "api://another/.default" }), Expect::Refused(&["AADSTS500011"])),
        row("unknown app", json!({ "client_id": PROXY_API }), Expect::Refused(&["AADSTS700016"])),
    ]
}

fn codes(cloud: &Cloud) -> Vec<Row> {
    let row = |client, request, act, more, expect| Row {
        client,
        act,
        request: with(&person(cloud, "msal", request), more),
        expect,
    };
    let code = |act, more, expect| row("msal, authorization code and PKCE", "code", act, more, expect);
    let refresh = |act, more, expect| row("msal, refresh token", "refresh", act, more, expect);
    let spoil = |what: &str| json!({ "spoil": what });
    let later_scope = |scope: &str| json!({ "later_scope": scope });
    vec![
        code("a token", json!({}), Expect::Works(ANALYST.object_id)),
        code("wrong verifier", spoil("verifier"), Expect::Refused(&["invalid_grant", "AADSTS501481"])),
        code("another redirect URI", spoil("redirect"), Expect::Refused(&["invalid_client", "AADSTS500112"])),
        code("unknown code", spoil("code"), Expect::Refused(&["invalid_grant", "AADSTS9002313"])),
        code("a code twice", spoil("twice"), Expect::Refused(&["invalid_grant", "AADSTS54005"])),
        code(
            "the person declines",
            json!({ "decision": "decline" }),
            Expect::Refused(&["access_denied", "AADSTS65004"]),
        ),
        refresh("a second token", json!({}), Expect::Works(ANALYST.object_id)),
        refresh("wrong audience", later_scope("api://another/.default"), Expect::Refused(&["AADSTS500011"])),
        refresh("unknown refresh token", spoil("token"), Expect::Refused(&["invalid_grant", "AADSTS9002313"])),
    ]
}

fn managed_identities(cloud: &Cloud) -> Vec<Row> {
    let row = |act, more, expect| Row {
        client: "msal, managed identity",
        act,
        request: with(&managed_identity(cloud, "msal"), more),
        expect,
    };
    let wrong_header =
        json!({ "platform": { "IDENTITY_ENDPOINT": cloud.identity_endpoint(), "IDENTITY_HEADER": "wrong" } });
    vec![
        row("a token, system-assigned", json!({}), Expect::Works(OWN_OBJECT_ID)),
        row("a token, user-assigned", json!({ "identity": OWN_CLIENT_ID }), Expect::Works(OWN_OBJECT_ID)),
        row("wrong audience", json!({ "resource": "api://another" }), Expect::Refused(&["AADSTS500011"])),
        row("unknown identity", json!({ "identity": PROXY_API }), Expect::Refused(&["No User Assigned"])),
        row("wrong identity header", wrong_header, Expect::Refused(&["identity header is missing or wrong"])),
    ]
}

/// A confidential client's request: the orders app in its own tenant.
pub fn app(cloud: &Cloud, client: &str, act: &str) -> Value {
    json!({
        "client": client, "act": act, "authority": cloud.entra_authority(), "tenant": CONTOSO.id,
        "client_id": ORDERS_APP.client_id, "scope": SCOPE,
    })
}

/// A public client's request: the analyst signs in.
pub fn person(cloud: &Cloud, client: &str, act: &str) -> Value {
    with(&app(cloud, client, act), json!({ "client_id": SIGN_IN_CLIENT, "login": ANALYST.upn }))
}

/// A managed identity's request on App Service.
pub fn managed_identity(cloud: &Cloud, client: &str) -> Value {
    json!({
        "client": client, "act": "managed_identity", "resource": OWN_RESOURCE, "scope": format!("{OWN_RESOURCE}/.default"),
        "platform": { "IDENTITY_ENDPOINT": cloud.identity_endpoint(), "IDENTITY_HEADER": cloud.identity_header() },
    })
}

/// The assertion that the orders app's federated credential takes.
pub fn federated() -> TokenSpec {
    TokenSpec::app(&ORDERS_APP).audience(OWN_AUDIENCE).claim("sub", OWN_OBJECT_ID).claim("oid", OWN_OBJECT_ID)
}

/// An assertion, minted.
pub fn assertion(cloud: &Cloud, spec: &TokenSpec) -> Value {
    json!({ "assertion": cloud.mint(spec).expect("a token").expose().as_str() })
}

/// An API that an app must be assigned to.
pub fn assigned() -> String {
    format!("{ASSIGNED_API_URI}/.default")
}

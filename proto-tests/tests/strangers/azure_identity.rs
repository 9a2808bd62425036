//! azure-identity for Python: its credentials for every flow that the simulator has.

use crate::cell::{Cell, Expect, Row};
use crate::msal::{SCOPE, app, assertion, assigned, federated, managed_identity, person};
use pgpassport::sim::world::{ANALYST, ASSIGNED_API, ORDERS_APP, OTHER_APP, OWN_CLIENT_ID, OWN_OBJECT_ID, PROXY_API};
use pgpassport::sim::{Cloud, CloudOptions, Signing, TokenSpec, Version};
use proto_tests::stranger::{Stranger, with};
use serde_json::json;

const CLIENT: &str = "azure-identity";
const REFUSED: &str = "ClientAuthenticationError";
/// What a managed identity that is refused raises, whatever the reason.
const UNAVAILABLE: &str = "CredentialUnavailableError";

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
    let base = with(&app(cloud, CLIENT, "secret"), json!({ "secret": ORDERS_APP.secret }));
    let row = |act, more, expect| Row { client: "ClientSecretCredential", act, request: with(&base, more), expect };
    let other = json!({ "client_id": OTHER_APP.client_id, "secret": OTHER_APP.secret, "scope": assigned() });
    vec![
        row("a token", json!({}), Expect::Works(PROXY_API)),
        row("a token where a role is needed", json!({ "scope": assigned() }), Expect::Works(ASSIGNED_API)),
        row(
            "wrong audience",
            json!({ "scope": "api://another/.default" }),
            Expect::Refused(&[REFUSED, "AADSTS500011"]),
        ),
        row("missing role", other, Expect::Refused(&[REFUSED, "AADSTS501051"])),
        row("wrong secret", json!({ "secret": "wrong" }), Expect::Refused(&[REFUSED, "AADSTS7000215"])),
        row("unknown app", json!({ "client_id": PROXY_API }), Expect::Refused(&[REFUSED, "AADSTS700016"])),
    ]
}

fn assertions(cloud: &Cloud) -> Vec<Row> {
    let rows = |client, request| {
        let row = move |act, spec: TokenSpec, expect| Row {
            client,
            act,
            request: with(&app(cloud, CLIENT, request), assertion(cloud, &spec)),
            expect,
        };
        [
            row("a token", federated(), Expect::Works(ORDERS_APP.object_id)),
            row("wrong audience", federated().audience("another"), Expect::Refused(&[REFUSED, "AADSTS700212"])),
            row("expired assertion", federated().expired(), Expect::Refused(&[REFUSED, "AADSTS700024"])),
            row("another subject", federated().claim("sub", "x"), Expect::Refused(&[REFUSED, "AADSTS700213"])),
            row("another issuer", federated().version(Version::V1), Expect::Refused(&[REFUSED, "AADSTS700211"])),
            row(
                "foreign signing key",
                federated().signing(Signing::WrongKey),
                Expect::Refused(&[REFUSED, "AADSTS700027"]),
            ),
        ]
    };
    let both = [rows("ClientAssertionCredential", "assertion"), rows("WorkloadIdentityCredential", "workload")];
    both.into_iter().flatten().collect()
}

fn devices(cloud: &Cloud) -> Vec<Row> {
    let base = person(cloud, CLIENT, "device");
    let row = |act, more, expect| Row { client: "DeviceCodeCredential", act, request: with(&base, more), expect };
    vec![
        row("a token", json!({}), Expect::Works(ANALYST.object_id)),
        row("the person declines", json!({ "decision": "decline" }), Expect::Refused(&[REFUSED, "AADSTS70017"])),
        row(
            "wrong audience",
            json!({ "scope": "api://another/.default" }),
            Expect::Refused(&[REFUSED, "AADSTS500011"]),
        ),
    ]
}

fn codes(cloud: &Cloud) -> Vec<Row> {
    let code = |act, more, expect| Row {
        client: "AuthorizationCodeCredential",
        act,
        request: with(&with(&person(cloud, CLIENT, "code"), json!({ "consented": SCOPE })), more),
        expect,
    };
    let browser = |act, more, expect| Row {
        client: "InteractiveBrowserCredential",
        act,
        request: with(&person(cloud, CLIENT, "browser"), more),
        expect,
    };
    let declines = json!({ "platform": { "PERSON_ADDS": "&decision=decline" } });
    vec![
        code("a token", json!({}), Expect::Works(ANALYST.object_id)),
        code("unknown code", json!({ "code": "1.unknown" }), Expect::Refused(&[REFUSED, "AADSTS9002313"])),
        code(
            "another redirect URI",
            json!({ "redirect": "http://localhost:2" }),
            Expect::Refused(&[REFUSED, "AADSTS500112"]),
        ),
        code(
            "wrong audience",
            json!({ "scope": "api://another/.default" }),
            Expect::Refused(&[REFUSED, "AADSTS500011"]),
        ),
        code("an API not agreed to", json!({ "scope": assigned() }), Expect::Refused(&[REFUSED, "AADSTS70000:"])),
        browser("a token by code and PKCE", json!({}), Expect::Works(ANALYST.object_id)),
        browser("the person declines", declines, Expect::Refused(&[REFUSED, "AADSTS65004"])),
    ]
}

fn managed_identities(cloud: &Cloud) -> Vec<Row> {
    let base = managed_identity(cloud, CLIENT);
    let row = |act, more, expect| Row { client: "ManagedIdentityCredential", act, request: with(&base, more), expect };
    let wrong_header =
        json!({ "platform": { "IDENTITY_ENDPOINT": cloud.identity_endpoint(), "IDENTITY_HEADER": "wrong" } });
    vec![
        row("a token, system-assigned", json!({}), Expect::Works(OWN_OBJECT_ID)),
        row("a token, user-assigned", json!({ "identity": OWN_CLIENT_ID }), Expect::Works(OWN_OBJECT_ID)),
        row(
            "wrong audience",
            json!({ "scope": "api://another/.default" }),
            Expect::Refused(&[UNAVAILABLE, "AADSTS500011"]),
        ),
        row("unknown identity", json!({ "identity": PROXY_API }), Expect::Refused(&[UNAVAILABLE, "No User Assigned"])),
        row(
            "wrong identity header",
            wrong_header,
            Expect::Refused(&[UNAVAILABLE, "identity header is missing or wrong"]),
        ),
    ]
}

//! STS, IAM Credentials and the SQL Admin API: what they give and what they refuse.

use super::driver::{ACCESS_TOKEN, Driver, EXCHANGE, IAM_SCOPE, JWT, answer, text};
use crate::federation::{ADMIN_SCOPE, LOGIN_SCOPE};
use crate::sim::world::{
    ANALYST, ORDERS_APP, ORDERS_JOB, OUTSIDER, OWN_AUDIENCE, OWN_PROVIDER, OWN_SERVICE_ACCOUNT, PROXY_API, REPORTS_APP,
};
use crate::sim::world::{WORKFORCE_PROVIDER, WORKLOAD_PROVIDER, WORKLOAD_PROVIDER_V1};
use crate::sim::{Fault, Hop, ServerCertificate, Signing, TokenSpec, Version};
use serde_json::{Value, json};

#[tokio::test]
async fn sts_refuses_with_googles_own_words() {
    let driver = Driver::start().await;
    let right = || TokenSpec::person(&ANALYST);
    let table = [
        (
            right().audience("another"),
            "invalid_grant",
            "The audience in ID Token [another] does not match the expected audience",
        ),
        (right().issued_ago(25 * 3600).lifetime(48 * 3600), "invalid_grant", "is stale to sign-in."),
        (right().expired(), "invalid_grant", "is stale to sign-in."),
        (right().issued_ago(-600), "invalid_grant", "is stale to sign-in."),
        (right().version(Version::V1), "invalid_grant", "does not match the expected one"),
        (TokenSpec::person(&OUTSIDER), "invalid_grant", "does not match the expected one"),
        (right().signing(Signing::WrongKey), "invalid_grant", "signature"),
        (right().signing(Signing::UnknownKey), "invalid_grant", "signature"),
        (right().signing(Signing::None), "invalid_grant", "alg"),
        (right().signing(Signing::Hs256WithPublicKey), "invalid_grant", "alg"),
        (
            right().claim("tid", "00000000-0000-0000-0000-000000000000"),
            "unauthorized_client",
            "The given credential is rejected by the attribute condition.",
        ),
        (
            right().without("idtyp"),
            "unauthorized_client",
            "The given credential is rejected by the attribute condition.",
        ),
        (right().audience(&format!("{PROXY_API}/")), "invalid_grant", "does not match the expected audience"),
        (right().without("sub"), "invalid_grant", "\"sub\""),
        (right().without("upn"), "invalid_grant", "google.subject"),
        (right().claim("upn", "a".repeat(128)), "invalid_request", "exceeds the 127 bytes limit"),
    ];
    for (spec, error, description) in table {
        let (status, body) = driver.sts(&driver.mint(&spec), WORKFORCE_PROVIDER, LOGIN_SCOPE).await;
        assert_eq!((status, &body["error"]), (400, &error.into()), "{body}");
        assert!(body["error_description"].as_str().unwrap().contains(description), "{body}");
    }
    // The providers' conditions: people at one, software at the other, the proxy alone at its own.
    let person = driver.mint(&right());
    let app = driver.mint(&TokenSpec::app(&ORDERS_APP));
    let job = driver.mint(&TokenSpec::managed_identity(&ORDERS_JOB).audience(OWN_AUDIENCE));
    for (token, provider) in [(&person, WORKLOAD_PROVIDER), (&app, WORKFORCE_PROVIDER), (&job, OWN_PROVIDER)] {
        let (status, body) = driver.sts(token, provider, LOGIN_SCOPE).await;
        assert_eq!((status, &body["error"]), (400, &"unauthorized_client".into()), "{provider}: {body}");
    }
    let v1 = |audience: &str| driver.mint(&TokenSpec::app(&ORDERS_APP).version(Version::V1).audience(audience));
    for (audience, status) in [("api://pgpassport", 200), ("api://pgpassport/", 200), ("api://pgpassport//", 400)] {
        assert_eq!(driver.sts(&v1(audience), WORKLOAD_PROVIDER_V1, IAM_SCOPE).await.0, status, "{audience}");
    }
    let token = driver.mint(&right());
    let nowhere = WORKFORCE_PROVIDER.replace("/entra", "/another");
    assert_eq!(driver.sts(&token, &nowhere, LOGIN_SCOPE).await.1["error"], "invalid_target");
    assert_eq!(driver.sts(&token, WORKFORCE_PROVIDER, "").await.1["error"], "invalid_scope");
    let foreign = [("options", r#"{"userProject":"another-project"}"#)];
    let (_, body) = driver.sts_with(&token, WORKFORCE_PROVIDER, LOGIN_SCOPE, &foreign).await;
    assert_eq!(body["error"], "unauthorized_client");
    let url = format!("{}/v1/token", driver.cloud.sts_url());
    assert_eq!(
        answer(driver.http.post(url).bearer_auth("x").form(&[("a", "b")])).await.0,
        400,
        "no Authorization header"
    );
}

#[tokio::test]
async fn sts_gives_federated_tokens_to_forms_and_json() {
    let driver = Driver::start().await;
    let token = driver.mint(&TokenSpec::person(&ANALYST));
    for options in [r#"{"userProject":"123456789012"}"#, "%7B%22userProject%22%3A%22123456789012%22%7D"] {
        let given = driver.sts_with(&token, WORKFORCE_PROVIDER, LOGIN_SCOPE, &[("options", options)]).await;
        assert!(text(&given, "access_token").starts_with("ya29.d."));
        assert_eq!((&given.1["token_type"], &given.1["expires_in"]), (&"Bearer".into(), &3599.into()));
    }
    let body = json!({
        "grantType": EXCHANGE, "audience": WORKLOAD_PROVIDER, "scope": IAM_SCOPE, "requestedTokenType": ACCESS_TOKEN,
        "subjectToken": driver.mint(&TokenSpec::app(&ORDERS_APP)), "subjectTokenType": JWT,
    });
    let given = driver.post_json(&format!("{}/v1/token", driver.cloud.sts_url()), "", &body).await;
    assert_eq!(given.1["issued_token_type"], ACCESS_TOKEN, "{given:?}");
    let ending = driver.mint(&TokenSpec::app(&ORDERS_APP).issued_ago(3000).lifetime(3600));
    let (_, short) = driver.sts(&ending, WORKLOAD_PROVIDER, IAM_SCOPE).await;
    assert!(short["expires_in"].as_i64().unwrap() <= 600, "not beyond the subject token: {short}");
}

#[tokio::test]
async fn impersonation_needs_the_binding_the_scope_and_a_living_token() {
    let driver = Driver::start().await;
    let federated = async |app, scope: &str| {
        let token = driver.mint(&TokenSpec::app(app));
        text(&driver.sts(&token, WORKLOAD_PROVIDER, scope).await, "access_token")
    };
    let orders = federated(&ORDERS_APP, IAM_SCOPE).await;
    let reports = federated(&REPORTS_APP, IAM_SCOPE).await;
    let narrow = federated(&ORDERS_APP, LOGIN_SCOPE).await;
    let body = json!({ "scope": [LOGIN_SCOPE], "lifetime": "3600s", "delegates": null });
    let given = driver.impersonate(&orders, ORDERS_APP.service_account, &body).await;
    assert!(text(&given, "accessToken").starts_with("ya29.c."));
    assert_eq!(text(&given, "expireTime").len(), "2026-11-22T02:32:25Z".len(), "no fraction");
    let denied = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).";
    for (token, account, body, status, message) in [
        (&reports, REPORTS_APP.service_account, &body, 403, denied),
        (&orders, OWN_SERVICE_ACCOUNT, &body, 403, denied),
        (&orders, "nobody@demo-project.iam.gserviceaccount.com", &body, 403, denied),
        (&narrow, ORDERS_APP.service_account, &body, 403, "Request had insufficient authentication scopes."),
        (
            &"ya29.c.unknown".to_owned(),
            ORDERS_APP.service_account,
            &body,
            401,
            "Request had invalid authentication credentials.",
        ),
        (
            &String::new(),
            ORDERS_APP.service_account,
            &body,
            401,
            "Request is missing required authentication credential.",
        ),
        (&orders, ORDERS_APP.service_account, &json!({ "scope": [] }), 400, "invalid argument"),
        (
            &orders,
            ORDERS_APP.service_account,
            &json!({ "scope": [LOGIN_SCOPE], "lifetime": "7200s" }),
            400,
            "invalid argument",
        ),
    ] {
        let (got, answer) = driver.impersonate(token, account, body).await;
        assert_eq!(got, status, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(message), "{answer}");
        assert_eq!(answer["error"]["code"], status);
    }
    driver.cloud.revoke("roles/iam.workloadIdentityUser", &format!(
        "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/entra/subject/{}",
        ORDERS_APP.object_id
    ));
    assert_eq!(driver.impersonate(&orders, ORDERS_APP.service_account, &body).await.0, 403);
    driver.cloud.shift_clock(4000);
    assert_eq!(driver.impersonate(&orders, ORDERS_APP.service_account, &body).await.0, 401, "expired");
}

#[tokio::test]
async fn the_admin_api_knows_its_callers() {
    let driver = Driver::start().await;
    let admin = driver.admin_token().await;
    let get = async |bearer: &str, url: &str| answer(driver.http.get(url).bearer_auth(bearer)).await;
    let url = driver.instance_url("/connectSettings");
    let (status, settings) = get(&admin, &url).await;
    assert_eq!(
        (status, &settings["region"], &settings["backendType"]),
        (200, &"europe-west1".into(), &"SECOND_GEN".into())
    );
    assert_eq!(settings["ipAddresses"][0]["ipAddress"], driver.cloud.instance_address().ip().to_string());
    let caller = driver.person_login(&ANALYST).await;
    assert_eq!(get(&caller, &url).await.1["error"]["message"], "Request had insufficient authentication scopes.");
    let token = driver.mint(&TokenSpec::person(&ANALYST));
    let broad = text(&driver.sts(&token, WORKFORCE_PROVIDER, ADMIN_SCOPE).await, "access_token");
    let body = json!({ "public_key": "x" });
    let (status, refused) = driver.post_json(&driver.instance_url(":generateEphemeralCert"), &broad, &body).await;
    assert_eq!(
        (status, &refused["error"]["errors"][0]["reason"]),
        (403, &"notAuthorized".into()),
        "the caller alone gains nothing"
    );
    assert_eq!(refused["error"]["message"], "The client is not authorized to make this request.");
    assert_eq!(get("ya29.c.unknown", &url).await.0, 401);
    let (status, another) = get(&admin, &url.replace("/orders/", "/another/")).await;
    assert_eq!((status, &another["error"]["errors"][0]["reason"]), (403, &"notAuthorized".into()));
    assert_eq!(get(&admin, &url.replace("demo-project", "another")).await.0, 403);
    assert_eq!(driver.post_json(&driver.instance_url(":generateEphemeralCert"), &admin, &body).await.0, 400, "no key");
    driver.cloud.present(ServerCertificate::DnsName);
    driver
        .cloud
        .patch_connect_settings(json!({ "region": "elsewhere", "backendType": null }).as_object().unwrap().clone());
    let (_, settings) = get(&admin, &url).await;
    assert_eq!((&settings["region"], settings.get("backendType")), (&"elsewhere".into(), None));
    assert!(settings["dnsNames"][0]["name"].as_str().unwrap().ends_with('.'));
    driver.cloud.revoke("roles/cloudsql.client", &format!("serviceAccount:{OWN_SERVICE_ACCOUNT}"));
    assert_eq!(get(&admin, &url).await.0, 403);
}

#[tokio::test]
async fn faults_strike_one_hop_and_end() {
    let driver = Driver::start().await;
    let token = driver.mint(&TokenSpec::person(&ANALYST));
    let url = format!("{}/v1/token", driver.cloud.sts_url());
    let faults = driver.cloud.faults();
    faults.set(Hop::Sts, Fault::Status(503));
    assert_eq!(driver.sts(&token, WORKFORCE_PROVIDER, LOGIN_SCOPE).await.0, 503);
    faults.set(Hop::Sts, Fault::Garbage);
    let garbage = driver.http.post(&url).send().await.unwrap();
    assert!(garbage.status() == 200 && garbage.json::<Value>().await.is_err());
    for fault in [Fault::Reset, Fault::Close, Fault::Refuse] {
        faults.set(Hop::Sts, fault);
        assert!(driver.http.post(&url).send().await.is_err(), "{fault:?}");
    }
    faults.clear(Hop::Sts);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(driver.sts(&token, WORKFORCE_PROVIDER, LOGIN_SCOPE).await.0, 200);
    faults.set(Hop::SqlAdmin, Fault::Status(429));
    let (status, body) = driver.get(&driver.instance_url("/connectSettings")).await;
    assert_eq!((status, &body["error"]["errors"][0]["reason"]), (429, &"rateLimitExceeded".into()));
}

//! `[issuer.NAME]`: Entra's versions and clouds, and other providers.

use super::{MINIMAL, checked, edited, problems, shown};
use crate::config::Loaded;
use crate::identity::{Algorithm, CallerKind, Dialect, IssuerConfig, KindRule, Overage, TokenType, Version};
use std::time::Duration;

/// `MINIMAL` with more lines in the issuer's section.
fn contoso(lines: &str) -> String {
    edited("[issuer.contoso]\n", &format!("[issuer.contoso]\n{lines}\n"))
}

fn issuer(text: &str) -> IssuerConfig {
    checked(text).map_err(|problems| shown(&problems)).unwrap().config.issuers.remove(0)
}

/// `MINIMAL` with another provider beside Entra, and a rule for its callers.
fn with_okta(lines: &str) -> String {
    format!(
        r#"{MINIMAL}
[[rule]]
name = "okta"
issuer = "okta"
databases = ["orders"]
object_ids = ["00u1"]
grant = {{ kind = "service_account", provider = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/okta/providers/okta", service_account = "orders-app@demo-project.iam.gserviceaccount.com" }}

[issuer.okta]
kind = "oidc"
{lines}
"#
    )
}

const OKTA: &str = r#"issuer = "https://contoso.okta.example/oauth2/default"
audience = "pgpassport"
subject_claim = "uid"
callers = "user""#;

#[test]
fn v1_tokens_are_an_issuers_own_choice() {
    let v1 = contoso("version = \"1.0\"\nleeway = \"0s\"\nmax_token_age = \"2h\"")
        .replace("audience = \"3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10\"", "audience = [\"api://pgpassport\", \"x\"]");
    let read = issuer(&v1);
    assert_eq!(read.url(), "https://sts.windows.net/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/");
    assert_eq!(read.audiences, ["api://pgpassport", "x"]);
    assert_eq!((read.leeway, read.max_token_age), (Duration::ZERO, Some(Duration::from_secs(7200))));
    assert_eq!(issuer(MINIMAL).entra().unwrap().version, Version::V2);
}

#[test]
fn clouds_have_their_own_hosts() {
    for (authority, v1) in [
        ("https://login.microsoftonline.us", "https://sts.windows.net"),
        ("https://login.partner.microsoftonline.cn", "https://sts.chinacloudapi.cn"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
    ] {
        let read = issuer(&contoso(&format!("authority = \"{authority}\"")));
        assert!(read.url().starts_with(&format!("{authority}/")), "{}", read.url());
        let old = contoso(&format!("authority = \"{authority}/\"\nversion = \"1.0\""));
        assert!(issuer(&old).url().starts_with(&format!("{v1}/")), "{}", issuer(&old).url());
    }
    let named = contoso("authority = \"https://login.sovcloud-identity.de\"\nversion = \"1.0\"");
    assert_eq!(problems(&named), ["15: issuer.contoso.v1_authority: is required: it is not known for this cloud"]);
    let told = named.replace("version", "v1_authority = \"https://sts.sovcloud-identity.de\"\nversion");
    assert!(issuer(&told).url().starts_with("https://sts.sovcloud-identity.de/"));
}

#[test]
fn what_would_accept_others_tokens_is_refused() {
    let alias = contoso("authority = \"https://login.windows.net\"");
    assert_eq!(
        problems(&alias),
        [
            "16: issuer.contoso.authority: is another name of https://login.microsoftonline.com, which is what tokens say"
        ]
    );
    for audience in [
        "00000003-0000-0000-c000-000000000000",
        "https://graph.microsoft.com",
        "https://management.azure.com/",
        "https://ossrdbms-aad.database.windows.net",
        "https://ossrdbms-aad.database.usgovcloudapi.net:443",
        "123CD850-d9df-40bd-94d5-c9f07b7fa203",
    ] {
        let text = contoso("version = \"1.0\"").replace("3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10", audience);
        assert_eq!(
            problems(&text),
            ["18: issuer.contoso.audience: is an API of Microsoft's own, whose tokens prove nothing here"],
            "{audience}"
        );
    }
    let own = contoso("version = \"1.0\"").replace("3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10", "https://mywindows.net/x");
    assert!(checked(&own).is_ok());
    let none = contoso("version = \"1.0\"").replace("\"3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10\"", "[]");
    assert_eq!(problems(&none), ["18: issuer.contoso.audience: is empty: tokens for any API would be accepted"]);
    assert_eq!(
        problems(&contoso("leeway = \"6m\"\nmax_token_age = \"25h\"\nrequired_scopes = [\"a b\"]")),
        [
            "16: issuer.contoso.leeway: is out of bounds: 0ms to 5m",
            "17: issuer.contoso.max_token_age: is out of bounds: 5m to 1440m",
            "18: issuer.contoso.required_scopes[0]: has white space",
        ]
    );
}

#[test]
fn a_list_that_restricts_nothing_is_refused() {
    for key in ["allowed_apps", "allowed_kinds", "required_scopes", "required_roles"] {
        let expected = format!("16: issuer.contoso.{key}: is empty; leave it out or name at least one");
        assert_eq!(problems(&contoso(&format!("{key} = []"))), [expected]);
    }
    for key in ["allowed_apps", "allowed_kinds", "algorithms"] {
        let found = problems(&with_okta(&format!("{OKTA}\n{key} = []")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].ends_with(&format!("issuer.okta.{key}: is empty; leave it out or name at least one")),
            "{found:?}"
        );
    }
}

#[test]
fn entras_own_issuers_are_no_other_provider() {
    for url in [
        "https://login.microsoftonline.com/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/v2.0",
        "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
        "https://sts.windows.net/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/",
        "https://login.windows.net/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/",
        "https://login.microsoftonline.us/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/v2.0",
        "https://sts.chinacloudapi.cn/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/",
        "https://login.sovcloud-identity.de/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/v2.0",
    ] {
        let found = problems(&with_okta(&OKTA.replace("https://contoso.okta.example/oauth2/default", url)));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("issuer.okta.issuer: is Entra's own"), "{found:?}");
    }
}

const GITHUB: &str = "https://token.actions.githubusercontent.com";

#[test]
fn where_anybody_has_an_account_a_claim_names_the_owner() {
    let found = |url: &str, claims: &str| {
        let okta = OKTA.replace("https://contoso.okta.example/oauth2/default", url);
        checked(&with_okta(&format!("{okta}\nrequired_claims = {{ {claims} }}"))).map_err(|problems| shown(&problems))
    };
    for (url, claims) in [
        ("https://accounts.google.com", "hd = \"contoso.example\""),
        (GITHUB, "repository_owner_id = \"1\""),
        (GITHUB, "repository = \"contoso/orders\", ref = \"refs/heads/main\""),
        ("https://gitlab.com", "namespace_id = \"1\""),
        ("https://token.actions.githubusercontent.com/contoso", "ref = \"refs/heads/main\""),
    ] {
        assert!(found(url, claims).is_ok(), "{url} {claims}");
    }
    for (url, claims) in [
        ("https://accounts.google.com", "email_verified = true"),
        ("https://accounts.google.com/", ""),
        (GITHUB, "job_workflow_ref = \"contoso/orders/.github/workflows/w.yml@main\""),
        (GITHUB, ""),
        ("https://gitlab.com", "ref = \"main\""),
        ("https://appleid.apple.com", "email_verified = true"),
    ] {
        let problems = found(url, claims).expect_err(url);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("lets anybody make an account"), "{url} {claims}: {problems:?}");
    }
}

#[test]
fn another_provider_is_read_with_its_own_mapping() {
    let text = with_okta(&format!(
        "{OKTA}\nalgorithms = [\"ES256\"]\ntoken_type = \"at+jwt\"\nlabel_claim = \"email\"\ngroups_claim = \"groups\"\napp_claim = \"cid\"\n\
         required_claims = {{ org = \"contoso\", email_verified = true }}"
    ));
    let Loaded { config, warnings } = checked(&text).map_err(|problems| shown(&problems)).unwrap();
    assert_eq!(shown(&warnings), [""; 0]);
    let read = config.issuers.iter().find(|issuer| issuer.name.as_str() == "okta").unwrap();
    let Dialect::Oidc(oidc) = &read.dialect else { panic!("{read:?}") };
    assert_eq!(read.url(), "https://contoso.okta.example/oauth2/default");
    assert_eq!((oidc.tenant.as_str(), oidc.algorithms.as_slice()), ("okta", [Algorithm::Es256].as_slice()));
    assert_eq!(oidc.token_type, TokenType::AccessToken);
    assert_eq!((oidc.subject_claim.as_str(), oidc.token_id_claim.as_str()), ("uid", "jti"));
    assert_eq!(oidc.kind, KindRule::Always(CallerKind::User));
    assert_eq!(oidc.required_claims["email_verified"], "true");
    let rule = &config.policy.rules()[1];
    assert_eq!(rule.who.object_ids, ["00u1"], "ids of other providers are no GUIDs");
}

#[test]
fn a_trailing_slash_of_an_issuer_is_kept() {
    let text = with_okta(&OKTA.replace("/oauth2/default", "/"));
    let issuers = checked(&text).unwrap().config.issuers;
    let read = issuers.iter().find(|issuer| issuer.name.as_str() == "okta").unwrap();
    assert_eq!(read.url(), "https://contoso.okta.example/");
    assert_eq!(read.discovery_url(), "https://contoso.okta.example/.well-known/openid-configuration");
}

#[test]
fn mistakes_in_another_providers_section() {
    let reason = |from: &str, to: &str| {
        assert!(OKTA.contains(from), "{from}");
        let found = problems(&with_okta(&OKTA.replace(from, to)));
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].split_once(": ").unwrap().1.to_owned()
    };
    for (from, to, expected) in [
        ("\"uid\"", "\"email\"", "issuer.okta.subject_claim: guests choose their own e-mail address"),
        ("\"uid\"", "\"preferred_username\"", "issuer.okta.subject_claim: Entra calls it mutable"),
        ("\"user\"", "\"people\"", "issuer.okta.callers: must be \"user\" or \"app\""),
        ("callers = \"user\"", "", "issuer.okta.callers: is required: \"user\" or \"app\"; or user_claim"),
        (
            "callers = \"user\"",
            "callers = \"user\"\nuser_claim = \"uid\"",
            "issuer.okta.user_claim: contradicts callers",
        ),
        ("https://contoso", "http://contoso", "issuer.okta.issuer: must be https://"),
        ("https://contoso", "https://CONTOSO", "issuer.okta.issuer: is not written as URLs are"),
        ("callers", "algorithms = [\"HS256\"]\ncallers", "issuer.okta.algorithms[0]: must be \"RS256\" or \"ES256\""),
        ("callers", "token_type = \"JWT\"\ncallers", "issuer.okta.token_type: must be \"any\" or \"at+jwt\""),
        ("callers", "authority = \"https://x\"\ncallers", "issuer.okta.authority: is not a known key"),
        (
            "https://contoso.okta.example/oauth2/default",
            "https://accounts.google.com",
            "issuer.okta.issuer: lets anybody make an account: required_claims must say whose are meant",
        ),
        (
            "callers",
            "tenant = \"6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91\"\ncallers",
            "issuer.okta: has the same tenant as issuer.contoso",
        ),
    ] {
        let found = reason(from, to);
        assert!(found.starts_with(expected), "{found}");
    }
    let google = OKTA.replace("https://contoso.okta.example/oauth2/default", "https://accounts.google.com");
    assert!(checked(&with_okta(&format!("{google}\nrequired_claims = {{ hd = \"contoso.example\" }}"))).is_ok());
}

#[test]
fn graph_is_asked_only_where_the_section_says_so() {
    let overage = |lines: &str| issuer(&contoso(lines)).entra().unwrap().overage.clone();
    let graph = |endpoint: &str, client_id: Option<&str>| Overage::Graph {
        endpoint: endpoint.to_owned(),
        client_id: client_id.map(str::to_owned),
    };
    assert_eq!(overage(""), Overage::Deny);
    assert_eq!(overage("groups_overage = \"deny\""), Overage::Deny);
    assert_eq!(overage("groups_overage = \"graph\""), graph("https://graph.microsoft.com", None));
    let us = "authority = \"https://login.microsoftonline.us\"\ngroups_overage = \"graph\"";
    assert_eq!(overage(us), graph("https://graph.microsoft.us", None));
    let id = "d9c8b7a6-9584-4736-a251-40f3e2d1c00b";
    let own = format!("groups_overage = \"graph\"\ngraph = \"http://127.0.0.1:9/\"\ngraph_client_id = \"{id}\"");
    assert_eq!(overage(&own), graph("http://127.0.0.1:9", Some(id)));
    assert_eq!(
        problems(&contoso("authority = \"https://login.sovcloud-identity.fr\"\ngroups_overage = \"graph\"")),
        ["15: issuer.contoso.graph: is required: Microsoft Graph's address is not known for this cloud"]
    );
    assert_eq!(
        problems(&contoso("graph = \"https://graph.microsoft.com\"")),
        ["16: issuer.contoso.graph: is for groups_overage = \"graph\""]
    );
}

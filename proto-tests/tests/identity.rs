//! Whose tokens are accepted, end to end: v1.0 tokens, another `OpenID` provider, scopes and roles, and what strangers
//! may make the proxy do.

use pgpassport::sim::world::{
    ANALYST, BYSTANDER, CONSULTANT, DATABASE, GUEST, ORDERS_APP, PARTNER_API, PARTNER_PROVIDER, PROXY_API,
    PROXY_API_URI, WORKLOAD_PROVIDER, WORKLOAD_PROVIDER_V1,
};
use pgpassport::sim::{Endpoint, Fault, Hop, Signing, TokenSpec, Version};
use proto_tests::chain::{Chain, Setup};
use proto_tests::psql::Login;
use proto_tests::refusal::{Expected, refused};
use serde_json::{Value, json};

fn expected(sqlstate: &'static str, says: &'static str) -> Expected<'static> {
    Expected { sqlstate, says }
}

/// Contoso's API registration asks for v1.0 tokens, and Google's provider for them is another one.
fn v1() -> Setup {
    Setup::default()
        .replace(&format!("audience = \"{PROXY_API}\""), &format!("audience = \"{PROXY_API_URI}\"\nversion = \"1.0\""))
        .replace(WORKLOAD_PROVIDER, WORKLOAD_PROVIDER_V1)
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_tokens_are_accepted_where_the_issuers_section_says_so() {
    let chain = v1().start().await;
    let app = |spec: TokenSpec| chain.login(ORDERS_APP.database_user, &spec);
    let right = || TokenSpec::app(&ORDERS_APP).version(Version::V1).audience(PROXY_API_URI);
    for audience in [PROXY_API_URI.to_owned(), format!("{PROXY_API_URI}/")] {
        let login = app(right().audience(&audience));
        assert_eq!(chain.query(&login, "select session_user").await, ORDERS_APP.database_user, "{audience}");
    }
    let record = chain.records_when("a start", |records| !records.of("session_start").is_empty()).await;
    assert_eq!(record.of("session_start").iter().next().unwrap()["caller"]["app"], ORDERS_APP.client_id);
    chain.calls().reset();
    for (says, spec) in [
        ("v2.0", TokenSpec::app(&ORDERS_APP)),
        ("audience", right().audience("api://other")),
        ("audience", right().audience("https://graph.microsoft.com")),
        ("issuer", right().claim("tid", "b1e7a3c4-52d6-4f8b-9a0e-7c6d5e4f3a2b").claim("ver", "2.0")),
        ("signature", right().signing(Signing::WrongKey)),
    ] {
        refused(&chain, &app(spec), expected("28P01", says)).await;
    }
    assert_eq!(chain.calls().count(Endpoint::Sts), 0);
}

/// The partner's people in front of the same database, as themselves.
async fn partner(issuer: &str) -> Chain {
    let prepared = Setup::default()
        .extra(&format!(
            r#"[[rule]]
name = "consultants"
issuer = "partner"
databases = ["{DATABASE}"]
kind = "user"
groups = ["consultants"]
grant = {{ kind = "workforce", provider = "{PARTNER_PROVIDER}", subject_claim = "uid", subject_prefix = "partner:" }}

[issuer.partner]
kind = "oidc"
issuer = "PARTNER"
audience = "{PARTNER_API}"
algorithms = ["ES256"]
{issuer}
subject_claim = "uid"
label_claim = "email"
groups_claim = "groups"
app_claim = "cid"
required_claims = {{ org = "northwind" }}
"#
        ))
        .prepare()
        .await;
    let url = prepared.cloud.partner_issuer().to_owned();
    prepared.replace("PARTNER", &url).start().await
}

fn consultant(chain: &Chain, changes: &Value) -> Login {
    let token = chain.cloud.mint_partner(changes).expect("a token");
    Login { user: CONSULTANT.name.to_owned(), password: token.expose().clone(), ..chain.person() }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_openid_provider_is_a_second_issuer_with_its_own_mapping() {
    let chain = partner("user_claim = \"uid\"").await;
    let login = consultant(&chain, &json!({"jti": "AT.of-the-consultant"}));
    assert_eq!(chain.query(&login, "select session_user").await, CONSULTANT.database_user);
    assert_eq!(chain.query(&chain.person(), "select session_user").await, ANALYST.upn, "Entra's people as before");
    let records = chain.records_when("a begin", |records| !records.of("begin").is_empty()).await;
    let caller = records.of("begin").iter().next().unwrap()["caller"].clone();
    let shown = ["issuer", "tenant", "object_id", "label", "app", "kind", "token_id"].map(|name| caller[name].as_str());
    assert_eq!(
        shown,
        ["partner", "partner", CONSULTANT.subject, CONSULTANT.name, "orders-ui", "user", "AT.of-the-consultant"]
            .map(Some)
    );
    assert!(chain.database_log().contains(&format!("oid='{}',tid='partner'", CONSULTANT.subject)), "the tag");
    assert_eq!(chain.calls().count(Endpoint::PartnerKeys), 1);
    chain.calls().reset();
    let signature = format!("{}AAAA", &login.password[..login.password.len() - 4]);
    for (sqlstate, says, login) in [
        ("28P01", "audience", consultant(&chain, &json!({"aud": "other"}))),
        ("28P01", "org", consultant(&chain, &json!({"org": "fabrikam"}))),
        ("28P01", "org", consultant(&chain, &json!({"org": null}))),
        ("28P01", "uid", consultant(&chain, &json!({"uid": ["00u8consultant"]}))),
        ("28P01", "expired", consultant(&chain, &json!({"exp": 1_700_000_000}))),
        ("28P01", "issuer", consultant(&chain, &json!({"iss": format!("{}/", chain.cloud.partner_issuer())}))),
        ("28P01", "signature", Login { password: signature, ..consultant(&chain, &json!({})) }),
        // A rule that needs a claim denies when it is absent; Entra's claims give nothing here.
        ("42501", "orders", consultant(&chain, &json!({"groups": null}))),
        (
            "42501",
            "orders",
            consultant(&chain, &json!({"groups": null, "roles": ["consultants"], "oid": ANALYST.object_id})),
        ),
        // The subject decides who logs in, and the name that the client sends cannot.
        ("28000", "contradicts", Login { user: ANALYST.upn.to_owned(), ..consultant(&chain, &json!({})) }),
    ] {
        refused(&chain, &login, expected(sqlstate, says)).await;
    }
    assert_eq!(chain.calls().count(Endpoint::Sts), 0, "no such token went to Google");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_takes_no_other_with_it() {
    let chain = partner("callers = \"user\"").await;
    chain.cloud.faults().set(Hop::EntraKeys, Fault::Refuse);
    assert_eq!(chain.query(&consultant(&chain, &json!({})), "select 1").await, "1");
    chain.cloud.faults().clear_all();
    chain.cloud.faults().set(Hop::PartnerKeys, Fault::Refuse);
    // Keys that are there go on serving.
    assert_eq!(chain.query(&consultant(&chain, &json!({})), "select 1").await, "1");
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_or_role_that_the_issuer_asks_for_must_be_there() {
    let lines = "[issuer.contoso]\nrequired_scopes = [\"database\"]\nrequired_roles = [\"Orders.Query\"]";
    let chain = Setup::default().replace("[issuer.contoso]", lines).start().await;
    let person = |scope: &str| chain.login(ANALYST.upn, &TokenSpec::person(&ANALYST).claim("scp", scope));
    assert_eq!(chain.query(&person("profile database"), "select 1").await, "1");
    assert_eq!(chain.query(&chain.app(), "select 1").await, "1");
    chain.calls().reset();
    refused(&chain, &person("profile"), expected("28000", "scp")).await;
    let without = chain.login(ORDERS_APP.database_user, &TokenSpec::app(&ORDERS_APP).without("roles"));
    refused(&chain, &without, expected("28000", "roles")).await;
    assert_eq!(chain.calls().count(Endpoint::Sts), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_older_than_the_issuer_allows_is_refused_here() {
    let chain = Setup::default().replace("[issuer.contoso]", "[issuer.contoso]\nmax_token_age = \"30m\"").start().await;
    let aged = |seconds: i64| chain.login(ANALYST.upn, &TokenSpec::person(&ANALYST).issued_ago(seconds));
    assert_eq!(chain.query(&aged(1700), "select 1").await, "1");
    chain.calls().reset();
    refused(&chain, &aged(1900), expected("28P01", "too old")).await;
    assert_eq!(chain.calls().count(Endpoint::Sts), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_arrives_as_themselves_only_where_a_rule_names_them() {
    let chain = Setup::default()
        .replace("kind = \"user\"", &format!("kind = \"user\"\nobject_ids = [\"{}\"]", GUEST.object_id))
        .start()
        .await;
    assert_eq!(chain.query(&chain.as_person(&GUEST), "select session_user").await, GUEST.upn);
    let chain = Chain::start().await;
    refused(&chain, &chain.as_person(&GUEST), expected("28000", "guest")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn different_bad_tokens_of_one_address_are_limited_before_a_signature_is_checked() {
    let chain = Setup::default().extra("[limits]\nbad_tokens_per_address = 3").start().await;
    let known = chain.person();
    assert_eq!(chain.query(&known, "select 1").await, "1");
    // psql asks twice: its repetitions are not counted.
    let forged = || chain.login(ANALYST.upn, &TokenSpec::person(&ANALYST).signing(Signing::WrongKey));
    for _ in 0..3 {
        refused(&chain, &forged(), expected("28P01", "signature")).await;
    }
    refused(&chain, &forged(), expected("53300", "too many different tokens")).await;
    refused(&chain, &chain.person(), expected("53300", "too many different tokens")).await;
    assert_eq!(chain.query(&known, "select 1").await, "1", "a token that is known to be good goes on working");
}

/// The analyst with more groups than fit into a token.
fn crowded(chain: &Chain) -> Login {
    let spec = TokenSpec::person(&ANALYST).without("groups").claim("_claim_names", json!({"groups": "src1"}));
    let elsewhere = json!({"src1": {"endpoint": format!("{}/attacker", chain.cloud.sts_url())}});
    chain.login(ANALYST.upn, &spec.claim("_claim_sources", elsewhere))
}

async fn asking_graph() -> Chain {
    let prepared = Setup::default()
        .replace("[issuer.contoso]", "[issuer.contoso]\ngroups_overage = \"graph\"\ngraph = \"GRAPH\"")
        .prepare()
        .await;
    let url = prepared.cloud.graph_url().to_owned();
    prepared.replace("GRAPH", &url).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_do_not_fit_into_the_token_are_unknown_and_never_none() {
    let chain = Chain::start().await;
    let record = refused(&chain, &crowded(&chain), expected("42501", "too many for the token")).await;
    assert_eq!(record["caller"]["object_id"], ANALYST.object_id);
    assert_eq!(chain.calls().count(Endpoint::Graph), 0, "nobody asks where the section does not say so");
    assert_eq!(chain.calls().count(Endpoint::Sts), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_do_not_fit_into_the_token_are_asked_of_graph_where_the_section_says_so() {
    let chain = asking_graph().await;
    let login = crowded(&chain);
    for _ in 0..3 {
        assert_eq!(chain.query(&login, "select session_user").await, ANALYST.upn);
    }
    assert_eq!(chain.query(&crowded(&chain), "select 1").await, "1", "a new token, the same person");
    assert_eq!(chain.calls().count(Endpoint::Graph), 1, "once, and then it is known for a while");
    // Somebody else, who is in none of the rules' groups.
    let spec = TokenSpec::person(&BYSTANDER).without("groups").claim("hasgroups", true);
    refused(&chain, &chain.login(BYSTANDER.upn, &spec), expected("42501", "no rule")).await;
    assert_eq!(chain.calls().count(Endpoint::Graph), 2);
    // Whose groups are in the token is not asked about.
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1");
    assert_eq!(chain.calls().count(Endpoint::Graph), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_while_graph_does_not_say_the_groups() {
    let chain = asking_graph().await;
    chain.cloud.faults().set(Hop::Graph, Fault::Status(503));
    refused(&chain, &crowded(&chain), expected("57P03", "Microsoft Graph")).await;
    assert_eq!(chain.query(&chain.person(), "select 1").await, "1", "others are not touched");
    let chain = asking_graph().await;
    chain.cloud.revoke_graph();
    let record = refused(&chain, &crowded(&chain), expected("57P03", "GroupMember.Read.All")).await;
    assert_eq!(record["blame"], "proxy");
    assert!(record["reason"].as_str().unwrap().contains("Authorization_RequestDenied"), "{record}");
    assert_eq!(chain.calls().count(Endpoint::Sts), 0, "no token went to Google");
}

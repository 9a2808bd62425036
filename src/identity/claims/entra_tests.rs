//! One table a rule: every claim wrong, absent, or of another type.

use super::super::super::LEEWAY;
use super::super::super::testing::{APP, AUDIENCE, NOW, PERSON, TENANT, app, contoso, now, person, with_entra};
use super::super::{MAX_CLAIM_BYTES, MAX_CLAIMS, MAX_LIST_ENTRIES, check};
use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::time::Duration;

fn issuer() -> IssuerConfig {
    contoso("https://login.microsoftonline.com")
}

fn checked(claims: &Value) -> Result<IdentityFacts, Error> {
    check(claims.as_object().unwrap(), &issuer(), now())
}

/// A valid person's token with some members replaced; `null` removes one.
fn person_with(changes: Value) -> Result<IdentityFacts, Error> {
    checked(&changed(person(&issuer().url()), changes))
}

fn app_with(changes: Value) -> Result<IdentityFacts, Error> {
    checked(&changed(app(&issuer().url()), changes))
}

fn changed(mut claims: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

#[test]
fn a_persons_token_becomes_facts() {
    let facts = person_with(json!({})).unwrap();
    assert_eq!((facts.object_id.as_str(), facts.app.as_str(), facts.kind), (PERSON, APP, CallerKind::User));
    assert_eq!((facts.label.as_str(), facts.guest), ("analyst@contoso.example", false));
    assert_eq!(facts.groups.unwrap(), ["11111111-1111-4111-8111-111111111111"]);
    assert_eq!(facts.roles.unwrap(), ["reader"]);
    assert_eq!(facts.token_id.unwrap(), "Zm9vYmFy");
    assert_eq!((facts.issued_at.as_second(), facts.expires_at.as_second()), (NOW - 60, NOW + 3600));
    assert_eq!(facts.issuer_url, format!("https://login.microsoftonline.com/{TENANT}/v2.0"));
}

#[test]
fn email_and_whatever_people_can_set_is_no_subject() {
    let subjects = person_with(json!({"given_name": "CEO", "extn.role": "x"})).unwrap().claims;
    let names: Vec<&str> = subjects.keys().map(String::as_str).collect();
    assert_eq!(names, ["extn.role", "oid", "sub", "upn"]);
    let odd = json!({"a": "line\nbreak", "b": "", "c": "x".repeat(MAX_CLAIM_BYTES + 1), "d": 1, "e": ["upn"]});
    let subjects = person_with(odd).unwrap().claims;
    assert_eq!(subjects.keys().map(String::as_str).collect::<Vec<_>>(), ["oid", "sub", "upn"]);
}

#[test]
fn an_issuer_that_is_not_exactly_ours_is_refused() {
    let ours = issuer().url();
    for iss in [
        format!("{ours}/"),
        format!("{ours}#"),
        ours.to_uppercase(),
        ours.replace("https://login.microsoftonline.com", "https://login.microsoftonline.com.attacker.example"),
        ours.replace(TENANT, "11111111-1111-4111-8111-111111111111"),
        ours.replace(TENANT, "common"),
        format!("https://sts.windows.net/{TENANT}/"),
        String::new(),
    ] {
        assert!(matches!(person_with(json!({"iss": iss})), Err(Error::Issuer)), "{iss}");
    }
}

#[test]
fn a_tenant_that_is_not_the_issuers_is_refused() {
    for tid in ["11111111-1111-4111-8111-111111111111", "common", "", "6f9b1c520f0e4c0a9d5c2d6f3a7b8c91"] {
        assert!(matches!(person_with(json!({"tid": tid})), Err(Error::Issuer)), "{tid}");
    }
}

#[test]
fn other_audiences_are_refused() {
    for aud in [
        "00000003-0000-0000-c000-000000000000",
        "https://ossrdbms-aad.database.windows.net",
        &format!("api://{AUDIENCE}"),
        &AUDIENCE.to_uppercase(),
        &format!("{AUDIENCE}/"),
        "",
    ] {
        assert!(matches!(person_with(json!({"aud": aud})), Err(Error::Audience)), "{aud}");
    }
}

#[test]
fn arrays_and_other_types_are_no_strings() {
    for name in ["iss", "tid", "ver", "aud", "oid", "azp"] {
        let right = person(&issuer().url())[name].clone();
        for wrong in [json!([right]), json!([right, "x"]), json!(7), json!({"x": right}), json!(true)] {
            let outcome = person_with(json!({name: wrong}));
            assert!(
                matches!(outcome, Err(Error::Claim(ref claim)) if claim == name),
                "{name}: {wrong} gave {outcome:?}"
            );
        }
    }
}

#[test]
fn claims_that_validation_needs_must_be_there() {
    for name in ["iss", "tid", "ver", "aud", "exp", "nbf", "iat", "oid", "azp"] {
        let outcome = person_with(json!({name: null}));
        assert!(matches!(outcome, Err(Error::Claim(ref claim)) if claim == name), "{name}: {outcome:?}");
    }
}

#[test]
fn v1_tokens_are_refused() {
    assert!(matches!(person_with(json!({"ver": "1.0"})), Err(Error::Version(Version::V1))));
    assert!(matches!(person_with(json!({"ver": "2"})), Err(Error::Claim(claim)) if claim == "ver"));
}

/// The tenant's v1.0 tokens, for the API by its id and by its URI.
fn v1_issuer() -> IssuerConfig {
    let audiences = vec![AUDIENCE.to_owned(), "api://pgpassport".to_owned()];
    IssuerConfig { audiences, ..with_entra(issuer(), |entra| entra.version = Version::V1) }
}

fn v1_with(changes: Value) -> Result<IdentityFacts, Error> {
    let iss = format!("https://sts.windows.net/{TENANT}/");
    let v1 = json!({"iss": iss, "ver": "1.0", "azp": null, "azpacr": null, "appid": APP, "appidacr": "0",
                    "preferred_username": null, "unique_name": "analyst@contoso.example"});
    let claims = changed(changed(person(&issuer().url()), v1), changes);
    check(claims.as_object().unwrap(), &v1_issuer(), now())
}

#[test]
fn v1_tokens_are_accepted_where_the_config_says_so_and_nothing_else_is() {
    let facts = v1_with(json!({"upn": null})).unwrap();
    assert_eq!((facts.app.as_str(), facts.label.as_str()), (APP, "analyst@contoso.example"));
    assert_eq!(facts.issuer_url, format!("https://sts.windows.net/{TENANT}/"));
    for (changes, expected) in [
        (json!({"ver": "2.0"}), "v2.0 token"),
        (json!({"iss": format!("https://sts.windows.net/{TENANT}")}), "issuer"),
        (json!({"iss": issuer().url()}), "issuer"),
        (json!({"tid": "11111111-1111-4111-8111-111111111111"}), "issuer"),
        (json!({"appid": null, "azp": APP}), "\"appid\""),
        (json!({"nbf": null}), "\"nbf\""),
    ] {
        let error = v1_with(changes.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "{changes}: {error}");
    }
}

#[test]
fn a_v1_audience_is_the_id_or_the_uri_with_or_without_a_slash() {
    for (aud, expected) in [
        (AUDIENCE, true),
        ("api://pgpassport", true),
        ("api://pgpassport/", true),
        ("api://pgpassport//", false),
        ("api://pgpassport/x", false),
        ("api://PGPASSPORT", false),
        ("https://graph.microsoft.com", false),
        ("https://ossrdbms-aad.database.windows.net", false),
        (&format!("{AUDIENCE}/"), false),
    ] {
        assert_eq!(v1_with(json!({"aud": aud})).is_ok(), expected, "{aud}");
    }
    assert!(matches!(person_with(json!({"aud": "api://pgpassport"})), Err(Error::Audience)), "v2.0 has the id only");
}

#[test]
fn a_token_that_is_too_old_is_refused_though_it_has_not_expired() {
    let aged = IssuerConfig { max_token_age: Some(Duration::from_secs(600)), ..issuer() };
    let of_age = |age: i64| {
        let claims = changed(person(&issuer().url()), json!({"iat": NOW - age, "nbf": NOW - age}));
        check(claims.as_object().unwrap(), &aged, now())
    };
    let leeway = i64::try_from(LEEWAY.as_secs()).unwrap();
    assert!(of_age(600 + leeway).is_ok());
    assert!(matches!(of_age(601 + leeway), Err(Error::TooOld(at)) if at.as_second() == NOW - 601 - leeway));
}

#[test]
fn the_leeway_is_the_issuers() {
    let strict = IssuerConfig { leeway: Duration::ZERO, ..issuer() };
    let with = |changes: Value| {
        check(changed(person(&issuer().url()), changes).as_object().unwrap(), &strict, now()).map(|_| ())
    };
    assert!(with(json!({"exp": NOW + 1})).is_ok());
    assert!(matches!(with(json!({"exp": NOW})), Err(Error::Expired(_))));
    assert!(with(json!({"nbf": NOW})).is_ok());
    assert!(matches!(with(json!({"nbf": NOW + 1})), Err(Error::NotYetValid)));
    assert!(matches!(with(json!({"iat": NOW + 1})), Err(Error::NotYetValid)));
}

#[test]
fn people_need_the_scope_and_software_the_role_that_the_issuer_asks_for() {
    let asking = with_entra(issuer(), |entra| {
        entra.required_scopes = vec!["database".to_owned(), "admin".to_owned()];
        entra.required_roles = vec!["Database.Login".to_owned()];
    });
    let with = |claims: Value, changes: Value| {
        check(changed(claims, changes).as_object().unwrap(), &asking, now()).map(|facts| facts.kind)
    };
    let (person, app) = (person(&issuer().url()), app(&issuer().url()));
    for (scopes, expected) in
        [("database", true), ("profile admin", true), ("databases", false), ("Database", false), ("db.login", false)]
    {
        assert_eq!(with(person.clone(), json!({"scp": scopes})).is_ok(), expected, "{scopes}");
    }
    // A person's role is no software's, and a scope is no role.
    let roles = with(person, json!({"roles": ["Database.Login"]}));
    assert!(matches!(roles, Err(Error::Permission("scp"))), "{roles:?}");
    for (roles, expected) in [
        (json!(["Other", "Database.Login"]), true),
        (json!(["Database"]), false),
        (json!([]), false),
        (json!(null), false),
    ] {
        let outcome = with(app.clone(), json!({"roles": roles}));
        assert_eq!(outcome.is_ok(), expected, "{roles}: {outcome:?}");
    }
}

#[test]
fn times_hold_to_the_second_with_the_leeway_and_no_more() {
    let leeway = i64::try_from(LEEWAY.as_secs()).unwrap();
    assert!(person_with(json!({"exp": NOW - leeway + 1})).is_ok());
    assert!(
        matches!(person_with(json!({"exp": NOW - leeway})), Err(Error::Expired(at)) if at.as_second() == NOW - leeway)
    );
    for name in ["nbf", "iat"] {
        assert!(person_with(json!({name: NOW + leeway})).is_ok());
        assert!(matches!(person_with(json!({name: NOW + leeway + 1})), Err(Error::NotYetValid)), "{name}");
    }
    for name in ["exp", "nbf", "iat"] {
        for wrong in [json!("1790000000"), json!(1.5), json!(i64::MAX), json!(u64::MAX), json!(i64::MIN), json!([NOW])]
        {
            let outcome = person_with(json!({name: wrong}));
            assert!(
                matches!(outcome, Err(Error::Claim(ref claim)) if claim == name),
                "{name}: {wrong} gave {outcome:?}"
            );
        }
    }
}

#[test]
fn identities_are_guids_in_one_spelling() {
    assert_eq!(person_with(json!({"oid": PERSON.to_uppercase()})).unwrap().object_id, PERSON);
    for oid in
        ["analyst@contoso.example", "", "0c7a5f0e4b5d4f5e9a3b6f1f2d3e4a5b", "{0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b}"]
    {
        assert!(matches!(person_with(json!({"oid": oid})), Err(Error::Claim(claim)) if claim == "oid"), "{oid}");
    }
}

#[test]
fn an_id_token_is_not_an_access_token() {
    // ID tokens share issuer, audience and key; they name no client app.
    assert!(
        matches!(person_with(json!({"azp": null, "scp": null, "idtyp": null})), Err(Error::Claim(claim)) if claim == "azp")
    );
}

#[test]
fn only_allowed_apps_present_tokens() {
    let claims = person(&issuer().url());
    let with = |apps: &[&str]| {
        let issuer = IssuerConfig { allowed_apps: apps.iter().map(|a| (*a).to_owned()).collect(), ..issuer() };
        check(claims.as_object().unwrap(), &issuer, now())
    };
    assert!(with(&[]).is_ok() && with(&["x", APP]).is_ok());
    assert!(matches!(with(&[PERSON]), Err(Error::App(app)) if app == APP));
}

#[test]
fn only_allowed_kinds_of_caller_are_accepted() {
    let claims = person(&issuer().url());
    let with = |kinds: &[CallerKind]| {
        let issuer = IssuerConfig { allowed_kinds: kinds.to_vec(), ..issuer() };
        check(claims.as_object().unwrap(), &issuer, now())
    };
    assert!(with(&[CallerKind::User]).is_ok() && with(&[]).is_ok());
    assert!(matches!(with(&[CallerKind::App]), Err(Error::Kind(CallerKind::User))));
}

#[test]
fn an_app_never_passes_for_a_person() {
    let table = [
        (json!({"idtyp": "user", "scp": "s"}), Some(CallerKind::User)),
        (json!({"idtyp": null, "scp": "s"}), Some(CallerKind::User)),
        (json!({"idtyp": "app", "scp": null}), Some(CallerKind::App)),
        (json!({"idtyp": null, "scp": null}), Some(CallerKind::App)),
        (json!({"idtyp": "app", "scp": "s"}), None),
        (json!({"idtyp": "user", "scp": null}), None),
        (json!({"idtyp": "device", "scp": "s"}), None),
        (json!({"idtyp": ["user"], "scp": "s"}), None),
        (json!({"idtyp": null, "scp": " "}), None),
        (json!({"idtyp": null, "scp": ["s"]}), None),
    ];
    for (changes, kind) in table {
        assert_eq!(person_with(changes.clone()).ok().map(|facts| facts.kind), kind, "{changes}");
    }
}

#[test]
fn any_sign_of_a_guest_makes_one() {
    let own = format!("https://sts.windows.net/{TENANT}/");
    let table = [
        (json!({"acct": 0}), Some(false)),
        (json!({"acct": "0", "idp": own}), Some(false)),
        (json!({"idp": issuer().url()}), Some(false)),
        (json!({"acct": 1}), Some(true)),
        (json!({"acct": "1"}), Some(true)),
        (json!({"acct": 0, "idp": "https://sts.windows.net/11111111-1111-4111-8111-111111111111/"}), Some(true)),
        (json!({"idp": "live.com"}), Some(true)),
        (json!({"upn": "person_home.example#EXT#@contoso.onmicrosoft.com"}), Some(true)),
        (json!({"upn": "person_home.example#ext#@contoso.onmicrosoft.com"}), Some(true)),
        (json!({"acct": [1]}), None),
        (json!({"idp": 1}), None),
    ];
    for (changes, guest) in table {
        assert_eq!(person_with(changes.clone()).ok().map(|facts| facts.guest), guest, "{changes}");
    }
    assert!(!app_with(json!({"idp": "live.com"})).unwrap().guest);
}

#[test]
fn groups_overage_is_unknown_and_never_none() {
    let sources = json!({"src1": {"endpoint": "https://graph.windows.net/x"}});
    let table = [
        (json!({"groups": []}), Some(Some(0))),
        (json!({"groups": null}), Some(None)),
        (json!({"groups": null, "_claim_names": {"groups": "src1"}, "_claim_sources": sources}), Some(None)),
        (json!({"_claim_names": {"groups": "src1"}}), Some(None)),
        (json!({"_claim_names": "groups"}), Some(None)),
        (json!({"_claim_names": {"other": "src1"}}), Some(Some(1))),
        (json!({"hasgroups": true}), Some(None)),
        (json!({"hasgroups": "true", "groups": null}), Some(None)),
        (json!({"groups": "one"}), None),
        (json!({"groups": ["a", 1]}), None),
        (json!({"groups": ["a\n"]}), None),
        (json!({"groups": vec!["a"; MAX_LIST_ENTRIES + 1]}), None),
    ];
    for (changes, groups) in table {
        let outcome = person_with(changes.clone()).ok().map(|facts| facts.groups.map(|groups| groups.len()));
        assert_eq!(outcome, groups, "{changes}");
        if let Ok(facts) = person_with(changes.clone()) {
            let elsewhere = facts.groups.is_none() && changes != json!({"groups": null});
            assert_eq!(facts.overage, elsewhere, "{changes}");
        }
    }
    assert!(person_with(json!({"roles": "reader"})).is_err());
    assert_eq!(person_with(json!({"roles": null})).unwrap().roles, None);
}

#[test]
fn labels_are_names_that_can_be_shown() {
    assert_eq!(person_with(json!({"upn": null})).unwrap().label, "analyst@contoso.example");
    assert_eq!(person_with(json!({"upn": "a\u{7}b", "preferred_username": null})).unwrap().label, PERSON);
    assert_eq!(app_with(json!({})).unwrap().label, APP);
    let machine =
        "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders-api";
    for (resource, label) in [
        (machine, "orders-api"),
        ("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm-7", "vm-7"),
        ("/subscriptions/s/providers/Microsoft.Compute", APP),
        ("/subscriptions/s/providers/Microsoft.Compute/virtualMachines/", APP),
        ("orders-api", APP),
        ("/providers/a/b/line\nbreak", APP),
    ] {
        assert_eq!(app_with(json!({"xms_mirid": resource})).unwrap().label, label, "{resource}");
        // Only software has one.
        assert_eq!(person_with(json!({"xms_mirid": resource})).unwrap().label, "analyst@contoso.example");
    }
    assert_eq!(
        app_with(json!({"app_displayname": "orders-api", "upn": "ceo@contoso.example"})).unwrap().label,
        "orders-api"
    );
}

#[test]
fn too_many_claims_are_no_token() {
    let mut claims = person(&issuer().url());
    for n in 0..MAX_CLAIMS {
        claims[format!("c{n}")] = json!("x");
    }
    assert!(matches!(checked(&claims), Err(Error::NotAToken)));
}

proptest! {
    #[test]
    fn any_value_of_any_claim_is_an_answer(name in "(iss|aud|tid|exp|nbf|iat|ver|oid|azp|scp|idtyp|acct|idp|upn|groups|roles|_claim_names)",
                                           number: i64, text in "\\PC{0,40}", shape in 0..5) {
        let value = match shape {
            0 => json!(number),
            1 => json!(text),
            2 => json!([text]),
            3 => json!({"groups": text}),
            _ => json!(null),
        };
        let _ = person_with(json!({name: value}));
    }
}

//! One table a rule, for issuers that are not Entra.

use super::super::super::testing::{NOW, now, okta, okta_person};
use super::super::super::{Algorithm, Dialect};
use super::super::check;
use super::*;
use serde_json::json;

const URL: &str = "https://contoso.okta.example/oauth2/default";

fn issuer() -> IssuerConfig {
    okta(URL, &[Algorithm::Rs256])
}

fn with_oidc(change: impl FnOnce(&mut Oidc)) -> IssuerConfig {
    let mut issuer = issuer();
    if let Dialect::Oidc(oidc) = &mut issuer.dialect {
        change(oidc);
    }
    issuer
}

/// A valid person's token with some members replaced; `null` removes one.
fn judged(issuer: &IssuerConfig, changes: &Value) -> Result<IdentityFacts, Error> {
    let mut claims = okta_person(URL).as_object().unwrap().clone();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.remove(name),
            value => claims.insert(name.clone(), value.clone()),
        };
    }
    check(&claims, issuer, now())
}

fn person_with(changes: &Value) -> Result<IdentityFacts, Error> {
    judged(&issuer(), changes)
}

#[test]
fn claims_are_read_as_the_config_maps_them() {
    let facts = person_with(&json!({})).unwrap();
    assert_eq!((facts.object_id.as_str(), facts.label.as_str()), ("00u1", "analyst@contoso.example"));
    assert_eq!((facts.tenant.as_str(), facts.issuer_url.as_str()), ("okta", URL));
    assert_eq!((facts.app.as_str(), facts.kind, facts.guest), ("orders-ui", CallerKind::User, false));
    assert_eq!((facts.groups.unwrap().as_slice(), facts.roles), (["analysts".to_owned()].as_slice(), None));
    assert_eq!(facts.token_id.as_deref(), Some("AT.1"));
    assert!(!facts.claims.contains_key("email"), "e-mail is a label, and no database user");
    let bare = person_with(&json!({"email": null, "groups": null, "cid": null, "jti": null})).unwrap();
    assert_eq!((bare.label.as_str(), bare.app.as_str(), bare.groups, bare.token_id), ("00u1", "", None, None));
}

#[test]
fn whose_token_it_is_and_for_whom_is_exact() {
    for (changes, expected) in [
        (json!({"iss": format!("{URL}/")}), "issuer"),
        (json!({"iss": [URL]}), "\"iss\""),
        (json!({"aud": "pgpassport/"}), "audience"),
        (json!({"aud": "other"}), "audience"),
        (json!({"aud": ["pgpassport", "other"]}), "\"aud\""),
        (json!({"aud": []}), "\"aud\""),
        (json!({"aud": null}), "\"aud\""),
        (json!({"org": "fabrikam"}), "\"org\""),
        (json!({"org": null}), "\"org\""),
        (json!({"org": ["contoso"]}), "\"org\""),
        (json!({"sub": null}), "\"sub\""),
        (json!({"sub": ""}), "\"sub\""),
        (json!({"sub": 7}), "\"sub\""),
        (json!({"sub": "a\nb"}), "\"sub\""),
        (json!({"email": 7}), "\"email\""),
        (json!({"cid": ["orders-ui"]}), "\"cid\""),
        (json!({"groups": "analysts"}), "\"groups\""),
    ] {
        let error = person_with(&changes).unwrap_err().to_string();
        assert!(error.contains(expected), "{changes}: {error}");
    }
    assert!(person_with(&json!({"aud": ["pgpassport"]})).is_ok(), "a list of one is that one");
}

#[test]
fn times_must_be_there_but_for_nbf() {
    for name in ["iat", "exp"] {
        assert!(matches!(person_with(&json!({name: null})), Err(Error::Claim(claim)) if claim == name));
    }
    assert!(matches!(person_with(&json!({"exp": NOW - 60})), Err(Error::Expired(_))));
    assert!(matches!(person_with(&json!({"iat": NOW + 61})), Err(Error::NotYetValid)));
    assert!(matches!(person_with(&json!({"nbf": NOW + 61})), Err(Error::NotYetValid)));
    assert!(matches!(person_with(&json!({"nbf": "soon"})), Err(Error::Claim(claim)) if claim == "nbf"));
    assert!(person_with(&json!({"nbf": NOW})).is_ok());
}

#[test]
fn who_is_a_person_is_never_guessed() {
    let kind = |changes: Value| person_with(&changes).ok().map(|facts| facts.kind);
    assert_eq!(kind(json!({"uid": null})), Some(CallerKind::App));
    assert_eq!(kind(json!({"uid": "x"})), Some(CallerKind::User));
    assert_eq!(kind(json!({"uid": ""})), None);
    assert_eq!(kind(json!({"uid": true})), None);
    let software = with_oidc(|oidc| oidc.kind = KindRule::Always(CallerKind::App));
    assert_eq!(judged(&software, &json!({})).unwrap().kind, CallerKind::App);
    let people_only = IssuerConfig { allowed_kinds: vec![CallerKind::User], ..issuer() };
    assert!(matches!(judged(&people_only, &json!({"uid": null})), Err(Error::Kind(CallerKind::App))));
}

#[test]
fn an_app_that_is_not_named_is_not_allowed() {
    let some = IssuerConfig { allowed_apps: vec!["orders-ui".to_owned()], ..issuer() };
    assert!(judged(&some, &json!({})).is_ok());
    assert!(matches!(judged(&some, &json!({"cid": "other"})), Err(Error::App(app)) if app == "other"));
    assert!(matches!(judged(&some, &json!({"cid": null})), Err(Error::App(app)) if app.is_empty()));
    assert!(matches!(judged(&some, &json!({"cid": "Orders-UI"})), Err(Error::App(app)) if app == "Orders-UI"));
}

#[test]
fn a_required_flag_is_a_flag() {
    let verified = with_oidc(|oidc| {
        oidc.required_claims.insert("email_verified".to_owned(), "true".to_owned());
    });
    for (value, expected) in
        [(json!(true), true), (json!("true"), true), (json!(false), false), (json!(1), false), (json!(null), false)]
    {
        assert_eq!(judged(&verified, &json!({"email_verified": value})).is_ok(), expected, "{value}");
    }
}

#[test]
fn entras_marks_mean_nothing_here() {
    let facts = person_with(&json!({"hasgroups": true, "acct": 1, "idtyp": "app", "oid": "x", "tid": "y"})).unwrap();
    assert_eq!((facts.overage, facts.guest, facts.kind), (false, false, CallerKind::User));
    assert_eq!((facts.object_id.as_str(), facts.tenant.as_str()), ("00u1", "okta"));
}

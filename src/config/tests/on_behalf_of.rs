//! `[on_behalf_of.ISSUER]`.

use super::rules::GROUP;
use super::{APP_RULE, MINIMAL, checked, problems};
use crate::config::{Loaded, Problem};
use crate::federation::CredentialConfig;
use crate::names::IssuerName;

const SECTION: &str = "[on_behalf_of.contoso]\nscope = \"api://second/.default\"\naudience = \"second\"\n";
const IDENTITY: &str = "managed_identity_client_id = \"6a5b4c3d-2e1f-4a0b-8c9d-7e6f5a4b3c0c\"";

fn with(lines: &str) -> String {
    format!("{MINIMAL}\n{SECTION}{lines}\n")
}

fn loaded(text: &str) -> Result<Loaded, Vec<Problem>> {
    checked(text)
}

#[test]
fn a_managed_identity_needs_no_file_and_knows_its_clouds_audience() {
    let contoso = IssuerName::parse("contoso").unwrap();
    let config = loaded(&with(IDENTITY)).unwrap().config;
    let section = config.on_behalf_of.get(&contoso).unwrap();
    assert!(section.token_endpoint.starts_with("https://login.microsoftonline.com/"), "{section:?}");
    assert!(section.token_endpoint.ends_with("/oauth2/v2.0/token"), "{section:?}");
    let issuer = config.issuers.iter().find(|issuer| issuer.name == contoso).unwrap();
    assert_eq!(vec![section.client_id.clone()], issuer.audiences, "the audience of callers' tokens is the app");
    let CredentialConfig::ManagedIdentity { resource, .. } = &section.credential else { panic!("{section:?}") };
    assert_eq!(resource, "api://AzureADTokenExchange");
    assert!(loaded(MINIMAL).unwrap().config.on_behalf_of.is_empty());
}

#[test]
fn mistakes_are_told() {
    let audience = loaded(MINIMAL).unwrap().config.issuers.remove(0).audiences.remove(0);
    for (text, reason) in [
        (with(""), "needs one credential"),
        (with(&format!("{IDENTITY}\nclient_secret_file = \"x\"")), "needs one credential"),
        (with("client_secret_file = \"missing\""), "cannot be read"),
        (with("certificate = \"missing\"\nkey = \"missing\""), "cannot be read"),
        (with(IDENTITY).replace("audience = \"second\"", &format!("audience = \"{audience}\"")), "callers' own tokens"),
        (with(IDENTITY).replace("api://second/.default", "second"), "is not a scope"),
        (with(IDENTITY).replace("on_behalf_of.contoso", "on_behalf_of.contosso"), "names no [issuer.…]"),
        (with(&format!("{IDENTITY}\nsecret = \"x\"")), "on_behalf_of.contoso.secret"),
    ] {
        let found = problems(&text);
        assert!(found.iter().any(|one| one.contains(reason)), "{reason}: {found:?}");
    }
}

#[test]
fn a_provider_of_people_and_software_is_warned_of() {
    let warned = |text: &str| {
        let warnings = loaded(text).unwrap().warnings;
        warnings.iter().any(|one| one.to_string().contains("whose tokens cannot be traded"))
    };
    let both = APP_RULE.replace("kind = \"app\"", "everyone = true");
    let people = with(IDENTITY).replace(GROUP, &format!("kind = \"user\"\n{GROUP}"));
    assert!(!warned(&format!("{people}\n{APP_RULE}")), "each kind has its own");
    assert!(warned(&format!("{people}\n{both}")), "a rule for both kinds");
    assert!(!warned(&format!("{MINIMAL}\n{APP_RULE}")), "nothing is traded");
}

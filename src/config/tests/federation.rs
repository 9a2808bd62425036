//! How the exchange is configured: delegates, universes.

use super::{APP_RULE, MINIMAL, checked, edited, problems};
use crate::federation::OwnIdentityConfig;
use crate::names::ServiceAccount;
use crate::policy::How;

const ACCOUNT: &str = "service_account = \"orders-app@demo-project.iam.gserviceaccount.com\"";

fn with_delegates(delegates: &str) -> String {
    format!("{MINIMAL}\n{}", APP_RULE.replace(ACCOUNT, &format!("{ACCOUNT}, delegates = {delegates}")))
}

#[test]
fn delegates_are_accounts_each_once_and_never_the_goal() {
    let loaded = checked(&with_delegates(
        r#"["one@demo-project.iam.gserviceaccount.com", "two@demo-project.iam.gserviceaccount.com"]"#,
    ))
    .unwrap();
    let rule = loaded.config.policy.rules().last().unwrap().clone();
    let How::ServiceAccount { delegates, .. } = rule.how else { panic!("{rule:?}") };
    let names: Vec<&str> = delegates.iter().map(ServiceAccount::as_str).collect();
    assert_eq!(names, ["one@demo-project.iam.gserviceaccount.com", "two@demo-project.iam.gserviceaccount.com"]);
    for (bad, reason) in [
        (r#"["one"]"#, "service account"),
        (r#""one@demo-project.iam.gserviceaccount.com""#, "must be an array"),
        (r#"["orders-app@demo-project.iam.gserviceaccount.com"]"#, "on the way already"),
        (r#"["a@p.iam.gserviceaccount.com", "a@p.iam.gserviceaccount.com"]"#, "on the way already"),
    ] {
        let found = problems(&with_delegates(bad));
        assert!(found.len() == 1 && found[0].contains(reason), "{bad}: {found:?}");
    }
    let own = edited("[own_identity]", "[own_identity]\ndelegates = [\"a@p.iam.gserviceaccount.com\"]");
    let own = checked(&own).unwrap().config.own_identity;
    assert!(matches!(own, OwnIdentityConfig::AzureManagedIdentity { delegates, .. } if delegates.len() == 1));
}

#[test]
fn a_universe_has_addresses_and_providers_of_its_own() {
    let elsewhere = |text: &str| format!("[google]\nuniverse_domain = \"apis.contoso.example\"\n{text}\n\n{MINIMAL}");
    let google = checked(&elsewhere("")).unwrap().config.google;
    assert_eq!(google.sts, "https://sts.apis.contoso.example");
    assert_eq!(google.iam_credentials, "https://iamcredentials.apis.contoso.example");
    assert_eq!(google.sql_admin, "https://sqladmin.apis.contoso.example");
    let google = checked(&elsewhere("sts = \"https://sts.contoso.example\"")).unwrap().config.google;
    assert_eq!(google.sts, "https://sts.contoso.example", "an address of its own counts");
    let renamed = |text: &str| text.replace("//iam.googleapis.com/", "//iam.apis.contoso.example/");
    assert!(checked(&renamed(&elsewhere(""))).is_ok());
    let found = problems(&renamed(MINIMAL));
    assert!(found.len() == 2 && found.iter().all(|one| one.contains("in another universe")), "{found:?}");
    assert!(found[0].contains("own_identity.provider") && found[1].contains("grant.provider"), "{found:?}");
    let found = problems(&format!("[google]\nuniverse_domain = \"https://googleapis.com\"\n\n{MINIMAL}"));
    assert!(found.len() == 1 && found[0].contains("google.universe_domain: is not a domain"), "{found:?}");
}

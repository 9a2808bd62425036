//! Providers, pools and issuers that do not go together.

use super::{APP_RULE, MINIMAL, checked, problems};

const CONTOSO: &str = "//iam.googleapis.com/locations/global/workforcePools/contoso/providers/entra";

/// A second tenant, or a partner's provider, whose people arrive on an instance by a claim and a prefix.
struct Second {
    issuer: &'static str,
    provider: &'static str,
    claim: &'static str,
    prefix: &'static str,
    instance: &'static str,
}

const FABRIKAM: Second = Second {
    issuer: "tenant = \"b1e7a3c4-52d6-4f8b-9a0e-7c6d5e4f3a2b\"\naudience = \"3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10\"",
    provider: "//iam.googleapis.com/locations/global/workforcePools/fabrikam/providers/entra",
    claim: "oid",
    prefix: "",
    instance: "demo-project:europe-west1:orders",
};

const PARTNER: Second = Second {
    issuer: "kind = \"oidc\"\nissuer = \"https://login.northwind.example\"\naudience = \"x\"\nsubject_claim = \"uid\"\n\
             callers = \"user\"",
    provider: "//iam.googleapis.com/locations/global/workforcePools/partner/providers/oidc",
    claim: "uid",
    prefix: "partner:",
    instance: "demo-project:europe-west1:orders",
};

impl Second {
    /// A file with these people beside Contoso's, who arrive by `claim` and `prefix`.
    fn beside(&self, claim: &str, prefix: &str) -> String {
        let Self { issuer, provider, claim: second, prefix: its, instance } = self;
        let contoso = format!("subject_claim = \"{claim}\"{}", prefixed(prefix));
        let second_instance =
            if *instance == FABRIKAM.instance { String::new() } else { format!("[instance.\"{instance}\"]\n") };
        format!(
            "{}\n[[rule]]\nname = \"second\"\nissuer = \"second\"\ndatabases = [\"second\"]\nkind = \"user\"\neveryone = true\n\
             grant = {{ kind = \"workforce\", provider = \"{provider}\", subject_claim = \"{second}\"{} }}\n\n\
             [issuer.second]\n{issuer}\n\n[database.second]\ninstance = \"{instance}\"\n\n{second_instance}",
            MINIMAL.replace("subject_claim = \"upn\"", &contoso),
            prefixed(its)
        )
    }
}

fn prefixed(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!(", subject_prefix = \"{prefix}\"") }
}

/// Whether a file is refused, and if so for subjects that can meet.
fn meets(text: &str) -> bool {
    let Err(found) = checked(text) else { return false };
    let found = super::shown(&found);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("rule.second.grant.subject_claim: can name a person of second"), "{found:?}");
    assert!(found[0].contains("as rule.people names another of contoso on demo-project:europe-west1:orders"));
    true
}

#[test]
fn two_issuers_on_one_instance_whose_subjects_can_meet_are_refused() {
    let table = [
        // Object ids are given out once, in whatever tenant; user names are not.
        (FABRIKAM, "oid", "", false),
        (FABRIKAM, "upn", "", false),
        (Second { claim: "upn", ..FABRIKAM }, "upn", "", true),
        (Second { claim: "upn", ..FABRIKAM }, "oid", "", false),
        (Second { claim: "sub", ..FABRIKAM }, "sub", "", false),
        (Second { claim: "extn_name", ..FABRIKAM }, "oid", "", true),
        // What a partner says is the partner's: only a prefix keeps it apart.
        (PARTNER, "upn", "", false),
        (PARTNER, "oid", "", false),
        (PARTNER, "extn_name", "", true),
        (PARTNER, "extn_name", "contoso:", false),
        (PARTNER, "extn_name", "partner:", true),
        (PARTNER, "extn_name", "part", true),
        (Second { prefix: "", ..PARTNER }, "upn", "", true),
        (Second { prefix: "", ..PARTNER }, "oid", "contoso:", true),
        (Second { prefix: "p-", ..PARTNER }, "upn", "", true),
        (Second { prefix: "p-", ..PARTNER }, "oid", "", false),
        (Second { prefix: "a-", ..PARTNER }, "oid", "", true),
        // On another instance they cannot meet.
        (Second { prefix: "", instance: "demo-project:europe-west1:other", ..PARTNER }, "upn", "", false),
    ];
    for (index, (second, claim, prefix, expected)) in table.into_iter().enumerate() {
        assert_eq!(meets(&second.beside(claim, prefix)), expected, "row {index}: {claim} {prefix}");
    }
}

#[test]
fn of_rules_that_name_people_alike_each_instance_counts() {
    let elsewhere = format!(
        "[[rule]]\nname = \"elsewhere\"\nissuer = \"contoso\"\ndatabases = [\"elsewhere\"]\nkind = \"user\"\neveryone = true\n\
         grant = {{ kind = \"workforce\", provider = \"{CONTOSO}\", subject_claim = \"upn\" }}\n\n[[rule]]"
    );
    let text = Second { prefix: "", ..PARTNER }.beside("upn", "").replacen("[[rule]]", &elsewhere, 1);
    let more = "demo-project:europe-west1:elsewhere";
    assert!(meets(&format!("{text}[database.elsewhere]\ninstance = \"{more}\"\n\n[instance.\"{more}\"]\n")));
}

#[test]
fn one_tenants_people_may_come_through_two_pools_by_one_claim() {
    let second = |claim: &str| {
        let rule = MINIMAL.split("[[rule]]").nth(1).unwrap().replace("\"people\"", "\"second\"");
        let rule = rule.replace("workforcePools/contoso", "workforcePools/other").replace("upn", claim);
        let second = "[database.second]\ninstance = \"demo-project:europe-west1:orders\"\ndatabase = \"orders\"";
        format!("{MINIMAL}\n[[rule]]{}{second}\n", rule.replace("[\"orders\"]", "[\"second\"]"))
    };
    let Ok(loaded) = checked(&second("upn")) else { panic!("{:?}", problems(&second("upn"))) };
    assert_eq!(loaded.config.policy.rules().len(), 2);
    assert!(checked(&second("oid")).is_ok());
    assert!(checked(&second("extn_name")).is_err());
}

#[test]
fn a_provider_is_fed_by_one_issuer() {
    let shared = Second { provider: CONTOSO, claim: "oid", ..FABRIKAM }.beside("oid", "");
    assert_eq!(
        problems(&shared),
        [
            "31: rule.second.grant.provider: is fed by issuer contoso in rule.people, and a provider takes the tokens of \
          one issuer: it would refuse those of second"
        ]
    );
    // The proxy's own pool takes no callers: they could become the proxy.
    let own = format!("{MINIMAL}{APP_RULE}").replace("entra/providers/contoso\"", "azure/providers/proxy\"");
    assert_eq!(
        problems(&own),
        ["31: rule.apps.grant.provider: is the proxy's own (own_identity.provider), which must take no callers"]
    );
}

#[test]
fn a_prefix_is_short_and_plain() {
    for bad in ["has space", "quote'", "ünicode", "this-prefix-is-much-too-long"] {
        let text = MINIMAL.replace("subject_claim", &format!("subject_prefix = \"{bad}\", subject_claim"));
        let found = problems(&text);
        assert!(found[0].contains("subject_prefix: is not at most 26 printable"), "{found:?}");
    }
}

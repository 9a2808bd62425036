//! Issuers that sign for anybody who makes an account: a token of theirs says nothing until a claim names its owner.
//!
//! Sources: Google, "`OpenID` Connect" (`hd`); GitHub, "`OpenID` Connect reference"; GitLab, "ID token authentication";
//! Terraform, "Workload identity tokens"; Buildkite, "OIDC". Apple says no organization at all. Not a complete list.

use std::collections::BTreeMap;

/// An issuer, and the claims that say whose an account is.
struct Open {
    url: &'static str,
    owners: &'static [&'static str],
}

/// `sub` names one account at any of them. Not among them: claims that an account's holder sets or that say only that
/// something is true (`email_verified`), and `job_workflow_ref`, which names a workflow that anybody may call.
const OPEN: [Open; 6] = [
    Open { url: "https://accounts.google.com", owners: &["hd", "sub"] },
    Open { url: "https://appleid.apple.com", owners: &["sub"] },
    Open {
        url: "https://token.actions.githubusercontent.com",
        owners: &[
            "repository_owner_id",
            "repository_owner",
            "repository_id",
            "repository",
            "enterprise_id",
            "enterprise",
            "sub",
        ],
    },
    Open {
        url: "https://gitlab.com",
        owners: &["namespace_id", "namespace_path", "project_id", "project_path", "sub"],
    },
    Open {
        url: "https://app.terraform.io",
        owners: &["terraform_organization_id", "terraform_organization_name", "sub"],
    },
    Open { url: "https://agent.buildkite.com", owners: &["organization_id", "organization_slug", "sub"] },
];

/// Why an issuer's tokens could be anybody's: no required claim names an owner.
pub(super) fn undecided(url: &str, required: Option<&BTreeMap<String, String>>) -> Option<String> {
    let url = url.trim_end_matches('/');
    let open = OPEN.iter().find(|open| open.url == url)?;
    let names_owner =
        |required: &BTreeMap<String, String>| open.owners.iter().any(|claim| required.contains_key(*claim));
    if required.is_some_and(names_owner) {
        return None;
    }
    let example = open.owners.first().copied().unwrap_or_default();
    Some(format!(
        "lets anybody make an account: required_claims must say whose are meant, such as {{ {example} = \"…\" }} (any of {})",
        open.owners.join(", ")
    ))
}

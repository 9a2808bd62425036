//! What helps against what a service answers: one table of the documented errors, for refusals and for config/refusals.md.
//!
//! Sources: Security Token Service API, `v1.token` (errors as in RFC 6749 §5.2 and RFC 8693 §2.2.2); "Troubleshoot
//! Workload Identity Federation"; IAM Service Account Credentials API, "Migrate to the Service Account Credentials API"
//! and `google.rpc.Code`. Google numbers none of them, so that a row may need words of the description as well. Entra's
//! numbers ("Microsoft Entra authentication & authorization error codes") may change, says Microsoft: they make a hint
//! better, and one that no row knows is told by its OAuth `error`. The last row of a service is for what no other knows.

use super::{Error, Hop};

/// What has to be done, by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The caller gets a new token. The same one is never sent again.
    NewToken,
    /// The operator compares the provider's issuer with the issuer's section.
    ProviderIssuer,
    /// The operator compares the provider's audiences with the issuer's section.
    ProviderAudience,
    /// The operator looks at the provider's attribute condition.
    ProviderCondition,
    /// The operator looks at the provider's attribute mapping.
    ProviderMapping,
    /// It may pass; else the operator looks whether Google reaches the provider's issuer.
    ProviderReach,
    /// The operator looks whether pool and provider are there and enabled.
    Pool,
    /// The operator lets callers use the quota project.
    QuotaProject,
    /// The operator lets the caller be the service account.
    Impersonation,
    /// The operator enables the API.
    Api,
    /// The operator looks whether the service account is there and enabled.
    Account,
    /// The operator looks at scope, delegates or organisation policy of the account.
    Request,
    /// The operator compares provider and token.
    Provider,
    /// The caller signs in again, as Entra wants it by now.
    SignIn,
    /// An administrator consents to the proxy's app asking for the second API.
    Consent,
    /// An administrator assigns the caller to the second API.
    Assignment,
    /// A policy of the tenant's does not let this caller in from there.
    Blocked,
    /// An administrator looks at the caller's account.
    CallerAccount,
    /// The operator renews the proxy's own credential.
    OwnCredential,
    /// The operator looks at the proxy's own app.
    OwnApp,
    /// The operator compares the second API with what is asked for.
    SecondApi,
    /// It passes.
    Later,
}

/// One documented error.
#[derive(Debug, Clone, Copy)]
pub struct Documented {
    /// Who answers it.
    pub hop: Hop,
    /// OAuth `error`, one of Entra's numbers, or Google's `status`; empty for any.
    pub code: &'static str,
    /// Words of the description; empty for any.
    pub says: &'static str,
    /// What helps.
    pub remedy: Remedy,
}

const fn row(hop: Hop, code: &'static str, says: &'static str, remedy: Remedy) -> Documented {
    Documented { hop, code, says, remedy }
}

/// The documented errors; the first row that fits decides.
pub const REMEDIES: &[Documented] = &[
    row(Hop::OnBehalfOf, "AADSTS500133", "", Remedy::NewToken),
    row(Hop::OnBehalfOf, "AADSTS50013", "", Remedy::NewToken),
    row(Hop::OnBehalfOf, "AADSTS500131", "", Remedy::OwnApp),
    row(Hop::OnBehalfOf, "AADSTS65001", "", Remedy::Consent),
    row(Hop::OnBehalfOf, "AADSTS65004", "", Remedy::Consent),
    row(Hop::OnBehalfOf, "AADSTS90094", "", Remedy::Consent),
    row(Hop::OnBehalfOf, "AADSTS650056", "", Remedy::Consent),
    row(Hop::OnBehalfOf, "AADSTS650057", "", Remedy::Consent),
    row(Hop::OnBehalfOf, "AADSTS50105", "", Remedy::Assignment),
    row(Hop::OnBehalfOf, "AADSTS53000", "", Remedy::Blocked),
    row(Hop::OnBehalfOf, "AADSTS53001", "", Remedy::Blocked),
    row(Hop::OnBehalfOf, "AADSTS53003", "", Remedy::Blocked),
    row(Hop::OnBehalfOf, "AADSTS530032", "", Remedy::Blocked),
    row(Hop::OnBehalfOf, "AADSTS50131", "", Remedy::Blocked),
    row(Hop::OnBehalfOf, "AADSTS50057", "", Remedy::CallerAccount),
    row(Hop::OnBehalfOf, "AADSTS50034", "", Remedy::CallerAccount),
    row(Hop::OnBehalfOf, "AADSTS51004", "", Remedy::CallerAccount),
    row(Hop::OnBehalfOf, "AADSTS7000114", "", Remedy::OwnApp),
    row(Hop::OnBehalfOf, "AADSTS500011", "", Remedy::SecondApi),
    row(Hop::OnBehalfOf, "AADSTS90033", "", Remedy::Later),
    row(Hop::OnBehalfOf, "AADSTS90055", "", Remedy::Later),
    row(Hop::OnBehalfOf, "AADSTS50196", "", Remedy::Later),
    row(Hop::OnBehalfOf, "interaction_required", "", Remedy::SignIn),
    row(Hop::OnBehalfOf, "invalid_grant", "", Remedy::SignIn),
    row(Hop::OnBehalfOf, "invalid_client", "", Remedy::OwnCredential),
    row(Hop::OnBehalfOf, "credential", "", Remedy::OwnCredential),
    row(Hop::OnBehalfOf, "unauthorized_client", "", Remedy::OwnApp),
    row(Hop::OnBehalfOf, "invalid_scope", "", Remedy::SecondApi),
    row(Hop::OnBehalfOf, "invalid_resource", "", Remedy::SecondApi),
    row(Hop::OnBehalfOf, "temporarily_unavailable", "", Remedy::Later),
    row(Hop::OnBehalfOf, "", "", Remedy::OwnApp),
    row(Hop::Sts, "invalid_grant", "is stale to sign-in", Remedy::NewToken),
    row(Hop::Sts, "invalid_grant", "The audience in ID Token", Remedy::ProviderAudience),
    row(Hop::Sts, "invalid_grant", "The issuer in ID Token", Remedy::ProviderIssuer),
    row(Hop::Sts, "invalid_grant", "google.subject", Remedy::ProviderMapping),
    row(Hop::Sts, "invalid_grant", "Error connecting to", Remedy::ProviderReach),
    row(Hop::Sts, "invalid_grant", "", Remedy::Provider),
    row(Hop::Sts, "unauthorized_client", "attribute condition", Remedy::ProviderCondition),
    row(Hop::Sts, "unauthorized_client", "project", Remedy::QuotaProject),
    row(Hop::Sts, "unauthorized_client", "", Remedy::ProviderCondition),
    row(Hop::Sts, "invalid_target", "", Remedy::Pool),
    row(Hop::Sts, "invalid_request", "google.subject", Remedy::ProviderMapping),
    row(Hop::Sts, "invalid_request", "", Remedy::Request),
    row(Hop::Sts, "invalid_scope", "", Remedy::Request),
    row(Hop::Sts, "unsupported_grant_type", "", Remedy::Request),
    row(Hop::Sts, "", "", Remedy::Provider),
    row(Hop::IamCredentials, "PERMISSION_DENIED", "API has not been used", Remedy::Api),
    row(Hop::IamCredentials, "PERMISSION_DENIED", "", Remedy::Impersonation),
    row(Hop::IamCredentials, "UNAUTHENTICATED", "", Remedy::Pool),
    row(Hop::IamCredentials, "NOT_FOUND", "", Remedy::Account),
    row(Hop::IamCredentials, "INVALID_ARGUMENT", "", Remedy::Request),
    row(Hop::IamCredentials, "FAILED_PRECONDITION", "", Remedy::Request),
    row(Hop::IamCredentials, "", "", Remedy::Impersonation),
];

/// What helps against an error of these words; `None` where the service has no row.
pub(super) fn remedy(hop: Hop, code: &str, description: &str) -> Option<Remedy> {
    let fits = |row: &&Documented| {
        let coded = row.code.is_empty() || code.split(' ').any(|one| row.code == one);
        row.hop == hop && coded && description.contains(row.says)
    };
    REMEDIES.iter().find(fits).map(|row| row.remedy)
}

impl Error {
    /// What helps, where a service refused.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Stale => Some(Remedy::NewToken),
            Self::Refused { hop, code, description } => remedy(*hop, code, description),
            Self::Unavailable { .. } | Self::Broken { .. } | Self::Busy { .. } | Self::Throttled { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_answers_find_their_row() {
        for (hop, code, description, expected) in [
            (Hop::Sts, "invalid_grant", "ID Token issued at 1790000000 is stale to sign-in.", Remedy::NewToken),
            (
                Hop::Sts,
                "invalid_grant",
                "The audience in ID Token [x] does not match the expected audience.",
                Remedy::ProviderAudience,
            ),
            (Hop::Sts, "invalid_grant", "Error connecting to the given credential's issuer.", Remedy::ProviderReach),
            (
                Hop::Sts,
                "unauthorized_client",
                "The given credential is rejected by the attribute condition.",
                Remedy::ProviderCondition,
            ),
            (
                Hop::Sts,
                "unauthorized_client",
                "The caller does not have permission to use project 1.",
                Remedy::QuotaProject,
            ),
            (
                Hop::Sts,
                "invalid_target",
                "The target service indicated by the \"audience\" parameters is invalid.",
                Remedy::Pool,
            ),
            (Hop::Sts, "something_new", "", Remedy::Provider),
            (
                Hop::IamCredentials,
                "PERMISSION_DENIED",
                "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).",
                Remedy::Impersonation,
            ),
            (
                Hop::IamCredentials,
                "PERMISSION_DENIED",
                "IAM Service Account Credentials API has not been used in project 1 before or it is disabled.",
                Remedy::Api,
            ),
            (Hop::IamCredentials, "NOT_FOUND", "Not found; Gaia id not found for email x", Remedy::Account),
            (Hop::IamCredentials, "UNAUTHENTICATED", "Request had invalid authentication credentials.", Remedy::Pool),
        ] {
            assert_eq!(remedy(hop, code, description), Some(expected), "{code} {description}");
        }
    }

    #[test]
    fn no_row_hides_a_later_one() {
        for (index, later) in REMEDIES.iter().enumerate() {
            let hides = |row: &&Documented| {
                row.hop == later.hop && (row.code.is_empty() || row.code == later.code) && later.says.contains(row.says)
            };
            assert!(REMEDIES.iter().take(index).find(hides).is_none(), "{later:?} is never reached");
        }
    }
}

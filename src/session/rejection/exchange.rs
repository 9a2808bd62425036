//! The exchange's part of the table: what Google answers, and what helps against it.

use super::{
    ASK_OPERATOR, CANNOT_CONNECT_NOW, CONNECTION_FAILURE, CROWDED, INVALID_AUTHORIZATION, INVALID_PASSWORD, LATER,
    NEW_TOKEN, Rejection, TOO_MANY_CONNECTIONS, in_a_while,
};
use crate::federation::{Error as E, Hop, Remedy};
use crate::telemetry::Blame;

/// What a caller is told whose token bought no login.
pub(super) fn rejection(error: &E) -> Rejection {
    match error {
        E::Stale => Rejection::new(
            Blame::Client,
            sqlstate(Remedy::NewToken),
            "Google finds the token stale",
            next_step(Remedy::NewToken),
        ),
        E::Unavailable { hop, .. } => {
            Rejection::new(blame(*hop), CANNOT_CONNECT_NOW, format!("{} is unavailable", name(*hop)), LATER)
        }
        E::Broken { hop, .. } => Rejection::new(
            blame(*hop),
            CONNECTION_FAILURE,
            format!("{} gave an answer that cannot be used", name(*hop)),
            LATER,
        ),
        E::Busy { hop } => Rejection::new(
            Blame::Proxy,
            TOO_MANY_CONNECTIONS,
            format!("too many logins wait for {}", name(*hop)),
            CROWDED,
        ),
        E::Throttled { hop, left } => Rejection::new(
            blame(*hop),
            CANNOT_CONNECT_NOW,
            format!("{} takes no more calls for now", name(*hop)),
            in_a_while(*left),
        ),
        E::Refused { hop, code, description } => {
            let remedy = error.remedy();
            let own = matches!(remedy, Some(Remedy::OwnCredential | Remedy::OwnApp | Remedy::SecondApi));
            Rejection::new(
                if own { Blame::Proxy } else { blame(*hop) },
                // Only the proxy's own identity has no row.
                remedy.map_or(CANNOT_CONNECT_NOW, sqlstate),
                format!("{} refused the exchange: {code}: {description}", name(*hop)),
                remedy.map_or_else(|| ASK_OPERATOR.to_owned(), next_step),
            )
        }
    }
}

fn sqlstate(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::NewToken | Remedy::SignIn => INVALID_PASSWORD,
        Remedy::OwnCredential | Remedy::OwnApp | Remedy::SecondApi | Remedy::ProviderReach | Remedy::Later => {
            CANNOT_CONNECT_NOW
        }
        _ => INVALID_AUTHORIZATION,
    }
}

fn next_step(remedy: Remedy) -> String {
    let step = match remedy {
        Remedy::NewToken => return format!("{NEW_TOKEN} The same one will not do."),
        Remedy::ProviderIssuer => {
            "Ask the operator to compare the pool provider's issuer with the token's: v1.0 and v2.0 tokens have two."
        }
        Remedy::ProviderAudience => {
            "Ask the operator to add the token's audience to the pool provider's (workforce: its client id)."
        }
        Remedy::ProviderCondition => "Ask the operator which callers the pool provider's attribute condition lets in.",
        Remedy::ProviderMapping => {
            "Ask the operator to check the pool provider's attribute mapping: google.subject needs a claim of at most \
             127 bytes that the token has."
        }
        Remedy::Provider => {
            "Ask the operator to compare the pool provider's issuer, audience, keys and condition with the token."
        }
        Remedy::ProviderReach => {
            "Try again in a moment; if it lasts, ask the operator whether the pool provider's issuer serves its discovery \
             document and keys to Google."
        }
        Remedy::Pool => "Ask the operator whether pool and provider of the rule are there and enabled.",
        Remedy::QuotaProject => {
            "Ask the operator to grant roles/serviceusage.serviceUsageConsumer on grant.user_project to the pool."
        }
        Remedy::Impersonation => {
            "Ask the operator to grant roles/iam.workloadIdentityUser on the service account to the caller; with \
             delegates, roles/iam.serviceAccountTokenCreator on each to the one before."
        }
        Remedy::Api => "Ask the operator to enable iamcredentials.googleapis.com in the service account's project.",
        Remedy::Account => "Ask the operator whether the service account of the rule is there and enabled.",
        Remedy::Request => "Ask the operator to compare the rule's grant with Google's answer; the proxy's log has it.",
        Remedy::SignIn => {
            "Sign in again, interactively, with all that Entra asks for by now (multifactor authentication, a device): \
             az logout, az login; then get a new token and connect with it."
        }
        Remedy::Consent => {
            "Ask an administrator of the tenant to consent to the proxy's app asking for on_behalf_of.scope (az ad app \
             permission admin-consent --id CLIENT-ID)."
        }
        Remedy::Assignment => {
            "Ask an administrator of the tenant to assign you to the second API (on_behalf_of.audience)."
        }
        Remedy::Blocked => {
            "Conditional Access or another policy of the tenant does not let you in from there; show its administrator \
             Entra's message."
        }
        Remedy::CallerAccount => "Ask an administrator of the tenant whether your account is there and enabled.",
        Remedy::OwnCredential => {
            "Ask the operator to renew the credential of the proxy's own app (on_behalf_of), which Entra does not take."
        }
        Remedy::OwnApp => {
            "Ask the operator to compare the proxy's own app with on_behalf_of.client_id: it is the audience of callers' \
             tokens, enabled, and may ask on behalf of people."
        }
        Remedy::SecondApi => {
            "Ask the operator to compare the second API's registration with on_behalf_of.scope and \
             on_behalf_of.audience."
        }
        Remedy::Later => LATER,
    };
    step.to_owned()
}

fn blame(hop: Hop) -> Blame {
    match hop {
        Hop::OnBehalfOf => Blame::Entra,
        Hop::Sts | Hop::IamCredentials => Blame::Google,
        Hop::OwnIdentity => Blame::Proxy,
    }
}

fn name(hop: Hop) -> &'static str {
    match hop {
        Hop::OnBehalfOf => "Entra ID",
        Hop::Sts => "Google STS",
        Hop::IamCredentials => "Google IAM Credentials",
        Hop::OwnIdentity => "the proxy's own identity",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::federation::REMEDIES;
    use std::fmt::Write as _;
    use std::time::Duration;

    /// As config/refusals.md has it.
    fn table() -> String {
        let mut table = "| from | error | says | SQLSTATE | next step |\n|---|---|---|---|---|\n".to_owned();
        for row in REMEDIES {
            let code = if row.code.is_empty() { "any other".to_owned() } else { format!("`{}`", row.code) };
            let (sqlstate, step) = (sqlstate(row.remedy), next_step(row.remedy));
            writeln!(table, "| {} | {code} | {} | {sqlstate} | {step} |", name(row.hop), row.says).unwrap();
        }
        table
    }

    #[test]
    fn the_reference_has_the_table_of_remedies() {
        let reference = include_str!("../../../config/refusals.md");
        assert!(reference.contains(&table()), "config/refusals.md should have:\n{}", table());
    }

    #[test]
    fn being_overrun_is_told_apart_from_being_down() {
        for (error, sqlstate, says) in [
            (E::Busy { hop: Hop::Sts }, "53300", "in a moment"),
            (E::Throttled { hop: Hop::Sts, left: Some(Duration::from_millis(2500)) }, "57P03", "in 3 seconds"),
            (E::Throttled { hop: Hop::IamCredentials, left: None }, "57P03", "later"),
            (E::Unavailable { hop: Hop::Sts, reason: String::new() }, "57P03", "in a moment"),
        ] {
            let rejection = rejection(&error);
            assert!(rejection.sqlstate == sqlstate && rejection.hint.contains(says), "{rejection:?}");
        }
    }
}

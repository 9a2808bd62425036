//! Which database user a rule makes of a caller.
//!
//! Assumption, to be confirmed against a real instance: Cloud SQL names a workforce user exactly as the pool maps
//! `google.subject`, without folding case. A wrong guess is refused by the instance, never logged in as another.

use super::{Denied, How};
use crate::identity::{IdentityFacts, NO_SUBJECTS};
use crate::names::{RoleName, ServiceAccount};

/// The longest `google.subject` of a workforce pool, in bytes (IAM API, attribute mapping limits).
pub const MAX_SUBJECT_BYTES: usize = 127;

/// How every service account's address ends; its database user is what stands before (Cloud SQL, "IAM authentication",
/// user names on `PostgreSQL`).
const ACCOUNT_SUFFIX: &str = ".gserviceaccount.com";

/// Why a claim cannot name a database user; `None` when it can.
///
/// Microsoft's claims reference calls these mutable and not unique (a guest brings an `email` of its own choosing), or
/// they are the protocol's own.
pub fn refused_subject_claim(claim: &str) -> Option<&'static str> {
    match claim {
        "email" => Some("guests choose their own e-mail address, so `email` proves nobody; use `upn`, `oid` or `sub`"),
        "name" | "given_name" | "family_name" | "nickname" => {
            Some("a display name proves nobody; use `upn`, `oid` or `sub`")
        }
        "preferred_username" | "unique_name" => {
            Some("Entra calls it mutable and for display only, so it proves nobody; use `upn`, `oid` or `sub`")
        }
        other if NO_SUBJECTS.contains(&other) => {
            Some("is the token's own and names no caller; use `upn`, `oid` or `sub`")
        }
        _ => None,
    }
}

impl How {
    /// The database user that the instance will see.
    pub(super) fn role(&self, caller: &IdentityFacts) -> Result<RoleName, Denied> {
        match self {
            Self::Workforce { subject_claim, subject_prefix, .. } => subject(subject_claim, subject_prefix, caller),
            Self::ServiceAccount { account, .. } => account_user(account),
        }
    }
}

fn subject(claim: &str, prefix: &str, caller: &IdentityFacts) -> Result<RoleName, Denied> {
    let denied = |reason: &str| Denied::Subject { claim: claim.to_owned(), reason: reason.to_owned() };
    if refused_subject_claim(claim).is_some() {
        return Err(denied("proves nobody"));
    }
    let value = caller.claims.get(claim).ok_or_else(|| denied("is absent"))?;
    if value.is_empty() {
        return Err(denied("is empty"));
    }
    let value = format!("{prefix}{value}");
    if is_accounts(&value) {
        return Err(denied("names a service account's database user"));
    }
    if value.len() > MAX_SUBJECT_BYTES {
        return Err(denied(&format!("is {} bytes long; a subject ends at {MAX_SUBJECT_BYTES}", value.len())));
    }
    RoleName::parse(&value).map_err(|error| denied(&error.to_string()))
}

/// Whether a name is, or could be, a service account's database user: `NAME@PROJECT.iam`, and of Google's own accounts
/// `PROJECT@appspot`, `NUMBER-compute@developer`, `NUMBER@cloudservices`. People's domains have a dot and never end in
/// `.iam`.
fn is_accounts(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let user = lower.strip_suffix(ACCOUNT_SUFFIX).unwrap_or(&lower);
    let in_project = user.rsplit_once('.').is_some_and(|(_, last)| last == "iam");
    let of_google = user.rsplit_once('@').is_some_and(|(_, domain)| !domain.contains('.'));
    user != lower || in_project || of_google
}

/// The config refuses an account whose user would be too long, so the error is for whoever builds rules elsewhere.
fn account_user(account: &ServiceAccount) -> Result<RoleName, Denied> {
    account
        .database_user()
        .map_err(|error| Denied::Subject { claim: "service_account".to_owned(), reason: error.to_string() })
}

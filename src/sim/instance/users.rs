//! The instance's database users, and who may be which.
//!
//! Source: Cloud SQL, "IAM authentication": user names per kind of principal, and the texts of refused logins.

use crate::federation::{ADMIN_SCOPE, LOGIN_SCOPE};
use crate::sim::google::{Google, Issued, Permission, Principal};
use crate::sim::world;
use crate::wire::ErrorFields;

/// OAuth scope that includes all others.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Kinds of database users (`User.type` of the Admin API), as far as they are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Kind {
    /// `BUILT_IN`: has a password, which PostgreSQL itself asks for and checks.
    BuiltIn,
    /// `CLOUD_IAM_SERVICE_ACCOUNT`
    ServiceAccount,
    /// `CLOUD_IAM_WORKFORCE_IDENTITY`
    Workforce,
}

/// One database user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) struct User {
    /// The role's name.
    pub(in crate::sim) name: &'static str,
    /// Who may be it.
    pub(in crate::sim) kind: Kind,
}

/// Every user that may log in. `cloudsqladmin` is not among them.
pub(in crate::sim) const USERS: [User; 9] = [
    // Its password is known to nobody.
    User { name: "postgres", kind: Kind::BuiltIn },
    User { name: world::SCRAM_USER.name, kind: Kind::BuiltIn },
    User { name: world::MD5_USER.name, kind: Kind::BuiltIn },
    User { name: world::ANALYST.upn, kind: Kind::Workforce },
    User { name: world::TRAINEE.upn, kind: Kind::Workforce },
    User { name: world::GUEST.upn, kind: Kind::Workforce },
    User { name: world::CONSULTANT.database_user, kind: Kind::Workforce },
    User { name: world::ORDERS_APP.database_user, kind: Kind::ServiceAccount },
    User { name: world::REPORTS_APP.database_user, kind: Kind::ServiceAccount },
];

/// The user of this name, exactly.
pub(super) fn find(name: &[u8]) -> Option<User> {
    USERS.into_iter().find(|user| user.name.as_bytes() == name)
}

impl User {
    /// Whether IAM decides its logins.
    pub(super) fn is_iam(self) -> bool {
        self.kind != Kind::BuiltIn
    }

    /// Whether a token lets its bearer be this user now.
    pub(super) fn admits(self, token: &str, google: &Google) -> bool {
        google.inspect(token).is_some_and(|issued| {
            issued.has_scope(&[LOGIN_SCOPE, ADMIN_SCOPE, CLOUD_PLATFORM])
                && self.is(&issued)
                && google.allows(&issued.principal, Permission::InstancesLogin)
        })
    }

    fn is(self, issued: &Issued) -> bool {
        match (self.kind, &issued.principal) {
            (Kind::Workforce, Principal::Federated { pool, subject, .. }) => {
                pool.starts_with("locations/global/workforcePools/") && subject == self.name
            }
            (Kind::ServiceAccount, Principal::ServiceAccount(email)) => {
                email.strip_suffix(".gserviceaccount.com") == Some(self.name)
            }
            _ => false,
        }
    }

    /// FATAL 28000: the token is not this user's, expired, or lacks `cloudsql.instances.login`.
    pub(super) fn refusal(self) -> ErrorFields {
        let kind = if self.kind == Kind::ServiceAccount { "service account" } else { "user" };
        let text = format!("Cloud SQL IAM {kind} authentication failed for user \"{}\"", self.name);
        ErrorFields::new("FATAL", "28000", &text)
    }
}

/// FATAL 28P01: no such IAM user, or a wrong password.
pub(super) fn wrong_password(name: &[u8]) -> ErrorFields {
    let text = format!("password authentication failed for user \"{}\"", String::from_utf8_lossy(name));
    ErrorFields::new("FATAL", "28P01", &text)
}

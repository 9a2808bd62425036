//! A grant for tests of those who are handed one.

#![allow(clippy::unwrap_used, reason = "a test's own names are names")]

use super::{Grant, How, Limits, Target};
use crate::names::{DatabaseAlias, DatabaseName, InstanceName, Provider, RoleName, RuleName, ServiceAccount};
use crate::time::Timestamp;

/// The database `orders`, as a service account, for ever.
pub fn grant() -> Grant {
    let pool = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/entra/providers/contoso";
    Grant {
        rule: RuleName::parse("orders-app").unwrap(),
        target: Target {
            alias: DatabaseAlias::parse("orders").unwrap(),
            instance: InstanceName::parse("demo-project:europe-west1:orders").unwrap(),
            database: DatabaseName::parse("orders").unwrap(),
            tag: true,
        },
        how: How::ServiceAccount {
            provider: Provider::parse(pool).unwrap(),
            account: ServiceAccount::parse("orders-app@demo-project.iam.gserviceaccount.com").unwrap(),
            delegates: Vec::new(),
        },
        role: RoleName::parse("orders-app@demo-project.iam").unwrap(),
        startup: super::Startup::default(),
        lifetime: super::Lifetime::default(),
        durability: crate::audit::Durability::default(),
        recorded_parameters: crate::audit::Parameters::default(),
        texts: crate::audit::sealing::Texts::default(),
        unrecorded_commit: crate::audit::UnrecordedCommit::default(),
        expires_at: Timestamp::MAX,
        limits: Limits::default(),
    }
}

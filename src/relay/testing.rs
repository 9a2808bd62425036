//! A recorder for tests and fuzz targets.

#![allow(clippy::unwrap_used, reason = "a test's own names are names")]

use super::tag::testing::analyst;
use crate::audit::event::{Caller, Claimed, SessionStart};
use crate::audit::sealing::Texts;
#[cfg(test)]
use crate::audit::testing::MemoryLog;
use crate::audit::{Auditor, Durability, Parameters, Recorder};
use crate::names::{DatabaseAlias, DatabaseName, InstanceName, IssuerName, RoleName, RuleName, SessionId};
use crate::time::Timestamp;

/// What a rule says of its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Says {
    pub durability: Durability,
    pub parameters: Parameters,
    pub texts: Texts,
}

impl Default for Says {
    fn default() -> Self {
        Self { durability: Durability::default(), parameters: Parameters::Off, texts: Texts::Clear }
    }
}

/// A recorder over a log in memory.
#[cfg(test)]
pub(crate) fn recorder(log: &MemoryLog) -> Recorder {
    recorder_for(log.auditor(10), Says::default())
}

/// A recorder over any log, for a rule that says this.
pub(crate) fn recorder_for(auditor: Auditor, says: Says) -> Recorder {
    let Says { durability, parameters, texts } = says;
    let facts = analyst();
    let caller = Caller {
        label: facts.label,
        issuer: IssuerName::parse("contoso").unwrap(),
        tenant: facts.tenant,
        object_id: facts.object_id,
        kind: "user",
        app: facts.app,
        token_id: None,
    };
    let start = SessionStart {
        caller: &caller,
        claimed: &Claimed::default(),
        rule: &RuleName::parse("orders-people").unwrap(),
        grant: "workforce",
        database: &DatabaseAlias::parse("orders").unwrap(),
        database_name: &DatabaseName::parse("orders").unwrap(),
        instance: &InstanceName::parse("demo-project:europe-west1:orders").unwrap(),
        database_user: &RoleName::parse("analyst@contoso.example").unwrap(),
        role: None,
        session_authorization: None,
        client: "127.0.0.1:5000".parse().unwrap(),
        via: None,
        tag: true,
        replication: false,
        durability,
        parameters: parameters.told(),
        parameters_key: None,
        texts,
        commit_unrecorded: false,
        token_expires: Timestamp::MAX,
    };
    Recorder::open(auditor, SessionId::generate(), start).unwrap()
}

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

/// A recorder over a log in memory.
#[cfg(test)]
pub(crate) fn recorder(log: &MemoryLog) -> Recorder {
    recorder_with(log, Durability::default())
}

/// The same for a rule that says this.
#[cfg(test)]
pub(crate) fn recorder_with(log: &MemoryLog, durability: Durability) -> Recorder {
    recorder_over(log.auditor(10), durability)
}

/// The same over any log.
#[cfg(test)]
pub(crate) fn recorder_over(auditor: Auditor, durability: Durability) -> Recorder {
    recorder_listing(auditor, durability, Parameters::Off)
}

/// A recorder for a rule that says this.
pub(crate) fn recorder_listing(auditor: Auditor, durability: Durability, parameters: Parameters) -> Recorder {
    recorder_telling(auditor, durability, parameters, Texts::Clear)
}

/// The same where texts are told so.
pub(crate) fn recorder_telling(
    auditor: Auditor,
    durability: Durability,
    parameters: Parameters,
    texts: Texts,
) -> Recorder {
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

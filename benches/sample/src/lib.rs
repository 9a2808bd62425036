//! Whose session is measured, an analyst's with the default tag and texts in the clear, and what is recorded of a
//! statement: the same in every bench that has one.

use pgpassport::audit::event::{Caller, Claimed, Outcome, SessionStart, Stage};
use pgpassport::audit::sealing::Texts;
use pgpassport::audit::{Auditor, Begin, Durability, End, Recorder};
use pgpassport::identity::{CallerKind, IdentityFacts};
use pgpassport::names::{
    DatabaseAlias, DatabaseName, InstanceName, IssuerName, RoleName, RuleName, SessionId, TenantId,
};
use pgpassport::relay::tag::{Subject, Tag, Template};
use pgpassport::time::Timestamp;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// Whatever goes wrong ends the run.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The person's tenant.
pub const TENANT: &str = "7d1f2a0e-5d55-4d0f-9a53-3c0f6d1e2b3a";

/// What the person's token says.
pub fn facts() -> Result<IdentityFacts> {
    Ok(IdentityFacts {
        issuer: IssuerName::parse("contoso")?,
        issuer_url: format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        tenant: TenantId::parse(TENANT)?.into(),
        object_id: "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9".to_owned(),
        kind: CallerKind::User,
        guest: false,
        label: "analyst@contoso.example".to_owned(),
        app: "11112222-3333-4444-5555-666677778888".to_owned(),
        groups: None,
        overage: false,
        asked_groups: None,
        roles: None,
        claims: BTreeMap::new(),
        token_id: Some("kGx0Yk9yQkq1t2u3v4w5xy".to_owned()),
        issued_at: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::MAX,
    })
}

/// The session's tag, by the default template.
pub fn tag() -> Result<Tag> {
    let (caller, rule, database) = (facts()?, RuleName::parse("analysts")?, DatabaseAlias::parse("orders")?);
    Ok(Tag::of(&Template::default(), Subject { caller: &caller, rule: &rule, database: &database }))
}

/// The session's place in a log.
pub fn recorder(auditor: Auditor, durability: Durability) -> Result<Recorder> {
    let facts = facts()?;
    let caller = Caller {
        label: facts.label,
        issuer: facts.issuer,
        tenant: facts.tenant,
        object_id: facts.object_id,
        kind: "user",
        app: facts.app,
        token_id: facts.token_id,
    };
    let start = SessionStart {
        caller: &caller,
        claimed: &Claimed::default(),
        rule: &RuleName::parse("analysts")?,
        grant: "workforce",
        database: &DatabaseAlias::parse("orders")?,
        database_name: &DatabaseName::parse("orders")?,
        instance: &InstanceName::parse("contoso-prod:europe-north1:orders")?,
        database_user: &RoleName::parse("analyst@contoso.example")?,
        role: None,
        session_authorization: None,
        client: SocketAddr::from((Ipv4Addr::new(203, 0, 113, 9), 40_000)),
        via: None,
        tag: true,
        replication: false,
        durability,
        parameters: None,
        parameters_key: None,
        commit_unrecorded: false,
        texts: Texts::Clear,
        token_expires: Timestamp::MAX,
    };
    Ok(Recorder::open(auditor, SessionId::generate(), start)?)
}

/// The begin record of a Query with this text.
pub fn begin(event: u64, text: &[u8]) -> Begin<'_> {
    Begin { text: Some((text, text.len() as u64)), tagged: true, ..Begin::of(event, Stage::Query) }
}

/// The end record of a SELECT of ten rows.
pub fn end(event: u64) -> End {
    End {
        event,
        part: 0,
        last: true,
        outcome: Outcome::Ok,
        sqlstate: None,
        text_of: None,
        text: None,
        text_doubtful: false,
        executes: None,
        command: Some("SELECT".into()),
        rows: 10,
        bytes_in: 206,
        bytes_out: 1_500,
        first_row_us: Some(700),
        duration_us: 800,
    }
}

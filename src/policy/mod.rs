//! What may they reach, and how: a verified identity and a database's name in, a [`Grant`] or a denial out.
//!
//! Rules are tried in the order of the file; the first whose *who* and *what* both match decides.
//! A rule that asks for a claim which the token does not carry does not match. Pure: no I/O, no clock.

mod expect;
mod expiry;
mod limits;
mod matching;
mod options;
mod powers;
mod reach;
mod role;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod words;

use crate::audit::sealing::Texts;
use crate::audit::{Durability, Parameters as RecordedParameters, UnrecordedCommit};
use crate::identity::{CallerKind, IdentityFacts, VerifiedIdentity};
use crate::names::{
    DatabaseAlias, DatabaseName, InstanceName, IssuerName, Provider, RoleName, RuleName, ServiceAccount,
};
use crate::time::Timestamp;
use crate::wire::{Parameters, Purpose};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

pub use expect::{Expectation, Outcome, REASONS, Reason};
pub use expiry::{AtExpiry, Because, Due, END_GRACE, Lifetime, Urgency};
pub use limits::{Limits, Line, Over, Rate};
pub use powers::{ACTING, Overreach, Power, Powers, Startup};
pub use reach::{MAX_COMPARISONS, Population, Reach, reach};
pub use role::{MAX_SUBJECT_BYTES, refused_subject_claim};

/// One `[database.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As clients ask for it.
    pub alias: DatabaseAlias,
    /// Where it is.
    pub instance: InstanceName,
    /// As the instance calls it.
    pub database: DatabaseName,
    /// Whether statements carry the caller's tag (`tag = false` turns it off).
    pub tag: bool,
}

/// One `[[rule]]`: who × what → how.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The rule's name, said in every record.
    pub name: RuleName,
    /// Whose tokens.
    pub issuer: IssuerName,
    /// Which databases.
    pub databases: Vec<DatabaseAlias>,
    /// Conditions; each that is given must hold.
    pub who: Who,
    /// How they arrive.
    pub how: How,
    /// Whether they may have replication sessions.
    pub replication: bool,
    /// What they may set as they start.
    pub startup: Powers,
    /// What they may use up.
    pub limits: Limits,
    /// How long their sessions live.
    pub lifetime: Lifetime,
    /// What their records outlive before their bytes leave.
    pub durability: Durability,
    /// What is recorded of their statements' parameters.
    pub recorded_parameters: RecordedParameters,
    /// How their records have their texts.
    pub texts: Texts,
    /// What becomes of a COMMIT that cannot be recorded.
    pub unrecorded_commit: UnrecordedCommit,
}

/// Conditions on the caller. An empty list asks nothing; within a list any entry suffices.
#[derive(Debug, Clone, Default)]
pub struct Who {
    /// Person or software; `None` asks nothing.
    pub kind: Option<CallerKind>,
    /// Guests of the tenant only, or everybody else only; `None` asks nothing.
    pub guest: Option<bool>,
    /// Object ids.
    pub object_ids: Vec<String>,
    /// Group object ids (`groups`).
    pub groups: Vec<String>,
    /// App roles (`roles`).
    pub roles: Vec<String>,
    /// Client apps (`azp`).
    pub apps: Vec<String>,
    /// Networks that the client's own address is in.
    pub networks: Vec<IpNet>,
}

/// What a caller asks for. Only the address is known for certain; the rest is the client's own word.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `database` of the start-up packet.
    pub database: &'a str,
    /// What the session is for.
    pub purpose: Purpose,
    /// The client's own address; `None` where only a balancer's is known, which is in no network of a rule.
    pub address: Option<IpAddr>,
    /// The other start-up parameters.
    pub parameters: &'a [(Vec<u8>, Vec<u8>)],
}

/// How a grant arrives in the database.
#[derive(Debug, Clone)]
pub enum How {
    /// The caller natively, through a workforce pool.
    Workforce {
        /// STS audience.
        provider: Provider,
        /// The claim the provider maps to `google.subject`; never `email`.
        subject_claim: String,
        /// What the provider's mapping puts in front of it: `"partner:" + assertion.sub`.
        subject_prefix: String,
        /// Quota project for STS (`options.userProject`).
        user_project: Option<String>,
    },
    /// A service account, impersonated through a workload pool.
    ServiceAccount {
        /// STS audience.
        provider: Provider,
        /// The account.
        account: ServiceAccount,
        /// Accounts on the way to it, each with the right to be the next; mostly none.
        delegates: Vec<ServiceAccount>,
    },
}

impl How {
    /// The pool provider that takes the caller's token.
    pub fn provider(&self) -> &Provider {
        match self {
            Self::Workforce { provider, .. } | Self::ServiceAccount { provider, .. } => provider,
        }
    }
}

/// Proof that an identity may use a database in one way until a time. Made only by [`Policy::authorize`].
#[derive(Debug)]
pub struct Grant {
    pub(crate) rule: RuleName,
    pub(crate) target: Target,
    pub(crate) how: How,
    pub(crate) role: RoleName,
    pub(crate) startup: Startup,
    pub(crate) lifetime: Lifetime,
    pub(crate) durability: Durability,
    pub(crate) recorded_parameters: RecordedParameters,
    pub(crate) texts: Texts,
    pub(crate) unrecorded_commit: UnrecordedCommit,
    pub(crate) expires_at: Timestamp,
    pub(crate) limits: Limits,
}

impl Grant {
    /// The rule that decided.
    pub fn rule(&self) -> &RuleName {
        &self.rule
    }
    /// Instance and database.
    pub fn target(&self) -> &Target {
        &self.target
    }
    /// The exchange to make.
    pub fn how(&self) -> &How {
        &self.how
    }
    /// The database user the instance will see.
    pub fn role(&self) -> &RoleName {
        &self.role
    }
    /// What the instance is told beside user and database.
    pub fn parameters(&self) -> &Parameters {
        &self.startup.parameters
    }
    /// What the session starts with, as far as the rule bears on it.
    pub fn startup(&self) -> &Startup {
        &self.startup
    }
    /// How long a session under it lives.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }
    /// What the session's records outlive before its bytes leave.
    pub fn durability(&self) -> Durability {
        self.durability
    }
    /// What is recorded of statements' parameters.
    pub fn recorded_parameters(&self) -> RecordedParameters {
        self.recorded_parameters
    }
    /// How the session's records have its texts.
    pub fn texts(&self) -> Texts {
        self.texts
    }

    /// What becomes of a COMMIT that cannot be recorded.
    pub fn unrecorded_commit(&self) -> UnrecordedCommit {
        self.unrecorded_commit
    }
    /// When the token that it rests on ends.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
    /// What its caller may use up.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// Why there is no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The config has no such database name.
    #[error("database {0:?} is not configured")]
    UnknownDatabase(String),
    /// No rule gives this caller this database.
    #[error("no rule gives {caller} the database {database}")]
    NoRule {
        /// Label of the caller.
        caller: String,
        /// The database asked for.
        database: DatabaseAlias,
        /// Whether the caller's groups are unknown because they are too many for the token.
        overage: bool,
    },
    /// A rule would give the database to this caller at another address.
    #[error("rule {rule} gives the database {database} at other addresses only{}", found(*.address))]
    Address {
        /// The first such rule.
        rule: RuleName,
        /// The database asked for.
        database: DatabaseAlias,
        /// The client's own address, where it is known.
        address: Option<IpAddr>,
    },
    /// The rule gives the database, but no replication session.
    #[error("rule {rule} does not allow replication sessions")]
    Replication {
        /// The rule that decided.
        rule: RuleName,
    },
    /// A workforce rule matched a guest, and does not name them by object id.
    #[error("guests of the tenant cannot log in as themselves")]
    Guest,
    /// The claim that names the database user is absent or no database user's name.
    #[error("the token's claim {claim:?} names no database user: it {reason}")]
    Subject {
        /// The claim.
        claim: String,
        /// A clause.
        reason: String,
    },
    /// The client sets something at its start that the rule does not let it set.
    #[error("rule {rule} does not let a client {overreach}")]
    Startup {
        /// The rule that decided.
        rule: RuleName,
        /// What it asked for.
        overreach: Overreach,
    },
}

fn found(address: Option<IpAddr>) -> String {
    match address {
        Some(address) => format!(", and yours is {address}"),
        None => ", and the balancer in front does not tell yours".to_owned(),
    }
}

/// Why a session's grant does not hold any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Withdrawn {
    /// Its caller would be refused now.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Its caller would arrive at another place, as somebody else, or tagged where this session is not.
    #[error("rule {0} gives another instance, database or database user now, or asks for tags")]
    Elsewhere(RuleName),
    /// A rule that would decide now names groups that nobody has asked about for this caller.
    #[error("the policy names groups now that Microsoft Graph was not asked about when {0} logged in")]
    Groups(String),
    /// Its issuer's section has changed so that the token would be refused, or that nobody can tell.
    #[error("the issuer's section has changed")]
    Issuer,
}

/// The policy: databases and rules, in order.
#[derive(Debug, Clone)]
pub struct Policy {
    databases: BTreeMap<DatabaseAlias, Target>,
    rules: Vec<Rule>,
}

impl Policy {
    /// Takes checked databases and rules. Of two databases with one alias the last counts; a TOML table has none.
    pub fn new(databases: Vec<Target>, rules: Vec<Rule>) -> Self {
        let databases = databases.into_iter().map(|target| (target.alias.clone(), target)).collect();
        Self { databases, rules }
    }

    /// Decides. `database` is looked up exactly: no folding of case, no trimming, no default.
    ///
    /// The first rule that matches decides alone: a guest (whom a workforce rule does not name by object id), an
    /// unusable subject, a purpose or a start-up that it does not allow is a denial, and no later rule is asked, so that
    /// a denial never turns into another way in.
    pub fn authorize(&self, identity: &VerifiedIdentity, request: &Request<'_>) -> Result<Grant, Denied> {
        self.decide(identity.facts(), request)
    }

    fn decide(&self, caller: &IdentityFacts, request: &Request<'_>) -> Result<Grant, Denied> {
        let database = request.database;
        let target = self.target(database).ok_or_else(|| Denied::UnknownDatabase(database.to_owned()))?;
        let (alias, address) = (&target.alias, request.address);
        let speaks =
            |rule: &&Rule| rule.matches(caller, alias, address) || rule.hangs_on_groups(caller, alias, address);
        let Some(rule) = self.rules.iter().find(speaks) else {
            return Err(self.unmatched(caller, target, address));
        };
        if rule.hangs_on_groups(caller, alias, address) {
            return Err(Denied::NoRule { caller: caller.label.clone(), database: alias.clone(), overage: true });
        }
        if request.purpose == Purpose::Replication && !rule.replication {
            return Err(Denied::Replication { rule: rule.name.clone() });
        }
        let named = rule.who.object_ids.contains(&caller.object_id);
        if caller.guest && !named && matches!(rule.how, How::Workforce { .. }) {
            return Err(Denied::Guest);
        }
        let user = rule.how.role(caller)?;
        let startup = rule.startup.apply(request.parameters);
        let startup = startup.map_err(|overreach| Denied::Startup { rule: rule.name.clone(), overreach })?;
        let (limits, lifetime, expires_at) = (rule.limits.clone(), rule.lifetime, caller.expires_at);
        let (durability, texts, unrecorded_commit) = (rule.durability, rule.texts, rule.unrecorded_commit);
        let recorded_parameters = rule.recorded_parameters;
        let (rule, target, how) = (rule.name.clone(), target.clone(), rule.how.clone());
        Ok(Grant {
            rule,
            target,
            how,
            role: user,
            startup,
            lifetime,
            durability,
            recorded_parameters,
            texts,
            unrecorded_commit,
            expires_at,
            limits,
        })
    }

    /// Decides again about a session under a grant of an earlier policy: how long it lives now, if its caller would
    /// still get the same way into the same database, with the same roles from its start. A database that is to be
    /// tagged now, and was not, is not the same. Limits and other start-up parameters count for new sessions. Groups that
    /// a directory told are known as far as it was asked: where the decision hangs on another one, the session ends.
    pub fn renew(&self, held: &Grant, caller: &IdentityFacts, request: &Request<'_>) -> Result<Lifetime, Withdrawn> {
        let now = self.decide(caller, request).map_err(|denied| match denied {
            Denied::NoRule { overage: true, caller: label, .. } if caller.asked_groups.is_some() => {
                Withdrawn::Groups(label)
            }
            denied => Withdrawn::Denied(denied),
        })?;
        let (was, is) = (&held.target, &now.target);
        let powers = |startup: &Startup| (startup.role.clone(), startup.session_authorization.clone());
        let same = (&was.instance, &was.database, &held.role) == (&is.instance, &is.database, &now.role)
            && powers(&held.startup) == powers(&now.startup);
        if same && (was.tag || !is.tag) { Ok(now.lifetime) } else { Err(Withdrawn::Elsewhere(now.rule)) }
    }

    /// Why no rule matched.
    fn unmatched(&self, caller: &IdentityFacts, target: &Target, address: Option<IpAddr>) -> Denied {
        let elsewhere = self.rules.iter().find(|rule| rule.matches_elsewhere(caller, &target.alias));
        if let Some(rule) = elsewhere {
            return Denied::Address { rule: rule.name.clone(), database: target.alias.clone(), address };
        }
        Denied::NoRule {
            caller: caller.label.clone(),
            database: target.alias.clone(),
            overage: caller.overage && self.asks_groups_of(&caller.issuer, target),
        }
    }

    /// Whether some rule for this caller's issuer and this database asks for groups.
    pub fn asks_groups(&self, identity: &VerifiedIdentity, database: &str) -> bool {
        self.target(database).is_some_and(|target| self.asks_groups_of(&identity.facts().issuer, target))
    }

    fn asks_groups_of(&self, issuer: &IssuerName, target: &Target) -> bool {
        let asks = |rule: &&Rule| rule.issuer == *issuer && rule.databases.contains(&target.alias);
        self.rules.iter().filter(asks).any(|rule| !rule.who.groups.is_empty())
    }

    /// Every group that rules for an issuer name.
    pub fn groups_of(&self, issuer: &IssuerName) -> impl Iterator<Item = &String> {
        let of_issuer = self.rules.iter().filter(move |rule| rule.issuer == *issuer);
        of_issuer.flat_map(|rule| &rule.who.groups)
    }

    /// The databases, by name.
    pub fn databases(&self) -> impl Iterator<Item = &Target> {
        self.databases.values()
    }

    /// The rules, in the order they are tried.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn target(&self, database: &str) -> Option<&Target> {
        let alias = DatabaseAlias::parse(database).ok()?;
        self.databases.get(&alias)
    }
}

//! What is expected of a policy, written beside it: who is let in and who is not, and why.

use super::{Denied, Policy, Request};
use crate::identity::IdentityFacts;
use crate::names::{RoleName, RuleName};
use crate::wire::{Parameters, Purpose};
use std::fmt;
use std::net::IpAddr;

/// One `[[expect]]`: a caller who asks for something, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// What the caller's token would say.
    pub caller: IdentityFacts,
    /// Why the issuer's section refuses the token, so that no rule is asked.
    pub refused: Option<String>,
    /// `database`.
    pub database: String,
    /// Whether it is a replication session.
    pub purpose: Purpose,
    /// The client's address; `None` is in no network of a rule.
    pub address: Option<IpAddr>,
    /// What the client sets at its start.
    pub parameters: Parameters,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What becomes of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This rule lets the caller in, as this database user where one is named.
    Allow {
        /// The rule.
        rule: RuleName,
        /// The database user.
        user: Option<RoleName>,
    },
    /// It is refused for this reason.
    Deny(Reason),
}

/// Why there is no grant, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The issuer's section refuses the token.
    Issuer,
    /// [`Denied::UnknownDatabase`].
    UnknownDatabase,
    /// [`Denied::NoRule`].
    NoRule,
    /// [`Denied::Address`].
    Address,
    /// [`Denied::Replication`].
    Replication,
    /// [`Denied::Guest`].
    Guest,
    /// [`Denied::Subject`].
    Subject,
    /// [`Denied::Startup`].
    Startup,
}

/// Every reason, as the config writes it.
pub const REASONS: &[(&str, Reason)] = &[
    ("issuer", Reason::Issuer),
    ("unknown-database", Reason::UnknownDatabase),
    ("no-rule", Reason::NoRule),
    ("address", Reason::Address),
    ("replication", Reason::Replication),
    ("guest", Reason::Guest),
    ("subject", Reason::Subject),
    ("startup", Reason::Startup),
];

impl Denied {
    /// The reason in one word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::UnknownDatabase(_) => Reason::UnknownDatabase,
            Self::NoRule { .. } => Reason::NoRule,
            Self::Address { .. } => Reason::Address,
            Self::Replication { .. } => Reason::Replication,
            Self::Guest => Reason::Guest,
            Self::Subject { .. } => Reason::Subject,
            Self::Startup { .. } => Reason::Startup,
        }
    }
}

impl Policy {
    /// What becomes of a login instead of what is expected; `None` where that holds.
    pub fn unmet(&self, expectation: &Expectation) -> Option<String> {
        let Expectation { caller, refused, database, purpose, address, parameters, outcome } = expectation;
        if let Some(refused) = refused {
            return (*outcome != Outcome::Deny(Reason::Issuer)).then(|| format!("it is denied (issuer): {refused}"));
        }
        let request = Request { database, purpose: *purpose, address: *address, parameters };
        let instead = match (self.decide(caller, &request), outcome) {
            (Ok(grant), Outcome::Allow { rule, user }) => {
                if grant.rule() == rule && user.as_ref().is_none_or(|user| user == grant.role()) {
                    return None;
                }
                let user = if grant.rule() == rule { ", but as another database user" } else { "" };
                format!("rule {} allows it{user}", grant.rule())
            }
            (Ok(grant), Outcome::Deny(_)) => format!("rule {} allows it", grant.rule()),
            (Err(denied), Outcome::Deny(reason)) if denied.reason() == *reason => return None,
            // What the config says of it is not repeated.
            (Err(Denied::UnknownDatabase(_)), _) => {
                "it is denied (unknown-database): no [database.…] has this name".to_owned()
            }
            (Err(denied), _) => format!("it is denied ({}): {denied}", denied.reason()),
        };
        Some(instead)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = REASONS.iter().find(|(_, reason)| reason == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}

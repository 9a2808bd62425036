//! What an operator asks of a running proxy, and what it answers: one JSON object each way over the admin socket.
//!
//! Promises: what an operator does is on record before it is done, with the uid that the kernel names; what the log
//! cannot take is not done. Not for clients of databases.

use crate::audit::Auditor;
use crate::audit::event::{Event, OperatorAction};
use crate::audit::sealing::VaultError;
use crate::http::chain;
use crate::names::SessionId;
use crate::relay::Cause;
use crate::session::{Ask, Live, Sessions};
use crate::time::{Clock, Timestamp, later};
use crate::wire::Purpose;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What an operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    /// Which sessions there are.
    SessionsList,
    /// To end those that all of this holds for.
    SessionsEnd(Chosen),
    /// To delete the keys with which a person's texts were sealed.
    TextsErase(Erasure),
}

/// Whose keys, and of which days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    /// The person's object id.
    pub object_id: String,
    /// Where two issuers have that id: as the config calls one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Where two tenants have that id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only of days before this one (`YYYY-MM-DD`, UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// Which sessions; what is not given holds for all. At least one must be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// The caller's label or object id; ASCII letters of either case are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The session's id, which records have and clients are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The database as the config calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// At once; else when idle, at the latest after `deadlines.drain`.
    #[serde(default)]
    pub now: bool,
}

/// What the proxy answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The sessions that a rule has given, the oldest first.
    Sessions {
        /// One each.
        sessions: Vec<Listed>,
    },
    /// So many were told to end.
    Ended {
        /// How many.
        sessions: usize,
    },
    /// So many keys were deleted.
    Erased {
        /// How many.
        keys: usize,
    },
    /// Nothing was done.
    Refused {
        /// Why.
        reason: String,
    },
}

/// One session, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// As records and error messages call it.
    pub session: String,
    /// For reading; never an identity.
    pub who: String,
    /// With tenant and object id, the identity.
    pub issuer: String,
    /// As in records.
    pub tenant: String,
    /// As in records.
    pub object_id: String,
    /// `user` or `app`.
    pub kind: String,
    /// Client app.
    pub app: String,
    /// The rule that gave the session.
    pub rule: String,
    /// As the config calls it.
    pub database: String,
    /// The instance.
    pub instance: String,
    /// What the instance sees as the user.
    pub database_user: String,
    /// Whether it is a replication session.
    pub replication: bool,
    /// The client's address.
    pub client: String,
    /// RFC 3339.
    pub since: String,
    /// When the caller's token expires; RFC 3339.
    pub token_expires: String,
}

/// What operators act on. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    /// Who is there.
    pub sessions: Sessions,
    /// The log.
    pub auditor: Auditor,
    /// Wall time.
    pub clock: Clock,
    /// How long a session that is drained may take to become idle.
    pub drain: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operations {
    /// Records what a uid asks, does it and says what came of it.
    pub fn answer(&self, question: &Question, uid: u32) -> Answer {
        let chosen = match question {
            Question::SessionsList => None,
            Question::SessionsEnd(chosen) if chosen.is_nothing() => {
                return Answer::Refused { reason: "say which sessions: who, session or database".to_owned() };
            }
            Question::SessionsEnd(chosen) => Some(chosen),
            Question::TextsErase(erasure) => {
                return self.erase(erasure, uid).unwrap_or_else(|reason| Answer::Refused { reason });
            }
        };
        let live = self.sessions.live();
        let matching = live.iter().filter(|live| chosen.is_none_or(|chosen| chosen.names(live))).count();
        if let Err(reason) = self.record(asked(chosen, uid, matching)) {
            return Answer::Refused { reason };
        }
        let Some(chosen) = chosen else {
            return Answer::Sessions { sessions: live.iter().map(|live| Listed::of(live)).collect() };
        };
        let ask = if chosen.now { Ask::Now } else { Ask::Drain(later(self.clock.now(), (self.drain)())) };
        let sessions = self.sessions.end(Cause::Operator, ask, |live| chosen.names(live));
        tracing::warn!(uid, sessions, now = chosen.now, "an operator ends sessions");
        Answer::Ended { sessions }
    }

    /// Blocks for a moment: files are unlinked.
    fn erase(&self, erasure: &Erasure, uid: u32) -> Result<Answer, String> {
        let Erasure { object_id, issuer, tenant, before } = erasure;
        let vault = self.auditor.vault().ok_or("this proxy seals no texts: its config has no audit.sealing")?;
        if before.as_deref().is_some_and(|before| !is_day(before)) {
            return Err("`before` is no day: use YYYY-MM-DD".to_owned());
        }
        let failed = |error: VaultError| chain(&error);
        let person = match vault.persons(object_id, issuer.as_deref(), tenant.as_deref()).map_err(failed)?.as_slice() {
            [] => return Err(format!("nobody with the object id {object_id} has keys here")),
            [person] => person.clone(),
            [one, other, ..] => {
                return Err(format!(
                    "more than one has that object id: say issuer and tenant ({} and {}, {} and {}, ...)",
                    one.issuer, one.tenant, other.issuer, other.tenant
                ));
            }
        };
        let (person, before) = (&person, before.as_deref());
        self.record(OperatorAction { person: Some(person), before, ..action("texts_erase", uid) })?;
        let keys = vault.erase(person, before).map_err(failed)?;
        tracing::warn!(uid, object_id, keys, "an operator has erased the keys of a person's texts");
        Ok(Answer::Erased { keys })
    }

    fn record(&self, action: OperatorAction<'_>) -> Result<(), String> {
        let uid = action.uid;
        self.auditor.record(SessionId::generate(), &Event::OperatorAction(action)).map_err(|_| {
            tracing::error!(uid, "an operator's action was refused: the audit log cannot take it");
            "the audit log cannot take the record, so nothing was done".to_owned()
        })
    }
}

fn asked(chosen: Option<&Chosen>, uid: u32, sessions: usize) -> OperatorAction<'_> {
    OperatorAction {
        who: chosen.and_then(|chosen| chosen.who.as_deref()),
        ended_session: chosen.and_then(|chosen| chosen.session.as_deref()),
        database: chosen.and_then(|chosen| chosen.database.as_deref()),
        now: chosen.map(|chosen| chosen.now),
        sessions: Some(sessions),
        ..action(if chosen.is_some() { "sessions_end" } else { "sessions_list" }, uid)
    }
}

fn action(action: &str, uid: u32) -> OperatorAction<'_> {
    OperatorAction { action, uid, ..OperatorAction::default() }
}

fn is_day(text: &str) -> bool {
    text.len() == 10 && format!("{text}T00:00:00Z").parse::<Timestamp>().is_ok()
}

impl Chosen {
    fn is_nothing(&self) -> bool {
        self.who.is_none() && self.session.is_none() && self.database.is_none()
    }

    fn names(&self, live: &Live) -> bool {
        let same = |asked: &Option<String>, values: &[&str]| {
            asked.as_deref().is_none_or(|asked| values.iter().any(|value| value.eq_ignore_ascii_case(asked)))
        };
        same(&self.who, &[&live.caller.label, &live.caller.object_id])
            && same(&self.session, &[&live.session.to_string()])
            && self.database.as_deref().is_none_or(|asked| asked == live.grant.target().alias.as_str())
    }
}

impl Listed {
    fn of(live: &Live) -> Self {
        let Live { session, caller, grant, purpose, client, since, .. } = live;
        let shown = |at: Timestamp| at.to_string();
        Self {
            session: session.to_string(),
            who: caller.label.clone(),
            issuer: caller.issuer.to_string(),
            tenant: caller.tenant.to_string(),
            object_id: caller.object_id.clone(),
            kind: caller.kind.as_str().to_owned(),
            app: caller.app.clone(),
            rule: grant.rule().to_string(),
            database: grant.target().alias.to_string(),
            instance: grant.target().instance.to_string(),
            database_user: grant.role().to_string(),
            replication: *purpose == Purpose::Replication,
            client: client.address.to_string(),
            since: shown(*since),
            token_expires: shown(grant.expires_at()),
        }
    }
}

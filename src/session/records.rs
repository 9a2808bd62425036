//! What a connection leaves behind: its start, its end, and why it was refused, each in one record.

use super::rejection::{self, Rejection};
use super::{Connection, Error, chain};
use crate::audit::event::{Caller, Event, Exchanged, SessionEnd, SessionStart};
use crate::audit::{Closed, Parameters, Recorder, UnrecordedCommit};
use crate::federation::AccessToken;
use crate::identity::VerifiedIdentity;
use crate::policy::{Grant, How};
use crate::relay::{Ending, Summary};
use crate::telemetry::{self, Direction};
use crate::wire::Purpose;
use std::time::Duration;

/// The most of what a client says of itself that is recorded, in characters.
const MAX_CLAIM_CHARS: usize = 256;

impl Connection<'_> {
    pub(super) fn finish(&self, mut summary: Summary) {
        let metrics = &self.services.metrics;
        metrics.statements(summary.recorder.statements());
        metrics.bytes(Direction::ToServer, summary.bytes_in);
        metrics.bytes(Direction::ToClient, summary.bytes_out);
        let last = rejection::farewell(&summary.ending);
        let (reason, sqlstate) = match &summary.ending {
            // The server may have had enough before it read the client's goodbye.
            Ending::Client => ("client", summary.fatal.clone()),
            Ending::Server { fatal } => ("server", fatal.clone()),
            Ending::Wished(cause) => (cause.as_str(), None),
            Ending::IdleInTransaction => ("idle_in_transaction", None),
            Ending::Violated(_) => ("refused", None),
            Ending::Misbehaved(_) => ("server_misbehaved", None),
            Ending::Unrecorded => ("unrecorded", None),
            Ending::CancelUnanswered => ("cancel_unanswered", None),
        };
        metrics.session_ended(reason);
        if summary.busy {
            tracing::warn!(session = %self.id, "the instance may still work for a session that has ended");
        }
        let sqlstate = sqlstate.or_else(|| last.map(|last| last.sqlstate));
        if let Some(state) = &sqlstate {
            tracing::warn!(session = %self.id, reason, sqlstate = %state, "the session was ended");
        }
        let end = SessionEnd {
            reason,
            sqlstate: sqlstate.as_deref(),
            duration_us: micros(self.accepted.elapsed()),
            statements: summary.recorder.statements(),
            bytes_in: summary.bytes_in,
            bytes_out: summary.bytes_out,
        };
        self.write_end(&mut summary.recorder, end);
    }

    pub(super) fn open_record(
        &self,
        identity: &VerifiedIdentity,
        grant: &Grant,
        purpose: Purpose,
    ) -> Result<Recorder, Error> {
        let target = grant.target();
        let caller = self.caller.clone().unwrap_or_else(|| Box::new(caller(identity)));
        let key = self.services.recording.parameters_key.as_ref();
        let start = SessionStart {
            caller: &caller,
            claimed: &self.claimed.clone().unwrap_or_default(),
            rule: grant.rule(),
            grant: match grant.how() {
                How::Workforce { .. } => "workforce",
                How::ServiceAccount { .. } => "service_account",
            },
            database: &target.alias,
            database_name: &target.database,
            instance: &target.instance,
            database_user: grant.role(),
            role: grant.startup().role.as_deref(),
            session_authorization: grant.startup().session_authorization.as_deref(),
            client: self.peer.address,
            via: self.peer.via,
            tag: target.tag,
            replication: purpose == Purpose::Replication,
            durability: grant.durability(),
            parameters: grant.recorded_parameters().told(),
            parameters_key: key
                .filter(|_| grant.recorded_parameters() == Parameters::Hmac)
                .map(|key| key.fingerprint()),
            texts: grant.texts(),
            commit_unrecorded: grant.unrecorded_commit() == UnrecordedCommit::Passes,
            token_expires: grant.expires_at(),
        };
        let recorder = Recorder::open(self.services.auditor.clone(), self.id, start)?;
        Ok(recorder.recording(self.services.recording.clone()))
    }

    /// Ends the record of a session in which nothing ran.
    pub(super) fn close_record(&self, recorder: &mut Recorder, reason: &str, sqlstate: Option<&str>) {
        let duration_us = micros(self.accepted.elapsed());
        let end = SessionEnd { reason, sqlstate, duration_us, statements: 0, bytes_in: 0, bytes_out: 0 };
        self.write_end(recorder, end);
    }

    fn write_end(&self, recorder: &mut Recorder, end: SessionEnd<'_>) {
        let closed = recorder.close(&Event::SessionEnd(end));
        if closed != Closed::Written {
            self.services.metrics.audit_failed();
            tracing::error!(session = %self.id, lines = ?closed, "the audit log could not take the session's end");
        }
    }

    /// One rejection, one record, one counter, one log line.
    pub(super) fn refuse(&self, error: &Error) -> Rejection {
        let mut rejection = Rejection::of(error);
        if let Err(unrecorded) = self.record_refusal(error, &rejection) {
            self.services.metrics.audit_failed();
            tracing::error!(session = %self.id, error = %chain(&unrecorded), "a refusal could not be recorded");
            rejection = Rejection::of(&Error::Unrecorded(unrecorded));
        }
        self.services.metrics.login_refused(rejection.metric(), rejection.blame);
        tracing::info!(
            session = %self.id,
            client = %self.peer.address,
            via = self.peer.via.map(tracing::field::display),
            sqlstate = %rejection.sqlstate,
            blame = rejection.blame.as_str(),
            reason = %chain(error),
            "refused"
        );
        rejection
    }

    fn record_refusal(&self, error: &Error, rejection: &Rejection) -> Result<(), crate::audit::Unrecorded> {
        let reason = chain(error);
        let event = Event::Refused(Box::new(crate::audit::event::Refused {
            correlation: self.id.to_string(),
            sqlstate: &rejection.sqlstate,
            message: &rejection.message,
            reason: &reason,
            blame: rejection.blame.as_str(),
            caller: self.caller.as_deref(),
            claimed: self.claimed.as_deref(),
            client: Some(self.peer.address),
            via: self.peer.via,
        }));
        match self.caller {
            Some(_) => self.services.auditor.record(self.id, &event),
            None => self.services.auditor.record_stranger(self.id, &event),
        }
    }
}

/// What a client says of itself, as it may stand in a record: cut, and without what looks like a credential that
/// was put into the wrong field.
pub(super) fn claim(text: &str) -> String {
    telemetry::redact(text).chars().take(MAX_CLAIM_CHARS).collect()
}

pub(super) fn caller(identity: &VerifiedIdentity) -> Caller {
    let facts = identity.facts();
    Caller {
        label: facts.label.clone(),
        issuer: facts.issuer.clone(),
        tenant: facts.tenant.clone(),
        object_id: facts.object_id.clone(),
        kind: facts.kind.as_str(),
        app: facts.app.clone(),
        token_id: facts.token_id.clone(),
    }
}

/// What the caller's token has bought.
pub(super) fn exchanged<'a>(grant: &'a Grant, bought: &AccessToken, took: Duration) -> Exchanged<'a> {
    let service_account = match grant.how() {
        How::Workforce { .. } => None,
        How::ServiceAccount { account, .. } => Some(account.as_str()),
    };
    let provider = grant.how().provider().as_str();
    Exchanged { provider, service_account, expires: bought.expires_at, duration_us: micros(took) }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

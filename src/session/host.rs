//! What a session's relay asks of its session: words, counters, cancels.

use super::cancel::Registered;
use super::{Services, rejection};
use crate::names::{RuleName, SessionId};
use crate::relay::{self, Ending, Refusal};
use crate::telemetry::{Limit, LimitOutcome};
use crate::wire::ErrorFields;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One session, as its relay sees it.
pub(super) struct Host<'a> {
    services: &'a Services,
    session: SessionId,
    cancels: &'a Registered,
    rule: &'a RuleName,
    told: Mutex<Told>,
}

/// What the process's log was told of this session: each thing once when it begins, with its count when it is over,
/// however many messages a client sends meanwhile.
#[derive(Debug, Default)]
struct Told {
    refused: BTreeMap<Refusal, u64>,
    passed: u64,
    unrecorded: bool,
}

impl<'a> Host<'a> {
    /// A session of which nothing was told yet.
    pub fn new(services: &'a Services, session: SessionId, cancels: &'a Registered, rule: &'a RuleName) -> Self {
        Self { services, session, cancels, rule, told: Mutex::default() }
    }

    /// The session is over: how, and how many messages were refused.
    pub fn close(self, ending: &Ending) {
        if matches!(ending, Ending::IdleInTransaction) {
            let limit = Limit::IdleInTransaction;
            self.services.metrics.limit_reached(self.rule, limit, LimitOutcome::Refused, 1);
        }
        let told = self.told.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (refusal, count) in told.refused {
            tracing::info!(session = %self.session, count, reason = %refusal, "messages were refused");
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl relay::Host for Host<'_> {
    fn refusal(&self, refusal: Refusal) -> ErrorFields {
        rejection::refusal(refusal).in_session(self.session)
    }

    fn farewell(&self, ending: &Ending) -> Option<Vec<u8>> {
        rejection::farewell(ending).map(|last| last.last_word(self.session).frame(b'E'))
    }

    async fn cancel(&self) {
        self.cancels.cancel(self.services).await;
    }

    fn refused(&self, refusal: Refusal, count: u64) {
        let rejection = rejection::refusal(refusal);
        self.services.metrics.messages_refused(rejection.metric(), count);
        if let Some(limit) = limit(refusal) {
            self.services.metrics.limit_reached(self.rule, limit, LimitOutcome::Refused, count);
        }
        if self.told().refuse(refusal, count) {
            tracing::info!(session = %self.session, sqlstate = %rejection.sqlstate, reason = %refusal, "refusing messages");
        }
    }

    fn waits(&self, limit: Limit) {
        self.services.metrics.limit_reached(self.rule, limit, LimitOutcome::Waited, 1);
    }

    fn passed_unrecorded(&self, count: u64) {
        self.services.metrics.passed_unrecorded(count);
        if self.told().pass(count) {
            tracing::warn!(session = %self.session, "a ROLLBACK passes that the audit log could not take, or a COMMIT whose rule lets it");
        }
    }

    fn unrecorded(&self) {
        self.services.metrics.audit_failed();
        if !std::mem::replace(&mut self.told().unrecorded, true) {
            tracing::warn!(session = %self.session, "the audit log does not take the session's lines");
        }
    }

    fn recorded_again(&self) {
        let (refused, passed) = self.told().recover();
        tracing::info!(session = %self.session, refused, passed, "the audit log takes the session's lines again");
    }
}

impl Told {
    /// Whether it is the first of its kind.
    fn refuse(&mut self, refusal: Refusal, count: u64) -> bool {
        let known = self.refused.entry(refusal).or_default();
        let first = *known == 0;
        *known = known.saturating_add(count);
        first
    }

    /// Whether it is the first.
    fn pass(&mut self, count: u64) -> bool {
        let first = self.passed == 0;
        self.passed = self.passed.saturating_add(count);
        first
    }

    /// The log takes lines again: how many messages were refused for it, and how many passed.
    fn recover(&mut self) -> (u64, u64) {
        self.unrecorded = false;
        (self.refused.remove(&Refusal::Unrecorded).unwrap_or_default(), std::mem::take(&mut self.passed))
    }
}

/// The limit of a rule that a message was refused for.
fn limit(refusal: Refusal) -> Option<Limit> {
    match refusal {
        Refusal::Statements => Some(Limit::Statements),
        Refusal::Bytes => Some(Limit::Bytes),
        Refusal::Records => Some(Limit::AuditRecords),
        Refusal::Unrecorded | Refusal::TooLong | Refusal::Overfull | Refusal::EndlessName | Refusal::Withdrawn => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_told_once_until_it_is_over() {
        let mut told = Told::default();
        let firsts: Vec<bool> = [Refusal::Unrecorded, Refusal::Unrecorded, Refusal::TooLong, Refusal::TooLong]
            .into_iter()
            .map(|refusal| told.refuse(refusal, 10))
            .collect();
        assert_eq!(firsts, [true, false, true, false]);
        assert_eq!((told.pass(1), told.pass(2)), (true, false));
        assert_eq!(told.recover(), (20, 3));
        assert!(told.refuse(Refusal::Unrecorded, 1) && told.pass(1), "another time is told again");
        assert_eq!(told.refused[&Refusal::TooLong], 20, "what has nothing to do with the log goes on");
    }
}

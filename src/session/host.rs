//! What a session's relay asks of its session: words, counters, cancels.

use super::cancel::Registered;
use super::{Services, rejection};
use crate::names::SessionId;
use crate::relay::{self, Ending, Refusal};
use crate::wire::ErrorFields;

/// One session, as its relay sees it.
pub(super) struct Host<'a> {
    pub services: &'a Services,
    pub session: SessionId,
    pub cancels: &'a Registered,
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
        tracing::info!(session = %self.session, sqlstate = %rejection.sqlstate, count, reason = %refusal, "messages refused");
    }

    fn passed_unrecorded(&self, count: u64) {
        self.services.metrics.passed_unrecorded(count);
        tracing::warn!(session = %self.session, count, "a ROLLBACK passed that the audit log could not take");
    }

    fn unrecorded(&self) {
        self.services.metrics.audit_failed();
        tracing::debug!(session = %self.session, "the audit log did not take the session's lines");
    }
}

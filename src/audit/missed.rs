//! What a session did without records, until it is told.

use super::event::Event;
use crate::time::Timestamp;
use tokio::time::Instant;

/// The log does not take this session's records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub began: Instant,
    /// Messages meanwhile.
    pub missed: Missed,
    /// Records on what has happened that could not wait any longer.
    pub lost: u64,
}

/// Messages without records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missed {
    since: Timestamp,
    refused: u64,
    passed: u64,
    commits: u64,
}

impl Missed {
    /// None yet.
    pub fn since(since: Timestamp) -> Self {
        Self { since, refused: 0, passed: 0, commits: 0 }
    }

    /// Messages that were refused, messages that passed, and how many of those were COMMITs.
    pub fn count(&mut self, refused: u64, passed: u64, commits: u64) {
        self.refused = self.refused.saturating_add(refused);
        self.passed = self.passed.saturating_add(passed);
        self.commits = self.commits.saturating_add(commits);
    }

    /// Because the caller's records have taken what they may.
    pub fn over_limit(self) -> Event<'static> {
        let Self { since, refused, passed, commits } = self;
        Event::AuditLimit { since, refused, passed, commits }
    }
}

impl Gap {
    /// From now on.
    pub fn begin(since: Timestamp) -> Self {
        Self { began: Instant::now(), missed: Missed::since(since), lost: 0 }
    }

    /// Once it is over.
    pub fn event(self) -> Event<'static> {
        let Self { missed: Missed { since, refused, passed, commits }, lost, .. } = self;
        Event::Gap { since, refused, passed, commits, lost }
    }
}

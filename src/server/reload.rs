//! SIGHUP: the config file is read again, by the code that read it at the start. A good one becomes the next generation;
//! a bad one changes nothing and says why.
//!
//! Promises: a reload is recorded before anything of it counts, and one that the log cannot take does not count; sessions
//! that the new policy does not give are ended; what only a start can set is said by its key.

use super::generation::{Fixed, Generation, Lasting};
use super::{descriptors, warm_up};
use crate::audit::event::Event;
use crate::audit::sealing::Texts;
use crate::config::{self, Config, Loaded, Problem};
use crate::names::SessionId;
use crate::telemetry::{self, ReloadOutcome};
use std::path::PathBuf;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// The most problems of a file that a record has.
const MAX_RECORDED: usize = 20;

/// Reads the file again whenever it is told to.
pub(super) struct Reloader {
    pub source: PathBuf,
    /// As it was set at the start.
    pub fixed: Fixed,
    pub lasting: Lasting,
    pub current: watch::Sender<Generation>,
}

impl Reloader {
    /// One reload at a time; what is asked for meanwhile is one more afterwards.
    pub async fn run(self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            let outcome = match self.reload().await {
                Ok(()) => ReloadOutcome::Applied,
                Err(problems) => {
                    self.refuse(&problems);
                    ReloadOutcome::Refused
                }
            };
            self.lasting.metrics.reload(outcome);
        }
    }

    /// Everything that can fail comes before anything that counts.
    async fn reload(&self) -> Result<(), Vec<String>> {
        let config = self.load().await?;
        self.can_seal(&config)?;
        let unchanged = self.fixed.differing(&Fixed::of(&config));
        let refusals = config.audit.unverified_refusals_per_minute;
        let limits = config.limits;
        let generation = self.make(config).await?;
        warm_up(&generation).await;
        self.record(ReloadOutcome::Applied, &[], &unchanged)
            .map_err(|_| vec!["the audit log cannot take the record of the reload".to_owned()])?;
        let Lasting { auditor, sessions, clock, .. } = &self.lasting;
        auditor.change_budget(refusals);
        descriptors::make_room(&limits);
        let judge = std::sync::Arc::clone(&generation.services.judge);
        self.current.send_replace(generation).services.exchanger.retire();
        let ended = sessions.judge(judge, clock.now());
        for key in unchanged {
            tracing::warn!(key, "{key}: has changed in the file, and counts from the next start only");
        }
        tracing::info!(file = %self.source.display(), sessions_ended = ended, "reloaded");
        Ok(())
    }

    async fn load(&self) -> Result<Config, Vec<String>> {
        let path = self.source.clone();
        let loaded = spawn_blocking(move || config::load(&path)).await.map_err(|stopped| vec![stopped.to_string()])?;
        let Loaded { config, warnings } = loaded.map_err(|problems| {
            for Problem { file, line, key, reason } in &problems {
                tracing::error!(file = %file.display(), line, key, "{key}: {reason}");
            }
            problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        })?;
        for Problem { file, line, key, reason } in &warnings {
            tracing::warn!(file = %file.display(), line, key, "{key}: {reason}");
        }
        Ok(config)
    }

    /// The keys are opened by a start only.
    fn can_seal(&self, config: &Config) -> Result<(), Vec<String>> {
        let sealed = config.policy.rules().iter().find(|rule| rule.texts == Texts::Sealed);
        match sealed.filter(|_| self.lasting.auditor.vault().is_none()) {
            Some(rule) => Err(vec![format!(
                "rule.{}.texts: seals texts, and the proxy started without audit.sealing; start it anew",
                rule.name
            )]),
            None => Ok(()),
        }
    }

    async fn make(&self, config: Config) -> Result<Generation, Vec<String>> {
        let (lasting, earlier) = (self.lasting.clone(), self.current.borrow().clone());
        let made = spawn_blocking(move || Generation::make(config, &lasting, Some(&earlier))).await;
        let made = made.map_err(|stopped| vec![stopped.to_string()])?;
        made.map_err(|error| vec![telemetry::redact(&crate::http::chain(&error)).into_owned()])
    }

    fn refuse(&self, problems: &[String]) {
        let some = problems.get(..MAX_RECORDED).unwrap_or(problems);
        if self.record(ReloadOutcome::Refused, some, &[]).is_err() {
            self.lasting.metrics.audit_failed();
            tracing::error!("a reload that was refused could not be recorded");
        }
        let first = problems.first().map(String::as_str).unwrap_or_default();
        tracing::error!(
            file = %self.source.display(),
            problems = problems.len(),
            reason = first,
            blame = "proxy",
            "not reloaded; what was loaded before serves on"
        );
    }

    fn record(
        &self,
        outcome: ReloadOutcome,
        problems: &[String],
        unchanged: &[&'static str],
    ) -> Result<(), crate::audit::Unrecorded> {
        self.lasting
            .auditor
            .record(SessionId::generate(), &Event::Reload { outcome: outcome.as_str(), problems, unchanged })
    }
}

//! Counters, gauges and histograms, each behind a typed method; the registry is private to one [`Metrics`].
//!
//! Invariant: every label value is an enum's, a `&'static str`, or a rule's or an anchor's name, which the config bounds, so no caller
//! can name a series or make new ones.

use super::audit::{AuditGauge, AuditGauges};
use crate::names::RuleName;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder, core::Collector,
};
use std::time::Duration;

/// Upper bounds of the hop histogram, in seconds: loopback to the longest default deadline.
const HOP_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0];

/// A hop that a login waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// From accept until the client's token has arrived.
    Startup,
    /// An issuer's discovery document and keys, and the check of the token.
    Verify,
    /// STS, and for a service account IAM Credentials.
    Exchange,
    /// Admin API (when its answer is not cached), TCP and TLS to the instance.
    Dial,
    /// The instance's answer to the login.
    Login,
}

impl Hop {
    fn label(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Verify => "verify",
            Self::Exchange => "exchange",
            Self::Dial => "dial",
            Self::Login => "login",
        }
    }
}

/// Whose side a refused login is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller or its client.
    Client,
    /// This proxy or its config.
    Proxy,
    /// Microsoft Entra ID.
    Entra,
    /// STS, IAM Credentials or the SQL Admin API.
    Google,
    /// The instance.
    Database,
}

impl Blame {
    /// The label's value, for log fields too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Proxy => "proxy",
            Self::Entra => "entra",
            Self::Google => "google",
            Self::Database => "database",
        }
    }
}

/// What became of a cancel request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// Passed on to the instance, which has closed its connection.
    Forwarded,
    /// The session ran nothing when it arrived.
    Idle,
    /// The session's next message waited for a limit, and is refused.
    Withdrawn,
    /// What it meant was over before the instance was reached.
    Late,
    /// No session has such a key.
    Unknown,
    /// The instance could not be told, or did not close in time: the session is ended then.
    Failed,
    /// Dropped: too many from this address, or for this session.
    Limited,
}

impl CancelOutcome {
    /// The label's value, for records too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Idle => "idle",
            Self::Withdrawn => "withdrawn",
            Self::Late => "late",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::Limited => "limited",
        }
    }
}

/// What became of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// What the file says serves.
    Applied,
    /// What was loaded before serves on.
    Refused,
}

impl ReloadOutcome {
    /// The label's value, for records too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

/// A limit of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `sessions`.
    Sessions,
    /// `sessions_per_caller`.
    SessionsPerCaller,
    /// `connects_per_minute`.
    Connects,
    /// `one_address_per_token`.
    TokenAddress,
    /// `statements_per_second`.
    Statements,
    /// `bytes_per_second`.
    Bytes,
    /// `audit_mib_per_day`.
    AuditRecords,
    /// `idle_in_transaction`.
    IdleInTransaction,
    /// How many callers can be told apart.
    Callers,
    /// How many tokens can be told apart.
    Tokens,
}

impl Limit {
    /// The label's value.
    fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::SessionsPerCaller => "sessions_per_caller",
            Self::Connects => "connects_per_minute",
            Self::TokenAddress => "one_address_per_token",
            Self::Statements => "statements_per_second",
            Self::Bytes => "bytes_per_second",
            Self::AuditRecords => "audit_mib_per_day",
            Self::IdleInTransaction => "idle_in_transaction",
            Self::Callers => "callers",
            Self::Tokens => "tokens",
        }
    }
}

/// What became of what was over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOutcome {
    /// A login or a message was refused, or a session ended.
    Refused,
    /// It had to wait.
    Waited,
}

impl LimitOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Waited => "waited",
        }
    }
}

/// Which way relayed bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client to instance.
    ToServer,
    /// Instance to client.
    ToClient,
}

/// Everything that is counted. Handed down as an `Arc`; methods never block.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: IntCounter,
    sessions: IntGauge,
    logins: IntCounterVec,
    hops: HistogramVec,
    statements: IntCounter,
    messages_refused: IntCounterVec,
    passed_unrecorded: IntCounter,
    to_server: IntCounter,
    to_client: IntCounter,
    audit_written: IntCounter,
    audit_failed: IntCounter,
    cancels: IntCounterVec,
    ended: IntCounterVec,
    reloads: IntCounterVec,
    limits: IntCounterVec,
    audit: AuditGauges,
}

impl Metrics {
    /// Everything at zero, in a registry of its own. Fails only when two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let bytes = registered(
            &registry,
            IntCounterVec::new(
                Opts::new(
                    "pgpassport_relayed_bytes_total",
                    "Bytes relayed in sessions that have ended, without tags, by direction.",
                ),
                &["direction"],
            )?,
        )?;
        let audit_records = registered(
            &registry,
            IntCounterVec::new(
                Opts::new("pgpassport_audit_records_total", "Audit records by outcome of their write."),
                &["outcome"],
            )?,
        )?;
        let logins = Opts::new("pgpassport_logins_total", "Logins by SQLSTATE (00000: accepted) and side to blame.");
        let messages_refused = Opts::new(
            "pgpassport_messages_refused_total",
            "Messages that were refused in sessions that lived on, by SQLSTATE.",
        );
        let hops = HistogramOpts::new("pgpassport_hop_duration_seconds", "Time a login spent in each hop.")
            .buckets(HOP_BUCKETS.to_vec());
        let limits = Opts::new(
            "pgpassport_limits_reached_total",
            "Logins and messages that were over a limit of their rule, by rule, limit and outcome (refused, waited).",
        );
        let cancels = Opts::new("pgpassport_cancels_total", "Cancel requests by outcome.");
        let ended = Opts::new("pgpassport_sessions_ended_total", "Sessions that were open and have ended, by reason.");
        let reloads = Opts::new("pgpassport_reloads_total", "Reloads of the config file by outcome.");
        Ok(Self {
            connections: counter(&registry, "pgpassport_connections_total", "Connections accepted.")?,
            sessions: registered(
                &registry,
                IntGauge::new("pgpassport_sessions_active", "Sessions now, logging in included.")?,
            )?,
            logins: registered(&registry, IntCounterVec::new(logins, &["sqlstate", "blame"])?)?,
            hops: registered(&registry, HistogramVec::new(hops, &["hop"])?)?,
            statements: counter(
                &registry,
                "pgpassport_statements_total",
                "Begin lines of sessions that have ended: one for each Query, Parse, Bind, Execute and FunctionCall, or for several of one execution that came in one read.",
            )?,
            messages_refused: registered(&registry, IntCounterVec::new(messages_refused, &["sqlstate"])?)?,
            passed_unrecorded: counter(
                &registry,
                "pgpassport_messages_passed_unrecorded_total",
                "Messages of a whole ROLLBACK or ABORT that passed while the audit log took no records.",
            )?,
            to_server: bytes.with_label_values(&["to_server"]),
            to_client: bytes.with_label_values(&["to_client"]),
            audit_written: audit_records.with_label_values(&["written"]),
            audit_failed: audit_records.with_label_values(&["failed"]),
            cancels: registered(&registry, IntCounterVec::new(cancels, &["outcome"])?)?,
            ended: registered(&registry, IntCounterVec::new(ended, &["reason"])?)?,
            reloads: registered(&registry, IntCounterVec::new(reloads, &["outcome"])?)?,
            limits: registered(&registry, IntCounterVec::new(limits, &["rule", "limit", "outcome"])?)?,
            audit: AuditGauges::new(&registry)?,
            registry,
        })
    }

    /// How the audit log is now.
    pub fn audit_log(&self, audit: &AuditGauge<'_>) {
        self.audit.set(audit);
    }

    /// One more connection.
    pub fn connection_accepted(&self) {
        self.connections.inc();
    }

    /// One more session, until the value is dropped.
    #[must_use = "the session counts as over when this is dropped"]
    pub fn session_started(&self) -> SessionGauge {
        self.sessions.inc();
        SessionGauge(self.sessions.clone())
    }

    /// A login that ended in `ReadyForQuery`.
    pub fn login_accepted(&self) {
        self.logins.with_label_values(&["00000", "none"]).inc();
    }

    /// A login that was refused.
    pub fn login_refused(&self, sqlstate: &'static str, blame: Blame) {
        self.logins.with_label_values(&[sqlstate, blame.as_str()]).inc();
    }

    /// What a hop of a login took, whether it succeeded or not.
    pub fn hop(&self, hop: Hop, took: Duration) {
        self.hops.with_label_values(&[hop.label()]).observe(took.as_secs_f64());
    }

    /// Statements whose begin was recorded.
    pub fn statements(&self, count: u64) {
        self.statements.inc_by(count);
    }

    /// Messages that were refused in a session that lives on.
    pub fn messages_refused(&self, sqlstate: &'static str, count: u64) {
        self.messages_refused.with_label_values(&[sqlstate]).inc_by(count);
    }

    /// Messages that passed though the log could not take their record.
    pub fn passed_unrecorded(&self, count: u64) {
        self.passed_unrecorded.inc_by(count);
    }

    /// Bytes relayed.
    pub fn bytes(&self, direction: Direction, count: u64) {
        match direction {
            Direction::ToServer => self.to_server.inc_by(count),
            Direction::ToClient => self.to_client.inc_by(count),
        }
    }

    /// Records that reached the log.
    pub fn audit_written(&self, count: u64) {
        self.audit_written.inc_by(count);
    }

    /// A record that the log could not take.
    pub fn audit_failed(&self) {
        self.audit_failed.inc();
    }

    /// A cancel request.
    pub fn cancel(&self, outcome: CancelOutcome) {
        self.cancels.with_label_values(&[outcome.as_str()]).inc();
    }

    /// A session that was open has ended; `reason` as its record says it.
    pub fn session_ended(&self, reason: &'static str) {
        self.ended.with_label_values(&[reason]).inc();
    }

    /// The config file was read again.
    pub fn reload(&self, outcome: ReloadOutcome) {
        self.reloads.with_label_values(&[outcome.as_str()]).inc();
    }

    /// So many logins, messages or answers were over a limit of this rule.
    pub fn limit_reached(&self, rule: &RuleName, limit: Limit, outcome: LimitOutcome, count: u64) {
        self.limits.with_label_values(&[rule.as_str(), limit.as_str(), outcome.as_str()]).inc_by(count);
    }

    /// All of it in Prometheus's text format 0.0.4.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Counts one session while it lives.
#[derive(Debug)]
pub struct SessionGauge(IntGauge);

impl Drop for SessionGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::new(name, help)?)
}

fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_moves_its_own_series_and_no_other() {
        let metrics = Metrics::new().unwrap();
        metrics.connection_accepted();
        metrics.login_accepted();
        metrics.login_refused("28P01", Blame::Client);
        metrics.login_refused("57P03", Blame::Google);
        metrics.login_refused("57P03", Blame::Google);
        metrics.hop(Hop::Dial, Duration::from_millis(20));
        metrics.statements(3);
        metrics.messages_refused("53100", 4);
        metrics.passed_unrecorded(5);
        metrics.bytes(Direction::ToServer, 10);
        metrics.bytes(Direction::ToClient, 20);
        metrics.audit_written(6);
        metrics.audit_failed();
        metrics.cancel(CancelOutcome::Unknown);
        metrics.session_ended("policy");
        metrics.reload(ReloadOutcome::Refused);
        metrics.limit_reached(&RuleName::parse("people").unwrap(), Limit::Bytes, LimitOutcome::Waited, 1);
        let text = metrics.encode().unwrap();
        for line in [
            "pgpassport_limits_reached_total{limit=\"bytes_per_second\",outcome=\"waited\",rule=\"people\"} 1",
            "pgpassport_connections_total 1",
            "pgpassport_logins_total{blame=\"none\",sqlstate=\"00000\"} 1",
            "pgpassport_logins_total{blame=\"client\",sqlstate=\"28P01\"} 1",
            "pgpassport_logins_total{blame=\"google\",sqlstate=\"57P03\"} 2",
            "pgpassport_hop_duration_seconds_bucket{hop=\"dial\",le=\"0.01\"} 0",
            "pgpassport_hop_duration_seconds_bucket{hop=\"dial\",le=\"0.025\"} 1",
            "pgpassport_statements_total 3",
            "pgpassport_messages_refused_total{sqlstate=\"53100\"} 4",
            "pgpassport_messages_passed_unrecorded_total 5",
            "pgpassport_relayed_bytes_total{direction=\"to_server\"} 10",
            "pgpassport_relayed_bytes_total{direction=\"to_client\"} 20",
            "pgpassport_audit_records_total{outcome=\"written\"} 6",
            "pgpassport_audit_records_total{outcome=\"failed\"} 1",
            "pgpassport_cancels_total{outcome=\"unknown\"} 1",
            "pgpassport_sessions_ended_total{reason=\"policy\"} 1",
            "pgpassport_reloads_total{outcome=\"refused\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing from:\n{text}");
        }
        assert!(!text.contains("forwarded"), "{text}");
    }

    #[test]
    fn a_session_counts_until_it_is_dropped_even_by_a_panic() {
        let metrics = Metrics::new().unwrap();
        let first = metrics.session_started();
        let gauge = metrics.session_started();
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _gauge = gauge;
            panic!("a session's bug");
        }));
        assert!(metrics.encode().unwrap().contains("pgpassport_sessions_active 1"));
        drop(first);
        assert!(metrics.encode().unwrap().contains("pgpassport_sessions_active 0"));
    }
}

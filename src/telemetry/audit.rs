//! Gauges of the audit log.
//!
//! An anchor's name is the config's, which bounds the series.

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

/// What is shown of one anchor.
#[derive(Debug, Clone, Copy)]
pub struct AnchorGauge<'a> {
    /// As the config calls it.
    pub name: &'a str,
    /// Records that its newest checkpoint of this process covers.
    pub anchored: u64,
    /// Unix time since when it has taken nothing; 0 while it does.
    pub failing_since: i64,
    /// It has another log's checkpoints under this one's name.
    pub is_another_log: bool,
}

/// What is shown of the log.
#[derive(Debug, Clone)]
pub struct AuditGauge<'a> {
    /// Records in all.
    pub records: u64,
    /// Bytes that this process has appended.
    pub bytes: u64,
    /// What is left of the reserve, in bytes.
    pub reserve_bytes: u64,
    /// Records that the last checkpoint covers.
    pub sealed: u64,
    /// The anchors.
    pub anchors: Vec<AnchorGauge<'a>>,
}

#[derive(Debug)]
pub(super) struct AuditGauges {
    records: IntGauge,
    bytes: IntGauge,
    reserve: IntGauge,
    sealed: IntGauge,
    anchored: IntGaugeVec,
    failing: IntGaugeVec,
    refused: IntGaugeVec,
}

impl AuditGauges {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help)?);
        let of_anchor =
            |name: &str, help: &str| registered(registry, IntGaugeVec::new(Opts::new(name, help), &["anchor"])?);
        Ok(Self {
            records: gauge("pgpassport_audit_log_records", "Records of the audit log, of all processes.")?,
            bytes: gauge("pgpassport_audit_log_written_bytes", "Bytes appended to the audit log by this process.")?,
            reserve: gauge("pgpassport_audit_log_reserve_bytes", "What is left of the log's reserve for a full disk.")?,
            sealed: gauge("pgpassport_audit_log_sealed_records", "Records that the last signed checkpoint covers.")?,
            anchored: of_anchor(
                "pgpassport_audit_anchored_records",
                "Records that the newest checkpoint covers which the anchor has taken from this process.",
            )?,
            failing: of_anchor(
                "pgpassport_audit_anchor_failing_since_seconds",
                "Unix time since when the anchor takes no checkpoint; 0 while it does.",
            )?,
            refused: of_anchor(
                "pgpassport_audit_anchor_has_another_log",
                "1 where a witness has cosigned another history of this log: it was rolled back or forked.",
            )?,
        })
    }

    pub(super) fn set(&self, audit: &AuditGauge<'_>) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.records.set(number(audit.records));
        self.bytes.set(number(audit.bytes));
        self.reserve.set(number(audit.reserve_bytes));
        self.sealed.set(number(audit.sealed));
        for anchor in &audit.anchors {
            self.anchored.with_label_values(&[anchor.name]).set(number(anchor.anchored));
            self.failing.with_label_values(&[anchor.name]).set(anchor.failing_since);
            self.refused.with_label_values(&[anchor.name]).set(i64::from(anchor.is_another_log));
        }
    }
}

fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

//! The steps of the demo, and whether each held.

use super::caller::{Caller, Expected};
use super::evidence::{self, Logged, member};
use super::session::{self, Answer, Refusal};
use super::{Error, Proxy};
use crate::sim::{Cloud, Endpoint};
use serde_json::Value;

/// What was claimed, and what of it did not hold.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Claims that were checked.
    pub(super) made: usize,
    /// Those that failed.
    pub(super) failed: Vec<String>,
}

impl Checks {
    /// Whether there were any and all held.
    pub(super) fn all_held(&self) -> bool {
        self.made > 0 && self.failed.is_empty()
    }

    fn claim(&mut self, holds: bool, claim: String) {
        self.made = self.made.saturating_add(1);
        if !holds {
            self.failed.push(claim);
        }
    }
}

/// One caller's visit and what it left behind.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) answer: Answer,
    pub(super) logged: Option<Logged>,
    pub(super) records: Vec<Value>,
}

/// Everything there is to show; visits are in the order of the callers.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) visits: Vec<Visit>,
    pub(super) checks: Checks,
}

/// Lets every caller ask, and looks at what the other side wrote.
pub(super) async fn run(cloud: &Cloud, proxy: &Proxy, callers: &[Caller]) -> Result<Shown, Error> {
    let mut shown = Shown::default();
    for caller in callers {
        let answer = session::ask(cloud, proxy, caller).await?;
        let visit = match caller.expected {
            Expected::Admitted => admitted(cloud, proxy, caller, answer, &mut shown.checks).await,
            Expected::Refused => refused(cloud, proxy, caller, answer, &mut shown.checks).await,
        };
        shown.visits.push(visit);
    }
    let passwords = cloud.calls().count(Endpoint::InstancePassword);
    let admitted = callers.iter().filter(|caller| caller.expected == Expected::Admitted).count();
    let claim = format!("the instance saw one token for each admitted caller, not {passwords} in all");
    shown.checks.claim(usize::try_from(passwords) == Ok(admitted), claim);
    Ok(shown)
}

async fn admitted(cloud: &Cloud, proxy: &Proxy, caller: &Caller, answer: Answer, checks: &mut Checks) -> Visit {
    let name = caller.name;
    let session_user = match &answer {
        Answer::Rows(_, rows) => rows.first().and_then(|row| row.first()).cloned(),
        Answer::Refused(_) => None,
    };
    checks.claim(session_user.as_deref() == Some(caller.user), format!("{name} is {} in the database", caller.user));
    let logged = evidence::logged(cloud.postgres_log(), caller.query).await;
    let tagged = logged.as_ref().is_some_and(|logged| logged.is_tagged_for(caller) && logged.user == caller.user);
    checks.claim(tagged, format!("the statement in the database's log begins with {name}'s tag"));
    let records = statement_records(proxy, caller, checks).await;
    Visit { answer, logged, records }
}

/// The begin and the end of the caller's statement, joined by their id.
async fn statement_records(proxy: &Proxy, caller: &Caller, checks: &mut Checks) -> Vec<Value> {
    let name = caller.name;
    let is_begin = |record: &Value| {
        member(record, "/event") == "begin"
            && member(record, "/text") == caller.query
            && member(record, "/caller/object_id") == caller.object_id()
    };
    let begin = evidence::record(&proxy.audit, is_begin).await;
    checks.claim(begin.is_some(), format!("{name}'s statement has a begin record that names the caller"));
    let Some(begin) = begin else { return Vec::new() };
    let id = member(&begin, "/id").to_owned();
    let is_end = |record: &Value| member(record, "/event") == "end" && member(record, "/id") == id;
    let end = evidence::record(&proxy.audit, is_end).await;
    let complete = end
        .as_ref()
        .is_some_and(|end| member(end, "/outcome") == "ok" && end.pointer("/rows").and_then(Value::as_u64) == Some(1));
    checks.claim(complete, format!("{name}'s statement has an end record with its outcome and rows"));
    [Some(begin), end].into_iter().flatten().collect()
}

async fn refused(cloud: &Cloud, proxy: &Proxy, caller: &Caller, answer: Answer, checks: &mut Checks) -> Visit {
    let name = caller.name;
    let refusal = match &answer {
        Answer::Refused(refusal) => Some(refusal),
        Answer::Rows(..) => None,
    };
    let right = refusal.is_some_and(|refusal| refusal.sqlstate == "28000" && !refusal.hint.is_empty());
    checks.claim(right, format!("{name} is refused with SQLSTATE 28000 and a hint"));
    let correlation = refusal.and_then(Refusal::correlation).unwrap_or_default().to_owned();
    let is_refusal =
        |record: &Value| member(record, "/event") == "refused" && member(record, "/correlation") == correlation;
    let record = evidence::record(&proxy.audit, is_refusal).await.filter(|_| !correlation.is_empty());
    checks.claim(record.is_some(), format!("the correlation id that {name} was told is in the records"));
    let log = std::fs::read_to_string(cloud.postgres_log()).unwrap_or_default();
    checks.claim(!log.contains(caller.query), format!("the query of {name} never reached the database"));
    Visit { answer, logged: None, records: record.into_iter().collect() }
}

impl Refusal {
    /// The last word of the detail: `… correlation id UUID`.
    pub(super) fn correlation(&self) -> Option<&str> {
        let (_, id) = self.detail.rsplit_once("correlation id ")?;
        uuid::Uuid::try_parse(id).is_ok().then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_checked_nothing_has_not_held() {
        let mut checks = Checks::default();
        assert!(!checks.all_held());
        checks.claim(true, "a".to_owned());
        assert!(checks.all_held());
        checks.claim(false, "b".to_owned());
        assert!(!checks.all_held() && checks.failed == ["b"]);
    }

    #[test]
    fn correlation_ids_are_read_from_the_detail() {
        let refusal = |detail: &str| Refusal {
            sqlstate: String::new(),
            message: String::new(),
            detail: detail.to_owned(),
            hint: String::new(),
        };
        let id = "019b0c2e-0000-7000-8000-000000000000";
        assert_eq!(refusal(&format!("refused; correlation id {id}")).correlation(), Some(id));
        assert_eq!(refusal("refused; correlation id none").correlation(), None);
    }
}

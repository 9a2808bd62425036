//! A statement's begin and end records, member by member in the order of their types.

use super::super::event::{Begin, End, EventId, Listed, Outcome, Stage};
use super::escape::escape;
use super::head::Head;
use crate::names::SessionId;
use serde::Serialize;
use std::io;
use std::ops::Range;

/// Room for a record's stages, in bytes.
const STAGES_BYTES: usize = 64;

/// Where in a begin record that stands for one message goes what the next one of the same event has to say, in bytes
/// behind the record's start.
#[derive(Debug, Clone)]
pub struct Places {
    /// The stage, and since which.
    stage: Range<usize>,
    /// A Bind's portal and parameters.
    own: usize,
}

/// What a message says that goes on with the event of the one before it.
#[derive(Debug)]
pub struct Next<'a> {
    /// Its own.
    pub stage: Stage,
    /// Of the first message that the record stands for.
    pub since: Stage,
    /// A Bind's.
    pub portal: Option<&'a str>,
    /// A Bind's.
    pub values: &'a Listed,
}

/// Appends what follows a begin record's head.
pub(super) fn begin(out: &mut Vec<u8>, head: Head, begin: &Begin<'_>) -> io::Result<Places> {
    // Every member is named: a new one cannot be forgotten here.
    let Begin {
        id,
        stage,
        since,
        caller,
        text,
        text_base64,
        text_sealed,
        text_bytes,
        text_of,
        text_doubtful,
        role_changes,
        statement,
        portal,
        function_oid,
        values,
        tagged,
        traceparent,
        durability,
    } = begin;
    let mut members = Members { out, head: Some(head) };
    members.raw(b",\"event\":\"begin\"");
    members.id(b",\"id\":\"", Some(*id))?;
    let stage_at = members.out.len();
    members.stages(*stage, *since);
    let stage = stage_at.saturating_sub(head.start)..members.out.len().saturating_sub(head.start);
    members.raw(b",\"caller\":");
    members.raw(caller.get().as_bytes());
    members.text(b",\"text\":", text.as_deref());
    members.text(b",\"text_base64\":", text_base64.as_deref());
    members.json(b",\"text_sealed\":", text_sealed.as_ref())?;
    members.json(b",\"text_bytes\":", text_bytes.as_ref())?;
    members.id(b",\"text_of\":\"", *text_of)?;
    members.flag(b",\"text_doubtful\":true", *text_doubtful);
    members.json(b",\"role_changes\":", Some(role_changes).filter(|changes| !changes.is_empty()))?;
    members.text(b",\"statement\":", statement.as_deref());
    let own = members.out.len().saturating_sub(head.start);
    members.text(b",\"portal\":", portal.as_deref());
    members.json(b",\"function_oid\":", function_oid.as_ref())?;
    members.listed(values)?;
    members.raw(if *tagged { b",\"tagged\":true" } else { b",\"tagged\":false" });
    members.text(b",\"traceparent\":", *traceparent);
    members.json(b",\"durability\":", durability.as_ref())?;
    members.raw(b"}");
    Ok(Places { stage, own })
}

/// What [`Next`] says, as the bytes that go into the record.
#[derive(Debug)]
pub struct Addition {
    /// A Bind's portal and parameters.
    own: Vec<u8>,
    stages: Vec<u8>,
}

impl Next<'_> {
    /// What goes into the record.
    pub fn encode(&self) -> io::Result<Addition> {
        let (mut own, mut stages) = (Vec::new(), Vec::with_capacity(STAGES_BYTES));
        let mut members = Members { out: &mut own, head: None };
        members.text(b",\"portal\":", self.portal);
        members.listed(self.values)?;
        Members { out: &mut stages, head: None }.stages(self.stage, Some(self.since));
        Ok(Addition { own, stages })
    }
}

impl Addition {
    /// The record grows by so many bytes at most.
    pub fn bytes(&self) -> usize {
        self.own.len().saturating_add(self.stages.len())
    }
}

/// Puts into the begin record at `start` of `out`, at whose end it ends, what the next message says.
pub fn insert(out: &mut Vec<u8>, start: usize, places: &mut Places, addition: &Addition) {
    let Addition { own, stages } = addition;
    let at = start.saturating_add(places.own);
    replace(out, at..at, own);
    let at = start.saturating_add(places.stage.start);
    replace(out, at..at.saturating_add(places.stage.len()), stages);
    let more = stages.len().saturating_sub(places.stage.len());
    places.stage.end = places.stage.end.saturating_add(more);
    places.own = places.own.saturating_add(more);
}

/// Puts into a place of `out` what is at least as long: what is behind it moves up.
fn replace(out: &mut Vec<u8>, place: Range<usize>, by: &[u8]) {
    let (end, more) = (out.len(), by.len().saturating_sub(place.len()));
    out.resize(end.saturating_add(more), 0);
    out.copy_within(place.end..end, place.end.saturating_add(more));
    for (to, from) in out.iter_mut().skip(place.start).zip(by) {
        *to = *from;
    }
}

/// Appends what follows an end record's head.
pub(super) fn end(out: &mut Vec<u8>, head: Head, end: &End<'_>) -> io::Result<()> {
    let End {
        id,
        part,
        last,
        outcome,
        sqlstate,
        text_of,
        text_sha256,
        text_mac,
        text_bytes,
        text_doubtful,
        executes,
        command,
        rows,
        bytes_in,
        bytes_out,
        first_row_us,
        duration_us,
        durability,
    } = end;
    let mut members = Members { out, head: Some(head) };
    members.raw(b",\"event\":\"end\"");
    members.id(b",\"id\":\"", Some(*id))?;
    members.json(b",\"part\":", Some(part))?;
    members.raw(if *last { b",\"final\":true" } else { b",\"final\":false" });
    members.raw(outcome_member(*outcome));
    members.text(b",\"sqlstate\":", *sqlstate);
    members.id(b",\"text_of\":\"", *text_of)?;
    members.text(b",\"text_sha256\":", text_sha256.as_deref());
    members.json(b",\"text_mac\":", text_mac.as_ref())?;
    members.json(b",\"text_bytes\":", text_bytes.as_ref())?;
    members.flag(b",\"text_doubtful\":true", *text_doubtful);
    members.id(b",\"executes\":\"", *executes)?;
    members.text(b",\"command\":", *command);
    members.json(b",\"rows\":", Some(rows))?;
    members.json(b",\"bytes_in\":", Some(bytes_in))?;
    members.json(b",\"bytes_out\":", Some(bytes_out))?;
    members.json(b",\"first_row_us\":", first_row_us.as_ref())?;
    members.json(b",\"duration_us\":", Some(duration_us))?;
    members.json(b",\"durability\":", durability.as_ref())?;
    members.raw(b"}");
    Ok(())
}

/// The members so far; each `name` has what stands before its value.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    head: Option<Head>,
}

impl Members<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn flag(&mut self, member: &[u8], is_set: bool) {
        if is_set {
            self.raw(member);
        }
    }

    fn id(&mut self, name: &[u8], id: Option<EventId>) -> io::Result<()> {
        let Some(EventId { session, number }) = id else { return Ok(()) };
        self.raw(name);
        match self.head {
            // It is written already.
            Some(head) if head.session == session => {
                self.out.extend_from_within(head.session_at..head.session_at.saturating_add(SessionId::TEXT_BYTES));
            }
            _ => self.raw(session.encode(&mut [0; SessionId::TEXT_BYTES]).as_bytes()),
        }
        self.json(b".", Some(&number))?;
        self.raw(b"\"");
        Ok(())
    }

    fn stages(&mut self, stage: Stage, since: Option<Stage>) {
        self.raw(stage_member(stage));
        if let Some(since) = since {
            self.raw(b",\"since\":\"");
            self.raw(stage_member(since).get(b",\"stage\":\"".len()..).unwrap_or_default());
        }
    }

    fn text(&mut self, name: &[u8], text: Option<&str>) {
        if let Some(text) = text {
            self.raw(name);
            self.raw(b"\"");
            escape(self.out, text.as_bytes());
            self.raw(b"\"");
        }
    }

    fn listed(&mut self, values: &Listed) -> io::Result<()> {
        let Listed { parameters, parameters_sealed, parameters_left_out, parameters_malformed } = values;
        self.json(b",\"parameters\":", Some(parameters).filter(|values| !values.is_empty()))?;
        self.json(b",\"parameters_sealed\":", parameters_sealed.as_ref())?;
        self.json(b",\"parameters_left_out\":", Some(parameters_left_out).filter(|count| **count > 0))?;
        self.flag(b",\"parameters_malformed\":true", *parameters_malformed);
        Ok(())
    }

    fn json<T: Serialize + ?Sized>(&mut self, name: &[u8], value: Option<&T>) -> io::Result<()> {
        if let Some(value) = value {
            self.raw(name);
            serde_json::to_writer(&mut *self.out, value)?;
        }
        Ok(())
    }
}

fn stage_member(stage: Stage) -> &'static [u8] {
    match stage {
        Stage::Query => b",\"stage\":\"query\"",
        Stage::Parse => b",\"stage\":\"parse\"",
        Stage::Bind => b",\"stage\":\"bind\"",
        Stage::Execute => b",\"stage\":\"execute\"",
        Stage::FunctionCall => b",\"stage\":\"function_call\"",
    }
}

fn outcome_member(outcome: Outcome) -> &'static [u8] {
    match outcome {
        Outcome::Ok => b",\"outcome\":\"ok\"",
        Outcome::Error => b",\"outcome\":\"error\"",
        Outcome::Canceled => b",\"outcome\":\"canceled\"",
        Outcome::Suspended => b",\"outcome\":\"suspended\"",
        Outcome::Bound => b",\"outcome\":\"bound\"",
        Outcome::Parsed => b",\"outcome\":\"parsed\"",
        Outcome::Refused => b",\"outcome\":\"refused\"",
        Outcome::Skipped => b",\"outcome\":\"skipped\"",
        Outcome::Unknown => b",\"outcome\":\"unknown\"",
    }
}

#[cfg(test)]
mod tests;

//! A small PostgreSQL: what `PostgresMain` does with each message, without data. It knows what truly happened.

use super::sql::{Name, Sql, Text};
use std::collections::{BTreeMap, VecDeque};

/// SQLSTATEs that it gives.
const SYNTAX: &str = "42601";
const FAILED_TRANSACTION: &str = "25P02";
pub(super) const NO_STATEMENT: &str = "26000";
pub(super) const NO_PORTAL: &str = "34000";
pub(super) const SAME_STATEMENT: &str = "42P05";
pub(super) const SAME_PORTAL: &str = "42P03";
pub(super) const NO_TRANSACTION: &str = "25P01";
const SPENT: &str = "55000";
const UNREADABLE: &str = "22021";
pub const COPY_FAILED: &str = "57014";

/// A client's message.
#[derive(Debug, Clone)]
pub enum Message {
    Query(Text),
    Parse { name: Name, text: Text },
    Bind { portal: Name, statement: Name, bad: bool },
    Execute { portal: Name, max: u32 },
    Describe { statement: bool, name: Name },
    Close { statement: bool, name: Name },
    FunctionCall { fails: bool },
    CopyData,
    CopyDone,
    CopyFail,
    Sync,
}

/// One message of the server; an error has its SQLSTATE in the body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub kind: u8,
    pub body: String,
    pub bytes: u64,
}

/// How a message ended, or a statement of a Query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Done {
    #[default]
    Ok,
    Suspended,
    Skipped,
    Error(String),
}

/// A statement that ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    pub done: Done,
    pub command: Option<String>,
    pub rows: u64,
    pub bytes_out: u64,
    /// SQL-level EXECUTE: the message that brought the text.
    pub executes: Option<usize>,
}

/// What became of a message.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub done: Done,
    /// Bind, Execute: the message that brought the text that was bound or ran.
    pub text: Option<usize>,
    /// Query, Execute: what ran.
    pub parts: Vec<Part>,
    /// Execute: there was nothing in the portal, and nothing ran.
    pub nothing: bool,
    /// COPY messages that were read as its data.
    pub copied: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) text: usize,
    pub(super) sql: Sql,
}

#[derive(Debug, Clone)]
pub(super) struct Portal {
    pub(super) text: usize,
    pub(super) sql: Sql,
    pub(super) left: u32,
    pub(super) spent: bool,
    /// Its Bind failed: there is nothing in it.
    pub(super) nothing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Block,
    Failed,
}

/// What is being run, across COPY.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) message: usize,
    /// A Query's statements that are left, or none of an Execute.
    pub(super) left: VecDeque<Sql>,
    pub(super) query: bool,
    pub(super) part: Part,
    pub(super) fails_after: Option<usize>,
    pub(super) read: usize,
    pub(super) rows: u32,
}

#[derive(Debug)]
pub struct Server {
    pub(super) statements: BTreeMap<Name, Statement>,
    pub(super) portals: BTreeMap<Name, Portal>,
    pub(super) state: State,
    skipping: bool,
    /// A constraint that is checked at the end.
    pub(super) deferred: bool,
    pub(super) copying: Option<Running>,
    input: VecDeque<(usize, Message)>,
    pub answers: VecDeque<Answer>,
    pub truth: BTreeMap<usize, Truth>,
    /// Errors at Sync, Describe and Close.
    pub loose_errors: Vec<String>,
    /// SQL changed names where nobody can see it from outside.
    pub muddied: bool,
}

pub(super) type Outcome = Result<(), String>;

pub(super) fn fail<T>(sqlstate: &str) -> Result<T, String> {
    Err(sqlstate.to_owned())
}

impl Server {
    pub fn new() -> Self {
        Self {
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            state: State::Idle,
            skipping: false,
            deferred: false,
            copying: None,
            input: VecDeque::new(),
            answers: VecDeque::new(),
            truth: BTreeMap::new(),
            loose_errors: Vec::new(),
            muddied: false,
        }
    }

    pub fn receive(&mut self, number: usize, message: Message) {
        self.input.push_back((number, message));
    }

    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && !self.skipping && self.state == State::Idle && self.copying.is_none()
    }

    /// Works through one message; `false` when there is none.
    pub fn step(&mut self) -> bool {
        let Some((number, message)) = self.input.pop_front() else { return false };
        if self.copying.is_some() {
            self.copy_message(number, &message);
        } else if self.skipping && !matches!(message, Message::Sync) {
            if !matches!(
                message,
                Message::CopyData
                    | Message::CopyDone
                    | Message::CopyFail
                    | Message::Describe { .. }
                    | Message::Close { .. }
            ) {
                self.truth.entry(number).or_default().done = Done::Skipped;
            }
        } else {
            self.message(number, message);
        }
        true
    }

    fn message(&mut self, number: usize, message: Message) {
        let extended = match message {
            Message::Query(text) => return self.query(number, text),
            Message::Sync => return self.sync(),
            Message::FunctionCall { fails } => return self.function_call(number, fails),
            Message::CopyData | Message::CopyDone | Message::CopyFail => return,
            Message::Execute { portal, max } => return self.execute(number, portal, max),
            Message::Parse { name, text } => self.parse(number, name, &text),
            Message::Bind { portal, statement, bad } => self.bind(number, portal, statement, bad),
            Message::Describe { statement, name } => self.describe(statement, name),
            Message::Close { statement, name } => {
                if statement {
                    self.statements.remove(name);
                } else {
                    self.portals.remove(name);
                }
                self.say(b'3', "");
                return;
            }
        };
        if let Err(sqlstate) = extended {
            let truth = self.truth.get_mut(&number);
            match truth {
                Some(truth) => truth.done = Done::Error(sqlstate.clone()),
                None => self.loose_errors.push(sqlstate.clone()),
            }
            self.extended_error(&sqlstate);
        }
    }

    fn parse(&mut self, number: usize, name: Name, text: &Text) -> Outcome {
        self.truth.entry(number).or_default();
        let sql = text.0[0].clone();
        if sql == Sql::Unreadable {
            return fail(UNREADABLE);
        }
        if name.is_empty() {
            self.statements.remove(name);
        }
        if sql == Sql::Bad {
            return fail(SYNTAX);
        }
        self.must_not_be_failed(&sql)?;
        if self.statements.contains_key(name) {
            return fail(SAME_STATEMENT);
        }
        self.statements.insert(name, Statement { text: number, sql });
        self.say(b'1', "");
        Ok(())
    }

    fn bind(&mut self, number: usize, portal: Name, statement: Name, bad: bool) -> Outcome {
        self.truth.entry(number).or_default();
        let Some(Statement { text, sql }) = self.statements.get(statement).cloned() else { return fail(NO_STATEMENT) };
        self.must_not_be_failed(&sql)?;
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return fail(SAME_PORTAL);
        }
        let left = sql.rows();
        self.portals.insert(portal, Portal { text, sql, left, spent: false, nothing: bad });
        if bad {
            return fail("22P02");
        }
        self.truth.entry(number).or_default().text = Some(text);
        self.say(b'2', "");
        Ok(())
    }

    fn describe(&mut self, statement: bool, name: Name) -> Outcome {
        let sql = if statement {
            self.statements.get(name).map(|known| known.sql.clone()).ok_or(NO_STATEMENT)?
        } else {
            let known = self.portals.get(name).ok_or(NO_PORTAL)?;
            if known.nothing {
                self.say(b'n', "");
                return Ok(());
            }
            known.sql.clone()
        };
        self.must_not_be_failed(&sql)?;
        if statement {
            self.say(b't', "");
        }
        self.say(if matches!(sql, Sql::Select(_)) { b'T' } else { b'n' }, "");
        Ok(())
    }

    fn execute(&mut self, number: usize, portal: Name, max: u32) {
        self.truth.entry(number).or_default();
        let mut part = Part::default();
        let Some(known) = self.portals.get(portal).cloned() else {
            return self.execute_failed(number, part, NO_PORTAL);
        };
        if known.nothing {
            self.say_counted(&mut part, b'I', "");
            let truth = self.truth.entry(number).or_default();
            truth.nothing = true;
            truth.parts.push(part);
            return;
        }
        if self.must_not_be_failed(&known.sql).is_err() {
            return self.execute_failed(number, part, FAILED_TRANSACTION);
        }
        if known.spent {
            return self.execute_failed(number, part, SPENT);
        }
        self.truth.entry(number).or_default().text = Some(known.text);
        if let Sql::Select(_) = known.sql {
            let rows = if max > 0 { known.left.min(max) } else { known.left };
            self.rows(&mut part, rows);
            if let Some(there) = self.portals.get_mut(portal) {
                there.left -= rows;
            }
            if max > 0 && rows == max {
                self.say_counted(&mut part, b's', "");
                part.done = Done::Suspended;
                let truth = self.truth.entry(number).or_default();
                truth.done = Done::Suspended;
                truth.parts.push(part);
                return;
            }
            self.complete(&mut part, &format!("SELECT {rows}"));
            self.truth.entry(number).or_default().parts.push(part);
            return;
        }
        if let Some(there) = self.portals.get_mut(portal) {
            there.spent = known.sql != Sql::Empty;
        }
        let running =
            Running { message: number, left: VecDeque::new(), query: false, part, fails_after: None, read: 0, rows: 0 };
        self.run(running, known.text, &known.sql, true);
    }

    pub(super) fn execute_failed(&mut self, number: usize, part: Part, sqlstate: &str) {
        let part = Part { done: Done::Error(sqlstate.to_owned()), ..part };
        let truth = self.truth.entry(number).or_default();
        truth.done = part.done.clone();
        truth.parts.push(part);
        self.extended_error(sqlstate);
    }

    fn query(&mut self, number: usize, text: Text) {
        self.truth.entry(number).or_default();
        let unreadable = text.0 == [Sql::Unreadable];
        if !unreadable {
            self.statements.remove("");
        }
        let running = Running {
            message: number,
            left: text.0.clone().into(),
            query: true,
            part: Part::default(),
            fails_after: None,
            read: 0,
            rows: 0,
        };
        if unreadable || text.0.contains(&Sql::Bad) {
            return self.query_failed(running, if unreadable { UNREADABLE } else { SYNTAX });
        }
        if text.0.iter().all(|sql| *sql == Sql::Empty) {
            let mut running = running;
            self.say_counted(&mut running.part, b'I', "");
            self.truth.entry(number).or_default().parts.push(running.part);
            return self.query_ended();
        }
        self.query_goes_on(running);
    }

    pub(super) fn query_goes_on(&mut self, mut running: Running) {
        let first = self.truth.entry(running.message).or_default().parts.is_empty();
        let Some(sql) = running.left.pop_front() else { return self.query_ended() };
        if sql == Sql::Empty {
            return self.query_goes_on(running);
        }
        if self.must_not_be_failed(&sql).is_err() {
            return self.query_failed(running, FAILED_TRANSACTION);
        }
        self.portals.remove("");
        let text = running.message;
        self.run(running, text, &sql, first);
    }

    pub(super) fn query_failed(&mut self, running: Running, sqlstate: &str) {
        let part = Part { done: Done::Error(sqlstate.to_owned()), ..running.part };
        self.truth.entry(running.message).or_default().parts.push(part);
        self.say(b'E', sqlstate);
        self.abort();
        self.ready();
    }

    fn query_ended(&mut self) {
        if self.state == State::Idle {
            self.commit();
        }
        self.ready();
    }

    fn function_call(&mut self, number: usize, fails: bool) {
        let mut part = Part::default();
        if fails || self.state == State::Failed {
            part.done = Done::Error("42883".to_owned());
            self.say(b'E', "42883");
            self.abort();
        } else {
            self.say_counted(&mut part, b'V', "");
        }
        self.truth.entry(number).or_default().parts.push(part);
        self.query_ended();
    }

    fn sync(&mut self) {
        self.skipping = false;
        if self.state == State::Idle {
            if std::mem::take(&mut self.deferred) {
                self.say(b'E', "23503");
                self.loose_errors.push("23503".to_owned());
            }
            self.commit();
        }
        self.ready();
    }

    fn extended_error(&mut self, sqlstate: &str) {
        self.say(b'E', sqlstate);
        self.abort();
        self.skipping = true;
    }

    fn abort(&mut self) {
        self.deferred = false;
        if self.state == State::Idle {
            self.portals.clear();
        } else {
            self.state = State::Failed;
        }
    }

    /// Every portal ends with its transaction.
    pub(super) fn commit(&mut self) {
        self.deferred = false;
        self.portals.clear();
    }

    fn must_not_be_failed(&self, sql: &Sql) -> Outcome {
        let allowed = self.state != State::Failed || matches!(sql, Sql::Commit | Sql::Rollback | Sql::Empty);
        if allowed { Ok(()) } else { fail(FAILED_TRANSACTION) }
    }

    pub(super) fn rows(&mut self, part: &mut Part, rows: u32) {
        for _ in 0..rows {
            self.say_counted(part, b'D', "");
        }
        part.rows = u64::from(rows);
    }

    pub(super) fn complete(&mut self, part: &mut Part, tag: &str) {
        self.say_counted(part, b'C', tag);
        part.command = Some(tag.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ').to_owned());
    }

    fn ready(&mut self) {
        self.say(
            b'Z',
            match self.state {
                State::Idle => "I",
                State::Block => "T",
                State::Failed => "E",
            },
        );
    }

    pub(super) fn say_counted(&mut self, part: &mut Part, kind: u8, body: &str) {
        part.bytes_out += self.say(kind, body);
    }

    fn say(&mut self, kind: u8, body: &str) -> u64 {
        let bytes = 5 + body.len() as u64 + self.answers.len() as u64 % 7;
        self.answers.push_back(Answer { kind, body: body.to_owned(), bytes });
        bytes
    }
}

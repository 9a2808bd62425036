//! The judge: PostgreSQL's own log against our records, message by message.
//!
//! Both are in the order in which the server worked, process by process, so they are compared as sequences: each
//! recorded message must have its line, each line its message, with the caller of the record in front of the statement
//! and as the line's user. Whatever is left on either side is a fault.

mod log;
mod steps;

use crate::records::Records;
use log::Line;
use std::collections::{HashMap, HashSet, VecDeque};
use steps::{Error, Fate, Process, Step, Text, UNNAMED, named_in_log};

/// What the server was told to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `log_statement = all`: a line for each Query and each Execute.
    Statements,
    /// `log_min_duration_statement = 0`: a line for each Query, Parse, Bind and Execute that went well.
    Durations,
}

/// The simulator's own user, which no session may have.
const OWN_USER: &str = "cloudsqladmin";

/// How lines of `LOG` begin that are of statements; what else the server tells (memory contexts, checkpoints) is not.
const OF_STATEMENTS: [&str; 4] = ["statement: ", "execute ", "fastpath function call: ", "duration: "];

/// A message that the server could not read has no statement: malformed (`protocol_violation`), or not in the
/// client's encoding (`character_not_in_repertoire`).
const UNREAD: [&str; 2] = ["08P01", "22021"];
/// Nor has a Bind of a statement that is not there (`undefined_pstatement`).
const NO_STATEMENT: &str = "26000";
/// Nor an Execute of a portal that is not there (`undefined_cursor`).
const NO_PORTAL: &str = "34000";

/// What the judge found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Lines that agree with a record, by kind.
    pub agreed: Agreed,
    /// Everything that does not agree.
    pub faults: Vec<String>,
}

/// Lines that agree, by kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// `statement:` lines, each all events of one Query.
    pub queries: usize,
    /// `parse` lines.
    pub parses: usize,
    /// `bind` lines.
    pub binds: usize,
    /// `execute` and `execute fetch from` lines.
    pub executes: usize,
    /// `fastpath function call` lines.
    pub functions: usize,
    /// Errors whose STATEMENT is the record's.
    pub errors: usize,
    /// Errors without a STATEMENT, matched by process, order and SQLSTATE.
    pub bare_errors: usize,
    /// Executes of an empty statement, which write no line. Not in the sum.
    pub empty: usize,
    /// Binds and Executes of which the record does not say whose text it was, only that it is in doubt. They are in the
    /// sum all the same: the line has some earlier text of the session, and the right caller.
    pub uncertain: usize,
}

impl Agreed {
    /// Lines that were compared.
    pub fn lines(&self) -> usize {
        self.queries + self.parses + self.binds + self.executes + self.functions + self.errors + self.bare_errors
    }
}

impl Verdict {
    /// Panics unless everything agrees, over at least this many lines.
    #[track_caller]
    pub fn holds(&self, at_least: usize) {
        let first: Vec<&String> = self.faults.iter().take(20).collect();
        assert!(self.faults.is_empty(), "{} faults, the first of them: {first:#?}", self.faults.len());
        let lines = self.agreed.lines();
        assert!(lines >= at_least, "{lines} lines were compared; the scripts must cause {at_least}: {:?}", self.agreed);
    }
}

/// Compares a log with records.
pub fn judge(mode: Mode, log: &str, records: &Records) -> Verdict {
    let mut verdict = Verdict::default();
    let lines = match log::read(log) {
        Ok(lines) => lines,
        Err(unreadable) => {
            verdict.faults.push(unreadable);
            return verdict;
        }
    };
    let mut processes = steps::processes(records);
    let mut by_process: HashMap<u32, VecDeque<Line>> = HashMap::new();
    for line in lines {
        if processes.contains_key(&line.pid) {
            by_process.entry(line.pid).or_default().push_back(line);
        } else if !matches!(line.user.as_str(), "" | OWN_USER | "[unknown]") {
            verdict.faults.push(format!("a line of no session: {}", shown(&line)));
        }
    }
    for (pid, process) in &mut processes {
        let lines = by_process.remove(pid).unwrap_or_default();
        let (failed, queries, parsed, last_words) = (HashSet::new(), Vec::new(), Vec::new(), HashSet::new());
        Trial { mode, process, lines, failed, queries, parsed, last_words, verdict: &mut verdict }.run();
    }
    verdict
}

/// One server process before the judge.
struct Trial<'a> {
    mode: Mode,
    process: &'a mut Process,
    lines: VecDeque<Line>,
    /// Events whose error has been found: the rest of their messages was skipped.
    failed: HashSet<String>,
    /// Texts of the Queries so far: what SQL's own `PREPARE` names is one of them.
    queries: Vec<Text>,
    /// Names and texts of the Parses so far.
    parsed: Vec<(String, Text)>,
    /// SQLSTATEs of the FATAL lines so far.
    last_words: HashSet<String>,
    verdict: &'a mut Verdict,
}

impl Trial<'_> {
    fn run(mut self) {
        self.lines.retain(|line| match line.severity.as_str() {
            "WARNING" | "NOTICE" | "INFO" => false,
            "LOG" => OF_STATEMENTS.iter().any(|start| line.message.starts_with(start)),
            _ => true,
        });
        for line in self.lines.iter().filter(|line| line.user != self.process.user) {
            self.verdict.faults.push(format!("not the user {}: {}", self.process.user, shown(line)));
        }
        for step in std::mem::take(&mut self.process.steps) {
            while self.error_beside() {}
            let step = self.completed(step);
            self.step(&step);
            match (step.stage.as_str(), step.text) {
                ("query", Some(text)) => self.queries.push(text),
                ("parse", Some(text)) => self.parsed.push((step.statement, text)),
                _ => {}
            }
        }
        while self.error_beside() {}
        self.last_word();
        for error in std::mem::take(&mut self.process.errors) {
            match error {
                Error::Beside(sqlstate) => {
                    self.verdict.faults.push(format!("no error {sqlstate} at Sync, Describe or Close"));
                }
                // Its own step has said so.
                Error::Of(_) => {}
            }
        }
        for line in std::mem::take(&mut self.lines) {
            self.verdict.faults.push(format!("without a record: {}", shown(&line)));
        }
    }

    /// A message whose text the record does not know for certain has one that came before: a Query's, where its name is
    /// known by SQL's own `PREPARE` alone, or any, where the record says that it is in doubt.
    fn completed(&mut self, step: Step) -> Step {
        let Some(line) = self.lines.front() else { return step };
        let fits = |step: &Step| step.wrote(self.mode, line) != Match::No || step.has_failed_with(line);
        // A cursor that SQL has opened is the portal of no statement (`PerformCursorOpen`, `portalcmds.c`), and its text
        // is the DECLARE's, whichever statement that was prepared as.
        let cursor = Step { name: named_in_log("", &step.portal), ..step.clone() };
        if step.declares_a_cursor() && !fits(&step) && fits(&cursor) {
            return cursor;
        }
        let ran = matches!(step.fate, Fate::Passed | Fate::Failed(_)) && !self.failed.contains(&step.event);
        let uncertain = step.uncertain && ran;
        let unknown = step.text.is_none() && step.name != UNNAMED;
        if !(uncertain || unknown) || fits(&step) {
            return step;
        }
        let with = |text: &Text| Step { text: Some(text.clone()), ..step.clone() };
        let of_query = self.queries.iter().map(with).find(&fits);
        let named =
            |(statement, text): &(String, Text)| Step { name: named_in_log(statement, &step.portal), ..with(text) };
        let parsed = self.parsed.iter().filter(|_| uncertain).map(named).find(&fits);
        let Some(found) = of_query.or(parsed) else { return step };
        self.verdict.agreed.uncertain += usize::from(uncertain);
        found
    }

    fn step(&mut self, step: &Step) {
        match &step.fate {
            Fate::Skipped => {}
            Fate::Empty => self.verdict.agreed.empty += 1,
            Fate::Passed => self.must(step),
            Fate::Unknown | Fate::MayHaveBeenSkipped => {
                if self.lines.front().is_some_and(|line| step.wrote(self.mode, line) == Match::Yes) {
                    self.must(step);
                }
            }
            Fate::Failed(_) | Fate::MayHaveFailed(_) if self.failed.contains(&step.event) => {}
            Fate::MayHaveFailed(sqlstate) => {
                let next = self.process.errors.front() == Some(&Error::Of(step.event.clone()));
                if next && self.lines.front().is_some_and(|line| step.failed_with(sqlstate, line)) {
                    self.must_fail(step, sqlstate);
                } else {
                    self.must(step);
                }
            }
            Fate::Failed(sqlstate) => {
                // Before it failed it may have begun: that has a line of its own, of the same message.
                let began = self.lines.front().is_some_and(|line| step.wrote(self.mode, line) != Match::No);
                if began && self.mode == Mode::Statements {
                    self.must(step);
                }
                self.must_fail(step, sqlstate);
            }
        }
    }

    /// The next line is this message's, if messages of this kind write one.
    fn must(&mut self, step: &Step) {
        if step.says(self.mode).is_none() {
            return;
        }
        let found = match self.lines.front() {
            Some(line) => step.wrote(self.mode, line),
            None => Match::No,
        };
        match found {
            Match::No => {
                let next = self.lines.front().map_or("nothing more".to_owned(), shown);
                self.verdict.faults.push(format!("no line for {}; next is {next}", step.shown()));
                return;
            }
            Match::OtherCaller => {
                let line = self.lines.front().map(shown).unwrap_or_default();
                self.verdict.faults.push(format!("another caller than {}: {line}", step.tag));
            }
            Match::Yes => {
                let agreed = &mut self.verdict.agreed;
                let count = match step.stage.as_str() {
                    "query" => &mut agreed.queries,
                    "parse" => &mut agreed.parses,
                    "bind" => &mut agreed.binds,
                    "execute" => &mut agreed.executes,
                    _ => &mut agreed.functions,
                };
                *count += 1;
            }
        }
        self.lines.pop_front();
    }

    /// The next line is this message's error.
    fn must_fail(&mut self, step: &Step, sqlstate: &str) {
        self.failed.insert(step.event.clone());
        match self.process.errors.front() {
            Some(Error::Of(event)) if *event == step.event => drop(self.process.errors.pop_front()),
            other => self.verdict.faults.push(format!("{} failed out of order, before {other:?}", step.shown())),
        }
        let fits = |line: &Line| matches!(line.severity.as_str(), "ERROR" | "FATAL") && line.sqlstate == sqlstate;
        let Some(line) = self.next_if(fits) else {
            let next = self.lines.front().map_or("nothing more".to_owned(), shown);
            self.verdict.faults.push(format!("no error {sqlstate} for {}; next is {next}", step.shown()));
            return;
        };
        match (&line.statement, &step.text) {
            (Some(statement), Some(text)) => match statement.strip_prefix(&step.tag) {
                Some(rest) if text.is(rest) => self.verdict.agreed.errors += 1,
                Some(_) => self.verdict.faults.push(format!("not the error of {}: {}", step.shown(), shown(&line))),
                None => self.verdict.faults.push(format!("another caller than {}: {}", step.tag, shown(&line))),
            },
            (None, _) if !step.may_fail_bare(sqlstate) => {
                self.verdict.faults.push(format!("an error without its STATEMENT: {}", shown(&line)));
            }
            (None, _) => self.verdict.agreed.bare_errors += 1,
            (Some(_), None) => {
                self.verdict.faults.push(format!("the record has no text, the log has: {}", shown(&line)));
            }
        }
    }

    fn next_if(&mut self, fits: impl Fn(&Line) -> bool) -> Option<Line> {
        let line = self.lines.front().is_some_and(fits).then(|| self.lines.pop_front()).flatten()?;
        if line.severity == "FATAL" {
            self.last_words.insert(line.sqlstate.clone());
        }
        Some(line)
    }

    /// Whether the next error is at Sync, Describe or Close, and the next line is it.
    fn error_beside(&mut self) -> bool {
        let Some(Error::Beside(expected)) = self.process.errors.front().cloned() else { return false };
        if self.next_if(|line| line.is_bare_error(&expected)).is_none() {
            return false;
        }
        self.process.errors.pop_front();
        self.verdict.agreed.bare_errors += 1;
        true
    }

    /// What the server told the client at last is what the session's end says.
    fn last_word(&mut self) {
        let Some(expected) = self.process.fatal.clone() else { return };
        let fits = |line: &Line| line.severity == "FATAL" && line.is_bare_error(&expected);
        if self.next_if(fits).is_some() {
            self.verdict.agreed.bare_errors += 1;
        } else if !self.last_words.contains(&expected) {
            self.verdict.faults.push(format!("the session ended with {expected}, and the log has no such last word"));
        }
    }
}

/// Whether a line is a message's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    /// The same message and text, in another caller's name.
    OtherCaller,
    No,
}

impl Step {
    /// How the line of such a message begins, if it writes one.
    fn says(&self, mode: Mode) -> Option<String> {
        match (self.stage.as_str(), mode) {
            ("query", _) => Some("statement: ".to_owned()),
            ("execute", _) => Some(format!("execute {}: ", self.name)),
            ("function_call", _) => Some("fastpath function call: ".to_owned()),
            ("parse" | "bind", Mode::Durations) => Some(format!("{} {}: ", self.stage, self.name)),
            _ => None,
        }
    }

    /// Whether it executes a named portal whose text opens a cursor.
    fn declares_a_cursor(&self) -> bool {
        let word = self.text.as_ref().and_then(|text| text.recorded.split_whitespace().next());
        self.stage == "execute"
            && !self.portal.is_empty()
            && word.is_some_and(|word| word.eq_ignore_ascii_case("declare"))
    }

    fn wrote(&self, mode: Mode, line: &Line) -> Match {
        let Some(says) = self.says(mode).filter(|_| line.severity == "LOG") else { return Match::No };
        let message = match mode {
            Mode::Statements => Some(line.message.as_str()),
            Mode::Durations => {
                line.message.strip_prefix("duration: ").and_then(|rest| Some(rest.split_once(" ms  ")?.1))
            }
        };
        let Some(message) = message else { return Match::No };
        let later = self.stage == "execute";
        let fetched =
            message.strip_prefix("execute fetch from ").filter(|_| later).map(|rest| format!("execute {rest}"));
        let message = fetched.as_deref().unwrap_or(message);
        let Some(rest) = message.strip_prefix(&says) else { return Match::No };
        if let Some(function) = self.function {
            return if rest.ends_with(&format!("(OID {function})")) { Match::Yes } else { Match::No };
        }
        let Some(text) = &self.text else { return Match::No };
        match rest.strip_prefix(&self.tag) {
            Some(rest) if text.is(rest) => Match::Yes,
            None if rest.split_once("*/ ").is_some_and(|(_, rest)| text.is(rest)) || text.is(rest) => {
                Match::OtherCaller
            }
            _ => Match::No,
        }
    }

    /// Whether the line of this message's error may be without a STATEMENT: where the server has no text yet
    /// (`debug_query_string` in `postgres.c`), or never has (`HandleFunctionRequest`).
    fn may_fail_bare(&self, sqlstate: &str) -> bool {
        UNREAD.contains(&sqlstate)
            || match self.stage.as_str() {
                "bind" => sqlstate == NO_STATEMENT,
                "execute" => sqlstate == NO_PORTAL,
                "function_call" => true,
                _ => false,
            }
    }

    /// Whether a line is the error that this message has, or may have.
    fn has_failed_with(&self, line: &Line) -> bool {
        match &self.fate {
            Fate::Failed(sqlstate) | Fate::MayHaveFailed(sqlstate) => self.failed_with(sqlstate, line),
            _ => false,
        }
    }

    /// Whether a line is this message's error: of this SQLSTATE, and of this text in anybody's name.
    fn failed_with(&self, sqlstate: &str, line: &Line) -> bool {
        let of_text = |statement: &str| {
            let bare = statement.strip_prefix("/*app=").and_then(|rest| Some(rest.split_once("*/ ")?.1));
            self.text.as_ref().is_some_and(|text| text.is(bare.unwrap_or(statement)))
        };
        let mine = match &line.statement {
            Some(statement) => of_text(statement),
            None => self.may_fail_bare(sqlstate),
        };
        matches!(line.severity.as_str(), "ERROR" | "FATAL") && line.sqlstate == sqlstate && mine
    }

    fn shown(&self) -> String {
        let text: String = self.text.as_ref().map_or("?", |text| &text.recorded).chars().take(120).collect();
        format!("{} {} {:?} {text:?}", self.stage, self.name, self.fate)
    }
}

fn shown(line: &Line) -> String {
    let short = |text: &str| text.chars().take(300).collect::<String>();
    let (pid, user, code) = (line.pid, &line.user, &line.sqlstate);
    let statement = line.statement.as_deref().map(short).unwrap_or_default();
    format!("[{pid}] {user} {code} {}: {} {statement}", line.severity, short(&line.message))
}

#[cfg(test)]
mod tests;

//! How the model's server runs statements, COPY among them.

use super::server::{
    COPY_FAILED, Message, NO_PORTAL, NO_STATEMENT, NO_TRANSACTION, Outcome, Part, Portal, Running, SAME_PORTAL,
    SAME_STATEMENT, Server, State, Statement, fail,
};
use super::sql::Sql;

impl Server {
    /// Runs one statement other than a portal's SELECT.
    pub(super) fn run(&mut self, mut running: Running, text: usize, sql: &Sql, first: bool) {
        let part = &mut running.part;
        let ran = match *sql {
            Sql::CopyIn { rows, fails_after } => {
                self.say_counted(part, b'G', "");
                running.fails_after = fails_after;
                running.rows = rows;
                self.copying = Some(running);
                return self.copy_may_fail();
            }
            _ => self.plain(part, text, sql, first),
        };
        match ran {
            Ok(()) => self.ran(running),
            Err(sqlstate) if running.query => self.query_failed(running, &sqlstate),
            Err(sqlstate) => self.execute_failed(running.message, running.part, &sqlstate),
        }
    }

    fn ran(&mut self, mut running: Running) {
        let part = std::mem::take(&mut running.part);
        self.truth.entry(running.message).or_default().parts.push(part);
        if running.query {
            self.query_goes_on(running);
        }
    }

    fn plain(&mut self, part: &mut Part, text: usize, sql: &Sql, first: bool) -> Outcome {
        match *sql {
            Sql::Select(rows) => {
                self.say_counted(part, b'T', "");
                self.rows(part, rows);
                self.complete(part, &format!("SELECT {rows}"));
            }
            Sql::Insert(rows) => {
                self.complete(part, &format!("INSERT 0 {rows}"));
                part.rows = u64::from(rows);
            }
            Sql::Deferred => {
                self.deferred = true;
                self.complete(part, "INSERT 0 1");
                part.rows = 1;
            }
            Sql::Fail { rows, sqlstate } => {
                self.rows(part, rows);
                return fail(sqlstate);
            }
            Sql::Empty => self.say_counted(part, b'I', ""),
            Sql::Begin => {
                self.state = State::Block;
                self.complete(part, "BEGIN");
            }
            Sql::Commit | Sql::Rollback => self.end_block(part, sql)?,
            Sql::CopyOut(rows) => {
                self.say_counted(part, b'H', "");
                for _ in 0..rows {
                    self.say_counted(part, b'd', "");
                }
                self.say_counted(part, b'c', "");
                self.complete(part, &format!("COPY {rows}"));
                part.rows = u64::from(rows);
            }
            Sql::Bad | Sql::Unreadable | Sql::CopyIn { .. } => unreachable!("not run"),
            _ => self.naming(part, text, sql, first)?,
        }
        Ok(())
    }

    fn end_block(&mut self, part: &mut Part, sql: &Sql) -> Outcome {
        let failed = self.state == State::Failed || *sql == Sql::Rollback;
        if !failed && std::mem::take(&mut self.deferred) {
            self.state = State::Idle;
            self.commit();
            return fail("23503");
        }
        self.state = State::Idle;
        self.commit();
        self.complete(part, if failed { "ROLLBACK" } else { "COMMIT" });
        Ok(())
    }

    /// SQL that gives, uses or takes names.
    fn naming(&mut self, part: &mut Part, text: usize, sql: &Sql, first: bool) -> Outcome {
        if !first && !matches!(sql, Sql::Execute(_)) {
            self.muddied = true;
        }
        match *sql {
            Sql::Prepare(name, rows) => {
                if self.statements.contains_key(name) {
                    return fail(SAME_STATEMENT);
                }
                self.statements.insert(name, Statement { text, sql: Sql::Select(rows) });
                self.complete(part, "PREPARE");
            }
            Sql::Execute(name) => {
                let Some(Statement { text, sql: Sql::Select(rows) }) = self.statements.get(name).cloned() else {
                    return fail(NO_STATEMENT);
                };
                part.executes = Some(text).filter(|_| first);
                self.rows(part, rows);
                self.complete(part, &format!("SELECT {rows}"));
            }
            Sql::Deallocate(name) => {
                self.statements.remove(name).map(drop).ok_or(NO_STATEMENT)?;
                self.complete(part, "DEALLOCATE");
            }
            Sql::DeallocateAll => {
                self.statements.retain(|name, _| name.is_empty());
                self.complete(part, "DEALLOCATE ALL");
            }
            Sql::Declare(name, left) => {
                if self.state != State::Block {
                    return fail(NO_TRANSACTION);
                }
                if self.portals.contains_key(name) {
                    return fail(SAME_PORTAL);
                }
                self.portals.insert(name, Portal { text, sql: Sql::Select(left), left, spent: false, nothing: false });
                self.complete(part, "DECLARE CURSOR");
            }
            Sql::CloseCursor(name) => {
                self.portals.remove(name).map(drop).ok_or(NO_PORTAL)?;
                self.complete(part, "CLOSE CURSOR");
            }
            _ => unreachable!("gives no names"),
        }
        Ok(())
    }

    pub(super) fn copy_message(&mut self, number: usize, message: &Message) {
        let Some(running) = &mut self.copying else { return };
        running.read += 1;
        let message_of = running.message;
        match message {
            Message::Sync => {}
            Message::CopyData => self.truth.entry(message_of).or_default().copied += 1,
            Message::CopyDone | Message::CopyFail => {
                let Some(mut running) = self.copying.take() else { return };
                if matches!(message, Message::CopyFail) {
                    return self.copy_failed(running, COPY_FAILED);
                }
                running.part.rows = u64::from(running.rows);
                let tag = format!("COPY {}", running.rows);
                self.complete(&mut running.part, &tag);
                return self.ran(running);
            }
            _ => unreachable!("message {number} inside COPY: the client is not lawful"),
        }
        self.copy_may_fail();
    }

    fn copy_may_fail(&mut self) {
        if self.copying.as_ref().is_some_and(|running| running.fails_after == Some(running.read))
            && let Some(running) = self.copying.take()
        {
            self.copy_failed(running, "22P02");
        }
    }

    fn copy_failed(&mut self, running: Running, sqlstate: &str) {
        if running.query {
            self.query_failed(running, sqlstate);
        } else {
            self.execute_failed(running.message, running.part, sqlstate);
        }
    }
}

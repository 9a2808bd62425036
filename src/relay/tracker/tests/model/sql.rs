//! Texts that the model's server understands.

use std::fmt::Write;

/// A statement's or portal's name.
pub type Name = &'static str;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sql {
    Select(u32),
    Insert(u32),
    /// Succeeds, and fails where its transaction ends.
    Deferred,
    /// Fails while it runs, after some rows.
    Fail {
        rows: u32,
        sqlstate: &'static str,
    },
    /// A syntax error.
    Bad,
    /// Bytes that are nothing in the client's encoding: fails before anything else is done.
    Unreadable,
    Empty,
    Begin,
    Commit,
    Rollback,
    /// Fails once it has read so many messages.
    CopyIn {
        rows: u32,
        fails_after: Option<usize>,
    },
    CopyOut(u32),
    Prepare(Name, u32),
    Execute(Name),
    Deallocate(Name),
    DeallocateAll,
    Declare(Name, u32),
    CloseCursor(Name),
}

/// What one Query or Parse brings.
#[derive(Debug, Clone)]
pub struct Text(pub Vec<Sql>);

impl Sql {
    /// Rows that a portal of it can give.
    pub fn rows(&self) -> u32 {
        if let Self::Select(rows) = self { *rows } else { 0 }
    }
}

impl Text {
    /// As it stands in the message; `number` makes it like no other.
    pub fn render(&self, number: usize) -> String {
        let mut out = String::new();
        for (at, sql) in self.0.iter().enumerate() {
            if at > 0 {
                out.push_str("; ");
            }
            let written = match sql {
                Sql::Prepare(name, rows) => write!(out, "PREPARE \"{name}\" AS SELECT {rows}"),
                Sql::Execute(name) => write!(out, "execute {name}"),
                Sql::Deallocate(name) => write!(out, "/* */ Deallocate prepare {name}"),
                Sql::DeallocateAll => write!(out, "DEALLOCATE ALL"),
                Sql::Declare(name, rows) => write!(out, "declare {name} cursor for select {rows}"),
                Sql::CloseCursor(name) => write!(out, "close {name}"),
                Sql::Empty => Ok(()),
                Sql::Deferred => write!(out, "insert into deferred"),
                Sql::CopyIn { .. } | Sql::CopyOut(_) => write!(out, "copy {sql:?}"),
                other => write!(out, "{other:?}"),
            };
            written.unwrap();
        }
        write!(out, " -- {number}").unwrap();
        out
    }
}

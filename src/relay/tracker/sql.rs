//! SQL that gives, uses and takes the names of prepared statements and cursors, which the protocol shares.
//!
//! Only the first words of a text are read, as PostgreSQL's scanner does (`scan.l`): enough to tell which name the
//! first statement is about, once the server's command tag says that it was such a statement. Names that are not
//! plain ASCII are left alone: their bytes depend on `client_encoding`.

use std::ops::Range;

/// What a text's first statement may do to a name, by its first words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Effect {
    /// Nothing that can be told from here.
    #[default]
    None,
    /// `PREPARE name`.
    Prepare(Box<[u8]>),
    /// `EXECUTE name`.
    Execute(Box<[u8]>),
    /// `DEALLOCATE name`.
    Deallocate(Box<[u8]>),
    /// `DECLARE name`.
    Declare(Box<[u8]>),
    /// `CLOSE name`.
    Close(Box<[u8]>),
}

impl Effect {
    /// Reads a text's first words.
    pub fn of(text: &[u8]) -> Self {
        let mut scanner = Scanner(text);
        let Some(Word { name: verb, quoted: false }) = scanner.word_of(b"pedc") else { return Self::None };
        let make: fn(Box<[u8]>) -> Self = match &*verb {
            b"prepare" => Self::Prepare,
            b"execute" => Self::Execute,
            b"deallocate" => Self::Deallocate,
            b"declare" => Self::Declare,
            b"close" => Self::Close,
            _ => return Self::None,
        };
        let Some(first) = scanner.word() else { return Self::None };
        // DEALLOCATE PREPARE name, and DEALLOCATE of a statement that is called prepare.
        let noise = &*verb == b"deallocate" && !first.quoted && &*first.name == b"prepare";
        let name = if noise { scanner.word().unwrap_or(first).name } else { first.name };
        make(super::effective_name(&name).into())
    }
}

/// Where a text's first word stands; empty where there is none that can be read.
pub(super) fn first_word(text: &[u8]) -> Range<usize> {
    let mut scanner = Scanner(text);
    scanner.skip_blanks();
    let start = text.len().saturating_sub(scanner.0.len());
    match scanner.0.first() {
        Some(b'"') | None => start..start,
        _ => {
            let word = scanner.word();
            start..word.map_or(start, |_| text.len().saturating_sub(scanner.0.len()))
        }
    }
}

/// Whether there is anything but blanks, comments and semicolons.
pub(super) fn says_something(text: &[u8]) -> bool {
    let mut scanner = Scanner(text);
    scanner.skip_blanks();
    !scanner.0.is_empty()
}

/// Whether a statement that starts with this word can end with this command tag: what PostgreSQL calls otherwise is
/// listed (`CreateCommandTag`, `src/backend/tcop/utility.c`; a portal of DECLARE and a statement of PREPARE run what is
/// in them).
pub(super) fn may_end_as(verb: &[u8], command: &str) -> bool {
    let first = command.split(' ').next().unwrap_or_default();
    let is = |words: &[&str]| words.iter().any(|word| verb.eq_ignore_ascii_case(word.as_bytes()));
    verb.is_empty()
        || is(&[first, "execute"])
        || match first {
            "SELECT" => is(&["values", "table", "with", "create", "declare", "prepare"]),
            "INSERT" | "UPDATE" | "DELETE" | "MERGE" => is(&["with", "prepare"]),
            "ROLLBACK" => is(&["abort", "commit", "end", "prepare"]),
            "COMMIT" => is(&["end"]),
            "ANALYZE" => is(&["analyse"]),
            // `CMDTAG_UNKNOWN`, and none.
            "???" | "" => true,
            _ => false,
        }
}

struct Word {
    name: Vec<u8>,
    quoted: bool,
}

/// What is left of the text.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    /// The next word if it starts with one of these lower-case letters; most texts end the reading here.
    fn word_of(&mut self, letters: &[u8]) -> Option<Word> {
        self.skip_blanks();
        let first = self.0.first()?.to_ascii_lowercase();
        if letters.contains(&first) { self.word() } else { None }
    }

    /// An identifier or keyword; `None` for anything else, and for what is not plain ASCII.
    fn word(&mut self) -> Option<Word> {
        self.skip_blanks();
        if self.0.first() == Some(&b'"') {
            return self.quoted();
        }
        let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
        self.0.first().filter(|byte| letter(byte))?;
        let end = self.0.iter().position(|byte| !inside(byte)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at_checked(end)?;
        // A letter beyond ASCII goes on; `U&"…"` is another spelling.
        if rest.first().is_some_and(|byte| !byte.is_ascii() || (*byte == b'&' && word.len() == 1)) {
            return None;
        }
        self.0 = rest;
        Some(Word { name: word.to_ascii_lowercase(), quoted: false })
    }

    fn quoted(&mut self) -> Option<Word> {
        let mut name = Vec::new();
        let mut rest = self.0.get(1..)?;
        loop {
            let end = memchr::memchr(b'"', rest)?;
            let (part, after) = rest.split_at_checked(end)?;
            name.extend_from_slice(part);
            rest = after.get(1..)?;
            if rest.first() != Some(&b'"') {
                break;
            }
            name.push(b'"');
            rest = rest.get(1..)?;
        }
        self.0 = rest;
        name.is_ascii().then_some(Word { name, quoted: true })
    }

    /// Blanks, comments and statements that are empty.
    fn skip_blanks(&mut self) {
        loop {
            self.0 = match after_blanks(self.0) {
                [b';', rest @ ..] => rest,
                rest => {
                    self.0 = rest;
                    return;
                }
            };
        }
    }
}

/// What stands behind blanks and comments.
pub(super) fn after_blanks(mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, rest @ ..] => rest,
            [b'-', b'-', rest @ ..] => {
                let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                rest.get(end..).unwrap_or_default()
            }
            [b'/', b'*', rest @ ..] => after_comment(rest),
            _ => return text,
        };
    }
}

/// What stands behind a comment that has been opened; comments nest.
fn after_comment(mut rest: &[u8]) -> &[u8] {
    let mut depth = 1_usize;
    while let Some(at) = memchr::memchr2(b'/', b'*', rest) {
        let here = rest.get(at..).unwrap_or_default();
        let (change, width) = match here {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        depth = depth.saturating_add_signed(change);
        rest = here.get(width..).unwrap_or_default();
        if depth == 0 {
            return rest;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_postgresql_reads_them() {
        let name = |text: &str| text.as_bytes().into();
        for (text, expected) in [
            ("PREPARE a AS SELECT 1", Effect::Prepare(name("a"))),
            ("prepare A(int) as select $1", Effect::Prepare(name("a"))),
            (" ;; /* x /* y */ */ -- z\n\tPrepare \"A\"\"b\" as select 1", Effect::Prepare(name("A\"b"))),
            ("PREPARE/**/\"a\"AS SELECT 1", Effect::Prepare(name("a"))),
            ("prepare transaction 'x'", Effect::Prepare(name("transaction"))),
            ("EXECUTE a(1, 2)", Effect::Execute(name("a"))),
            ("execute _a$1", Effect::Execute(name("_a$1"))),
            ("DEALLOCATE a; select 1", Effect::Deallocate(name("a"))),
            ("DEALLOCATE PREPARE a", Effect::Deallocate(name("a"))),
            ("DEALLOCATE prepare", Effect::Deallocate(name("prepare"))),
            ("DEALLOCATE \"prepare\" a", Effect::Deallocate(name("prepare"))),
            ("deallocate all", Effect::Deallocate(name("all"))),
            ("DECLARE c CURSOR FOR SELECT 1", Effect::Declare(name("c"))),
            ("close c", Effect::Close(name("c"))),
            ("/***/close/****/c", Effect::Close(name("c"))),
        ] {
            assert_eq!(Effect::of(text.as_bytes()), expected, "{text}");
        }
        let long = format!("prepare {} as select 1", "x".repeat(70));
        assert_eq!(Effect::of(long.as_bytes()), Effect::Prepare(name(&"x".repeat(63))), "as PostgreSQL cuts it");
    }

    #[test]
    fn a_command_tag_that_a_text_cannot_end_with_is_told() {
        for (text, command) in [
            ("select 1", "SELECT"),
            (" /* x */ -- y\n;SELECT 1", "SELECT"),
            ("(select 1) union select 2", "SELECT"),
            ("(select 1)", "DELETE"),
            ("values (1)", "SELECT"),
            ("table t", "SELECT"),
            ("with x as (select 1) delete from t", "DELETE"),
            ("insert into t values (1)", "INSERT"),
            ("Update t set a = 1", "UPDATE"),
            ("create table t as select 1", "SELECT"),
            ("create table t ()", "CREATE TABLE"),
            ("execute p", "DELETE"),
            ("prepare p as delete from t", "DELETE"),
            ("declare c cursor for select 1", "SELECT"),
            ("declare c cursor for select 1", "DECLARE CURSOR"),
            ("commit", "ROLLBACK"),
            ("end", "COMMIT"),
            ("abort", "ROLLBACK"),
            ("start transaction", "START TRANSACTION"),
            ("truncate t", "TRUNCATE TABLE"),
            ("lock t", "LOCK TABLE"),
            ("analyse t", "ANALYZE"),
            ("grant a to b", "GRANT ROLE"),
            ("ü", "SELECT"),
            ("\"select\"", "DELETE"),
            ("select 1", "???"),
        ] {
            assert!(may_end_as(&text.as_bytes()[first_word(text.as_bytes())], command), "{text} {command}");
        }
        for (text, command) in [
            ("select 1", "DELETE"),
            ("select 1", "INSERT"),
            ("insert into t values (1)", "DELETE"),
            ("delete from t", "SELECT"),
            ("/* delete */ select 1", "DELETE"),
            ("begin", "COMMIT"),
            ("values (1)", "UPDATE"),
            ("show a", "SET"),
        ] {
            assert!(!may_end_as(&text.as_bytes()[first_word(text.as_bytes())], command), "{text} {command}");
        }
    }

    #[test]
    fn what_is_not_certain_says_nothing() {
        for text in [
            "",
            ";",
            "select 1",
            "explain execute a",
            "prepare",
            "prepare ü as select 1",
            "prepare aü as select 1",
            "prepare \"ü\" as select 1",
            "prepare U&\"d\\0061t\" as select 1",
            "\"prepare\" a",
            "prepared a",
            "prepareü a",
            "prepare 'a'",
            "prepare \"a",
            "/* prepare a */",
            "/* open prepare a",
            "-- prepare a",
            "- prepare a",
            "/ prepare a",
        ] {
            assert_eq!(Effect::of(text.as_bytes()), Effect::None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            let _ = Effect::of(&text);
        }
    }
}

//! What goes to the server in place of a message that is refused: it carries nothing of the client and fails there.
//!
//! Were a refused message only left out, the transaction around it would commit without it. So the server gets a
//! message of the same type that it must refuse itself: its transaction is aborted, a pipeline is skipped to Sync,
//! and its error, which is rewritten to ours on the way back, stands where the client waits for one.
//!
//! | refused | in its place | PostgreSQL's error |
//! |---|---|---|
//! | Query, Parse | a text that is one quoted identifier | 42601 (`scanner_yyerror`, `scan.l`) |
//! | Bind | of a statement that is not there | 26000 (`FetchPreparedStatement`, `prepare.c`) |
//! | Execute | of a portal that is not there | 34000 (`exec_execute_message`, `postgres.c`) |
//! | FunctionCall | of OID 0, which is no function's | 42883 (`fetch_fp_info`, `fastpath.c`) |
//! | CopyData | a CopyFail | 57014 (`CopyGetData`, `copyfromparse.c`) |
//!
//! In copy-both mode, where there is no such message, the session ends instead.
//!
//! In an aborted transaction some of them fail with 25P02; they fail all the same.

use super::tag::Tag;
use crate::wire::append;
use uuid::Uuid;

/// In front of every name that is impossible, so that who reads the database's log knows whose error it is.
const PREFIX: &str = "refused by pgpassport ";

/// The longest text that is looked at as a possible `ROLLBACK`, in bytes.
pub const MAX_ROLLBACK: u64 = 64;

/// Why a message was refused, while its session lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// The log cannot take the record.
    #[error("the audit log cannot take the record")]
    Unrecorded,
    /// With its tag the statement would pass PostgreSQL's limit.
    #[error("the statement is too long to carry its tag")]
    TooLong,
    /// Too many prepared statements and portals.
    #[error("too many prepared statements and portals")]
    Overfull,
    /// A statement's or portal's name that goes on past what is looked at.
    #[error("a statement or portal name does not end within {} bytes", super::client_side::INSPECTED_BYTES)]
    EndlessName,
    /// Too many statements of the caller.
    #[error("this caller runs more statements than its rule allows")]
    Statements,
    /// Too many bytes of the caller.
    #[error("this caller moves more bytes than its rule allows")]
    Bytes,
    /// Too many bytes of the caller's records.
    #[error("this caller takes more of the audit log than its rule allows")]
    Records,
    /// It waited for a limit, and the client cancelled it.
    #[error("canceling statement due to user request")]
    Withdrawn,
}

/// A name that nothing on the server has: 58 bytes, random for each refusal, never shown to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name([u8; PREFIX.len() + uuid::fmt::Hyphenated::LENGTH]);

/// A refused message's mark on its place in the queue of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// What the server's error or notice may quote.
    pub name: Name,
}

impl Name {
    /// Draws a name. 122 random bits: who has seen every earlier one cannot make this one a real statement's.
    pub fn draw() -> Self {
        Self::of(Uuid::new_v4())
    }

    fn of(random: Uuid) -> Self {
        let mut name = [b' '; PREFIX.len() + uuid::fmt::Hyphenated::LENGTH];
        let (prefix, id) = name.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX.as_bytes());
        random.as_hyphenated().encode_lower(id);
        Self(name)
    }

    /// Whether a text of the server's quotes this name.
    pub fn is_in(&self, text: &[u8]) -> bool {
        memchr::memmem::find(text, &self.0).is_some()
    }
}

/// The frame in place of a message of type `kind`: `Q`, `P`, `B`, `E`, `F`, or `d`. `unnamed` is a Parse of the
/// unnamed statement, which PostgreSQL drops even where the Parse fails.
pub fn frame(kind: u8, unnamed: bool, name: &Name, tag: &Tag) -> Vec<u8> {
    let name: &[u8] = &name.0;
    let text = [tag.bytes(), b"\"", name, b"\"\0"];
    let (kind, body) = match kind {
        b'P' => (kind, [if unnamed { b"" } else { name }, b"\0", &text.concat(), &[0; 2]].concat()),
        b'B' => (kind, [name, b"\0", name, b"\0", &[0; 6]].concat()),
        b'E' => (kind, [name, b"\0", &[0; 4]].concat()),
        b'F' => (kind, vec![0; 10]),
        b'd' => (b'f', [name, b"\0"].concat()),
        _ => (b'Q', text.concat()),
    };
    let mut frame = Vec::with_capacity(body.len().saturating_add(5));
    append(&mut frame, kind, &body);
    frame
}

/// What a text does that ends a transaction and can do nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// `COMMIT` or `END`.
    Commit,
    /// `ROLLBACK` or `ABORT`: it takes back, so it passes where nothing can be recorded.
    Rollback,
}

/// Whether a statement's whole text is one of the four words with an optional semicolon. The blanks are those of
/// PostgreSQL's scanner (`space`, `scan.l`).
pub fn ends(text: &[u8]) -> Option<Ends> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let trim = |text: &[u8]| {
        let start = text.iter().position(|byte| !blank(byte)).unwrap_or(text.len());
        let end = text.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last.saturating_add(1));
        (start, end)
    };
    let (start, end) = trim(text);
    let text = text.get(start..end).unwrap_or_default();
    let text = text.strip_suffix(b";").unwrap_or(text);
    let (start, end) = trim(text);
    let word = text.get(start..end).unwrap_or_default();
    let is = |words: [&str; 2]| words.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()));
    if is(["rollback", "abort"]) {
        return Some(Ends::Rollback);
    }
    is(["commit", "end"]).then_some(Ends::Commit)
}

#[cfg(test)]
mod tests {
    use super::super::tag::testing::{analyst, tag};
    use super::*;
    use crate::wire::{HEADER_BYTES, Header, Reader};

    fn rolls_back(text: &[u8]) -> bool {
        ends(text) == Some(Ends::Rollback)
    }

    const NAME: &str = "refused by pgpassport 00000000-0000-0000-0000-000000000007";

    fn name() -> Name {
        Name::of(Uuid::from_u128(7))
    }

    #[test]
    fn each_message_has_its_own_substitute() {
        let tag = tag(&analyst());
        let tagged = [tag.bytes(), format!("\"{NAME}\"\0").as_bytes()].concat();
        for (kind, unnamed, sent, body) in [
            (b'Q', false, b'Q', tagged.clone()),
            (b'P', false, b'P', [NAME.as_bytes(), b"\0", &tagged, b"\0\0"].concat()),
            (b'P', true, b'P', [b"\0", tagged.as_slice(), b"\0\0"].concat()),
            (b'B', false, b'B', format!("{NAME}\0{NAME}\0\0\0\0\0\0\0").into_bytes()),
            (b'E', false, b'E', format!("{NAME}\0\0\0\0\0").into_bytes()),
            (b'F', false, b'F', vec![0; 10]),
            (b'd', false, b'f', format!("{NAME}\0").into_bytes()),
        ] {
            let frame = frame(kind, unnamed, &name(), &tag);
            let header = Header::decode(&frame).unwrap().unwrap();
            assert_eq!((header.kind, header.frame()), (sent, frame.len()), "{}", char::from(kind));
            assert_eq!(&frame[HEADER_BYTES..], body, "{}", char::from(kind));
        }
    }

    #[test]
    fn names_fit_into_postgresqls_and_are_never_drawn_twice() {
        assert!(NAME.len() <= crate::names::MAX_IDENTIFIER_BYTES);
        assert_ne!(Name::draw(), Name::draw());
        assert!(name().is_in(format!("prepared statement \"{NAME}\" does not exist").as_bytes()));
        assert!(!name().is_in(b"refused by pgpassport") && !Name::draw().is_in(NAME.as_bytes()));
    }

    #[test]
    fn only_a_whole_commit_commits_and_does_nothing_else() {
        for text in ["commit", "COMMIT;", " \n\tEnd \r;\x0b\x0c ", "end"] {
            assert_eq!(ends(text.as_bytes()), Some(Ends::Commit), "{text:?}");
        }
        for text in
            ["commit;;", "commit; select 1", "commit and chain", "commit work", "end transaction", "commit -- x"]
        {
            assert_eq!(ends(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn only_a_whole_rollback_takes_back() {
        for text in ["rollback", "ROLLBACK;", " \n\tAbort \r;\x0b\x0c ", "abort"] {
            assert!(rolls_back(text.as_bytes()), "{text:?}");
        }
        for text in [
            "",
            ";",
            "commit",
            "END",
            "rollback;;",
            "rollback; select 1",
            "rollback to savepoint a",
            "rollback and chain",
            "rollback work",
            "rollback -- x",
            "/* x */ rollback",
            "rollback prepared 'x'",
            "\u{a0}rollback",
            "rollback\0",
            "roll back",
        ] {
            assert!(!rolls_back(text.as_bytes()), "{text:?}");
        }
    }

    proptest::proptest! {
        /// Nothing but blanks, one of two words and one semicolon is ever let pass.
        #[test]
        fn whatever_takes_back_is_one_word(text in "[ \t\n;a-zA-Z'\"-]{0,3}(rollback|ABORT|RollBack)?[ \n;a-c'/*-]{0,4}") {
            if rolls_back(text.as_bytes()) {
                let word: String = text.chars().filter(|c| !c.is_whitespace() && *c != ';').collect();
                proptest::prop_assert!(["rollback", "abort"].contains(&word.to_lowercase().as_str()), "{:?}", text);
                proptest::prop_assert!(text.matches(';').count() <= 1 && !text.trim_start().starts_with(';'));
            }
        }

        #[test]
        fn a_substitute_is_one_whole_frame(kind in proptest::sample::select(b"QPBEFd".to_vec()), unnamed: bool) {
            let frame = frame(kind, unnamed, &Name::draw(), &Tag::none());
            let header = Header::decode(&frame).unwrap().unwrap();
            proptest::prop_assert_eq!(header.frame(), frame.len());
            if kind != b'F' {
                let mut reader = Reader::new(&frame[HEADER_BYTES..]);
                proptest::prop_assert!(reader.cstr().is_ok());
            }
        }
    }
}

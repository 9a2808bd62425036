//! A text's words, strings and symbols, as PostgreSQL's scanner tells them apart (`src/backend/parser/scan.l`).
//!
//! Not for parsing: only what comments, quotes and dollar quotes hide is kept apart from what they do not.

use std::borrow::Cow;

/// What a backslash does in an ordinary string (`standard_conforming_strings`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backslashes {
    /// It stands for itself.
    Plain,
    /// It takes the next byte as it is, as in `E'…'`.
    Escape,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or name without quotes, as it is written.
    Word(&'a [u8]),
    /// A name in double quotes.
    Quoted(Cow<'a, [u8]>),
    /// A string in single quotes or dollars.
    Text(Cow<'a, [u8]>),
    /// Any other character.
    Symbol(u8),
    /// What has another spelling than its meaning: `U&'…'`, `U&"…"`.
    Other,
}

impl Token<'_> {
    /// Whether it is this word, written in lower case here.
    pub(super) fn is(&self, word: &[u8]) -> bool {
        matches!(self, Token::Word(own) if own.eq_ignore_ascii_case(word))
    }

    /// Whether it names this, in quotes or not.
    pub(super) fn names(&self, name: &[u8]) -> bool {
        self.is(name) || matches!(self, Token::Quoted(own) if own.as_ref() == name)
    }
}

/// What is left of a text.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
    backslashes: Backslashes,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a [u8], backslashes: Backslashes) -> Self {
        // The server reads a text up to its first NUL.
        let end = memchr::memchr(0, text).unwrap_or(text.len());
        Self { rest: text.get(..end).unwrap_or_default(), backslashes }
    }

    /// A word, or the string whose prefix it is.
    fn word(&mut self) -> Token<'a> {
        let inside = |byte: &u8| is_letter(*byte) || byte.is_ascii_digit() || *byte == b'$';
        let end = self.rest.iter().position(|byte| !inside(byte)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).unwrap_or_default();
        self.rest = rest;
        match (word, rest) {
            ([b'e' | b'E'], [b'\'', ..]) => self.string(Backslashes::Escape),
            ([b'b' | b'B' | b'x' | b'X'], [b'\'', ..]) => {
                self.string(Backslashes::Plain);
                Token::Other
            }
            ([b'n' | b'N'], [b'\'', ..]) => self.string(self.backslashes),
            ([b'u' | b'U'], [b'&', quote @ (b'\'' | b'"'), ..]) => {
                self.rest = rest.get(1..).unwrap_or_default();
                self.quoted(*quote, Backslashes::Plain);
                Token::Other
            }
            _ => Token::Word(word),
        }
    }

    fn string(&mut self, backslashes: Backslashes) -> Token<'a> {
        Token::Text(self.quoted(b'\'', backslashes))
    }

    /// What stands between the quote at the front and its end, or the text's.
    fn quoted(&mut self, quote: u8, backslashes: Backslashes) -> Cow<'a, [u8]> {
        let body = self.rest.get(1..).unwrap_or_default();
        let mut own: Option<Vec<u8>> = None;
        let mut at = 0_usize;
        while let Some(byte) = body.get(at) {
            let next = body.get(at.saturating_add(1));
            let pair = if *byte == quote {
                next == Some(&quote)
            } else {
                *byte == b'\\' && backslashes == Backslashes::Escape
            };
            if *byte == quote && !pair {
                break;
            }
            if pair {
                let own = own.get_or_insert_with(|| body.get(..at).unwrap_or_default().to_vec());
                own.extend(next);
            } else if let Some(own) = &mut own {
                own.push(*byte);
            }
            at = at.saturating_add(if pair { 2 } else { 1 });
        }
        self.rest = body.get(at.saturating_add(1)..).unwrap_or_default();
        own.map_or_else(|| Cow::Borrowed(body.get(..at).unwrap_or(body)), Cow::Owned)
    }

    /// `$tag$ … $tag$`; a dollar alone is a symbol.
    fn dollar(&mut self) -> Token<'a> {
        let inside = |byte: &u8| is_letter(*byte) || byte.is_ascii_digit();
        let behind = self.rest.get(1..).unwrap_or_default();
        let tag = behind.iter().position(|byte| !inside(byte)).filter(|end| behind.get(*end) == Some(&b'$'));
        let tag = tag.filter(|_| !behind.first().is_some_and(u8::is_ascii_digit));
        let Some(delimiter) = tag.and_then(|end| self.rest.get(..end.saturating_add(2))) else {
            self.rest = behind;
            return Token::Symbol(b'$');
        };
        let body = self.rest.get(delimiter.len()..).unwrap_or_default();
        let end = memchr::memmem::find(body, delimiter).unwrap_or(body.len());
        self.rest = body.get(end.saturating_add(delimiter.len())..).unwrap_or_default();
        Token::Text(Cow::Borrowed(body.get(..end).unwrap_or_default()))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.rest = super::super::sql::after_blanks(self.rest);
        let first = *self.rest.first()?;
        Some(match first {
            b'\'' => self.string(self.backslashes),
            b'"' => Token::Quoted(self.quoted(b'"', Backslashes::Plain)),
            b'$' => self.dollar(),
            letter if is_letter(letter) => self.word(),
            symbol => {
                self.rest = self.rest.get(1..).unwrap_or_default();
                Token::Symbol(symbol)
            }
        })
    }
}

/// `ident_start`.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | 0x80..)
}

//! A text without its literals: what stays readable of a statement whose text is sealed.
//!
//! Literals become `?`, comments a blank; everything else stays as it was written, `$1` and quoted names too. The rules
//! are PostgreSQL's (`src/backend/parser/scan.l`), in so far as they tell where a literal ends. Where they depend on
//! what cannot be seen from here there is no shape: a backslash in a plain literal, which `standard_conforming_strings`
//! decides, and bytes that are no UTF-8, of which an encoding may make anything.
//!
//! In the encodings of East Asia a byte of the ASCII range can be a character's second half: those are letters, digits,
//! and the backslash, never a quote, a dollar sign, or what opens a comment. A letter that is one belongs to a name
//! either way.

/// What stands for a literal.
const LITERAL: u8 = b'?';

/// The shape of a text, which may be cut anywhere; none where it is not certain.
pub fn shape(text: &str) -> Option<String> {
    let mut reading = Reading { rest: text.as_bytes(), shape: Vec::with_capacity(text.len()) };
    while let Some(&first) = reading.rest.first() {
        reading.token(first)?;
    }
    String::from_utf8(reading.shape).ok()
}

struct Reading<'a> {
    rest: &'a [u8],
    shape: Vec<u8>,
}

/// How a literal in quotes ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoted {
    /// At a quote that is not doubled; a backslash may or may not hide it.
    Plain,
    /// At a quote that is neither doubled nor behind a backslash.
    Escaped,
    /// At a quote that is not doubled, whatever is in front of it.
    Unicode,
}

impl Reading<'_> {
    fn token(&mut self, first: u8) -> Option<()> {
        match self.rest {
            [b'\'', ..] => self.literal(0, Quoted::Plain)?,
            [b'"', ..] => self.name(),
            [b'-', b'-', ..] => self.line_comment(),
            [b'/', b'*', ..] => self.comment(),
            [b'$', ..] => self.dollar(),
            [b'.', b'.', ..] => self.keep(2),
            [b'.', next, ..] if next.is_ascii_digit() => self.number(),
            _ if first.is_ascii_digit() => self.number(),
            _ if begins_word(first) => self.word()?,
            _ => self.keep(1),
        }
        Some(())
    }

    fn keep(&mut self, count: usize) {
        let (kept, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
        self.shape.extend_from_slice(kept);
        self.rest = rest;
    }

    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// A literal in quotes behind so many bytes of its own.
    fn literal(&mut self, prefix: usize, quoted: Quoted) -> Option<()> {
        self.skip(prefix.saturating_add(1));
        self.shape.push(LITERAL);
        while let Some(at) = memchr::memchr2(b'\'', b'\\', self.rest) {
            let (here, next) = (self.rest.get(at), self.rest.get(at.saturating_add(1)));
            let width = match (here, quoted) {
                (Some(b'\\'), Quoted::Plain) => return None,
                (Some(b'\\'), Quoted::Unicode) => 1,
                (Some(b'\\'), Quoted::Escaped) => 2,
                _ if next == Some(&b'\'') => 2,
                _ => {
                    self.skip(at.saturating_add(1));
                    return Some(());
                }
            };
            self.skip(at.saturating_add(width));
        }
        self.rest = &[];
        Some(())
    }

    /// A quoted name stays: it is no literal.
    fn name(&mut self) {
        let mut at = 1_usize;
        loop {
            let Some(end) = self.rest.get(at..).and_then(|rest| memchr::memchr(b'"', rest)) else {
                return self.keep(self.rest.len());
            };
            at = at.saturating_add(end).saturating_add(1);
            if self.rest.get(at) != Some(&b'"') {
                return self.keep(at);
            }
            at = at.saturating_add(1);
        }
    }

    fn line_comment(&mut self) {
        let end = memchr::memchr2(b'\n', b'\r', self.rest).unwrap_or(self.rest.len());
        self.skip(end);
        self.shape.push(b' ');
    }

    /// Comments nest.
    fn comment(&mut self) {
        self.shape.push(b' ');
        self.skip(2);
        let mut depth = 1_usize;
        while depth > 0 && !self.rest.is_empty() {
            let at = memchr::memchr2(b'/', b'*', self.rest).unwrap_or(self.rest.len());
            self.skip(at);
            let (change, width) = match self.rest {
                [b'/', b'*', ..] => (1, 2),
                [b'*', b'/', ..] => (-1, 2),
                _ => (0, 1),
            };
            depth = depth.saturating_add_signed(change);
            self.skip(width);
        }
    }

    /// A literal in dollar signs, a parameter, or a dollar sign.
    fn dollar(&mut self) {
        let inside = |byte: &u8| begins_word(*byte) || byte.is_ascii_digit();
        let tag = self.rest.get(1..).unwrap_or_default();
        let length = tag.iter().position(|byte| !inside(byte)).unwrap_or(tag.len());
        let closes = tag.get(length) == Some(&b'$');
        if tag.first().is_some_and(u8::is_ascii_digit) || !closes {
            // `$1`; or no literal: the sign stands for itself, and what follows is read for what it is.
            let digits = tag.iter().take_while(|byte| byte.is_ascii_digit()).count();
            return self.keep(digits.saturating_add(1));
        }
        let (mark, rest) = self.rest.split_at_checked(length.saturating_add(2)).unwrap_or((self.rest, &[]));
        let end = memchr::memmem::find(rest, mark).map(|at| at.saturating_add(mark.len()));
        self.shape.push(LITERAL);
        self.rest = end.and_then(|end| rest.get(end..)).unwrap_or_default();
    }

    /// Digits, a fraction, an exponent, `0x1F`, `1_000`, and whatever letters stick to it.
    fn number(&mut self) {
        self.shape.push(LITERAL);
        let mut before = b' ';
        while let Some(&byte) = self.rest.first() {
            let sign = matches!(byte, b'+' | b'-') && matches!(before, b'e' | b'E');
            // `1..2` is two numbers with two dots between, in PL/pgSQL.
            let dot = byte == b'.' && self.rest.get(1) != Some(&b'.');
            if !(byte.is_ascii_digit() || begins_word(byte) || sign || dot) {
                break;
            }
            before = byte;
            self.skip(1);
        }
    }

    /// A keyword or name; or what stands before a literal: `E'…'`, `U&'…'`, `B'…'`, `X'…'`, `N'…'`.
    fn word(&mut self) -> Option<()> {
        let inside = |byte: &u8| begins_word(*byte) || byte.is_ascii_digit() || *byte == b'$';
        let length = self.rest.iter().position(|byte| !inside(byte)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(length)?;
        match (word, rest) {
            (b"e" | b"E", [b'\'', ..]) => self.literal(1, Quoted::Escaped),
            (b"u" | b"U", [b'&', b'\'', ..]) => self.literal(2, Quoted::Unicode),
            (b"b" | b"B" | b"x" | b"X" | b"n" | b"N", [b'\'', ..]) => self.literal(1, Quoted::Plain),
            _ => {
                self.keep(length);
                Some(())
            }
        }
    }
}

/// Letters, the underscore, and everything beyond ASCII.
fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_go_and_everything_else_stays() {
        for (text, expected) in [
            ("select a, 1, 1.5e-3, .5, 0x1F, 1_000 from t1", "select a, ?, ?, ?, ?, ? from t1"),
            ("select 'it''s', E'\\'x', e'\\\\', U&'\\0441', B'01', X'ff', N'n'", "select ?, ?, ?, ?, ?, ?, ?"),
            ("select date'2020-01-01' = $1 and $2::int", "select date? = $1 and $2::int"),
            ("select $$a'b$$, $x$ $$ $y$ $x$, a$b$c from t", "select ?, ?, a$b$c from t"),
            ("select \"Name '1'\"\"x\" , 'a' -- by 'me'\n, 2", "select \"Name '1'\"\"x\" , ?  \n, ?"),
            ("select /* a /* 'b */ */ 'c' /* open '", "select   ?  "),
            ("select 'open", "select ?"),
            ("select $tag$ open $tag", "select ?"),
            ("select 1-2, a-3, b--4\n+5", "select ?-?, a-?, b \n+?"),
            ("select 'grün' as grün, grün1", "select ? as grün, grün1"),
            ("values ('a'\n'b')", "values (?\n?)"),
            ("select f(a=>1)[1..2]", "select f(a=>?)[?..?]"),
            ("select 5e5x, 1a'b'", "select ?, ??"),
            ("select $1$2, $a", "select $1$2, $a"),
            ("", ""),
        ] {
            assert_eq!(shape(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_a_setting_decides_has_no_shape() {
        for text in ["select 'a\\' , 'secret'", "select 'C:\\'", "select b'\\'"] {
            assert_eq!(shape(text), None, "{text}");
        }
        assert_eq!(shape("select U&'\\' , a"), Some("select ? , a".to_owned()), "U& has no escapes of quotes");
    }

    /// A secret in each form that a literal has.
    fn literal() -> impl Strategy<Value = String> {
        let text = "[a-z '\"$;/*-]{0,8}";
        prop_oneof![
            text.prop_map(|text| format!("'{}SECRET{}'", text.replace('\'', "''"), text.replace('\'', "''"))),
            text.prop_map(|text| format!("E'{}\\'SECRET\\\\'", text.replace('\'', "\\'"))),
            text.prop_map(|text| format!("$q${}SECRET$q$", text.replace("$q$", ""))),
            Just("U&'SECRET\\0041'".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn no_literal_stays(parts in prop::collection::vec(
            (literal(), prop_oneof![Just(" , "), Just("::text||"), Just(" /* x */ "), Just("\n--'\n"), Just(" \"q'\" ")]),
            1..6,
        )) {
            let text: String = parts.iter().flat_map(|(literal, between)| [literal.as_str(), between]).collect();
            let shape = shape(&format!("select {text}")).unwrap_or_default();
            prop_assert!(!shape.contains("SECRET"), "{text} -> {shape}");
        }

        #[test]
        fn any_text_and_any_cut_of_it_is_read(text in ".{0,64}") {
            for (at, _) in text.char_indices() {
                drop(shape(&text[..at]));
            }
        }
    }
}

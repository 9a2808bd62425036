//! SQL that makes a session act as another database user: which texts say so, and as whom.
//!
//! Every statement of a text is looked at, as far as the text is known. Recognized are `SET [SESSION | LOCAL] ROLE …`,
//! `SET [SESSION | LOCAL] SESSION AUTHORIZATION …`, the same as settings (`SET role TO …`), their `RESET`, `DISCARD ALL`,
//! and `set_config` with the setting's name as a plain string, wherever it stands. What functions, `DO` blocks, updates of
//! `pg_settings`, or names put together at run time do is not seen.
//!
//! Sources: `VariableSetStmt`, `VariableResetStmt`, `DiscardStmt` (`src/backend/parser/gram.y`).

mod tokens;

use crate::audit::event::{Acting, RoleChange};
use tokens::{Backslashes, Token, Tokens};

/// Changes that are told of one text. The last of as many stands for all that follow, and does not say as whom.
const MAX_CHANGES: usize = 16;

/// The changes that a text says, in its order.
pub fn role_changes(text: &[u8]) -> Vec<RoleChange> {
    if !may_say_so(text) {
        return Vec::new();
    }
    let mut changes = scan(text, Backslashes::Plain);
    // Whether a backslash escapes in an ordinary string depends on a setting of the session: both are looked at.
    if memchr::memchr(b'\\', text).is_some() {
        let more: Vec<_> = scan(text, Backslashes::Escape).into_iter().filter(|more| !changes.contains(more)).collect();
        changes.extend(more);
        bound(&mut changes);
    }
    changes
}

/// Whether a word is in it that every change has, or that nobody can read. Most texts end here.
fn may_say_so(text: &[u8]) -> bool {
    has_part(text) && has_word(text)
}

fn has_word(text: &[u8]) -> bool {
    let around = |at: usize, before: usize, word: &[u8]| {
        let start = at.checked_sub(before);
        let found = start.and_then(|start| text.get(start..start.saturating_add(word.len())));
        found.is_some_and(|found| found.eq_ignore_ascii_case(word))
    };
    memchr::memchr2_iter(b'l', b'L', text).any(|at| around(at, 2, b"role"))
        || memchr::memchr2_iter(b'z', b'Z', text).any(|at| around(at, 7, b"authorization"))
        || memchr::memchr2_iter(b'd', b'D', text).any(|at| around(at, 0, b"discard"))
        // A name with escapes of its own.
        || memchr::memchr_iter(b'&', text).any(|at| around(at, 0, b"&\""))
}

/// Whether a part of such a word is in it. All of the text is looked at, and nothing is decided on the way: the compiler
/// makes vectors of it.
fn has_part(text: &[u8]) -> bool {
    let behind = |bytes: usize| text.get(bytes..).unwrap_or_default();
    let threes = text.iter().zip(behind(1)).zip(behind(2));
    // Zero where the bytes are such a part, in small letters or not.
    let least = threes.fold(u8::MAX, |least, ((first, second), third)| {
        let (first, second, third) = (first | 0x20, second | 0x20, third | 0x20);
        let role = (first ^ b'o') | (second ^ b'l') | (third ^ b'e');
        let discard = (first ^ b'd') | (second ^ b'i') | (third ^ b's');
        let quoted = (first ^ b'&') | (second ^ b'"');
        least.min(role).min(discard).min(first ^ b'z').min(quoted)
    });
    least == 0 || text.ends_with(b"&\"")
}

fn scan(text: &[u8], backslashes: Backslashes) -> Vec<RoleChange> {
    let mut tokens = Tokens::new(text, backslashes);
    let mut changes = Vec::new();
    let mut first = true;
    while let Some(token) = tokens.next() {
        let found = if first && token.is(b"set") {
            set(tokens.clone())
        } else if first && token.is(b"reset") {
            reset(tokens.clone())
        } else if first && token.is(b"discard") {
            discard(tokens.clone())
        } else if token.names(b"set_config") {
            set_config(tokens.clone())
        } else {
            None
        };
        changes.extend(found);
        if bound(&mut changes) {
            break;
        }
        first = token == Token::Symbol(b';');
    }
    changes
}

/// Whether there are more changes than are told: then the last one told says no name.
fn bound(changes: &mut Vec<RoleChange>) -> bool {
    let more = changes.len() > MAX_CHANGES;
    if more {
        changes.truncate(MAX_CHANGES.saturating_sub(1));
        changes.push(change(Acting::Role, None, false));
    }
    more
}

/// Behind `SET`.
fn set(mut tokens: Tokens<'_>) -> Option<RoleChange> {
    let mut token = tokens.next()?;
    let local = token.is(b"local");
    if token.is(b"session") {
        let next = tokens.next()?;
        if next.is(b"authorization") {
            return Some(change(Acting::SessionAuthorization, tokens.next(), local));
        }
        token = next;
    } else if local {
        token = tokens.next()?;
    }
    if token.is(b"session") {
        let named = tokens.next()?.is(b"authorization");
        return named.then(|| change(Acting::SessionAuthorization, tokens.next(), local));
    }
    // A name with escapes of its own (`U&"…"`) is not read: it may be either.
    let escaped = (token == Token::Other).then_some(Acting::Role);
    let setting = setting(&token).or(escaped)?;
    let next = tokens.next();
    if next.as_ref().is_some_and(|next| next.is(b"to") || *next == Token::Symbol(b'=')) {
        return Some(change(setting, tokens.next(), local));
    }
    // ROLE is a word of the grammar, not the setting's name in quotes.
    token.is(b"role").then(|| change(setting, next, local))
}

/// Behind `RESET`.
fn reset(mut tokens: Tokens<'_>) -> Option<RoleChange> {
    let token = tokens.next()?;
    if token.is(b"session") {
        return tokens.next()?.is(b"authorization").then(|| back(Acting::SessionAuthorization, false));
    }
    setting(&token).map(|setting| back(setting, false))
}

/// `DISCARD ALL` resets who the session acts as, in both ways.
fn discard(mut tokens: Tokens<'_>) -> Option<RoleChange> {
    tokens.next()?.is(b"all").then(|| back(Acting::SessionAuthorization, false))
}

/// Behind `set_config`: `('role', 'x', false)`, or its arguments by name, in any order.
fn set_config(mut tokens: Tokens<'_>) -> Option<RoleChange> {
    if tokens.next()? != Token::Symbol(b'(') {
        return None;
    }
    let by_name = by_name(tokens.clone());
    if by_name.is_some() {
        return by_name.map(|setting| change(setting, None, false));
    }
    let Token::Text(name) = tokens.next()? else { return None };
    let setting = named(&name)?;
    let (comma, to, behind) = (tokens.next(), tokens.next(), tokens.next());
    let plain = comma == Some(Token::Symbol(b',')) && behind == Some(Token::Symbol(b','));
    let to = to.filter(|to| plain && matches!(to, Token::Text(_)));
    let local = plain && tokens.next().is_some_and(|token| token.is(b"true"));
    Some(change(setting, to, local))
}

/// How far a name of `set_config`'s first argument is looked for: three names, arrows, values and commas.
const ARGUMENTS: usize = 14;

/// `setting_name => 'role'`, or with `:=`, among the first tokens of the arguments.
fn by_name(mut tokens: Tokens<'_>) -> Option<Acting> {
    for _ in 0..ARGUMENTS {
        if tokens.next()?.is(b"setting_name") {
            tokens.next()?;
            tokens.next()?;
            let Token::Text(name) = tokens.next()? else { return None };
            return named(&name);
        }
    }
    None
}

fn setting(token: &Token<'_>) -> Option<Acting> {
    match token {
        Token::Word(name) => named(name),
        Token::Quoted(name) => named(name),
        _ => None,
    }
}

fn named(name: &[u8]) -> Option<Acting> {
    if name.eq_ignore_ascii_case(b"role") {
        Some(Acting::Role)
    } else if name.eq_ignore_ascii_case(b"session_authorization") {
        Some(Acting::SessionAuthorization)
    } else {
        None
    }
}

/// Names are folded where they are not quoted.
fn change(setting: Acting, to: Option<Token<'_>>, local: bool) -> RoleChange {
    let name = match to {
        Some(token) if token.is(b"default") => return back(setting, local),
        Some(Token::Word(name)) => Some(name.to_ascii_lowercase()),
        Some(Token::Quoted(name) | Token::Text(name)) => Some(name.into_owned()),
        _ => None,
    };
    let to = name.map(|name| String::from_utf8_lossy(super::effective_name(&name)).into_owned());
    RoleChange { setting, to, reset: false, local }
}

fn back(setting: Acting, local: bool) -> RoleChange {
    RoleChange { setting, to: None, reset: true, local }
}

#[cfg(test)]
mod tests;

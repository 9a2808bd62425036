//! The start-up parameter `options`, as PostgreSQL reads it: split at blanks, then switches.
//!
//! Sources: `pg_split_opts` (`src/backend/utils/init/postinit.c`), `process_postgres_switches`
//! (`src/backend/tcop/postgres.c`), `ParseLongOption` (`src/backend/utils/misc/guc.c`), and `getopt(3)`. What PostgreSQL
//! itself would not start with is an error here: what is not understood is not passed on.

/// Switches that take an argument, those of all versions from 10 to 18.
const WITH_ARGUMENT: &[u8] = b"BCcDdfhkNprStvW-";
/// Switches that take none.
const WITHOUT: &[u8] = b"bEeFijlnOPsT";

/// One switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Switch {
    /// `-c name=value` and `--name=value`, with underscores for dashes.
    Setting { name: Vec<u8>, value: Vec<u8> },
    /// Any other.
    Letter { letter: u8, argument: Option<Vec<u8>> },
}

/// PostgreSQL would not start a session with these options.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclear;

/// Every switch, in order.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Switch>, Unclear> {
    let mut switches = Vec::new();
    let mut words = split(text).into_iter();
    while let Some(word) = words.next() {
        if word == b"--" {
            break;
        }
        let mut rest = word.strip_prefix(b"-").filter(|letters| !letters.is_empty()).ok_or(Unclear)?;
        while let Some((letter, after)) = rest.split_first() {
            rest = after;
            if WITHOUT.contains(letter) {
                switches.push(Switch::Letter { letter: *letter, argument: None });
            } else if WITH_ARGUMENT.contains(letter) {
                // The rest of the word, or the next one, whatever it looks like.
                let argument = if after.is_empty() { words.next().ok_or(Unclear)? } else { after.to_vec() };
                switches.push(with_argument(*letter, argument)?);
                rest = &[];
            } else {
                return Err(Unclear);
            }
        }
    }
    // Behind `--` nothing may stand.
    if words.next().is_some() { Err(Unclear) } else { Ok(switches) }
}

/// The same switches as text, with nothing left to interpretation.
pub(super) fn render<'a>(switches: impl Iterator<Item = &'a Switch>) -> Vec<u8> {
    let mut text = Vec::new();
    for switch in switches {
        if !text.is_empty() {
            text.push(b' ');
        }
        match switch {
            Switch::Setting { name, value } => {
                text.extend_from_slice(b"-c ");
                escape(&mut text, &[name, b"=".as_slice(), value].concat());
            }
            Switch::Letter { letter, argument } => {
                text.extend_from_slice(&[b'-', *letter]);
                if let Some(argument) = argument {
                    text.push(b' ');
                    escape(&mut text, argument);
                }
            }
        }
    }
    text
}

impl Switch {
    /// The settings that a letter stands for, lower case; none where it is not known which.
    pub(super) fn stands_for(&self) -> &'static [&'static str] {
        let Self::Letter { letter, .. } = self else { return &[] };
        match letter {
            b'B' => &["shared_buffers"],
            b'd' => &["log_min_messages", "client_min_messages", "log_statement", "log_connections"],
            b'e' => &["datestyle"],
            b'F' => &["fsync"],
            b'f' => &[
                "enable_seqscan",
                "enable_indexscan",
                "enable_indexonlyscan",
                "enable_bitmapscan",
                "enable_tidscan",
                "enable_nestloop",
                "enable_mergejoin",
                "enable_hashjoin",
            ],
            b'h' | b'i' => &["listen_addresses"],
            b'k' => &["unix_socket_directories"],
            b'l' => &["ssl"],
            b'N' => &["max_connections"],
            b'O' => &["allow_system_table_mods"],
            b'P' => &["ignore_system_indexes"],
            b'p' => &["port"],
            b'S' => &["work_mem"],
            b's' => &["log_statement_stats"],
            b't' => &["log_parser_stats", "log_planner_stats", "log_executor_stats"],
            b'W' => &["post_auth_delay"],
            _ => &[],
        }
    }
}

fn with_argument(letter: u8, argument: Vec<u8>) -> Result<Switch, Unclear> {
    if !matches!(letter, b'c' | b'-') {
        return Ok(Switch::Letter { letter, argument: Some(argument) });
    }
    let equals = argument.iter().position(|byte| *byte == b'=').ok_or(Unclear)?;
    let (name, value) = argument.split_at_checked(equals).ok_or(Unclear)?;
    let name = name.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect();
    Ok(Switch::Setting { name, value: value.get(1..).unwrap_or_default().to_vec() })
}

/// Words between blanks; a backslash takes the next byte as it is.
fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut escaped = false;
    for byte in text {
        if !escaped && is_blank(*byte) {
            words.extend(word.take());
        } else if !escaped && *byte == b'\\' {
            escaped = true;
            word.get_or_insert_default();
        } else {
            escaped = false;
            word.get_or_insert_default().push(*byte);
        }
    }
    words.extend(word);
    words
}

fn escape(text: &mut Vec<u8>, word: &[u8]) {
    for byte in word {
        if !byte.is_ascii_graphic() || *byte == b'\\' {
            text.push(b'\\');
        }
        text.push(*byte);
    }
}

/// `isspace` of the C locale.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn setting(name: &str, value: &str) -> Switch {
        Switch::Setting { name: name.into(), value: value.into() }
    }

    fn letter(letter: u8, argument: Option<&str>) -> Switch {
        Switch::Letter { letter, argument: argument.map(Into::into) }
    }

    #[test]
    fn switches_are_read_as_postgresql_reads_them() {
        for (text, expected) in [
            ("", vec![]),
            (" \t\n\x0b\x0c\r", vec![]),
            ("-c role=dba", vec![setting("role", "dba")]),
            ("-crole=dba", vec![setting("role", "dba")]),
            ("--role=dba", vec![setting("role", "dba")]),
            ("--session-authorization=dba", vec![setting("session_authorization", "dba")]),
            ("-c session-authorization=d-b-a", vec![setting("session_authorization", "d-b-a")]),
            ("-c ROLE=dba", vec![setting("ROLE", "dba")]),
            ("-c\\ role=dba", vec![setting(" role", "dba")]),
            (r"-\c role=a\ \\b", vec![setting("role", r"a \b")]),
            (r"--search_path=\ ", vec![setting("search_path", " ")]),
            ("-c a=b=c", vec![setting("a", "b=c")]),
            ("-c a=", vec![setting("a", "")]),
            ("-EFc role=dba", vec![letter(b'E', None), letter(b'F', None), setting("role", "dba")]),
            ("-s-role=dba", vec![letter(b's', None), setting("role", "dba")]),
            ("-S 64 --a=1 --", vec![letter(b'S', Some("64")), setting("a", "1")]),
            ("-c --role=dba", vec![setting("__role", "dba")]),
            ("-e\\", vec![letter(b'e', None)]),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_postgresql_would_not_start_with_is_not_passed_on() {
        for text in [
            "role=dba",
            "- -c a=b",
            "-c",
            "-c role",
            "--role",
            "-c -- role=dba",
            "-- -c role=dba",
            "-x",
            "-q role=dba",
            "\\",
            "-c a=b -S",
            "x -c a=b",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Unclear), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_rendered_means_the_same(text in "[-\\\\ a-eF=SN\u{e9}\t]{0,40}") {
            if let Ok(switches) = parse(text.as_bytes()) {
                prop_assert_eq!(parse(&render(switches.iter())), Ok(switches));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&text).map(|switches| render(switches.iter()));
        }
    }
}

//! Which texts of a replication session are commands of the walsender, and which are SQL.
//!
//! PostgreSQL decides by the first token, which its replication scanner reads: keywords in capitals, after its own
//! white space, and no comments (`replication_scanner_is_replication_command`,
//! `src/backend/replication/repl_scanner.l`). Everything else is SQL. A tag in front of a command would make SQL of it,
//! so commands go without.
//!
//! Invariant: what PostgreSQL could run as SQL is never taken for a command. Where its versions differ the older
//! answer counts: a keyword that an older server does not know is a syntax error there, as no statement begins so.

/// The commands of PostgreSQL 10 to 18 (documentation, "Streaming Replication Protocol").
const COMMANDS: [&[u8]; 10] = [
    b"IDENTIFY_SYSTEM",
    b"BASE_BACKUP",
    b"START_REPLICATION",
    b"CREATE_REPLICATION_SLOT",
    b"DROP_REPLICATION_SLOT",
    b"ALTER_REPLICATION_SLOT",
    b"READ_REPLICATION_SLOT",
    b"TIMELINE_HISTORY",
    b"UPLOAD_MANIFEST",
    b"SHOW",
];

/// Whether a text of `bytes` in all that starts with `text` is a command of the walsender. A first word whose end is
/// not known is SQL.
pub fn is_command(text: &[u8], bytes: u64) -> bool {
    // `\v` is white space since PostgreSQL 16 only.
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)).unwrap_or(text.len());
    let rest = text.get(start..).unwrap_or_default();
    let end = rest.iter().position(|byte| !is_identifier(*byte)).unwrap_or(rest.len());
    let ends = end < rest.len() || bytes == text.len() as u64;
    ends && COMMANDS.iter().any(|command| rest.get(..end) == Some(command))
}

/// `ident_cont`.
fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_sql_as_postgresql_tells_them() {
        for text in [
            "IDENTIFY_SYSTEM",
            " \t\r\n\x0cIDENTIFY_SYSTEM;",
            "SHOW wal_segment_size",
            "START_REPLICATION SLOT \"s\" LOGICAL 0/0 (proto_version '1')",
            "BASE_BACKUP(LABEL 'x')",
            "UPLOAD_MANIFEST",
            "SHOW\0DROP TABLE orders",
        ] {
            assert!(is_command(text.as_bytes(), text.len() as u64), "{text}");
        }
        for text in [
            "",
            "   ",
            "identify_system",
            "show wal_segment_size",
            "Show x",
            "/**/ IDENTIFY_SYSTEM",
            "--\nIDENTIFY_SYSTEM",
            "\x0bSHOW x",
            "\u{a0}SHOW x",
            "\"SHOW\" x",
            "SHOWX",
            "SHOW$ x",
            "SHOW_ x",
            "SHOWé",
            "SHOW1",
            ";SHOW x",
            "SELECT 1; SHOW x",
            "BASE_BACKU",
            "1/SHOW",
        ] {
            assert!(!is_command(text.as_bytes(), text.len() as u64), "{text}");
        }
        assert!(is_command(b"SHOW ", 100) && !is_command(b"SHOW", 100), "it may go on as SHOWX");
    }
}

//! PostgreSQL's own log, as `log_line_prefix = '%m [%p] %u %d %e '` writes it.
//!
//! A message's further lines start with a tab (`append_with_tabs`, `elog.c`), so no statement can forge a line.

/// One message with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The server process.
    pub pid: u32,
    /// The database user, empty for the server's own processes.
    pub user: String,
    /// SQLSTATE; `00000` for what is no error.
    pub sqlstate: String,
    /// `LOG`, `ERROR`, `WARNING`, …
    pub severity: String,
    /// What it says.
    pub message: String,
    /// The statement that an error belongs to, if the log names it.
    pub statement: Option<String>,
}

impl Line {
    /// Whether it is an error with this SQLSTATE, of no statement.
    pub fn is_bare_error(&self, sqlstate: &str) -> bool {
        let error = matches!(self.severity.as_str(), "ERROR" | "FATAL");
        error && self.sqlstate == sqlstate && self.statement.is_none()
    }
}

/// What follows the timestamp of every line.
const AFTER_TIME: &str = " UTC [";
/// Length of `2026-11-22 05:05:05.123`.
const TIME_LENGTH: usize = 23;

/// Reads a log; a line that has no prefix and continues nothing is an error.
pub fn read(text: &str) -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> = Vec::new();
    let mut into_statement = false;
    let mut into_nothing = false;
    for raw in text.split('\n').filter(|raw| !raw.is_empty()) {
        if let Some(more) = raw.strip_prefix('\t') {
            let last = lines.last_mut().ok_or_else(|| format!("nothing to continue: {raw:?}"))?;
            let target = if into_statement { last.statement.as_mut() } else { Some(&mut last.message) };
            if let Some(target) = target.filter(|_| !into_nothing) {
                target.push('\n');
                target.push_str(more);
            }
            continue;
        }
        let line = start(raw).ok_or_else(|| format!("no line of PostgreSQL's: {raw:?}"))?;
        into_statement = line.severity == "STATEMENT";
        into_nothing = matches!(line.severity.as_str(), "DETAIL" | "HINT" | "CONTEXT" | "QUERY" | "LOCATION");
        match lines.last_mut() {
            Some(last) if into_statement && last.pid == line.pid => last.statement = Some(line.message),
            Some(last) if into_nothing && last.pid == line.pid => {}
            _ if into_statement || into_nothing => return Err(format!("belongs to no message: {raw:?}")),
            _ => lines.push(line),
        }
    }
    Ok(lines)
}

fn start(raw: &str) -> Option<Line> {
    let rest = raw.get(TIME_LENGTH..)?.strip_prefix(AFTER_TIME)?;
    let (pid, rest) = rest.split_once("] ")?;
    let mut fields = rest.splitn(4, ' ');
    let (user, _database, sqlstate) = (fields.next()?, fields.next()?, fields.next()?);
    let (severity, message) = fields.next()?.split_once(":  ")?;
    let known = sqlstate.len() == 5 && severity.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    Some(Line {
        pid: pid.parse().ok()?,
        user: user.to_owned(),
        sqlstate: known.then(|| sqlstate.to_owned())?,
        severity: severity.to_owned(),
        message: message.to_owned(),
        statement: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-22 05:05:05.123 UTC";

    #[test]
    fn messages_are_joined_with_what_belongs_to_them() {
        let log = format!(
            "{AT} [1]   00000 LOG:  listening\n{AT} [7] a@b orders 00000 LOG:  statement: select 1\n\t, '{AT} [8] x'\n\
             {AT} [7] a@b orders 42703 ERROR:  no column\n{AT} [7] a@b orders 42703 HINT:  another\n\tone\n\
             {AT} [7] a@b orders 42703 STATEMENT:  select\n\tnope\n"
        );
        let lines = read(&log).unwrap();
        assert_eq!(lines.len(), 3);
        assert_eq!((lines[0].user.as_str(), lines[0].pid), ("", 1));
        assert_eq!(lines[1].message, format!("statement: select 1\n, '{AT} [8] x'"), "no line can be forged");
        assert_eq!((lines[2].sqlstate.as_str(), lines[2].message.as_str()), ("42703", "no column"));
        assert_eq!(lines[2].statement.as_deref(), Some("select\nnope"));
    }

    #[test]
    fn what_is_no_line_is_no_log() {
        for wrong in ["panic!", "\tcontinues nothing", "2026-11-22 05:05:05.123 UTC [x] a b 00000 LOG:  y"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&format!("{AT} [7] a b 42703 STATEMENT:  of nothing")).is_err());
    }
}

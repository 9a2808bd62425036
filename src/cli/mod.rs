//! What people run: the command line, and the exit codes that scripts rely on.
//!
//! 0: done. 1: failed while running. 2: the command line is wrong (clap's own). 78: the config is wrong, nothing
//! was opened (`EX_CONFIG`, sysexits.h). `psql` ends as psql does, once it runs.

mod audit;
mod check_config;
mod client;
#[cfg(feature = "demo")]
mod demo;
mod matrix;
mod operator;
mod psql;
mod serve;
mod sessions;
mod token;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  pgpassport check-config --config /etc/pgpassport/pgpassport.toml
  pgpassport serve --config /etc/pgpassport/pgpassport.toml --log-format json
  pgpassport completions bash > /etc/bash_completion.d/pgpassport

  # sign in and query, with where the proxy is from ~/.config/pgpassport/client.toml
  pgpassport psql orders -- -c 'select session_user'

  # any other client, with an Entra access token as the password
  PGPASSWORD=\"$(pgpassport token --via az --scope api://pgpassport/.default)\" \\
    psql 'host=db.contoso.example dbname=orders user=analyst@contoso.example sslmode=verify-full'
";

const TOKEN_HELP: &str = "\
The token alone goes to standard output, everything else to standard error. Nothing is kept: each run signs in.
Exit codes: 0 done, 1 no token (the message says why), 2 wrong command line, 78 a setting is wrong or missing.

Examples:
  PGPASSWORD=\"$(pgpassport token --via az --scope api://pgpassport/.default)\" psql …
  pgpassport token --via device --json
";

const PSQL_HELP: &str = "\
psql is checked for first, then the proxy (reachable, TLS, certificate), then the sign-in; the token is handed to psql
in its environment. Exit codes: 1 no sign-in or no proxy, 2 wrong command line, 78 a setting is wrong or missing;
otherwise psql's own (2: the proxy refused; its message says why).

Examples:
  pgpassport psql orders
  pgpassport psql orders --via device -- -c 'select session_user'
";

const SESSIONS_HELP: &str = "\
The proxy answers over admin.socket of its config, to its own user and root; what is asked is recorded with the uid.
Exit codes: 0 done, 1 the proxy cannot be asked or has refused, 2 wrong command line, 78 the config has no socket.

Examples:
  pgpassport sessions list --config /etc/pgpassport/pgpassport.toml
  pgpassport sessions end --who analyst@contoso.example --config /etc/pgpassport/pgpassport.toml
  pgpassport sessions end --database orders --now --socket /run/pgpassport/admin.sock
";

const AUDIT_HELP: &str = "\
All of it works offline, on a copy of the log's folder too. Exit codes: 0 done, and of verify: proved so far; 1 failed,
and of verify: NOT SOUND; 2 wrong command line; 3 of verify: sound, and no anchor proves any of it; 78 the config is
wrong or missing.

Examples:
  pgpassport audit key --new /etc/pgpassport/audit.key --name audit.contoso.example
  pgpassport audit key --of /etc/pgpassport/audit.key > audit.pub
  pgpassport audit verify /var/lib/pgpassport/audit --public audit.pub --anchor /mnt/witness/checkpoints
  pgpassport audit prove /var/lib/pgpassport/audit --public audit.pub --event ID --out proof.tlog-proof
  pgpassport audit search /var/lib/pgpassport/audit --who analyst@contoso.example --since 2h
";

/// A PostgreSQL proxy for Google Cloud SQL: Entra ID in, Cloud SQL IAM out, and every query carries who asked.
#[derive(Debug, Parser)]
#[command(name = "pgpassport", version, about, after_help = EXAMPLES, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or SIGINT, then drain; SIGHUP reads the config file again
    Serve(serve::Arguments),
    /// Say who is logged in to the proxy on this machine, and end sessions
    #[command(after_help = SESSIONS_HELP)]
    Sessions(sessions::Arguments),
    /// Say everything that is wrong with a config file, and what it means
    CheckConfig(check_config::Arguments),
    /// Make the audit log's key, check the log, prove a record, read the log
    #[command(after_help = AUDIT_HELP)]
    Audit(audit::Arguments),
    /// Print an Entra access token for the proxy, for PGPASSWORD="$(…)"
    #[command(after_help = TOKEN_HELP)]
    Token(token::Arguments),
    /// Sign in, verify the proxy, and run psql
    #[command(after_help = PSQL_HELP)]
    Psql(psql::Arguments),
    /// Show the whole chain against a simulated cloud on this machine
    #[cfg(feature = "demo")]
    Demo {
        /// Do every step, say whether it held, and stop
        #[arg(long)]
        check: bool,
    },
    /// Print completions for a shell
    Completions {
        /// The shell to complete in
        shell: Shell,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    /// `audit verify`: nothing is wrong, and nothing is proved.
    NotProved,
    /// The command line is wrong; nothing was opened.
    BadUsage,
    /// The config or the command's settings are wrong; nothing was opened.
    BadConfig,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Failed => Self::FAILURE,
            Outcome::BadUsage => Self::from(2),
            Outcome::NotProved => Self::from(3),
            Outcome::BadConfig => Self::from(78),
        }
    }
}

/// Parses the command line and runs the command. Prints help and errors itself.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match CommandLine::try_parse_from(arguments) {
        Ok(line) => dispatch(line.command),
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn dispatch(command: Command) -> ExitCode {
    match command {
        Command::Serve(arguments) => serve::run(arguments).into(),
        Command::CheckConfig(arguments) => {
            check_config::run(&arguments, &mut io::stdout().lock(), &mut io::stderr().lock()).into()
        }
        Command::Sessions(arguments) => {
            sessions::run(arguments, &mut io::stdout().lock(), &mut io::stderr().lock()).into()
        }
        Command::Audit(arguments) => audit::run(&arguments, &mut io::stdout().lock(), &mut io::stderr().lock()).into(),
        Command::Token(arguments) => token::run(arguments, &mut io::stdout().lock()).into(),
        Command::Psql(arguments) => psql::run(arguments).into(),
        #[cfg(feature = "demo")]
        Command::Demo { check } => demo::run(check),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut CommandLine::command(), "pgpassport", &mut io::stdout());
            ExitCode::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, clap::Error> {
        CommandLine::try_parse_from(arguments.iter().copied()).map(|line| line.command)
    }

    #[test]
    fn the_command_line_is_consistent_and_helps_itself() {
        CommandLine::command().debug_assert();
        let help = CommandLine::command().render_long_help().to_string();
        for word in
            ["serve", "sessions", "check-config", "audit", "token", "psql", "completions", "Examples:", "PGPASSWORD"]
        {
            assert!(help.contains(word), "{word}: {help}");
        }
    }

    #[test]
    fn a_wrong_command_line_is_2_and_help_is_0() {
        for (arguments, code) in [
            (&["pgpassport"][..], 2),
            (&["pgpassport", "serve"], 2),
            (&["pgpassport", "server", "--config", "x"], 2),
            (&["pgpassport", "serve", "--config", "x", "--log-format", "xml"], 2),
            (&["pgpassport", "token", "--via", "magic"], 2),
            (&["pgpassport", "token", "--tenant", "contoso"], 2),
            (&["pgpassport", "psql"], 2),
            (&["pgpassport", "psql", "orders", "-c", "select 1"], 2),
            (&["pgpassport", "psql", "orders", "--host", "a,b"], 2),
            (&["pgpassport", "token", "--help"], 0),
            (&["pgpassport", "--version"], 0),
            (&["pgpassport", "serve", "--help"], 0),
        ] {
            assert_eq!(parsed(arguments).expect_err("no command").exit_code(), code, "{arguments:?}");
        }
        assert!(matches!(parsed(&["pgpassport", "serve", "--config", "x"]), Ok(Command::Serve(_))));
    }

    /// `serve` is driven from outside, as it takes the process's log.
    #[test]
    fn a_config_error_is_78() {
        let arguments = ["pgpassport", "check-config", "--config", "/nonexistent/pgpassport.toml"].map(OsString::from);
        assert_eq!(run(arguments), ExitCode::from(78));
    }
}

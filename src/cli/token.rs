//! `pgpassport token`: an Entra access token for the proxy on standard output, for `PGPASSWORD="$(…)"`.

use super::Outcome;
use super::client::{self, Flags};
use crate::agent::Token;
use serde_json::json;
use std::io::Write;

/// Arguments of `token`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A database of the settings file, for settings of its own
    name: Option<String>,
    /// One JSON object with the token and its expiry, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Signs in and prints the token, nothing else, to `out`.
pub(super) fn run(arguments: Arguments, out: &mut impl Write) -> Outcome {
    let Arguments { name, json, flags } = arguments;
    match got(name.as_deref(), flags) {
        Ok(token) => print(&token, json, out),
        Err(outcome) => outcome,
    }
}

fn got(name: Option<&str>, flags: Flags) -> Result<Token, Outcome> {
    let settings = flags.settings(name, None)?;
    let how = client::needed(settings.sign_in())?;
    client::sign_in(&how, &settings)
}

fn print(token: &Token, json: bool, out: &mut impl Write) -> Outcome {
    let text = token.secret().expose();
    let written = if json {
        let object = json!({ "access_token": text, "token_type": "Bearer", "expires_at": token.expires_at() });
        writeln!(out, "{object}")
    } else {
        writeln!(out, "{text}")
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => Outcome::Done,
        Err(error) => client::failed(&error, "standard output must take the token"),
    }
}

//! A token from the Azure CLI: `az account get-access-token --scope … -o json`, bounded in time and output.

use super::{Error, Token, program};
use crate::federation::harmless;
use crate::secret::Secret;
use serde::Deserialize;
use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// How long `az` may take; it starts slowly and may have to renew its own session.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The most that is read of each of its outputs, in bytes: several times the longest token.
const MAX_OUTPUT_BYTES: u64 = 512 * 1024;
const FROM: &str = "the Azure CLI";

/// What `az` prints; the rest is not needed.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "accessToken")]
    access_token: String,
}

/// What one run left.
struct Ran {
    status: ExitStatus,
    out: Secret<Vec<u8>>,
    err: Vec<u8>,
}

/// Asks the `az` that stands in `PATH`.
pub(super) async fn token(scope: &str, tenant: Option<&str>) -> Result<Token, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let az = program::find("az", &path).ok_or(Error::NoAzureCli)?;
    ask(&az, scope, tenant, DEADLINE).await
}

async fn ask(az: &Path, scope: &str, tenant: Option<&str>, deadline: Duration) -> Result<Token, Error> {
    let mut arguments: Vec<OsString> = ["account", "get-access-token", "--scope", scope].map(OsString::from).into();
    if let Some(tenant) = tenant {
        arguments.extend(["--tenant", tenant].map(OsString::from));
    }
    arguments.extend(["-o", "json"].map(OsString::from));
    let ran = tokio::time::timeout(deadline, run(az, &arguments)).await;
    let ran = ran.map_err(|_| Error::AzureCli(format!("it did not answer within {deadline:?}")))?;
    let Ran { status, out, err } = ran.map_err(Error::Spawn)?;
    if !status.success() {
        return Err(failed(&String::from_utf8_lossy(&err), scope, tenant));
    }
    // A parser's own reason could quote the token.
    let answer = serde_json::from_slice::<Answer>(out.expose());
    let answer = answer.map_err(|_| Error::Answer { from: FROM, reason: "no accessToken in JSON".to_owned() })?;
    Token::parse(FROM, answer.access_token)
}

async fn run(az: &Path, arguments: &[OsString]) -> std::io::Result<Ran> {
    let mut child = Command::new(az)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (out, err) = tokio::join!(read(child.stdout.take()), read(child.stderr.take()));
    Ok(Ran { out: Secret::new(out?), err: err?, status: child.wait().await? })
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// `az` says what to run when it needs a person ("Please run 'az login' to setup account.", or after an `AADSTS`
/// error "Interactive authentication is needed. Please run:" and the command).
fn failed(said: &str, scope: &str, tenant: Option<&str>) -> Error {
    let words = said.trim().trim_start_matches("ERROR:").split_whitespace().collect::<Vec<_>>().join(" ");
    let words = if words.is_empty() { "it failed and said nothing".to_owned() } else { harmless(&words, "") };
    if !said.contains("az login") {
        return Error::AzureCli(words);
    }
    let tenant = tenant.map(|tenant| format!(" --tenant {tenant}")).unwrap_or_default();
    Error::NotSignedIn { said: words, command: format!("az login{tenant} --scope {scope}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use tempfile::TempDir;

    const SCOPE: &str = "api://pgpassport/.default";

    async fn asked(script: &str, deadline: Duration) -> (Result<Token, Error>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let az = folder.path().join("az");
        fs::write(&az, format!("#!/bin/sh\ncd {}\n{script}\n", folder.path().display())).unwrap();
        fs::set_permissions(&az, fs::Permissions::from_mode(0o755)).unwrap();
        (ask(&az, SCOPE, Some("tenant"), deadline).await, folder)
    }

    #[tokio::test]
    async fn the_token_is_taken_from_json_and_az_is_asked_as_documented() {
        let script = r#"echo "$@" > asked; echo '{"accessToken": "e.y.J", "expires_on": 1, "tokenType": "Bearer"}'"#;
        let (token, folder) = asked(script, DEADLINE).await;
        assert_eq!(token.unwrap().secret().expose(), "e.y.J");
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        assert_eq!(asked.trim(), "account get-access-token --scope api://pgpassport/.default --tenant tenant -o json");
    }

    #[tokio::test]
    async fn every_failure_says_what_az_said_and_what_to_do() {
        let long = "e".repeat(200);
        for (script, said, step) in [
            (
                "echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1",
                "the Azure CLI is not signed in: Please run 'az login' to setup account.",
                "run: az login --tenant tenant --scope api://pgpassport/.default",
            ),
            (
                "echo 'ERROR: AADSTS70043: The refresh token has expired.\nInteractive authentication is needed. \
                 Please run:\naz login --scope api://pgpassport/.default' >&2; exit 1",
                "not signed in: AADSTS70043: The refresh token has expired. Interactive authentication is needed.",
                "run: az login",
            ),
            (
                "echo 'ERROR: AADSTS65001: The user or administrator has not consented. Please run: az login' >&2; exit 1",
                "AADSTS65001",
                "consent",
            ),
            ("echo boom >&2; exit 2", "gave no token: boom", "az account show"),
            ("exit 3", "it failed and said nothing", "az account show"),
            ("echo not json", "no accessToken in JSON", "authority"),
            ("echo '{}'", "no accessToken in JSON", "authority"),
            ("echo '{\"accessToken\": \"\"}'", "the token is empty", "authority"),
            (&format!("echo {long} >&2; exit 1"), "gave no token: …", "az account show"),
        ] {
            let (refused, _folder) = asked(script, DEADLINE).await;
            let error = refused.unwrap_err();
            assert!(error.to_string().contains(said), "{script}: {error}");
            assert!(error.next_step().contains(step), "{script}: {}", error.next_step());
        }
    }

    #[tokio::test]
    async fn an_az_that_hangs_or_floods_is_given_up() {
        let (refused, _folder) = asked("exec sleep 60", Duration::from_millis(300)).await;
        assert_eq!(refused.unwrap_err().to_string(), "the Azure CLI gave no token: it did not answer within 300ms");
        let (refused, _folder) = asked("exec cat /dev/zero", Duration::from_millis(500)).await;
        assert!(matches!(refused, Err(Error::AzureCli(_) | Error::Answer { .. })), "{refused:?}");
    }
}

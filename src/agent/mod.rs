//! What runs beside a client: signing in to Entra, and a look at the proxy before a token is sent to it.
//!
//! A token is got when it is asked for, handed over once, and kept nowhere: not in a cache, not in a file, not on a
//! command line. (A cache on disk would save a sign-in and be one more secret to guard; there is none so far.) What
//! the token says is read for the person's sake only; the proxy alone judges it.

mod azure_cli;
mod device_code;
mod program;
mod proxy;
mod settings;
mod token;

pub use azure_cli::DEADLINE as AZURE_CLI_DEADLINE;
pub use program::find as find_program;
pub use proxy::{Proxy, ProxyError, system_roots};
pub use settings::{DEFAULT_AUTHORITY, Settings, SignIn, Via};
pub use token::Token;

use crate::federation::{self, ManagedIdentity};
use crate::http::{self, Client};
use std::path::Path;
use std::time::Duration;

/// Each call to Entra or to the platform's identity endpoint, retries included.
pub const HTTP_DEADLINE: Duration = Duration::from_secs(15);

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `az` to run.
    #[error("the Azure CLI (az) is not installed, or not in PATH")]
    NoAzureCli,
    /// `az` has no session that is good for this scope.
    #[error("the Azure CLI is not signed in: {said}")]
    NotSignedIn {
        /// Its own words.
        said: String,
        /// What to run.
        command: String,
    },
    /// `az` failed for another reason.
    #[error("the Azure CLI gave no token: {0}")]
    AzureCli(String),
    /// `az` could not be run.
    #[error("the Azure CLI could not be run")]
    Spawn(#[source] std::io::Error),
    /// Entra, or the HTTPS client towards it.
    #[error("Entra cannot be asked")]
    Unreachable(#[source] http::Error),
    /// Entra said no.
    #[error("Entra refused: {code}: {description}")]
    Refused {
        /// OAuth `error`.
        code: String,
        /// Entra's words, made harmless.
        description: String,
    },
    /// The person declined in the browser.
    #[error("the sign-in was declined in the browser")]
    Declined,
    /// Nobody finished in time.
    #[error("the code expired before the sign-in was finished")]
    CodeExpired,
    /// Whoever was asked answered something else.
    #[error("{from} answered something that is no token: {reason}")]
    Answer {
        /// Who.
        from: &'static str,
        /// What was wrong, without the body.
        reason: String,
    },
    /// The platform's identity endpoint. `azure_identity` tells every 400 as an identity that is not assigned, an
    /// unknown scope too.
    #[error("no token from a managed identity: {reason}")]
    ManagedIdentity {
        /// What happened there.
        reason: String,
    },
}

impl Error {
    /// What the person can do about it.
    pub fn next_step(&self) -> String {
        let said = match self {
            Self::Refused { description: said, .. } | Self::AzureCli(said) | Self::NotSignedIn { said, .. } => said,
            Self::ManagedIdentity { reason } => reason,
            _ => "",
        };
        if let Some((_, step)) = STEPS.iter().find(|(code, _)| said.contains(code)) {
            return (*step).to_owned();
        }
        match self {
            Self::NoAzureCli => "install it (https://aka.ms/azure-cli), or sign in with --via device".to_owned(),
            Self::NotSignedIn { command, .. } => format!("run: {command}"),
            Self::AzureCli(_) | Self::Spawn(_) => "run `az account show`, or sign in with --via device".to_owned(),
            Self::Unreachable(_) => "check the network, HTTPS_PROXY, `authority` and `https_ca_certificate`".to_owned(),
            Self::Refused { .. } => "check `tenant`, `client_id` and `scope`".to_owned(),
            Self::Declined | Self::CodeExpired => "run the command again and finish in the browser".to_owned(),
            Self::Answer { .. } => "check `authority`; a network that rewrites answers does this too".to_owned(),
            Self::ManagedIdentity { .. } => {
                "on Azure, assign an identity here and check `client_id` and `scope`; elsewhere use --via az or device"
                    .to_owned()
            }
        }
    }
}

/// Entra's error codes that have a known cure ("Microsoft Entra authentication and authorization error codes").
const STEPS: &[(&str, &str)] = &[
    ("AADSTS7000218", "allow public client flows in the app registration of `client_id`"),
    ("AADSTS700016", "check `client_id`: the tenant has no such app"),
    ("AADSTS500011", "check `scope`: the tenant has no such API"),
    ("AADSTS90002", "check `tenant`"),
    ("AADSTS65001", "an administrator must consent to the scope for this client app, or pre-authorize the app"),
];

/// Signs in. `tell` is given what the person must read.
///
/// May be dropped at any time: a sign-in that has begun runs out by itself.
pub async fn sign_in(how: &SignIn, ca: Option<&Path>, tell: impl Fn(&str)) -> Result<Token, Error> {
    match how {
        SignIn::AzureCli { scope, tenant } => azure_cli::token(scope, tenant.as_deref()).await,
        SignIn::DeviceCode(device) => {
            let http = Client::new(ca).map_err(Error::Unreachable)?;
            device_code::token(&http, device, tell).await
        }
        SignIn::ManagedIdentity { scope, client_id } => {
            let http = Client::new(ca).map_err(Error::Unreachable)?;
            managed_identity(http, scope, client_id.clone()).await
        }
    }
}

/// Asks as the proxy asks for its own token. The endpoint takes a resource, and `azure_identity` wants it as a scope.
async fn managed_identity(http: Client, scope: &str, client_id: Option<String>) -> Result<Token, Error> {
    let resource = scope.strip_suffix("/.default").unwrap_or(scope);
    let identity = ManagedIdentity::new(http, HTTP_DEADLINE, resource, client_id).map_err(unassigned)?;
    identity.token().await.map(Token::new).map_err(unassigned)
}

fn unassigned(error: federation::Error) -> Error {
    use federation::Error as E;
    let reason = match error {
        E::Unavailable { reason, .. } | E::Broken { reason, .. } => reason,
        E::Refused { code, description, .. } => format!("{code}: {description}"),
        other @ (E::Stale | E::Busy { .. } | E::Throttled { .. }) => other.to_string(),
    };
    Error::ManagedIdentity { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_code_has_its_own_cure() {
        let refused = |description: &str| {
            Error::Refused { code: "invalid_client".to_owned(), description: description.to_owned() }.next_step()
        };
        assert!(refused("AADSTS7000218: The request body must contain…").contains("public client flows"));
        assert!(refused("AADSTS700016: Application with identifier…").contains("`client_id`"));
        assert_eq!(refused("AADSTS50000: other"), "check `tenant`, `client_id` and `scope`");
        let signed_out =
            Error::NotSignedIn { said: "Please run 'az login'".to_owned(), command: "az login".to_owned() };
        assert_eq!(signed_out.next_step(), "run: az login");
    }
}

//! The callers of the demo, and how they sign in: with the same requests that real ones send to Entra.

use super::Error;
use crate::http::{Client, Response};
use crate::secret::Secret;
use crate::sim::Cloud;
use crate::sim::world::{ANALYST, App, ORDERS_APP, OUTSIDER, PROXY_API_URI, Person, SIGN_IN_CLIENT, Tenant};
use serde_json::Value;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each request to Entra.
const DEADLINE: Duration = Duration::from_secs(10);
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Somebody with a token.
#[derive(Debug)]
pub(super) struct Caller {
    /// As people call them.
    pub(super) name: &'static str,
    /// What they are and how they arrive, for people.
    pub(super) description: &'static str,
    /// How they sign in.
    pub(super) account: Account,
    /// The start-up packet's `user`, and the database user that the caller must get.
    pub(super) user: &'static str,
    /// What they ask.
    pub(super) query: &'static str,
    /// Whether the proxy must let them in.
    pub(super) expected: Expected,
    /// The file with their token.
    pub(super) token_file: PathBuf,
}

/// Who signs in, and how.
#[derive(Debug, Clone, Copy)]
pub(super) enum Account {
    /// Device code, approved in the browser.
    Person(Person),
    /// Client credentials.
    App(App),
}

/// What the proxy must do with a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Let in.
    Admitted,
    /// Refused with SQLSTATE 28000.
    Refused,
}

impl Caller {
    /// A person, an app and an outsider.
    pub(super) fn all(cloud: &Cloud) -> [Self; 3] {
        let file = |name: &str| cloud.state_dir().join(name);
        [
            Self {
                name: "analyst@contoso.example",
                description: "a person, device code, workforce identity",
                account: Account::Person(ANALYST),
                user: ANALYST.upn,
                query: "SELECT session_user, count(*) AS orders, sum(amount) AS total FROM orders",
                expected: Expected::Admitted,
                token_file: file("analyst.token"),
            },
            Self {
                name: "orders-app",
                description: "an app, client credentials, service account",
                account: Account::App(ORDERS_APP),
                user: ORDERS_APP.database_user,
                query: "SELECT session_user, customer, amount FROM orders ORDER BY placed DESC LIMIT 1",
                expected: Expected::Admitted,
                token_file: file("orders-app.token"),
            },
            Self {
                name: "outsider@fabrikam.example",
                description: "a person of another tenant, device code",
                account: Account::Person(OUTSIDER),
                user: OUTSIDER.upn,
                query: "SELECT session_user, count(*) FROM orders",
                expected: Expected::Refused,
                token_file: file("outsider.token"),
            },
        ]
    }

    /// The caller's token, as their driver would read it.
    pub(super) fn token(&self) -> Result<Secret<String>, Error> {
        std::fs::read_to_string(&self.token_file)
            .map(Secret::new)
            .map_err(|source| Error::io("read a token file", source))
    }

    /// With the object id, the identity.
    pub(super) fn tenant(&self) -> Tenant {
        match self.account {
            Account::Person(person) => person.tenant,
            Account::App(app) => app.tenant,
        }
    }

    /// The identity in its tenant.
    pub(super) fn object_id(&self) -> &'static str {
        match self.account {
            Account::Person(person) => person.object_id,
            Account::App(app) => app.object_id,
        }
    }

    /// The client app that asked for the token.
    pub(super) fn app(&self) -> &'static str {
        match self.account {
            Account::Person(_) => SIGN_IN_CLIENT,
            Account::App(app) => app.client_id,
        }
    }
}

/// Signs everybody in and writes their token files (0600).
pub(super) async fn sign_in(cloud: &Cloud, http: &Client, callers: &[Caller]) -> Result<(), Error> {
    for caller in callers {
        let base = format!("{}/{}", cloud.entra_authority(), caller.tenant().id);
        let entra = Entra { http, base, caller: caller.name };
        let token = match caller.account {
            Account::Person(person) => entra.device_code(person.upn).await?,
            Account::App(app) => entra.client_credentials(app).await?,
        };
        write_private(&caller.token_file, token.expose()).map_err(|source| Error::io("write a token file", source))?;
    }
    Ok(())
}

/// One tenant's endpoints, for one caller.
struct Entra<'a> {
    http: &'a Client,
    base: String,
    caller: &'static str,
}

impl Entra<'_> {
    async fn device_code(&self, upn: &str) -> Result<Secret<String>, Error> {
        let scope = format!("{PROXY_API_URI}/.default openid profile");
        let form = [("client_id", SIGN_IN_CLIENT), ("scope", scope.as_str())];
        let begun = self.post(&format!("{}/oauth2/v2.0/devicecode", self.base), &form).await?;
        let begun = self.json(&begun)?;
        // The browser's part: the person opens the page, enters the code and signs in.
        let page = self.text(&begun, "verification_uri")?;
        let form = [("otc", self.text(&begun, "user_code")?), ("login", upn), ("decision", "approve")];
        self.post(page, &form).await?;
        let device_code = self.text(&begun, "device_code")?;
        let form = [("grant_type", DEVICE_GRANT), ("client_id", SIGN_IN_CLIENT), ("device_code", device_code)];
        self.token(&form).await
    }

    async fn client_credentials(&self, app: App) -> Result<Secret<String>, Error> {
        let scope = format!("{PROXY_API_URI}/.default");
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", app.client_id),
            ("client_secret", app.secret),
            ("scope", scope.as_str()),
        ];
        self.token(&form).await
    }

    async fn token(&self, form: &[(&str, &str)]) -> Result<Secret<String>, Error> {
        let response = self.post(&format!("{}/oauth2/v2.0/token", self.base), form).await?;
        let answer = self.json(&response)?;
        self.text(&answer, "access_token").map(|token| Secret::new(token.to_owned()))
    }

    async fn post(&self, url: &str, form: &[(&str, &str)]) -> Result<Response, Error> {
        let failed = |reason: String| Error::SignIn { caller: self.caller, reason };
        let response =
            self.http.post_form(url, form, DEADLINE).await.map_err(|error| failed(crate::http::chain(&error)))?;
        if response.status == 200 {
            return Ok(response);
        }
        let refusal = serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
        let description = refusal.get("error_description").and_then(Value::as_str).unwrap_or("no description");
        Err(failed(format!("Entra answered {}: {description}", response.status)))
    }

    fn json(&self, response: &Response) -> Result<Value, Error> {
        serde_json::from_slice(&response.body)
            .map_err(|error| Error::SignIn { caller: self.caller, reason: error.to_string() })
    }

    fn text<'v>(&self, answer: &'v Value, member: &str) -> Result<&'v str, Error> {
        let missing = || Error::SignIn { caller: self.caller, reason: format!("Entra's answer has no {member}") };
        answer.get(member).and_then(Value::as_str).ok_or_else(missing)
    }
}

/// Replaces a file in one step, so that no reader sees half a token.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(fresh, path)
}

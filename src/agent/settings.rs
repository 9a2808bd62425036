//! What a client must know, as its settings file and flags give it: each key optional until it is needed.

use std::path::PathBuf;

/// Entra's login host of the global cloud.
pub const DEFAULT_AUTHORITY: &str = "https://login.microsoftonline.com";
/// PostgreSQL's own port.
const DEFAULT_PORT: u16 = 5432;

/// How to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// As whom the Azure CLI is signed in
    #[value(name = "az")]
    AzureCli,
    /// As whoever enters a code in a browser, on any machine
    #[value(name = "device")]
    DeviceCode,
    /// As the Azure machine or app that this runs on
    #[value(name = "managed-identity")]
    ManagedIdentity,
}

/// Every setting there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// How to sign in.
    pub via: Option<Via>,
    /// The Entra tenant to sign in to.
    pub tenant: Option<String>,
    /// The public client app of a device code; a user-assigned managed identity.
    pub client_id: Option<String>,
    /// The proxy's own scope.
    pub scope: Option<String>,
    /// Entra's login host.
    pub authority: Option<String>,
    /// Trust this towards Entra, in place of the platform's roots.
    pub https_ca_certificate: Option<PathBuf>,
    /// Where the proxy is.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// Trust this towards the proxy, in place of the platform's roots.
    pub ca_certificate: Option<PathBuf>,
    /// What the proxy calls the database.
    pub database: Option<String>,
    /// As whom to log in, when the token's own name is not it.
    pub user: Option<String>,
}

/// A way to sign in with all that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// `az account get-access-token`.
    AzureCli {
        /// Its `--scope`.
        scope: String,
        /// Its `--tenant`.
        tenant: Option<String>,
    },
    /// The device authorization grant.
    DeviceCode(DeviceCode),
    /// The platform's identity endpoint.
    ManagedIdentity {
        /// The resource, with or without `/.default`.
        scope: String,
        /// A user-assigned identity.
        client_id: Option<String>,
    },
}

/// What the device authorization grant needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCode {
    /// Login host, without a trailing slash.
    pub authority: String,
    /// Tenant id.
    pub tenant: String,
    /// Public client.
    pub client_id: String,
    /// The proxy's scope.
    pub scope: String,
}

impl Settings {
    /// These, and `weaker` where these are silent.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        Self {
            via: self.via.or(weaker.via),
            tenant: self.tenant.or(weaker.tenant),
            client_id: self.client_id.or(weaker.client_id),
            scope: self.scope.or(weaker.scope),
            authority: self.authority.or(weaker.authority),
            https_ca_certificate: self.https_ca_certificate.or(weaker.https_ca_certificate),
            host: self.host.or(weaker.host),
            port: self.port.or(weaker.port),
            ca_certificate: self.ca_certificate.or(weaker.ca_certificate),
            database: self.database.or(weaker.database),
            user: self.user.or(weaker.user),
        }
    }

    /// How to sign in, or every key that is still needed.
    pub fn sign_in(&self) -> Result<SignIn, Vec<&'static str>> {
        let device = self.via == Some(Via::DeviceCode);
        let needed = [
            ("via", self.via.is_none()),
            ("scope", self.scope.is_none()),
            ("tenant", device && self.tenant.is_none()),
            ("client_id", device && self.client_id.is_none()),
        ];
        let missing = || needed.iter().filter(|(_, missing)| *missing).map(|(key, _)| *key).collect::<Vec<_>>();
        let (Some(via), Some(scope)) = (self.via, self.scope.clone()) else { return Err(missing()) };
        let (tenant, client_id) = (self.tenant.clone(), self.client_id.clone());
        Ok(match via {
            Via::AzureCli => SignIn::AzureCli { scope, tenant },
            Via::ManagedIdentity => SignIn::ManagedIdentity { scope, client_id },
            Via::DeviceCode => {
                let (Some(tenant), Some(client_id)) = (tenant, client_id) else { return Err(missing()) };
                let authority = self.authority.clone().unwrap_or_else(|| DEFAULT_AUTHORITY.to_owned());
                SignIn::DeviceCode(DeviceCode { authority, tenant, client_id, scope })
            }
        })
    }

    /// The proxy's host and port, or the key that is needed.
    pub fn address(&self) -> Result<(String, u16), Vec<&'static str>> {
        let host = self.host.clone().ok_or_else(|| vec!["host"])?;
        Ok((host, self.port.unwrap_or(DEFAULT_PORT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn what_is_missing_is_told_at_once_and_only_where_it_is_needed() {
        let nothing = Settings::default();
        assert_eq!(nothing.sign_in(), Err(vec!["via", "scope"]));
        assert_eq!(nothing.address(), Err(vec!["host"]));
        let via = |via| Settings { via: Some(via), ..Settings::default() };
        assert_eq!(via(Via::DeviceCode).sign_in(), Err(vec!["scope", "tenant", "client_id"]));
        assert_eq!(via(Via::AzureCli).sign_in(), Err(vec!["scope"]));
        let scoped = Settings { scope: Some(text("api://x/.default")), ..Settings::default() };
        let expected = SignIn::AzureCli { scope: "api://x/.default".to_owned(), tenant: None };
        assert_eq!(via(Via::AzureCli).or(scoped.clone()).sign_in(), Ok(expected));
        assert_eq!(via(Via::DeviceCode).or(scoped).sign_in(), Err(vec!["tenant", "client_id"]));
    }

    #[test]
    fn the_stronger_setting_wins_key_by_key() {
        let strong = Settings { host: Some(text("strong")), ..Settings::default() };
        let weak = Settings { host: Some(text("weak")), port: Some(6432), ..Settings::default() };
        assert_eq!(strong.or(weak).address(), Ok(("strong".to_owned(), 6432)));
        let host = Settings { host: Some(text("db")), ..Settings::default() };
        assert_eq!(host.address(), Ok(("db".to_owned(), DEFAULT_PORT)));
    }
}

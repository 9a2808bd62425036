//! `[issuer.NAME]`: whose tokens are accepted, and how they are read. One section is one `iss`, exactly.

use super::IdentityFacts;
use super::claims::check_caller;
use super::jws::{Algorithm, Jws};
use crate::names::{IssuerName, Tenant, TenantId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How far our clock and an issuer's may differ, unless the config says otherwise.
pub const LEEWAY: Duration = Duration::from_secs(60);
/// The most that the config may say.
pub const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// One `[issuer.NAME]` of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The config's name for it.
    pub name: IssuerName,
    /// Accepted `aud`, exactly; in Entra's v1.0 tokens a trailing slash makes no difference.
    pub audiences: Vec<String>,
    /// Client apps that may present tokens; empty means any.
    pub allowed_apps: Vec<String>,
    /// Kinds of caller that are accepted; empty means both.
    pub allowed_kinds: Vec<CallerKind>,
    /// How far its clock and ours may differ.
    pub leeway: Duration,
    /// Tokens issued longer ago are refused, whatever their `exp`.
    pub max_token_age: Option<Duration>,
    /// What its tokens look like.
    pub dialect: Dialect,
}

/// Kinds of issuers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// A Microsoft Entra tenant.
    Entra(Entra),
    /// Any other `OpenID` provider.
    Oidc(Oidc),
}

/// An Entra tenant's tokens of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entra {
    /// The tenant; the only one this issuer speaks for.
    pub tenant: TenantId,
    /// Version of the tokens. The API's registration decides it, so one API has one.
    pub version: Version,
    /// Login host, `https://login.microsoftonline.com` unless a national cloud or a simulator; no trailing slash.
    pub authority: String,
    /// What a v1.0 `iss` begins with, `https://sts.windows.net`; no trailing slash.
    pub v1_authority: String,
    /// People's tokens carry one of these in `scp`; empty asks nothing.
    pub required_scopes: Vec<String>,
    /// Software's tokens carry one of these in `roles`; empty asks nothing.
    pub required_roles: Vec<String>,
    /// What to do where a caller's groups do not fit into the token.
    pub overage: Overage,
}

/// Where the groups are of callers who are in too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overage {
    /// Nobody asks: rules that need groups do not hold.
    Deny,
    /// Microsoft Graph is asked, with a managed identity of the proxy's own.
    Graph {
        /// `https://graph.microsoft.com`; no trailing slash.
        endpoint: String,
        /// Client id of a user-assigned identity.
        client_id: Option<String>,
    },
}

/// Versions of Entra's access tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `iss` is `https://sts.windows.net/{tid}/`.
    V1,
    /// `iss` is `https://login.microsoftonline.com/{tid}/v2.0`.
    V2,
}

impl Version {
    /// As the claim `ver` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
            Self::V2 => "2.0",
        }
    }
}

/// How another provider's tokens are read. Claims are top-level members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// The `iss` of its tokens, exactly.
    pub url: String,
    /// What records and tags say as the tenant: fixed, never from the token.
    pub tenant: Tenant,
    /// Accepted signature algorithms.
    pub algorithms: Vec<Algorithm>,
    /// What the header must say of the token.
    pub token_type: TokenType,
    /// Person or software.
    pub kind: KindRule,
    /// Who: a string that the issuer gives to one subject and never to another.
    pub subject_claim: String,
    /// For display; the subject where it is absent.
    pub label_claim: Option<String>,
    /// An array of strings.
    pub groups_claim: Option<String>,
    /// An array of strings.
    pub roles_claim: Option<String>,
    /// The client app that asked for the token.
    pub app_claim: Option<String>,
    /// The token's own id, for records.
    pub token_id_claim: String,
    /// Claims that must be there with exactly this value.
    pub required_claims: BTreeMap<String, String>,
}

/// What a token's header says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// `typ` is absent, `JWT` or `at+jwt`: many providers mark their access tokens in no way, so that an ID token for the
    /// same audience passes too.
    Any,
    /// `typ` is `at+jwt` (RFC 9068 §2.1), which no ID token says.
    AccessToken,
}

/// How another provider's callers are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindRule {
    /// All are of this kind.
    Always(CallerKind),
    /// People's tokens have this claim, software's do not.
    UserClaim(String),
}

/// Human or software. In Entra's tokens decided by `idtyp`, else by the presence of `scp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallerKind {
    /// A person signed in (delegated token).
    User,
    /// Software signed in as itself (client credentials, managed identity).
    App,
}

impl CallerKind {
    /// As the config and the records say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::App => "app",
        }
    }
}

impl IssuerConfig {
    /// The `iss` of its tokens, exactly.
    pub fn url(&self) -> String {
        match &self.dialect {
            Dialect::Entra(entra) => entra.url(),
            Dialect::Oidc(oidc) => oidc.url.clone(),
        }
    }

    /// The tenant that its callers belong to.
    pub fn tenant(&self) -> Tenant {
        match &self.dialect {
            Dialect::Entra(entra) => entra.tenant.into(),
            Dialect::Oidc(oidc) => oidc.tenant.clone(),
        }
    }

    /// Its Entra side, where it is Entra.
    pub fn entra(&self) -> Option<&Entra> {
        match &self.dialect {
            Dialect::Entra(entra) => Some(entra),
            Dialect::Oidc(_) => None,
        }
    }

    /// Where its discovery document is (`OpenID` Connect Discovery 1.0 §4: a trailing slash of the issuer goes). A v1.0
    /// token is checked with v1.0 metadata.
    pub fn discovery_url(&self) -> String {
        let base = match &self.dialect {
            Dialect::Entra(Entra { version: Version::V1, authority, tenant, .. }) => format!("{authority}/{tenant}"),
            Dialect::Entra(_) | Dialect::Oidc(_) => self.url(),
        };
        format!("{}/.well-known/openid-configuration", base.trim_end_matches('/'))
    }

    /// Whether this section would still accept a token that `before` accepted with these facts. Which client apps and
    /// which kinds of caller are accepted is looked at again; where anything else that a token is judged by has changed,
    /// the facts do not tell, and the answer is no. Its times are not asked about.
    pub fn still_accepts(&self, before: &Self, facts: &IdentityFacts) -> bool {
        self.beyond_facts() == before.beyond_facts() && check_caller(self, &facts.app, facts.kind).is_ok()
    }

    /// The section without what facts tell, or what only bears on them.
    fn beyond_facts(&self) -> Self {
        let mut rest = self.clone();
        rest.allowed_apps.clear();
        rest.allowed_kinds.clear();
        (rest.leeway, rest.max_token_age) = (Duration::ZERO, None);
        match &mut rest.dialect {
            Dialect::Entra(entra) => entra.overage = Overage::Deny,
            Dialect::Oidc(oidc) => oidc.label_claim = None,
        }
        rest
    }

    /// Whether the keys of `other` are this issuer's: published in the same place, for the same `iss`.
    pub(super) fn shares_keys_with(&self, other: &Self) -> bool {
        let algorithms =
            |issuer: &Self| [Algorithm::Rs256, Algorithm::Es256].map(|algorithm| issuer.signs_with(algorithm));
        self.url() == other.url()
            && self.discovery_url() == other.discovery_url()
            && algorithms(self) == algorithms(other)
    }

    /// Whether its tokens may be of this type. Entra's access tokens never say `at+jwt`.
    pub(super) fn takes(&self, jws: &Jws<'_>) -> bool {
        match &self.dialect {
            Dialect::Entra(_) => !jws.is_access_token(),
            Dialect::Oidc(Oidc { token_type: TokenType::AccessToken, .. }) => jws.is_access_token(),
            Dialect::Oidc(Oidc { token_type: TokenType::Any, .. }) => true,
        }
    }

    /// Whether its tokens may be signed so.
    pub(super) fn signs_with(&self, algorithm: Algorithm) -> bool {
        match &self.dialect {
            Dialect::Entra(_) => algorithm == Algorithm::Rs256,
            Dialect::Oidc(oidc) => oidc.algorithms.contains(&algorithm),
        }
    }

    /// Whether a token for this audience is for us.
    pub fn accepts_audience(&self, audience: &str) -> bool {
        let v1 = matches!(&self.dialect, Dialect::Entra(Entra { version: Version::V1, .. }));
        let bare = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
        let uri = |ours: &str| v1 && ours.contains("://") && bare(ours) == bare(audience);
        self.audiences.iter().any(|ours| ours == audience || uri(ours))
    }

    /// Whether a published key whose own `issuer` member says `member` signs for this issuer: Entra publishes the keys
    /// of other kinds of accounts beside a tenant's, with `{tenantid}` standing for any tenant of their kind.
    pub(super) fn owns_key(&self, member: &str) -> bool {
        match &self.dialect {
            Dialect::Entra(entra) => {
                let named = member.replace("{tenantid}", &entra.tenant.to_string());
                named == entra.url() || named == entra.v2_url()
            }
            Dialect::Oidc(oidc) => member == oidc.url,
        }
    }
}

impl Entra {
    fn url(&self) -> String {
        match self.version {
            Version::V1 => self.v1_url(),
            Version::V2 => self.v2_url(),
        }
    }

    /// The tenant's `iss` and `idp` of version 1.0; with a trailing slash.
    pub(super) fn v1_url(&self) -> String {
        format!("{}/{}/", self.v1_authority, self.tenant)
    }

    /// The tenant's `iss` of version 2.0; without.
    pub(super) fn v2_url(&self) -> String {
        format!("{}/{}/v2.0", self.authority, self.tenant)
    }
}
